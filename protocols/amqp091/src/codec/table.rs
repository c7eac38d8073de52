//! Field tables: a check that no nesting can exhaust, a decoder that keeps order, an encoder.

use bytes::BufMut;
use polymq_model::{Table, Value, carry::value_to_text};

use super::{
    frame::put_short,
    reader::{Malformed, Reader},
};

/// What a table may hold.
#[derive(Debug, Clone, Copy)]
pub struct TableBounds {
    /// Tables and arrays inside each other.
    pub depth_max: usize,
    /// Entries of each table or array.
    pub entries_max: usize,
}

/// Bounds for bytes that were checked when they entered, or that only our own store holds.
pub const DECODE_BOUNDS: TableBounds = TableBounds { depth_max: 32, entries_max: usize::MAX };

/// Why a table is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Truncated, or a field type that does not exist.
    #[error("malformed field table")]
    Malformed,
    /// Nested too deeply.
    #[error("field table is nested deeper than {0} levels")]
    TooDeep(usize),
    /// Too many entries.
    #[error("field table has more than {0} entries")]
    TooManyEntries(usize),
}

impl From<Malformed> for TableError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// Where [`check`] stands inside one table or array.
struct Level<'a> {
    reader: Reader<'a>,
    named: bool,
    entries: usize,
}

/// Checks the content of a table, without its length, in a loop and not by recursion.
///
/// Everything else in this crate that reads tables relies on this having been called.
///
/// Errors: [`TableError`].
pub fn check(content: &[u8], bounds: TableBounds) -> Result<(), TableError> {
    let mut current = Level { reader: Reader::new(content), named: true, entries: 0 };
    let mut outer: Vec<Level<'_>> = Vec::new();
    loop {
        if current.reader.is_empty() {
            match outer.pop() {
                Some(level) => current = level,
                None => return Ok(()),
            }
            continue;
        }
        current.entries = current.entries.saturating_add(1);
        if current.entries > bounds.entries_max {
            return Err(TableError::TooManyEntries(bounds.entries_max));
        }
        if current.named {
            current.reader.short()?;
        }
        let kind = current.reader.u8()?;
        if matches!(kind, b'F' | b'A') {
            let inner = current.reader.long()?;
            // The outermost table is the first level.
            if outer.len().saturating_add(2) > bounds.depth_max {
                return Err(TableError::TooDeep(bounds.depth_max));
            }
            let level = Level { reader: Reader::new(inner), named: kind == b'F', entries: 0 };
            outer.push(std::mem::replace(&mut current, level));
        } else {
            skip_scalar(&mut current.reader, kind)?;
        }
    }
}

/// Passes over a value that holds no other values.
fn skip_scalar(reader: &mut Reader<'_>, kind: u8) -> Result<(), Malformed> {
    let bytes = match kind {
        b'V' => 0,
        b't' | b'b' | b'B' => 1,
        b's' | b'U' | b'u' => 2,
        b'I' | b'i' | b'f' => 4,
        b'D' => 5,
        b'l' | b'L' | b'd' | b'T' => 8,
        b'S' | b'x' => return reader.long().map(|_| ()),
        _ => return Err(Malformed),
    };
    reader.take(bytes).map(|_| ())
}

/// One entry of a table, undecoded.
#[derive(Debug, Clone, Copy)]
pub struct RawEntry<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// The type of its value.
    pub kind: u8,
    /// The value without type and length.
    pub value: &'a [u8],
    /// All bytes of the entry.
    pub whole: &'a [u8],
}

/// The next entry of a table.
///
/// Errors: [`Malformed`] when the bytes are no entry; what is nested inside is not looked at.
pub fn next_entry<'a>(reader: &mut Reader<'a>) -> Result<RawEntry<'a>, Malformed> {
    let start = reader.rest();
    let name = reader.short()?;
    let kind = reader.u8()?;
    let value = match kind {
        b'S' | b'x' | b'F' | b'A' => reader.long()?,
        _ => {
            let from = reader.rest();
            skip_scalar(reader, kind)?;
            from.get(..from.len().saturating_sub(reader.rest().len())).ok_or(Malformed)?
        }
    };
    let len = start.len().saturating_sub(reader.rest().len());
    Ok(RawEntry { name, kind, value, whole: start.get(..len).ok_or(Malformed)? })
}

/// Checks and decodes the content of a table, without its length. Order and repeated names are
/// kept.
///
/// Errors: [`TableError`].
pub fn decode(content: &[u8], bounds: TableBounds) -> Result<Table, TableError> {
    check(content, bounds)?;
    Ok(table(content)?)
}

fn table(content: &[u8]) -> Result<Table, Malformed> {
    let mut reader = Reader::new(content);
    let mut entries = Table::new();
    while !reader.is_empty() {
        let name = String::from_utf8_lossy(reader.short()?).into_owned();
        entries.push((name, value(&mut reader)?));
    }
    Ok(entries)
}

