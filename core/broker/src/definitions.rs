//! How topology, users and client sessions are written to the store: one `META` record each, JSON
//! with a version.

use polymq_contract::{InFlight, Subscription, SubscriptionTarget};
use polymq_model::{ConsumerId, Seq, Table};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::topology::ExchangeKind;

/// Version of the JSON that this broker writes.
const VERSION: u32 = 1;

/// Separates the parts of a key; no name can hold it.
const SEPARATOR: char = '\0';

/// The kinds of definitions, as the first part of their keys.
pub(crate) mod kind {
    pub(crate) const VHOST: &str = "vhost";
    pub(crate) const VHOST_LIMITS: &str = "vhost-limits";
    pub(crate) const USER: &str = "user";
    pub(crate) const USER_LIMITS: &str = "user-limits";
    pub(crate) const PERMISSION: &str = "permission";
    pub(crate) const TOPIC_PERMISSION: &str = "topic-permission";
    pub(crate) const TOKEN: &str = "token";
    pub(crate) const BAN: &str = "ban";
    pub(crate) const GLOBAL_PARAMETER: &str = "global-parameter";
    pub(crate) const POLICY: &str = "policy";
    pub(crate) const OPERATOR_POLICY: &str = "operator-policy";
    pub(crate) const EXCHANGE: &str = "exchange";
    pub(crate) const QUEUE: &str = "queue";
    pub(crate) const LEVEL: &str = "level";
    pub(crate) const PAUSED: &str = "paused";
    pub(crate) const BINDING: &str = "binding";
    pub(crate) const RETAINED: &str = "retained";
    pub(crate) const SCHEDULE: &str = "schedule";
    pub(crate) const CLIENT: &str = "client";
    pub(crate) const SUBSCRIPTION: &str = "subscription";
    pub(crate) const RECEIVED: &str = "received";
    pub(crate) const IN_FLIGHT: &str = "in-flight";
    pub(crate) const DOCUMENT: &str = "document";
    pub(crate) const JOB: &str = "job";
}

/// The key of a definition.
pub(crate) fn key(parts: &[&str]) -> String {
    parts.join(&SEPARATOR.to_string())
}

/// The parts of a key.
pub(crate) fn parts(key: &str) -> Vec<&str> {
    key.split(SEPARATOR).collect()
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u32,
    #[serde(flatten)]
    value: T,
}

/// The bytes of a definition.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(&Versioned { v: VERSION, value }).unwrap_or_default()
}

/// Reads a definition.
///
/// Errors: why, as text, when the bytes are of a later version or damaged.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let versioned: Versioned<T> = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if versioned.v > VERSION {
        return Err(format!("it has version {}, this broker knows {VERSION}", versioned.v));
    }
    Ok(versioned.value)
}

/// An exchange.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredExchange {
    pub(crate) kind: ExchangeKind,
    pub(crate) auto_delete: bool,
    pub(crate) internal: bool,
    /// Declared as `x-delayed-message`; `kind` is what its `x-delayed-type` says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_delayed: bool,
    pub(crate) arguments: Table,
}

/// Where the delayed messages of a virtual host are.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredSchedule {
    pub(crate) log: u32,
}

/// A queue.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredQueue {
    pub(crate) log: u32,
    pub(crate) auto_delete: bool,
    pub(crate) of_client: bool,
    pub(crate) arguments: Table,
    /// The user who has declared it; none where that was not written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) declared_by: Option<String>,
}

/// Where a priority level of a queue is stored; its key ends in the level. Level 0 is stored where
/// the queue says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredLevel {
    pub(crate) log: u32,
}

/// What says everything by being there.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Nothing {}

/// A binding to a queue or an exchange.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredBinding {
    pub(crate) source: String,
    pub(crate) to_queue: bool,
    pub(crate) destination: String,
    pub(crate) key: String,
    pub(crate) arguments: Table,
}

/// A message outside a queue: retained, or a will.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StoredMessage {
    pub(crate) deadline_ms: u64,
    /// Envelope and tail, in base64.
    pub(crate) props: String,
    /// Body, in base64.
    pub(crate) body: String,
}

