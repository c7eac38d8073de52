//! MQTT 5 and 3.1.1: reason codes, and when the connection ends.

use super::{
    exclusive_consumer, exclusive_queue, full_queue, hash_exchange, internal_exchange, nothing,
    queue_of_small_messages,
};
use crate::{
    amqp::Amqp,
    mqtt::{Mqtt, Version, publish},
    world::World,
};

/// SUBACK of MQTT 5 and of MQTT 3.1.1 for a filter, in a world that `prepare` has made.
fn subscribed(prepare: impl FnOnce(&mut Amqp), filter: &str) -> (u8, u8) {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    prepare(&mut amqp);
    let mut client = Mqtt::v5(&world, "five");
    let five = client.subscribe_with(filter, 1, None);
    let mut old = Mqtt::v311(&world, "three");
    let three = old.subscribe_with(filter, 1, None);
    assert!(client.is_connected() && old.is_connected(), "only the subscription is refused");
    (five, three)
}

/// How MQTT 3.1.1 is told about a publish.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Acknowledged,
    Closed,
    /// Neither; the client sends again.
    Nothing,
}

/// PUBACK of MQTT 5, and what MQTT 3.1.1 sees.
fn published(prepare: impl FnOnce(&mut Amqp), topic: &str, payload: &[u8]) -> (u8, Told) {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    prepare(&mut amqp);
    let mut client = Mqtt::v5(&world, "five");
    let five = client.publish(publish(topic, payload));
    assert!(client.is_connected());
    let mut old = Mqtt::v311(&world, "three");
    old.send(publish(topic, payload));
    let told = match old.answer() {
        Some((0x40, _)) => Told::Acknowledged,
        Some(other) => panic!("unexpected {other:?}"),
        None if old.is_connected() => Told::Nothing,
        None => Told::Closed,
    };
    (five, told)
}

#[test]
fn a_binding_that_an_exchange_cannot_have_is_invalid() {
    assert_eq!(subscribed(hash_exchange, "$exchange/hash/heavy"), (0x83, 0x80));
}

#[test]
fn the_exclusive_queue_of_another_connection_is_not_authorized() {
    assert_eq!(subscribed(exclusive_queue, "$queue/q"), (0x87, 0x80));
}

#[test]
fn a_queue_with_an_exclusive_consumer_is_not_authorized() {
    assert_eq!(subscribed(exclusive_consumer, "$queue/q"), (0x87, 0x80));
}

#[test]
fn reserved_names_are_not_authorized() {
    assert_eq!(subscribed(nothing, "$queue/amq.mine"), (0x87, 0x80));
}

#[test]
fn a_publish_to_an_internal_exchange_is_not_authorized_and_closes_3_1_1() {
    let found = published(internal_exchange, "$exchange/inside/k", b"m");
    assert_eq!(found, (0x87, Told::Closed));
}

#[test]
fn a_missing_exchange_is_0x10_on_publish_and_0x8f_on_subscribe() {
    assert_eq!(published(nothing, "$exchange/missing/k", b"m"), (0x10, Told::Acknowledged));
    assert_eq!(subscribed(nothing, "$exchange/missing/#"), (0x8F, 0x80));
}

#[test]
fn what_nobody_takes_is_0x10() {
    assert_eq!(published(nothing, "t/nobody", b"m"), (0x10, Told::Acknowledged));
}

#[test]
fn topics_of_the_server_are_not_for_publishing() {
    for topic in ["$SYS/x", "$other/x"] {
        assert_eq!(published(nothing, topic, b"m"), (0x90, Told::Acknowledged), "{topic}");
    }
    assert_eq!(subscribed(nothing, "$other/x"), (0x8F, 0x80));
}

#[test]
fn a_full_queue_is_quota_exceeded_and_leaves_3_1_1_without_an_answer() {
    assert_eq!(published(full_queue, "$queue/q", b"m"), (0x97, Told::Nothing));
}

#[test]
fn an_unknown_packet_id_is_0x92() {
    let world = World::new();
    let mut client = Mqtt::v5(&world, "m");
    client.packet(0x62, &[0, 7]);
    assert_eq!(client.answer(), Some((0x70, vec![0, 7, 0x92])));
}

#[test]
fn a_message_over_the_size_of_its_queue_ends_the_connection_with_0x95() {
    let world = World::new();
    queue_of_small_messages(&mut Amqp::connect(&world));
    let mut client = Mqtt::v5(&world, "five");
    client.send(publish("$queue/q", b"four"));
    let (first, body) = client.answer().expect("DISCONNECT");
    assert_eq!((first, body[0]), (0xE0, 0x95));
    assert!(!client.is_connected());
    let mut old = Mqtt::v311(&world, "three");
    old.send(publish("$queue/q", b"four"));
    assert_eq!((old.answer(), old.is_connected()), (None, false));
}

#[test]
fn a_packet_over_the_limit_ends_the_connection_with_0x95() {
    let world = World::new();
    let mut client = Mqtt::v5(&world, "m");
    // The head of a PUBLISH of 20 MiB; nothing else needs to come.
    client.packet_head(0x30, 20 * 1024 * 1024);
    let (first, body) = client.answer().expect("DISCONNECT");
    assert_eq!((first, body[0]), (0xE0, 0x95));
}

#[test]
fn more_than_two_wildcards_of_many_levels_cannot_be_written() {
    let world = World::new();
    for (version, id) in [(Version::V5, "five"), (Version::V311, "three")] {
        let mut client = Mqtt::connect(&world, version, id);
        client.packet(0x82, &subscribe_packet(version, "a/#/b"));
        assert!(!client.is_connected(), "the specification ends the connection");
    }
}

fn subscribe_packet(version: Version, filter: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    if version == Version::V5 {
        body.push(0);
    }
    crate::wire::put_binary(&mut body, filter.as_bytes());
    body.push(1);
    body
}

#[test]
fn the_user_of_somebody_else_is_dropped_and_the_message_taken() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "t");
    let mut client = Mqtt::v5(&world, "m");
    let user = crate::mqtt::Properties::of_user(&[("x-mq-user", "u1")]);
    assert!(client.publish(publish("t", b"m").with(&user)) < 0x80);
    let seen = amqp.delivery();
    assert_eq!((seen.props.user_id, seen.body.as_slice()), (None, b"m".as_slice()));
}

#[test]
fn wrong_arguments_of_a_subscription_are_invalid() {
    let long = "x".repeat(5000);
    for wrong in [
        ("x-max-length", "-1"),
        ("x-overflow", "spill"),
        ("x-overflow", "block"),
        ("x-priority", "high"),
        ("x-consumer-timeout", "-1"),
        ("x-dead-letter-routing-key", "k"),
        ("x-delayed-retry-type", "all"),
        ("x-long", &long),
    ] {
        let world = World::new();
        let mut client = Mqtt::v5(&world, "m");
        assert_eq!(client.subscribe_as("$queue/q", &[wrong]), 0x83, "{wrong:?}");
        assert!(client.is_connected());
        assert_eq!(client.subscribe_as("$queue/q", &[]), 1, "after {wrong:?}");
    }
}
