//! STOMP to and from AMQP 0-9-1 and MQTT: the named cases, and the table of properties row by row.

use crate::{
    amqp::{Amqp, Field, Props},
    mqtt::{Mqtt, Properties, publish},
    stomp::{Frame, Stomp, headers},
    world::World,
};

struct Clients {
    world: World,
    amqp: Amqp,
    stomp: Stomp,
}

/// AMQP listens to `a.#`, STOMP to `s.#`.
fn clients() -> Clients {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("a", "a.#");
    let mut stomp = Stomp::connect(&world);
    stomp.subscribe("/topic/s.#");
    Clients { world, amqp, stomp }
}

/// What a STOMP client sees of an AMQP message, and what comes back when it republishes that.
fn over_stomp(props: &Props, body: &[u8]) -> (Frame, Props) {
    let Clients { mut amqp, mut stomp, .. } = clients();
    amqp.publish_topic("s.x", props, body);
    let seen = stomp.message();
    assert_eq!(seen.body, body);
    stomp.republish(&seen, "/topic/a.x");
    let back = amqp.delivery();
    assert_eq!(back.body, body);
    (seen, back.props)
}

/// What an AMQP client sees of a STOMP message, and what comes back when it republishes that.
fn over_amqp(pairs: &[(&str, &str)]) -> (Props, Vec<(String, String)>) {
    let Clients { mut amqp, mut stomp, .. } = clients();
    stomp.send("/topic/a.x", pairs, b"hi");
    let seen = amqp.delivery();
    assert_eq!((seen.key.as_str(), seen.body.as_slice()), ("a.x", &b"hi"[..]));
    amqp.publish_topic("s.x", &seen.props, &seen.body);
    let back = stomp.message();
    assert_eq!(back.get("destination"), Some("/topic/s.x"));
    (seen.props, back.own())
}

/// The same over MQTT 5.
fn over_mqtt(pairs: &[(&str, &str)]) -> (Properties, Vec<(String, String)>) {
    let world = World::new();
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe_with("m/#", 2 | 8, None);
    let mut stomp = Stomp::connect(&world);
    stomp.subscribe("/topic/s.#");
    stomp.send("/topic/m.x", pairs, b"hi");
    let seen = mqtt.one();
    mqtt.republish(&seen, "s/x");
    (seen.properties, stomp.message().own())
}

fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

#[test]
fn every_amqp_property_returns_from_stomp() {
    let base = Props::persistent;
    let rows: [(Props, &[(&str, &str)]); 17] = [
        (base(), &[]),
        (Props { content_type: text("a/b"), ..base() }, &[("content-type", "a/b")]),
        (Props { content_encoding: text("gzip"), ..base() }, &[("content-encoding", "gzip")]),
        (Props { content_encoding: text("utf-8"), ..base() }, &[("content-encoding", "utf-8")]),
        (Props { priority: Some(0), ..base() }, &[("priority", "0")]),
        (Props { priority: Some(255), ..base() }, &[("priority", "255")]),
        (Props { correlation_id: text("c é"), ..base() }, &[("correlation-id", "c é")]),
        (Props { reply_to: text("q"), ..base() }, &[("reply-to", "/reply-queue/q")]),
        (
            Props { reply_to: text("amq.address:/exchanges/amq.topic/r.1"), ..base() },
            &[("reply-to", "/topic/r.1")],
        ),
        (
            Props { reply_to: text("amq.address:/exchanges/x/k"), ..base() },
            &[("reply-to", "/exchange/x/k")],
        ),
        (Props { expiration: text("5000"), ..base() }, &[("expiration", "5000")]),
        (Props { message_id: text("m 1"), ..base() }, &[("amqp-message-id", "m 1")]),
        (Props { timestamp: Some(1_700_000_000), ..base() }, &[("timestamp", "1700000000")]),
        (Props { kind: text("k"), ..base() }, &[("type", "k")]),
        (Props { user_id: text("guest"), ..base() }, &[("user-id", "guest")]),
        (Props { app_id: text("app"), ..base() }, &[("app-id", "app")]),
        (Props::with_headers(&[("x-group-id", Field::text("g"))]), &[("JMSXGroupID", "g")]),
    ];
    for (sent, shown) in rows {
        let (seen, back) = over_stomp(&sent, b"hi");
        let mut own = seen.own();
        own.retain(|(name, _)| name != "persistent");
        assert_eq!(own, headers(shown));
        assert_eq!(seen.get("persistent"), Some("true"));
        assert_eq!(back, sent);
    }
}

