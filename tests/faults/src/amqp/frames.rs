//! Methods and frames, written field by field.

use super::Id;

pub(super) const METHOD: u8 = 1;
pub(super) const HEADER: u8 = 2;
pub(super) const BODY: u8 = 3;
pub(super) const FRAME_END: u8 = 0xCE;
pub(super) const CHANNEL: u16 = 1;

/// Arguments of a method, written field by field.
#[derive(Debug, Clone)]
pub struct Method(Vec<u8>);

impl Method {
    /// A method without arguments.
    pub fn new((class, method): Id) -> Self {
        Self([class.to_be_bytes(), method.to_be_bytes()].concat())
    }

    /// Adds bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Adds an octet.
    pub fn u8(self, value: u8) -> Self {
        self.raw(&[value])
    }

    /// Adds two octets.
    pub fn u16(self, value: u16) -> Self {
        self.raw(&value.to_be_bytes())
    }

    /// Adds four octets.
    pub fn u32(self, value: u32) -> Self {
        self.raw(&value.to_be_bytes())
    }

    /// Adds eight octets.
    pub fn u64(self, value: u64) -> Self {
        self.raw(&value.to_be_bytes())
    }

    /// Adds a short string, which has up to 255 bytes here.
    pub fn short(self, text: &str) -> Self {
        self.u8(u8::try_from(text.len()).unwrap_or(u8::MAX)).raw(text.as_bytes())
    }

    /// Adds a long string or the content of a table.
    pub fn long(self, bytes: &[u8]) -> Self {
        self.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX)).raw(bytes)
    }

    /// The frame of the method.
    pub fn frame(&self, channel: u16) -> Vec<u8> {
        frame(METHOD, channel, &self.0)
    }
}

/// A value of a field table.
#[derive(Debug, Clone, Copy)]
pub enum Field<'a> {
    /// A whole number.
    Number(i64),
    /// A text.
    Text(&'a str),
}

/// A field table without its length.
pub fn table(fields: &[(&str, Field<'_>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        out.extend(name.as_bytes());
        match value {
            Field::Number(number) => {
                out.push(b'l');
                out.extend(number.to_be_bytes());
            }
            Field::Text(text) => {
                out.push(b'S');
                out.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
                out.extend(text.as_bytes());
            }
        }
    }
    out
}

/// A frame.
pub fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend(channel.to_be_bytes());
    out.extend(u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(payload);
    out.push(FRAME_END);
    out
}

/// The content header of a persistent message.
pub fn content_header(body_bytes: u64) -> Vec<u8> {
    let mut header = vec![0, 60, 0, 0];
    header.extend(body_bytes.to_be_bytes());
    header.extend([0x10, 0x00, 2]);
    frame(HEADER, CHANNEL, &header)
}

/// A body frame.
pub fn body_frame(body: &[u8]) -> Vec<u8> {
    frame(BODY, CHANNEL, body)
}

/// `basic.publish` with a persistent message of one body frame.
pub fn publish(exchange: &str, key: &str, body: &[u8]) -> Vec<u8> {
    let method = Method::new((60, 40)).u16(0).short(exchange).short(key).u8(0);
    let length = u64::try_from(body.len()).unwrap_or(u64::MAX);
    [method.frame(CHANNEL), content_header(length), body_frame(body)].concat()
}

/// As [`publish`], with one header whose value is text.
pub fn publish_with(exchange: &str, key: &str, header: (&str, &str), body: &[u8]) -> Vec<u8> {
    let (name, value) = header;
    let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    let mut table = vec![u8::try_from(name.len()).unwrap_or(u8::MAX)];
    table.extend(name.as_bytes());
    table.push(b'S');
    table.extend(size(value.len()));
    table.extend(value.as_bytes());
    let mut head = vec![0, 60, 0, 0];
    head.extend(u64::try_from(body.len()).unwrap_or(u64::MAX).to_be_bytes());
    head.extend([0x30, 0x00]);
    head.extend(size(table.len()));
    head.extend(table);
    head.push(2);
    let method = Method::new((60, 40)).u16(0).short(exchange).short(key).u8(0);
    [method.frame(CHANNEL), frame(HEADER, CHANNEL, &head), body_frame(body)].concat()
}
