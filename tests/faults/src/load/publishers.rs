//! Publishers with confirms and a window.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result, bail};

use super::{ANSWER_PATIENCE, Life, Stage};
use crate::{
    amqp::{self, Amqp, Incoming, Method, long_number},
    ledger::{Body, Kind, Protocol, Record},
    mqtt::{self, Login, Mqtt},
};

/// Messages on their way to the broker.
pub(super) const WINDOW: usize = 24;

/// Where a publisher publishes to, and how much.
#[derive(Debug, Clone)]
pub struct Target {
    /// The publisher's number in the ledger.
    pub producer: u32,
    /// Exchange of AMQP; unused in MQTT.
    pub exchange: &'static str,
    /// Routing key or topic.
    pub key: &'static str,
    /// Bytes of the body beside its head.
    pub filler: usize,
    /// Most messages.
    pub messages_max: u64,
}

/// Numbers and fates of one publisher's messages.
pub(super) struct Course<'a> {
    pub(super) stage: &'a Stage,
    pub(super) target: &'a Target,
    pub(super) protocol: Protocol,
    pub(super) next: u64,
}

impl Course<'_> {
    pub(super) fn goes_on(&self) -> bool {
        self.next < self.target.messages_max && self.stage.is_publishing()
    }

    pub(super) fn write(&self, kind: Kind, numbers: impl IntoIterator<Item = u64>) {
        let producer = self.target.producer;
        let record = Record { protocol: self.protocol, producer, ..Record::new(kind) };
        self.stage.ledger.write_all(numbers.into_iter().map(|n| Record { n, ..record }));
    }

    pub(super) fn message(&mut self) -> (u64, Vec<u8>) {
        self.next += 1;
        let (producer, n) = (self.target.producer, self.next);
        self.write(Kind::Sent, [n]);
        (n, Body { run: self.stage.run, producer, n }.encode(self.target.filler))
    }
}

/// Runs until the stage stops publishing or the target is reached; goes on through faults.
///
/// Errors: when a living broker refuses, hangs or talks nonsense.
pub fn amqp_publisher(stage: &Stage, target: &Target) -> Result<()> {
    let mut course = Course { stage, target, protocol: Protocol::Amqp, next: 0 };
    through_faults(stage, |life| {
        let Ok(mut client) = Amqp::open(life.ports.amqp) else { return Ok(false) };
        client.set_patience(ANSWER_PATIENCE)?;
        if client.confirm_select().is_err() {
            return Ok(false);
        }
        amqp_life(&mut course, &mut client)
    })
}

/// One connection; true when all is done.
fn amqp_life(course: &mut Course<'_>, client: &mut Amqp) -> Result<bool> {
    // Delivery tags of confirms count from one on each channel.
    let (mut tag, mut open) = (0_u64, BTreeSet::new());
    let offset = course.next;
    loop {
        let mut bytes = Vec::new();
        while course.goes_on() && open.len() < WINDOW {
            let (_, body) = course.message();
            tag += 1;
            open.insert(tag);
            bytes.extend(amqp::publish(course.target.exchange, course.target.key, &body));
        }
        if open.is_empty() {
            return Ok(true);
        }
        let mut lost = client.send(&bytes).is_err();
        while !lost && (open.len() > WINDOW / 2 || !course.goes_on() && !open.is_empty()) {
            match client.next_event() {
                Err(_) => lost = true,
                Ok(None) => bail!("publisher {}: no confirm in time", course.target.producer),
                Ok(Some(Incoming::Method(id, arguments))) => {
                    confirmed(course, &mut open, offset, id, &arguments)?;
                }
                Ok(Some(Incoming::Delivery(_))) => bail!("a delivery for a publisher"),
            }
        }
        if lost {
            course.write(Kind::Unknown, open.iter().map(|tag| tag + offset));
            return Ok(false);
        }
    }
}

fn confirmed(
    course: &Course<'_>,
    open: &mut BTreeSet<u64>,
    offset: u64,
    id: amqp::Id,
    arguments: &[u8],
) -> Result<()> {
    let kind = match id {
        (60, 80) => Kind::Confirmed,
        (60, 120) => Kind::Refused,
        // A broker that stops says so before it closes the socket.
        (10, 50) => return Ok(()),
        _ => bail!("{id:?} for a publisher: {}", String::from_utf8_lossy(arguments)),
    };
    let tag = long_number(arguments, 0)?;
    let is_multiple = arguments.get(8) == Some(&1);
    let first = if is_multiple { 0 } else { tag };
    let ended: Vec<u64> = open.range(first..=tag).copied().collect();
    if ended.is_empty() {
        bail!("publisher {}: confirm of {tag}, which is not open", course.target.producer);
    }
    open.retain(|tag| !ended.contains(tag));
    course.write(kind, ended.iter().map(|tag| tag + offset));
    Ok(())
}

/// As [`amqp_publisher`], with quality of service 1.
///
/// Errors: when a living broker refuses, hangs or talks nonsense.
pub fn mqtt_publisher(stage: &Stage, target: &Target) -> Result<()> {
    let mut course = Course { stage, target, protocol: Protocol::Mqtt, next: 0 };
    let client_id = format!("publisher-{}", target.producer);
    through_faults(stage, |life| {
        let login = Login { level: 4, client_id: &client_id, clean: true };
        let Ok(mut client) = Mqtt::open(life.ports.mqtt, login) else { return Ok(false) };
        client.set_patience(ANSWER_PATIENCE)?;
        mqtt_life(&mut course, &mut client)
    })
}

fn mqtt_life(course: &mut Course<'_>, client: &mut Mqtt) -> Result<bool> {
    let mut open = HashMap::new();
    loop {
        let mut bytes = Vec::new();
        while course.goes_on() && open.len() < WINDOW {
            let (n, body) = course.message();
            // The window is far smaller than the space of packet ids.
            let packet_id = u16::try_from(n % 60_000 + 1)?;
            open.insert(packet_id, n);
            bytes.extend(mqtt::publish(course.target.key, packet_id, &body));
        }
        if open.is_empty() {
            return Ok(true);
        }
        let mut lost = client.send(&bytes).is_err();
        while !lost && (open.len() > WINDOW / 2 || !course.goes_on() && !open.is_empty()) {
            match client.next_packet() {
                Err(_) => lost = true,
                Ok(None) => bail!("publisher {}: no PUBACK in time", course.target.producer),
                Ok(Some(packet)) => {
                    let packet_id = packet.puback().context("not a PUBACK")?;
                    let n = open.remove(&packet_id).context("a PUBACK for nothing")?;
                    course.write(Kind::Confirmed, [n]);
                }
            }
        }
        if lost {
            course.write(Kind::Unknown, open.values().copied());
            return Ok(false);
        }
    }
}

/// Calls `live` for each life of the broker until it says that all is done.
pub(super) fn through_faults(
    stage: &Stage,
    mut live: impl FnMut(Life) -> Result<bool>,
) -> Result<()> {
    let mut life = None;
    while let Some(next) = stage.next_life(life, Stage::is_publishing)? {
        if live(next)? {
            return Ok(());
        }
        life = Some(next);
    }
    Ok(())
}

/// `tx.select`, for consumers that want to know when their acknowledgements stand.
pub(super) fn tx_select() -> Method {
    Method::new((90, 10))
}
