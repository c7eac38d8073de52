//! CONNECT: section 3.1.

use super::{
    Fault, Reader, Reason, Version,
    property::{Place, PropertyReader, Value, id},
};

/// A CONNECT packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version it asks for.
    pub version: Version,
    /// Clean session, or clean start in MQTT 5.
    pub clean_start: bool,
    /// Seconds, 0 for none.
    pub keep_alive_secs: u16,
    /// Client identifier; may be empty.
    pub client_id: &'a str,
    /// The will.
    pub will: Option<Will<'a>>,
    /// User name.
    pub user: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
    /// Properties, with their defaults in MQTT 3.
    pub properties: ConnectProperties<'a>,
}

/// The will of a CONNECT packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Will<'a> {
    /// Where it goes.
    pub topic: &'a str,
    /// What it says.
    pub payload: &'a [u8],
    /// Its quality of service.
    pub qos: u8,
    /// Its retain flag.
    pub retain: bool,
    /// Its properties, checked, without their length.
    pub properties: &'a [u8],
}

/// Properties of CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectProperties<'a> {
    /// Seconds that the session outlives its connection.
    pub session_expiry_secs: u32,
    /// Unacknowledged publishes the client takes.
    pub receive_max: Option<u16>,
    /// Largest packet the client takes.
    pub packet_bytes_max: Option<u32>,
    /// Topic aliases the client takes.
    pub topic_alias_max: u16,
    /// The client asks for response information.
    pub request_response: bool,
    /// The client wants reason strings.
    pub request_problem: bool,
    /// Method of an enhanced authentication.
    pub auth_method: Option<&'a str>,
    /// Its first message.
    pub auth_data: Option<&'a [u8]>,
}

impl Default for ConnectProperties<'_> {
    fn default() -> Self {
        Self {
            session_expiry_secs: 0,
            receive_max: None,
            packet_bytes_max: None,
            topic_alias_max: 0,
            request_response: false,
            request_problem: true,
            auth_method: None,
            auth_data: None,
        }
    }
}

/// Why a CONNECT cannot be taken, and in which version to say so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct ConnectFault {
    /// The version of the answer; `None` when only closing is possible.
    pub version: Option<Version>,
    /// What is wrong.
    pub fault: Fault,
}

impl<'a> Connect<'a> {
    /// Reads what follows the fixed header. A packet has at most `entries_max` user properties.
    ///
    /// Errors: the fault, and the version to answer in.
    pub fn decode(body: &'a [u8], entries_max: usize) -> Result<Self, ConnectFault> {
        let mut reader = Reader::new(body);
        let version = version(&mut reader)?;
        Self::decode_rest(&mut reader, version, entries_max)
            .map_err(|fault| ConnectFault { version: Some(version), fault })
    }

    fn decode_rest(
        reader: &mut Reader<'a>,
        version: Version,
        entries_max: usize,
    ) -> Result<Self, Fault> {
        let flags = reader.u8()?;
        // MQTT 3.1 calls the lowest bit unused; later versions demand that it is 0 [MQTT-3.1.2-3].
        if flags & 1 != 0 && version != Version::V31 {
            return Err(Fault::malformed("the reserved flag of CONNECT is set"));
        }
        let (has_user, has_password) = (flags & 0x80 != 0, flags & 0x40 != 0);
        // [MQTT-3.1.2-22] of version 3.1.1; version 5 permits a password alone.
        if has_password && !has_user && version != Version::V5 {
            return Err(Fault::malformed("CONNECT has a password and no user name"));
        }
        let keep_alive_secs = reader.u16()?;
        let properties = match version {
            Version::V5 => connect_properties(reader.properties()?, entries_max)?,
            Version::V31 | Version::V311 => ConnectProperties::default(),
        };
        let client_id = reader.text()?;
        let will = will(reader, flags, version, entries_max)?;
        // Section 3.1 of MQTT 3.1: the remaining length counts more than the flags do.
        let ends = |reader: &Reader<'_>| version == Version::V31 && reader.is_empty();
        let user = if has_user && !ends(reader) { Some(reader.text()?) } else { None };
        let password = if has_password && !ends(reader) { Some(reader.binary()?) } else { None };
        reader.finish()?;
        Ok(Self {
            version,
            clean_start: flags & 2 != 0,
            keep_alive_secs,
            client_id,
            will,
            user,
            password,
            properties,
        })
    }
}

