//! Runs the work of a row against one broker.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::engine::{Engine, Measured, Snapshot, Until};
use crate::latency::{self, Stream};
use crate::link::{Ack, Consumer, Flow, Link, Proto, Publisher, Role};
use crate::process::Tree;
use crate::rows::{AMQP, STOMP, Shape};
use crate::{amqp, http, mqtt, stomp, web_socket, xmpp};

/// Bytes of encoded messages in one large write.
const BLOCK_BYTES: usize = 64 * 1024;
/// Most messages in one large write.
const BATCH_MAX: usize = 512;
/// Packet identifiers in use before they start again.
const PACKET_IDS: u16 = 2000;
/// The domain of users in XMPP.
const XMPP_DOMAIN: &str = "localhost";
/// Messages per second in the latency rows.
const LATENCY_RATE: u64 = 10_000;

/// The broker under load.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// Listener of AMQP 0-9-1.
    pub amqp: Option<SocketAddr>,
    /// Listener of MQTT.
    pub mqtt: Option<SocketAddr>,
    /// Listener of STOMP.
    pub stomp: Option<SocketAddr>,
    /// How destinations of STOMP begin that are queues which are there.
    pub stomp_queues: &'static str,
    /// Listener of HTTP.
    pub http: Option<SocketAddr>,
    /// Listener of XMPP.
    pub xmpp: Option<SocketAddr>,
    /// User for AMQP, STOMP and HTTP.
    pub login: amqp::Login,
    /// User for MQTT; without one, clients stay anonymous.
    pub mqtt_login: Option<amqp::Login>,
}

impl Target {
    /// User and password for MQTT.
    pub fn mqtt_login(&self) -> Option<(&str, &str)> {
        self.mqtt_login.as_ref().map(|login| (login.user.as_str(), login.password.as_str()))
    }

    fn amqp(&self) -> Result<amqp::Connection> {
        let addr = self.amqp.context("the broker has no AMQP listener")?;
        amqp::Connection::open(addr, &self.login)
    }

    fn stomp(&self) -> Result<stomp::Connection> {
        let addr = self.stomp.context("the broker has no STOMP listener")?;
        stomp::Connection::open(addr, &self.login)
    }

    fn http(&self) -> Result<(TcpStream, Vec<u8>)> {
        http::open(self.http.context("the broker has no HTTP listener")?)
    }

    fn web_mqtt(&self, client_id: &str) -> Result<mqtt::Connection> {
        let addr = self.http.context("the broker has no HTTP listener")?;
        let wire = web_socket::open(addr, "/ws/mqtt", "mqtt")?;
        mqtt::Connection::over(wire, mqtt::Version::V4, client_id, self.mqtt_login())
    }

    fn xmpp(&self, resource: &str) -> Result<xmpp::Connection> {
        let addr = self.xmpp.context("the broker has no XMPP listener")?;
        xmpp::Connection::open(addr, XMPP_DOMAIN, &self.login, resource)
    }

    fn mqtt(&self, version: mqtt::Version, client_id: &str) -> Result<mqtt::Connection> {
        let addr = self.mqtt.context("the broker has no MQTT listener")?;
        mqtt::Connection::open(addr, version, client_id, self.mqtt_login())
    }
}

/// How long and how much.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Counted time of a row.
    pub measure: Duration,
    /// Messages in the rows with a backlog.
    pub backlog: u64,
    /// Connections in the rows about their memory.
    pub connections: usize,
    /// Overrides the messages under way per flow.
    pub credit: Option<u64>,
    /// Publish this many messages in all, instead of for a time.
    pub messages: Option<u64>,
}

impl Effort {
    fn warm_up(&self) -> Duration {
        (self.measure / 4).min(Duration::from_secs(1))
    }
}

/// What one run of a row measured; what does not apply is absent.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Outcome {
    /// Messages per second; deliveries where consumers outnumber publishers.
    pub rate: Option<f64>,
    /// Broker CPU microseconds per message.
    pub cpu_us: Option<f64>,
    /// CPU microseconds of the generator per message.
    pub generator_us: Option<f64>,
    /// Median delay in microseconds.
    pub p50_us: Option<f64>,
    /// 99th percentile of the delay in microseconds.
    pub p99_us: Option<f64>,
    /// Bytes or milliseconds of rows that measure one number.
    pub value: Option<f64>,
    /// Resident memory of the broker at the end.
    pub resident: Option<u64>,
    /// Messages that never arrived.
    pub lost: u64,
}

