//! How canonical fields and typed headers travel in protocols that have no place for them.
//!
//! A field that a target lacks becomes a *carry key*, an ordinary header `x-mq-…`, and the reader
//! of that protocol lifts it back. A header that is not a string becomes text, and its type is
//! listed in `x-mq-types`. So a message that goes from A to B and back to A is what it was, when
//! the client of B passes on the properties it received.
//!
//! A protocol's **reader** fills the [`Properties`](crate::Properties) its native form has, then
//! hands the headers to [`from_table_headers`] (AMQP) or [`from_text_headers`] (MQTT 5), which
//! lifts the carried fields. Its **writer** writes what its native form has, and as headers what
//! [`to_table_headers`] or [`to_text_headers`] returns.

mod death;
mod event;
mod explain;
mod ident;
pub(crate) mod json;
mod keys;
mod number;
mod read;
mod text;
mod types;
mod write;

pub use death::{annotation_headers, annotation_text_headers};
pub use event::{event_from_bare_names, event_from_prefixed_names, event_to_bare_names};
pub use explain::{Explained, TARGETS, Target, died_of, explain, said_fields, stanza_part};
pub use ident::{ident_from_bytes, ident_from_text, ident_kind, ident_to_bytes, ident_to_text};
pub use json::{value_from_json, value_to_json};
pub use keys::{
    Carry, Dropped, Field, GROUP_ID, Outcome, REPLY_TOPIC_ALIAS, RETAIN, is_carry_key, is_reserved,
};
pub use number::{
    expiry_shown_ms, remaining_ms, rfc3339_from_ms, rfc3339_to_ms, round_up, seconds_down,
    smaller_ttl,
};
pub use read::{from_table_headers, from_text_headers, header_as_sent, is_text_encoding};
pub use text::{code_of, value_from_text, value_to_text};
pub use types::{decode_types, encode_types};
pub use write::{
    MQTT5, Repeats, STOMP10, STOMP11, STOMP12, TextTarget, Writing, drop_carry_keys,
    to_table_headers, to_text_headers,
};

/// Shortest text of AMQP 0-9-1: properties and header names have at most this many bytes.
pub const SHORT_BYTES_MAX: usize = 255;

/// Depth of nested lists and maps that is read and written.
pub const DEPTH_MAX: usize = 32;

#[cfg(test)]
mod tests;
