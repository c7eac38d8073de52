//! Between the property list of AMQP and the canonical fields, in both directions.

use polymq_contract::Conversions;
use polymq_model::{
    Message, Properties, Table, Value,
    address::Address,
    carry::{
        SHORT_BYTES_MAX, Writing, annotation_headers, event_from_prefixed_names, expiry_shown_ms,
        from_table_headers, ident_from_bytes, ident_from_text, ident_to_text, seconds_down,
        to_table_headers,
    },
    format::{self, FormatId},
};

use crate::{
    AMQP091,
    channel::Arrival,
    codec::{
        props::Props,
        table::{self, DECODE_BOUNDS, put_entry},
    },
};

/// `delivery-mode` of persistent messages.
const PERSISTENT: u8 = 2;
const TRANSIENT: u8 = 1;

/// Reads the native properties of a message that came over AMQP 0-9-1.
///
/// What cannot be read is left out: publishes are checked when they enter, so this happens to
/// damaged records only.
pub(crate) fn decode(message: &Message) -> Properties {
    let mut props = Properties::of_head(message);
    let Ok(native) = Props::parse(message.native_props()) else { return props };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // A text may be the escape of bytes that came from another protocol.
    let ident = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => ident_from_text(text, None),
        Err(_) => ident_from_bytes(bytes, None),
    };
    // Unsaid stays unsaid, although the head of the message knows a default.
    props.durable = native.delivery_mode.map(|mode| mode == PERSISTENT);
    props.qos = 0;
    props.retain = false;
    props.content_type = native.content_type.map(text);
    props.content_encoding = native.content_encoding.map(text);
    props.correlation = native.correlation_id.map(ident);
    props.id = native.message_id.map(ident);
    props.reply_to = native.reply_to.map(|bytes| Address::from_amqp(&text(bytes)));
    props.ttl_ms = native.expiration.and_then(|bytes| text(bytes).parse().ok());
    props.timestamp_ms = native.timestamp.map(table::millis);
    props.kind = native.kind.map(text);
    props.user_id = native.user_id.map(text);
    props.app_id = native.app_id.map(text);
    let headers = native.headers.and_then(|headers| table::decode(headers, DECODE_BOUNDS).ok());
    from_table_headers(headers.unwrap_or_default(), &mut props, &mut |field, outcome| {
        tracing::debug!(event = "field_dropped", field, outcome = outcome.label(), "field dropped");
    });
    event_from_prefixed_names(&mut props);
    props.qos = props.qos.max(message.qos());
    props.retain |= message.retain();
    props
}

/// True when a client sees exactly the property bytes that were published.
#[inline]
pub(crate) fn is_shown_as_received(arrival: &Arrival<'_>) -> bool {
    let message = arrival.message;
    arrival.acquired == 0
        && arrival.failed == 0
        && message.format().id == format::AMQP091
        && message.annotations().is_none()
        && message.key_bytes().len() <= SHORT_BYTES_MAX
}

/// Appends the property list that a client sees.
pub(crate) fn write(
    arrival: &Arrival<'_>,
    unix_ms: u64,
    conversions: &Conversions,
    out: &mut Vec<u8>,
) {
    let broker = broker_headers(arrival);
    let format = arrival.message.format();
    if format.id != format::AMQP091 {
        conversions.pair(format, &AMQP091).messages.add(1);
    }
    match arrival.message.format().id {
        format::AMQP091 => write_native(arrival.message, &broker, out),
        format::MQTT3 | format::PLAIN => write_head(arrival.message, broker, unix_ms, out),
        FormatId(_) => write_converted(arrival.message, broker, unix_ms, conversions, out),
    }
}

