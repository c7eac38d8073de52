//! Where a published topic leads.

use std::{fmt, time::Duration};

use polymq_contract::{Destination, RefusalKind};
use polymq_model::{
    Limits,
    address::{BadDestination, MqttDestination},
    topic::{BadTopic, slash_to_dot, valid_topic_name},
};

use crate::codec::{Fault, Reason};

/// An exchange and a routing key in dot form.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Route {
    pub(crate) exchange: String,
    pub(crate) key: String,
    /// How long a message is held before it goes there.
    pub(crate) delay_secs: u64,
}

/// Why a topic leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unroutable {
    /// The packet breaks a rule of the specification: the connection ends.
    Fault(Fault),
    /// The topic belongs to the server. MQTT 3 acknowledges and drops the message.
    NotOurs(String),
    /// A rule of ours refuses the topic.
    Refused {
        /// The code of MQTT 5.
        reason: Reason,
        /// What MQTT 3 does is the row of this kind.
        kind: RefusalKind,
        /// What is wrong with it.
        text: String,
    },
}

impl fmt::Display for Unroutable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => f.write_str(&fault.text),
            Self::NotOurs(text) | Self::Refused { text, .. } => f.write_str(text),
        }
    }
}

impl From<Route> for Destination {
    fn from(route: Route) -> Self {
        let Route { exchange, key, delay_secs } = route;
        Self { exchange, key, declares_queue: false, delay: Duration::from_secs(delay_secs) }
    }
}

impl Unroutable {
    /// A property that has a wrong value.
    pub(crate) fn invalid(bad: &dyn std::error::Error) -> Self {
        let (reason, kind) = (Reason::IMPLEMENTATION_SPECIFIC, RefusalKind::Invalid);
        Self::Refused { reason, kind, text: bad.to_string() }
    }
}

impl Route {
    /// Finds the way of `topic`; plain topics go to `exchange`.
    pub(crate) fn of_topic(
        topic: &str,
        exchange: &str,
        limits: &Limits,
    ) -> Result<Self, Unroutable> {
        if let Err(bad) = valid_topic_name(topic, limits) {
            return Err(match bad {
                BadTopic::Empty | BadTopic::Nul => {
                    Unroutable::Fault(Fault::protocol("a topic name is empty or holds U+0000"))
                }
                BadTopic::Wildcard(_) => {
                    Unroutable::Fault(Fault::new(Reason::TOPIC_NAME_INVALID, bad.to_string()))
                }
                BadTopic::TooLong { .. } | BadTopic::TooManyLevels { .. } => Unroutable::Refused {
                    reason: Reason::TOPIC_NAME_INVALID,
                    kind: RefusalKind::Invalid,
                    text: bad.to_string(),
                },
            });
        }
        match MqttDestination::publish(topic) {
            Ok(destination) => Self::of_destination(destination, topic, exchange),
            Err(
                bad @ (BadDestination::Reserved(_)
                | BadDestination::SubscribeOnly(_)
                | BadDestination::PublishOnly(_)
                | BadDestination::Malformed(..)),
            ) => Err(Unroutable::NotOurs(bad.to_string())),
        }
    }

    fn of_destination(
        destination: MqttDestination<'_>,
        topic: &str,
        plain: &str,
    ) -> Result<Self, Unroutable> {
        match destination {
            MqttDestination::Topic(topic) => Ok(Self::new(plain, topic)),
            MqttDestination::Exchange { exchange, key, .. } => Ok(Self::new(&exchange, key)),
            MqttDestination::Queue { name, .. } => {
                Ok(Self { key: name.into_owned(), ..Self::default() })
            }
            MqttDestination::Delayed { seconds, to } => {
                let route = Self::of_destination(*to, topic, plain)?;
                Ok(Self { delay_secs: seconds, ..route })
            }
            MqttDestination::Shared { .. } | MqttDestination::System(_) => {
                Err(Unroutable::NotOurs(format!("`{topic}` cannot be published to")))
            }
        }
    }

    fn new(exchange: &str, topic: &str) -> Self {
        let mut key = String::new();
        slash_to_dot(topic, &mut key);
        Self { exchange: exchange.to_owned(), key, delay_secs: 0 }
    }
}

/// The route of the last topic published, because clients repeat themselves.
#[derive(Debug, Default)]
pub(crate) struct LastRoute {
    topic: String,
    route: Route,
}

impl LastRoute {
    /// The route of `topic`, remembered when it is the same as before.
    pub(crate) fn find(
        &mut self,
        topic: &str,
        exchange: &str,
        limits: &Limits,
    ) -> Result<&Route, Unroutable> {
        if topic.is_empty() || self.topic != topic {
            self.route = Route::of_topic(topic, exchange, limits)?;
            self.topic.clear();
            self.topic.push_str(topic);
        }
        Ok(&self.route)
    }
}
