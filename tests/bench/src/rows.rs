//! The rows of the comparison: what each one does and which goals it has.

use crate::goals::Goal;
use crate::link::{Ack, Proto};
use crate::mqtt::Version;
use crate::peers::Peer;

/// Messages under way at most in rows that write large batches.
const CREDIT: u64 = 20_000;

/// AMQP on both sides.
pub const AMQP: Proto = Proto::Amqp;
/// MQTT 3.1.1 on both sides.
pub const MQTT: Proto = Proto::Mqtt(Version::V4);
/// MQTT 5 on both sides.
pub const MQTT5: Proto = Proto::Mqtt(Version::V5);

/// STOMP 1.2 on both sides.
pub const STOMP: Proto = Proto::Stomp;
/// HTTP/1.1 for publishers.
pub const HTTP: Proto = Proto::Http;

/// One line of the comparison.
#[derive(Clone, Debug)]
pub struct Row {
    /// What the command line calls it.
    pub name: &'static str,
    /// What it does, in a few words.
    pub title: &'static str,
    /// What is run.
    pub work: Work,
    /// What PolyMQ must reach.
    pub goal: Goal,
}

/// What a row runs.
#[derive(Clone, Debug)]
pub enum Work {
    /// Messages as fast as they go.
    Load(Shape),
    /// Fill a durable queue and drain it; reports two rows.
    Backlog,
    /// Delays at 10,000 messages per second.
    Latency(Proto),
    /// Memory per idle connection.
    IdleConnections(Proto),
    /// Memory of a broker that has just started.
    IdleBroker,
    /// Time from the start of the process to the first accepted connection.
    Start,
    /// The same with a deep durable queue on disk.
    StartWithBacklog,
}

/// A load: who publishes what to whom.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Protocol of the publishers.
    pub from: Proto,
    /// Protocol of the consumers.
    pub to: Proto,
    /// Bytes of application data per message.
    pub payload: usize,
    /// Queues or topics, each with its own publishers and consumers.
    pub queues: usize,
    /// Publishers per queue.
    pub publishers: usize,
    /// Consumers per queue; in AMQP they share it, in MQTT each gets every message.
    pub consumers: usize,
    /// One message per write instead of large batches.
    pub one_per_write: bool,
    /// Durable queue and persistent messages.
    pub persistent: bool,
    /// Most unconfirmed messages per publisher; in MQTT this means QoS 1.
    pub window: Option<u64>,
    /// How AMQP consumers acknowledge.
    pub ack: Ack,
    /// Most messages under way per queue.
    pub credit: u64,
}

impl Shape {
    /// One AMQP publisher and one consumer that does not acknowledge.
    pub fn amqp(payload: usize) -> Self {
        Self::new(AMQP, payload)
    }

    fn new(proto: Proto, payload: usize) -> Self {
        Self {
            from: proto,
            to: proto,
            payload,
            queues: 1,
            publishers: 1,
            consumers: 1,
            one_per_write: false,
            persistent: false,
            window: None,
            ack: Ack::None,
            credit: CREDIT,
        }
    }
}

/// Looks a row up by name.
pub fn find(name: &str) -> Option<Row> {
    all().into_iter().find(|row| row.name == name)
}

/// Every row in the order of the report.
pub fn all() -> Vec<Row> {
    let mut rows = amqp_rows();
    rows.extend(mqtt_rows());
    rows.extend(stomp_rows());
    rows.push(http_row());
    rows.extend(web_rows());
    rows.extend(bridge_rows());
    rows.extend(broker_rows());
    rows
}

fn load(name: &'static str, title: &'static str, goal: Goal, shape: Shape) -> Row {
    Row { name, title, work: Work::Load(shape), goal }
}

fn other(name: &'static str, title: &'static str, goal: Goal, work: Work) -> Row {
    Row { name, title, work, goal }
}

