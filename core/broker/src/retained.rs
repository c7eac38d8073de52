//! Retained messages: the last value of each topic.

use std::collections::BTreeMap;

use polymq_model::{
    Message,
    topic::{Level, Pattern},
};

/// Last values by key in dot form.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    messages: BTreeMap<Box<str>, LastValue>,
}

#[derive(Debug)]
struct LastValue {
    message: Message,
    /// Client id of its publisher; empty for one without a client session.
    publisher: Box<str>,
}

impl Retained {
    /// Keeps `message` as the last value of its key; one without a body removes it. `publisher` is
    /// a client id, empty for a publisher without a client session.
    pub(crate) fn put(&mut self, message: &Message, publisher: &str) {
        if message.body().is_empty() {
            self.messages.remove(message.key());
        } else {
            let value = LastValue { message: message.clone(), publisher: publisher.into() };
            self.messages.insert(message.key().into(), value);
        }
    }

    /// Removes a last value. False when there is none.
    pub(crate) fn forget(&mut self, key: &str, now_ms: u64) -> bool {
        self.messages.remove(key).is_some_and(|value| !value.message.is_expired(now_ms))
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
            self.messages.remove(key);
        }
        expired
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
