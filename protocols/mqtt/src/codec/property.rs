//! Properties of MQTT 5, section 2.2.2: which exist, where each may stand, and how often.

use super::{Fault, Reader, Reason};

/// Property identifiers.
pub mod id {
    /// Payload format indicator.
    pub const PAYLOAD_FORMAT: u8 = 0x01;
    /// Message expiry interval.
    pub const MESSAGE_EXPIRY: u8 = 0x02;
    /// Content type.
    pub const CONTENT_TYPE: u8 = 0x03;
    /// Response topic.
    pub const RESPONSE_TOPIC: u8 = 0x08;
    /// Correlation data.
    pub const CORRELATION_DATA: u8 = 0x09;
    /// Subscription identifier.
    pub const SUBSCRIPTION_ID: u8 = 0x0B;
    /// Session expiry interval.
    pub const SESSION_EXPIRY: u8 = 0x11;
    /// Assigned client identifier.
    pub const ASSIGNED_CLIENT_ID: u8 = 0x12;
    /// Server keep alive.
    pub const SERVER_KEEP_ALIVE: u8 = 0x13;
    /// Authentication method.
    pub const AUTHENTICATION_METHOD: u8 = 0x15;
    /// Authentication data.
    pub const AUTHENTICATION_DATA: u8 = 0x16;
    /// Request problem information.
    pub const REQUEST_PROBLEM: u8 = 0x17;
    /// Will delay interval.
    pub const WILL_DELAY: u8 = 0x18;
    /// Request response information.
    pub const REQUEST_RESPONSE: u8 = 0x19;
    /// Response information.
    pub const RESPONSE_INFORMATION: u8 = 0x1A;
    /// Server reference.
    pub const SERVER_REFERENCE: u8 = 0x1C;
    /// Reason string.
    pub const REASON_STRING: u8 = 0x1F;
    /// Receive maximum.
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    /// Topic alias maximum.
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    /// Topic alias.
    pub const TOPIC_ALIAS: u8 = 0x23;
    /// Maximum QoS.
    pub const MAXIMUM_QOS: u8 = 0x24;
    /// Retain available.
    pub const RETAIN_AVAILABLE: u8 = 0x25;
    /// User property.
    pub const USER_PROPERTY: u8 = 0x26;
    /// Maximum packet size.
    pub const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    /// Wildcard subscription available.
    pub const WILDCARD_AVAILABLE: u8 = 0x28;
    /// Subscription identifier available.
    pub const SUBSCRIPTION_IDS_AVAILABLE: u8 = 0x29;
    /// Shared subscription available.
    pub const SHARED_AVAILABLE: u8 = 0x2A;
}

/// Where properties stand, as seen by a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// CONNECT.
    Connect,
    /// The will within CONNECT.
    Will,
    /// PUBLISH from a client, which has no subscription identifier [MQTT-3.3.4-6].
    Publish,
    /// PUBACK, PUBREC, PUBREL, PUBCOMP.
    Ack,
    /// SUBSCRIBE.
    Subscribe,
    /// UNSUBSCRIBE.
    Unsubscribe,
    /// DISCONNECT from a client.
    Disconnect,
    /// AUTH.
    Auth,
}

/// The value of a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// One byte.
    Byte(u8),
    /// Two bytes.
    Two(u16),
    /// Four bytes.
    Four(u32),
    /// A variable byte integer.
    Var(u32),
    /// A string.
    Text(&'a str),
    /// Bytes.
    Binary(&'a [u8]),
    /// A user property.
    Pair(&'a str, &'a str),
}

/// A property that is valid in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Property<'a> {
    /// Which one.
    pub id: u8,
    /// Its value.
    pub value: Value<'a>,
}

/// Reads properties one by one and checks each against the table of section 2.2.2.2.
#[derive(Debug)]
pub struct PropertyReader<'a> {
    reader: Reader<'a>,
    place: Place,
    seen: u64,
    entries: usize,
    entries_max: usize,
}

impl<'a> PropertyReader<'a> {
    /// Reads `bytes`, which hold properties without their length.
    pub fn new(bytes: &'a [u8], place: Place, entries_max: usize) -> Self {
        Self { reader: Reader::new(bytes), place, seen: 0, entries: 0, entries_max }
    }

    /// The next property, or `None` at the end.
    ///
    /// Errors: a fault when it is unknown, not allowed here, given twice, or has a value that is
    /// not allowed.
    pub fn next_property(&mut self) -> Result<Option<Property<'a>>, Fault> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let id = self.reader.var_int()?;
        let id = u8::try_from(id).map_err(|_| Fault::malformed("a property is unknown"))?;
        let value = read_value(&mut self.reader, id)?;
        if !is_allowed(id, self.place) {
            return Err(Fault::protocol("a property is not allowed in this packet"));
        }
        if id == id::USER_PROPERTY {
            self.entries = self.entries.saturating_add(1);
            if self.entries > self.entries_max {
                return Err(Fault::new(
                    Reason::QUOTA_EXCEEDED,
                    format!("a packet has more than {} user properties", self.entries_max),
                ));
            }
        } else {
            let bit = 1u64 << (id & 63);
            if self.seen & bit != 0 {
                return Err(Fault::protocol("a property is given twice"));
            }
            self.seen |= bit;
        }
        check_value(id, value)?;
        Ok(Some(Property { id, value }))
    }

    /// Checks all that is left and forgets it.
    pub fn check_all(mut self) -> Result<(), Fault> {
        while self.next_property()?.is_some() {}
        Ok(())
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.reader.rest()
    }
}

