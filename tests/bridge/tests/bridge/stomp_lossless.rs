//! Whatever a message holds, it returns from STOMP, and from others to STOMP, as it was.

use std::cell::RefCell;

use proptest::{collection::vec, prelude::*};

use crate::{
    amqp::{Amqp, Props},
    lossless::{odd_text, properties, props, runner},
    mqtt::{Mqtt, Properties, Publish},
    stomp::{Frame, Stomp},
    world::World,
};

const VERSIONS: [&str; 3] = ["1.0", "1.1", "1.2"];

/// A content type that STOMP has no way to write is left out.
fn sayable_type(content_type: &Option<String>, version: &str) -> Option<String> {
    let forbidden: &[char] = match version {
        "1.0" => &['\0', '\r', '\n'],
        "1.1" => &['\0', '\r'],
        _ => &['\0'],
    };
    content_type.clone().filter(|text| !text.contains(forbidden))
}

/// What STOMP has no word for: `persistent` is true or is not there.
fn sayable(props: &Props, version: &str) -> Props {
    Props {
        delivery_mode: props.delivery_mode.filter(|mode| *mode == 2),
        content_type: sayable_type(&props.content_type, version),
        ..props.clone()
    }
}

#[test]
fn whatever_amqp_says_returns_from_stomp() {
    for version in VERSIONS {
        let world = World::new();
        let mut amqp = Amqp::connect(&world);
        amqp.listen("a", "a.x");
        let mut stomp = Stomp::connect_as(&world, version, "guest");
        stomp.subscribe("/topic/s.x");
        let clients = RefCell::new((amqp, stomp));
        let cases = (props(), vec(any::<u8>(), 0..20));
        runner(128)
            .run(&cases, |(sent, body)| {
                let (amqp, stomp) = &mut *clients.borrow_mut();
                amqp.publish_topic("s.x", &sent, &body);
                let seen = stomp.message();
                prop_assert_eq!(&seen.body, &body);
                stomp.republish(&seen, "/topic/a.x");
                let back = amqp.delivery();
                prop_assert_eq!(&back.body, &body);
                // As texts, because NaN is not equal to itself.
                prop_assert_eq!(
                    format!("{:?}", back.props),
                    format!("{:?}", sayable(&sent, version))
                );
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn whatever_mqtt_5_says_returns_from_stomp() {
    for version in VERSIONS {
        let world = World::new();
        let mut mqtt = Mqtt::v5(&world, "m");
        mqtt.subscribe_with("m/x", 2 | 8, None);
        let mut stomp = Stomp::connect_as(&world, version, "guest");
        stomp.subscribe("/topic/s.x");
        let clients = RefCell::new((mqtt, stomp));
        let cases = (properties(), 0..=2u8);
        runner(128)
            .run(&cases, |(properties, qos): (Properties, u8)| {
                let (mqtt, stomp) = &mut *clients.borrow_mut();
                let topic = "s/x".to_owned();
                let content_type = sayable_type(&properties.content_type, version);
                let expected = Properties { content_type, ..properties.clone() };
                let payload = b"hi".to_vec();
                mqtt.publish(Publish { topic, qos, properties, payload, retain: false });
                let seen = stomp.message();
                stomp.republish(&seen, "/topic/m.x");
                let back = mqtt.one();
                prop_assert_eq!(back.properties, expected);
                prop_assert_eq!(back.qos, qos);
                Ok(())
            })
            .unwrap();
    }
}

/// Headers of a STOMP client, repeats among them. The fields come first, in the order in which the
/// server writes them, because another protocol keeps no order of those.
pub(crate) fn own_headers(version: &str) -> impl Strategy<Value = Vec<(String, String)>> + use<> {
    let forbidden: &[char] = match version {
        "1.0" => &['\0', '\r', '\n'],
        "1.1" => &['\0', '\r'],
        _ => &['\0'],
    };
    let is_1_0 = version == "1.0";
    any_headers().prop_map(move |headers| {
        let sayable = |(name, value): (String, String)| {
            let name = if is_1_0 { name.replace(':', "") } else { name };
            (name.replace(forbidden, ""), value.replace(forbidden, ""))
        };
        headers.into_iter().map(sayable).collect()
    })
}

fn any_headers() -> impl Strategy<Value = Vec<(String, String)>> {
    let field = |name: &'static str, values: Vec<&'static str>| {
        proptest::option::of(prop::sample::select(values))
            .prop_map(move |value| value.map(|value| (name.to_owned(), value.to_owned())))
    };
    let fields = (
        field("content-type", vec!["a/b", "", "x\ny"]),
        field("content-encoding", vec!["gzip", "utf-8"]),
        field("persistent", vec!["true"]),
        field("priority", vec!["0", "255"]),
        field("timestamp", vec!["0", "1700000000"]),
        field("amqp-message-id", vec!["m", "b64:/wA=", ":\n"]),
        field("correlation-id", vec!["c", "b64:YWJj", "\r"]),
        field("reply-to", vec!["/reply-queue/q", "/topic/a.b", "/exchange/x/k", "x"]),
        field("type", vec!["k", ":"]),
        field("app-id", vec!["app"]),
    );
    let name =
        prop_oneof![6 => odd_text().prop_map(|text| format!("h{text}")), 2 => Just("h".to_owned())];
    (fields, vec((name, odd_text()), 0..6)).prop_map(|(fields, others)| {
        let (a, b, c, d, e, f, g, h, i, j) = fields;
        let fields = [a, b, c, d, e, f, g, h, i, j];
        fields.into_iter().flatten().chain(others).collect()
    })
}

#[test]
fn whatever_stomp_says_returns_from_amqp() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("a", "a.x");
    let mut stomp = Stomp::connect(&world);
    stomp.subscribe("/topic/s.x");
    let clients = RefCell::new((amqp, stomp));
    runner(256)
        .run(&own_headers("1.2"), |sent| {
            let (amqp, stomp) = &mut *clients.borrow_mut();
            stomp.send_headers("/topic/a.x", &sent, b"hi");
            let seen = amqp.delivery();
            amqp.publish_topic("s.x", &seen.props, &seen.body);
            prop_assert_eq!(stomp.message().own(), sent);
            Ok(())
        })
        .unwrap();
}

#[test]
fn whatever_stomp_says_returns_from_mqtt_5() {
    let world = World::new();
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe_with("m/x", 2 | 8, None);
    let mut stomp = Stomp::connect(&world);
    stomp.subscribe("/topic/s.x");
    let clients = RefCell::new((mqtt, stomp));
    runner(256)
        .run(&own_headers("1.2"), |sent| {
            let (mqtt, stomp) = &mut *clients.borrow_mut();
            stomp.send_headers("/topic/m.x", &sent, b"hi");
            let seen = mqtt.one();
            mqtt.republish(&seen, "s/x");
            prop_assert_eq!(stomp.message().own(), sent);
            Ok(())
        })
        .unwrap();
}

#[test]
fn whatever_stomp_says_is_shown_to_stomp() {
    let world = World::new();
    let mut stomp = Stomp::connect(&world);
    stomp.subscribe("/topic/s.x");
    let stomp = RefCell::new(stomp);
    let cases = (own_headers("1.2"), vec(any::<u8>(), 0..20));
    runner(256)
        .run(&cases, |(sent, body)| {
            let stomp = &mut *stomp.borrow_mut();
            stomp.send_headers("/topic/s.x", &sent, &body);
            let Frame { body: seen, .. } = {
                let message = stomp.message();
                prop_assert_eq!(message.own(), sent);
                message
            };
            prop_assert_eq!(seen, body);
            Ok(())
        })
        .unwrap();
}
