//! Messages as JSON.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use polymq_broker::{BrowsedMessage, MessageState};
use polymq_model::{
    Message,
    carry::rfc3339_from_ms,
    json_form::{JsonProperties, Style},
};
use serde_json::{Map, Value, json};

use super::value::time;
use crate::clock;

/// Bytes of the beginning of a payload.
const HEAD_BYTES: usize = 4096;

/// How much of payloads is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payload {
    None,
    Head,
    Full,
}

impl Payload {
    pub(super) const WORDS: &[&str] = &["none", "head", "full"];

    pub(super) fn parse(word: Option<&str>) -> Self {
        match word {
            Some("none") => Self::None,
            Some("full") => Self::Full,
            _ => Self::Head,
        }
    }
}

/// A message of a queue with what the broker knows about it.
pub(super) fn browsed(found: &BrowsedMessage, payload: Payload) -> Value {
    let message = &found.message;
    let mut shown = of_message(message, payload);
    let (state, due_ms, consumer) = match &found.state {
        MessageState::Ready => ("ready", 0, None),
        MessageState::Unacked { consumer } => ("unacked", 0, Some(consumer)),
        MessageState::Scheduled { due_ms } => ("scheduled", *due_ms, None),
    };
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            shown.insert(name.to_owned(), value);
        }
    };
    put("seq", json!(found.seq.to_string()));
    put("state", json!(state));
    put("due_at", time(due_ms));
    put("consumer", consumer.map_or(Value::Null, |tag| json!(&**tag)));
    put("enqueued_at", time(message.arrived_ms()));
    put("expires_at", time(found.expires_ms));
    put("delivery_count", json!(found.failed));
    put("acquired_count", json!(found.acquired));
    put("redelivered", json!(found.acquired > 0));
    put("origin", json!({ "protocol": message.format().name, "address": address(message) }));
    put("death", deaths(message));
    Value::Object(shown)
}

/// The properties of a message exactly as they came.
pub(super) fn native(message: &Message) -> Value {
    json!({
        "protocol": message.format().name,
        "properties_base64": BASE64_STANDARD.encode(message.native_props()),
    })
}

/// The message object of the API.
pub(super) fn of_message(message: &Message, payload: Payload) -> Map<String, Value> {
    let mut shown = address_of(message);
    let properties = JsonProperties::of(message, clock::now().unix_ms, Style::Bare);
    let properties = serde_json::to_value(properties).unwrap_or_default();
    shown.insert("properties".to_owned(), properties);
    let body = message.body();
    if payload == Payload::None {
        return shown;
    }
    let max = if payload == Payload::Head { HEAD_BYTES } else { body.len() };
    let (text, encoding) = match std::str::from_utf8(body) {
        Ok(text) => (text[..text.floor_char_boundary(max)].to_owned(), "string"),
        Err(_) => (BASE64_STANDARD.encode(body.get(..max).unwrap_or(body)), "base64"),
    };
    shown.insert("payload".to_owned(), json!(text));
    shown.insert("payload_encoding".to_owned(), json!(encoding));
    shown.insert("truncated".to_owned(), json!(body.len() > max));
    shown
}

/// Where a message goes and how large it is, without what is in it.
pub(super) fn address_of(message: &Message) -> Map<String, Value> {
    let mut shown = Map::new();
    shown.insert("exchange".to_owned(), json!(message.exchange()));
    shown.insert("routing_key".to_owned(), json!(message.key()));
    shown.insert("payload_bytes".to_owned(), json!(message.body().len()));
    shown
}

fn address(message: &Message) -> String {
    match message.exchange() {
        "" => message.key().to_owned(),
        exchange => format!("{exchange}/{}", message.key()),
    }
}

/// Where and of what a message died, the newest first.
fn deaths(message: &Message) -> Value {
    let Some(known) = message.annotations().filter(|known| !known.deaths.is_empty()) else {
        return Value::Null;
    };
    let one = |death: &polymq_model::Death| {
        json!({
            "queue": death.queue,
            "reason": death.reason,
            "detail": death.detail,
            "count": death.count,
            "at": rfc3339_from_ms(i64::try_from(death.time_ms).unwrap_or(i64::MAX)),
            "exchange": death.exchange,
            "routing_keys": death.routing_keys,
            "original_expiration": death.original_ttl_ms,
        })
    };
    known.deaths.iter().map(one).collect()
}
