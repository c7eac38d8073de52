//! What becomes of properties on the way to MQTT, and from MQTT to others.

use polymq_contract::Matched;
use polymq_model::{Format, FormatId, Ident, Message, Properties, Value, address::Address};
use polymq_mqtt::{MQTT3, MQTT5};

use crate::world::*;

/// A form of another protocol whose messages all have the properties of [`foreign_fields`].
static FOREIGN: Format =
    Format { id: FormatId(200), name: "foreign", decode: |_| foreign_fields() };

fn foreign_fields() -> Properties {
    Properties {
        content_type: Some("text/plain".to_owned()),
        text: Some(true),
        correlation: Some(Ident::Binary(vec![0xFF, 0])),
        reply_to: Some(Address::Queue("amq.gen-1".to_owned())),
        priority: Some(7),
        id: Some(Ident::Text("m1".to_owned())),
        headers: vec![
            ("n".to_owned(), Value::I32(5)),
            ("s".to_owned(), Value::String("v".to_owned())),
        ],
        ..Properties::default()
    }
}

fn sent_to_v5(message: Message) -> Vec<u8> {
    let mut world = World::v5();
    world.broadcast(Matched::default(), vec![message]);
    world.sent()
}

fn fields(props: &[u8]) -> Properties {
    native(&MQTT5, "amq.topic", "a", 1, props, b"x").properties().clone()
}

#[test]
fn properties_of_version_5_pass_byte_for_byte() {
    let props = [
        &[0x01, 1][..],
        &user("b", "2"),
        &[0x08, 0, 1, b'r', 0x09, 0, 2, 0xFF, 0],
        &user("a", "1"),
        &user("b", "1"),
        &[0x03, 0, 1, b't'],
    ]
    .concat();
    let mut world = World::v5();
    world.send(&publish_5(0, "a", 0, &props, b"x"));
    let message = world.publishes().remove(0).message;
    assert_eq!(sent_to_v5(message), publish_5(0, "a", 0, &props, b"x"));
}

#[test]
fn foreign_fields_become_properties_and_carry_keys() {
    let message = native(&FOREIGN, "amq.topic", "a", 0, b"much", b"x");
    let sent = sent_to_v5(message);
    let props = [
        &[0x01, 1, 0x03][..],
        &text("text/plain"),
        &[0x08],
        &text("$queue/amq.gen-1"),
        &[0x09, 0, 2, 0xFF, 0],
        &user("n", "5"),
        &user("s", "v"),
    ]
    .concat();
    let head = [text("a"), vec![0]].concat();
    assert!(sent.windows(props.len()).any(|bytes| bytes == props), "{sent:x?}");
    for key in [user("x-mq-id", "m1"), user("x-mq-priority", "7"), user("x-mq-types", "n=i32")] {
        assert!(sent.windows(key.len()).any(|bytes| bytes == key), "{sent:x?}");
    }
    assert!(sent.len() > head.len());
}

#[test]
fn foreign_fields_come_back_from_version_5() {
    let message = native(&FOREIGN, "amq.topic", "a", 0, b"much", b"x");
    let sent = sent_to_v5(message);
    // A client publishes what it got.
    let mut world = World::v5();
    world.send(&sent);
    let back = world.publishes().remove(0).message.properties().clone();
    let expected = Properties { durable: Some(false), ..foreign_fields() };
    assert_eq!(back, expected);
}

#[test] // Section 3.1.2.11.4 of MQTT 5, and messages that only just fit.
fn carry_keys_go_first_when_the_packet_is_too_large() {
    let mut world = World::v5_with(&[0x27, 0, 0, 0, 100]);
    world.broadcast(Matched::default(), vec![native(&FOREIGN, "amq.topic", "a", 0, b"much", b"x")]);
    let sent = world.sent();
    assert!(sent.len() <= 100 && !sent.is_empty());
    assert!(world.counter("packet_size") >= 1, "each field that is left out");
    assert!(!sent.windows(5).any(|bytes| bytes == b"x-mq-"));
}

#[test] // loss_is_counted
fn fields_without_a_place_are_counted() {
    let mut world = World::v4();
    let props = [user("a", "1"), user("b", "2"), user("c", "3")].concat();
    world.broadcast(Matched::default(), vec![native(&MQTT5, "amq.topic", "a", 0, &props, b"x")]);
    assert_eq!(world.sent(), publish_4(0, "a", 0, b"x"));
    assert_eq!(world.counter("no_place"), 3);
}

#[test]
fn reader_knows_every_property() {
    let props = [
        &[0x01, 0, 0x02, 0, 0, 0, 2, 0x03, 0, 1, b't', 0x08, 0, 3, b'r', b'/', b'1'][..],
        &[0x09, 0, 1, b'c'],
        &user("k", "v"),
        &user("x-group-id", "g"),
    ]
    .concat();
    let found = fields(&props);
    let reply_to =
        Address::Exchange { exchange: "amq.topic".to_owned(), key: Some("r.1".to_owned()) };
    let expected = Properties {
        text: Some(false),
        ttl_ms: Some(2000),
        content_type: Some("t".to_owned()),
        reply_to: Some(reply_to),
        correlation: Some(Ident::Text("c".to_owned())),
        group_id: Some("g".to_owned()),
        headers: vec![("k".to_owned(), Value::String("v".to_owned()))],
        durable: Some(true),
        qos: 1,
        ..Properties::default()
    };
    assert_eq!(found, expected);
    let plain = native(&MQTT3, "amq.topic", "a", 0, &[], b"x").properties().clone();
    assert_eq!(plain, Properties { durable: Some(false), ..Properties::default() });
}

#[test]
fn damaged_stored_properties_give_what_can_be_read() {
    let props = [&[0x03, 0, 1, b't'][..], &[0x26, 0, 9, b'x']].concat();
    assert_eq!(fields(&props).content_type.as_deref(), Some("t"));
}

#[test]
fn messages_of_other_protocols_have_their_quality() {
    for (durable_qos, wanted, sent) in [(1, 2, 2), (1, 0, 0), (0, 2, 0)] {
        let mut world = World::v4();
        let mut delivery =
            delivery(0, 1, native(&FOREIGN, "amq.topic", "a", durable_qos, &[], b""));
        delivery.matched.qos = wanted;
        world.deliver(delivery);
        assert_eq!(world.sent()[0], 0x30 | sent);
    }
}
