//! Topics and routing keys: section 2 of the design of messages.

use crate::{
    amqp::{Amqp, Field, Props},
    mqtt::{Mqtt, Properties, publish},
    world::World,
};

#[test]
fn plain_message() {
    let world = World::new();
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe("a/b", 1);
    let props = Props { content_type: Some("text/plain".to_owned()), ..Props::persistent() };
    Amqp::connect(&world).publish_topic("a.b", &props, b"hi");
    let seen = mqtt.one();
    assert_eq!((seen.topic.as_str(), seen.qos), ("a/b", 1));
    assert_eq!(seen.payload, b"hi");
    let content_type = Some("text/plain".to_owned());
    assert_eq!(seen.properties, Properties { content_type, ..Properties::default() });
}

#[test]
fn dotted_topic() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "#");
    let mut sender = Mqtt::v5(&world, "sender");
    sender.publish(publish("a.b/c", b"hi"));
    let seen = amqp.delivery();
    assert_eq!(seen.key, "a/b.c");

    let mut reader = Mqtt::v5(&world, "reader");
    reader.subscribe("#", 1);
    amqp.publish_topic(&seen.key, &seen.props, &seen.body);
    assert_eq!(reader.one().topic, "a.b/c");
}

#[test]
fn star_is_literal() {
    let world = World::new();
    let mut sender = Mqtt::v5(&world, "sender");
    let mut readers = Vec::new();
    for (id, filter) in [("1", "a/*/b"), ("2", "a/x/b"), ("3", "a/+/b")] {
        let mut reader = Mqtt::v5(&world, id);
        reader.subscribe(filter, 1);
        readers.push(reader);
    }
    sender.publish(publish("a/*/b", b""));
    let got: Vec<_> = readers.iter_mut().map(Mqtt::topics).collect();
    assert_eq!(got, [vec!["a/*/b"], vec![], vec!["a/*/b"]]);
}

#[test]
fn wildcards_in_key() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe("a/+", 1);
    for (key, topic) in [("a.#", "a/%23"), ("a.%2B", "a/%252B")] {
        amqp.publish_topic(key, &Props::persistent(), b"");
        let seen = mqtt.one();
        assert_eq!(seen.topic, topic);

        amqp.listen(key, "a.*");
        mqtt.republish(&seen, topic);
        assert_eq!(amqp.deliveries()[0].key, key);
        mqtt.all();
    }
}

#[test]
fn empty_key() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "#");
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe("#", 1);
    amqp.publish_topic("", &Props::persistent(), b"hi");
    assert_eq!(amqp.delivery().key, "");
    assert_eq!(mqtt.all(), []);
}

#[test]
fn dollar_hidden() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "#");
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe("#", 1);
    amqp.publish_topic("$SYS.x", &Props::persistent(), b"hi");
    assert_eq!(amqp.delivery().key, "$SYS.x");
    assert_eq!(mqtt.all(), []);
}

#[test]
fn long_topic() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "#");
    let topic = format!("a/{}", "é".repeat(149));
    assert_eq!(topic.len(), 300);
    Mqtt::v5(&world, "m").publish(publish(&topic, b"hi"));
    let seen = amqp.delivery();
    assert!(seen.key.len() <= 255, "the key is short: {}", seen.key);
    let (start, sum) = seen.key.rsplit_once('~').expect("a sum follows");
    assert!(topic.replace('/', ".").starts_with(start));
    assert_eq!(sum.len(), 8);
    assert!(sum.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let whole = topic.replace('/', ".");
    assert_eq!(seen.header("x-routing-key"), Some(&Field::text(&whole)));
}

#[test]
fn exchange_topic() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.declare_exchange("logs", "topic");
    amqp.declare("q");
    amqp.bind("q", "logs", "app.*");
    amqp.consume("q");
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.publish(publish("$exchange/logs/app/error", b"hi"));
    let seen = amqp.delivery();
    assert_eq!((seen.exchange.as_str(), seen.key.as_str()), ("logs", "app.error"));

    mqtt.subscribe("$exchange/logs/#", 1);
    amqp.publish("logs", "app.info", &Props::persistent(), b"");
    assert_eq!(mqtt.one().topic, "$exchange/logs/app/info");
}

/// The table of section 2.1, in both directions.
#[test]
fn every_topic_of_the_table_is_the_same_place_in_both_forms() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "#");
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe("#", 1);
    let mut subscribed = Mqtt::v5(&world, "exact");
    for (key, topic) in [
        ("sensors.kitchen", "sensors/kitchen"),
        ("a/b.c", "a.b/c"),
        ("spBv1/0.group.DDATA", "spBv1.0/group/DDATA"),
        (".a..b.", "/a//b/"),
        (".", "/"),
        ("a.*.b", "a/*/b"),
        ("a.+.#", "a/%2B/%23"),
        ("100%.a.%2B", "100%/a/%252B"),
        ("living room.é", "living room/é"),
    ] {
        subscribed.subscribe(topic, 1);
        amqp.publish_topic(key, &Props::persistent(), b"");
        assert_eq!(amqp.delivery().key, key);
        assert_eq!(mqtt.one().topic, topic);
        assert_eq!(subscribed.one().topic, topic, "a filter without wildcards names the topic");
        subscribed.publish(publish(topic, b""));
        assert_eq!(amqp.delivery().key, key);
        assert_eq!(mqtt.one().topic, topic);
        subscribed.all();
    }
}
