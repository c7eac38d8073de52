//! Messages as JSON: what HTTP and JSON over WebSocket read and write.
//!
//! The native form is the JSON of the properties. Those that the head of every message holds
//! (persistence, priority, retain, quality of service) are not in it, so the properties of a plain
//! message take no bytes.
//!
//! A header that plain JSON cannot say has its type in `header_types`, which maps JSON pointers to
//! the codes of [`crate::carry::code_of`]; inside lists and maps it is `{"$t":"i32","v":5}`.

mod build;
mod headers;
mod message;
mod properties;

#[cfg(test)]
mod tests;

pub use build::{NewJsonMessage, Sender};
pub use headers::{HeaderTable, Style};
pub use message::{IncomingMessage, Payload, PayloadEncoding, Shown, ShownDeath, payload_text};
pub use properties::{JsonProperties, Millis};

use crate::{
    carry::{
        event_from_prefixed_names, from_table_headers, ident_from_text, is_text_encoding,
        rfc3339_to_ms,
    },
    format::{self, Format},
    message::Message,
    properties::Properties,
};

/// Native form of HTTP: properties as JSON.
pub static HTTP: Format = Format { id: format::HTTP, name: "http", decode };

/// A field of a message that cannot be what it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct BadField {
    /// Which, as a JSON pointer.
    pub at: String,
    /// Why.
    pub text: String,
    /// What is wrong with it.
    pub kind: BadKind,
}

/// What is wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadKind {
    /// It cannot be this.
    Wrong,
    /// The message is too large.
    TooLarge,
    /// It asks for something that is planned.
    NotAvailable,
}

impl BadField {
    /// A field that is wrong.
    pub fn new(at: impl Into<String>, text: impl Into<String>) -> Self {
        Self { at: at.into(), text: text.into(), kind: BadKind::Wrong }
    }
}

/// Reads the properties. What cannot be read is left out: they are checked when they enter.
fn decode(message: &Message) -> Properties {
    let mut props = Properties::of_head(message);
    let native = message.native_props();
    if native.is_empty() {
        return props;
    }
    let Ok(said) = serde_json::from_slice::<JsonProperties>(native) else { return props };
    fill(&mut props, said, message.arrived_ms());
    props.qos = props.qos.max(message.qos());
    props.retain |= message.retain();
    props
}

/// Gives the properties what JSON says.
fn fill(props: &mut Properties, said: JsonProperties, arrived_ms: u64) {
    (props.qos, props.retain) = (0, false);
    props.text = said.text;
    props.id = said.message_id.map(|text| ident_from_text(&text, None));
    let kind = said.correlation_kind;
    props.correlation = said.correlation_id.map(|text| ident_from_text(&text, kind.as_deref()));
    props.content_type = said.content_type;
    props.content_encoding = said.content_encoding;
    props.kind = said.r#type;
    props.app_id = said.app_id;
    props.user_id = said.user_id;
    props.group_id = said.group_id;
    props.reply_to = said.reply_to.map(|text| crate::address::Address::parse(&text));
    let until = said.expires_at.as_deref().and_then(rfc3339_to_ms);
    let until = until.and_then(|at| u64::try_from(at).ok()).map(|at| at.saturating_sub(arrived_ms));
    props.ttl_ms = [said.expiration.map(|ms| ms.0), said.ttl, until].into_iter().flatten().min();
    let seconds = said.timestamp.and_then(|secs| secs.checked_mul(1000));
    props.timestamp_ms = said.timestamp_ms.or(seconds);
    props.first_counts = said.first_counts == Some(true);
    let named = said.headers.map(|headers| headers.table).unwrap_or_default();
    let listed = said.header_list.map(|headers| headers.table).unwrap_or_default();
    let table = named.into_iter().chain(listed).collect();
    from_table_headers(table, props, &mut |_, _| {});
    if props.text.is_none() && is_text_encoding(props.content_encoding.as_deref()) {
        props.text = Some(true);
    }
    event_from_prefixed_names(props);
}
