//! Messages on less usual ways: dead letters, wills, extra keys, redeliveries.

use crate::{
    amqp::{Amqp, Field, Props},
    mqtt::{Mqtt, Properties, Publish, publish},
    world::World,
};

/// A queue whose dead letters go to `amq.topic` with the key `dead`, and which keeps messages for
/// a second.
fn declare_dying(amqp: &mut Amqp) {
    amqp.declare_with(
        "dying",
        &[
            ("x-dead-letter-exchange", Field::text("amq.topic")),
            ("x-dead-letter-routing-key", Field::text("dead")),
        ],
    );
}

#[test]
fn dead_letters_lose_their_expiry_and_show_their_death() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    declare_dying(&mut amqp);
    amqp.listen("dead", "dead");
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe("dead", 1);

    let from_amqp = Props { expiration: Some("1000".to_owned()), ..Props::persistent() };
    amqp.publish("", "dying", &from_amqp, b"1");
    let properties = Properties { expiry: Some(1), ..Properties::of_user(&[("a", "1")]) };
    mqtt.publish(publish("$queue/dying", b"2").with(&properties));
    world.pass(1_000);

    let mut seen = amqp.deliveries();
    seen.sort_by(|a, b| a.body.cmp(&b.body));
    assert_eq!(seen.len(), 2);
    for delivery in &seen {
        assert_eq!(delivery.props.expiration, None);
        assert_eq!(delivery.header("x-mq-ttl"), None);
        assert_eq!(delivery.text_header("x-first-death-reason"), Some("expired"));
        let Some(Field::List(deaths)) = delivery.header("x-death") else { panic!("no record") };
        let Field::Table(death) = &deaths[0] else { panic!("no table") };
        assert!(death.contains(&("count".to_owned(), Field::I64(1))));
        assert!(death.contains(&("queue".to_owned(), Field::text("dying"))));
    }
    assert_eq!(seen[1].text_header("a"), Some("1"));

    let mut seen = mqtt.all();
    seen.sort_by(|a, b| a.payload.cmp(&b.payload));
    assert_eq!(seen.len(), 2);
    for received in &seen {
        assert_eq!(received.topic, "dead");
        assert_eq!(received.properties.expiry, None);
        assert_eq!(received.user("x-first-death-queue"), Some("dying"));
        let death = received.user("x-death").expect("a record");
        assert!(death.starts_with('[') && death.contains(r#""queue":"dying""#), "{death}");
    }
    assert_eq!(seen[1].user("a"), Some("1"));
}

#[test]
fn what_a_reader_of_a_queue_republishes_is_what_was_sent() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("back", "back");
    amqp.declare("q");
    let sent = Props {
        priority: Some(3),
        message_id: Some("m".to_owned()),
        ..Props::with_headers(&[("a", Field::I16(7))])
    };
    amqp.publish("", "q", &sent, b"hi");
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe("$queue/q", 1);
    let seen = mqtt.one();
    assert_eq!(seen.user("x-source-queue"), Some("q"));
    mqtt.republish(&seen, "back");
    assert_eq!(amqp.delivery().props, sent);
    assert_eq!(world.mqtt_count("reserved"), 3);
}

#[test]
fn counts_of_deliveries_are_shown_in_both_protocols() {
    let world = World::new();
    let mut mqtt = Mqtt::v5(&world, "m").answering_by_hand();
    mqtt.publish(publish("$queue/q", b""));
    mqtt.subscribe("$queue/q", 1);
    mqtt.publish(publish("$queue/q", b"hi"));
    let seen = mqtt.one();
    assert_eq!(seen.user("x-delivery-count"), None);
    mqtt.puback(seen.packet_id, 0x83);
    let seen = mqtt.one();
    assert_eq!(seen.user("x-delivery-count"), Some("1"));
    mqtt.cut();
    let mut amqp = Amqp::connect(&world);
    amqp.consume("q");
    let seen = amqp.delivery();
    assert!(seen.redelivered);
    assert_eq!(seen.body, b"hi");
    assert!(matches!(seen.header("x-delivery-count"), Some(Field::I64(1 | 2))));
}

