//! Every property of the table in section 4.2, from AMQP to MQTT 5 and from MQTT 5 to AMQP, and
//! back.

use crate::{
    amqp::{Amqp, Field, Props},
    mqtt::{Mqtt, Properties, Publish, publish},
    round_trip::{OverAmqp, OverMqtt},
    world::World,
};

fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

fn user(name: &str, value: &str) -> Properties {
    Properties::of_user(&[(name, value)])
}

#[test]
fn every_amqp_property_returns_from_mqtt_5() {
    let base = Props::persistent;
    let none = Properties::default;
    let rows = [
        (base(), none()),
        (
            Props { content_type: text("a/b"), ..base() },
            Properties { content_type: text("a/b"), ..none() },
        ),
        (Props { content_encoding: text("gzip"), ..base() }, user("x-mq-encoding", "gzip")),
        (
            Props { content_encoding: text("utf-8"), ..base() },
            Properties { format: Some(1), ..user("x-mq-encoding", "utf-8") },
        ),
        (Props { priority: Some(0), ..base() }, user("x-mq-priority", "0")),
        (Props { priority: Some(255), ..base() }, user("x-mq-priority", "255")),
        (
            Props { correlation_id: text("c é"), ..base() },
            Properties { correlation: Some("c é".as_bytes().to_vec()), ..none() },
        ),
        (
            Props { reply_to: text("q"), ..base() },
            Properties { response_topic: text("$queue/q"), ..none() },
        ),
        (Props { expiration: text("5000"), ..base() }, Properties { expiry: Some(5), ..none() }),
        (
            Props { expiration: text("4001"), ..base() },
            Properties { expiry: Some(5), ..user("x-mq-ttl", "4001") },
        ),
        (Props { message_id: text("m 1"), ..base() }, user("x-mq-id", "m 1")),
        (
            Props { timestamp: Some(1_700_000_000), ..base() },
            user("x-mq-timestamp", "1700000000000"),
        ),
        (Props { kind: text("k"), ..base() }, user("x-mq-type", "k")),
        (Props { user_id: text("guest"), ..base() }, user("x-mq-user", "guest")),
        (Props { app_id: text("app"), ..base() }, user("x-mq-app", "app")),
        (Props::with_headers(&[("a", Field::text("b"))]), user("a", "b")),
        (Props::with_headers(&[("x-group-id", Field::text("g"))]), user("x-group-id", "g")),
        (
            Props::with_headers(&[("x-mq-text", Field::Bool(true))]),
            Properties { format: Some(1), ..none() },
        ),
    ];
    for (sent, shown) in rows {
        let (seen, back) = OverMqtt::new().send(&sent, b"hi");
        assert_eq!(seen.properties, shown);
        assert_eq!(back.props, sent);
        assert_eq!((seen.qos, seen.retain), (1, false));
    }
}

#[test]
fn every_mqtt_5_property_returns_from_amqp() {
    let none = Properties::default;
    let base = Props::persistent;
    let with = |name: &str, value: Field| Props::with_headers(&[(name, value)]);
    let rows = [
        (none(), base()),
        (Properties { format: Some(1), ..none() }, with("x-mq-text", Field::Bool(true))),
        (
            Properties { content_type: text("a/b"), ..none() },
            Props { content_type: text("a/b"), ..base() },
        ),
        (Properties { expiry: Some(5), ..none() }, Props { expiration: text("5000"), ..base() }),
        (
            Properties { response_topic: text("r/1"), ..none() },
            Props { reply_to: text("amq.address:/exchanges/amq.topic/r.1"), ..base() },
        ),
        (
            Properties { correlation: Some(b"c".to_vec()), ..none() },
            Props { correlation_id: text("c"), ..base() },
        ),
        (user("a", "b"), with("a", Field::text("b"))),
        (user("x-group-id", "g"), with("x-group-id", Field::text("g"))),
        (user("x-mq-id", "m"), Props { message_id: text("m"), ..base() }),
        (user("x-mq-encoding", "gzip"), Props { content_encoding: text("gzip"), ..base() }),
        (user("x-mq-priority", "7"), Props { priority: Some(7), ..base() }),
        (user("x-mq-type", "k"), Props { kind: text("k"), ..base() }),
        (user("x-mq-user", "guest"), Props { user_id: text("guest"), ..base() }),
        (user("x-mq-app", "app"), Props { app_id: text("app"), ..base() }),
        (
            user("x-mq-timestamp", "1700000000000"),
            Props { timestamp: Some(1_700_000_000), ..base() },
        ),
        (
            user("x-mq-timestamp", "1700000000123"),
            Props {
                timestamp: Some(1_700_000_000),
                ..with("x-mq-timestamp", Field::I64(1_700_000_000_123))
            },
        ),
        (
            Properties { expiry: Some(2), ..user("x-mq-ttl", "1500") },
            Props { expiration: text("1500"), ..base() },
        ),
    ];
    for (sent, shown) in rows {
        let (seen, back) = OverAmqp::new().send_properties(&sent);
        assert_eq!(seen.props, shown);
        assert_eq!(back.properties, sent);
    }
}

