//! Between the headers of STOMP and the canonical fields of a message.

use bytes::BytesMut;
use polymq_contract::Conversions;
use polymq_model::{
    Format, Message, Properties,
    address::{Address, TOPIC_EXCHANGE},
    carry::{
        Outcome, STOMP10, STOMP11, STOMP12, TextTarget, Writing, annotation_text_headers,
        event_from_prefixed_names, expiry_shown_ms, from_text_headers, ident_from_text,
        ident_to_text, is_text_encoding, seconds_down, to_text_headers,
    },
    format,
};

use crate::{
    codec::{Version, unescape, writer::put_header},
    native,
};

/// Native form of STOMP: the header lines that travel on, in the form of STOMP 1.2.
pub static STOMP: Format = Format { id: format::STOMP, name: "stomp", decode };

static TARGET_12: TextTarget = STOMP12;

fn target(version: Version) -> &'static TextTarget {
    match version {
        Version::V10 => &STOMP10,
        Version::V11 => &STOMP11,
        Version::V12 => &TARGET_12,
    }
}

/// Reads the header lines of a message. What cannot be read stays a header.
fn decode(message: &Message) -> Properties {
    let mut props = Properties { durable: None, ..Properties::of_head(message) };
    (props.qos, props.retain) = (0, false);
    let mut headers: Vec<(String, String)> = Vec::new();
    let mut expires_ms = None;
    for (name, value) in native::lines(message.native_props()) {
        let meant = |text| unescape(text, Version::V12).unwrap_or(std::borrow::Cow::Borrowed(text));
        let (name, value) = (meant(name).into_owned(), meant(value).into_owned());
        if let Some(value) = take_field(&name, value, &mut expires_ms, &mut props) {
            props.first_counts |= headers.iter().any(|(known, _)| *known == name);
            headers.push((name, value));
        }
    }
    // A moment is as good as the time until then.
    let until = expires_ms.map(|at: u64| at.saturating_sub(message.arrived_ms()));
    props.ttl_ms = [props.ttl_ms, until].into_iter().flatten().min();
    from_text_headers(headers, &mut props, &mut |field, outcome| {
        tracing::debug!(event = "field_dropped", field, outcome = outcome.label(), "field dropped");
    });
    if props.text.is_none() && is_text_encoding(props.content_encoding.as_deref()) {
        props.text = Some(true);
    }
    event_from_prefixed_names(&mut props);
    props.qos = props.qos.max(message.qos());
    props.retain |= message.retain();
    props
}

/// Lifts a header that is a field; gives the value back when it stays a header. Of repeated ones
/// the first counts.
fn take_field(
    name: &str,
    value: String,
    expires_ms: &mut Option<u64>,
    props: &mut Properties,
) -> Option<String> {
    let text = |slot: &mut Option<String>, value: String| match slot {
        Some(_) => Some(value),
        None => {
            *slot = Some(value);
            None
        }
    };
    match name {
        "content-type" => text(&mut props.content_type, value),
        "content-encoding" => text(&mut props.content_encoding, value),
        "type" => text(&mut props.kind, value),
        "app-id" => text(&mut props.app_id, value),
        "user-id" => text(&mut props.user_id, value),
        "amqp-message-id" if props.id.is_none() => {
            props.id = Some(ident_from_text(&value, None));
            None
        }
        "correlation-id" if props.correlation.is_none() => {
            props.correlation = Some(ident_from_text(&value, None));
            None
        }
        "reply-to" if props.reply_to.is_none() => {
            props.reply_to = Some(Address::from_stomp(&value, TOPIC_EXCHANGE));
            None
        }
        "persistent" if props.durable.is_none() => {
            props.durable = value.parse().ok();
            props.durable.is_none().then_some(value)
        }
        // The head of the message holds it.
        "priority" => value.parse::<u8>().is_err().then_some(value),
        "expiration" if props.ttl_ms.is_none() => {
            props.ttl_ms = value.parse().ok();
            props.ttl_ms.is_none().then_some(value)
        }
        "expires" if expires_ms.is_none() => match value.parse() {
            Ok(0) => None,
            Ok(at) => {
                *expires_ms = Some(at);
                None
            }
            Err(_) => Some(value),
        },
        "timestamp" if props.timestamp_ms.is_none() => {
            props.timestamp_ms = value.parse::<i64>().ok().and_then(|secs| secs.checked_mul(1000));
            props.timestamp_ms.is_none().then_some(value)
        }
        _ => Some(value),
    }
}

