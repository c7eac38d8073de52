//! JSON over HTTP to and from the others: the named cases, and whatever else a message holds.

use std::cell::RefCell;

use proptest::{collection::vec, option, prelude::*};
use serde_json::{Map, Value, json};

use crate::{
    amqp::{Amqp, Field, Props},
    http::{Http, Seen},
    lossless::{odd_text, properties, props, runner},
    mqtt::{Mqtt, Properties, Publish, publish},
    stomp::Stomp,
    stomp_lossless::own_headers,
    world::World,
    xmpp_client::Xmpp,
};

/// AMQP listens to `a.#`, HTTP to `h.#`.
fn clients() -> (World, Amqp, Http) {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("a", "a.#");
    let http = Http::listen(&world, "h.#");
    (world, amqp, http)
}

/// What a client of HTTP sees of an AMQP message, and what comes back when it sends that on.
fn over_http(sent: &Props, body: &[u8]) -> (Seen, Props, Vec<u8>) {
    let (_world, mut amqp, http) = clients();
    amqp.publish_topic("h.x", sent, body);
    let seen = http.message();
    http.republish(&seen, "a.x");
    let back = amqp.delivery();
    (seen, back.props, back.body)
}

/// What an AMQP client sees of properties, and what comes back when it sends that on.
fn over_amqp(properties: &Value) -> (Props, Value) {
    let (_world, mut amqp, http) = clients();
    http.publish("a.x", properties, "hi");
    let seen = amqp.delivery();
    amqp.publish_topic("h.x", &seen.props, &seen.body);
    (seen.props, http.message()["properties"].clone())
}

fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

#[test]
fn every_amqp_property_has_a_name_in_json() {
    let base = Props::persistent;
    let rows: [(Props, Value); 14] = [
        (base(), json!({})),
        (Props { content_type: text("a/b"), ..base() }, json!({ "content_type": "a/b" })),
        (Props { content_encoding: text("x"), ..base() }, json!({ "content_encoding": "x" })),
        (Props { priority: Some(255), ..base() }, json!({ "priority": 255 })),
        (Props { correlation_id: text("c"), ..base() }, json!({ "correlation_id": "c" })),
        (Props { reply_to: text("q"), ..base() }, json!({ "reply_to": "/queues/q" })),
        (
            Props { reply_to: text("amq.address:/exchanges/x/k"), ..base() },
            json!({ "reply_to": "/exchanges/x/k" }),
        ),
        (Props { expiration: text("5000"), ..base() }, json!({ "expiration": 5000 })),
        (Props { message_id: text("m"), ..base() }, json!({ "message_id": "m" })),
        (Props { timestamp: Some(1_700_000_000), ..base() }, json!({ "timestamp": 1_700_000_000 })),
        (Props { kind: text("k"), ..base() }, json!({ "type": "k" })),
        (Props { user_id: text("guest"), ..base() }, json!({ "user_id": "guest" })),
        (Props { app_id: text("app"), ..base() }, json!({ "app_id": "app" })),
        (Props::with_headers(&[("x-group-id", Field::text("g"))]), json!({ "group_id": "g" })),
    ];
    for (sent, mut shown) in rows {
        let (seen, back, _) = over_http(&sent, b"hi");
        shown["delivery_mode"] = json!(2);
        assert_eq!(seen["properties"], shown);
        assert_eq!(back, sent);
    }
}

#[test]
fn odd_numbers() {
    let headers = [
        ("nan", Field::F64(f64::NAN)),
        ("decimal", Field::Decimal(2, 1250)),
        ("small", Field::I8(5)),
        ("plain", Field::I64(5)),
    ];
    let (seen, back, _) = over_http(&Props::with_headers(&headers), b"");
    let shown = json!({ "nan": "NaN", "decimal": "12.50", "small": 5, "plain": 5 });
    assert_eq!(seen["properties"]["headers"], shown);
    let types = json!({ "/nan": "f64", "/decimal": "dec", "/small": "i8" });
    assert_eq!(seen["properties"]["header_types"], types);
    assert_eq!(format!("{back:?}"), format!("{:?}", Props::with_headers(&headers)));

    let large = json!({ "headers": { "n": 18_446_744_073_709_551_615_u64 } });
    let (seen, back) = over_amqp(&large);
    assert_eq!(seen.header("n").and_then(Field::as_text), Some("18446744073709551615"));
    assert_eq!(back["headers"], large["headers"]);
}

