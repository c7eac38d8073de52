//! One connection under load: a publisher that writes a block encoded beforehand, or a consumer
//! that counts messages and acknowledges them.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, bail};

use crate::confirms::Confirms;
use crate::web_socket::Frames;
use crate::{amqp, http, mqtt, stomp, xmpp};

/// Messages by one publisher before the loop looks at other sockets, when each is its own write.
const SINGLES_PER_TURN: usize = 32;
/// Large writes by one publisher before the loop looks at other sockets.
const BATCHES_PER_TURN: usize = 2;

/// Protocol of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proto {
    /// AMQP 0-9-1.
    Amqp,
    /// MQTT in the version given.
    Mqtt(mqtt::Version),
    /// STOMP 1.2.
    Stomp,
    /// HTTP/1.1, to publish only.
    Http,
    /// MQTT 3.1.1 over WebSocket, with quality of service 0 only.
    WebMqtt,
    /// XMPP, from one resource to another.
    Xmpp,
}

/// How a consumer settles deliveries; MQTT above QoS 0 always answers each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// Never: the broker settles by itself.
    None,
    /// One acknowledgement per this many deliveries, covering all of them.
    Every(u64),
}

/// Messages on their way from a group of publishers to a group of consumers.
#[derive(Debug)]
pub struct Flow {
    /// Messages handed to the publishers' sockets.
    pub sent: u64,
    /// Messages that consumers received.
    pub received: u64,
    /// Most messages under way; unlimited without consumers.
    pub credit: u64,
    /// Deliveries expected per message; zero without consumers.
    pub copies: u64,
    /// Publish no more than this in total.
    pub total: Option<u64>,
}

impl Flow {
    fn room(&self) -> u64 {
        let left = self.total.map_or(u64::MAX, |total| total.saturating_sub(self.sent));
        match self.received.checked_div(self.copies) {
            Some(done) => left.min(self.credit.saturating_sub(self.sent.saturating_sub(done))),
            None => left,
        }
    }

    /// Deliveries that have not arrived yet.
    pub fn missing(&self) -> u64 {
        (self.sent * self.copies).saturating_sub(self.received)
    }
}

/// What a connection does.
pub enum Role {
    /// Writes messages.
    Publisher(Publisher),
    /// Counts messages.
    Consumer(Consumer),
}

/// The writing side of a connection.
pub struct Publisher {
    /// Encoded messages of equal length, written in a circle.
    pub block: Vec<u8>,
    /// Length of one of them.
    pub message_len: usize,
    /// Most messages in one write.
    pub batch: u64,
    /// Whether to wait until a whole batch has room, so that writes stay large.
    pub whole_batches: bool,
    /// What is not confirmed yet, with its bound.
    pub confirms: Option<Confirms>,
    cursor: usize,
    pending: usize,
}

impl Publisher {
    /// A publisher at the start of its block.
    pub fn new(block: Vec<u8>, message_len: usize, batch: u64) -> Self {
        let whole_batches = batch > 1;
        Self { block, message_len, batch, whole_batches, confirms: None, cursor: 0, pending: 0 }
    }

    /// Bounds the messages that wait for their confirm.
    pub fn with_confirms(mut self, window: u64) -> Self {
        self.confirms = Some(Confirms::new(window));
        self.whole_batches = false;
        self
    }

    fn unconfirmed(&self) -> u64 {
        self.confirms.as_ref().map_or(0, Confirms::outstanding)
    }

    /// How many messages may start now.
    fn allowance(&self, flow: &Flow) -> u64 {
        let window = self.confirms.as_ref().map_or(u64::MAX, Confirms::room);
        let allowed = flow.room().min(window).min(self.batch);
        let last = flow.total.is_some_and(|total| total - flow.sent == allowed);
        if self.whole_batches && allowed < self.batch && !last { 0 } else { allowed }
    }
}

/// The counting side of a connection.
pub struct Consumer {
    /// When to acknowledge.
    pub ack: Ack,
    received: u64,
    acked: u64,
}

impl Consumer {
    /// A consumer that has seen nothing yet.
    pub fn new(ack: Ack) -> Self {
        Self { ack, received: 0, acked: 0 }
    }
}