impl Outcome {
    fn of(measured: &Measured, broker: &Tree) -> Self {
        let per_message = |cpu: Duration| {
            (measured.messages > 0).then(|| cpu.as_secs_f64() * 1e6 / measured.messages as f64)
        };
        Self {
            rate: Some(measured.messages as f64 / measured.elapsed.as_secs_f64()),
            cpu_us: per_message(measured.broker_cpu).filter(|_| broker.is_known()),
            generator_us: per_message(measured.own_cpu),
            resident: broker.is_known().then(|| broker.resident()),
            lost: measured.lost,
            ..Self::default()
        }
    }
}

/// Queues and topics carry a number of their own, so that runs do not meet.
fn next_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("bench-{}-{number}", std::process::id())
}

/// One queue or topic with its two addresses on the wire.
struct Channel {
    name: String,
    /// How its destination begins in STOMP.
    stomp_queues: &'static str,
    /// Whether messages pass through `amq.topic` instead of the default exchange.
    by_topic: bool,
}

impl Channel {
    fn new(target: &Target, name: String, by_topic: bool) -> Self {
        Self { name, stomp_queues: target.stomp_queues, by_topic }
    }

    fn routing_key(&self) -> String {
        if self.by_topic { format!("{}.t", self.name) } else { self.name.clone() }
    }

    fn topic(&self) -> String {
        format!("{}/t", self.name)
    }

    fn exchange(&self) -> &'static str {
        if self.by_topic { "amq.topic" } else { "" }
    }

    /// Encodes a message, and says where its payload starts.
    fn encode(&self, target: &Target, shape: &Shape, id: Option<u16>) -> (Vec<u8>, usize) {
        let payload = vec![b'x'; shape.payload];
        match shape.from {
            Proto::Amqp => {
                let key = self.routing_key();
                let wire = amqp::publish(self.exchange(), &key, shape.persistent, &payload);
                let at = wire.len() - 1 - payload.len();
                (wire, at)
            }
            Proto::Mqtt(version) => {
                let wire = mqtt::publish(version, &self.topic(), id, &payload);
                let at = wire.len() - payload.len();
                (wire, at)
            }
            Proto::WebMqtt => {
                let packet = mqtt::publish(mqtt::Version::V4, &self.topic(), None, &payload);
                let wire = web_socket::frame(&packet);
                let at = wire.len() - payload.len();
                (wire, at)
            }
            Proto::Xmpp => {
                let (user, resource) = (&target.login.user, &self.name);
                let wire = xmpp::message(&format!("{user}@{XMPP_DOMAIN}/{resource}"), &payload);
                let at = wire.len() - payload.len() - "</body></message>".len();
                (wire, at)
            }
            Proto::Stomp => {
                let wire = stomp::send(&format!("{}{}", self.stomp_queues, self.name), &payload);
                let at = wire.len() - 1 - payload.len();
                (wire, at)
            }
            Proto::Http => {
                let (key, login) = (self.routing_key(), &target.login);
                let to = (self.exchange(), key.as_str());
                let wire = http::publish(login, to, shape.persistent, &payload);
                let at = wire.len() - payload.len();
                (wire, at)
            }
        }
    }
}

/// Runs a load and measures it.
pub fn load(target: &Target, shape: &Shape, effort: &Effort, broker: &Tree) -> Result<Outcome> {
    let shape = &Shape { credit: effort.credit.unwrap_or(shape.credit), ..shape.clone() };
    let (mut links, mut flows, mut channels) = (Vec::new(), Vec::new(), Vec::new());
    let total = effort.messages.map(|messages| messages / shape.queues as u64);
    for flow in 0..shape.queues {
        let channel = Channel::new(target, next_name(), shape.from != shape.to);
        declare(target, shape, &channel)?;
        for _ in 0..shape.consumers {
            links.push(consumer(target, shape, &channel, flow)?);
        }
        for _ in 0..shape.publishers {
            links.push(publisher(target, shape, &channel, flow)?);
        }
        let copies = if shape.to == AMQP || shape.to == STOMP { 1 } else { shape.consumers as u64 };
        flows.push(Flow { sent: 0, received: 0, credit: shape.credit, copies, total });
        channels.push(channel);
    }
    let mut engine = Engine::new(links, flows)?;
    let until = match total {
        Some(_) => Until::Done,
        None => Until::Elapsed { warm_up: effort.warm_up(), measure: effort.measure },
    };
    let measured = engine.run(until, broker, Snapshot::start(broker))?;
    let outcome = Outcome::of(&measured, broker);
    drop(engine);
    if shape.persistent {
        for channel in channels {
            target.amqp()?.delete_queue(&channel.name)?;
        }
    }
    Ok(outcome)
}

