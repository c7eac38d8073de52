//! What a client says.

use std::{borrow::Cow, fmt};

use polymq_model::json_form::IncomingMessage;
use serde::{Deserialize, Serialize, de::IgnoredAny};

/// Longest id and longest name of a subscription.
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// How a client names a request, to find its answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub(crate) enum Id {
    Number(u64),
    Text(String),
}

impl Id {
    pub(crate) fn is_short(&self) -> bool {
        !matches!(self, Self::Text(text) if text.len() > NAME_BYTES_MAX)
    }
}

/// What every operation has.
#[derive(Debug, Deserialize)]
pub(crate) struct Head<'a> {
    #[serde(borrow)]
    pub(crate) op: Cow<'a, str>,
    pub(crate) id: Option<Id>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Connect,
    Publish,
    Subscribe,
    Credit,
    Settle,
    Unsubscribe,
    Ping,
}

impl Op {
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "connect" => Self::Connect,
            "publish" => Self::Publish,
            "subscribe" => Self::Subscribe,
            "credit" => Self::Credit,
            "settle" => Self::Settle,
            "unsubscribe" => Self::Unsubscribe,
            "ping" => Self::Ping,
            _ => return None,
        })
    }
}

/// Declares the fields of an operation beside `op` and `id`.
macro_rules! operation {
    ($(#[$doc:meta])* $name:ident { $( $(#[$attr:meta])* $field:ident: $kind:ty, )* }) => {
        $(#[$doc])*
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $name {
            #[serde(rename = "op")]
            _op: IgnoredAny,
            #[serde(rename = "id", default)]
            _id: IgnoredAny,
            $( $(#[$attr])* pub(crate) $field: $kind, )*
        }
    };
}

operation! {
    /// Logs in and opens a virtual host.
    Connect {
        vhost: Option<String>,
        token: Option<Hidden>,
        user: Option<String>,
        password: Option<Hidden>,
    }
}
operation! {
    /// Publishes a message.
    Publish {
        message: IncomingMessage,
        #[serde(default)]
        confirm: Confirm,
    }
}
operation! {
    /// Starts a consumer of a queue, or of the messages of an exchange from now on.
    Subscribe {
        sub: String,
        queue: Option<String>,
        exchange: Option<String>,
        pattern: Option<String>,
        credit: Option<u32>,
        #[serde(default)]
        ack: AckMode,
        #[serde(default)]
        binary: bool,
    }
}
operation! {
    /// Lets more deliveries be unsettled at a time.
    Credit {
        sub: String,
        add: u32,
    }
}
operation! {
    /// Settles deliveries.
    Settle {
        sub: String,
        tags: Vec<u64>,
        outcome: Ending,
        delay: Option<u64>,
        reason: Option<String>,
    }
}
operation! {
    /// Ends a subscription.
    Unsubscribe {
        sub: String,
    }
}
operation! {
    /// Asks whether the server is there.
    Ping {}
}

/// When a publish is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Confirm {
    /// When the message is as safe as it asks to be.
    #[default]
    Stored,
    /// Only when it is refused.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AckMode {
    /// A delivery is done with when it is sent.
    Auto,
    #[default]
    Manual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ending {
    Ack,
    Requeue,
    Reject,
}

/// A text that is never printed.
#[derive(Default, Deserialize)]
pub(crate) struct Hidden(pub(crate) String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
