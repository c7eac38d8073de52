//! CloudEvents in binary mode, whose attributes are headers.
//!
//! MQTT 5 gives the attributes their bare names. Everywhere else, and among the headers of
//! [`Properties`], they are `cloudEvents_<name>`. The attributes `id`, `type` and `time` also are
//! the fields of the message that say the same.
//!
//! Specification: CloudEvents 1.0.2, bindings for AMQP and MQTT, binary content mode.

use super::{
    ident::{ident_from_text, ident_to_text},
    number::{rfc3339_from_ms, rfc3339_to_ms},
};
use crate::{properties::Properties, value::Value};

const PREFIX: &str = "cloudEvents_";
/// The older prefix, which is read only.
const PREFIX_ALIAS: &str = "cloudEvents:";
/// The attribute that makes a message an event.
const VERSION: &str = "specversion";

/// Headers that keep their names, although an event may use them as attributes.
const NOT_ATTRIBUTES: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// Recognises an event by headers with bare names, as in MQTT 5.
pub fn event_from_bare_names(props: &mut Properties) {
    if !props.headers.iter().any(|(name, _)| name == VERSION) {
        return;
    }
    for (name, _) in &mut props.headers {
        if is_attribute(name) {
            name.insert_str(0, PREFIX);
        }
    }
    lift(props);
}

/// Recognises an event by headers with prefixed names, as in AMQP.
pub fn event_from_prefixed_names(props: &mut Properties) {
    let is_event = |name: &str| {
        name.strip_prefix(PREFIX).or_else(|| name.strip_prefix(PREFIX_ALIAS)) == Some(VERSION)
    };
    if !props.headers.iter().any(|(name, _)| is_event(name)) {
        return;
    }
    for (name, _) in &mut props.headers {
        if let Some(new) = renamed(name) {
            *name = new;
        }
    }
    lift(props);
}

/// The name that a header with the older prefix is read under.
pub(super) fn renamed(name: &str) -> Option<String> {
    name.strip_prefix(PREFIX_ALIAS).map(|bare| format!("{PREFIX}{bare}"))
}

/// The event with bare names, and without the fields that its attributes say; `None` when the
/// message is no event.
pub fn event_to_bare_names(props: &Properties) -> Option<Properties> {
    attribute(props, VERSION)?;
    let mut event = props.clone();
    let id = event.id.as_ref().map(ident_to_text);
    if said(&mut event, "id", id) {
        event.id = None;
    }
    let kind = event.kind.clone();
    if said(&mut event, "type", kind) {
        event.kind = None;
    }
    let time = event.timestamp_ms;
    let is_said = match (attribute(&event, "time"), time) {
        (Some(text), Some(ms)) => rfc3339_to_ms(text) == Some(ms),
        _ => said(&mut event, "time", time.map(rfc3339_from_ms)),
    };
    if is_said {
        event.timestamp_ms = None;
    }
    for (name, _) in &mut event.headers {
        if let Some(bare) = name.strip_prefix(PREFIX).filter(|bare| is_attribute(bare)) {
            *name = bare.to_owned();
        }
    }
    Some(event)
}

/// Gives the fields of a message what the attributes say, where the message does not say otherwise.
fn lift(props: &mut Properties) {
    let text = |name| attribute(props, name).map(str::to_owned);
    let (id, kind, time) = (text("id"), text("type"), text("time"));
    props.id = props.id.take().or_else(|| Some(ident_from_text(&id?, None)));
    props.kind = props.kind.take().or(kind);
    props.timestamp_ms = props.timestamp_ms.or_else(|| rfc3339_to_ms(&time?));
}

/// True when the attribute says what the field says; one that is missing is added.
fn said(event: &mut Properties, name: &str, field: Option<String>) -> bool {
    let Some(field) = field else { return false };
    match attribute(event, name) {
        Some(text) => text == field,
        None => {
            event.headers.push((format!("{PREFIX}{name}"), Value::String(field)));
            true
        }
    }
}

fn attribute<'a>(props: &'a Properties, name: &str) -> Option<&'a str> {
    let found = props.headers.iter().find(|(known, _)| known.strip_prefix(PREFIX) == Some(name));
    found.and_then(|(_, value)| value.as_str())
}

/// Names of attributes are lower-case letters and digits.
fn is_attribute(name: &str) -> bool {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    is_plain && !name.is_empty() && !NOT_ATTRIBUTES.contains(&name)
}