#[test]
fn every_stomp_header_returns_from_amqp() {
    let base = Props::default;
    let rows: [(&[(&str, &str)], Props); 15] = [
        (&[], base()),
        (&[("content-type", "a/b")], Props { content_type: text("a/b"), ..base() }),
        (&[("content-encoding", "gzip")], Props { content_encoding: text("gzip"), ..base() }),
        (&[("persistent", "true")], Props::persistent()),
        (&[("priority", "7")], Props { priority: Some(7), ..base() }),
        (&[("expiration", "5000")], Props { expiration: text("5000"), ..base() }),
        (&[("timestamp", "1700000000")], Props { timestamp: Some(1_700_000_000), ..base() }),
        (&[("correlation-id", "c")], Props { correlation_id: text("c"), ..base() }),
        (&[("reply-to", "/reply-queue/q")], Props { reply_to: text("q"), ..base() }),
        (&[("amqp-message-id", "m")], Props { message_id: text("m"), ..base() }),
        (&[("type", "k")], Props { kind: text("k"), ..base() }),
        (&[("user-id", "guest")], Props { user_id: text("guest"), ..base() }),
        (&[("app-id", "app")], Props { app_id: text("app"), ..base() }),
        (
            &[("mine", "1")],
            Props { delivery_mode: None, ..Props::with_headers(&[("mine", Field::text("1"))]) },
        ),
        (
            &[("JMSXGroupID", "g")],
            Props {
                delivery_mode: None,
                ..Props::with_headers(&[("x-group-id", Field::text("g"))])
            },
        ),
    ];
    for (sent, shown) in rows {
        let (seen, back) = over_amqp(sent);
        assert_eq!(seen, shown);
        assert_eq!(back, headers(sent));
    }
}

