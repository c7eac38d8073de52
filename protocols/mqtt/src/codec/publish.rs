//! PUBLISH: section 3.3.

use bytes::{BufMut, BytesMut};

use super::{
    Fault, Reader, Version,
    writer::{put_binary, put_var_int, var_int_len},
};

/// A PUBLISH packet as received. Its properties are not checked yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Sent before.
    pub dup: bool,
    /// Quality of service.
    pub qos: u8,
    /// Retain flag.
    pub retain: bool,
    /// Topic name; empty when an alias stands for it.
    pub topic: &'a str,
    /// Packet identifier; 0 with quality of service 0.
    pub packet_id: u16,
    /// Properties without their length.
    pub properties: &'a [u8],
    /// The application's bytes.
    pub payload: &'a [u8],
}

impl<'a> Publish<'a> {
    /// Reads what follows the fixed header.
    ///
    /// Errors: a fault when the bytes are malformed.
    pub fn decode(flags: u8, body: &'a [u8], version: Version) -> Result<Self, Fault> {
        let qos = (flags >> 1) & 3;
        let dup = flags & 8 != 0;
        if qos == 3 {
            return Err(Fault::malformed("PUBLISH has quality of service 3"));
        }
        // [MQTT-3.3.1-2]; version 3.1 does not say so.
        if dup && qos == 0 && version != Version::V31 {
            return Err(Fault::malformed("PUBLISH of quality of service 0 has the DUP flag"));
        }
        let mut reader = Reader::new(body);
        let topic = reader.text()?;
        let packet_id = if qos > 0 { reader.packet_id()? } else { 0 };
        let properties = if version == Version::V5 { reader.properties()? } else { &[] };
        Ok(Self {
            dup,
            qos,
            retain: flags & 1 != 0,
            topic,
            packet_id,
            properties,
            payload: reader.rest(),
        })
    }
}

/// What stands before the payload of a PUBLISH packet to send.
#[derive(Debug, Clone, Copy)]
pub struct PublishHead<'a> {
    /// The version of the receiver.
    pub version: Version,
    /// Sent before.
    pub dup: bool,
    /// Quality of service.
    pub qos: u8,
    /// Retain flag.
    pub retain: bool,
    /// Topic name.
    pub topic: &'a str,
    /// Packet identifier, when the quality of service is above 0.
    pub packet_id: u16,
    /// Properties without their length, for MQTT 5.
    pub properties: &'a [u8],
}

impl PublishHead<'_> {
    /// Bytes between the fixed header and the payload.
    fn variable_len(&self) -> usize {
        let id = if self.qos > 0 { 2 } else { 0 };
        let properties = match self.version {
            Version::V5 => self.properties.len().saturating_add(var_int_len(self.properties.len())),
            Version::V31 | Version::V311 => 0,
        };
        self.topic.len().saturating_add(2).saturating_add(id).saturating_add(properties)
    }

    /// Bytes of the whole packet with a payload of `payload_bytes`.
    pub fn packet_len(&self, payload_bytes: usize) -> usize {
        let remaining = self.variable_len().saturating_add(payload_bytes);
        remaining.saturating_add(var_int_len(remaining)).saturating_add(1)
    }

    /// Writes everything before a payload of `payload_bytes`.
    pub fn put(&self, out: &mut BytesMut, payload_bytes: usize) {
        let flags = u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain);
        out.put_u8(0x30 | flags);
        put_var_int(out, self.variable_len().saturating_add(payload_bytes));
        put_binary(out, self.topic.as_bytes());
        if self.qos > 0 {
            out.put_u16(self.packet_id);
        }
        if self.version == Version::V5 {
            put_var_int(out, self.properties.len());
            out.put_slice(self.properties);
        }
    }
}
