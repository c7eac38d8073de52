//! Addresses of places inside the broker, as reply addresses and topic texts carry them.

mod jid;
mod mqtt;
mod percent;
mod stomp;

pub(crate) use percent::decode as decode_percent;

pub use jid::{
    JID_PART_BYTES_MAX, MAILBOX_PREFIX, Mailbox, local_from_name, local_from_user, mailbox_key,
    name_from_local, user_from_local,
};
pub use mqtt::{BadDestination, MqttDestination};
pub use stomp::{BadStompDestination, StompDestination};

#[cfg(test)]
mod tests;

use crate::{
    names::NAME_BYTES_MAX,
    topic::{dot_to_slash, slash_to_dot},
};

/// The exchange in which all protocols share their topics, unless the configuration names another.
pub const TOPIC_EXCHANGE: &str = "amq.topic";

/// A routing key on the default exchange that begins with this is delivered to the address after
/// it.
///
/// The prefix `amq.` is reserved, so no queue has such a name.
pub const ADDRESS_KEY_PREFIX: &str = "amq.address:";

/// The longest text of MQTT.
const MQTT_BYTES_MAX: usize = 65_535;

/// A place a message can be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A queue, by name.
    Queue(String),
    /// An exchange and a routing key in dot form.
    Exchange {
        /// The exchange.
        exchange: String,
        /// The key; `None` when the address has none.
        key: Option<String>,
    },
    /// An XMPP entity.
    Jid(String),
    /// Text that only the application understands.
    Opaque(String),
}

impl Address {
    /// Reads a canonical text; everything that is none becomes [`Address::Opaque`].
    pub fn parse(text: &str) -> Self {
        Self::parse_canonical(text).unwrap_or_else(|| Self::Opaque(text.to_owned()))
    }

    fn parse_canonical(text: &str) -> Option<Self> {
        let (kind, rest) = text.strip_prefix('/')?.split_once('/')?;
        match kind {
            "queues" if !rest.is_empty() => Some(Self::Queue(percent::decode_strict(rest)?)),
            "exchanges" => {
                let (exchange, key) = match rest.split_once('/') {
                    Some((exchange, key)) => (exchange, Some(percent::decode_strict(key)?)),
                    None => (rest, None),
                };
                Some(Self::Exchange { exchange: percent::decode_strict(exchange)?, key })
            }
            "jids" if !rest.is_empty() => Some(Self::Jid(percent::decode_strict(rest)?)),
            _ => None,
        }
    }

