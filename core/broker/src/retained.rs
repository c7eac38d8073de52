//! Retained messages: the last value of each topic.

use std::collections::BTreeMap;

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{
    Message, VhostName,
    topic::{Level, Pattern},
};
use smallvec::SmallVec;

use crate::tenants::VhostLimits;

/// Last values by key in dot form.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    messages: BTreeMap<Box<str>, LastValue>,
    /// What those of clients come to.
    held: Amount,
    count_max: Option<u64>,
    bytes_max: Option<u64>,
}

/// Retained messages that clients have published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many there are.
    pub count: u64,
    /// What they take in memory.
    pub bytes: u64,
}

/// A retained message.
#[derive(Debug)]
pub(crate) struct LastValue {
    message: Message,
    /// Client id of its publisher; empty for one without a client session.
    publisher: Box<str>,
    /// The broker's own, which counts against no limit.
    is_own: bool,
}

/// Why last values are not kept: there would be `found`, and may be `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beyond {
    Count { found: u64, max: u64 },
    Bytes { found: u64, max: u64 },
}

impl Beyond {
    /// The refusal, of kind `Limit`.
    pub(crate) fn refuse(self, vhost: &VhostName) -> Refusal {
        let (found, of, name, max) = match self {
            Self::Count { found, max } => (found, "retained messages", "retained-max-count", max),
            Self::Bytes { found, max } => {
                (found, "bytes of retained messages", "retained-max-bytes", max)
            }
        };
        let text = format!("vhost '{vhost}' would keep {found} {of}, its limit {name} is {max}");
        Refusal::new(RefusalKind::Limit, text)
    }
}

impl Retained {
    /// What it may hold from now on. What is there stays.
    pub(crate) fn bound(&mut self, limits: &VhostLimits) {
        (self.count_max, self.bytes_max) = (limits.retained_count_max, limits.retained_bytes_max);
    }

    /// What clients have had kept.
    pub(crate) fn held(&self) -> Amount {
        self.held
    }

    /// Keeps messages as the last values of their keys, all or none; one without a body removes
    /// what is there. `publisher` is a client id, empty for a publisher without a client session.
    ///
    /// Errors: they are more than may be kept. What does not grow is kept however much there is.
    pub(crate) fn keep<'m>(
        &mut self,
        messages: impl Iterator<Item = &'m Message>,
        publisher: &str,
    ) -> Result<(), Beyond> {
        let is_bounded = self.count_max.is_some() || self.bytes_max.is_some();
        let before = self.held;
        let mut replaced = SmallVec::<[(&str, Option<LastValue>); 1]>::new();
        for message in messages {
            let old = self.put(message, publisher);
            if is_bounded {
                replaced.push((message.key(), old));
            }
        }
        let Some(beyond) = self.beyond(before) else { return Ok(()) };
        for (key, old) in replaced.into_iter().rev() {
            match old {
                Some(old) => self.insert(key, old),
                None => self.remove(key),
            };
        }
        Err(beyond)
    }

    /// Which limit is passed by growing from what was held before.
    fn beyond(&self, before: Amount) -> Option<Beyond> {
        let passed = |found: u64, before: u64, max: Option<u64>| {
            max.filter(|max| found > *max && found > before)
        };
        let Amount { count, bytes } = self.held;
        let count_max = passed(count, before.count, self.count_max);
        let of_count = count_max.map(|max| Beyond::Count { found: count, max });
        of_count.or_else(|| {
            let bytes_max = passed(bytes, before.bytes, self.bytes_max);
            bytes_max.map(|max| Beyond::Bytes { found: bytes, max })
        })
    }

    /// Keeps a message of the broker's own, which counts against no limit.
    pub(crate) fn keep_own(&mut self, message: &Message) {
        let value = LastValue { message: message.clone(), publisher: Box::default(), is_own: true };
        self.insert(message.key(), value);
    }

    /// The same as [`keep`](Self::keep) for one message, whatever the limits; what it replaces.
    pub(crate) fn put(&mut self, message: &Message, publisher: &str) -> Option<LastValue> {
        if message.body().is_empty() {
            return self.remove(message.key());
        }
        let publisher = publisher.into();
        let value = LastValue { message: message.clone(), publisher, is_own: false };
        self.insert(message.key(), value)
    }

    fn insert(&mut self, key: &str, value: LastValue) -> Option<LastValue> {
        self.held.add(value.amount());
        let old = self.messages.insert(key.into(), value);
        self.held.subtract(old.as_ref());
        old
    }

    fn remove(&mut self, key: &str) -> Option<LastValue> {
        let old = self.messages.remove(key);
        self.held.subtract(old.as_ref());
        old
    }

    /// Removes a last value. False when there is none.
    pub(crate) fn forget(&mut self, key: &str, now_ms: u64) -> bool {
        self.remove(key).is_some_and(|value| !value.message.is_expired(now_ms))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.messages.keys().map(|key| &**key)
    }

    /// The topics with a last value that has not expired, in their order.
    pub(crate) fn topics(&self, now_ms: u64) -> Vec<String> {
        let there = self.messages.iter().filter(|(_, value)| !value.message.is_expired(now_ms));
        there.map(|(key, _)| key.to_string()).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    /// The last values whose topics match, in order of their keys; those that have expired are left
    /// out, and those published by the client `but`.
    pub(crate) fn matching(
        &self,
        pattern: &Pattern,
        but: Option<&str>,
        now_ms: u64,
    ) -> Vec<Message> {
        let prefix = literal_prefix(pattern);
        let in_range = self.messages.range::<str, _>((
            std::ops::Bound::Included(prefix.as_str()),
            std::ops::Bound::Unbounded,
        ));
        in_range
            .take_while(|(key, _)| key.starts_with(&prefix))
            .filter(|(key, value)| !value.message.is_expired(now_ms) && pattern.matches(key))
            .filter(|(_, value)| but.is_none_or(|client_id| *value.publisher != *client_id))
            .map(|(_, value)| value.message.clone())
            .collect()
    }

    /// Removes and returns the keys of what has expired.
    pub(crate) fn expire(&mut self, now_ms: u64) -> Vec<Box<str>> {
        let expired: Vec<Box<str>> = self
            .messages
            .iter()
            .filter(|(_, value)| value.message.is_expired(now_ms))
            .map(|(key, _)| key.clone())
            .collect();
        for key in &expired {
            self.remove(key);
        }
        expired
    }
}

impl LastValue {
    fn amount(&self) -> Amount {
        match self.is_own {
            true => Amount::default(),
            false => Amount { count: 1, bytes: self.message.size() as u64 },
        }
    }
}

impl Amount {
    fn add(&mut self, more: Self) {
        self.count += more.count;
        self.bytes += more.bytes;
    }

    fn subtract(&mut self, gone: Option<&LastValue>) {
        let gone = gone.map(LastValue::amount).unwrap_or_default();
        self.count -= gone.count;
        self.bytes -= gone.bytes;
    }
}

/// The text that every matching key begins with.
fn literal_prefix(pattern: &Pattern) -> String {
    let mut prefix = String::new();
    for (index, level) in pattern.levels().iter().enumerate() {
        let Level::Literal(text) = level else { break };
        if index > 0 {
            prefix.push('.');
        }
        prefix.push_str(text);
    }
    prefix
}
