//! Queues read by MQTT clients, and what a client of few means loses.

use polymq_model::carry::{Target, explain};

use crate::{
    amqp::{Amqp, Field, Props},
    mqtt::{Mqtt, Version, publish},
    world::World,
};

#[test]
fn loss_is_counted() {
    let world = World::new();
    let mut mqtt = Mqtt::v311(&world, "m");
    mqtt.subscribe("t", 1);
    let headers = ["a", "b", "c"].map(|name| (name, Field::I64(1)));
    Amqp::connect(&world).publish_topic("t", &Props::with_headers(&headers), b"hi");
    let seen = mqtt.one();
    assert_eq!((seen.payload.as_slice(), seen.qos), (b"hi".as_slice(), 1));
    assert_eq!(world.mqtt_count("no_place"), 3);
    assert_eq!(world.conversions("amqp091", "mqtt311"), 1);
    assert_eq!(world.conversions("mqtt311", "amqp091"), 0);
    let mut amqp = Amqp::connect(&world);
    amqp.declare("q");
    amqp.publish("", "q", &Props::with_headers(&headers), b"hi");
    let lines = explain(&world.queued("q"), Target::Mqtt311, world.now_ms());
    let lost: Vec<_> = lines.iter().filter(|line| line.outcome == "dropped").collect();
    assert!(lost.iter().all(|line| line.why == Some("no_place")), "{lost:?}");
    let fields: Vec<_> = lost.iter().map(|line| &*line.field).collect();
    assert_eq!(fields, ["header a", "header b", "header c"]);
}

#[test]
fn versions_without_properties_get_topic_body_quality_of_service_and_retain() {
    let world = World::new();
    let full = Props {
        content_type: Some("text/plain".to_owned()),
        priority: Some(3),
        message_id: Some("m".to_owned()),
        ..Props::with_headers(&[("x-retain", Field::Bool(true)), ("a", Field::Void)])
    };
    for (version, id) in [(Version::V31, "old"), (Version::V311, "newer")] {
        let mut mqtt = Mqtt::connect(&world, version, id);
        mqtt.subscribe("t/+", 1);
        mqtt.all();
        let lost = world.mqtt_count("no_place");
        Amqp::connect(&world).publish_topic("t.x", &full, b"hi");
        let seen = mqtt.one();
        assert_eq!((seen.topic.as_str(), seen.payload.as_slice()), ("t/x", b"hi".as_slice()));
        assert_eq!((seen.qos, seen.retain), (1, false));
        assert_eq!(world.mqtt_count("no_place") - lost, 4);
        mqtt.cut();
    }
    let mut late = Mqtt::v311(&world, "late");
    late.subscribe("t/x", 1);
    assert!(late.one().retain);
}

#[test]
fn mqtt_reads_queue() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.declare("a/b");
    amqp.bind("a/b", "amq.topic", "k.#");
    amqp.publish_topic("k.1", &Props::persistent(), b"hi");
    assert_eq!(world.ready("a/b"), Some(1));
    let mut mqtt = Mqtt::v311(&world, "m").answering_by_hand();
    mqtt.subscribe("$queue/a%2Fb/#", 1);
    let seen = mqtt.one();
    assert_eq!((seen.topic.as_str(), seen.qos), ("$queue/a%2Fb/k/1", 1));
    mqtt.puback(seen.packet_id, 0);
    mqtt.cut();
    assert_eq!(world.ready("a/b"), Some(0));

    amqp.publish_topic("k.2", &Props::persistent(), b"hi");
    let mut mqtt = Mqtt::v311(&world, "m").answering_by_hand();
    mqtt.subscribe("$queue/a%2Fb/#", 1);
    assert_eq!(mqtt.one().topic, "$queue/a%2Fb/k/2");
    mqtt.cut();
    assert_eq!(world.ready("a/b"), Some(1), "without PUBACK the message returns");
}

#[test]
fn a_queue_tells_where_its_messages_came_from() {
    let world = World::new();
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe("$queue/q", 1);
    let mut amqp = Amqp::connect(&world);
    amqp.bind("q", "amq.topic", "k.#");
    amqp.publish_topic("k.1", &Props::persistent(), b"hi");
    let seen = mqtt.one();
    assert_eq!(seen.topic, "$queue/q");
    let shown: Vec<_> = ["x-source-queue", "x-exchange", "x-routing-key"]
        .iter()
        .map(|name| seen.user(name))
        .collect();
    assert_eq!(shown, [Some("q"), Some("amq.topic"), Some("k.1")]);
}