#[test]
fn a_will_is_a_message_like_any_other() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "gone.#");
    let properties = Properties {
        content_type: Some("text/plain".to_owned()),
        format: Some(1),
        ..Properties::of_user(&[("a", "1"), ("x-mq-user", "u1"), ("x-death", "[]")])
    };
    let will = Publish { properties, ..publish("gone/m", b"bye") };
    Mqtt::with_will(&world, "m", &will).cut();
    let seen = amqp.delivery();
    assert_eq!((seen.key.as_str(), seen.body.as_slice()), ("gone.m", b"bye".as_slice()));
    let headers = [("a", Field::text("1")), ("x-mq-text", Field::Bool(true))];
    let content_type = Some("text/plain".to_owned());
    assert_eq!(seen.props, Props { content_type, ..Props::with_headers(&headers) });
}

#[test]
fn a_topic_always_matches_its_filter() {
    let world = World::new();
    let filters = [("a", "second/+", 1), ("b", "second/#", 0), ("c", "$share/g/second/x", 1)];
    let mut readers = filters.map(|(id, filter, qos)| {
        let mut reader = Mqtt::v5(&world, id);
        reader.subscribe(filter, qos);
        reader
    });
    let list = |key: &str| Field::List(vec![Field::text(key)]);
    let props = Props::with_headers(&[("CC", list("second.x")), ("BCC", list("third"))]);
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "third");
    amqp.publish_topic("first", &props, b"hi");
    let hidden = amqp.delivery();
    assert_eq!((hidden.key.as_str(), hidden.header("BCC")), ("first", None));
    for reader in &mut readers {
        let seen = reader.one();
        assert_eq!(seen.user("BCC"), None);
        assert_eq!(seen.user("CC"), Some(r#"["second.x"]"#));
        assert_eq!(seen.topic, "second/x");
    }
}

#[test]
fn long_bodies_pass_by_every_way() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "a");
    let mut readers = [("0", 0), ("1", 1), ("2", 2)].map(|(id, qos)| (Mqtt::v5(&world, id), qos));
    for (reader, qos) in &mut readers {
        reader.subscribe("a", *qos);
    }
    let props = Props::with_headers(&[("x-mq-qos", Field::I64(2)), ("a", Field::text("1"))]);
    for size in [0, 4_095, 4_096, 4_097, 16_385, 131_072, 1_000_000] {
        let body: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
        amqp.publish_topic("a", &props, &body);
        assert_eq!(amqp.delivery().body, body);
        for (reader, qos) in &mut readers {
            let seen = reader.one();
            assert_eq!((seen.qos, seen.user("a")), (*qos, Some("1")));
            assert_eq!(seen.payload, body);
        }
        readers[0].0.publish(publish("a", &body).qos(2));
        assert_eq!(amqp.delivery().body, body);
        for (reader, _) in &mut readers {
            assert_eq!(reader.one().payload, body);
        }
    }
}

#[test]
fn reserved_topics_are_nobodys_to_publish() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "#");
    for topic in ["$SYS/x", "$other/x", "$share/g/x"] {
        let mut new = Mqtt::v5(&world, "new");
        assert_eq!(new.publish(publish(topic, b"hi")), 0x90, "{topic}");
        let mut old = Mqtt::v311(&world, "old");
        assert_eq!(old.publish(publish(topic, b"hi")), 0, "{topic}");
        assert!(old.is_connected() && new.is_connected());
    }
    assert_eq!(amqp.deliveries(), []);
    assert!(world.mqtt_count("publishes_dropped") >= 3);
}

#[test]
fn a_session_queue_has_the_name_that_policies_know() {
    let world = World::new();
    let mut mqtt = Mqtt::v311(&world, "thermostat");
    mqtt.subscribe("a", 1);
    assert_eq!(world.ready("mqtt-subscription-thermostatqos1"), Some(0));
}