#[test]
fn timestamp_ms() {
    let sent = json!({ "timestamp_ms": 1_700_000_000_123_u64 });
    let (seen, back) = over_amqp(&sent);
    assert_eq!(seen.timestamp, Some(1_700_000_000));
    assert_eq!(back["timestamp_ms"], sent["timestamp_ms"]);
}

#[test]
fn gzip_and_nested() {
    let (seen, _, body) = over_http(
        &Props { content_encoding: text("gzip"), ..Props::persistent() },
        &[0x1f, 0x8b, b'a'],
    );
    assert_eq!((&seen["payload"], &seen["payload_encoding"]), (&json!("H4th"), &json!("base64")));
    assert_eq!(body, [0x1f, 0x8b, b'a']);
    let (seen, back) = over_amqp(&json!({ "headers": { "b": [1, "x"] } }));
    let list = Field::List(vec![Field::I64(1), Field::text("x")]);
    assert_eq!(seen.header("b"), Some(&list));
    assert_eq!(back["headers"], json!({ "b": [1, "x"] }));
}

#[test]
fn payload_is_shown_as_what_it_is() {
    for (body, payload, encoding) in
        [(&b"\xff"[..], "/w==", "base64"), ("é".as_bytes(), "é", "string"), (b"", "", "string")]
    {
        let (seen, _, back) = over_http(&Props::persistent(), body);
        let told = (seen["payload"].as_str(), seen["payload_encoding"].as_str());
        assert_eq!(told, (Some(payload), Some(encoding)));
        assert_eq!(back, body);
    }
}

#[test]
fn forged_record_is_removed_and_a_true_one_shown() {
    let (seen, _) = over_amqp(&json!({ "headers": { "x-death": "mine", "x-delivery-count": 9 } }));
    assert_eq!(seen.headers, None);
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    let http = Http::listen(&world, "dead");
    let arguments = [
        ("x-dead-letter-exchange", Field::text("amq.topic")),
        ("x-dead-letter-routing-key", Field::text("dead")),
        ("x-message-ttl", Field::I64(1)),
    ];
    amqp.declare_with("q", &arguments);
    amqp.publish("", "q", &Props::persistent(), b"hi");
    world.pass(1000);
    let seen = http.message();
    assert_eq!(seen["death"][0]["reason"], "expired");
    assert_eq!(seen["first_death"]["queue"], "q");
    // What only the server writes is passed over when a client sends on what it received.
    http.republish(&seen, "dead");
    assert_eq!(http.message()["death"], Value::Null);
}

#[test]
fn delay_is_asked_for_in_json_too() {
    let (world, mut amqp, http) = clients();
    http.publish("a.x", &json!({ "delay": 5000 }), "late");
    assert!(amqp.deliveries().is_empty());
    world.pass(5000);
    let seen = amqp.delivery();
    assert_eq!(seen.header("x-delay"), Some(&Field::I64(-5000)));
    amqp.publish_topic("h.x", &seen.props, &seen.body);
    assert_eq!(http.message()["payload"], "late");
}

#[test]
fn names_that_repeat_are_a_list() {
    let world = World::new();
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe("m/x", 1);
    let http = Http::listen(&world, "h.#");
    let sent = Properties::of_user(&[("a", "1"), ("b", "2"), ("a", "3")]);
    mqtt.publish(publish("h/x", b"hi").with(&sent));
    let seen = http.message();
    assert_eq!(seen["properties"]["header_list"], json!([["a", "1"], ["b", "2"], ["a", "3"]]));
    http.republish(&seen, "m.x");
    assert_eq!(mqtt.one().properties, sent);
}

#[test]
fn event_has_its_attributes_in_every_protocol() {
    let world = World::new();
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe("m/x", 1);
    let http = Http::listen(&world, "h.#");
    let attributes = [("specversion", "1.0"), ("id", "1"), ("type", "t"), ("source", "/s")];
    mqtt.publish(publish("h/x", b"{}").with(&Properties::of_user(&attributes)));
    let seen = http.message();
    assert_eq!(seen["properties"]["headers"]["cloudEvents_source"], "/s");
    assert_eq!(seen["properties"]["message_id"], "1");
    http.republish(&seen, "m.x");
    assert_eq!(mqtt.one().properties, Properties::of_user(&attributes));
}

