//! What becomes of every field between every two protocols, cell by cell of the published table
//! (section 4.3): what is carried, changed or lost. All else is kept.

use polymq_model::{
    Message,
    carry::{Explained, TARGETS, explain},
};
use serde_json::json;

use crate::{
    amqp::{Amqp, Field, Props},
    http::Http,
    mqtt::{Mqtt, Properties, publish},
    stomp::Stomp,
    world::World,
    xmpp_client::Xmpp,
};

/// What is told of a message for a protocol.
fn told(world: &World, message: &Message, to: &str) -> Vec<Explained> {
    match TARGETS.iter().find(|(name, _)| *name == to) {
        Some((_, target)) => explain(message, *target, world.now_ms()),
        None => world.explained_for_xmpp(message),
    }
}

/// Everything that is not kept as `field outcome`, in order; carried fields only by their name.
fn changed(lines: &[Explained]) -> String {
    let changed = lines.iter().filter(|line| !matches!(line.outcome, "kept" | "renamed"));
    let words = changed.map(|line| match line.outcome {
        "carried" => line.shown_as.trim_start_matches("x-mq-").to_owned(),
        outcome => format!("{}:{outcome}", line.field),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// A message that one client has put into the queue `q`, a moment ago.
fn queued(send: impl FnOnce(&World)) -> (World, Message) {
    let world = World::new();
    Amqp::connect(&world).declare("q");
    send(&world);
    world.pass(100);
    let message = world.queued("q");
    (world, message)
}

fn check(from: &str, send: impl FnOnce(&World), cells: [(&str, &str); 6]) {
    let (world, message) = queued(send);
    for (to, expected) in cells {
        let lines = told(&world, &message, to);
        assert_eq!(changed(&lines), expected, "{from} to {to}: {lines:#?}");
        for line in &lines {
            assert_eq!(line.outcome == "dropped", line.why.is_some(), "{line:?}");
            assert_eq!(line.outcome == "dropped", line.shown_as.is_empty(), "{line:?}");
        }
    }
}

fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

#[test]
fn amqp_to_each() {
    let sent = Props {
        content_type: text("text/plain"),
        content_encoding: text("utf-8"),
        priority: Some(7),
        correlation_id: text("c"),
        reply_to: text("answers"),
        expiration: text("1500"),
        message_id: text("m"),
        timestamp: Some(1_700_000_000),
        kind: text("k"),
        user_id: text("guest"),
        app_id: text("app"),
        ..Props::with_headers(&[("n", Field::I32(5)), ("s", Field::text("x"))])
    };
    let lost = "priority:dropped expiration:dropped ttl:dropped content_type:dropped \
                content_encoding:dropped text:dropped message_id:dropped \
                correlation_id:dropped reply_to:dropped timestamp:dropped type:dropped \
                user_id:dropped app_id:dropped header n:dropped header s:dropped";
    check(
        "AMQP 0-9-1",
        |world| Amqp::connect(world).publish("", "q", &sent, b"hi"),
        [
            ("amqp091", ""),
            ("mqtt311", lost),
            (
                "mqtt5",
                "priority expiration:rounded ttl encoding id timestamp type user app \
                 header n:retyped",
            ),
            ("stomp12", "ttl header n:retyped"),
            ("xmpp", ""),
            ("http", ""),
        ],
    );
}

#[test]
fn mqtt_311_to_each() {
    check(
        "MQTT 3.1.1",
        |world| Mqtt::v311(world, "m").send(publish("$queue/q", b"hi").qos(2)),
        [
            ("amqp091", "qos"),
            ("mqtt311", ""),
            ("mqtt5", ""),
            ("stomp12", "qos"),
            ("xmpp", ""),
            ("http", ""),
        ],
    );
}

#[test]
fn mqtt_5_to_each() {
    let long = "n".repeat(300);
    let sent = Properties {
        content_type: text("a/b"),
        format: Some(1),
        expiry: Some(60),
        response_topic: text("r/1"),
        correlation: Some(b"c".to_vec()),
        ..Properties::of_user(&[("a", "1"), ("b", "2"), ("a", "3"), (&long, "x")])
    };
    let lost = format!(
        "expiration:dropped ttl:dropped content_type:dropped text:dropped \
         correlation_id:dropped reply_to:dropped header a:dropped header b:dropped \
         header a:dropped header {long}:dropped"
    );
    check(
        "MQTT 5",
        |world| {
            let sent = publish("$queue/q", b"hi").with(&sent).qos(2);
            assert!(Mqtt::v5(world, "m").publish(sent) < 0x80);
        },
        [
            ("amqp091", "ttl text qos header a:retyped header a:retyped extra"),
            ("mqtt311", &lost),
            ("mqtt5", "expiration:rounded"),
            ("stomp12", "ttl text qos header a:retyped header a:retyped"),
            ("xmpp", ""),
            ("http", ""),
        ],
    );
}

#[test]
fn stomp_to_each() {
    let sent = [
        ("content-type", "text/plain"),
        ("content-encoding", "gzip"),
        ("persistent", "true"),
        ("priority", "7"),
        ("expiration", "1500"),
        ("amqp-message-id", "m"),
        ("correlation-id", "c"),
        ("reply-to", "/queue/answers"),
        ("timestamp", "1700000000"),
        ("type", "k"),
        ("user-id", "guest"),
        ("app-id", "app"),
        ("foo", "1"),
        ("foo", "2"),
    ];
    let lost = "priority:dropped expiration:dropped ttl:dropped content_type:dropped \
                content_encoding:dropped message_id:dropped correlation_id:dropped \
                reply_to:dropped timestamp:dropped type:dropped user_id:dropped \
                app_id:dropped header foo:dropped header foo:dropped";
    check(
        "STOMP 1.2",
        |world| Stomp::connect(world).send("/queue/q", &sent, b"hi"),
        [
            ("amqp091", "ttl extra"),
            ("mqtt311", lost),
            ("mqtt5", "priority expiration:rounded ttl encoding id timestamp type user app extra"),
            ("stomp12", ""),
            ("xmpp", ""),
            ("http", ""),
        ],
    );
}

#[test]
fn xmpp_to_each() {
    let stanza = "<message to='q@queues.d' type='chat' id='m' xml:lang='en'>\
        <body>hi</body><thread>c</thread><subject>s</subject><x xmlns='urn:x'/>\
        <properties xmlns='urn:polymq:properties:1'>\
        <p f='priority' t='u8'>7</p><p f='type'>k</p><p f='app_id'>app</p>\
        <p f='content_encoding'>gzip</p><p f='timestamp' t='ts'>2023-11-14T22:13:20.123Z</p>\
        <p n='n' t='i32'>5</p></properties></message>";
    let lost = "priority:dropped content_type:dropped content_encoding:dropped text:dropped \
                message_id:dropped correlation_id:dropped reply_to:dropped \
                timestamp:dropped type:dropped app_id:dropped header n:dropped \
                header subject:dropped xmpp_children:dropped xmpp_type:dropped \
                xmpp_lang:dropped";
    check(
        "XMPP",
        |world| Xmpp::connect(world, "u1", "r").send(stanza),
        [
            ("amqp091", "text timestamp xmpp xmpp-type lang"),
            ("mqtt311", lost),
            (
                "mqtt5",
                "priority encoding id timestamp type app header n:retyped xmpp xmpp-type lang",
            ),
            ("stomp12", "text timestamp header n:retyped xmpp xmpp-type lang"),
            ("xmpp", ""),
            ("http", "xmpp xmpp-type lang"),
        ],
    );
}

#[test]
fn http_to_each() {
    let sent = json!({
        "content_type": "text/plain", "content_encoding": "gzip", "text": true, "priority": 7,
        "expiration": 1500, "message_id": "m", "correlation_id": "c",
        "reply_to": "/exchanges/x/k", "timestamp_ms": 1_700_000_000_123_u64, "type": "k",
        "user_id": "guest", "app_id": "app", "group_id": "g", "qos": 2, "headers": { "n": 5 },
    });
    let lost = "priority:dropped expiration:dropped ttl:dropped content_type:dropped \
                content_encoding:dropped text:dropped message_id:dropped \
                correlation_id:dropped reply_to:dropped timestamp:dropped type:dropped \
                user_id:dropped app_id:dropped group_id:dropped header n:dropped";
    check(
        "HTTP JSON",
        |world| Http::listen(world, "none").publish_to_queue("q", &sent, "hi"),
        [
            ("amqp091", "ttl text timestamp qos"),
            ("mqtt311", lost),
            (
                "mqtt5",
                "priority expiration:rounded ttl encoding id timestamp type user app \
                 header n:retyped",
            ),
            ("stomp12", "ttl text timestamp qos header n:retyped"),
            ("xmpp", ""),
            ("http", ""),
        ],
    );
}

/// What is told is what a client then gets.
#[test]
fn carried_fields_are_those_that_arrive() {
    let sent = Props {
        priority: Some(7),
        message_id: text("m"),
        kind: text("k"),
        ..Props::with_headers(&[("n", Field::I32(5))])
    };
    let (world, message) = queued(|world| Amqp::connect(world).publish("", "q", &sent, b"hi"));
    let lines = told(&world, &message, "mqtt5");
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe("$queue/q", 1);
    let seen = mqtt.one().properties;
    let carried: Vec<_> = lines.iter().filter(|line| line.outcome == "carried").collect();
    assert_eq!(carried.len(), 3);
    for line in carried {
        assert_eq!(seen.get(&line.shown_as), Some(line.value.as_str()));
    }
}

#[test]
fn dead_letter_shows_what_it_died_of() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.declare("q");
    let dead = [
        ("x-max-length", Field::I32(0)),
        ("x-dead-letter-exchange", Field::text("")),
        ("x-dead-letter-routing-key", Field::text("q")),
    ];
    amqp.declare_with("full", &dead);
    amqp.publish("", "full", &Props::default(), b"hi");
    let message = world.queued("q");
    for (to, outcome, shown_as) in [
        ("amqp091", "kept", "x-death"),
        ("mqtt311", "dropped", ""),
        ("mqtt5", "retyped", "x-death"),
        ("stomp12", "retyped", "x-death"),
        ("xmpp", "retyped", "<p n='x-death'>"),
        ("http", "kept", "death"),
    ] {
        let lines = told(&world, &message, to);
        let line = lines.iter().find(|line| line.field == "death").expect("a line");
        assert_eq!(
            (line.outcome, &*line.shown_as, &*line.value),
            (outcome, shown_as, "maxlen in full")
        );
    }
}