/// Declares the queue where AMQP is on either side; MQTT needs nothing declared.
fn declare(target: &Target, shape: &Shape, channel: &Channel) -> Result<()> {
    if shape.to == AMQP {
        let mut connection = target.amqp()?;
        connection.declare_queue(&channel.name, shape.persistent)?;
        if channel.by_topic {
            connection.bind_queue(&channel.name, "amq.topic", &channel.routing_key())?;
        }
        connection.close()?;
    }
    Ok(())
}

fn consumer(target: &Target, shape: &Shape, channel: &Channel, flow: usize) -> Result<Link> {
    let parts = match shape.to {
        Proto::Amqp => {
            let mut connection = target.amqp()?;
            connection.consume(&channel.name, shape.ack == Ack::None)?;
            connection.into_parts()
        }
        Proto::Mqtt(version) => {
            let mut connection = target.mqtt(version, &next_name())?;
            let qos = u8::from(shape.window.is_some());
            connection.subscribe(&channel.topic(), qos)?;
            connection.into_parts()
        }
        Proto::Stomp => {
            let mut connection = target.stomp()?;
            connection.subscribe(&channel.name, shape.ack != Ack::None)?;
            connection.into_parts()
        }
        Proto::WebMqtt => {
            let mut connection = target.web_mqtt(&next_name())?;
            connection.subscribe(&channel.topic(), 0)?;
            connection.into_parts()
        }
        Proto::Xmpp => target.xmpp(&channel.name)?.into_parts(),
        Proto::Http => bail!("HTTP publishes only"),
    };
    Link::new(shape.to, flow, Role::Consumer(Consumer::new(shape.ack)), parts)
}

fn publisher(target: &Target, shape: &Shape, channel: &Channel, flow: usize) -> Result<Link> {
    let parts = match shape.from {
        Proto::Amqp => {
            let mut connection = target.amqp()?;
            if shape.window.is_some() {
                connection.select_confirms()?;
            }
            connection.into_parts()
        }
        Proto::Mqtt(version) => target.mqtt(version, &next_name())?.into_parts(),
        Proto::Stomp => target.stomp()?.into_parts(),
        Proto::WebMqtt => target.web_mqtt(&next_name())?.into_parts(),
        Proto::Xmpp => target.xmpp(&next_name())?.into_parts(),
        Proto::Http => target.http()?,
    };
    Link::new(shape.from, flow, Role::Publisher(encoded(target, shape, channel)), parts)
}

/// A publisher with its block of encoded messages.
fn encoded(target: &Target, shape: &Shape, channel: &Channel) -> Publisher {
    let numbered = matches!(shape.from, Proto::Mqtt(_)) && shape.window.is_some();
    let message_len = channel.encode(target, shape, numbered.then_some(1)).0.len();
    // Several batches per publisher fit into the credit, so that nobody waits for a whole one.
    let share = shape.credit as usize / (4 * shape.publishers);
    let batch = (BLOCK_BYTES / message_len).min(BATCH_MAX).min(share).max(1);
    let mut block = Vec::new();
    if numbered {
        for id in 1..=PACKET_IDS {
            block.extend(channel.encode(target, shape, Some(id)).0);
        }
    } else {
        block = channel.encode(target, shape, None).0.repeat(batch);
    }
    let batch = if shape.one_per_write { 1 } else { batch as u64 };
    let publisher = Publisher::new(block, message_len, batch);
    match shape.window {
        Some(window) => publisher.with_confirms(window),
        None => publisher,
    }
}

/// The shape of filling a durable queue.
fn backlog_shape() -> Shape {
    Shape { persistent: true, window: Some(1000), ack: Ack::Every(50), ..Shape::amqp(128) }
}

/// Fills a durable queue and returns its name with what it took.
pub fn fill(target: &Target, effort: &Effort, broker: &Tree) -> Result<(String, Outcome)> {
    let shape = backlog_shape();
    let channel = Channel::new(target, next_name(), false);
    declare(target, &shape, &channel)?;
    let total = Some(effort.backlog);
    let flow = Flow { sent: 0, received: 0, credit: u64::MAX, copies: 0, total };
    let start = Snapshot::start(broker);
    let links = vec![publisher(target, &shape, &channel, 0)?];
    let measured = Engine::new(links, vec![flow])?.run(Until::Done, broker, start)?;
    Ok((channel.name, Outcome::of(&measured, broker)))
}