/// Reads one property of any place, without the checks of [`PropertyReader`]; for properties that
/// were checked when their message arrived.
pub fn read_stored<'a>(reader: &mut Reader<'a>) -> Result<Property<'a>, Fault> {
    let id = reader.u8()?;
    Ok(Property { id, value: read_value(reader, id)? })
}

fn read_value<'a>(reader: &mut Reader<'a>, id: u8) -> Result<Value<'a>, Fault> {
    Ok(match id {
        id::PAYLOAD_FORMAT
        | id::REQUEST_PROBLEM
        | id::REQUEST_RESPONSE
        | id::MAXIMUM_QOS
        | id::RETAIN_AVAILABLE
        | id::WILDCARD_AVAILABLE
        | id::SUBSCRIPTION_IDS_AVAILABLE
        | id::SHARED_AVAILABLE => Value::Byte(reader.u8()?),
        id::SERVER_KEEP_ALIVE | id::RECEIVE_MAXIMUM | id::TOPIC_ALIAS_MAXIMUM | id::TOPIC_ALIAS => {
            Value::Two(reader.u16()?)
        }
        id::MESSAGE_EXPIRY | id::SESSION_EXPIRY | id::WILL_DELAY | id::MAXIMUM_PACKET_SIZE => {
            Value::Four(reader.u32()?)
        }
        id::SUBSCRIPTION_ID => Value::Var(reader.var_int()?),
        id::CONTENT_TYPE
        | id::RESPONSE_TOPIC
        | id::ASSIGNED_CLIENT_ID
        | id::AUTHENTICATION_METHOD
        | id::RESPONSE_INFORMATION
        | id::SERVER_REFERENCE
        | id::REASON_STRING => Value::Text(reader.text()?),
        id::CORRELATION_DATA | id::AUTHENTICATION_DATA => Value::Binary(reader.binary()?),
        id::USER_PROPERTY => Value::Pair(reader.text()?, reader.text()?),
        _ => return Err(Fault::malformed("a property is unknown")),
    })
}

fn is_allowed(id: u8, place: Place) -> bool {
    use Place::{Ack, Auth, Connect, Disconnect, Publish, Subscribe, Will};
    match id {
        id::PAYLOAD_FORMAT
        | id::MESSAGE_EXPIRY
        | id::CONTENT_TYPE
        | id::RESPONSE_TOPIC
        | id::CORRELATION_DATA => matches!(place, Publish | Will),
        id::SUBSCRIPTION_ID => place == Subscribe,
        id::SESSION_EXPIRY => matches!(place, Connect | Disconnect),
        id::AUTHENTICATION_METHOD | id::AUTHENTICATION_DATA => matches!(place, Connect | Auth),
        id::REQUEST_PROBLEM
        | id::REQUEST_RESPONSE
        | id::RECEIVE_MAXIMUM
        | id::TOPIC_ALIAS_MAXIMUM
        | id::MAXIMUM_PACKET_SIZE => place == Connect,
        id::WILL_DELAY => place == Will,
        id::REASON_STRING => matches!(place, Ack | Disconnect | Auth),
        id::TOPIC_ALIAS => place == Publish,
        id::USER_PROPERTY => true,
        // The rest is for servers to send; a Server Reference may stand in a server's DISCONNECT
        // only.
        _ => false,
    }
}

fn check_value(id: u8, value: Value<'_>) -> Result<(), Fault> {
    match (id, value) {
        (id::PAYLOAD_FORMAT | id::REQUEST_PROBLEM | id::REQUEST_RESPONSE, Value::Byte(byte))
            if byte > 1 =>
        {
            Err(Fault::protocol("a property that is 0 or 1 has another value"))
        }
        (id::RECEIVE_MAXIMUM, Value::Two(0)) => Err(Fault::protocol("receive maximum is zero")),
        (id::MAXIMUM_PACKET_SIZE, Value::Four(0)) => {
            Err(Fault::protocol("maximum packet size is zero"))
        }
        (id::SUBSCRIPTION_ID, Value::Var(0)) => {
            Err(Fault::protocol("a subscription identifier is zero"))
        }
        (id::TOPIC_ALIAS, Value::Two(0)) => {
            Err(Fault::new(Reason::TOPIC_ALIAS_INVALID, "a topic alias is zero"))
        }
        // A response topic is a topic name, so it holds no wildcard [MQTT-3.3.2-14].
        (id::RESPONSE_TOPIC, Value::Text(topic))
            if topic.is_empty() || topic.contains(['+', '#']) =>
        {
            Err(Fault::protocol("a response topic is empty or holds a wildcard"))
        }
        _ => Ok(()),
    }
}
