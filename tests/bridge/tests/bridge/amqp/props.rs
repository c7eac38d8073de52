//! The properties of a message and the values of a table, as RabbitMQ and its clients write them.

use crate::wire::{Cursor, put_long, put_short};

/// A value of a table, one per type on the wire.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Field {
    Bool(bool),
    I8(i8),
    U8(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    F32(f32),
    F64(f64),
    Decimal(u8, i32),
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    List(Vec<Field>),
    Table(Vec<(String, Field)>),
    Time(u64),
    Void,
}

impl Field {
    pub(crate) fn text(value: &str) -> Self {
        Self::Text(value.as_bytes().to_vec())
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        let mut tagged = |code: u8, bytes: &[u8]| {
            out.push(code);
            out.extend_from_slice(bytes);
        };
        match self {
            Self::Bool(value) => tagged(b't', &[u8::from(*value)]),
            Self::I8(value) => tagged(b'b', &value.to_be_bytes()),
            Self::U8(value) => tagged(b'B', &value.to_be_bytes()),
            Self::I16(value) => tagged(b's', &value.to_be_bytes()),
            Self::U16(value) => tagged(b'u', &value.to_be_bytes()),
            Self::I32(value) => tagged(b'I', &value.to_be_bytes()),
            Self::U32(value) => tagged(b'i', &value.to_be_bytes()),
            Self::I64(value) => tagged(b'l', &value.to_be_bytes()),
            Self::F32(value) => tagged(b'f', &value.to_be_bytes()),
            Self::F64(value) => tagged(b'd', &value.to_be_bytes()),
            Self::Decimal(scale, value) => {
                tagged(b'D', &[*scale]);
                out.extend_from_slice(&value.to_be_bytes());
            }
            Self::Text(bytes) => {
                tagged(b'S', &[]);
                put_long(out, bytes);
            }
            Self::Bytes(bytes) => {
                tagged(b'x', &[]);
                put_long(out, bytes);
            }
            Self::List(items) => {
                let mut list = Vec::new();
                items.iter().for_each(|item| item.put(&mut list));
                tagged(b'A', &[]);
                put_long(out, &list);
            }
            Self::Table(entries) => {
                tagged(b'F', &[]);
                put_long(out, &encode_table(entries));
            }
            Self::Time(seconds) => tagged(b'T', &seconds.to_be_bytes()),
            Self::Void => tagged(b'V', &[]),
        }
    }

    fn take(cursor: &mut Cursor<'_>) -> Self {
        match cursor.u8() {
            b't' => Self::Bool(cursor.u8() != 0),
            b'b' => Self::I8(i8::from_be_bytes(cursor.array())),
            b'B' => Self::U8(cursor.u8()),
            b's' => Self::I16(i16::from_be_bytes(cursor.array())),
            b'u' => Self::U16(cursor.u16()),
            b'I' => Self::I32(i32::from_be_bytes(cursor.array())),
            b'i' => Self::U32(cursor.u32()),
            b'l' => Self::I64(i64::from_be_bytes(cursor.array())),
            b'f' => Self::F32(f32::from_be_bytes(cursor.array())),
            b'd' => Self::F64(f64::from_be_bytes(cursor.array())),
            b'D' => Self::Decimal(cursor.u8(), i32::from_be_bytes(cursor.array())),
            b'S' => Self::Text(cursor.long().to_vec()),
            b'x' => Self::Bytes(cursor.long().to_vec()),
            b'A' => {
                let mut list = Cursor(cursor.long());
                let mut items = Vec::new();
                while !list.is_empty() {
                    items.push(Self::take(&mut list));
                }
                Self::List(items)
            }
            b'F' => Self::Table(decode_table(cursor.long())),
            b'T' => Self::Time(cursor.u64()),
            b'V' => Self::Void,
            other => panic!("no table holds a value of type {:?}", char::from(other)),
        }
    }
}

/// A table without its length.
pub(crate) fn table(entries: &[(&str, Field)]) -> Vec<u8> {
    let entries: Vec<_> = entries.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
    encode_table(&entries)
}

