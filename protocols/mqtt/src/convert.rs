//! Between the properties of MQTT and the canonical fields of a message.

use polymq_contract::{Conversions, Pair};
use polymq_model::{
    Format, Message, Properties as Fields,
    address::{Address, TOPIC_EXCHANGE},
    carry::{
        self, Outcome, Writing, annotation_text_headers, drop_carry_keys, event_from_bare_names,
        event_to_bare_names, expiry_shown_ms, from_text_headers, ident_from_bytes, ident_to_bytes,
        to_text_headers,
    },
    format,
};

use crate::codec::{
    Reader, Value,
    property::{id, read_stored},
    writer::Properties,
};

/// Native form of MQTT 3.1 and 3.1.1: no properties.
pub static MQTT3: Format = Format { id: format::MQTT3, name: "mqtt311", decode: decode_3 };

/// Native form of MQTT 5: the properties of PUBLISH, without their length and without a topic
/// alias.
pub static MQTT5: Format = Format { id: format::MQTT5, name: "mqtt5", decode: decode_5 };

fn decode_3(message: &Message) -> Fields {
    Fields::of_head(message)
}

/// Reads the properties of a stored PUBLISH. What cannot be read is left out.
fn decode_5(message: &Message) -> Fields {
    let mut fields = Fields::of_head(message);
    let mut headers = Vec::new();
    let mut reader = Reader::new(message.native_props());
    while !reader.is_empty() {
        let Ok(property) = read_stored(&mut reader) else { break };
        match (property.id, property.value) {
            (id::PAYLOAD_FORMAT, Value::Byte(byte)) => fields.text = Some(byte == 1),
            (id::MESSAGE_EXPIRY, Value::Four(secs)) => {
                fields.ttl_ms = Some(u64::from(secs) * 1000);
            }
            (id::CONTENT_TYPE, Value::Text(text)) => fields.content_type = Some(text.to_owned()),
            (id::RESPONSE_TOPIC, Value::Text(topic)) => {
                fields.reply_to = Some(Address::from_mqtt_topic(topic, TOPIC_EXCHANGE));
            }
            (id::CORRELATION_DATA, Value::Binary(data)) => {
                fields.correlation = Some(ident_from_bytes(data, None));
            }
            (_, Value::Pair(name, value)) => headers.push((name.to_owned(), value.to_owned())),
            _ => {}
        }
    }
    from_text_headers(headers, &mut fields, &mut |_, _| {});
    event_from_bare_names(&mut fields);
    fields
}

/// What is shown of a message besides what its sender wrote.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Shown<'a> {
    /// Earlier deliveries.
    pub(crate) acquired: u16,
    /// Failed deliveries.
    pub(crate) failed: u16,
    /// The plain queue it comes from; then its exchange and key are shown too.
    pub(crate) queue: Option<&'a str>,
    /// Leave out what only carries fields that MQTT lacks.
    pub(crate) is_brief: bool,
}

/// Writes the properties of a PUBLISH packet of MQTT 5, without those of the subscriber.
pub(crate) fn put_properties(
    message: &Message,
    shown: &Shown<'_>,
    now_ms: u64,
    exchange: &str,
    conversions: &Conversions,
    out: &mut Properties,
) {
    let expiry_ms = expiry_shown_ms(message.deadline_ms(), now_ms, 1000);
    if let Some(ms) = expiry_ms {
        out.u32(id::MESSAGE_EXPIRY, u32::try_from(ms / 1000).unwrap_or(u32::MAX));
    }
    if message.format().id == format::MQTT5 {
        put_native(message.native_props(), out);
    } else if message.format().id != format::MQTT3 {
        let pair = conversions.pair(message.format(), &MQTT5);
        pair.messages.add(usize::from(!shown.is_brief));
        let writing =
            Writing { expiry_shown_ms: expiry_ms, topic_exchange: exchange, ..Writing::default() };
        put_converted(message.properties(), &writing, shown.is_brief, pair, out);
    }
    put_annotations(message, shown, out);
}

/// Copies the properties as they came, without the expiry, which counts down.
fn put_native(bytes: &[u8], out: &mut Properties) {
    let mut reader = Reader::new(bytes);
    // Most messages have no expiry, and then all properties are copied at once.
    let mut copied = bytes;
    while !reader.is_empty() {
        let before = reader.rest();
        let Ok(property) = read_stored(&mut reader) else { break };
        if property.id == id::MESSAGE_EXPIRY {
            let done = copied.len() - before.len();
            out.raw(copied.get(..done).unwrap_or_default());
            copied = reader.rest();
        }
    }
    out.raw(copied);
}

