//! Deliveries of quality of service 1 and 2 on their way out: packet identifiers, what is
//! unfinished, and the client's acknowledgements. Sections 4.3, 4.4 and 4.9.

use std::collections::{HashMap, VecDeque};

use polymq_contract::{Command, Delivery, DeliveryRange, Effects, InFlight, Outcome, Settlement};
use polymq_model::{ConsumerId, Now, Seq};

use crate::{
    codec::{Fault, PacketKind, Reason, ack::Ack, writer::put_ack},
    ids::IdMap,
    render::Aliases,
    session::Session,
    subscriptions::SESSION_QUEUE,
};

/// Most unfinished deliveries of one client, whatever it accepts. MQTT 3 clients cannot say, and
/// get this.
const WINDOW_MAX: u16 = 4096;

/// The sender's side of one connection.
#[derive(Debug)]
pub(crate) struct Outbound {
    flights: IdMap<Flight>,
    /// Flights that count against the client's receive maximum.
    in_use: usize,
    window: usize,
    last_id: u16,
    sent: u64,
    /// Deliveries of earlier connections that the broker will send again.
    resumed: HashMap<(ConsumerId, Seq), u16>,
    /// Deliveries that wait until the client has finished others.
    held: VecDeque<Delivery>,
    pub(crate) aliases: Aliases,
    pub(crate) topic: String,
    pub(crate) properties: Vec<u8>,
    packet_bytes_max: usize,
}

#[derive(Debug, Clone, Copy)]
struct Flight {
    consumer: ConsumerId,
    number: u64,
    seq: Seq,
    stage: Stage,
    /// Place in the order of sending.
    order: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Sent by an earlier connection; the broker will deliver it again.
    Remembered,
    /// PUBLISH of quality of service 1 is out.
    Once,
    /// PUBLISH of quality of service 2 is out.
    Exactly,
    /// PUBREL is out.
    Released,
}

impl Default for Outbound {
    fn default() -> Self {
        Self {
            flights: IdMap::default(),
            in_use: 0,
            window: usize::from(WINDOW_MAX),
            last_id: 0,
            sent: 0,
            resumed: HashMap::new(),
            held: VecDeque::new(),
            aliases: Aliases::default(),
            topic: String::new(),
            properties: Vec::new(),
            packet_bytes_max: usize::MAX,
        }
    }
}

impl Outbound {
    /// Sets how many deliveries may be unfinished, and returns the number.
    pub(crate) fn limit_window(&mut self, receive_max: Option<u16>) -> u16 {
        let window = receive_max.unwrap_or(WINDOW_MAX).min(WINDOW_MAX);
        self.window = usize::from(window);
        window
    }

    /// Sets the client's limits.
    pub(crate) fn open(&mut self, topic_alias_max: u16, packet_bytes_max: usize) {
        self.aliases = Aliases::new(topic_alias_max);
        self.packet_bytes_max = packet_bytes_max;
    }

    /// Largest packet the client takes.
    pub(crate) fn packet_bytes_max(&self) -> usize {
        self.packet_bytes_max
    }

    /// Takes over what earlier connections left unfinished: PUBREL goes out at once, and the rest
    /// keeps its packet identifier until the broker delivers it again [MQTT-4.4.0-1].
    pub(crate) fn resume(&mut self, in_flight: &[InFlight], effects: &mut Effects) {
        for entry in in_flight {
            let stage = if entry.released { Stage::Released } else { Stage::Remembered };
            self.sent += 1;
            self.flights.insert(
                entry.packet_id,
                Flight {
                    consumer: entry.consumer,
                    number: 0,
                    seq: entry.seq,
                    stage,
                    order: self.sent,
                },
            );
            if entry.released {
                self.in_use += 1;
                put_pubrel(entry.packet_id, Reason::SUCCESS, effects);
            } else {
                self.resumed.insert((entry.consumer, entry.seq), entry.packet_id);
            }
        }
    }

    /// What is unfinished, in the order of sending.
    pub(crate) fn in_flight(&self) -> Vec<InFlight> {
        // A queue that others read too has given its messages to them meanwhile.
        let is_lost =
            |flight: &Flight| flight.stage == Stage::Remembered && flight.consumer != SESSION_QUEUE;
        let mut flights: Vec<_> = self.flights.iter().filter(|(_, f)| !is_lost(f)).collect();
        flights.sort_unstable_by_key(|(_, flight)| flight.order);
        let entry = |(id, flight): (&u16, &Flight)| InFlight {
            packet_id: *id,
            consumer: flight.consumer,
            seq: flight.seq,
            released: flight.stage == Stage::Released,
        };
        flights.into_iter().map(entry).collect()
    }

    /// True while the client may be sent one more delivery of quality of service 1 or 2.
    pub(crate) fn has_room(&self) -> bool {
        self.in_use < self.window && self.flights.len() < usize::from(u16::MAX)
    }

    /// True when a delivery must queue behind others.
    pub(crate) fn must_hold(&self) -> bool {
        !self.held.is_empty() || !self.has_room()
    }

    pub(crate) fn hold(&mut self, delivery: Delivery) {
        self.held.push_back(delivery);
    }

    /// True for a delivery that an earlier connection has sent.
    pub(crate) fn is_resumed(&self, delivery: &Delivery) -> bool {
        self.resumed.contains_key(&(delivery.consumer, delivery.seq))
    }