/// One connection under load.
pub struct Link {
    proto: Proto,
    role: Role,
    carry: Vec<u8>,
    out: Vec<u8>,
    frames: Option<Frames>,
    /// Which flow it belongs to.
    pub flow: usize,
    /// The non-blocking socket.
    pub stream: TcpStream,
    /// Whether the last read left something behind, as far as known.
    pub readable: bool,
    /// Whether the last write found room, as far as known.
    pub writable: bool,
}

impl Link {
    /// Wraps a connected socket and the bytes its handshake read too many.
    pub fn new(proto: Proto, flow: usize, role: Role, parts: (TcpStream, Vec<u8>)) -> Result<Self> {
        let (stream, carry) = parts;
        stream.set_nonblocking(true)?;
        let (out, frames) = (Vec::new(), (proto == Proto::WebMqtt).then(Frames::default));
        Ok(Self { proto, flow, role, stream, carry, out, frames, readable: true, writable: true })
    }

    /// Whether it has something to write and room to write it.
    pub fn can_publish(&self, flows: &[Flow]) -> bool {
        match &self.role {
            Role::Publisher(publisher) => {
                let flow = &flows[self.flow];
                self.writable && (publisher.pending > 0 || publisher.allowance(flow) > 0)
            }
            Role::Consumer(_) => false,
        }
    }

    /// Writes until the socket is full, the allowance is used up or the turn is over.
    pub fn publish(&mut self, flow: &mut Flow, stopping: bool) -> Result<()> {
        let Role::Publisher(publisher) = &mut self.role else { return Ok(()) };
        let turns = if publisher.batch == 1 { SINGLES_PER_TURN } else { BATCHES_PER_TURN };
        for _ in 0..turns {
            if !self.writable {
                break;
            }
            if publisher.pending == 0 {
                let count = if stopping { 0 } else { publisher.allowance(flow) };
                if count == 0 {
                    break;
                }
                flow.sent += count;
                if let Some(confirms) = &mut publisher.confirms {
                    confirms.publish(count);
                }
                publisher.pending = count as usize * publisher.message_len;
            }
            let end = publisher.block.len().min(publisher.cursor + publisher.pending);
            match self.stream.write(&publisher.block[publisher.cursor..end]) {
                Ok(written) => {
                    publisher.pending -= written;
                    publisher.cursor = (publisher.cursor + written) % publisher.block.len();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) => return Err(error).context("publishing"),
            }
        }
        Ok(())
    }

    /// Reads once, counts what is whole, keeps the rest, and acknowledges.
    pub fn read(&mut self, buffer: &mut [u8], flow: &mut Flow) -> Result<()> {
        let held = self.carry.len();
        buffer[..held].copy_from_slice(&self.carry);
        let filled = match self.stream.read(&mut buffer[held..]) {
            Ok(0) => bail!("the broker closed the connection"),
            Ok(read) => {
                self.readable = held + read == buffer.len();
                held + match &mut self.frames {
                    Some(frames) => frames.strip(&mut buffer[held..held + read]),
                    None => read,
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                held
            }
            Err(error) => return Err(error).context("consuming"),
        };
        let used = self.scan(&buffer[..filled], flow)?;
        self.carry.clear();
        self.carry.extend_from_slice(&buffer[used..filled]);
        if let Role::Consumer(consumer) = &mut self.role
            && let Ack::Every(step) = consumer.ack
            && self.proto == Proto::Amqp
        {
            while consumer.received - consumer.acked >= step {
                consumer.acked += step;
                amqp::ack(consumer.acked, step > 1, &mut self.out);
            }
        }
        self.flush()
    }

    fn scan(&mut self, bytes: &[u8], flow: &mut Flow) -> Result<usize> {
        let mut refusal = None;
        let mut received = 0;
        let (confirms, due) = match &mut self.role {
            Role::Publisher(publisher) => (publisher.confirms.as_mut(), None),
            Role::Consumer(consumer) => (None, Some(consumer)),
        };
        let used = match self.proto {
            Proto::Stomp => {
                let out = &mut self.out;
                scan_stomp(bytes, confirms, due, out, &mut received, &mut refusal)
            }
            Proto::Amqp => scan_amqp(bytes, confirms, &mut received, &mut refusal),
            Proto::Http => scan_http(bytes, confirms, &mut refusal),
            Proto::Xmpp => xmpp::scan(bytes, || received += 1),
            Proto::WebMqtt => {
                let (out, version) = (&mut self.out, mqtt::Version::V4);
                scan_mqtt(version, bytes, confirms, out, &mut received, &mut refusal)
            }
            Proto::Mqtt(version) => {
                let out = &mut self.out;
                scan_mqtt(version, bytes, confirms, out, &mut received, &mut refusal)
            }
        }?;
        flow.received += received;
        if let Role::Consumer(consumer) = &mut self.role {
            consumer.received += received;
        }
        match refusal {
            Some(text) => bail!(text),
            None => Ok(used),
        }
    }

    /// Writes acknowledgements that wait, as far as the socket takes them.
    pub fn flush(&mut self) -> Result<()> {
        while self.writable && !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(written) => drop(self.out.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) => return Err(error).context("acknowledging"),
            }
        }
        Ok(())
    }

    /// How many of its messages may wait for their confirm, if it publishes with confirms.
    pub fn window(&self) -> Option<u64> {
        match &self.role {
            Role::Publisher(publisher) => publisher.confirms.as_ref().map(Confirms::window),
            Role::Consumer(_) => None,
        }
    }

    /// How many of its messages wait for their confirm.
    pub fn unconfirmed(&self) -> u64 {
        match &self.role {
            Role::Publisher(publisher) => publisher.unconfirmed(),
            Role::Consumer(_) => 0,
        }
    }
}

