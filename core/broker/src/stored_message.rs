//! Messages as bytes: in the log of a queue, and in definitions.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use polymq_model::{Annotations, Formats, LogId, Message, Seq};
use polymq_store::{BatchWriter, PubRef};
use serde::{Deserialize, Serialize};

use crate::definitions::StoredMessage;

/// What a stored message needs beyond its envelope; most need nothing.
#[derive(Default, Serialize, Deserialize)]
struct Beyond {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    annotations: Option<Annotations>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    keys: Vec<Box<str>>,
}

/// Writes a message as a record of a log.
pub(crate) fn write(
    writer: &mut BatchWriter<'_>,
    log: LogId,
    seq: Seq,
    deadline_ms: u64,
    message: &Message,
) -> PubRef {
    let beyond = beyond(message);
    let envelope = message.envelope(beyond.len());
    let props = [&envelope[..], message.stored_tail(), &beyond];
    writer.publish(log, seq, deadline_ms, 0, &props, message.body())
}

/// Reads the props and the body of a record.
pub(crate) fn read(
    props: &[u8],
    body: Bytes,
    deadline_ms: u64,
    formats: &Formats,
) -> Option<Message> {
    let (message, beyond) = Message::from_stored(props, body, deadline_ms, formats)?;
    if beyond.is_empty() {
        return Some(message);
    }
    let beyond: Beyond = serde_json::from_slice(beyond).unwrap_or_default();
    let message = message.with_extra_keys(beyond.keys);
    Some(match beyond.annotations {
        Some(annotations) => message.with_annotations(annotations),
        None => message,
    })
}

/// A message outside a queue.
pub(crate) fn to_definition(message: &Message) -> StoredMessage {
    let beyond = beyond(message);
    let mut props = message.envelope(beyond.len()).to_vec();
    props.extend_from_slice(message.stored_tail());
    props.extend_from_slice(&beyond);
    StoredMessage {
        deadline_ms: message.deadline_ms(),
        props: BASE64_STANDARD.encode(props),
        body: BASE64_STANDARD.encode(message.body()),
    }
}

/// The reverse of [`to_definition`].
pub(crate) fn from_definition(stored: &StoredMessage, formats: &Formats) -> Option<Message> {
    let props = BASE64_STANDARD.decode(&stored.props).ok()?;
    let body = BASE64_STANDARD.decode(&stored.body).ok()?;
    read(&props, Bytes::from(body), stored.deadline_ms, formats)
}

fn beyond(message: &Message) -> Vec<u8> {
    if message.annotations().is_none() && message.extra_keys().is_empty() {
        return Vec::new();
    }
    let beyond =
        Beyond { annotations: message.annotations().cloned(), keys: message.extra_keys().to_vec() };
    serde_json::to_vec(&beyond).unwrap_or_default()
}
