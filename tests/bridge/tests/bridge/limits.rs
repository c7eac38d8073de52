//! Exchanges and limits whose refusals each protocol tells in its own way.

use polymq_broker::{UserLimits, VhostLimits};
use polymq_model::{UserName, VhostName};
use serde_json::json;

use crate::{
    amqp::{Amqp, Field, Props},
    http::Http,
    mqtt::{Mqtt, Properties, Publish, Version, publish},
    stomp::Stomp,
    world::World,
    xmpp_client::Xmpp,
};

pub(crate) fn limit_vhost(world: &World, connections_max: Option<u64>, queues_max: Option<u64>) {
    let limits = VhostLimits { connections_max, queues_max, ..VhostLimits::default() };
    world.broker().set_vhost_limits(&VhostName::new("/").unwrap(), limits).unwrap();
}

#[test]
fn too_many_connections_of_a_vhost_are_refused_at_the_door() {
    let world = World::new();
    let amqp = Amqp::connect(&world);
    limit_vhost(&world, Some(1), None);
    let (code, text) = Amqp::refused(&world);
    let wanted = "NOT_ALLOWED - access to vhost '/' refused for user 'guest': connection limit (1) \
                  is reached";
    assert_eq!((code, text.as_str()), (530, wanted));
    assert_eq!(Mqtt::refused(&world, Version::V5, "m"), 0x97);
    assert_eq!(Mqtt::refused(&world, Version::V311, "m"), 3);
    amqp.cut();
    Mqtt::v5(&world, "m");
}

#[test]
fn too_many_queues_of_a_vhost_are_refused() {
    let world = World::new();
    limit_vhost(&world, None, Some(1));
    let mut amqp = Amqp::connect(&world);
    amqp.declare("first");
    amqp.ask_for_queue("second", &[]);
    let (code, text) = amqp.closed().unwrap();
    let wanted = "PRECONDITION_FAILED - cannot declare queue 'second' in vhost '/': queue limit \
                  (1) is reached";
    assert_eq!((code, text.as_str()), (406, wanted));
    let mut mqtt = Mqtt::v5(&world, "m");
    assert_eq!(mqtt.subscribe_with("direct/#", 0, None), 0);
    assert_eq!(mqtt.subscribe_with("kept/#", 1, None), 0x97);
    assert_eq!(Mqtt::v311(&world, "n").subscribe_with("kept/#", 1, None), 0x80);
}

#[test]
fn a_retained_message_too_many_is_refused_in_each_protocol() {
    let world = World::new();
    let limits = VhostLimits { retained_count_max: Some(0), ..VhostLimits::default() };
    world.broker().set_vhost_limits(&VhostName::new("/").unwrap(), limits).unwrap();
    let wanted = "vhost '/' would keep 1 retained messages, its limit retained-max-count is 0";
    let retained = || Publish { retain: true, ..publish("t", b"m") };
    let mut watcher = Mqtt::v5(&world, "watcher");
    watcher.subscribe("#", 0);
    assert_eq!(Mqtt::v5(&world, "five").publish(retained()), 0x97);
    let mut old = Mqtt::v311(&world, "old");
    old.send(retained());
    assert_eq!((old.answer(), old.is_connected()), (None, true));
    let mut amqp = Amqp::connect(&world);
    let header = Props::with_headers(&[("x-retain", Field::Bool(true))]);
    amqp.publish_raw("amq.topic", "t", &header.encode(), b"m");
    let (code, text) = amqp.closed().unwrap();
    assert_eq!((code, text.as_str()), (406, &*format!("PRECONDITION_FAILED - {wanted}")));
    let mut stomp = Stomp::connect(&world);
    stomp.send("/topic/t", &[("x-retain", "true"), ("receipt", "r")], b"m");
    let failure = stomp.failure();
    assert_eq!(
        (failure.get("message"), failure.get("receipt-id")),
        (Some("limit reached"), Some("r"))
    );
    let http = Http::connect_as(&world, "u1");
    let message = json!({
        "exchange": "amq.topic", "routing_key": "t", "properties": { "retain": true },
        "payload": "m",
    });
    let told = http.ask(&json!({ "op": "publish", "id": 7, "message": message }));
    assert_eq!((&told[0]["code"], &told[0]["text"]), (&json!("limit"), &json!(wanted)));
    assert!(watcher.all().is_empty(), "nothing of it goes anywhere");
}

#[test]
fn a_user_with_too_many_channels_loses_the_connection() {
    let world = World::new();
    let user = UserName::new("u1").unwrap();
    let limits = UserLimits { connections_max: None, channels_max: Some(2) };
    world.broker().set_user_limits(&user, limits).unwrap();
    let _one = Amqp::connect_as(&world, "u1");
    let mut other = Amqp::connect_as(&world, "u1");
    other.open_channel(2);
    let (code, text) = other.closed().unwrap();
    assert_eq!(code, 530);
    assert!(text.contains("maximum allowed user limit of (2)"), "{text}");
}