#[test]
fn messages_read_back_from_the_store_are_the_same() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    for queue in ["a", "b"] {
        amqp.declare(queue);
        amqp.bind(queue, "amq.topic", "k.#");
    }
    let sent = Props {
        content_type: Some("text/plain".to_owned()),
        priority: Some(3),
        expiration: Some("60000".to_owned()),
        ..Props::with_headers(&[("a", Field::U16(7)), ("x-mq-qos", Field::I64(2))])
    };
    amqp.publish_topic("k.1", &sent, b"from amqp");
    let properties = Properties {
        format: Some(1),
        correlation: Some(vec![0xFF]),
        ..Properties::of_user(&[("a", "1"), ("a", "2")])
    };
    let from_mqtt = publish("k/2", b"from mqtt").with(&properties).qos(2);
    Mqtt::v5(&world, "m").publish(Publish { retain: true, ..from_mqtt });
    world.restart();

    let mut amqp = Amqp::connect(&world);
    amqp.consume("a");
    let seen = amqp.deliveries();
    assert_eq!(seen.len(), 2);
    assert_eq!((seen[0].key.as_str(), seen[0].body.as_slice()), ("k.1", b"from amqp".as_slice()));
    assert_eq!(seen[0].raw_props, sent.encode());
    let list = Field::List(vec![Field::text("1"), Field::text("2")]);
    assert_eq!((seen[1].key.as_str(), seen[1].header("a")), ("k.2", Some(&list)));
    assert_eq!(seen[1].props.correlation_id.as_deref(), Some("b64:/w=="));

    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe("k/#", 2);
    let retained = mqtt.one();
    assert_eq!((retained.topic.as_str(), retained.retain, retained.qos), ("k/2", true, 2));
    assert_eq!(retained.properties, properties);
    mqtt.subscribe("$queue/b/#", 2);
    let seen = mqtt.all();
    assert_eq!(seen.len(), 2);
    assert_eq!((seen[0].topic.as_str(), seen[0].qos), ("$queue/b/k/1", 2));
    assert_eq!((seen[0].user("a"), seen[0].user("x-mq-priority")), (Some("7"), Some("3")));
    assert_eq!(seen[0].properties.expiry, Some(60));
    assert_eq!((seen[1].topic.as_str(), seen[1].qos), ("$queue/b/k/2", 2));
    assert_eq!(seen[1].properties.user[..2], properties.user[..]);
}

#[test]
fn headers_exchanges_read_user_properties() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.declare_exchange("h", "headers");
    amqp.declare("q");
    amqp.bind_with("q", "h", "", &[("x-match", Field::text("all")), ("a", Field::text("1"))]);
    amqp.consume("q");
    let mut mqtt = Mqtt::v5(&world, "m");
    for value in ["1", "2"] {
        mqtt.publish(publish("$exchange/h/k", b"").with(&Properties::of_user(&[("a", value)])));
    }
    assert_eq!(amqp.delivery().text_header("a"), Some("1"));
}

#[test]
fn keys_that_are_no_topics_are_refused() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.publish_raw("amq.topic", "a\0b", &[0, 0], b"");
    assert_eq!(amqp.closed().map(|(code, _)| code), Some(406));
    assert_eq!(Mqtt::v5(&world, "m").publish(publish(&"/".repeat(220), b"")), 0x90);
}

#[test]
fn a_retained_message_keeps_its_properties_and_its_remaining_life() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    let sent = Props {
        expiration: Some("10000".to_owned()),
        ..Props::with_headers(&[("x-retain", Field::Bool(true)), ("a", Field::Bool(true))])
    };
    amqp.publish_topic("a", &sent, b"hi");
    world.pass(3_500);
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe("a", 1);
    let seen = mqtt.one();
    assert_eq!(seen.properties.expiry, Some(7));
    assert_eq!(seen.properties.user.len(), 3, "a, its type, and the ttl: {seen:?}");
    world.pass(6_500);
    let mut late = Mqtt::v5(&world, "late");
    late.subscribe("a", 1);
    assert_eq!(late.all(), []);
}

#[test]
fn a_share_with_a_long_name_is_a_queue_too() {
    let world = World::new();
    let mut mqtt = Mqtt::v5(&world, "m");
    let topic = "t".repeat(300);
    mqtt.subscribe(&format!("$share/g/{topic}"), 1);
    mqtt.publish(publish(&topic, b"hi"));
    assert_eq!(mqtt.one().topic, topic);
}