/// Reads protocol name and level.
fn version(reader: &mut Reader<'_>) -> Result<Version, ConnectFault> {
    let silent = |fault| ConnectFault { version: None, fault };
    let name = reader.binary().map_err(silent)?;
    let level = reader.u8().map_err(silent)?;
    let unsupported = |version| ConnectFault {
        version: Some(version),
        fault: Fault::new(
            Reason::UNSUPPORTED_VERSION,
            format!("protocol level {level} is not supported; 3, 4 and 5 are"),
        ),
    };
    match (name, level) {
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        (b"MQIsdp", 3) => Ok(Version::V31),
        // Levels from 0x80 are asked for by bridges of MQTT 3, which understand the answer of MQTT
        // 3.
        (b"MQTT", 6..=0x7F) => Err(unsupported(Version::V5)),
        (b"MQTT" | b"MQIsdp", _) => Err(unsupported(Version::V311)),
        _ => Err(silent(Fault::new(Reason::UNSUPPORTED_VERSION, "the protocol name is not MQTT"))),
    }
}

fn connect_properties(bytes: &[u8], entries_max: usize) -> Result<ConnectProperties<'_>, Fault> {
    let mut found = ConnectProperties::default();
    let mut reader = PropertyReader::new(bytes, Place::Connect, entries_max);
    while let Some(property) = reader.next_property()? {
        match (property.id, property.value) {
            (id::SESSION_EXPIRY, Value::Four(secs)) => found.session_expiry_secs = secs,
            (id::RECEIVE_MAXIMUM, Value::Two(max)) => found.receive_max = Some(max),
            (id::MAXIMUM_PACKET_SIZE, Value::Four(max)) => found.packet_bytes_max = Some(max),
            (id::TOPIC_ALIAS_MAXIMUM, Value::Two(max)) => found.topic_alias_max = max,
            (id::REQUEST_RESPONSE, Value::Byte(byte)) => found.request_response = byte == 1,
            (id::REQUEST_PROBLEM, Value::Byte(byte)) => found.request_problem = byte == 1,
            (id::AUTHENTICATION_METHOD, Value::Text(method)) => found.auth_method = Some(method),
            (id::AUTHENTICATION_DATA, Value::Binary(data)) => found.auth_data = Some(data),
            _ => {}
        }
    }
    if found.auth_data.is_some() && found.auth_method.is_none() {
        return Err(Fault::protocol("authentication data stands without a method"));
    }
    Ok(found)
}

fn will<'a>(
    reader: &mut Reader<'a>,
    flags: u8,
    version: Version,
    entries_max: usize,
) -> Result<Option<Will<'a>>, Fault> {
    let qos = (flags >> 3) & 3;
    let retain = flags & 0x20 != 0;
    if flags & 4 == 0 {
        // [MQTT-3.1.2-11] and [MQTT-3.1.2-13]; version 3.1 does not say so.
        if (qos != 0 || retain) && version != Version::V31 {
            return Err(Fault::malformed("flags of a will are set without a will"));
        }
        return Ok(None);
    }
    if qos == 3 {
        return Err(Fault::malformed("the will asks for quality of service 3"));
    }
    let properties = match version {
        Version::V5 => {
            let bytes = reader.properties()?;
            PropertyReader::new(bytes, Place::Will, entries_max).check_all()?;
            bytes
        }
        Version::V31 | Version::V311 => &[],
    };
    let topic = reader.text()?;
    let payload = reader.binary()?;
    Ok(Some(Will { topic, payload, qos, retain, properties }))
}
