//! Subscriptions of a connection.

use bytes::BufMut;
use hashbrown::HashMap;
use polymq_contract::RefusalKind;
use polymq_model::ConsumerId;

use crate::{
    codec::{Version, put_escaped},
    refusal::{Failure, Step},
    session::Session,
    unsettled::Unsettled,
};

/// How a client acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AckMode {
    /// Not at all.
    Auto,
    /// A message, and with it all before it.
    Client,
    /// Each message by itself.
    ClientIndividual,
}

/// What a client calls a subscription by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// Its `id`.
    Id(Box<str>),
    /// Its destination, where a client of version 1.0 gives no id.
    Destination(Box<str>),
}

/// A subscription, also one that has ended and has deliveries to be settled.
#[derive(Debug)]
pub(crate) struct Subscription {
    key: Key,
    /// How its MESSAGE frames begin.
    pub(crate) head: Box<[u8]>,
    pub(crate) ack: AckMode,
    /// Messages sent that are not to be acknowledged.
    pub(crate) sent: u64,
    pub(crate) unsettled: Unsettled,
    /// Where its messages come from.
    pub(crate) queue: String,
    /// The queue outlives the subscription, and only UNSUBSCRIBE may delete it.
    pub(crate) is_durable: bool,
    /// Messages show the protocol and the time they came with.
    pub(crate) shows_origin: bool,
    is_active: bool,
}

impl Subscription {
    /// `id` is what MESSAGE frames name, if the client gave one.
    pub(crate) fn new(key: Key, id: Option<&str>, ack: AckMode, version: Version) -> Self {
        let mut head = b"MESSAGE\n".to_vec();
        if let Some(id) = id {
            head.put_slice(b"subscription:");
            put_escaped(id, version, &mut head);
            head.push(b'\n');
        }
        Self {
            key,
            head: head.into(),
            ack,
            sent: 0,
            unsettled: Unsettled::default(),
            queue: String::new(),
            is_durable: false,
            shows_origin: false,
            is_active: true,
        }
    }

    /// True when the client may call it so.
    pub(crate) fn has_id(&self, id: &str) -> bool {
        matches!(&self.key, Key::Id(own) if **own == *id)
    }
}

/// The subscriptions of a connection.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    last: u32,
    by_consumer: HashMap<ConsumerId, Subscription>,
    by_key: HashMap<Key, ConsumerId>,
}

impl Subscriptions {
    /// Adds a subscription whose key is free, and gives it its number.
    pub(crate) fn add(&mut self, subscription: Subscription) -> ConsumerId {
        loop {
            self.last = self.last.wrapping_add(1);
            let consumer = ConsumerId(self.last);
            if !self.by_consumer.contains_key(&consumer) {
                self.by_key.insert(subscription.key.clone(), consumer);
                self.by_consumer.insert(consumer, subscription);
                return consumer;
            }
        }
    }

    pub(crate) fn is_taken(&self, key: &Key) -> bool {
        self.by_key.contains_key(key)
    }

    #[inline]
    pub(crate) fn find(&mut self, consumer: ConsumerId) -> Option<&mut Subscription> {
        self.by_consumer.get_mut(&consumer)
    }

    /// Ends the subscription with this key. It stays while deliveries are to be settled.
    pub(crate) fn end(&mut self, key: &Key) -> Option<(ConsumerId, &Subscription)> {
        let consumer = self.by_key.remove(key)?;
        let subscription = self.by_consumer.get_mut(&consumer)?;
        subscription.is_active = false;
        Some((consumer, subscription))
    }

    /// Forgets a subscription that has ended and has nothing to be settled.
    pub(crate) fn sweep(&mut self, consumer: ConsumerId) {
        let is_over = |s: &Subscription| !s.is_active && s.unsettled.is_empty();
        if self.by_consumer.get(&consumer).is_some_and(is_over) {
            self.by_consumer.remove(&consumer);
        }
    }

    /// What a live subscription is, for people.
    pub(crate) fn describe(&self, consumer: ConsumerId) -> Option<String> {
        let subscription = self.by_consumer.get(&consumer).filter(|s| s.is_active)?;
        Some(match &subscription.key {
            Key::Id(id) => format!("subscription '{id}'"),
            Key::Destination(destination) => format!("the subscription to '{destination}'"),
        })
    }
}

impl Session {
    /// Errors: there are as many subscriptions as there may be.
    pub(crate) fn check_subscriptions(&self) -> Step {
        let max = self.limits.destinations_max;
        if self.subscriptions.by_consumer.len() >= max {
            let text = format!("a connection has at most {max} subscriptions");
            return Err(Failure::of_kind(RefusalKind::Limit, text));
        }
        Ok(())
    }
}