/// Decodes the value behind its type octet. Recursion is bounded because [`check`] came first.
fn value(reader: &mut Reader<'_>) -> Result<Value, Malformed> {
    Ok(match reader.u8()? {
        b'V' => Value::Null,
        b't' => Value::Bool(reader.u8()? != 0),
        b'b' => Value::I8(i8::from_be_bytes(reader.array()?)),
        b'B' => Value::U8(reader.u8()?),
        b's' | b'U' => Value::I16(i16::from_be_bytes(reader.array()?)),
        b'u' => Value::U16(reader.u16()?),
        b'I' => Value::I32(i32::from_be_bytes(reader.array()?)),
        b'i' => Value::U32(reader.u32()?),
        b'l' | b'L' => Value::I64(i64::from_be_bytes(reader.array()?)),
        b'f' => Value::F32(f32::from_be_bytes(reader.array()?)),
        b'd' => Value::F64(f64::from_be_bytes(reader.array()?)),
        b'D' => {
            let scale = reader.u8()?;
            let unscaled = i128::from(i32::from_be_bytes(reader.array()?));
            Value::Decimal { scale, unscaled }
        }
        b'T' => Value::Timestamp(millis(reader.u64()?)),
        b'S' => text(reader.long()?),
        b'x' => Value::Bytes(reader.long()?.to_vec()),
        b'A' => {
            let mut inner = Reader::new(reader.long()?);
            let mut list = Vec::new();
            while !inner.is_empty() {
                list.push(value(&mut inner)?);
            }
            Value::List(list)
        }
        b'F' => Value::Map(table(reader.long()?)?),
        _ => return Err(Malformed),
    })
}

fn text(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => Value::LongString(bytes.to_vec()),
    }
}

/// Seconds of the wire as milliseconds; too large ones saturate.
pub fn millis(secs: u64) -> i64 {
    i64::try_from(secs).unwrap_or(i64::MAX).saturating_mul(1000)
}

/// Appends a table with its length.
pub fn put_table(out: &mut Vec<u8>, table: &[(String, Value)]) {
    put_sized(out, |out| {
        for (name, value) in table {
            put_entry(out, name, value);
        }
    });
}

/// Appends one entry of a table.
pub fn put_entry(out: &mut Vec<u8>, name: &str, value: &Value) {
    put_short(out, name);
    put_value(out, value);
}

/// Appends what `write` writes behind its length in four octets.
pub fn put_sized(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.put_u32(0);
    write(out);
    let len = out.len().saturating_sub(at).saturating_sub(4);
    let len = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    if let Some(slot) = out.get_mut(at..).and_then(|tail| tail.first_chunk_mut::<4>()) {
        *slot = len;
    }
}

fn put_long(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.put_u8(kind);
    put_sized(out, |out| out.put_slice(bytes));
}

/// Appends a value behind its type octet. Types that AMQP lacks are written as text.
pub fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.put_u8(b'V'),
        Value::Bool(v) => out.put_slice(&[b't', u8::from(*v)]),
        Value::I8(v) => {
            out.put_u8(b'b');
            out.put_i8(*v);
        }
        Value::U8(v) => out.put_slice(&[b'B', *v]),
        Value::I16(v) => {
            out.put_u8(b's');
            out.put_i16(*v);
        }
        Value::U16(v) => {
            out.put_u8(b'u');
            out.put_u16(*v);
        }
        Value::I32(v) => {
            out.put_u8(b'I');
            out.put_i32(*v);
        }
        Value::U32(v) => {
            out.put_u8(b'i');
            out.put_u32(*v);
        }
        Value::I64(v) => put_i64(out, *v),
        Value::U64(v) => match i64::try_from(*v) {
            Ok(v) => put_i64(out, v),
            Err(_) => put_text(out, value),
        },
        Value::F32(v) => {
            out.put_u8(b'f');
            out.put_f32(*v);
        }
        Value::F64(v) => {
            out.put_u8(b'd');
            out.put_f64(*v);
        }
        Value::Decimal { scale, unscaled } => match i32::try_from(*unscaled) {
            Ok(small) => {
                out.put_slice(&[b'D', *scale]);
                out.put_i32(small);
            }
            Err(_) => put_text(out, value),
        },
        Value::Timestamp(ms) => put_timestamp(out, *ms),
        Value::Uuid(_) | Value::Char(_) => put_text(out, value),
        Value::Bytes(bytes) => put_long(out, b'x', bytes),
        Value::LongString(bytes) => put_long(out, b'S', bytes),
        Value::String(text) | Value::Symbol(text) => put_long(out, b'S', text.as_bytes()),
        Value::List(list) => {
            out.put_u8(b'A');
            put_sized(out, |out| list.iter().for_each(|value| put_value(out, value)));
        }
        Value::Map(table) => {
            out.put_u8(b'F');
            put_table(out, table);
        }
    }
}

fn put_i64(out: &mut Vec<u8>, value: i64) {
    out.put_u8(b'l');
    out.put_i64(value);
}

/// Whole seconds are a timestamp of the wire; anything finer, or before 1970, is a number.
fn put_timestamp(out: &mut Vec<u8>, ms: i64) {
    match u64::try_from(ms) {
        Ok(ms) if ms.is_multiple_of(1000) => {
            out.put_u8(b'T');
            out.put_u64(ms.checked_div(1000).unwrap_or(0));
        }
        _ => put_i64(out, ms),
    }
}

fn put_text(out: &mut Vec<u8>, value: &Value) {
    put_long(out, b'S', value_to_text(value, |_| false).0.as_bytes());
}
