//! `x-durability` of a publish: what the store is asked for, and what the publisher is told.

use polymq_store::Durability;

use crate::{
    amqp::{Amqp, Field, Props},
    mqtt::{Mqtt, Properties, Version, publish},
    world::World,
};

fn asking_amqp(value: Field) -> Props {
    Props { delivery_mode: Some(2), ..Props::with_headers(&[("x-durability", value)]) }
}

fn asking_mqtt(class: &str) -> Properties {
    Properties::of_user(&[("x-durability", class)])
}

/// A durable queue `q` that gets what is published to the topic `t`, and its user.
fn queue(world: &World, arguments: &[(&str, Field)]) -> Amqp {
    let mut amqp = Amqp::connect(world);
    amqp.declare_with("q", arguments);
    amqp.bind("q", "amq.topic", "t");
    world.broker().committer().kick();
    amqp
}

/// Reason code 0 and the one user property that tells a class.
fn told(class: &str) -> Vec<u8> {
    let mut property = vec![0x26, 0, 12];
    property.extend(b"x-durability");
    property.extend(u16::try_from(class.len()).unwrap().to_be_bytes());
    property.extend(class.as_bytes());
    let length = u8::try_from(property.len()).unwrap();
    [vec![0, length], property].concat()
}

#[test]
fn amqp_asks_by_a_header_that_travels_on() {
    let world = World::new();
    let mut amqp = queue(&world, &[]);
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe("t", 1);
    for (asked, wanted) in [
        ("os", Durability::Os),
        ("sync-interval:20", Durability::SyncInterval { ms: 20 }),
        ("sync", Durability::Sync),
    ] {
        amqp.publish_topic("t", &asking_amqp(Field::text(asked)), b"hi");
        world.broker().committer().kick();
        assert_eq!(world.last_wanted(), Some(wanted), "{asked}");
        assert_eq!(mqtt.one().user("x-durability"), Some(asked));
    }
    amqp.consume("q");
    assert_eq!(amqp.deliveries().len(), 3);
}

#[test]
fn amqp_is_refused_a_class_that_is_none() {
    for value in [Field::text("often"), Field::text("sync-interval:0"), Field::I64(1)] {
        let world = World::new();
        let mut amqp = queue(&world, &[]);
        amqp.publish_raw("amq.topic", "t", &asking_amqp(value).encode(), b"hi");
        let (code, text) = amqp.closed().unwrap();
        assert_eq!(code, 406);
        assert!(text.contains("x-durability"), "{text}");
        assert_eq!(world.ready("q"), Some(0));
    }
}

#[test]
fn mqtt_is_told_the_class_that_was_reached() {
    let world = World::new();
    queue(&world, &[]);
    let mut mqtt = Mqtt::v5(&world, "m");
    for qos in [1, 2] {
        for class in ["sync", "sync-interval:20", "os", "memory"] {
            let acked = mqtt.publish_acked(publish("t", b"").qos(qos).with(&asking_mqtt(class)));
            assert_eq!(acked[2..], told(class), "{qos} {class}");
        }
        assert_eq!(mqtt.publish_acked(publish("t", b"").qos(qos)).len(), 2, "nobody asked");
    }
    assert_eq!(world.ready("q"), Some(10));
    world.restart();
    assert_eq!(world.ready("q"), Some(8));
}

#[test]
fn mqtt_is_told_when_the_queue_lets_a_confirm_come_before_the_disk() {
    let world = World::new();
    queue(&world, &[("x-durability", Field::text("os"))]);
    let mut mqtt = Mqtt::v5(&world, "m");
    assert_eq!(mqtt.publish_acked(publish("t", b"").qos(1))[2..], told("os"));
    let acked = mqtt.publish_acked(publish("t", b"").qos(1).with(&asking_mqtt("sync")));
    assert_eq!(acked[2..], told("os"), "it is never raised");
}

#[test]
fn mqtt_is_not_told_what_it_does_not_want_to_hear() {
    let world = World::new();
    queue(&world, &[]);
    // Request Problem Information 0; a Maximum Packet Size of 30 bytes.
    for (id, properties) in [("quiet", &[0x17, 0][..]), ("small", &[0x27, 0, 0, 0, 30])] {
        let mut mqtt = Mqtt::connect_as(&world, Version::V5, id, "guest", properties);
        let acked = mqtt.publish_acked(publish("t", b"").qos(1).with(&asking_mqtt("os")));
        assert_eq!(acked.len(), 2, "{id}");
    }
}

#[test]
fn mqtt_is_refused_a_class_that_is_none() {
    let world = World::new();
    queue(&world, &[]);
    let mut mqtt = Mqtt::v5(&world, "m");
    for qos in [0, 1, 2] {
        let reason = mqtt.publish(publish("t", b"").qos(qos).with(&asking_mqtt("often")));
        assert_eq!(reason, if qos == 0 { 0 } else { 0x83 });
    }
    assert_eq!(world.ready("q"), Some(0));
    assert_eq!(mqtt.publish(publish("t", b"").qos(1)), 0, "the client goes on");
}
