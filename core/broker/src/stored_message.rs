//! Messages as bytes: in the log of a queue, and in definitions.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use polymq_model::{Annotations, Formats, LogId, Message, Seq};
use polymq_store::{BatchWriter, PubRef};

use crate::definitions::StoredMessage;

/// Writes a message as a record of a log.
pub(crate) fn write(
    writer: &mut BatchWriter<'_>,
    log: LogId,
    seq: Seq,
    deadline_ms: u64,
    message: &Message,
) -> PubRef {
    let annotations = annotations(message);
    let envelope = message.envelope(annotations.len());
    let props = [&envelope[..], message.stored_tail(), &annotations];
    writer.publish(log, seq, deadline_ms, 0, &props, message.body())
}

/// Reads the props and the body of a record.
pub(crate) fn read(
    props: &[u8],
    body: Bytes,
    deadline_ms: u64,
    formats: &Formats,
) -> Option<Message> {
    let (message, annotations) = Message::from_stored(props, body, deadline_ms, formats)?;
    if annotations.is_empty() {
        return Some(message);
    }
    match serde_json::from_slice::<Annotations>(annotations) {
        Ok(annotations) => Some(message.with_annotations(annotations)),
        Err(_) => Some(message),
    }
}

/// A message outside a queue.
pub(crate) fn to_definition(message: &Message) -> StoredMessage {
    let annotations = annotations(message);
    let mut props = message.envelope(annotations.len()).to_vec();
    props.extend_from_slice(message.stored_tail());
    props.extend_from_slice(&annotations);
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

fn annotations(message: &Message) -> Vec<u8> {
    match message.annotations() {
        Some(annotations) => serde_json::to_vec(annotations).unwrap_or_default(),
        None => Vec::new(),
    }
}
