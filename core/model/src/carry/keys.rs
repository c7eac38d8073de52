//! Names of headers that have a meaning to the broker.

/// The header that holds the message group.
pub const GROUP_ID: &str = "x-group-id";
/// Another name of [`GROUP_ID`], which is read only.
pub(super) const GROUP_ID_ALIAS: &str = "JMSXGroupID";
/// The header that asks for the message to be kept as the last value of its topic.
pub const RETAIN: &str = "x-retain";
/// A name that other brokers give to [`Field::ReplyTo`]: a routing key in dot form on the topic
/// exchange.
pub const REPLY_TOPIC_ALIAS: &str = "x-reply-to-topic";
pub(super) const CORRELATION_ALIAS: &str = "x-correlation-id";
pub(super) const ID_ALIAS: &str = "x-message-id";
pub(super) const TYPE_ALIAS: &str = "x-basic-type";

const CARRY_PREFIX: &str = "x-mq-";

/// Names that only the broker writes. Every occurrence from a client is removed and counted.
const RESERVED: [&str; 17] = [
    "x-death",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-first-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
    "x-last-death-exchange",
    "x-delivery-count",
    "x-acquired-count",
    "x-exchange",
    "x-routing-key",
    "x-source-queue",
    "x-stream-offset",
    "x-delivery-token",
    "x-origin-protocol",
    "x-enqueued-at",
    "x-schedule-id",
];

/// True for the headers that only the broker writes.
pub fn is_reserved(name: &str) -> bool {
    name.starts_with("x-") && RESERVED.contains(&name)
}

macro_rules! fields {
    ($($(#[$doc:meta])* $field:ident = $key:literal, $label:literal;)*) => {
        /// A field that can be carried in a header.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Field {
            $($(#[$doc])* $field,)*
        }

        impl Field {
            /// Every field.
            pub const ALL: &'static [Self] = &[$(Self::$field),*];

            /// The carry key.
            pub fn key(self) -> &'static str {
                match self { $(Self::$field => $key,)* }
            }

            /// The field's name in metrics.
            pub fn label(self) -> &'static str {
                match self { $(Self::$field => $label,)* }
            }
        }
    };
}

fields! {
    /// Message id.
    Id = "x-mq-id", "id";
    /// Content encoding.
    Encoding = "x-mq-encoding", "content_encoding";
    /// The sender asserted a text body, or asserted that it is none.
    Text = "x-mq-text", "text";
    /// Quality of service 2 of MQTT.
    Qos = "x-mq-qos", "qos";
    /// Priority.
    Priority = "x-mq-priority", "priority";
    /// Expiry in ms as the sender wrote it.
    Ttl = "x-mq-ttl", "ttl";
    /// The sender's clock in ms since 1970.
    Timestamp = "x-mq-timestamp", "timestamp";
    /// The application's message type.
    Type = "x-mq-type", "type";
    /// The user the sender says it is.
    User = "x-mq-user", "user_id";
    /// The application.
    App = "x-mq-app", "app_id";
    /// What kind of identifier the correlation is.
    CorrelationKind = "x-mq-correlation-kind", "correlation";
    /// Canonical text of the reply address.
    ReplyTo = "x-mq-reply-to", "reply_to";
    /// The order of repeated header names.
    Multi = "x-mq-multi", "header";
    /// The types of headers that are not strings.
    Types = "x-mq-types", "header";
    /// Headers that the target cannot hold, as JSON.
    Extra = "x-mq-extra", "header";
    /// Children of an XMPP stanza. Stays among the headers.
    Xmpp = "x-mq-xmpp", "header";
    /// Type of an XMPP stanza. Stays among the headers.
    XmppType = "x-mq-xmpp-type", "header";
    /// Language of an XMPP stanza. Stays among the headers.
    Lang = "x-mq-lang", "header";
}

impl Field {
    /// The field with this carry key.
    pub fn from_key(name: &str) -> Option<Self> {
        let known = name.starts_with(CARRY_PREFIX);
        known.then(|| Self::ALL.iter().copied().find(|field| field.key() == name)).flatten()
    }
}

/// True for every carry key.
pub fn is_carry_key(name: &str) -> bool {
    Field::from_key(name).is_some()
}

/// Whether fields without a place are carried or dropped; a setting of listeners and subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Carry {
    /// They become carry keys.
    #[default]
    Full,
    /// They are dropped and counted.
    None,
}

/// Why a field was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The protocol has no place for it, or cannot write what it says.
    NoPlace,
    /// The name is the broker's own.
    Reserved,
    /// Over a limit of the protocol.
    TooLong,
    /// The sender may not say this.
    NotAllowed,
    /// [`Carry::None`].
    CarryOff,
    /// The packet would be larger than its receiver allows.
    PacketSize,
}

impl Outcome {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::NoPlace,
        Self::Reserved,
        Self::TooLong,
        Self::NotAllowed,
        Self::CarryOff,
        Self::PacketSize,
    ];

    /// The label in `polymq_conversion_fields_total`.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoPlace => "no_place",
            Self::Reserved => "reserved",
            Self::TooLong => "too_long",
            Self::NotAllowed => "not_allowed",
            Self::CarryOff => "carry_off",
            Self::PacketSize => "packet_size",
        }
    }
}

/// Is told about every field that is dropped: the name of a canonical field or the word `header`,
/// and why.
pub type Dropped<'a> = &'a mut dyn FnMut(&'static str, Outcome);