#[test]
fn every_stomp_header_returns_from_mqtt_5() {
    for sent in [
        &[][..],
        &[("content-type", "a/b")],
        &[("content-encoding", "gzip")],
        &[("persistent", "true")],
        &[("priority", "7")],
        &[("persistent", "true"), ("expiration", "4001")],
        &[("timestamp", "1700000000")],
        &[("correlation-id", "c")],
        &[("reply-to", "/reply-queue/q")],
        &[("reply-to", "/topic/r.1")],
        &[("reply-to", "/exchange/x/k")],
        &[("amqp-message-id", "m")],
        &[("type", "k")],
        &[("user-id", "guest")],
        &[("app-id", "app")],
        &[("mine", "1"), ("k:\n", "v")],
        &[("JMSXGroupID", "g")],
        &[("foo", "1"), ("bar", "2"), ("foo", "3")],
    ] {
        let (_, back) = over_mqtt(sent);
        let mut back = back;
        back.retain(|(name, _)| name != "x-mq-ttl");
        assert_eq!(back, headers(sent), "{sent:?}");
    }
    let (seen, _) = over_mqtt(&[
        ("content-encoding", "gzip"),
        ("priority", "7"),
        ("timestamp", "1700000000"),
        ("type", "k"),
        ("user-id", "guest"),
        ("app-id", "app"),
        ("amqp-message-id", "m"),
        ("foo", "1"),
        ("foo", "2"),
    ]);
    for (name, value) in [
        ("x-mq-id", "m"),
        ("x-mq-encoding", "gzip"),
        ("x-mq-priority", "7"),
        ("x-mq-timestamp", "1700000000000"),
        ("x-mq-type", "k"),
        ("x-mq-user", "guest"),
        ("x-mq-app", "app"),
        ("foo", "1"),
        ("x-mq-extra", r#"[["foo","str","2"]]"#),
    ] {
        assert_eq!(seen.get(name), Some(value), "{name}");
    }
}

#[test]
fn every_mqtt_5_property_returns_from_stomp() {
    let none = Properties::default;
    for sent in [
        none(),
        Properties { format: Some(1), ..none() },
        Properties { content_type: text("a/b"), ..none() },
        Properties { expiry: Some(5), ..none() },
        Properties { response_topic: text("r/1"), ..none() },
        Properties { response_topic: text("$queue/q"), ..none() },
        Properties { correlation: Some(vec![0xFF, 0]), ..none() },
        Properties { correlation: Some(b"c".to_vec()), ..none() },
        Properties::of_user(&[("a", "1"), ("b", "2"), ("a", "3")]),
        Properties::of_user(&[("destination", "/queue/q"), ("content-length", "9")]),
        Properties::of_user(&[("priority", "x"), ("", "empty"), ("receipt", "r")]),
        Properties::of_user(&[("x-mq-priority", "7"), ("x-mq-type", "k")]),
    ] {
        let world = World::new();
        let mut mqtt = Mqtt::v5(&world, "m");
        mqtt.subscribe_with("m/#", 2 | 8, None);
        let mut stomp = Stomp::connect(&world);
        stomp.subscribe("/topic/s.#");
        for qos in 0..=2 {
            mqtt.publish(publish("s/x", b"hi").qos(qos).with(&sent));
            let seen = stomp.message();
            assert_eq!(seen.get("persistent"), (qos > 0).then_some("true"));
            assert_eq!(seen.get("x-mq-qos"), (qos == 2).then_some("2"));
            stomp.republish(&seen, "/topic/m.x");
            let back = mqtt.one();
            assert_eq!((back.qos, back.properties), (qos, sent.clone()));
        }
    }
}

#[test]
fn mqtt_3_has_its_quality_of_service_back() {
    let world = World::new();
    let mut mqtt = Mqtt::v311(&world, "m");
    mqtt.subscribe("m/#", 2);
    let mut stomp = Stomp::connect(&world);
    stomp.subscribe("/topic/s.#");
    mqtt.publish(publish("s/x", b"hi").qos(2));
    let seen = stomp.message();
    assert_eq!(seen.own(), headers(&[("persistent", "true"), ("x-mq-qos", "2")]));
    stomp.republish(&seen, "/topic/m.x");
    assert_eq!(mqtt.one().qos, 2);
}

#[test]
fn loss_towards_mqtt_3_is_counted() {
    let world = World::new();
    let mut mqtt = Mqtt::v311(&world, "m");
    mqtt.subscribe("m/#", 1);
    let mut stomp = Stomp::connect(&world);
    stomp.send("/topic/m.x", &[("a", "1"), ("b", "2"), ("type", "k")], b"hi");
    assert_eq!(mqtt.one().payload, b"hi");
    assert_eq!(world.mqtt_count("no_place"), 3);
}

#[test]
fn stomp_expires_is_absolute() {
    let Clients { world, mut amqp, mut stomp } = clients();
    let at = world.now_ms() + 1500;
    stomp.send("/topic/a.x", &[("expires", &at.to_string())], b"hi");
    let left: u64 = amqp.delivery().props.expiration.expect("an expiration").parse().unwrap();
    assert!((1..=1500).contains(&left), "{left}");
    let past = world.now_ms() - 1;
    stomp.send("/topic/a.x", &[("expires", &past.to_string())], b"hi");
    assert!(amqp.deliveries().is_empty());
}

#[test]
fn empty_levels() {
    let Clients { world, mut stomp, .. } = clients();
    stomp.subscribe("/topic/#");
    Mqtt::v311(&world, "m").publish(publish("/a//b/", b"hi"));
    assert_eq!(stomp.message().get("destination"), Some("/topic/.a..b."));
}

#[test]
fn unicode_destination() {
    let Clients { mut amqp, mut stomp, .. } = clients();
    amqp.listen("u", "é.*");
    stomp.subscribe("/topic/%C3%A9.x");
    amqp.publish_topic("é.x", &Props::default(), b"hi");
    assert_eq!(amqp.delivery().key, "é.x");
    let seen = stomp.message();
    assert_eq!(seen.get("destination"), Some("/topic/%C3%A9.x"));
    let destination = seen.get("destination").unwrap().to_owned();
    stomp.republish(&seen, &destination);
    assert_eq!(amqp.delivery().key, "é.x");
}

#[test]
fn bool_reaches_stomp() {
    let props =
        Props { delivery_mode: Some(1), ..Props::with_headers(&[("ok", Field::Bool(true))]) };
    let (seen, back) = over_stomp(&props, b"");
    assert_eq!(seen.get("ok"), Some("true"));
    assert_eq!(seen.get("persistent"), None);
    assert_eq!(back.headers, props.headers);
}

#[test]
fn typed_headers_return_from_stomp() {
    let nested = Field::Table(vec![("b".to_owned(), Field::Bytes(vec![0, 255]))]);
    let sent = Props::with_headers(&[
        ("i", Field::I32(5)),
        ("t", Field::Bool(false)),
        ("d", Field::F64(1.5)),
        ("l", Field::List(vec![Field::I8(1), Field::text("x")])),
        ("m", nested),
    ]);
    let (seen, back) = over_stomp(&sent, b"");
    assert_eq!(seen.get("i"), Some("5"));
    assert_eq!(seen.get("x-mq-types"), Some("i=i32;t=bool;d=f64;l=list;m=map"));
    assert_eq!(back, sent);
}

#[test]
fn raw_long_string() {
    let sent = Props::with_headers(&[
        ("raw", Field::Text(vec![0xFF, 0])),
        ("nul", Field::Text(b"a\0b".to_vec())),
    ]);
    let (seen, back) = over_stomp(&sent, b"");
    assert_eq!(seen.get("raw"), Some("/wA="));
    assert_eq!(seen.get("nul"), Some("YQBi"));
    assert_eq!(seen.get("x-mq-types"), Some("raw=lstr;nul=str64"));
    assert_eq!(back, sent);
}

#[test]
fn header_escapes() {
    let sent = Props::with_headers(&[("a b:c", Field::text("x\ny\r\\z"))]);
    let (seen, back) = over_stomp(&sent, b"");
    assert_eq!(seen.get("a b:c"), Some("x\ny\r\\z"));
    assert_eq!(back, sent);
}

#[test]
fn stomp_repeats() {
    let sent = [("foo", "1"), ("bar", "x"), ("foo", "2")];
    let (seen, back) = over_amqp(&sent);
    assert_eq!(seen.header("foo"), Some(&Field::text("1")));
    assert_eq!(seen.header("x-mq-extra"), Some(&Field::text(r#"[["foo","str","2"]]"#)));
    assert_eq!(back, headers(&sent));
}

#[test]
fn first_of_repeated_headers_is_what_an_exchange_sees() {
    let Clients { mut amqp, mut stomp, .. } = clients();
    amqp.declare("h");
    amqp.bind_with("h", "amq.headers", "", &[("color", Field::text("red"))]);
    amqp.consume("h");
    stomp.send("/exchange/amq.headers/k", &[("color", "red"), ("color", "blue")], b"1");
    stomp.send("/exchange/amq.headers/k", &[("color", "blue"), ("color", "red")], b"2");
    assert_eq!(amqp.delivery().body, b"1");
}

#[test]
fn direct_reply_to_stomp() {
    let Clients { mut amqp, mut stomp, .. } = clients();
    amqp.consume_without_ack("amq.rabbitmq.reply-to");
    let ask = Props { reply_to: text("amq.rabbitmq.reply-to"), ..Props::default() };
    amqp.publish_topic("s.x", &ask, b"ask");
    let to = stomp.message().get("reply-to").expect("a reply address").to_owned();
    assert!(to.starts_with("/reply-queue/amq.rabbitmq.reply-to."), "{to}");
    stomp.send(&to, &[], b"answer");
    assert_eq!(amqp.unsettled()[0].body, b"answer");
}

#[test]
fn temp_queue_reply() {
    let Clients { mut amqp, mut stomp, .. } = clients();
    stomp.send("/topic/a.x", &[("reply-to", "/temp-queue/x")], b"ask");
    let reply_to = amqp.delivery().props.reply_to.expect("a reply address");
    assert!(reply_to.starts_with("amq.gen-"), "{reply_to}");
    amqp.publish("", &reply_to, &Props::default(), b"answer");
    let answer = stomp.message();
    assert_eq!(answer.get("subscription"), Some("/temp-queue/x"));
    assert_eq!(answer.body, b"answer");
}

#[test]
fn reply_topics_lead_back_over_stomp() {
    let world = World::new();
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe("r/1", 1);
    let mut stomp = Stomp::connect(&world);
    stomp.subscribe("/topic/s.#");
    let properties = Properties { response_topic: text("r/1"), ..Properties::default() };
    mqtt.publish(publish("s/x", b"ask").with(&properties));
    let to = stomp.message().get("reply-to").expect("a reply address").to_owned();
    assert_eq!(to, "/topic/r.1");
    stomp.send(&to, &[], b"answer");
    assert_eq!(mqtt.one().payload, b"answer");
}

#[test]
fn forged_death() {
    let Clients { world, mut amqp, mut stomp } = clients();
    stomp.send("/topic/a.x", &[("x-death", "[]"), ("x-death", "[1]"), ("a", "1")], b"hi");
    let props = amqp.delivery().props;
    assert_eq!(props.headers, Some(vec![("a".to_owned(), Field::text("1"))]));
    assert_eq!(world.stomp_count("reserved"), 2);
    let forged = Props::with_headers(&[("x-death", Field::List(vec![]))]);
    amqp.publish_topic("s.x", &forged, b"hi");
    assert_eq!(stomp.message().own(), headers(&[("persistent", "true")]));
}

#[test]
fn user_mismatch() {
    let Clients { world, mut amqp, .. } = clients();
    let mut stomp = Stomp::connect_as(&world, "1.2", "u2");
    stomp.send("/topic/a.x", &[("x-mq-user", "u1")], b"hi");
    assert_eq!(amqp.delivery().props, Props::default());
    assert_eq!(world.stomp_count("not_allowed"), 1);
    stomp.send("/topic/a.x", &[("user-id", "u1")], b"hi");
    assert!(stomp.error().contains("the user is 'u2'"));
    assert!(amqp.deliveries().is_empty());
}

#[test]
fn bcc_hidden() {
    let Clients { mut amqp, mut stomp, .. } = clients();
    amqp.listen("x", "x");
    amqp.listen("y", "y");
    let list = |key: &str| Field::List(vec![Field::text(key)]);
    let props = Props::with_headers(&[("CC", list("x")), ("BCC", list("y"))]);
    amqp.publish_topic("s.x", &props, b"hi");
    let seen = stomp.message();
    assert_eq!(seen.get("CC"), Some(r#"["x"]"#));
    assert_eq!(seen.get("BCC"), None);
    assert_eq!(amqp.deliveries().len(), 2);
}

#[test]
fn dead_letters_tell_their_story() {
    let Clients { world, mut amqp, mut stomp } = clients();
    amqp.declare_with(
        "work",
        &[
            ("x-dead-letter-exchange", Field::text("amq.topic")),
            ("x-dead-letter-routing-key", Field::text("s.dead")),
        ],
    );
    let mut worker = Stomp::connect(&world);
    worker.subscribe_with("/amq/queue/work", &[("ack", "client-individual")]);
    stomp.send("/queue/work", &[("expiration", "60000"), ("mine", "1")], b"job");
    let job = worker.message();
    let id = job.get("ack").unwrap();
    worker.command("NACK", &[("id", id), ("requeue", "false"), ("x-reason", "bad: data")]);
    let dead = stomp.message();
    assert_eq!(dead.get("destination"), Some("/topic/s.dead"));
    assert_eq!(dead.get("mine"), Some("1"));
    assert_eq!(dead.get("expiration"), None);
    assert_eq!(dead.get("x-first-death-reason"), Some("rejected"));
    let story = dead.get("x-death").unwrap();
    assert!(story.contains(r#""detail":"bad: data""#), "{story}");
    assert!(story.contains(r#""original-expiration":"60000""#), "{story}");
}

#[test]
fn returned_messages_wait_as_long_as_nack_says() {
    let Clients { world, mut stomp, .. } = clients();
    stomp.subscribe_with("/queue/q", &[("ack", "client-individual")]);
    stomp.send("/queue/q", &[], b"job");
    let job = stomp.message();
    stomp.command("NACK", &[("id", job.get("ack").unwrap()), ("x-retry-after", "1500")]);
    assert!(stomp.all().is_empty());
    world.pass(1400);
    assert!(stomp.all().is_empty());
    world.pass(200);
    let again = stomp.message();
    assert_eq!(
        (again.get("redelivered"), again.get("x-acquired-count")),
        (Some("true"), Some("1"))
    );
    stomp.command("NACK", &[("id", again.get("ack").unwrap())]);
    stomp.message();
}

#[test]
fn share_is_a_queue_for_stomp() {
    let world = World::new();
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe("$share/g/jobs/#", 1);
    let mut stomp = Stomp::connect(&world);
    stomp.subscribe("/amq/queue/$share%2Fg%2Fjobs%2F#");
    for n in 0..4 {
        stomp.send("/topic/jobs.x", &[], &[n]);
    }
    let by_mqtt = mqtt.all().into_iter().map(|received| received.payload);
    let by_stomp = stomp.all().into_iter().map(|frame| frame.body);
    let (by_mqtt, by_stomp): (Vec<_>, Vec<_>) = (by_mqtt.collect(), by_stomp.collect());
    assert_eq!((by_mqtt.len(), by_stomp.len()), (2, 2));
    let mut all = [by_mqtt, by_stomp].concat();
    all.sort();
    assert_eq!(all, [[0], [1], [2], [3]]);
}

#[test]
fn retained_by_stomp_is_kept_for_mqtt() {
    let world = World::new();
    let mut stomp = Stomp::connect(&world);
    stomp.subscribe("/topic/#");
    stomp.send("/topic/a.x", &[("x-retain", "true")], b"last");
    assert_eq!(stomp.message().get("x-retain"), Some("true"));
    let mut late = Mqtt::v5(&world, "late");
    late.subscribe("a/+", 0);
    let seen = late.one();
    assert_eq!((seen.retain, seen.payload.as_slice()), (true, &b"last"[..]));
    late.publish(crate::mqtt::Publish { retain: true, ..publish("b/x", b"more") });
    assert_eq!(stomp.message().get("x-retain"), Some("true"));
}

#[test]
fn stomp_shows_the_very_headers() {
    let Clients { mut stomp, .. } = clients();
    let sent = [
        ("persistent", "false"),
        ("b", ""),
        ("a:\n\\\r", ":\\\n\r"),
        ("expiration", "0060000"),
        ("a:\n\\\r", "again"),
        ("reply-to", "anything"),
        ("timestamp", "soon"),
        ("x-mq-types", "b=u64"),
        (" spaced ", " value "),
        ("priority", "007"),
    ];
    for body in [vec![], vec![0; 10], vec![2; 5_000], vec![3; 300_000]] {
        stomp.send("/topic/s.x", &sent, &body);
        let seen = stomp.message();
        assert_eq!(seen.own(), headers(&sent));
        assert_eq!(seen.body, body);
    }
}

#[test]
fn transaction_is_one_batch_for_everybody() {
    let Clients { mut amqp, mut stomp, .. } = clients();
    stomp.subscribe_with("/queue/in", &[("ack", "client")]);
    stomp.send("/queue/in", &[], b"job");
    let job = stomp.message();
    stomp.command("BEGIN", &[("transaction", "t")]);
    stomp.send("/topic/a.x", &[("transaction", "t")], b"1");
    stomp.command("ACK", &[("id", job.get("ack").unwrap()), ("transaction", "t")]);
    stomp.send("/topic/a.y", &[("transaction", "t")], b"2");
    assert!(amqp.deliveries().is_empty());
    stomp.command("COMMIT", &[("transaction", "t"), ("receipt", "c")]);
    assert_eq!(stomp.all()[0].get("receipt-id"), Some("c"));
    let bodies: Vec<_> = amqp.deliveries().into_iter().map(|delivery| delivery.body).collect();
    assert_eq!(bodies, [b"1", b"2"]);
}

#[test]
fn transaction_for_which_a_queue_has_no_room_does_nothing() {
    let Clients { mut amqp, mut stomp, .. } = clients();
    let full = [("x-max-length", Field::I32(1)), ("x-overflow", Field::text("reject-publish"))];
    amqp.declare_with("small", &full);
    stomp.command("BEGIN", &[("transaction", "t")]);
    stomp.send("/topic/a.x", &[("transaction", "t")], b"1");
    stomp.send("/queue/small", &[("transaction", "t")], b"2");
    stomp.send("/queue/small", &[("transaction", "t")], b"3");
    stomp.command("COMMIT", &[("transaction", "t"), ("receipt", "c")]);
    let why = stomp.error();
    assert!(why.contains("small"), "{why}");
    assert!(amqp.deliveries().is_empty());
}

#[test]
fn receipt_tells_what_a_message_survives() {
    let Clients { mut amqp, mut stomp, .. } = clients();
    amqp.declare_with("os", &[("x-durability", Field::text("os"))]);
    amqp.declare("sync");
    let mut told = |destination: &str, persistent: &str| {
        stomp.send(destination, &[("receipt", "r"), ("persistent", persistent)], b"x");
        let receipt = stomp.all().pop().unwrap();
        let get = |name| receipt.get(name).map(str::to_owned);
        (get("x-durability"), get("x-routed"))
    };
    assert_eq!(told("/queue/sync", "true"), (text("sync"), None));
    assert_eq!(told("/queue/sync", "false"), (text("memory"), None));
    assert_eq!(told("/queue/os", "true"), (text("os"), None));
    assert_eq!(told("/topic/s.x", "true"), (text("memory"), None));
    assert_eq!(told("/topic/nowhere", "true"), (None, text("false")));
    let lowered = [("receipt", "r"), ("persistent", "true"), ("x-durability", "memory")];
    stomp.send("/queue/sync", &lowered, b"x");
    assert_eq!(stomp.all()[0].get("x-durability"), Some("memory"));
    stomp.send("/queue/sync", &[("x-durability", "disk")], b"x");
    assert!(stomp.error().contains("x-durability"));
}

#[test]
fn durable_subscription_waits_for_its_client() {
    let world = World::new();
    let mut sender = Stomp::connect(&world);
    let durable = [("durable", "true"), ("auto-delete", "false")];
    let mut client = Stomp::connect(&world);
    client.subscribe_with("/topic/news.#", &durable);
    client.cut();
    sender.send("/topic/news.today", &[("persistent", "true")], b"1");
    world.restart();
    let mut client = Stomp::connect(&world);
    client.subscribe_with("/topic/news.#", &durable);
    assert_eq!(client.message().body, b"1");
    client.command("UNSUBSCRIBE", &[("id", "1"), ("durable", "true"), ("receipt", "u")]);
    assert_eq!(client.all()[0].get("receipt-id"), Some("u"));
    assert!(world.broker().queues().iter().all(|view| !view.name.as_str().starts_with("stomp-")));
}