#[test]
fn xmpp_sees_the_fields_and_gives_them_back() {
    let world = World::new();
    let http = Http::listen(&world, "h.#");
    let mut amqp = Amqp::connect(&world);
    amqp.declare("x");
    let mut xmpp = Xmpp::connect(&world, "u1", "r");
    xmpp.consume("x@queues.d");
    xmpp.messages();
    let sent = json!({
        "content_type": "text/plain", "correlation_id": "c", "priority": 3, "app_id": "app",
        "headers": { "a": "b", "n": 5 },
    });
    http.publish_to_queue("x", &sent, "hi");
    let seen = xmpp.message();
    assert_eq!(seen.text_of(crate::xmpp_client::CLIENT, "body"), Some("hi"));
    assert_eq!(seen.text_of(crate::xmpp_client::CLIENT, "thread"), Some("c"));
    let properties = seen.child("urn:polymq:properties:1", "properties").unwrap();
    let said = |name: &str| {
        let found = properties
            .children
            .iter()
            .find(|one| one.attr("f") == Some(name) || one.attr("n") == Some(name));
        found.map(|one| one.text.clone())
    };
    assert_eq!(said("priority").as_deref(), Some("3"));
    assert_eq!((said("a").as_deref(), said("n").as_deref()), (Some("b"), Some("5")));
    let mut back = String::new();
    seen.children.iter().for_each(|child| child.write(&mut back));
    xmpp.send(&format!("<message to='h.x@topics.d'>{back}</message>"));
    let returned = http.message()["properties"].clone();
    for name in ["correlation_id", "priority", "app_id", "headers"] {
        assert_eq!(returned[name], sent[name], "{name}");
    }
}

#[test]
fn whatever_amqp_says_returns_from_http() {
    let (_world, amqp, http) = clients();
    let clients = RefCell::new((amqp, http));
    runner(256)
        .run(&(props(), vec(any::<u8>(), 0..20)), |(sent, body)| {
            let (amqp, http) = &mut *clients.borrow_mut();
            amqp.publish_topic("h.x", &sent, &body);
            http.republish(&http.message(), "a.x");
            let back = amqp.delivery();
            prop_assert_eq!(&back.body, &body);
            // As texts, because NaN is not equal to itself.
            prop_assert_eq!(format!("{:?}", back.props), format!("{sent:?}"));
            Ok(())
        })
        .unwrap();
}

#[test]
fn whatever_mqtt_5_says_returns_from_http() {
    let world = World::new();
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe_with("m/x", 2 | 8, None);
    let clients = RefCell::new((mqtt, Http::listen(&world, "h.#")));
    runner(256)
        .run(&(properties(), 0..=2_u8), |(properties, qos): (Properties, u8)| {
            let (mqtt, http) = &mut *clients.borrow_mut();
            let (topic, payload) = ("h/x".to_owned(), b"hi".to_vec());
            let sent = properties.clone();
            mqtt.publish(Publish { topic, qos, properties: sent, payload, retain: false });
            http.republish(&http.message(), "m.x");
            let back = mqtt.one();
            prop_assert_eq!(back.properties, properties);
            prop_assert_eq!(back.qos, qos);
            Ok(())
        })
        .unwrap();
}

/// Properties as a client of HTTP writes them.
fn json_properties() -> impl Strategy<Value = Value> {
    let texts = ["content_type", "content_encoding", "message_id", "type", "app_id", "group_id"];
    let texts = texts.map(|name| option::of(odd_text()).prop_map(move |text| (name, text)));
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|value| json!(value)),
        any::<i64>().prop_map(|value| json!(value)),
        any::<u64>().prop_map(|value| json!(value)),
        (-1e9..1e9_f64).prop_map(|value| json!(value + 0.5)),
        odd_text().prop_map(|value| json!(value)),
    ];
    let value = leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|items| json!(items)),
            // Names that begin with `$t` are escaped, see the model.
            vec((odd_text().prop_map(|text| format!("k{text}")), inner), 0..4)
                .prop_map(|items| Value::Object(items.into_iter().collect())),
        ]
    });
    let name = odd_text().prop_map(|text| format!("h{text}"));
    let headers = vec((name, value), 0..5).prop_map(|all| all.into_iter().collect::<Map<_, _>>());
    let numbers = (
        1..=2_u8,
        option::of(any::<u8>()),
        option::of(1..100_000_u64),
        option::of(0..5_000_000_000_u64),
        option::of(any::<bool>()),
    );
    (texts, numbers, headers).prop_map(|(texts, numbers, headers)| {
        let mut said = Map::new();
        for (name, text) in texts {
            said.extend(text.map(|text| (name.to_owned(), json!(text))));
        }
        let (mode, priority, expiration, timestamp, is_text) = numbers;
        said.insert("delivery_mode".to_owned(), json!(mode));
        said.extend(priority.map(|value| ("priority".to_owned(), json!(value))));
        said.extend(expiration.map(|value| ("expiration".to_owned(), json!(value))));
        said.extend(timestamp.map(|value| ("timestamp".to_owned(), json!(value))));
        // Encodings that mean a text say so already.
        said.extend(is_text.map(|value| ("text".to_owned(), json!(value))));
        if !headers.is_empty() {
            said.insert("headers".to_owned(), Value::Object(headers));
        }
        Value::Object(said)
    })
}

