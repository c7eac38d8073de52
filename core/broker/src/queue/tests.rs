//! Helpers for the tests of queues.

use polymq_contract::Matched;
use polymq_model::{Message, NewMessage, Seq, format::PLAIN_FORMAT, message::Body};

use super::{Entry, position::Position};

/// A message with a body of its own.
pub(crate) fn message(body: &str) -> Message {
    NewMessage {
        format: &PLAIN_FORMAT,
        exchange: "",
        key: "q",
        props: &[],
        body: Body::Slice(body.as_bytes()),
        durable: true,
        priority: None,
        qos: 1,
        retain: false,
        deadline_ms: 0,
        arrived_ms: 0,
        extra_keys: Vec::new(),
    }
    .build(&mut Vec::new())
}

/// An entry at a position.
pub(crate) fn entry(seq: u64) -> Entry {
    Entry {
        at: Position::new(0, Seq(seq)),
        deadline_ms: 0,
        acquired: 0,
        failed: 0,
        matched: Matched::default(),
        message: message("x"),
    }
}
