//! Retained messages: the last value of each topic.

use std::collections::BTreeMap;

use polymq_model::{
    Message,
    topic::{Level, Pattern},
};

/// Last values by key in dot form.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    messages: BTreeMap<Box<str>, Message>,
}

impl Retained {
    /// Keeps `message` as the last value of its key; one without a body removes it.
    pub(crate) fn put(&mut self, message: &Message) {
        if message.body().is_empty() {
            self.messages.remove(message.key());
        } else {
            self.messages.insert(message.key().into(), message.clone());
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    /// The last values whose topics match, in order of their keys; those that have expired are left
    /// out.
    pub(crate) fn matching(&self, pattern: &Pattern, now_ms: u64) -> Vec<Message> {
        let prefix = literal_prefix(pattern);
        let in_range = self.messages.range::<str, _>((
            std::ops::Bound::Included(prefix.as_str()),
            std::ops::Bound::Unbounded,
        ));
        in_range
            .take_while(|(key, _)| key.starts_with(&prefix))
            .filter(|(key, message)| !message.is_expired(now_ms) && pattern.matches(key))
            .map(|(_, message)| message.clone())
            .collect()
    }

    /// Removes and returns the keys of what has expired.
    pub(crate) fn expire(&mut self, now_ms: u64) -> Vec<Box<str>> {
        let expired: Vec<Box<str>> = self
            .messages
            .iter()
            .filter(|(_, message)| message.is_expired(now_ms))
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