fn encode_table(entries: &[(String, Field)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in entries {
        put_short(&mut out, name.as_bytes());
        value.put(&mut out);
    }
    out
}

fn decode_table(bytes: &[u8]) -> Vec<(String, Field)> {
    let mut cursor = Cursor(bytes);
    let mut entries = Vec::new();
    while !cursor.is_empty() {
        entries.push((cursor.short(), Field::take(&mut cursor)));
    }
    entries
}

/// The properties of class `basic`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Props {
    pub(crate) content_type: Option<String>,
    pub(crate) content_encoding: Option<String>,
    pub(crate) headers: Option<Vec<(String, Field)>>,
    pub(crate) delivery_mode: Option<u8>,
    pub(crate) priority: Option<u8>,
    pub(crate) correlation_id: Option<String>,
    pub(crate) reply_to: Option<String>,
    pub(crate) expiration: Option<String>,
    pub(crate) message_id: Option<String>,
    pub(crate) timestamp: Option<u64>,
    pub(crate) kind: Option<String>,
    pub(crate) user_id: Option<String>,
    pub(crate) app_id: Option<String>,
    pub(crate) cluster_id: Option<String>,
}

impl Props {
    pub(crate) fn persistent() -> Self {
        Self { delivery_mode: Some(2), ..Self::default() }
    }

    pub(crate) fn with_headers(headers: &[(&str, Field)]) -> Self {
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
        Self { headers: Some(headers), ..Self::persistent() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&Field> {
        let headers = self.headers.as_ref()?;
        headers.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Flags and list.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut flags = 0u16;
        let mut list = Vec::new();
        let mut short = |bit: u16, value: &Option<String>, list: &mut Vec<u8>| {
            if let Some(value) = value {
                flags |= 1 << bit;
                put_short(list, value.as_bytes());
            }
        };
        short(15, &self.content_type, &mut list);
        short(14, &self.content_encoding, &mut list);
        let mut rest = Vec::new();
        short(10, &self.correlation_id, &mut rest);
        short(9, &self.reply_to, &mut rest);
        short(8, &self.expiration, &mut rest);
        short(7, &self.message_id, &mut rest);
        let mut tail = Vec::new();
        short(5, &self.kind, &mut tail);
        short(4, &self.user_id, &mut tail);
        short(3, &self.app_id, &mut tail);
        short(2, &self.cluster_id, &mut tail);
        if let Some(headers) = &self.headers {
            flags |= 1 << 13;
            put_long(&mut list, &encode_table(headers));
        }
        for (bit, byte) in [(12, self.delivery_mode), (11, self.priority)] {
            if let Some(byte) = byte {
                flags |= 1 << bit;
                list.push(byte);
            }
        }
        list.extend(rest);
        if let Some(timestamp) = self.timestamp {
            flags |= 1 << 6;
            list.extend_from_slice(&timestamp.to_be_bytes());
        }
        list.extend(tail);
        let mut out = flags.to_be_bytes().to_vec();
        out.extend(list);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let mut cursor = Cursor(bytes);
        let flags = cursor.u16();
        let is_set = |bit: u16| flags & (1 << bit) != 0;
        assert_eq!(flags & 3, 0, "there are no further flags");
        let props = Self {
            content_type: is_set(15).then(|| cursor.short()),
            content_encoding: is_set(14).then(|| cursor.short()),
            headers: is_set(13).then(|| decode_table(cursor.long())),
            delivery_mode: is_set(12).then(|| cursor.u8()),
            priority: is_set(11).then(|| cursor.u8()),
            correlation_id: is_set(10).then(|| cursor.short()),
            reply_to: is_set(9).then(|| cursor.short()),
            expiration: is_set(8).then(|| cursor.short()),
            message_id: is_set(7).then(|| cursor.short()),
            timestamp: is_set(6).then(|| cursor.u64()),
            kind: is_set(5).then(|| cursor.short()),
            user_id: is_set(4).then(|| cursor.short()),
            app_id: is_set(3).then(|| cursor.short()),
            cluster_id: is_set(2).then(|| cursor.short()),
        };
        assert!(cursor.is_empty(), "nothing follows the properties");
        props
    }
}