fn amqp_rows() -> Vec<Row> {
    let vs = |first, goal| Goal::ratio(&[Peer::RabbitMq], first, goal);
    let shape = |payload| Shape::new(AMQP, payload);
    let every = Ack::Every;
    vec![
        load("amqp-16", "AMQP 16 B, 1x1, no acks", Goal::None, shape(16)),
        load("amqp-128", "AMQP 128 B, 1x1, no acks", vs((8.0, 16.0), (15.0, 30.0)), shape(128)),
        load("amqp-1k", "AMQP 1 KiB, 1x1, no acks", Goal::None, shape(1024)),
        load(
            "amqp-ack50",
            "AMQP 128 B, consumer acks every 50",
            vs((8.0, 12.0), (14.0, 28.0)),
            Shape { ack: every(50), ..shape(128) },
        ),
        load(
            "amqp-single",
            "AMQP 128 B, one publish per write, ack each",
            vs((7.0, 14.0), (12.0, 25.0)),
            Shape { ack: every(1), one_per_write: true, ..shape(128) },
        ),
        load(
            "amqp-10x10x10",
            "AMQP 128 B, 10 producers, 10 consumers, 10 queues",
            vs((7.0, 14.0), (14.0, 28.0)),
            Shape { queues: 10, credit: CREDIT / 10, ..shape(128) },
        ),
        load(
            "amqp-confirm",
            "AMQP persistent, confirms, window 1000, consumer acks every 50",
            vs((3.0, 14.0), (8.0, 30.0)),
            Shape { persistent: true, window: Some(1000), ack: every(50), ..shape(128) },
        ),
        load(
            "amqp-waiting50",
            "AMQP persistent, 50 publishers each waiting, consumer acks every 50",
            Goal::rate(&[Peer::RabbitMq], 3.0, 4.0),
            Shape {
                publishers: 50,
                persistent: true,
                window: Some(1),
                one_per_write: true,
                ack: every(50),
                ..shape(128)
            },
        ),
        other("amqp-fill", "AMQP fill a queue, persistent, confirms", Goal::None, Work::Backlog),
        other("amqp-drain", "AMQP drain it, acks every 50", Goal::None, Work::Backlog),
        other(
            "amqp-latency",
            "AMQP 128 B latency p50 / p99 at 10k/s",
            Goal::Latency,
            Work::Latency(AMQP),
        ),
    ]
}

fn mqtt_rows() -> Vec<Row> {
    let vs = |first, goal| Goal::ratio(&[Peer::Mosquitto], first, goal);
    let shape = |payload| Shape::new(MQTT, payload);
    vec![
        load("mqtt-qos0", "MQTT QoS 0, 128 B, 1 to 1", vs((4.0, 5.0), (10.0, 12.0)), shape(128)),
        load("mqtt5-qos0", "MQTT 5 QoS 0, 128 B, 1 to 1", Goal::None, Shape::new(MQTT5, 128)),
        load(
            "mqtt-single",
            "MQTT QoS 0, 128 B, one publish per write",
            vs((2.5, 3.0), (5.0, 8.0)),
            Shape { one_per_write: true, ..shape(128) },
        ),
        load(
            "mqtt-qos1",
            "MQTT QoS 1, 128 B, window 100, clean sessions",
            vs((3.0, 4.0), (7.0, 8.0)),
            Shape { window: Some(100), credit: 1000, ..shape(128) },
        ),
        load(
            "mqtt-fanout",
            "MQTT QoS 0, 128 B, fan-out 1 to 50, deliveries",
            vs((12.0, 12.0), (25.0, 22.0)),
            Shape { consumers: 50, credit: 2000, ..shape(128) },
        ),
        load(
            "mqtt-fanin",
            "MQTT QoS 0, 128 B, fan-in 50 to 1",
            Goal::None,
            Shape { publishers: 50, ..shape(128) },
        ),
        other(
            "mqtt-latency",
            "MQTT 128 B latency p50 / p99 at 10k/s",
            Goal::Latency,
            Work::Latency(MQTT),
        ),
    ]
}

