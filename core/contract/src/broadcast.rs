//! Messages for many direct subscribers, rendered once and shared.

use std::sync::OnceLock;

use bytes::Bytes;
use polymq_model::Message;

/// Ways in which a broadcast can be rendered and kept; each protocol owns the numbers it uses.
pub const RENDERINGS: usize = 4;

/// A batch of messages for direct subscribers.
///
/// A session that would encode it just as its neighbours do asks [`Broadcast::rendered`], so that
/// the encoding is done once for all of them.
#[derive(Debug)]
pub struct Broadcast {
    messages: Vec<Message>,
    bytes: usize,
    largest: usize,
    perishable: bool,
    extra_keys: bool,
    rendered: [OnceLock<Bytes>; RENDERINGS],
}

impl Broadcast {
    /// Wraps the messages.
    pub fn new(messages: Vec<Message>) -> Self {
        Self {
            bytes: messages.iter().map(Message::size).sum(),
            largest: messages.iter().map(Message::size).max().unwrap_or(0),
            perishable: messages.iter().any(|m| m.deadline_ms() != 0),
            extra_keys: messages.iter().any(|m| !m.extra_keys().is_empty()),
            messages,
            rendered: Default::default(),
        }
    }

    /// The messages, in order.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// What the batch weighs.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// An upper bound of the size of each message; renderings are larger by at most their framing.
    pub fn largest(&self) -> usize {
        self.largest
    }

    /// True when a message has a deadline, so that its encoding depends on the time.
    pub fn is_perishable(&self) -> bool {
        self.perishable
    }

    /// True when a message has several keys, so that subscribers may know it by different topics.
    pub fn has_extra_keys(&self) -> bool {
        self.extra_keys
    }

    /// The rendering number `way`, made by `render` when nobody has needed it before.
    ///
    /// Ways: 0 MQTT 3, 1 MQTT 5 without properties of the subscriber; others are free.
    pub fn rendered(&self, way: usize, render: impl FnOnce(&[Message]) -> Bytes) -> Bytes {
        match self.rendered.get(way) {
            Some(slot) => slot.get_or_init(|| render(&self.messages)).clone(),
            None => render(&self.messages),
        }
    }
}