/// A queue whose dead letters go to the queue `dead`.
fn with_dead_letters(amqp: &mut Amqp, queue: &str) {
    amqp.declare("dead");
    amqp.consume("dead");
    amqp.declare_with(
        queue,
        &[
            ("x-dead-letter-exchange", Field::text("")),
            ("x-dead-letter-routing-key", Field::text("dead")),
        ],
    );
}

#[test]
fn mqtt_rejects() {
    for reason in [0x87, 0x90, 0x99] {
        let world = World::new();
        let mut amqp = Amqp::connect(&world);
        with_dead_letters(&mut amqp, "q");
        amqp.publish("", "q", &Props::persistent(), b"hi");
        let mut mqtt = Mqtt::v5(&world, "m").answering_by_hand();
        mqtt.subscribe("$queue/q", 1);
        let seen = mqtt.one();
        mqtt.puback(seen.packet_id, reason);
        let dead = amqp.delivery();
        assert_eq!(dead.body, b"hi");
        assert_eq!(dead.text_header("x-first-death-reason"), Some("rejected"));
        let Some(Field::List(deaths)) = dead.header("x-death") else { panic!("a death record") };
        let Field::Table(death) = &deaths[0] else { panic!("a table") };
        assert!(death.contains(&("queue".to_owned(), Field::text("q"))));
    }
}

#[test]
fn the_reason_of_an_mqtt_client_is_kept_in_the_record() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    with_dead_letters(&mut amqp, "q");
    amqp.publish("", "q", &Props::persistent(), b"hi");
    let mut mqtt = Mqtt::v5(&world, "m").answering_by_hand();
    mqtt.subscribe("$queue/q", 1);
    let seen = mqtt.one();
    let mut puback = seen.packet_id.to_be_bytes().to_vec();
    puback.extend([0x99, 12, 0x1F, 0, 9]);
    puback.extend(b"no number");
    mqtt.packet(0x40, &puback);
    let dead = amqp.delivery();
    let Some(Field::List(deaths)) = dead.header("x-death") else { panic!("a death record") };
    let Field::Table(death) = &deaths[0] else { panic!("a table") };
    assert!(death.contains(&("detail".to_owned(), Field::text("no number"))), "{death:?}");
}

#[test]
fn mqtt_returns() {
    for (reason, failed) in [(0x97, None), (0x80, Some("1")), (0x83, Some("1"))] {
        let world = World::new();
        let mut amqp = Amqp::connect(&world);
        amqp.declare("q");
        amqp.publish("", "q", &Props::persistent(), b"hi");
        let mut mqtt = Mqtt::v5(&world, "m").answering_by_hand();
        mqtt.subscribe("$queue/q", 1);
        let first = mqtt.one();
        mqtt.puback(first.packet_id, reason);
        let second = mqtt.one();
        assert_eq!(second.payload, b"hi");
        assert_eq!(second.user("x-acquired-count"), Some("1"));
        assert_eq!(second.user("x-delivery-count"), failed);
    }
}

#[test]
fn share_is_a_queue() {
    let world = World::new();
    let filter = "$share/g/jobs/#";
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe(filter, 1);
    let mut second = Mqtt::v311(&world, "n");
    second.subscribe(filter, 1);
    let mut amqp = Amqp::connect(&world);
    amqp.consume(filter);
    let mut sender = Mqtt::v311(&world, "sender");
    for number in 0..30u8 {
        sender.publish(publish("jobs/1", &[number]));
    }
    let there: Vec<_> = amqp.deliveries().into_iter().map(|delivery| delivery.body).collect();
    let here: Vec<_> = mqtt.all().into_iter().map(|seen| seen.payload).collect();
    let other: Vec<_> = second.all().into_iter().map(|seen| seen.payload).collect();
    assert!(!there.is_empty() && !here.is_empty() && !other.is_empty());
    let mut all = [there, here, other].concat();
    all.sort();
    let expected: Vec<_> = (0..30u8).map(|number| vec![number]).collect();
    assert_eq!(all, expected);
}

