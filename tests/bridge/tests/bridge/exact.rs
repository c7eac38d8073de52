//! The same protocol in and out: section 1.3.

use crate::{
    amqp::{Amqp, Field, Props},
    mqtt::{Mqtt, Properties, Publish, Version, publish},
    world::World,
};

#[test]
fn amqp_shows_the_very_bytes() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "#");
    let full = Props {
        content_type: Some("a".to_owned()),
        content_encoding: Some("b".to_owned()),
        priority: Some(200),
        correlation_id: Some("b64:/wA=".to_owned()),
        reply_to: Some("amq.address:nonsense".to_owned()),
        expiration: Some("0060000".to_owned()),
        message_id: Some(String::new()),
        timestamp: Some(u64::MAX),
        kind: Some("k\0".to_owned()),
        user_id: Some("guest".to_owned()),
        app_id: Some("é".to_owned()),
        cluster_id: Some("c".to_owned()),
        ..Props::with_headers(&[
            ("twice", Field::I8(1)),
            ("twice", Field::Time(u64::MAX)),
            ("x-mq-priority", Field::text("no number")),
            ("x-mq-types", Field::text("twice=u64")),
            ("CC", Field::List(vec![])),
            ("d", Field::Decimal(255, i32::MIN)),
            ("n", Field::F32(f32::NAN)),
        ])
    };
    let no_properties = vec![0, 0];
    let empty_headers = vec![0x20, 0, 0, 0, 0, 0];
    for props in [no_properties, empty_headers, full.encode()] {
        for body in [vec![], vec![1], vec![2; 5_000], vec![3; 300_000]] {
            amqp.publish_raw("amq.topic", "a.b", &props, &body);
            let seen = amqp.delivery();
            assert_eq!(seen.raw_props, props);
            assert_eq!(seen.body, body);
            assert_eq!((seen.exchange.as_str(), seen.key.as_str()), ("amq.topic", "a.b"));
        }
    }
}

#[test]
fn amqp_strings_need_not_be_utf_8() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "#");
    // Content type, headers with an odd name and value, and an application.
    let props = b"\xA0\x08\x02\xFF\x00\x00\x00\x00\x09\x01\xFES\x00\x00\x00\x02\xFF\x00\x01\xFD";
    amqp.publish_raw("amq.topic", "t", props, b"hi");
    assert_eq!(amqp.delivery().raw_props, props);
}

#[test]
fn annotations_follow_what_the_sender_wrote() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.declare("q");
    let sent = Props::with_headers(&[("a", Field::I16(1)), ("b", Field::Void)]);
    amqp.publish("", "q", &sent, b"hi");
    let mut first = Amqp::connect(&world);
    first.consume("q");
    assert_eq!(first.unsettled()[0].props, sent);
    first.cut();
    amqp.consume("q");
    let seen = amqp.delivery();
    assert!(seen.redelivered);
    let headers = seen.props.headers.expect("headers");
    assert_eq!(headers[..2], sent.headers.expect("headers")[..]);
}

#[test]
fn mqtt_5_shows_the_very_properties() {
    let world = World::new();
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe("a/b", 2);
    let mut direct = Mqtt::v5(&world, "direct");
    direct.subscribe("a/b", 0);
    let properties = Properties {
        format: Some(1),
        content_type: Some("a".to_owned()),
        response_topic: Some("$nowhere/é".to_owned()),
        correlation: Some(vec![0, 255, 7]),
        ..Properties::of_user(&[
            ("a", "1"),
            ("", ""),
            ("a", "1"),
            ("x-mq-types", "a=i32"),
            ("x-mq-multi", "%"),
            ("é", "\u{10FFFF}"),
        ])
    };
    for qos in 0..=2 {
        for payload in [vec![], b"hi".to_vec(), vec![b'x'; 300_000]] {
            let sent = publish("a/b", &payload).qos(qos).with(&properties);
            mqtt.publish(sent);
            let seen = [mqtt.one(), direct.one()];
            for (seen, qos) in seen.iter().zip([qos, 0]) {
                assert_eq!(seen.properties, properties);
                assert_eq!((seen.qos, seen.payload.as_slice()), (qos, payload.as_slice()));
            }
        }
    }
}

#[test]
fn mqtt_5_counts_the_expiry_down_and_keeps_the_rest() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.declare("q");
    amqp.bind("q", "amq.topic", "#");
    let mut mqtt = Mqtt::v5(&world, "m");
    let sent = Properties { expiry: Some(10), ..Properties::of_user(&[("a", "1"), ("a", "1")]) };
    mqtt.publish(publish("t", b"hi").with(&sent));
    world.pass(3_000);
    mqtt.subscribe("$queue/q/#", 1);
    let seen = mqtt.one();
    assert_eq!(seen.properties.expiry, Some(7));
    assert_eq!(seen.properties.user[..2], sent.user[..]);
}

#[test]
fn subscription_identifiers_are_the_subscribers() {
    let world = World::new();
    let mut mqtt = Mqtt::v5(&world, "m");
    assert_eq!(mqtt.subscribe_with("a/#", 1, Some(1)), 1);
    assert_eq!(mqtt.subscribe_with("a/+", 0, Some(268_435_455)), 0);
    Amqp::connect(&world).publish_topic("a.b", &Props::persistent(), b"");
    let mut ids = mqtt.one().properties.subscription_ids;
    ids.sort_unstable();
    assert_eq!(ids, [1, 268_435_455]);
}

#[test]
fn mqtt_3_passes_payloads_between_all_versions() {
    let world = World::new();
    let versions = [Version::V31, Version::V311, Version::V5];
    let ids = ["a", "b", "c"];
    let mut clients: Vec<_> =
        versions.iter().zip(ids).map(|(version, id)| Mqtt::connect(&world, *version, id)).collect();
    for client in &mut clients {
        client.subscribe("t/#", 2);
    }
    for sender in 0..clients.len() {
        for qos in 0..=2 {
            let payload = vec![0xFF; 200];
            clients[sender].publish(Publish { qos, ..publish("t/é", &payload) });
            for client in &mut clients {
                let seen = client.one();
                assert_eq!((seen.topic.as_str(), seen.qos), ("t/é", qos));
                assert_eq!(seen.payload, payload);
                assert_eq!(seen.properties, Properties::default());
            }
        }
    }
}
