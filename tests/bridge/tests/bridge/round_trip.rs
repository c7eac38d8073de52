//! From a protocol to another and back, by a client of the other that republishes what it got.

use crate::{
    amqp::{Amqp, Delivery, Props},
    mqtt::{Mqtt, Properties, Publish, Received},
    world::World,
};

/// Quality of service 2, and the retain flag as published.
const AS_PUBLISHED: u8 = 2 | 8;

/// AMQP, MQTT 5, AMQP.
pub(crate) struct OverMqtt {
    amqp: Amqp,
    mqtt: Mqtt,
    /// Subscribers without a queue get their packets by another way than those with one.
    direct: Mqtt,
    old: Mqtt,
}

impl OverMqtt {
    pub(crate) fn new() -> Self {
        let world = World::new();
        let mut amqp = Amqp::connect(&world);
        amqp.listen("back", "back.#");
        let mut mqtt = Mqtt::v5(&world, "bridge");
        assert_eq!(mqtt.subscribe_with("there/#", AS_PUBLISHED, None), 2);
        let mut direct = Mqtt::v5(&world, "direct");
        direct.subscribe("there/+", 0);
        let mut old = Mqtt::v311(&world, "old");
        old.subscribe("there/x", 0);
        Self { amqp, mqtt, direct, old }
    }

    /// What the MQTT client saw, and what came back.
    pub(crate) fn send(&mut self, props: &Props, body: &[u8]) -> (Received, Delivery) {
        self.amqp.publish_topic("there.x", props, body);
        let seen = self.mqtt.one();
        assert_eq!(seen.topic, "there/x");
        assert_eq!(seen.payload, body);
        let direct = self.direct.one();
        assert_eq!((direct.topic.as_str(), direct.qos), ("there/x", 0));
        assert_eq!((&direct.properties, &direct.payload), (&seen.properties, &seen.payload));
        let old = self.old.one();
        assert_eq!((old.topic.as_str(), old.payload.as_slice()), ("there/x", body));
        self.mqtt.republish(&seen, "back/x");
        let back = self.amqp.delivery();
        assert_eq!(back.key, "back.x");
        assert_eq!(back.body, body);
        (seen, back)
    }
}

/// MQTT 5, AMQP, MQTT 5.
pub(crate) struct OverAmqp {
    pub(crate) world: World,
    mqtt: Mqtt,
    amqp: Amqp,
}

impl OverAmqp {
    pub(crate) fn new() -> Self {
        let world = World::new();
        let mut amqp = Amqp::connect(&world);
        amqp.listen("there", "there.#");
        let mut mqtt = Mqtt::v5(&world, "sender");
        assert_eq!(mqtt.subscribe_with("back/#", AS_PUBLISHED, None), 2);
        Self { world, mqtt, amqp }
    }

    /// What the AMQP client saw, and what came back.
    pub(crate) fn send(&mut self, publish: Publish) -> (Delivery, Received) {
        let publish = Publish { topic: "there/x".to_owned(), ..publish };
        let sent = publish.clone();
        let reason = self.mqtt.publish(publish);
        assert!(reason < 0x80, "the publish is accepted: {reason:#x}");
        let seen = self.amqp.delivery();
        assert_eq!(seen.key, "there.x");
        assert_eq!(seen.body, sent.payload);
        self.amqp.publish_topic("back.x", &seen.props, &seen.body);
        let back = self.mqtt.one();
        assert_eq!(back.topic, "back/x");
        assert_eq!((back.qos, back.retain), (sent.qos, sent.retain));
        assert_eq!(back.payload, sent.payload);
        (seen, back)
    }

    /// A publish of quality of service 1 with these properties.
    pub(crate) fn send_properties(&mut self, properties: &Properties) -> (Delivery, Received) {
        let properties = properties.clone();
        self.send(Publish { qos: 1, properties, payload: b"hi".to_vec(), ..Publish::default() })
    }
}
