//! Headers, user properties, and the names that mean something to the broker.

use crate::{
    amqp::{Amqp, Field, Props},
    mqtt::{Mqtt, Properties, Version, publish},
    round_trip::{OverAmqp, OverMqtt},
    stomp::Stomp,
    world::World,
    xmpp_client::Xmpp,
};

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn typed_headers() {
    let map = Field::Table(vec![("b".to_owned(), Field::Bytes(vec![0, 255]))]);
    let sent = Props::with_headers(&[
        ("i", Field::I32(5)),
        ("ok", Field::Bool(true)),
        ("f", Field::F64(1.5)),
        ("l", Field::List(vec![Field::I64(1), Field::text("x")])),
        ("m", map),
    ]);
    let (seen, back) = OverMqtt::new().send(&sent, b"hi");
    let user = &seen.properties.user;
    assert_eq!(user[..3], pairs(&[("i", "5"), ("ok", "true"), ("f", "1.5")]));
    assert_eq!(seen.user("l"), Some(r#"[1,"x"]"#));
    assert_eq!(seen.user("x-mq-types"), Some("i=i32;ok=bool;f=f64;l=list;m=map"));
    assert_eq!(back.props, sent);
}

#[test]
fn repeated_properties() {
    let mut over = OverAmqp::new();
    let sent = Properties::of_user(&[("a", "1"), ("b", "2"), ("a", "3")]);
    let (seen, back) = over.send_properties(&sent);
    let list = Field::List(vec![Field::text("1"), Field::text("3")]);
    assert_eq!(seen.header("a"), Some(&list));
    assert_eq!(seen.text_header("b"), Some("2"));
    assert_eq!(seen.text_header("x-mq-multi"), Some("a,b,a"));
    assert_eq!(back.properties, sent);

    let name = "n".repeat(300);
    let sent = Properties::of_user(&[("a", "1"), (&name, "long"), ("b", "2")]);
    let (seen, back) = over.send_properties(&sent);
    let extra = format!(r#"[["{name}","str","long"]]"#);
    assert_eq!(seen.text_header("x-mq-extra"), Some(extra.as_str()));
    assert_eq!(back.properties, sent);
}

#[test]
fn forged_death() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "#");
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe("#", 1);
    let forged = Properties::of_user(&[("x-death", "[]"), ("a", "1"), ("x-death", "[{}]")]);
    mqtt.publish(publish("t", b"hi").with(&forged));
    assert_eq!(mqtt.one().properties, Properties::of_user(&[("a", "1")]));
    assert_eq!(amqp.delivery().props, Props::with_headers(&[("a", Field::text("1"))]));
    assert_eq!(world.mqtt_count("reserved"), 2);

    let death = Field::List(vec![Field::Table(vec![("count".to_owned(), Field::I64(9))])]);
    let forged = [("x-death", death.clone()), ("a", Field::text("1")), ("x-death", death)];
    amqp.publish_topic("t", &Props::with_headers(&forged), b"hi");
    assert_eq!(mqtt.one().properties, Properties::of_user(&[("a", "1")]));
    assert_eq!(amqp.delivery().props, Props::with_headers(&[("a", Field::text("1"))]));
    assert_eq!(world.amqp_count("reserved"), 2);
}

#[test]
fn no_protocol_lets_a_client_write_what_only_the_broker_knows() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "#");
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe("#", 1);
    for name in [
        "x-death",
        "x-first-death-queue",
        "x-first-death-reason",
        "x-first-death-exchange",
        "x-last-death-queue",
        "x-last-death-reason",
        "x-last-death-exchange",
        "x-delivery-count",
        "x-acquired-count",
        "x-exchange",
        "x-routing-key",
        "x-source-queue",
        "x-stream-offset",
        "x-delivery-token",
        "x-origin-protocol",
        "x-enqueued-at",
        "x-schedule-id",
    ] {
        mqtt.publish(publish("t", b"").with(&Properties::of_user(&[(name, "9")])));
        amqp.publish_topic("t", &Props::with_headers(&[(name, Field::I64(9))]), b"");
        for delivery in amqp.deliveries() {
            assert_eq!(delivery.header(name), None);
        }
        for received in mqtt.all() {
            assert_eq!(received.user(name), None);
        }
    }
}

