//! PUBACK, PUBREC, PUBREL, PUBCOMP, DISCONNECT and AUTH as a client sends them.

use super::{
    Fault, PacketKind, Reader, Reason, Version,
    property::{Place, PropertyReader, Value, id},
};

/// One of the four acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The flow it belongs to.
    pub packet_id: u16,
    /// How it went; always success in MQTT 3.
    pub reason: Reason,
    /// The reason string, if there is one.
    pub text: Option<&'a str>,
}

impl<'a> Ack<'a> {
    /// Reads what follows the fixed header: sections 3.4 to 3.7.
    ///
    /// Errors: a fault when the bytes are malformed or the reason code does not exist for this
    /// packet.
    pub fn decode(
        kind: PacketKind,
        body: &'a [u8],
        version: Version,
        entries_max: usize,
    ) -> Result<Self, Fault> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        if reader.is_empty() {
            return Ok(Self { packet_id, reason: Reason::SUCCESS, text: None });
        }
        if version != Version::V5 {
            return Err(Fault::malformed("bytes follow the packet identifier"));
        }
        let reason = reader.u8()?;
        let known: &[u8] = match kind {
            PacketKind::Puback | PacketKind::Pubrec => {
                &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]
            }
            _ => &[0x00, 0x92],
        };
        if !known.contains(&reason) {
            return Err(Fault::protocol("the reason code does not exist for this packet"));
        }
        let mut text = None;
        if !reader.is_empty() {
            let mut properties = PropertyReader::new(reader.properties()?, Place::Ack, entries_max);
            while let Some(property) = properties.next_property()? {
                if let (id::REASON_STRING, Value::Text(found)) = (property.id, property.value) {
                    text = Some(found);
                }
            }
        }
        reader.finish()?;
        Ok(Self { packet_id, reason: Reason(reason), text })
    }
}

/// DISCONNECT: section 3.14.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnect {
    /// Why; success in MQTT 3.
    pub reason: Reason,
    /// A new session expiry in seconds.
    pub session_expiry_secs: Option<u32>,
}

impl Disconnect {
    /// Reads what follows the fixed header.
    ///
    /// Errors: a fault when the bytes are malformed or the reason code is none that a client sends.
    pub fn decode(body: &[u8], version: Version, entries_max: usize) -> Result<Self, Fault> {
        let mut found = Self { reason: Reason::SUCCESS, session_expiry_secs: None };
        let mut reader = Reader::new(body);
        if reader.is_empty() {
            return Ok(found);
        }
        if version != Version::V5 {
            return Err(Fault::malformed("DISCONNECT is not empty"));
        }
        let reason = reader.u8()?;
        let known =
            [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];
        if !known.contains(&reason) {
            return Err(Fault::protocol("a client does not send this reason for DISCONNECT"));
        }
        found.reason = Reason(reason);
        if reader.is_empty() {
            return Ok(found);
        }
        let mut properties =
            PropertyReader::new(reader.properties()?, Place::Disconnect, entries_max);
        while let Some(property) = properties.next_property()? {
            if let (id::SESSION_EXPIRY, Value::Four(secs)) = (property.id, property.value) {
                found.session_expiry_secs = Some(secs);
            }
        }
        reader.finish()?;
        Ok(found)
    }
}

/// AUTH: section 3.15.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Which step.
    pub reason: Reason,
    /// The method.
    pub method: &'a str,
    /// Its message.
    pub data: &'a [u8],
}

impl<'a> Auth<'a> {
    /// Reads what follows the fixed header.
    ///
    /// Errors: a fault when the bytes are malformed, the reason is none of a client, or the method
    /// is missing.
    pub fn decode(body: &'a [u8], entries_max: usize) -> Result<Self, Fault> {
        let mut reader = Reader::new(body);
        let reason = if reader.is_empty() { Reason::SUCCESS } else { Reason(reader.u8()?) };
        if !matches!(reason, Reason::CONTINUE_AUTHENTICATION | Reason::RE_AUTHENTICATE) {
            return Err(Fault::protocol("a client does not send this reason for AUTH"));
        }
        let (mut method, mut data): (Option<&str>, &[u8]) = (None, &[]);
        let bytes = if reader.is_empty() { &[] } else { reader.properties()? };
        let mut properties = PropertyReader::new(bytes, Place::Auth, entries_max);
        while let Some(property) = properties.next_property()? {
            match (property.id, property.value) {
                (id::AUTHENTICATION_METHOD, Value::Text(text)) => method = Some(text),
                (id::AUTHENTICATION_DATA, Value::Binary(bytes)) => data = bytes,
                _ => {}
            }
        }
        reader.finish()?;
        let method = method.ok_or_else(|| Fault::protocol("AUTH names no method"))?;
        Ok(Self { reason, method, data })
    }
}