#[test]
fn the_control_exchange_takes_no_orders_yet() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.publish_raw("amq.control", "extend", &Props::default().encode(), b"");
    assert_eq!(amqp.closed().unwrap().0, 406);
    let mut mqtt = Mqtt::v5(&world, "m");
    assert_eq!(mqtt.publish(publish("$exchange/amq.control/commit", b"id")), 0x83);
}

#[test]
fn wrong_weights_and_hash_arguments_cost_the_channel() {
    let text = Field::text;
    let both = [("hash-header", text("h")), ("hash-property", text("message_id"))];
    for (arguments, weight) in [(&both[..], "1"), (&both[..1], "heavy"), (&both[..1], "10001")] {
        let world = World::new();
        let mut amqp = Amqp::connect(&world);
        amqp.declare("q");
        amqp.ask_for_exchange("x", "x-consistent-hash", arguments);
        amqp.ask_to_bind("q", "x", weight, &[]);
        assert_eq!(amqp.closed().unwrap().0, 406, "{weight}");
    }
}

#[test]
fn a_hash_of_a_header_sends_numbers_and_their_texts_the_same_way() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    let by = [("hash-header", Field::text("customer"))];
    amqp.declare_exchange_with("x", "x-consistent-hash", &by);
    for queue in ["a", "b", "c"] {
        amqp.declare(queue);
        amqp.bind(queue, "x", "1");
    }
    let mut mqtt = Mqtt::v5(&world, "m");
    for customer in 0..20 {
        let header = [("customer", Field::I32(customer))];
        amqp.publish("x", "k", &Props::with_headers(&header), b"");
        let number = customer.to_string();
        let sent = publish("$exchange/x/other", b"").qos(1);
        let user = Properties::of_user(&[("customer", &number)]);
        assert!(mqtt.publish(sent.with(&user)) < 0x80);
        let ready = ["a", "b", "c"].map(|queue| world.ready(queue).unwrap());
        assert!(ready.iter().all(|count| count % 2 == 0), "{customer}: {ready:?}");
    }
}

#[test]
fn a_publish_that_is_blocked_for_too_long_is_refused_in_each_protocol() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.declare("q");
    let mut mqtt = Mqtt::v5(&world, "m");
    let mut old = Mqtt::v311(&world, "old");
    let mut asking = Stomp::connect(&world);
    let mut stomp = Stomp::connect(&world);
    let mut xmpp = Xmpp::connect(&world, "u1", "r");
    let http = Http::connect_as(&world, "u1");
    world.broker().set_alarm(Some("no space"));
    mqtt.send(publish("t", b"m").qos(1));
    old.send(publish("t", b"m").qos(1));
    asking.send("/topic/t", &[("receipt", "r")], b"m");
    stomp.send("/topic/t", &[], b"m");
    xmpp.send("<message id='x' to='t@topics.d'><body>m</body></message>");
    let message = json!({ "exchange": "amq.topic", "routing_key": "t", "payload": "m" });
    let told = http.ask(&json!({ "op": "publish", "id": 7, "message": message }));
    assert_eq!(told, [json!({ "op": "blocked", "reason": "no space" })]);
    amqp.publish_raw("", "q", &Props::default().encode(), b"m");
    // The client that waits for room may make it meanwhile.
    amqp.declare("other");
    world.pass(29_000);
    assert_eq!(amqp.closed(), None);
    assert_eq!((mqtt.answer(), old.answer()), (None, None));
    assert!(asking.all().is_empty() && stomp.all().is_empty());
    assert_eq!(xmpp.answer("x"), None);
    assert!(http.heard().is_empty());
    world.pass(1_000);
    let (code, text) = amqp.closed().unwrap();
    assert_eq!(code, 506);
    assert!(text.ends_with("blocked for 30 s: no space"), "{text}");
    assert_eq!(mqtt.answer().unwrap().1[2], 0x97);
    // It has no word for this, and sends again when it comes back.
    assert_eq!((old.answer(), old.is_connected()), (None, true));
    let failure = asking.failure();
    assert_eq!(
        (failure.get("message"), failure.get("receipt-id")),
        (Some("queue full"), Some("r"))
    );
    let text = stomp.error();
    assert!(text.ends_with("blocked for 30 s: no space"), "{text}");
    let (condition, _) = xmpp.answer("x").unwrap().stanza_error();
    assert_eq!(condition, "wait resource-constraint");
    let refused =
        json!({ "op": "confirm", "re": 7, "outcome": "refused", "routed": false, "code": "full" });
    assert_eq!(http.heard(), [refused]);
}