#[test]
fn expiry_rounds_up() {
    let mut over = OverMqtt::new();
    let expiring = |ms: &str| Props { expiration: text(ms), ..Props::persistent() };
    let (seen, back) = over.send(&expiring("999"), b"hi");
    assert_eq!(seen.properties.expiry, Some(1));
    assert_eq!(back.props, expiring("999"));
    let (seen, back) = over.send(&expiring("1500"), b"hi");
    assert_eq!(seen.properties, Properties { expiry: Some(2), ..user("x-mq-ttl", "1500") });
    assert_eq!(back.props, expiring("1500"));
}

#[test]
fn an_expiry_of_zero_reaches_who_is_waiting() {
    let at_once = Props { expiration: text("0"), ..Props::persistent() };
    let (seen, back) = OverMqtt::new().send(&at_once, b"hi");
    assert_eq!(seen.properties, Properties { expiry: Some(1), ..user("x-mq-ttl", "0") });
    assert_eq!(back.props.expiration.as_deref(), Some("1"));
    let sent = Properties { expiry: Some(0), ..Properties::default() };
    let (seen, _) = OverAmqp::new().send_properties(&sent);
    assert_eq!(seen.props.expiration.as_deref(), Some("1"));
}

#[test]
fn an_expiry_counts_down_on_the_way() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    let mut mqtt = Mqtt::v5(&world, "m");
    amqp.declare("q");
    amqp.bind("q", "amq.topic", "#");
    mqtt.publish(publish("t", b"hi").with(&Properties { expiry: Some(5), ..Default::default() }));
    world.pass(1_500);
    amqp.consume("q");
    let seen = amqp.delivery();
    assert_eq!(seen.props.expiration.as_deref(), Some("3500"));
    assert_eq!(seen.header("x-mq-ttl"), Some(&Field::I64(5000)));

    let expiring = Props { expiration: text("1500"), ..Props::persistent() };
    amqp.publish("", "other", &expiring, b"nobody");
    amqp.declare("late");
    amqp.publish("", "late", &expiring, b"gone");
    world.pass(1_500);
    mqtt.subscribe("$queue/late", 1);
    assert_eq!(mqtt.all(), []);
}

#[test]
fn priority_carried() {
    let mut over = OverMqtt::new();
    let urgent = Props { priority: Some(7), ..Props::persistent() };
    let (seen, back) = over.send(&urgent, b"hi");
    assert_eq!(seen.user("x-mq-priority"), Some("7"));
    assert_eq!(back.props.priority, Some(7));
    let (seen, back) = over.send(&Props::persistent(), b"hi");
    assert_eq!(seen.user("x-mq-priority"), None);
    assert_eq!(back.props.priority, None);
}

#[test]
fn qos_and_durability() {
    let mut over = OverAmqp::new();
    let (seen, back) = over.send(publish("", b"hi").qos(2));
    assert_eq!(seen.props, Props::with_headers(&[("x-mq-qos", Field::I64(2))]));
    assert_eq!(back.qos, 2);
    let (seen, back) = over.send(publish("", b"hi").qos(1));
    assert_eq!(seen.props, Props::persistent());
    assert_eq!(back.qos, 1);
    let (seen, back) = over.send(publish("", b"hi").qos(0));
    assert_eq!(seen.props, Props { delivery_mode: Some(1), ..Props::default() });
    assert_eq!(back.qos, 0);
}

