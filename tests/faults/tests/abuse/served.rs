//! Whether honest clients are served.

use std::time::{Duration, Instant};

use polymq_faults::{
    amqp::{self, Amqp, Incoming},
    broker::Broker,
    mqtt::{self, Login, Mqtt},
};

/// An AMQP and an MQTT client that stay connected.
pub(crate) struct Honest {
    amqp: Amqp,
    mqtt: Mqtt,
    count: u16,
    /// The slowest round trip so far.
    pub(crate) slowest: Duration,
}

impl Honest {
    pub(crate) fn new(broker: &Broker) -> Self {
        let mut amqp = Amqp::open(broker.ports.amqp).unwrap();
        amqp.declare("honest").unwrap();
        amqp.confirm_select().unwrap();
        amqp.consume("honest", 0).unwrap();
        let login = Login { level: 4, client_id: "honest", clean: true };
        let mut mqtt = Mqtt::open(broker.ports.mqtt, login).unwrap();
        mqtt.subscribe("honest", 1).unwrap();
        Self { amqp, mqtt, count: 0, slowest: Duration::ZERO }
    }

    /// Sends a message over each protocol and waits for its confirm and its delivery.
    pub(crate) fn is_served(&mut self) {
        self.count = self.count % 1000 + 1;
        let body = self.count.to_be_bytes();
        let began = Instant::now();
        self.amqp.send(&amqp::publish("", "honest", &body)).unwrap();
        let (mut confirmed, mut delivered) = (false, None);
        while !confirmed || delivered.is_none() {
            match self.amqp.next_event().unwrap().unwrap() {
                Incoming::Method(id, _) => confirmed = id == (60, 80),
                Incoming::Delivery(found) => delivered = Some(found),
            }
        }
        let delivered = delivered.unwrap();
        assert_eq!(delivered.body, body);
        self.amqp.ack(delivered.tag, false).unwrap();
        self.mqtt.send(&mqtt::publish("honest", self.count, &body)).unwrap();
        let (mut confirmed, mut delivered) = (false, None);
        while !confirmed || delivered.is_none() {
            let packet = self.mqtt.next_packet().unwrap().unwrap();
            confirmed |= packet.puback() == Some(self.count);
            delivered = packet.publish().or(delivered);
        }
        let delivered = delivered.unwrap();
        assert_eq!(delivered.payload, body);
        self.mqtt.puback(delivered.packet_id).unwrap();
        self.slowest = self.slowest.max(began.elapsed());
    }
}
