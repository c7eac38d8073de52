//! What a STOMP destination addresses.

use std::borrow::Cow;

use super::{Address, percent};

/// What a STOMP destination addresses. Names and keys are decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StompDestination<'a> {
    /// `/queue/<name>`: a queue that is declared when it is missing.
    Queue(Cow<'a, str>),
    /// `/amq/queue/<name>`: a queue that must exist.
    AmqQueue(Cow<'a, str>),
    /// `/topic/<key>`: a key or pattern in the shared topic space.
    Topic(Cow<'a, str>),
    /// `/exchange/<exchange>[/<key>]`.
    Exchange {
        /// The exchange.
        exchange: Cow<'a, str>,
        /// The routing key or pattern; `None` when the destination ends before it.
        key: Option<Cow<'a, str>>,
    },
    /// `/temp-queue/<name>`: a private queue of the connection, in `reply-to` only.
    TempQueue(Cow<'a, str>),
    /// `/reply-queue/<name>`: a queue as the sender of a message named it, to send to only.
    ReplyQueue(Cow<'a, str>),
}

/// Why a destination addresses nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadStompDestination {
    /// It begins with none of the known words.
    #[error(
        "destination `{0}` is none of /queue/<name>, /topic/<key>, /exchange/<exchange>/<key>, \
         /amq/queue/<name>, /temp-queue/<name> and /reply-queue/<name>"
    )]
    Unknown(String),
    /// The name or exchange is missing.
    #[error("destination `{0}` ends before its name")]
    Incomplete(String),
    /// There is more than one part where one name stands.
    #[error(
        "destination `{0}` has a part too many: levels are separated by `.`, and a slash inside a \
         name is written `%2F`"
    )]
    TooManyParts(String),
    /// A part is no text when decoded, or holds NUL.
    #[error("destination `{0}` is not UTF-8 without NUL when its %XX are decoded")]
    NotText(String),
}

impl<'a> StompDestination<'a> {
    /// Reads the destination of a frame.
    ///
    /// Errors: [`BadStompDestination`] when it addresses nothing.
    pub fn parse(text: &'a str) -> Result<Self, BadStompDestination> {
        let unknown = || BadStompDestination::Unknown(text.to_owned());
        let rest = text.strip_prefix('/').ok_or_else(unknown)?;
        let (word, rest) = rest.split_once('/').ok_or_else(unknown)?;
        let name = |rest| part(text, rest);
        let full = |rest: &'a str| match rest {
            "" => Err(BadStompDestination::Incomplete(text.to_owned())),
            rest => name(rest),
        };
        match word {
            "queue" => full(rest).map(Self::Queue),
            "topic" => name(rest).map(Self::Topic),
            "exchange" => match rest.split_once('/') {
                Some((exchange, key)) => {
                    Ok(Self::Exchange { exchange: full(exchange)?, key: Some(name(key)?) })
                }
                None => Ok(Self::Exchange { exchange: full(rest)?, key: None }),
            },
            "amq" => match rest.strip_prefix("queue/") {
                Some(rest) => full(rest).map(Self::AmqQueue),
                None => Err(unknown()),
            },
            "temp-queue" => full(rest).map(Self::TempQueue),
            "reply-queue" => full(rest).map(Self::ReplyQueue),
            _ => Err(unknown()),
        }
    }

    /// Appends the destination that messages with this exchange and key arrive from.
    pub fn put_origin(exchange: &str, key: &str, topic_exchange: &str, out: &mut String) {
        if exchange.is_empty() {
            out.push_str("/queue/");
        } else if exchange == topic_exchange {
            out.push_str("/topic/");
        } else {
            out.push_str("/exchange/");
            percent::encode_part(exchange, out);
            out.push('/');
        }
        percent::encode_part(key, out);
    }
}

/// A name that is exactly one part.
fn part<'a>(whole: &str, written: &'a str) -> Result<Cow<'a, str>, BadStompDestination> {
    if written.contains('/') {
        return Err(BadStompDestination::TooManyParts(whole.to_owned()));
    }
    let decoded = percent::decode(written).filter(|name| !name.contains('\0'));
    decoded.ok_or_else(|| BadStompDestination::NotText(whole.to_owned()))
}

impl Address {
    /// Reads a `reply-to` of STOMP. `topic_exchange` is where plain topics live, usually
    /// [`TOPIC_EXCHANGE`](super::TOPIC_EXCHANGE).
    pub fn from_stomp(text: &str, topic_exchange: &str) -> Self {
        match StompDestination::parse(text) {
            Ok(StompDestination::Queue(name) | StompDestination::AmqQueue(name)) => {
                Self::Queue(name.into_owned())
            }
            Ok(StompDestination::ReplyQueue(name)) => match Self::from_amqp(&name) {
                Self::Opaque(_) => Self::Queue(name.into_owned()),
                address => address,
            },
            Ok(StompDestination::Topic(key)) => {
                Self::Exchange { exchange: topic_exchange.to_owned(), key: Some(key.into_owned()) }
            }
            Ok(StompDestination::Exchange { exchange, key }) => {
                Self::Exchange { exchange: exchange.into_owned(), key: key.map(Cow::into_owned) }
            }
            Ok(StompDestination::TempQueue(_)) | Err(_) => Self::Opaque(text.to_owned()),
        }
    }

    /// The `reply-to` of STOMP: `/reply-queue/<name>`, `/topic/<key>` or
    /// `/exchange/<exchange>[/<key>]`; other addresses are address keys under `/reply-queue/`.
    ///
    /// `None` when that would be read as another address: opaque text that looks like one, names
    /// with NUL.
    pub fn to_stomp(&self, topic_exchange: &str) -> Option<String> {
        let mut out = String::new();
        match self {
            Self::Exchange { exchange, key: Some(key) } if !exchange.is_empty() => {
                StompDestination::put_origin(exchange, key, topic_exchange, &mut out);
            }
            Self::Exchange { exchange, key: None } if !exchange.is_empty() => {
                out.push_str("/exchange/");
                percent::encode_part(exchange, &mut out);
            }
            Self::Queue(_) | Self::Exchange { .. } | Self::Jid(_) => {
                out.push_str("/reply-queue/");
                percent::encode_part(&self.amqp_text()?, &mut out);
            }
            Self::Opaque(text) => out.push_str(text),
        }
        (Self::from_stomp(&out, topic_exchange) == *self).then_some(out)
    }
}