fn stomp_rows() -> Vec<Row> {
    let goal = || Goal::ratio(&[Peer::RabbitMq, Peer::ActiveMq], (12.0, 20.0), (25.0, 40.0));
    let shape = Shape::new(STOMP, 128);
    vec![
        load("stomp-auto", "STOMP 128 B, 1x1, ack auto", goal(), shape.clone()),
        load(
            "stomp-client",
            "STOMP 128 B, 1x1, ack client, acks every 50",
            goal(),
            Shape { ack: Ack::Every(50), ..shape },
        ),
        other(
            "stomp-latency",
            "STOMP 128 B latency p50 / p99 at 10k/s",
            Goal::Latency,
            Work::Latency(STOMP),
        ),
        other(
            "idle-stomp",
            "memory per idle STOMP connection",
            Goal::None,
            Work::IdleConnections(STOMP),
        ),
    ]
}

/// What other brokers leave to proxies: messages of clients that have nothing but HTTP.
fn http_row() -> Row {
    load(
        "http-publish",
        "HTTP persistent, 64 clients each waiting, to AMQP with acks every 50",
        Goal::AtLeast { first: 20_000.0, goal: 40_000.0 },
        Shape {
            from: HTTP,
            publishers: 64,
            persistent: true,
            window: Some(1),
            one_per_write: true,
            ack: Ack::Every(50),
            ..Shape::new(AMQP, 128)
        },
    )
}

/// Beside `mqtt-qos0` the first shows what the frames cost.
fn web_rows() -> Vec<Row> {
    let row = |name, title, proto| load(name, title, Goal::None, Shape::new(proto, 128));
    vec![
        row("web-mqtt-qos0", "MQTT QoS 0 over WebSocket, 128 B, 1 to 1", Proto::WebMqtt),
        row("xmpp-chat", "XMPP messages, 128 B, one resource to one", Proto::Xmpp),
    ]
}

fn bridge_rows() -> Vec<Row> {
    let goal = Goal::ShareOfOwn { rows: ["amqp-128", "mqtt-qos0"], first: 0.8, goal: 0.95 };
    let shape = Shape::new(AMQP, 128);
    vec![
        load(
            "mqtt-amqp",
            "MQTT QoS 0 to AMQP, 128 B, no acks",
            goal.clone(),
            Shape { from: MQTT, ..shape.clone() },
        ),
        load("amqp-mqtt", "AMQP to MQTT QoS 0, 128 B", goal, Shape { to: MQTT, ..shape }),
    ]
}

fn broker_rows() -> Vec<Row> {
    let idle = Work::IdleConnections;
    vec![
        other(
            "idle-mqtt",
            "memory per idle MQTT connection",
            Goal::AtMost { first: 6.0 * 1024.0, goal: 3.0 * 1024.0 },
            idle(MQTT),
        ),
        other(
            "idle-amqp",
            "memory per idle AMQP connection with a channel",
            Goal::AtMost { first: 16.0 * 1024.0, goal: 8.0 * 1024.0 },
            idle(AMQP),
        ),
        other(
            "idle-broker",
            "memory, idle broker",
            Goal::AtMost { first: 20e6, goal: 12e6 },
            Work::IdleBroker,
        ),
        other(
            "start",
            "start to ready, empty",
            Goal::AtMost { first: 100.0, goal: 30.0 },
            Work::Start,
        ),
        other(
            "start-backlog",
            "start to ready with a deep backlog",
            Goal::AtMost { first: 2000.0, goal: 1000.0 },
            Work::StartWithBacklog,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own() {
        let names: HashSet<_> = all().iter().map(|row| row.name).collect();
        assert_eq!(names.len(), all().len());
        assert!(find("amqp-128").is_some() && find("nothing").is_none());
    }
}