fn scan_amqp(
    bytes: &[u8],
    mut confirms: Option<&mut Confirms>,
    received: &mut u64,
    refusal: &mut Option<String>,
) -> Result<usize> {
    amqp::scan(bytes, |event| match event {
        amqp::Event::Message(_) => *received += 1,
        amqp::Event::Confirmed { tag, multiple } => {
            if let Some(confirms) = confirms.as_deref_mut() {
                confirms.confirm(tag, multiple);
            }
        }
        amqp::Event::Refused(text) => *refusal = Some(text),
    })
}

fn scan_http(
    bytes: &[u8],
    mut confirms: Option<&mut Confirms>,
    refusal: &mut Option<String>,
) -> Result<usize> {
    http::scan(bytes, |event| match event {
        http::Event::Confirmed => {
            if let Some(confirms) = confirms.as_deref_mut() {
                confirms.confirm_next();
            }
        }
        http::Event::Refused(text) => *refusal = Some(text),
    })
}

fn scan_mqtt(
    version: mqtt::Version,
    bytes: &[u8],
    mut confirms: Option<&mut Confirms>,
    out: &mut Vec<u8>,
    received: &mut u64,
    refusal: &mut Option<String>,
) -> Result<usize> {
    mqtt::scan(version, bytes, |event| match event {
        mqtt::Event::Message { id, .. } => {
            *received += 1;
            if let Some(id) = id {
                mqtt::puback(id, out);
            }
        }
        mqtt::Event::Confirmed => {
            if let Some(confirms) = confirms.as_deref_mut() {
                confirms.confirm_next();
            }
        }
        mqtt::Event::Refused(text) => *refusal = Some(text),
    })
}

fn scan_stomp(
    bytes: &[u8],
    mut confirms: Option<&mut Confirms>,
    mut consumer: Option<&mut Consumer>,
    out: &mut Vec<u8>,
    received: &mut u64,
    refusal: &mut Option<String>,
) -> Result<usize> {
    stomp::scan(bytes, |event| match event {
        stomp::Event::Message { ack, .. } => {
            *received += 1;
            if let (Some(id), Some(consumer)) = (ack, consumer.as_deref_mut())
                && let Ack::Every(step) = consumer.ack
                && consumer.received + *received - consumer.acked >= step
            {
                consumer.acked = consumer.received + *received;
                stomp::ack(id, out);
            }
        }
        stomp::Event::Confirmed => {
            if let Some(confirms) = confirms.as_deref_mut() {
                confirms.confirm_next();
            }
        }
        stomp::Event::Refused(text) => *refusal = Some(text),
    })
}