#[test]
fn packet_too_large() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    with_dead_letters(&mut amqp, "q");
    let max = [&[0x27][..], &1024u32.to_be_bytes()].concat();
    let mut mqtt = Mqtt::connect_as(&world, Version::V5, "m", "guest", &max);
    mqtt.subscribe("$queue/q", 1);
    mqtt.subscribe("t", 1);
    amqp.publish("", "q", &Props::persistent(), &[7; 2048]);
    assert_eq!(mqtt.all(), []);
    let dead = amqp.delivery();
    assert_eq!(dead.body.len(), 2048);
    assert_eq!(dead.text_header("x-first-death-reason"), Some("too_large"));
    assert_eq!(world.mqtt_count("too_large"), 1);

    amqp.publish_topic("t", &Props::persistent(), &[7; 2048]);
    assert_eq!(mqtt.all(), []);
    assert_eq!(world.mqtt_count("too_large"), 2);
    amqp.publish_topic("t", &Props::persistent(), b"small");
    assert_eq!(mqtt.one().payload, b"small", "the client goes on");
    assert!(mqtt.is_connected());
}

#[test]
fn carry_keys_give_way_to_the_packet_limit() {
    let world = World::new();
    let max = [&[0x27][..], &1024u32.to_be_bytes()].concat();
    let mut mqtt = Mqtt::connect_as(&world, Version::V5, "m", "guest", &max);
    mqtt.subscribe("t", 1);
    let long =
        Props { app_id: Some("a".repeat(200)), ..Props::with_headers(&[("k", Field::text("v"))]) };
    Amqp::connect(&world).publish_topic("t", &long, &[7; 900]);
    let seen = mqtt.one();
    assert_eq!(seen.properties.user, [("k".to_owned(), "v".to_owned())]);
    assert_eq!(world.mqtt_count("packet_size"), 1);
}

#[test]
fn user_properties_of_a_subscription_are_arguments_of_the_queue_it_makes() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.declare("dead");
    let mut mqtt = Mqtt::v5(&world, "m");
    let arguments = [
        ("x-max-length", "1"),
        ("x-overflow", "drop-head"),
        ("x-dead-letter-exchange", ""),
        ("x-dead-letter-routing-key", "dead"),
        ("mine", "is no argument"),
    ];
    assert_eq!(mqtt.subscribe_as("$queue/q", &arguments), 1);
    mqtt.cut();
    for body in [b"1", b"2"] {
        amqp.publish("", "q", &Props::persistent(), body);
    }
    assert_eq!((world.ready("q"), world.ready("dead")), (Some(1), Some(1)));
    let declared = [
        ("x-max-length", Field::I32(1)),
        ("x-overflow", Field::text("drop-head")),
        ("x-dead-letter-exchange", Field::text("")),
        ("x-dead-letter-routing-key", Field::text("dead")),
    ];
    amqp.declare_with("q", &declared);
}

#[test]
fn user_properties_of_a_subscription_are_arguments_of_its_consumer() {
    let world = World::new();
    let mut low = Mqtt::v5(&world, "low");
    assert_eq!(low.subscribe_as("$queue/q", &[]), 1);
    let mut high = Mqtt::v5(&world, "high");
    assert_eq!(high.subscribe_as("$queue/q", &[("x-priority", "10")]), 1);
    let mut amqp = Amqp::connect(&world);
    for _ in 0..3 {
        amqp.publish("", "q", &Props::persistent(), b"m");
    }
    assert_eq!((high.all().len(), low.all().len()), (3, 0));
    let mut share = Mqtt::v5(&world, "share");
    assert_eq!(share.subscribe_as("$share/g/t", &[("x-priority", "7"), ("x-max-length", "5")]), 1);
}

#[test]
fn a_timeout_of_an_mqtt_consumer_ends_its_connection() {
    let world = World::new();
    let mut mqtt = Mqtt::v5(&world, "m").answering_by_hand();
    assert_eq!(mqtt.subscribe_as("$queue/q", &[("x-consumer-timeout", "1000")]), 1);
    Amqp::connect(&world).publish("", "q", &Props::persistent(), b"m");
    mqtt.one();
    world.pass(900);
    assert!(mqtt.is_connected());
    world.pass(300);
    let (first, body) = mqtt.answer().expect("DISCONNECT");
    assert_eq!((first, body[0]), (0xE0, 0x98));
    assert_eq!(world.ready("q"), Some(1));
}