#[test]
fn a_version_without_properties_keeps_quality_of_service_and_retain() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "#");
    let mut mqtt = Mqtt::v311(&world, "m");
    for (qos, retain, headers) in [
        (0, false, vec![]),
        (1, false, vec![]),
        (2, false, vec![("x-mq-qos", Field::I64(2))]),
        (1, true, vec![("x-retain", Field::Bool(true))]),
    ] {
        mqtt.publish(Publish { retain, ..publish("a/b", b"hi").qos(qos) });
        let seen = amqp.delivery();
        let mode = if qos > 0 { 2 } else { 1 };
        let headers = (!headers.is_empty()).then(|| Props::with_headers(&headers).headers);
        let headers = headers.flatten();
        assert_eq!(seen.props, Props { delivery_mode: Some(mode), headers, ..Props::default() });

        mqtt.subscribe("back", 2);
        amqp.publish_topic("back", &seen.props, &seen.body);
        let back = mqtt.all().remove(0);
        assert_eq!((back.qos, back.payload.as_slice()), (qos, b"hi".as_slice()));
        amqp.deliveries();
    }
}

#[test]
fn retain_from_amqp() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    let retained = Props::with_headers(&[("x-retain", Field::Bool(true))]);
    amqp.publish_topic("a.b", &retained, b"hi");
    let mut late = Mqtt::v5(&world, "late");
    late.subscribe("a/+", 1);
    let seen = late.one();
    assert_eq!((seen.topic.as_str(), seen.retain), ("a/b", true));
    assert_eq!(seen.properties, Properties::default());

    amqp.publish_topic("a.b", &retained, b"");
    let mut later = Mqtt::v311(&world, "later");
    later.subscribe("a/+", 1);
    assert_eq!(later.all(), []);
}

#[test]
fn retain_returns_in_both_directions() {
    let retained = Props::with_headers(&[("x-retain", Field::Bool(true))]);
    let (seen, back) = OverMqtt::new().send(&retained, b"hi");
    assert!(seen.retain);
    assert_eq!(back.props, retained);
    let sent = Publish { retain: true, ..publish("", b"hi") };
    let (seen, back) = OverAmqp::new().send(sent);
    assert_eq!(seen.props, retained);
    assert!(back.retain);
}

#[test]
fn payload_format() {
    let mut over = OverAmqp::new();
    let asserted = Properties { format: Some(1), ..Properties::default() };
    let (seen, back) = over.send_properties(&asserted);
    assert_eq!(seen.header("x-mq-text"), Some(&Field::Bool(true)));
    assert_eq!(back.properties, asserted);
    let wrong = publish("t", b"\xFF").with(&asserted);
    assert_eq!(Mqtt::v5(&over.world, "m").publish(wrong), 0x99);
}

#[test]
fn binary_correlation() {
    let sent = Properties { correlation: Some(vec![0xFF, 0]), ..Properties::default() };
    let (seen, back) = OverAmqp::new().send_properties(&sent);
    assert_eq!(seen.props.correlation_id.as_deref(), Some("b64:/wA="));
    assert_eq!(back.properties, sent);
}

#[test]
fn correlation_like_escape() {
    let sent = Props { correlation_id: text("b64:YWJj"), ..Props::persistent() };
    let (seen, back) = OverMqtt::new().send(&sent, b"hi");
    assert_eq!(seen.properties.correlation.as_deref(), Some(b"b64:YWJj".as_slice()));
    assert_eq!(back.props, sent);
}

#[test]
fn long_and_odd_correlations_return() {
    let mut over = OverAmqp::new();
    for correlation in
        [vec![], vec![b'c'; 300], vec![0xFF; 300], b"a\x01b".to_vec(), b"b64:/wA=".to_vec()]
    {
        let sent = Properties { correlation: Some(correlation), ..Properties::default() };
        let (_, back) = over.send_properties(&sent);
        assert_eq!(back.properties.correlation, sent.correlation);
    }
    let mut over = OverMqtt::new();
    for correlation in ["a\u{1}b", "b64:/wA=", "urn:uuid:00000000-0000-0000-0000-000000000000"] {
        let sent = Props { correlation_id: text(correlation), ..Props::persistent() };
        let (_, back) = over.send(&sent, b"hi");
        assert_eq!(back.props.correlation_id, sent.correlation_id);
    }
}