#[test]
fn whatever_http_says_returns_from_amqp_mqtt_5_and_stomp() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("a", "a.x");
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe_with("m/x", 2 | 8, None);
    let mut stomp = Stomp::connect(&world);
    stomp.subscribe("/topic/s.x");
    let clients = RefCell::new((amqp, mqtt, stomp, Http::listen(&world, "h.x")));
    runner(256)
        .run(&json_properties(), |sent| {
            let (amqp, mqtt, stomp, http) = &mut *clients.borrow_mut();
            http.publish("h.x", &sent, "hi");
            let exact = http.message()["properties"].clone();
            prop_assert_eq!(&exact, &sent, "over nobody");
            http.publish("a.x", &sent, "hi");
            let seen = amqp.delivery();
            amqp.publish_topic("h.x", &seen.props, &seen.body);
            prop_assert_eq!(&http.message()["properties"], &sent, "over AMQP");
            http.publish("m.x", &sent, "hi");
            let seen = mqtt.one();
            // MQTT rounds the expiry up to seconds, and carries what was written.
            mqtt.republish(&seen, "h/x");
            let mut back = http.message()["properties"].clone();
            if let Some(ttl) = back.as_object_mut().and_then(|back| back.remove("ttl")) {
                back["expiration"] = ttl;
            }
            prop_assert_eq!(&back, &sent, "over MQTT");
            http.publish("s.x", &sent, "hi");
            let seen = stomp.message();
            stomp.republish(&seen, "/topic/h.x");
            prop_assert_eq!(&http.message()["properties"], &sent, "over STOMP");
            Ok(())
        })
        .unwrap();
}

#[test]
fn whatever_stomp_says_returns_from_http() {
    for version in ["1.0", "1.1", "1.2"] {
        let world = World::new();
        let mut stomp = Stomp::connect_as(&world, version, "guest");
        stomp.subscribe("/topic/s.x");
        let clients = RefCell::new((stomp, Http::listen(&world, "h.x")));
        runner(128)
            .run(&(own_headers(version), vec(any::<u8>(), 0..20)), |(sent, body)| {
                let (stomp, http) = &mut *clients.borrow_mut();
                stomp.send_headers("/topic/h.x", &sent, &body);
                http.republish(&http.message(), "s.x");
                let back = stomp.message();
                prop_assert_eq!(back.own(), sent);
                prop_assert_eq!(back.body, body);
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn whatever_http_says_returns_from_xmpp() {
    let world = World::new();
    Amqp::connect(&world).declare("x");
    let mut xmpp = Xmpp::connect(&world, "guest", "r");
    xmpp.consume("x@queues.d");
    xmpp.messages();
    let clients = RefCell::new((xmpp, Http::listen(&world, "h.x")));
    runner(256)
        .run(&(json_properties(), odd_text()), |(sent, payload)| {
            let (xmpp, http) = &mut *clients.borrow_mut();
            http.publish_to_queue("x", &sent, &payload);
            let seen = xmpp.message();
            xmpp.republish(&seen, "h.x@topics.d");
            let back = http.message();
            prop_assert_eq!(back.body(), payload.as_bytes());
            let mut back = back["properties"].clone();
            // Who answers to a stanza that names nobody answers to its sender.
            back.as_object_mut().unwrap().remove("reply_to");
            prop_assert_eq!(&back, &sent);
            Ok(())
        })
        .unwrap();
}
