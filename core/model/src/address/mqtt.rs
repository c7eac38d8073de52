//! What an MQTT topic name or filter addresses.

use std::borrow::Cow;

use super::percent;

/// The longest delay in seconds: about 136 years, as the other intervals of MQTT.
const DELAY_SECS_MAX: u64 = u32::MAX as u64;

/// What an MQTT topic name or filter addresses.
///
/// Names are decoded; `written` is the level as the client wrote it, so that topics sent to a
/// subscriber match its filter whatever it escaped. Wildcards inside filters are checked by
/// [`crate::topic::Pattern::slash`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MqttDestination<'a> {
    /// A topic or filter in the shared topic space.
    Topic(&'a str),
    /// `$queue/<name>`, or `$queue/<name>/#` in a filter.
    Queue {
        /// The queue.
        name: Cow<'a, str>,
        /// The name as the client wrote it.
        written: &'a str,
        /// True when messages arrive as `$queue/<written>/<origin topic>`.
        with_origin: bool,
    },
    /// `$exchange/<exchange>/<key>`; messages arrive under the same prefix.
    Exchange {
        /// The exchange.
        exchange: Cow<'a, str>,
        /// The exchange as the client wrote it.
        written: &'a str,
        /// The topic or filter in slash form.
        key: &'a str,
    },
    /// `$share/<group>/<filter>`, in subscriptions only.
    Shared {
        /// The group.
        group: &'a str,
        /// The filter in the shared topic space.
        filter: &'a str,
    },
    /// `$delayed/<seconds>/<to>`, in publishes only.
    Delayed {
        /// How long the message is held.
        seconds: u64,
        /// Where it goes then.
        to: Box<Self>,
    },
    /// `$SYS/…`, in subscriptions only.
    System(&'a str),
}

/// Why a topic name or filter addresses nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDestination {
    /// Topics that begin with `$` belong to the server.
    #[error("topics that begin with `$` belong to the server, and `{0}` is none of its own")]
    Reserved(String),
    /// A form that only filters may have.
    #[error("`{0}` can be subscribed to, but not published to")]
    SubscribeOnly(String),
    /// A form that only topic names may have.
    #[error("`{0}` can be published to, but not subscribed to")]
    PublishOnly(String),
    /// A level is missing, empty, too much, holds a wildcard, or is no text when decoded.
    #[error("`{0}` is incomplete or malformed: the form is `{1}`; in a name `/` is written `%2F`")]
    Malformed(String, &'static str),
}

const QUEUE_FORM: &str = "$queue/<name>";
const EXCHANGE_FORM: &str = "$exchange/<exchange>/<topic>";
const SHARE_FORM: &str = "$share/<group>/<filter>";
const DELAYED_FORM: &str = "$delayed/<seconds>/<topic>";

impl<'a> MqttDestination<'a> {
    /// Reads the topic name of a PUBLISH, which [`crate::topic::valid_topic_name`] has accepted.
    ///
    /// Errors: [`BadDestination`] when it addresses nothing that can be published to.
    pub fn publish(topic: &'a str) -> Result<Self, BadDestination> {
        let Some((word, rest)) = dollar_word(topic) else { return Ok(Self::Topic(topic)) };
        match word {
            "$queue" => match queue(topic, rest)? {
                Self::Queue { with_origin: true, .. } => {
                    Err(BadDestination::SubscribeOnly(topic.to_owned()))
                }
                queue => Ok(queue),
            },
            "$exchange" => exchange(topic, rest),
            "$delayed" => {
                let malformed = || BadDestination::Malformed(topic.to_owned(), DELAYED_FORM);
                let (seconds, to) = rest.split_once('/').ok_or_else(malformed)?;
                let is_number = !seconds.is_empty() && seconds.bytes().all(|b| b.is_ascii_digit());
                let seconds = seconds.parse().ok().filter(|s| *s <= DELAY_SECS_MAX && is_number);
                let seconds = seconds.ok_or_else(malformed)?;
                // One delay only: a chain of them would be a recursion that the client controls.
                if to.is_empty() || to.starts_with("$delayed/") {
                    return Err(malformed());
                }
                Ok(Self::Delayed { seconds, to: Box::new(Self::publish(to)?) })
            }
            "$share" => Err(BadDestination::SubscribeOnly(topic.to_owned())),
            _ => Err(BadDestination::Reserved(topic.to_owned())),
        }
    }

    /// Reads a topic filter of a SUBSCRIBE or UNSUBSCRIBE.
    ///
    /// Errors: [`BadDestination`] when it addresses nothing that can be subscribed to.
    pub fn subscribe(filter: &'a str) -> Result<Self, BadDestination> {
        let Some((word, rest)) = dollar_word(filter) else { return Ok(Self::Topic(filter)) };
        match word {
            "$queue" => queue(filter, rest),
            "$exchange" => exchange(filter, rest),
            "$share" => {
                let malformed = || BadDestination::Malformed(filter.to_owned(), SHARE_FORM);
                let (group, shared) = rest.split_once('/').ok_or_else(malformed)?;
                let is_name = !group.is_empty() && !group.contains(['+', '#']);
                if !is_name || shared.is_empty() || shared.starts_with('$') {
                    return Err(malformed());
                }
                Ok(Self::Shared { group, filter: shared })
            }
            "$delayed" => Err(BadDestination::PublishOnly(filter.to_owned())),
            "$SYS" => Ok(Self::System(filter)),
            _ => Err(BadDestination::Reserved(filter.to_owned())),
        }
    }
}

/// The first level of a topic that begins with `$`, and what follows its slash.
fn dollar_word(topic: &str) -> Option<(&str, &str)> {
    topic.starts_with('$').then(|| topic.split_once('/').unwrap_or((topic, "")))
}

fn queue<'a>(topic: &str, rest: &'a str) -> Result<MqttDestination<'a>, BadDestination> {
    let (written, with_origin) = match rest.strip_suffix("/#") {
        Some(written) => (written, true),
        None => (rest, false),
    };
    match level(written) {
        Some(name) => Ok(MqttDestination::Queue { name, written, with_origin }),
        None => Err(BadDestination::Malformed(topic.to_owned(), QUEUE_FORM)),
    }
}

fn exchange<'a>(topic: &str, rest: &'a str) -> Result<MqttDestination<'a>, BadDestination> {
    let malformed = || BadDestination::Malformed(topic.to_owned(), EXCHANGE_FORM);
    let (written, key) = rest.split_once('/').ok_or_else(malformed)?;
    let exchange = level(written).ok_or_else(malformed)?;
    if key.is_empty() {
        return Err(malformed());
    }
    Ok(MqttDestination::Exchange { exchange, written, key })
}

/// A name that is exactly one level.
fn level(written: &str) -> Option<Cow<'_, str>> {
    if written.is_empty() || written.contains(['/', '+', '#']) {
        return None;
    }
    percent::decode(written)
}
