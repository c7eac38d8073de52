//! Consumers that acknowledge.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Life, Stage, publishers::tx_select};
use crate::{
    amqp::{self, Amqp, Incoming, Method},
    broker::Ports,
    ledger::{Kind, Protocol, Record},
    mqtt::{Login, Mqtt, packet, text},
};

/// How long a consumer waits before it looks whether the run is over.
const PAUSE: Duration = Duration::from_millis(250);
/// A run is over when the mark at the end of the queue has come. Where none can be published, when
/// nothing has come in so many pauses.
const PAUSES_MAX: u32 = 40;
/// What every mark begins with.
const MARK: &[u8] = b"the end of the queue for ";
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
        client.set_patience(PAUSE)?;
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
        client.set_patience(PAUSE)?;
        let place = stage.place(life, Protocol::Amqp, queue);
        let (tags, messages) = (Vec::new(), Vec::new());
        let end = End::new(life, place.connection, "", name);
        amqp_life(client, Open { stage, place, acks, tags, messages }, end)
    })
}

/// The end of a queue, known by a mark that its consumer puts behind everything that is in it.
struct End {
    ports: Ports,
    exchange: &'static str,
    key: String,
    mark: Vec<u8>,
    is_sent: bool,
    has_come: bool,
    /// Pauses since something came.
    pauses: u32,
}

impl End {
    fn new(life: Life, connection: u32, exchange: &'static str, key: &str) -> Self {
        let mark = [MARK, connection.to_string().as_bytes()].concat();
        let (ports, key) = (life.ports, key.to_owned());
        Self { ports, exchange, key, mark, is_sent: false, has_come: false, pauses: 0 }
    }

    /// Publishes the mark, once. Where that fails, the pauses tell.
    fn send(&mut self) {
        if std::mem::replace(&mut self.is_sent, true) {
            return;
        }
        self.pauses = 0;
        let publish = amqp::publish(self.exchange, &self.key, &self.mark);
        if let Ok(mut client) = Amqp::open(self.ports.amqp)
            && client.send(&publish).is_ok()
        {
            let _ = client.close();
        }
    }

    /// True for a mark, also for one of a connection that was lost.
    fn is_mark(&mut self, body: &[u8]) -> bool {
        self.pauses = 0;
        self.has_come |= body == self.mark;
        body.starts_with(MARK)
    }

    /// Nothing has come for a while.
    fn note_pause(&mut self) {
        self.pauses += 1;
    }

    /// True once nothing more is to come, when the run is over.
    fn is_reached(&self, stage: &Stage) -> bool {
        self.has_come || !stage.is_consuming() && self.pauses >= PAUSES_MAX
    }
}

/// One connection; true when nothing is left.
fn amqp_life(mut client: Amqp, mut open: Open<'_>, mut end: End) -> Result<bool> {
    let mut late = Vec::new();
    loop {
        if !open.stage.is_consuming() {
            end.send();
        }
        let waiting = if late.is_empty() { None } else { Some(late.remove(0)) };
        let found = match waiting {
            Some(found) => Some(found),
            None => match client.next_event() {
                Err(_) => return Ok(false),
                Ok(found) => found,
            },
        };
        match found {
            Some(Incoming::Delivery(delivery)) if end.is_mark(&delivery.body) => {
                open.tags.push(delivery.tag);
            }
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
            None => end.note_pause(),
        }
        let is_full = open.acks == Acks::Each || open.tags.len() >= TOGETHER;
        let may_wait = client.has_input() || !late.is_empty();
        if (is_full || !may_wait) && !open.settle(&mut client, &mut late)? {
            return Ok(false);
        }
        let is_over = end.is_reached(open.stage) && late.is_empty();
        if is_over && !open.settle(&mut client, &mut late)? {
            return Ok(false);
        }
        if is_over && late.is_empty() {
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
        client.set_patience(PAUSE)?;
        let place = stage.place(life, Protocol::Mqtt, queue);
        let mut end = End::new(life, place.connection, "amq.topic", &format!("end.{client_id}"));
        let mut is_asked = false;
        loop {
            if !stage.is_consuming() && !std::mem::replace(&mut is_asked, true) {
                // What the session has had so far stands before what it has from now on.
                let body =
                    [&[0, 1][..], &text(format!("end/{client_id}").as_bytes()), &[1]].concat();
                if client.send(&packet(0x82, &body)).is_err() {
                    return Ok(false);
                }
                end.pauses = 0;
            }
            if end.is_reached(stage) {
                client.close().context("a drained subscriber says goodbye")?;
                return Ok(true);
            }
            let packet = match client.next_packet() {
                Err(_) => return Ok(false),
                Ok(Some(packet)) => packet,
                Ok(None) => {
                    end.note_pause();
                    continue;
                }
            };
            if packet.first == 0x90 {
                end.send();
                continue;
            }
            let publish = packet.publish().context("not a PUBLISH")?;
            let body = match end.is_mark(&publish.payload) {
                true => None,
                false => stage.delivered(place, publish.dup, &publish.payload),
            };
            if let Some(body) = body {
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
