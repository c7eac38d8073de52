//! The property list to canonical fields and back.

use polymq_model::{Format, FormatId, Ident, Properties, address::Address};

use super::*;
use crate::codec::table::{DECODE_BOUNDS, decode};

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

#[test]
fn reader_fills_every_field() {
    let table = headers(&[
        ("n", Value::I32(5)),
        ("x-mq-qos", Value::I64(2)),
        ("x-mq-timestamp", Value::I64(1_700_000_000_123)),
        ("x-retain", Value::Bool(true)),
        ("x-group-id", text("g")),
    ]);
    let list = props(&Props {
        content_type: Some(b"text/plain"),
        content_encoding: Some(b"gzip"),
        headers: Some(&table),
        delivery_mode: Some(2),
        priority: Some(4),
        correlation_id: Some(b"c"),
        reply_to: Some(b"amq.address:/exchanges/amq.topic/r.1"),
        expiration: Some(b"1500"),
        message_id: Some(b"m"),
        timestamp: Some(1_700_000_000),
        kind: Some(b"order"),
        user_id: Some(b"guest"),
        app_id: Some(b"shop"),
        cluster_id: None,
    });
    let mut world = World::open();
    world.bytes(&publish_frames(1, ("amq.topic", "k"), false, &list, &[b"x"]));
    let message = world.published().message;
    let read = message.properties();
    let own = |text: &str| Some(text.to_owned());
    let reply_to = Address::Exchange { exchange: "amq.topic".to_owned(), key: own("r.1") };
    assert_eq!(
        *read,
        Properties {
            id: Some(Ident::Text("m".to_owned())),
            correlation: Some(Ident::Text("c".to_owned())),
            content_type: own("text/plain"),
            content_encoding: own("gzip"),
            kind: own("order"),
            app_id: own("shop"),
            text: None,
            durable: Some(true),
            priority: Some(4),
            ttl_ms: Some(1500),
            timestamp_ms: Some(1_700_000_000_123),
            reply_to: Some(reply_to),
            user_id: own("guest"),
            group_id: own("g"),
            retain: true,
            qos: 2,
            headers: vec![("n".to_owned(), Value::I32(5))],
            first_counts: false,
        }
    );
}

#[test]
fn unsaid_stays_unsaid() {
    let read = message(&[0, 0], b"").properties().clone();
    assert_eq!((read.durable, read.priority, read.ttl_ms), (None, None, None));
    assert!(read.headers.is_empty());
}

#[test]
fn damaged_properties_are_left_out() {
    let read = message(&[0xFF, 0xFF, 1], b"").properties().clone();
    assert_eq!(read.content_type, None);
}

/// Another protocol whose messages all look alike.
static FOREIGN: Format = Format {
    id: FormatId(200),
    name: "foreign",
    decode: |_| Properties {
        id: Some(Ident::Text("m".to_owned())),
        correlation: Some(Ident::Binary(vec![0xFF, 0])),
        content_type: Some("text/plain".to_owned()),
        durable: Some(true),
        ttl_ms: Some(2000),
        timestamp_ms: Some(1_700_000_000_123),
        reply_to: Some(Address::Queue("answers".to_owned())),
        qos: 2,
        headers: vec![
            ("a".to_owned(), Value::String("1".to_owned())),
            ("u".to_owned(), Value::Uuid([0x11; 16])),
        ],
        ..Properties::default()
    },
};

fn foreign(format: &'static Format, key: &str, qos: u8, deadline_ms: u64) -> Message {
    NewMessage {
        format,
        exchange: "amq.topic",
        key,
        props: &[],
        body: Body::Slice(b"hi"),
        durable: qos > 0,
        priority: None,
        qos,
        retain: false,
        deadline_ms,
        arrived_ms: 0,
        extra_keys: Vec::new(),
    }
    .build(&mut Vec::new())
}

fn shown(message: Message) -> (basic::AMQPMethod, Vec<u8>) {
    let mut world = World::open();
    let consumer = world.consume("c", true);
    world.event(Event::Delivered(Delivery { message, ..delivery(consumer, 0) }));
    let (method, list, body) = world.content();
    assert_eq!(body, b"hi");
    (method, list)
}

#[test]
fn message_of_another_protocol_is_written_as_the_table_of_conversions_says() {
    let (_, list) = shown(foreign(&FOREIGN, "a.b", 2, 1_700_000_001_500));
    let list = Props::parse(&list).unwrap();
    assert_eq!(list.content_type, Some(&b"text/plain"[..]));
    assert_eq!(list.message_id, Some(&b"m"[..]));
    assert_eq!(list.correlation_id, Some(&b"b64:/wA="[..]));
    assert_eq!(list.reply_to, Some(&b"answers"[..]));
    assert_eq!(list.delivery_mode, Some(2));
    assert_eq!(list.expiration, Some(&b"1500"[..]));
    assert_eq!(list.timestamp, Some(1_700_000_000));
    let table = decode(list.headers.unwrap(), DECODE_BOUNDS).unwrap();
    let find = |name| polymq_model::value::find(&table, name).cloned();
    assert_eq!(find("a"), Some(text("1")));
    assert_eq!(find("u"), Some(text("11111111-1111-1111-1111-111111111111")));
    assert_eq!(find("x-mq-types"), Some(text("u=uuid")));
    assert_eq!(find("x-mq-qos").and_then(|v| v.as_i64()), Some(2));
    assert_eq!(find("x-mq-ttl").and_then(|v| v.as_i64()), Some(2000));
    assert_eq!(find("x-mq-timestamp").and_then(|v| v.as_i64()), Some(1_700_000_000_123));
}

static BARE: Format =
    Format { id: polymq_model::format::MQTT3, name: "bare", decode: Properties::of_head };

#[test]
fn message_without_properties_shows_what_its_head_says() {
    let (_, list) = shown(foreign(&BARE, "a.b", 0, 0));
    assert_eq!(list, props(&Props { delivery_mode: Some(1), ..Props::default() }));
    let (_, list) = shown(foreign(&BARE, "a.b", 1, 1_700_000_000_050));
    let expiration = Some(&b"50"[..]);
    assert_eq!(list, props(&Props { delivery_mode: Some(2), expiration, ..Props::default() }));
    let (_, list) = shown(foreign(&BARE, "a.b", 2, 0));
    let table = decode(Props::parse(&list).unwrap().headers.unwrap(), DECODE_BOUNDS).unwrap();
    assert_eq!(table.len(), 1);
    assert_eq!(table[0].0, "x-mq-qos");
}

#[test]
fn long_key_is_shortened_and_shown_whole_in_a_header() {
    let key = "k".repeat(300);
    let (method, list) = shown(foreign(&BARE, &key, 0, 0));
    let basic::AMQPMethod::Deliver(deliver) = method else { panic!("deliver expected") };
    assert_eq!(deliver.routing_key.as_str().len(), 255);
    let table = decode(Props::parse(&list).unwrap().headers.unwrap(), DECODE_BOUNDS).unwrap();
    assert_eq!(table, [("x-routing-key".to_owned(), text(&key))]);
}
