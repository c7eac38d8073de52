//! The canonical fields of a message: what every protocol's reader produces and every writer
//! consumes.

use crate::{
    address::Address,
    message::Message,
    value::{Table, Value},
};

/// An identifier with the kind it was sent as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ident {
    /// Text.
    Text(String),
    /// 16 bytes.
    Uuid([u8; 16]),
    /// Unsigned 64 bits.
    Ulong(u64),
    /// Any bytes.
    Binary(Vec<u8>),
}

/// The typed view of a message. `None` means "unsaid", and never a default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Properties {
    /// Message id.
    pub id: Option<Ident>,
    /// Correlation id.
    pub correlation: Option<Ident>,
    /// MIME type; never guessed.
    pub content_type: Option<String>,
    /// Encoding of the body; never applied.
    pub content_encoding: Option<String>,
    /// The application's message type.
    pub kind: Option<String>,
    /// The application.
    pub app_id: Option<String>,
    /// True when the sender asserted a UTF-8 text body.
    pub text: Option<bool>,
    /// True when the sender asked for persistence.
    pub durable: Option<bool>,
    /// 0 to 255.
    pub priority: Option<u8>,
    /// The expiry as the sender wrote it, in ms.
    pub ttl_ms: Option<u64>,
    /// The sender's clock, in ms since 1970.
    pub timestamp_ms: Option<i64>,
    /// Where answers go.
    pub reply_to: Option<Address>,
    /// The user the sender says it is.
    pub user_id: Option<String>,
    /// Message group.
    pub group_id: Option<String>,
    /// Kept as the last value of its topic.
    pub retain: bool,
    /// MQTT's quality of service as sent, kept so that 2 survives a detour.
    pub qos: u8,
    /// User headers, without fields that have a place above and without reserved names.
    pub headers: Table,
    /// Of headers with the same name the first counts, as in STOMP; elsewhere the last does, or
    /// all.
    pub first_counts: bool,
}

impl Properties {
    /// The header that counts under this name.
    pub fn header(&self, name: &str) -> Option<&Value> {
        let mut named = self.headers.iter().filter(|(known, _)| known == name);
        let header = if self.first_counts { named.next() } else { named.next_back() };
        header.map(|(_, value)| value)
    }

    /// The fields that the head of every message holds, for native forms without properties.
    pub fn of_head(message: &Message) -> Self {
        Self {
            durable: Some(message.is_durable()),
            priority: message.priority(),
            retain: message.retain(),
            qos: message.qos(),
            ..Self::default()
        }
    }
}