/// A retained message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StoredRetained {
    #[serde(flatten)]
    pub(crate) message: StoredMessage,
    /// Client id of its publisher; empty for one without a client session.
    #[serde(default)]
    pub(crate) publisher: String,
}

/// A client session. Its subscriptions have records of their own, so that a new one costs as much
/// as the first.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredClient {
    pub(crate) owner: String,
    pub(crate) expiry_secs: u32,
    /// When it ends if nobody comes back; 0 while connected or for never.
    pub(crate) ends_at_ms: u64,
    /// A connection has it. When this is found at a start, the connection ended with the broker.
    #[serde(default)]
    pub(crate) connected: bool,
    /// See [`polymq_contract::OpenedClientSession::unsure_before`].
    #[serde(default)]
    pub(crate) unsure_before: u64,
    /// What its user has lost the right to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) restricted: Option<Restricted>,
    pub(crate) will: Option<(StoredMessage, u32)>,
}

/// Of the messages that waited when a right was lost, only those on some topics are delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Restricted {
    /// Number of the first position that came later.
    pub(crate) before: u64,
    /// Patterns of the topics.
    pub(crate) topics: Vec<String>,
}

/// A subscription of a client session.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredSubscription {
    filter: String,
    qos: u8,
    no_local: bool,
    retain_as_published: bool,
    retain_handling: u8,
    id: Option<u32>,
    consumer: u32,
    #[serde(default)]
    exchange: String,
    #[serde(default)]
    pattern: String,
    /// The queue of a share or of a plain queue; empty for topics.
    #[serde(default)]
    queue: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    arguments: Table,
}

impl StoredSubscription {
    pub(crate) fn of(subscription: &Subscription) -> Self {
        let (exchange, pattern, queue) = match &subscription.target {
            SubscriptionTarget::Topic { exchange, pattern } => {
                (exchange.clone(), pattern.clone(), String::new())
            }
            SubscriptionTarget::Share { queue, exchange, pattern } => {
                (exchange.clone(), pattern.clone(), queue.clone())
            }
            SubscriptionTarget::Queue { queue } => (String::new(), String::new(), queue.clone()),
        };
        Self {
            filter: subscription.filter.clone(),
            qos: subscription.qos,
            no_local: subscription.no_local,
            retain_as_published: subscription.retain_as_published,
            retain_handling: subscription.retain_handling,
            id: subscription.id,
            consumer: subscription.consumer.0,
            exchange,
            pattern,
            queue,
            arguments: subscription.arguments.clone(),
        }
    }

    pub(crate) fn into_subscription(self) -> Subscription {
        let target = match (self.queue.is_empty(), self.exchange.is_empty()) {
            (true, _) => {
                SubscriptionTarget::Topic { exchange: self.exchange, pattern: self.pattern }
            }
            (false, true) => SubscriptionTarget::Queue { queue: self.queue },
            (false, false) => SubscriptionTarget::Share {
                queue: self.queue,
                exchange: self.exchange,
                pattern: self.pattern,
            },
        };
        Subscription {
            filter: self.filter,
            target,
            qos: self.qos,
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            retain_handling: self.retain_handling,
            id: self.id,
            consumer: ConsumerId(self.consumer),
            arguments: self.arguments,
        }
    }
}

/// A delivery that a client has not finished; its key ends in the packet id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredInFlight {
    consumer: u32,
    seq: u64,
    qos: u8,
    released: bool,
    /// Place in the order of sending.
    pub(crate) order: u64,
}

impl StoredInFlight {
    pub(crate) fn of(in_flight: &InFlight, order: u64) -> Self {
        let InFlight { consumer, seq, qos, released, .. } = *in_flight;
        Self { consumer: consumer.0, seq: seq.0, qos, released, order }
    }

    pub(crate) fn in_flight(&self, packet_id: u16) -> InFlight {
        let Self { consumer, seq, qos, released, .. } = *self;
        InFlight { packet_id, consumer: ConsumerId(consumer), seq: Seq(seq), qos, released }
    }
}