/// Drains a queue filled before and deletes it.
pub fn drain(target: &Target, queue: &str, effort: &Effort, broker: &Tree) -> Result<Outcome> {
    let shape = backlog_shape();
    let channel = Channel::new(target, queue.to_owned(), false);
    let sent = effort.backlog;
    let flow = Flow { sent, received: 0, credit: 0, copies: 1, total: Some(sent) };
    let start = Snapshot::start(broker);
    let links = vec![consumer(target, &shape, &channel, 0)?];
    let measured = Engine::new(links, vec![flow])?.run(Until::Done, broker, start)?;
    let outcome = Outcome::of(&measured, broker);
    target.amqp()?.delete_queue(queue)?;
    Ok(outcome)
}

/// Measures delays at a steady rate.
pub fn latency(target: &Target, proto: Proto, effort: &Effort, broker: &Tree) -> Result<Outcome> {
    let shape = Shape { from: proto, to: proto, ..Shape::amqp(128) };
    let channel = Channel::new(target, next_name(), false);
    let (receiver, sender) = match proto {
        Proto::Amqp => {
            declare(target, &shape, &channel)?;
            let mut consumer = target.amqp()?;
            consumer.consume(&channel.name, true)?;
            (consumer.into_parts(), target.amqp()?.into_parts())
        }
        Proto::Mqtt(version) => {
            let mut consumer = target.mqtt(version, &next_name())?;
            consumer.subscribe(&channel.topic(), 0)?;
            (consumer.into_parts(), target.mqtt(version, &next_name())?.into_parts())
        }
        Proto::Stomp => {
            let mut consumer = target.stomp()?;
            consumer.subscribe(&channel.name, false)?;
            (consumer.into_parts(), target.stomp()?.into_parts())
        }
        Proto::Http | Proto::WebMqtt | Proto::Xmpp => bail!("there is no such row"),
    };
    let (message, stamp_at) = channel.encode(target, &shape, None);
    let before = broker.cpu();
    let delays = latency::run(Stream {
        sender: (proto, sender.0),
        receiver: (proto, receiver.0, receiver.1),
        message,
        stamp_at,
        rate: LATENCY_RATE,
        warm_up: effort.warm_up(),
        measure: effort.measure,
    })?;
    let spent = broker.cpu().saturating_sub(before).as_secs_f64() * 1e6;
    let sent = (effort.warm_up() + effort.measure).as_secs_f64() * LATENCY_RATE as f64;
    Ok(Outcome {
        p50_us: delays.quantile_us(0.5),
        p99_us: delays.quantile_us(0.99),
        cpu_us: broker.is_known().then_some(spent / sent),
        resident: broker.is_known().then(|| broker.resident()),
        lost: delays.lost,
        ..Outcome::default()
    })
}

/// Measures the memory that idle connections take.
pub fn idle_connections(
    target: &Target,
    proto: Proto,
    effort: &Effort,
    broker: &Tree,
) -> Result<Outcome> {
    // The first connections make the broker allocate things that later ones share.
    let early = open_many(target, proto, effort.connections.div_ceil(20))?;
    let before = settled(broker);
    let open = open_many(target, proto, effort.connections)?;
    let after = settled(broker);
    drop((early, open));
    let each = after.saturating_sub(before) as f64 / effort.connections.max(1) as f64;
    Ok(Outcome { value: Some(each), resident: Some(after), ..Outcome::default() })
}

fn open_many(target: &Target, proto: Proto, count: usize) -> Result<Vec<TcpStream>> {
    let open = |_| match proto {
        Proto::Amqp => Ok(target.amqp()?.into_parts().0),
        Proto::Mqtt(version) => Ok(target.mqtt(version, &next_name())?.into_parts().0),
        Proto::Stomp => Ok(target.stomp()?.into_parts().0),
        Proto::WebMqtt => Ok(target.web_mqtt(&next_name())?.into_parts().0),
        Proto::Xmpp => Ok(target.xmpp(&next_name())?.into_parts().0),
        Proto::Http => Ok(target.http()?.0),
    };
    (0..count).map(open).collect()
}

/// Resident memory once it has stopped moving for three seconds, or after ten: an allocator that
/// gives memory back takes a moment.
pub fn settled(broker: &Tree) -> u64 {
    let step = Duration::from_millis(500);
    let (mut last, mut quiet) = (broker.resident(), 0);
    for _ in 0..20 {
        thread::sleep(step);
        let now = broker.resident();
        let moved = now.abs_diff(last) > last / 200;
        quiet = if moved { 0 } else { quiet + 1 };
        last = now;
        if quiet == 6 {
            break;
        }
    }
    last
}
