//! Delayed publishing, as each protocol asks for it and shows it.

use serde_json::json;

use crate::{
    amqp::{Amqp, Field, Props},
    http::Http,
    mqtt::{Mqtt, Properties, publish},
    stomp::Stomp,
    world::World,
    xmpp_client::Xmpp,
};

#[test]
fn every_protocol_delays_and_shows_the_delay_negated() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "t.#");
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe("t/#", 1);
    let mut old = Mqtt::v311(&world, "old");

    let text_delay = [("x-delay", Field::text("1000")), ("mine", Field::I32(7))];
    amqp.publish_topic("t.amqp", &Props::with_headers(&text_delay), b"1");
    let user = Properties::of_user(&[("x-delay", "2000"), ("mine", "7")]);
    assert_eq!(mqtt.publish(publish("t/mqtt5", b"2").with(&user)), 0);
    assert_eq!(mqtt.publish(publish("$delayed/3/t/topic5", b"3")), 0);
    old.publish(publish("$delayed/4/t/topic3", b"4"));
    let shown = [
        ("t.amqp", -1000, true),
        ("t.mqtt5", -2000, true),
        ("t.topic5", -3000, false),
        ("t.topic3", -4000, false),
    ];
    for (key, delay, has_header) in shown {
        assert!(amqp.deliveries().is_empty(), "{key}");
        assert!(mqtt.all().is_empty(), "{key}");
        world.pass(1000);
        let delivery = amqp.delivery();
        assert_eq!(delivery.key, key);
        assert_eq!(delivery.header("x-delay"), Some(&Field::I64(delay)));
        assert_eq!(delivery.header("mine").is_some(), has_header, "{key}");
        let received = mqtt.one();
        assert_eq!(received.topic, key.replace('.', "/"));
        assert_eq!(received.user("x-delay"), Some(delay.to_string().as_str()));
        assert_eq!(received.user("mine"), has_header.then_some("7"));
        // Published again as it came, it is there at once.
        if has_header {
            mqtt.republish(&received, "t/again");
            assert_eq!(amqp.delivery().key, "t.again");
            mqtt.one();
        }
    }
}

#[test]
fn stomp_delays_by_every_header_and_shows_the_delay_negated() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "t.#");
    let mut stomp = Stomp::connect(&world);
    stomp.subscribe("/topic/t.stomp");
    let until = (world.now_ms() + 3000).to_string();
    let delays =
        [("x-delay", "1000"), ("AMQ_SCHEDULED_DELAY", "2000"), ("x-delivery-time", &until)];
    for (name, value) in delays {
        stomp.send("/topic/t.stomp", &[(name, value), ("mine", value)], b"1");
    }
    for ms in [1000, 2000, 3000] {
        assert!(stomp.all().is_empty(), "{ms}");
        world.pass(1000);
        assert_eq!(amqp.delivery().header("x-delay"), Some(&Field::I64(-ms)));
        let message = stomp.message();
        assert_eq!(message.get("x-delay"), Some((-ms).to_string().as_str()));
        assert_eq!(message.get("AMQ_SCHEDULED_DELAY"), None);
        assert!(message.get("mine").is_some());
        stomp.republish(&message, "/topic/t.stomp");
        assert_eq!(stomp.message().get("x-delay"), Some((-ms).to_string().as_str()));
        amqp.delivery();
    }
}

#[test]
fn a_delay_that_is_no_number_is_refused() {
    let world = World::new();
    let mut mqtt = Mqtt::v5(&world, "m");
    let user = Properties::of_user(&[("x-delay", "soon")]);
    assert_eq!(mqtt.publish(publish("t", b"1").with(&user)), 0x83);
    for topic in ["$delayed/soon/t", "$delayed/5", "$delayed/-5/t"] {
        assert_eq!(mqtt.publish(publish(topic, b"1")), 0x90, "{topic}");
    }
    let mut stomp = Stomp::connect(&world);
    stomp.send("/topic/t", &[("x-delay", "soon")], b"1");
    assert!(stomp.error().contains("x-delay"));
    let mut xmpp = Xmpp::connect(&world, "u1", "r");
    let header = "<properties xmlns='urn:polymq:properties:1'><p n='x-delay'>soon</p></properties>";
    let message = format!("<message id='x' to='t@topics.d'><body>1</body>{header}</message>");
    let item = xmpp.publish("t", "i", "<x xmlns='urn:x'/>", header);
    for answer in [xmpp.answer_to(&message, "x"), item] {
        let (condition, text) = answer.stanza_error();
        assert_eq!(condition, "modify bad-request");
        assert!(text.contains("x-delay"), "{text}");
    }
    let http = Http::connect_as(&world, "u1");
    for properties in [json!({ "headers": { "x-delay": "soon" } }), json!({ "delay": "soon" })] {
        http.publish("t", &properties, "1");
        let told = http.heard();
        assert_eq!((&told[0]["op"], &told[0]["code"]), (&json!("error"), &json!("bad_field")));
    }
    let mut amqp = Amqp::connect(&world);
    let soon = Props::with_headers(&[("x-delay", Field::text("soon"))]).encode();
    amqp.publish_raw("amq.topic", "t", &soon, b"1");
    assert_eq!(amqp.closed().unwrap().0, 406);
}

#[test]
fn a_delayed_message_is_retained_when_it_is_due() {
    let world = World::new();
    let mut mqtt = Mqtt::v5(&world, "m");
    let sent = crate::mqtt::Publish { retain: true, ..publish("$delayed/1/t", b"value") };
    assert_eq!(mqtt.publish(sent), 0);
    let mut early = Mqtt::v5(&world, "early");
    early.subscribe("t", 1);
    assert!(early.all().is_empty());
    world.pass(1000);
    assert_eq!(early.one().payload, b"value");
    let mut late = Mqtt::v5(&world, "late");
    late.subscribe("t", 1);
    assert_eq!(late.one().payload, b"value");
}