    /// The packet identifier for a delivery, and whether it was sent before by an earlier
    /// connection.
    pub(crate) fn packet_id(&mut self, delivery: &Delivery) -> (u16, bool) {
        if let Some(id) = self.resumed.get(&(delivery.consumer, delivery.seq)) {
            return (*id, true);
        }
        self.forget_departed(delivery);
        // There is always a free one, because fewer flights are allowed than there are identifiers.
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.flights.contains_key(&self.last_id) {
                return (self.last_id, false);
            }
        }
    }

    /// Remembers a delivery that has been written.
    pub(crate) fn sent(&mut self, packet_id: u16, qos: u8, delivery: &Delivery) {
        if !self.resumed.is_empty() {
            self.resumed.remove(&(delivery.consumer, delivery.seq));
        }
        self.sent += 1;
        self.in_use += 1;
        let stage = if qos == 2 { Stage::Exactly } else { Stage::Once };
        let Delivery { consumer, number, seq, .. } = *delivery;
        let flight = Flight { consumer, number, seq, stage, order: self.sent };
        self.flights.insert(packet_id, flight);
    }

    /// Forgets a remembered delivery that will not be sent again.
    pub(crate) fn forget(&mut self, delivery: &Delivery) {
        if !self.resumed.is_empty()
            && let Some(id) = self.resumed.remove(&(delivery.consumer, delivery.seq))
        {
            self.flights.remove(&id);
        }
    }

    /// The session's queue delivers in order, so what it should have delivered again before
    /// `delivery` is gone: expired, or dropped.
    fn forget_departed(&mut self, delivery: &Delivery) {
        if self.resumed.is_empty() || delivery.consumer != SESSION_QUEUE {
            return;
        }
        let Self { resumed, flights, .. } = self;
        resumed.retain(|(consumer, seq), id| {
            let is_due = *consumer != SESSION_QUEUE || *seq > delivery.seq;
            if !is_due {
                flights.remove(id);
            }
            is_due
        });
    }

    fn finish(&mut self, packet_id: u16) {
        if self.flights.remove(&packet_id).is_some() {
            self.in_use = self.in_use.saturating_sub(1);
        }
    }
}

impl Session {
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    pub(crate) fn on_ack(
        &mut self,
        kind: PacketKind,
        ack: Ack,
        now: Now,
        effects: &mut Effects,
    ) -> Result<(), Fault> {
        let id = ack.packet_id;
        if kind == PacketKind::Pubrel {
            self.on_pubrel(id, effects);
            return Ok(());
        }
        let flight = self.outbound.flights.get(&id).copied();
        match (kind, flight) {
            (PacketKind::Puback, Some(flight)) if flight.stage == Stage::Once => {
                self.settle(&flight, ack.reason, effects);
                self.outbound.finish(id);
            }
            (PacketKind::Pubrec, Some(flight)) if flight.stage == Stage::Exactly => {
                self.settle(&flight, ack.reason, effects);
                if ack.reason.is_error() {
                    self.outbound.finish(id);
                } else {
                    if let Some(flight) = self.outbound.flights.get_mut(&id) {
                        flight.stage = Stage::Released;
                    }
                    put_pubrel(id, Reason::SUCCESS, effects);
                }
            }
            (PacketKind::Pubrec, Some(flight)) if flight.stage == Stage::Released => {
                put_pubrel(id, Reason::SUCCESS, effects);
            }
            (PacketKind::Pubcomp, Some(flight)) if flight.stage == Stage::Released => {
                self.outbound.finish(id);
            }
            (PacketKind::Pubrec, None) if !ack.reason.is_error() => {
                let reason = match self.client.is_v5() {
                    true => Reason::PACKET_ID_NOT_FOUND,
                    false => Reason::SUCCESS,
                };
                put_pubrel(id, reason, effects);
            }
            // What an earlier connection sent and this one has not repeated is acknowledged later.
            (_, None) => {}
            (_, Some(flight)) if flight.stage == Stage::Remembered => {}
            (_, Some(_)) => {
                return Err(Fault::protocol("an acknowledgement is not the one that is due"));
            }
        }
        self.send_held(now, effects);
        Ok(())
    }

    /// Sends what had to wait.
    fn send_held(&mut self, now: Now, effects: &mut Effects) {
        while self.outbound.has_room() {
            let Some(delivery) = self.outbound.held.pop_front() else { return };
            self.send(delivery, now, effects);
        }
    }

    fn settle(&self, flight: &Flight, reason: Reason, effects: &mut Effects) {
        let source = self.subscriptions.source(flight.consumer);
        let is_plain_queue = source.is_some_and(|source| source.queue.is_some());
        let outcome = match reason.0 {
            // A subscriber of topics cannot give a message back.
            _ if !is_plain_queue => Outcome::Accepted,
            0x97 => Outcome::Returned,
            0x80 | 0x83 => Outcome::Failed,
            0x87 | 0x90 | 0x99 => Outcome::Rejected,
            _ => Outcome::Accepted,
        };
        push_settlement(flight.consumer, flight.number, outcome, effects);
    }
}

fn put_pubrel(packet_id: u16, reason: Reason, effects: &mut Effects) {
    put_ack(effects.out.buffer(), PacketKind::Pubrel, packet_id, reason, None);
}

/// Settles one delivery, together with its neighbour when that was the last command. Number 0 needs
/// no settling.
pub(crate) fn push_settlement(
    consumer: ConsumerId,
    number: u64,
    outcome: Outcome,
    effects: &mut Effects,
) {
    if number == 0 {
        return;
    }
    if let Some(Command::Settle(last)) = effects.commands.last_mut()
        && last.consumer == consumer
        && last.outcome == outcome
        && last.deliveries.last.checked_add(1) == Some(number)
    {
        last.deliveries.last = number;
        return;
    }
    let deliveries = DeliveryRange { first: number, last: number };
    effects.commands.push(Command::Settle(Settlement { consumer, deliveries, outcome }));
}