/// Appends the headers of a message that are not the server's own.
#[inline]
pub(crate) fn put_headers(
    message: &Message,
    version: Version,
    unix_ms: u64,
    exchange: &str,
    conversions: &Conversions,
    out: &mut BytesMut,
) {
    let is_plain = message.format().id == format::STOMP
        && message.annotations().is_none()
        && native::is_verbatim(message.native_props(), version);
    if is_plain {
        return out.extend_from_slice(message.native_props());
    }
    put_others(message, version, unix_ms, exchange, conversions, out);
}

fn put_others(
    message: &Message,
    version: Version,
    unix_ms: u64,
    exchange: &str,
    conversions: &Conversions,
    out: &mut BytesMut,
) {
    let is_native = message.format().id == format::STOMP
        && native::is_verbatim(message.native_props(), version);
    if is_native {
        put_native(message, out);
    } else {
        put_converted(message, version, unix_ms, exchange, conversions, out);
    }
    let annotations = message.annotations().map(annotation_text_headers).unwrap_or_default();
    for (name, value) in annotations {
        if !target(version).cannot_say(&value) {
            put_header(&name, &value, version, out);
        }
    }
}

/// The lines as they came. A dead letter lives on without the expiry it may have died of.
fn put_native(message: &Message, out: &mut BytesMut) {
    let is_dead_letter = message.annotations().is_some_and(|known| !known.deaths.is_empty());
    let without_expiry = is_dead_letter && message.deadline_ms() == 0;
    for (name, value) in native::lines(message.native_props()) {
        if without_expiry && matches!(name, "expiration" | "expires" | "x-mq-ttl") {
            continue;
        }
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b":");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\n");
    }
}

/// Writes canonical fields, then headers, and what STOMP has no header for.
fn put_converted(
    message: &Message,
    version: Version,
    unix_ms: u64,
    exchange: &str,
    conversions: &Conversions,
    out: &mut BytesMut,
) {
    let props = message.properties();
    let target = target(version);
    let shown = expiry_shown_ms(message.deadline_ms(), unix_ms, 1);
    let writing =
        Writing { expiry_shown_ms: shown, topic_exchange: exchange, ..Writing::default() };
    let pair = conversions.pair(message.format(), &STOMP);
    pair.messages.add(usize::from(message.format().id != format::STOMP));
    if props.content_type.as_deref().is_some_and(|text| target.cannot_say(text)) {
        pair.dropped("content_type", Outcome::NoPlace, 1);
    }
    let mut put = |name: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !target.cannot_say(value)) {
            put_header(name, value, version, out);
        }
    };
    put("content-type", props.content_type.as_deref());
    put("content-encoding", props.content_encoding.as_deref());
    put("persistent", (props.durable == Some(true)).then_some("true"));
    put("priority", props.priority.map(|priority| priority.to_string()).as_deref());
    put("expiration", shown.map(|ms| ms.to_string()).as_deref());
    put("timestamp", props.timestamp_ms.and_then(seconds_down).map(|s| s.to_string()).as_deref());
    put("amqp-message-id", props.id.as_ref().map(ident_to_text).as_deref());
    put("correlation-id", props.correlation.as_ref().map(|id| said(id, target)).as_deref());
    let reply_to = props.reply_to.as_ref().and_then(|address| address.to_stomp(exchange));
    put("reply-to", reply_to.as_deref());
    put("type", props.kind.as_deref());
    put("user-id", props.user_id.as_deref());
    put("app-id", props.app_id.as_deref());
    let headers = to_text_headers(props, target, &writing, &mut |field, outcome| {
        pair.dropped(field, outcome, 1);
    });
    for (name, value) in &headers {
        put_header(name, value, version, out);
    }
}

/// An identifier as text; one with characters that the version cannot say is the escape of its
/// bytes.
fn said(ident: &polymq_model::Ident, target: &TextTarget) -> String {
    let text = ident_to_text(ident);
    match target.cannot_say(&text) {
        false => text,
        true => ident_to_text(&polymq_model::Ident::Binary(text.into_bytes())),
    }
}