    /// The canonical text: `/queues/<name>`, `/exchanges/<exchange>[/<key>]`, `/jids/<jid>`, or the
    /// opaque text.
    ///
    /// Specification: RFC 3986 for the percent-encoding; the paths are those of AMQP 1.0 v2
    /// addresses.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        match self {
            Self::Queue(name) => {
                out.push_str("/queues/");
                percent::encode_reserved(name, &mut out);
            }
            Self::Exchange { exchange, key } => {
                out.push_str("/exchanges/");
                percent::encode_reserved(exchange, &mut out);
                if let Some(key) = key {
                    out.push('/');
                    percent::encode_reserved(key, &mut out);
                }
            }
            Self::Jid(jid) => {
                out.push_str("/jids/");
                percent::encode_reserved(jid, &mut out);
            }
            Self::Opaque(text) => out.push_str(text),
        }
        out
    }

    /// Reads a `reply-to` of AMQP, or a routing key on the default exchange: a queue name or an
    /// address key.
    pub fn from_amqp(text: &str) -> Self {
        match text.strip_prefix(ADDRESS_KEY_PREFIX) {
            Some(canonical) => {
                Self::parse_canonical(canonical).unwrap_or_else(|| Self::Opaque(text.to_owned()))
            }
            None if text.is_empty() => Self::Opaque(String::new()),
            None => Self::Queue(text.to_owned()),
        }
    }

    /// The `reply-to` of AMQP, which also is a key on the default exchange.
    ///
    /// `None` when it has over 255 bytes, or is opaque text that AMQP would read as a queue.
    pub fn to_amqp(&self) -> Option<String> {
        Some(self.amqp_text()?).filter(|text| text.len() <= NAME_BYTES_MAX)
    }

    fn amqp_text(&self) -> Option<String> {
        match self {
            Self::Queue(name) if !name.is_empty() && !name.starts_with(ADDRESS_KEY_PREFIX) => {
                Some(name.clone())
            }
            Self::Queue(name) if name.is_empty() => None,
            Self::Queue(_) | Self::Exchange { .. } | Self::Jid(_) => {
                Some(format!("{ADDRESS_KEY_PREFIX}{}", self.to_text()))
            }
            Self::Opaque(text) => (Self::from_amqp(text) == *self).then(|| text.clone()),
        }
    }

    /// Reads a Response Topic of MQTT. `topic_exchange` is where plain topics live, usually
    /// [`TOPIC_EXCHANGE`].
    pub fn from_mqtt_topic(topic: &str, topic_exchange: &str) -> Self {
        let opaque = || Self::Opaque(topic.to_owned());
        if topic.contains(['+', '#', '\0']) {
            return opaque();
        }
        match MqttDestination::publish(topic) {
            Ok(MqttDestination::Topic(topic)) => exchange(topic_exchange, topic),
            Ok(MqttDestination::Exchange { exchange: name, key, .. }) => exchange(&name, key),
            Ok(MqttDestination::Queue { name, .. }) => match Self::from_amqp(&name) {
                Self::Opaque(_) => Self::Queue(name.into_owned()),
                address => address,
            },
            Ok(
                MqttDestination::Shared { .. }
                | MqttDestination::Delayed { .. }
                | MqttDestination::System(_),
            )
            | Err(_) => opaque(),
        }
    }

    /// The MQTT topic of this address: `r/1`, `$queue/<name>` or `$exchange/<exchange>/<key>`.
    ///
    /// Addresses that have none of these forms are address keys under `$queue/`. `None` for opaque
    /// text that is not an MQTT topic, and when the topic would be too long.
    pub fn to_mqtt_topic(&self, topic_exchange: &str) -> Option<String> {
        let topic = match self {
            Self::Exchange { exchange, key: Some(key) } if !key.is_empty() => {
                let mut topic = String::new();
                dot_to_slash(key, &mut topic);
                if topic.contains('\0') || exchange.is_empty() {
                    self.queue_topic()?
                } else if exchange == topic_exchange && !topic.starts_with('$') {
                    topic
                } else {
                    let mut out = "$exchange/".to_owned();
                    percent::encode_level(exchange, &mut out);
                    out.push('/');
                    out.push_str(&topic);
                    out
                }
            }
            Self::Queue(_) | Self::Exchange { .. } | Self::Jid(_) => self.queue_topic()?,
            Self::Opaque(text) => {
                let same = Self::from_mqtt_topic(text, topic_exchange) == *self;
                let is_topic = !text.is_empty() && !text.contains(['+', '#', '\0']);
                if !(same && is_topic) {
                    return None;
                }
                text.clone()
            }
        };
        (topic.len() <= MQTT_BYTES_MAX).then_some(topic)
    }

    fn queue_topic(&self) -> Option<String> {
        let mut out = "$queue/".to_owned();
        percent::encode_level(&self.amqp_text()?, &mut out);
        Some(out)
    }
}

fn exchange(exchange: &str, topic: &str) -> Address {
    let mut key = String::new();
    slash_to_dot(topic, &mut key);
    Address::Exchange { exchange: exchange.to_owned(), key: Some(key) }
}

/// Appends a name as one level of an MQTT topic: `%`, `/`, `+`, `#` and NUL are percent-encoded.
pub fn encode_mqtt_level(name: &str, out: &mut String) {
    percent::encode_level(name, out);
}