/// What only the broker knows, shown as headers.
fn broker_headers(arrival: &Arrival<'_>) -> Table {
    let mut headers = arrival.message.annotations().map(annotation_headers).unwrap_or_default();
    for (name, count) in
        [("x-delivery-count", arrival.failed), ("x-acquired-count", arrival.acquired)]
    {
        if count > 0 {
            headers.push((name.to_owned(), Value::I64(count.into())));
        }
    }
    if arrival.message.key_bytes().len() > SHORT_BYTES_MAX {
        let key = arrival.message.key().to_owned();
        headers.push(("x-routing-key".to_owned(), Value::String(key)));
    }
    headers
}

/// The native list, with the broker's headers behind the sender's.
fn write_native(message: &Message, broker: &Table, out: &mut Vec<u8>) {
    let mut props = Props::parse(message.native_props()).unwrap_or_default();
    let mut headers = props.headers.map(<[u8]>::to_vec).unwrap_or_default();
    broker.iter().for_each(|(name, value)| put_entry(&mut headers, name, value));
    if !headers.is_empty() {
        props.headers = Some(&headers);
    }
    // A dead letter lives on without the expiry it may have died of.
    let is_dead_letter = message.annotations().is_some_and(|known| !known.deaths.is_empty());
    if is_dead_letter && message.deadline_ms() == 0 {
        props.expiration = None;
    }
    props.put(out);
}

/// The list of a message whose native form has no properties.
fn write_head(message: &Message, broker: Table, unix_ms: u64, out: &mut Vec<u8>) {
    let mut headers = Table::new();
    if message.qos() == 2 || message.retain() {
        let props = Properties::of_head(message);
        headers = to_table_headers(&props, &Writing::default(), &mut |_, _| {});
    }
    headers.extend(broker);
    let mode = if message.is_durable() { PERSISTENT } else { TRANSIENT };
    let expiration = expiry_shown_ms(message.deadline_ms(), unix_ms, 1).map(|ms| ms.to_string());
    let headers = encoded(&headers);
    Props {
        headers: headers.as_deref(),
        delivery_mode: Some(mode),
        priority: message.priority(),
        expiration: expiration.as_deref().map(str::as_bytes),
        ..Props::default()
    }
    .put(out);
}

/// The list of a message of another protocol. Texts over 255 bytes are left out here and carried in
/// headers.
fn write_converted(
    message: &Message,
    broker: Table,
    unix_ms: u64,
    conversions: &Conversions,
    out: &mut Vec<u8>,
) {
    let props = message.properties();
    let shown = expiry_shown_ms(message.deadline_ms(), unix_ms, 1);
    let writing = Writing { expiry_shown_ms: shown, ..Writing::default() };
    let mut headers = to_table_headers(props, &writing, &mut |field, outcome| {
        conversions.pair(message.format(), &AMQP091).dropped(field, outcome, 1);
    });
    headers.extend(broker);
    let headers = encoded(&headers);
    let correlation = props.correlation.as_ref().map(ident_to_text);
    let id = props.id.as_ref().map(ident_to_text);
    let reply_to = props.reply_to.as_ref().and_then(Address::to_amqp);
    let expiration = shown.map(|ms| ms.to_string());
    Props {
        content_type: short(&props.content_type),
        content_encoding: short(&props.content_encoding),
        headers: headers.as_deref(),
        delivery_mode: props.durable.map(|durable| if durable { PERSISTENT } else { TRANSIENT }),
        priority: props.priority,
        correlation_id: short(&correlation),
        reply_to: short(&reply_to),
        expiration: short(&expiration),
        message_id: short(&id),
        timestamp: props.timestamp_ms.and_then(seconds_down),
        kind: short(&props.kind),
        user_id: short(&props.user_id),
        app_id: short(&props.app_id),
        cluster_id: None,
    }
    .put(out);
}

fn short(text: &Option<String>) -> Option<&[u8]> {
    text.as_deref().map(str::as_bytes).filter(|bytes| bytes.len() <= SHORT_BYTES_MAX)
}

/// A headers table without its length; `None` when there are no headers.
fn encoded(headers: &Table) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    headers.iter().for_each(|(name, value)| put_entry(&mut out, name, value));
    (!headers.is_empty()).then_some(out)
}
