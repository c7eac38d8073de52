//! One header value as text, with the code of its type.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    json::{value_from_json, value_to_json},
    number::{rfc3339_from_ms, rfc3339_to_ms},
};
use crate::value::Value;

/// Codes of texts that hold a character the target forbids, so they are base64.
const STR64: &str = "str64";
const SYM64: &str = "sym64";
const CHAR64: &str = "char64";

/// The code of the value's type.
pub fn code_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::I8(_) => "i8",
        Value::U8(_) => "u8",
        Value::I16(_) => "i16",
        Value::U16(_) => "u16",
        Value::I32(_) => "i32",
        Value::U32(_) => "u32",
        Value::I64(_) => "i64",
        Value::U64(_) => "u64",
        Value::F32(_) => "f32",
        Value::F64(_) => "f64",
        Value::Decimal { .. } => "dec",
        Value::Timestamp(_) => "ts",
        Value::Uuid(_) => "uuid",
        Value::Bytes(_) => "bytes",
        Value::LongString(_) => "lstr",
        Value::String(_) => "str",
        Value::Symbol(_) => "sym",
        Value::Char(_) => "char",
        Value::List(_) => "list",
        Value::Map(_) => "map",
    }
}

/// The value as text, and the code to list in `x-mq-types`; no code for a string that means itself.
///
/// `forbids` names the characters that the target's texts cannot hold.
pub fn value_to_text(value: &Value, forbids: fn(char) -> bool) -> (String, Option<&'static str>) {
    let text = match value {
        Value::Null => String::new(),
        Value::Bool(v) => v.to_string(),
        Value::I8(v) => v.to_string(),
        Value::U8(v) => v.to_string(),
        Value::I16(v) => v.to_string(),
        Value::U16(v) => v.to_string(),
        Value::I32(v) => v.to_string(),
        Value::U32(v) => v.to_string(),
        Value::I64(v) => v.to_string(),
        Value::U64(v) => v.to_string(),
        // The form for debugging is the shortest that reads back exactly, with an exponent where
        // that is shorter.
        Value::F32(v) => format!("{v:?}"),
        Value::F64(v) => format!("{v:?}"),
        Value::Decimal { scale, unscaled } => decimal_to_text(*scale, *unscaled),
        Value::Timestamp(ms) => rfc3339_from_ms(*ms),
        Value::Uuid(bytes) => uuid_to_text(bytes),
        Value::Bytes(bytes) | Value::LongString(bytes) => STANDARD.encode(bytes),
        Value::String(text) => {
            let forbidden = text.contains(forbids);
            let text = if forbidden { STANDARD.encode(text) } else { text.clone() };
            return (text, forbidden.then_some(STR64));
        }
        Value::Symbol(text) if text.contains(forbids) => {
            return (STANDARD.encode(text), Some(SYM64));
        }
        Value::Symbol(text) => text.clone(),
        Value::Char(c) if forbids(*c) => {
            return (STANDARD.encode(c.to_string()), Some(CHAR64));
        }
        Value::Char(c) => c.to_string(),
        Value::List(_) | Value::Map(_) => value_to_json(value),
    };
    (text, Some(code_of(value)))
}

/// Reads a value by the code of its type; `None` when the code is unknown or the text does not fit
/// it.
pub fn value_from_text(text: &str, code: &str) -> Option<Value> {
    let base64 = || STANDARD.decode(text).ok();
    let base64_text = || String::from_utf8(base64()?).ok();
    Some(match code {
        "null" if text.is_empty() => Value::Null,
        "bool" => Value::Bool(text.parse().ok()?),
        "i8" => Value::I8(text.parse().ok()?),
        "u8" => Value::U8(text.parse().ok()?),
        "i16" => Value::I16(text.parse().ok()?),
        "u16" => Value::U16(text.parse().ok()?),
        "i32" => Value::I32(text.parse().ok()?),
        "u32" => Value::U32(text.parse().ok()?),
        "i64" => Value::I64(text.parse().ok()?),
        "u64" => Value::U64(text.parse().ok()?),
        "f32" => Value::F32(text.parse().ok()?),
        "f64" => Value::F64(text.parse().ok()?),
        "dec" => {
            let (scale, unscaled) = decimal_from_text(text)?;
            Value::Decimal { scale, unscaled }
        }
        "ts" => Value::Timestamp(rfc3339_to_ms(text)?),
        "uuid" => Value::Uuid(uuid_from_text(text)?),
        "bytes" => Value::Bytes(base64()?),
        "lstr" => Value::LongString(base64()?),
        "str" => Value::String(text.to_owned()),
        STR64 => Value::String(base64_text()?),
        "sym" => Value::Symbol(text.to_owned()),
        SYM64 => Value::Symbol(base64_text()?),
        "char" => Value::Char(only_char(text)?),
        CHAR64 => Value::Char(only_char(&base64_text()?)?),
        "list" => value_from_json(text).filter(|value| matches!(value, Value::List(_)))?,
        "map" => value_from_json(text).filter(|value| matches!(value, Value::Map(_)))?,
        _ => return None,
    })
}

fn only_char(text: &str) -> Option<char> {
    let mut chars = text.chars();
    chars.next().filter(|_| chars.next().is_none())
}

/// Digits with the point that the scale asks for: 1250 with scale 2 is `12.50`.
fn decimal_to_text(scale: u8, unscaled: i128) -> String {
    let scale = usize::from(scale);
    let sign = if unscaled < 0 { "-" } else { "" };
    let width = scale + 1;
    let digits = format!("{:0>width$}", unscaled.unsigned_abs());
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let point = if scale > 0 { "." } else { "" };
    format!("{sign}{whole}{point}{fraction}")
}

fn decimal_from_text(text: &str) -> Option<(u8, i128)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    let plain = !digits.is_empty()
        && digits.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_digit());
    if !plain {
        return None;
    }
    let scale = u8::try_from(fraction.len()).ok()?;
    Some((scale, format!("{whole}{fraction}").parse().ok()?))
}

/// 8-4-4-4-12 digits in lower case.
pub(super) fn uuid_to_text(bytes: &[u8; 16]) -> String {
    let mut out = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

pub(super) fn uuid_from_text(text: &str) -> Option<[u8; 16]> {
    let bytes = text.as_bytes();
    let dashes = [8, 13, 18, 23].iter().all(|at| bytes.get(*at) == Some(&b'-'));
    let digits: Vec<u8> = bytes.iter().copied().filter(|b| *b != b'-').collect();
    if bytes.len() != 36 || digits.len() != 32 || !dashes {
        return None;
    }
    let mut out = [0; 16];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| !pair.contains('+'))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(out)
}
