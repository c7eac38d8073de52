//! Writes the data types of section 1.5, properties, and the packets that a server sends besides
//! PUBLISH.

use bytes::{BufMut, BytesMut};

use super::{PacketKind, Reason, Version, property::id};

/// The largest value of a variable byte integer.
pub const VAR_INT_MAX: usize = 268_435_455;

/// Bytes that a variable byte integer takes.
pub fn var_int_len(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// Writes a variable byte integer; values above [`VAR_INT_MAX`] lose their highest bits.
pub fn put_var_int(out: &mut impl BufMut, value: usize) {
    let mut rest = value.min(VAR_INT_MAX);
    loop {
        let [low, ..] = rest.to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            out.put_u8(low & 0x7F);
            return;
        }
        out.put_u8(low | 0x80);
    }
}

/// Writes bytes behind their length. What is longer than 65,535 bytes is cut; callers check first.
pub fn put_binary(out: &mut impl BufMut, bytes: &[u8]) {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.put_u16(len);
    out.put_slice(bytes.get(..usize::from(len)).unwrap_or(bytes));
}

/// Properties of a packet, collected so that their length can be written first.
#[derive(Debug, Default)]
pub struct Properties(Vec<u8>);

impl Properties {
    /// An empty collection in the memory of `buffer`.
    pub fn reuse(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self(buffer)
    }

    /// The bytes, without their length.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Gives the memory back.
    pub fn into_buffer(self) -> Vec<u8> {
        self.0
    }

    /// Adds a byte.
    pub fn u8(&mut self, id: u8, value: u8) {
        self.0.extend_from_slice(&[id, value]);
    }

    /// Adds two bytes.
    pub fn u16(&mut self, id: u8, value: u16) {
        self.0.push(id);
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// Adds four bytes.
    pub fn u32(&mut self, id: u8, value: u32) {
        self.0.push(id);
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// Adds a variable byte integer.
    pub fn var_int(&mut self, id: u8, value: u32) {
        self.0.push(id);
        put_var_int(&mut self.0, usize::try_from(value).unwrap_or(VAR_INT_MAX));
    }

    /// Adds a string or bytes.
    pub fn binary(&mut self, id: u8, bytes: &[u8]) {
        self.0.push(id);
        put_binary(&mut self.0, bytes);
    }

    /// Adds a user property.
    pub fn user(&mut self, name: &str, value: &str) {
        self.0.push(id::USER_PROPERTY);
        put_binary(&mut self.0, name.as_bytes());
        put_binary(&mut self.0, value.as_bytes());
    }

    /// Adds properties that are encoded already.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Writes length and properties.
    pub fn put(&self, out: &mut impl BufMut) {
        put_var_int(out, self.0.len());
        out.put_slice(&self.0);
    }

    /// Bytes that [`Properties::put`] writes.
    pub fn encoded_len(&self) -> usize {
        self.0.len().saturating_add(var_int_len(self.0.len()))
    }
}

/// The longest reason string that is sent.
const REASON_STRING_BYTES_MAX: usize = 1024;

/// Properties that hold a reason string, if there is one, cut at a character.
pub fn reason_string(text: Option<&str>) -> Properties {
    let mut properties = Properties::default();
    if let Some(text) = text {
        let end = text.floor_char_boundary(REASON_STRING_BYTES_MAX);
        let text = text.get(..end).unwrap_or(text);
        properties.binary(id::REASON_STRING, text.as_bytes());
    }
    properties
}

/// Writes PUBACK, PUBREC, PUBREL or PUBCOMP, as short as the specification permits.
pub fn put_ack(
    out: &mut BytesMut,
    kind: PacketKind,
    packet_id: u16,
    reason: Reason,
    properties: Option<&Properties>,
) {
    out.put_u8(kind.first_byte());
    let Some(properties) = properties else {
        let is_success = reason == Reason::SUCCESS;
        out.put_u8(if is_success { 2 } else { 3 });
        out.put_u16(packet_id);
        if !is_success {
            out.put_u8(reason.0);
        }
        return;
    };
    put_var_int(out, properties.encoded_len().saturating_add(3));
    out.put_u16(packet_id);
    out.put_u8(reason.0);
    properties.put(out);
}

/// Writes SUBACK.
pub fn put_suback(out: &mut BytesMut, version: Version, packet_id: u16, codes: &[u8]) {
    put_codes(out, PacketKind::Suback, version, packet_id, codes);
}

/// Writes UNSUBACK, which has codes in MQTT 5 only.
pub fn put_unsuback(out: &mut BytesMut, version: Version, packet_id: u16, codes: &[u8]) {
    let codes = if version == Version::V5 { codes } else { &[] };
    put_codes(out, PacketKind::Unsuback, version, packet_id, codes);
}

fn put_codes(out: &mut BytesMut, kind: PacketKind, version: Version, packet_id: u16, codes: &[u8]) {
    let properties = usize::from(version == Version::V5);
    out.put_u8(kind.first_byte());
    put_var_int(out, codes.len().saturating_add(2).saturating_add(properties));
    out.put_u16(packet_id);
    if version == Version::V5 {
        out.put_u8(0);
    }
    out.put_slice(codes);
}

/// Writes PINGRESP.
pub fn put_pingresp(out: &mut BytesMut) {
    out.put_slice(&[PacketKind::Pingresp.first_byte(), 0]);
}

/// Writes DISCONNECT or AUTH of MQTT 5, as short as the specification permits.
pub fn put_reason(out: &mut BytesMut, kind: PacketKind, reason: Reason, properties: &Properties) {
    out.put_u8(kind.first_byte());
    if properties.as_bytes().is_empty() {
        if reason == Reason::SUCCESS {
            out.put_u8(0);
        } else {
            out.put_slice(&[1, reason.0]);
        }
        return;
    }
    put_var_int(out, properties.encoded_len().saturating_add(1));
    out.put_u8(reason.0);
    properties.put(out);
}
