//! The native forms in which messages enter: one per protocol version, known by number in the
//! store.

use crate::{message::Message, properties::Properties};

/// Number of a native form in stored records; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FormatId(pub u8);

/// Native form without properties, used by the broker for its own messages.
pub const PLAIN: FormatId = FormatId(0);
/// AMQP 0-9-1: the property flags and property list as on the wire.
pub const AMQP091: FormatId = FormatId(1);
/// MQTT 3.1 and 3.1.1: no property bytes.
pub const MQTT3: FormatId = FormatId(2);
/// MQTT 5: the PUBLISH properties as on the wire, without their length, without topic alias.
pub const MQTT5: FormatId = FormatId(3);
/// STOMP 1.0 to 1.2: the header lines that travel on, in the form of STOMP 1.2.
pub const STOMP: FormatId = FormatId(4);

/// XMPP: the stanza, without the part of it that is the body.
pub const XMPP: FormatId = FormatId(5);
/// HTTP: the properties as JSON, without those that the head holds.
pub const HTTP: FormatId = FormatId(6);

/// How to read one native form. Each protocol crate provides a `static` per form it brings.
pub struct Format {
    /// The number in stored records.
    pub id: FormatId,
    /// The protocol's name in annotations, metrics and the console: `amqp091`, `mqtt311`, `mqtt5`.
    pub name: &'static str,
    /// Decodes the native property bytes into the canonical fields.
    ///
    /// What cannot be decoded is left out; a malformed message is never an error at delivery.
    pub decode: fn(&Message) -> Properties,
}

impl std::fmt::Debug for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Messages that the broker makes itself: no properties but what the head says.
pub static PLAIN_FORMAT: Format = Format { id: PLAIN, name: "polymq", decode: Properties::of_head };

/// All native forms of one broker, by number; used when messages are read back from the store.
#[derive(Debug, Clone)]
pub struct Formats(Vec<&'static Format>);

impl Formats {
    /// Collects the forms that the protocol crates bring.
    pub fn new(formats: impl IntoIterator<Item = &'static Format>) -> Self {
        let mut all = vec![&PLAIN_FORMAT];
        all.extend(formats);
        Self(all)
    }

    /// The form with this number, or the plain one when its protocol is not part of this broker.
    pub fn find(&self, id: FormatId) -> &'static Format {
        self.0.iter().find(|f| f.id == id).copied().unwrap_or(&PLAIN_FORMAT)
    }
}