#[test]
fn user_mismatch() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "#");
    let mut mqtt = Mqtt::connect_as(&world, Version::V5, "m", "u2", &[]);
    let claim = |user: &str| publish("t", b"hi").with(&Properties::of_user(&[("x-mq-user", user)]));
    mqtt.publish(claim("u2"));
    assert_eq!(amqp.delivery().props.user_id.as_deref(), Some("u2"));
    mqtt.publish(claim("u1"));
    assert_eq!(amqp.delivery().props, Props::persistent());
    assert_eq!(world.mqtt_count("not_allowed"), 1);

    let mut second = Amqp::connect_as(&world, "u2");
    let own = Props { user_id: Some("u2".to_owned()), ..Props::persistent() };
    second.publish_topic("t", &own, b"hi");
    assert_eq!(amqp.delivery().props, own);
    let other = Props { user_id: Some("u1".to_owned()), ..Props::persistent() };
    second.publish_raw("amq.topic", "t", &other.encode(), b"hi");
    assert_eq!(second.closed().expect("the channel is closed").0, 406);
    assert_eq!(amqp.deliveries(), []);
}

#[test]
fn carried_user_of_amqp_is_the_senders_own() {
    let world = World::new();
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe("t", 1);
    let mut amqp = Amqp::connect_as(&world, "u2");
    for (said, seen) in [("u2", vec![("x-mq-user", "u2")]), ("u1", Vec::new())] {
        let headers = Props::with_headers(&[("x-mq-user", Field::text(said))]);
        amqp.publish_topic("t", &headers, b"hi");
        assert_eq!(mqtt.one().properties, Properties::of_user(&seen));
    }
    assert_eq!(world.amqp_count("not_allowed"), 1);
}

#[test]
fn trace_passes() {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let trace = [("traceparent", parent), ("tracestate", "a=1"), ("baggage", "k=v")];
    let sent = Properties::of_user(&trace);
    let (seen, back) = OverAmqp::new().send_properties(&sent);
    let headers = trace.map(|(name, value)| (name, Field::text(value)));
    assert_eq!(seen.props, Props::with_headers(&headers));
    assert_eq!(back.properties, sent);

    let world = World::new();
    world.trace();
    let mut readers = [Amqp::connect(&world), Amqp::connect(&world)];
    for (reader, queue) in readers.iter_mut().zip(["p", "q"]) {
        reader.listen(queue, "t");
    }
    Mqtt::v5(&world, "m").publish(publish("t", b"hi").with(&sent));
    let mut parents = vec![parent.to_owned()];
    for reader in &mut readers {
        let seen = reader.delivery();
        assert_eq!(seen.text_header("tracestate"), Some("a=1"));
        let own = seen.text_header("traceparent").unwrap();
        assert_eq!((&own[..36], &own[52..]), (&parent[..36], &parent[52..]), "one trace");
        parents.push(own.to_owned());
    }
    parents.sort();
    parents.dedup();
    assert_eq!(parents.len(), 3, "each delivery has a parent of its own: {parents:?}");
}

#[test]
fn trace_passes_to_every_protocol_that_has_headers() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "s.#");
    let mut stomp = Stomp::connect(&world);
    stomp.subscribe("/topic/s.#");
    let mut xmpp = Xmpp::connect(&world, "u1", "r");
    xmpp.subscribe("s.x");
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe("s/#", 1);
    stomp.send("/topic/s.x", &[("traceparent", PARENT)], b"hi");
    assert_eq!(amqp.delivery().text_header("traceparent"), Some(PARENT));
    assert_eq!(stomp.message().get("traceparent"), Some(PARENT));
    assert_eq!(mqtt.one().user("traceparent"), Some(PARENT));
    let mut text = String::new();
    xmpp.message().write(&mut text);
    assert!(text.contains(PARENT), "{text}");
}
