//! Consumers that acknowledge.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Life, Stage, publishers::tx_select};
use crate::{
    amqp::{Amqp, Incoming, Method},
    ledger::{Kind, Protocol, Record},
    mqtt::{Login, Mqtt},
};

/// When nothing comes for this long while a run is drained, nothing is left.
const QUIET: Duration = Duration::from_millis(1500);
/// Messages on their way to a consumer.
const PREFETCH: u16 = 100;
/// Acknowledgements of one transaction, or of one `multiple`.
const TOGETHER: usize = 20;

/// How a consumer acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// Each alone.
    Each,
    /// Some at once.
    Multiple,
    /// In transactions, so that the answer says when they stand.
    Transactions,
}

/// Deliveries that wait for their acknowledgement.
struct Open<'a> {
    stage: &'a Stage,
    place: Record,
    acks: Acks,
    tags: Vec<u64>,
    messages: Vec<(u32, u64)>,
}

impl Open<'_> {
    fn write(&self, kind: Kind) {
        let record = Record { kind, ..self.place };
        let records = self.messages.iter().map(|&(producer, n)| Record { producer, n, ..record });
        self.stage.ledger.write_all(records);
    }

    /// Acknowledges what is open; `Ok(false)` when the connection is lost.
    fn settle(&mut self, client: &mut Amqp, late: &mut Vec<Incoming>) -> Result<bool> {
        let Some(&last) = self.tags.last() else { return Ok(true) };
        self.write(Kind::Acked);
        let sent = match self.acks {
            Acks::Each => self.tags.iter().try_for_each(|tag| client.ack(*tag, false)),
            Acks::Multiple | Acks::Transactions => client.ack(last, true),
        };
        if sent.is_err() {
            return Ok(false);
        }
        if self.acks == Acks::Transactions && !self.commit(client, late)? {
            return Ok(false);
        }
        self.tags.clear();
        self.messages.clear();
        Ok(true)
    }

    fn commit(&self, client: &mut Amqp, late: &mut Vec<Incoming>) -> Result<bool> {
        if client.send(&Method::new((90, 20)).frame(1)).is_err() {
            return Ok(false);
        }
        client.set_patience(super::ANSWER_PATIENCE)?;
        loop {
            match client.next_event() {
                Err(_) => return Ok(false),
                Ok(None) => bail!("tx.commit is not answered"),
                Ok(Some(Incoming::Method((90, 21), _))) => break,
                // Deliveries overtake the answer.
                Ok(Some(other)) => late.push(other),
            }
        }
        client.set_patience(QUIET)?;
        self.write(Kind::AckDurable);
        Ok(true)
    }
}

/// Consumes a queue until the run is drained; goes on through faults.
///
/// Errors: when a living broker refuses, hangs or talks nonsense.
pub fn amqp_consumer(stage: &Stage, queue: u32, name: &str, acks: Acks) -> Result<()> {
    through_faults(stage, |life| {
        let Ok(mut client) = Amqp::open(life.ports.amqp) else { return Ok(false) };
        let is_tx = acks == Acks::Transactions;
        if is_tx && client.call(&tx_select(), (90, 11)).is_err() {
            return Ok(false);
        }
        if client.consume(name, PREFETCH).is_err() {
            return Ok(false);
        }
        client.set_patience(QUIET)?;
        let place = stage.place(life, Protocol::Amqp, queue);
        let (tags, messages) = (Vec::new(), Vec::new());
        amqp_life(client, Open { stage, place, acks, tags, messages })
    })
}

/// One connection; true when nothing is left.
fn amqp_life(mut client: Amqp, mut open: Open<'_>) -> Result<bool> {
    let mut late = Vec::new();
    loop {
        let waiting = if late.is_empty() { None } else { Some(late.remove(0)) };
        let found = match waiting {
            Some(found) => Some(found),
            None => match client.next_event() {
                Err(_) => return Ok(false),
                Ok(found) => found,
            },
        };
        let is_quiet = found.is_none();
        match found {
            Some(Incoming::Delivery(delivery)) => {
                let (redelivered, bytes) = (delivery.redelivered, &delivery.body);
                let body = open.stage.delivered(open.place, redelivered, bytes);
                open.tags.push(delivery.tag);
                open.messages.extend(body.map(|body| (body.producer, body.n)));
            }
            Some(Incoming::Method((10, 50), _)) => return Ok(false),
            Some(Incoming::Method(id, arguments)) => {
                bail!("{id:?} for a consumer: {}", String::from_utf8_lossy(&arguments))
            }
            None => {}
        }
        let is_full = open.acks == Acks::Each || open.tags.len() >= TOGETHER;
        let may_wait = client.has_input() || !late.is_empty();
        if (is_full || !may_wait) && !open.settle(&mut client, &mut late)? {
            return Ok(false);
        }
        if is_quiet && late.is_empty() && !open.stage.is_consuming() {
            client.close().context("a drained consumer says goodbye")?;
            return Ok(true);
        }
    }
}

/// Receives what a durable MQTT session keeps until the run is drained; goes on through faults.
///
/// Errors: when a living broker refuses, hangs, talks nonsense or has forgotten the session.
pub fn mqtt_subscriber(stage: &Stage, queue: u32, client_id: &str) -> Result<()> {
    through_faults(stage, |life| {
        let login = Login { level: 4, client_id, clean: false };
        let Ok(mut client) = Mqtt::open(life.ports.mqtt, login) else { return Ok(false) };
        if !client.present {
            bail!("the broker has forgotten the session `{client_id}`");
        }
        client.set_patience(QUIET)?;
        let place = stage.place(life, Protocol::Mqtt, queue);
        loop {
            let packet = match client.next_packet() {
                Err(_) => return Ok(false),
                Ok(Some(packet)) => packet,
                Ok(None) if stage.is_consuming() => continue,
                Ok(None) => {
                    client.close().context("a drained subscriber says goodbye")?;
                    return Ok(true);
                }
            };
            let publish = packet.publish().context("not a PUBLISH")?;
            if let Some(body) = stage.delivered(place, publish.dup, &publish.payload) {
                let (kind, producer, n) = (Kind::Acked, body.producer, body.n);
                stage.ledger.write(Record { kind, producer, n, ..place });
            }
            if client.puback(publish.packet_id).is_err() {
                return Ok(false);
            }
        }
    })
}

fn through_faults(stage: &Stage, mut live: impl FnMut(Life) -> Result<bool>) -> Result<()> {
    let mut life = None;
    // Only the drained connection ends a consumer.
    while let Some(next) = stage.next_life(life, |_| true)? {
        if live(next)? {
            return Ok(());
        }
        life = Some(next);
    }
    Ok(())
}