/// Writes canonical fields, and as user properties the headers and what MQTT 5 has no property for.
fn put_converted(
    fields: &Fields,
    writing: &Writing<'_>,
    is_brief: bool,
    pair: &Pair,
    out: &mut Properties,
) {
    let event = event_to_bare_names(fields);
    let fields = event.as_ref().unwrap_or(fields);
    if let Some(is_text) = fields.text {
        out.u8(id::PAYLOAD_FORMAT, u8::from(is_text));
    }
    let mut put = |id: u8, field: &str, bytes: &[u8]| {
        if bytes.len() <= usize::from(u16::MAX) {
            out.binary(id, bytes);
        } else {
            pair.dropped(field, Outcome::TooLong, 1);
        }
    };
    match fields.content_type.as_deref() {
        Some(text) if text.contains('\0') => {
            pair.dropped("content_type", Outcome::NoPlace, 1);
        }
        Some(text) => put(id::CONTENT_TYPE, "content_type", text.as_bytes()),
        None => {}
    }
    let reply_to = fields.reply_to.as_ref();
    if let Some(topic) = reply_to.and_then(|to| to.to_mqtt_topic(writing.topic_exchange)) {
        put(id::RESPONSE_TOPIC, "reply_to", topic.as_bytes());
    }
    if let Some(correlation) = &fields.correlation {
        put(id::CORRELATION_DATA, "correlation", &ident_to_bytes(correlation));
    }
    // A brief packet is the second try, so only what it leaves out is new.
    let mut dropped = |field: &'static str, outcome: Outcome| {
        if !is_brief || outcome == Outcome::PacketSize {
            pair.dropped(field, outcome, 1);
        }
    };
    let mut headers = to_text_headers(fields, &carry::MQTT5, writing, &mut dropped);
    if is_brief {
        drop_carry_keys(&mut headers, &mut dropped);
    }
    for (name, value) in &headers {
        put_user(name, value, pair, out);
    }
}

fn put_user(name: &str, value: &str, pair: &Pair, out: &mut Properties) {
    let bytes_max = usize::from(u16::MAX);
    if name.len() > bytes_max || value.len() > bytes_max {
        pair.dropped("header", Outcome::TooLong, 1);
    } else if !name.contains('\0') && !value.contains('\0') {
        out.user(name, value);
    }
}

/// Writes what the broker knows about the message.
fn put_annotations(message: &Message, shown: &Shown<'_>, out: &mut Properties) {
    let bytes_max = usize::from(u16::MAX);
    if let Some(annotations) = message.annotations() {
        for (name, value) in annotation_text_headers(annotations) {
            if value.len() <= bytes_max {
                out.user(&name, &value);
            }
        }
    }
    for (name, count) in [("x-acquired-count", shown.acquired), ("x-delivery-count", shown.failed)]
    {
        if count > 0 {
            out.user(name, &count.to_string());
        }
    }
    if let Some(queue) = shown.queue {
        out.user("x-source-queue", queue);
        out.user("x-exchange", message.exchange());
        if message.key().len() <= bytes_max {
            out.user("x-routing-key", message.key());
        }
    }
}

/// Counts the fields of a message that MQTT 3 has no place for.
pub(crate) fn count_lost(message: &Message, conversions: &Conversions) {
    if message.format().id == format::MQTT3 {
        return;
    }
    let pair = conversions.pair(message.format(), &MQTT3);
    pair.messages.add(1);
    // Messages of AMQP that only say whether they are persistent have three bytes of properties;
    // decoding those to count nothing would be the largest cost of the delivery.
    if message.native_props().len() <= 3 {
        return;
    }
    let fields = message.properties();
    let said = [
        ("id", fields.id.is_some()),
        ("correlation", fields.correlation.is_some()),
        ("content_type", fields.content_type.is_some()),
        ("content_encoding", fields.content_encoding.is_some()),
        ("type", fields.kind.is_some()),
        ("app_id", fields.app_id.is_some()),
        ("text", fields.text.is_some()),
        ("priority", fields.priority.is_some()),
        ("ttl", fields.ttl_ms.is_some()),
        ("timestamp", fields.timestamp_ms.is_some()),
        ("reply_to", fields.reply_to.is_some()),
        ("user_id", fields.user_id.is_some()),
        ("group_id", fields.group_id.is_some()),
    ];
    for (field, _) in said.iter().filter(|(_, is_said)| *is_said) {
        pair.dropped(field, Outcome::NoPlace, 1);
    }
    pair.dropped("header", Outcome::NoPlace, fields.headers.len());
}
