//! Subscriptions of client sessions, and what a match says about a delivery.

use std::sync::Arc;

use polymq_model::{ConsumerId, Seq};

use crate::command::Arguments;

/// A subscription as the client session remembers it.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    /// The filter as the client wrote it; its key within the client session.
    pub filter: String,
    /// Where the messages come from.
    pub target: SubscriptionTarget,
    /// Highest quality of service the client wants.
    pub qos: u8,
    /// Do not send what this client published itself.
    pub no_local: bool,
    /// Keep the retain flag as it was published.
    pub retain_as_published: bool,
    /// MQTT 5, 3.8.3.1: 0 send retained messages, 1 only for a new subscription, 2 never.
    pub retain_handling: u8,
    /// Subscription identifier, if given.
    pub id: Option<u32>,
    /// The consumer under which deliveries of a queue or a share arrive. Deliveries of topics
    /// arrive under [`ConsumerId`] 0 (the client session's queue) and 1 (direct, quality of service
    /// 0).
    pub consumer: ConsumerId,
    /// Arguments of the consumer of a queue or a share, and of the queue when it is made for it.
    pub arguments: Arguments,
}

/// Where a subscription's messages come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscriptionTarget {
    /// A topic filter on an exchange.
    Topic {
        /// The exchange; `amq.topic` unless the filter named one.
        exchange: String,
        /// The MQTT filter with `.` and `/` exchanged.
        pattern: String,
    },
    /// A real queue shared by all members, bound by a filter.
    Share {
        /// Name of the queue.
        queue: String,
        /// The exchange it is bound to.
        exchange: String,
        /// The MQTT filter with `.` and `/` exchanged.
        pattern: String,
    },
    /// A plain queue; declared durable when missing and permitted.
    Queue {
        /// Name of the queue.
        queue: String,
    },
}

/// A delivery of quality of service 1 or 2 that the client has not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlight {
    /// The packet id it was sent with.
    pub packet_id: u16,
    /// Its consumer.
    pub consumer: ConsumerId,
    /// Its position in that consumer's queue.
    pub seq: Seq,
    /// Quality of service it was sent with: 1 or 2.
    pub qos: u8,
    /// True after PUBREC: only PUBREL is to be sent again.
    pub released: bool,
}

/// Subscription identifiers that matched a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SubscriptionIds {
    /// None was given.
    #[default]
    None,
    /// One.
    One(u32),
    /// Several overlapping subscriptions.
    Many(Arc<[u32]>),
}

impl SubscriptionIds {
    /// The identifiers.
    pub fn as_slice(&self) -> &[u32] {
        match self {
            Self::None => &[],
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }
}

/// What the subscriptions that matched say about a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Matched {
    /// Highest quality of service over all matching subscriptions; 2 for consumers that are not
    /// subscriptions.
    pub qos: u8,
    /// The retain flag is shown as published.
    pub retain_as_published: bool,
    /// The message is a retained one, sent because of a new subscription.
    pub retained: bool,
    /// Identifiers of all matching subscriptions.
    pub ids: SubscriptionIds,
}
