//! CloudEvents in binary mode: section 4.8.

use crate::{
    amqp::{Amqp, Field, Props},
    mqtt::{Mqtt, Properties, Publish, publish},
    round_trip::{OverAmqp, OverMqtt},
    world::World,
};

#[test]
fn cloudevent() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "#");
    let attributes = [("specversion", "1.0"), ("id", "1"), ("type", "t"), ("source", "/s")];
    let properties = Properties {
        content_type: Some("application/json".to_owned()),
        ..Properties::of_user(&attributes)
    };
    let event = Publish { properties, ..publish("t", b"{}") };
    Mqtt::v5(&world, "m").publish(event);
    let seen = amqp.delivery();
    for (name, value) in attributes {
        assert_eq!(seen.text_header(&format!("cloudEvents_{name}")), Some(value));
        assert_eq!(seen.header(name), None);
    }
    assert_eq!(seen.props.message_id.as_deref(), Some("1"));
    assert_eq!(seen.props.kind.as_deref(), Some("t"));
    assert_eq!(seen.props.content_type.as_deref(), Some("application/json"));

    amqp.declare("h");
    amqp.publish("", "h", &seen.props, &seen.body);
    let (shown, lost) = polymq_http::strangers::headers(&world.queued("h"), world.now_ms());
    let header = |name: &str| shown.iter().find(|(known, _)| known == name).map(|(_, v)| &**v);
    for (name, value) in attributes {
        assert_eq!(header(&format!("ce-{name}")), Some(value.as_bytes()), "{shown:?}");
    }
    assert_eq!(header("content-type"), Some(&b"application/json"[..]));
    assert_eq!((header("mq-headers"), lost), (None, 0), "{shown:?}");
}

#[test]
fn an_event_returns_from_amqp() {
    let mut over = OverAmqp::new();
    let attributes = [("specversion", "1.0"), ("id", "1"), ("type", "t"), ("source", "/s")];
    let time = [("time", "2024-02-29T12:00:00.123456+01:00")];
    let others = [("x-other", "kept"), ("traceparent", "00-1-2-01"), ("id", "again")];
    for user in [
        attributes.to_vec(),
        [&attributes[..], &time[..], &others[..]].concat(),
        vec![("specversion", "1.0")],
        vec![("id", "no event")],
        vec![("specversion", "1.0"), ("id", "1"), ("x-mq-id", "2"), ("x-mq-type", "t")],
    ] {
        let sent = Properties::of_user(&user);
        let (seen, back) = over.send_properties(&sent);
        if user.contains(&others[0]) {
            assert_eq!(seen.text_header("x-other"), Some("kept"));
            assert_eq!(seen.text_header("traceparent"), Some("00-1-2-01"));
            assert_eq!(seen.props.timestamp, Some(1_709_204_400));
        }
        if user.contains(&("x-mq-type", "t")) {
            assert_eq!(back.user("type"), Some("t"), "the writer gives all attributes it knows");
        } else {
            assert_eq!(back.properties, sent);
        }
    }
}

#[test]
fn an_event_of_amqp_has_bare_names_in_mqtt_5() {
    for prefix in ["cloudEvents_", "cloudEvents:"] {
        let attributes = [("specversion", "1.0"), ("source", "/s"), ("type", "t")];
        let names = attributes.map(|(name, value)| (format!("{prefix}{name}"), value));
        let mut headers: Vec<_> =
            names.iter().map(|(name, value)| (name.as_str(), Field::text(value))).collect();
        headers.push(("x-other", Field::I32(7)));
        let sent = Props { message_id: Some("1".to_owned()), ..Props::with_headers(&headers) };
        let (seen, back) = OverMqtt::new().send(&sent, b"{}");
        let mut expected = attributes.to_vec();
        expected.extend([("x-other", "7"), ("id", "1"), ("x-mq-types", "x-other=i32")]);
        assert_eq!(seen.properties, Properties::of_user(&expected));
        assert_eq!(back.props.message_id.as_deref(), Some("1"));
        assert_eq!(back.props.kind.as_deref(), Some("t"));
        assert_eq!(back.text_header("cloudEvents_source"), Some("/s"));
        assert_eq!(back.header("x-other"), Some(&Field::I32(7)));
    }
}
