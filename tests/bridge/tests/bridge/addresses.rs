//! Reply addresses: section 4.7.

use crate::{
    amqp::{Amqp, Props},
    mqtt::{Mqtt, Properties, publish},
    round_trip::{OverAmqp, OverMqtt},
    world::World,
};

#[test]
fn reply_queue_to_mqtt() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    let queue = amqp.declare_unnamed();
    amqp.consume(&queue);
    let mut mqtt = Mqtt::v5(&world, "responder");
    mqtt.subscribe("ask", 1);
    let ask = Props {
        reply_to: Some(queue.clone()),
        correlation_id: Some("1".to_owned()),
        ..Props::persistent()
    };
    amqp.publish_topic("ask", &ask, b"?");
    let seen = mqtt.one();
    let topic = seen.properties.response_topic.expect("a response topic");
    assert_eq!(topic, format!("$queue/{queue}"));

    let correlation = seen.properties.correlation;
    let answer = publish(&topic, b"!").with(&Properties { correlation, ..Properties::default() });
    assert_eq!(mqtt.publish(answer), 0);
    let answer = amqp.delivery();
    assert_eq!(answer.body, b"!");
    assert_eq!(answer.props.correlation_id.as_deref(), Some("1"));
}

#[test]
fn reply_topic_to_amqp() {
    let world = World::new();
    let mut responder = Amqp::connect(&world);
    responder.listen("requests", "ask");
    let mut mqtt = Mqtt::v5(&world, "asker");
    mqtt.subscribe("r/1", 1);
    let asking = Properties {
        response_topic: Some("r/1".to_owned()),
        correlation: Some(vec![0, 0xFF]),
        ..Properties::default()
    };
    mqtt.publish(publish("ask", b"?").with(&asking));
    let seen = responder.delivery();
    let reply_to = seen.props.reply_to.expect("a reply address");
    assert_eq!(reply_to, "amq.address:/exchanges/amq.topic/r.1");

    let answer = Props { correlation_id: seen.props.correlation_id, ..Props::persistent() };
    responder.publish("", &reply_to, &answer, b"!");
    let answer = mqtt.one();
    assert_eq!((answer.topic.as_str(), answer.payload.as_slice()), ("r/1", b"!".as_slice()));
    assert_eq!(answer.properties.correlation, asking.correlation);
}

#[test]
fn direct_reply_to_mqtt() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.consume_without_ack("amq.rabbitmq.reply-to");
    let mut mqtt = Mqtt::v5(&world, "responder");
    mqtt.subscribe("ask", 1);
    let reply_to = Some("amq.rabbitmq.reply-to".to_owned());
    amqp.publish_topic("ask", &Props { reply_to, ..Props::persistent() }, b"?");
    let topic = mqtt.one().properties.response_topic.expect("a response topic");
    assert!(topic.starts_with("$queue/amq.rabbitmq.reply-to."), "{topic}");
    mqtt.publish(publish(&topic, b"!"));
    assert_eq!(amqp.unsettled()[0].body, b"!");
}

/// Every row of the table that both protocols can say.
#[test]
fn every_address_returns() {
    for (amqp, mqtt) in [
        ("q", "$queue/q"),
        ("a/b %+", "$queue/a%2Fb %25%2B"),
        ("amq.address:/exchanges/amq.topic/r.1", "r/1"),
        ("amq.address:/exchanges/x/k", "$exchange/x/k"),
        ("amq.address:/jids/u1%40d%2Fphone", "$queue/amq.address:%2Fjids%2Fu1%2540d%252Fphone"),
    ] {
        let sent = Props { reply_to: Some(amqp.to_owned()), ..Props::persistent() };
        let (seen, back) = OverMqtt::new().send(&sent, b"hi");
        assert_eq!(seen.properties.response_topic.as_deref(), Some(mqtt));
        assert_eq!(back.props, sent);

        let response_topic = Some(mqtt.to_owned());
        let sent = Properties { response_topic, ..Properties::default() };
        let (seen, back) = OverAmqp::new().send_properties(&sent);
        assert_eq!(seen.props.reply_to.as_deref(), Some(amqp));
        assert_eq!(back.properties, sent);
    }
}

#[test]
fn a_reply_address_too_long_for_amqp_returns() {
    let response_topic = Some(format!("r/{}", "x".repeat(400)));
    let sent = Properties { response_topic, ..Properties::default() };
    let (seen, back) = OverAmqp::new().send_properties(&sent);
    assert_eq!(seen.props.reply_to, None);
    let carried = format!("/exchanges/amq.topic/r.{}", "x".repeat(400));
    assert_eq!(seen.text_header("x-mq-reply-to"), Some(carried.as_str()));
    assert_eq!(back.properties, sent);
}
