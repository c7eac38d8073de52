//! Deliveries of quality of service 1 and 2 on their way out: packet identifiers, what is
//! unfinished, and the client's acknowledgements. Sections 4.3, 4.4 and 4.9.

use std::collections::{HashMap, VecDeque};

use polymq_contract::{Answer, Command, Delivery, Effects, InFlight, Refusal};
use polymq_model::{ConsumerId, Now, RequestId, Seq};

use crate::{
    ask::Ask,
    codec::{Fault, PacketKind, Reason, ack::Ack, writer::put_ack},
    ids::IdMap,
    publish_in::put_pubcomp,
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
    /// Positions of the session's queue below this may have been sent by an earlier connection.
    unsure_before: Seq,
    /// The session outlives its connections: what is sent at quality of service 2 is remembered
    /// first.
    outlives: bool,
    /// What is sent when the broker has remembered it.
    remembering: VecDeque<(RequestId, Due)>,
    /// Deliveries that wait until the client has finished others.
    held: VecDeque<Delivery>,
    pub(crate) aliases: Aliases,
    pub(crate) topic: String,
    pub(crate) properties: Vec<u8>,
    packet_bytes_max: usize,
}

/// What waits until the broker has remembered it.
#[derive(Debug)]
enum Due {
    Publish(u16, Delivery),
    Pubrel(u16),
    Pubcomp(u16),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Flight {
    pub(crate) consumer: ConsumerId,
    pub(crate) number: u64,
    seq: Seq,
    qos: u8,
    stage: Stage,
    /// The broker remembers it, and is told when it is finished.
    remembered: bool,
    /// Place in the order of sending.
    order: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Sent by an earlier connection; the broker will deliver it again.
    Earlier,
    /// To be sent at quality of service 2 when the broker has remembered it.
    Remembering,
    /// PUBLISH of quality of service 1 is out.
    Once,
    /// PUBLISH of quality of service 2 is out.
    Exactly,
    /// PUBREC has come; PUBREL goes out when the broker has remembered that.
    Received,
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
            unsure_before: Seq(0),
            outlives: false,
            remembering: VecDeque::new(),
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

    /// Sets the client's limits, and whether its session outlives the connection.
    pub(crate) fn open(&mut self, topic_alias_max: u16, packet_bytes_max: usize, outlives: bool) {
        self.aliases = Aliases::new(topic_alias_max);
        self.packet_bytes_max = packet_bytes_max;
        self.outlives = outlives;
    }

    /// True when the client's session outlives the connection.
    pub(crate) fn outlives(&self) -> bool {
        self.outlives
    }

    /// Sends PUBCOMP when `request` has been answered.
    pub(crate) fn complete_later(&mut self, request: RequestId, packet_id: u16) {
        self.remembering.push_back((request, Due::Pubcomp(packet_id)));
    }

    /// Largest packet the client takes.
    pub(crate) fn packet_bytes_max(&self) -> usize {
        self.packet_bytes_max
    }

    /// Takes over what earlier connections left unfinished: PUBREL goes out at once, and the rest
    /// keeps its packet identifier until the broker delivers it again [MQTT-4.4.0-1].
    pub(crate) fn resume(
        &mut self,
        in_flight: &[InFlight],
        unsure_before: Seq,
        effects: &mut Effects,
    ) {
        self.unsure_before = unsure_before;
        for entry in in_flight {
            let InFlight { packet_id, consumer, seq, qos, released } = *entry;
            let stage = if released { Stage::Released } else { Stage::Earlier };
            self.sent += 1;
            let (number, order, remembered) = (0, self.sent, true);
            let flight = Flight { consumer, number, seq, qos, stage, remembered, order };
            self.flights.insert(packet_id, flight);
            if released {
                self.in_use += 1;
                put_pubrel(packet_id, Reason::SUCCESS, effects);
            } else {
                self.resumed.insert((consumer, seq), packet_id);
            }
        }
    }

    /// What is unfinished, in the order of sending. `stays` tells consumers whose queue keeps for
    /// this client what it has begun.
    pub(crate) fn in_flight(&self, stays: impl Fn(ConsumerId) -> bool) -> Vec<InFlight> {
        let is_lost = |flight: &Flight| match flight.stage {
            Stage::Remembering => true,
            // A queue that others read too may have given its messages to them meanwhile.
            Stage::Earlier => {
                let is_kept = flight.qos == 2 && stays(flight.consumer);
                flight.consumer != SESSION_QUEUE && !is_kept
            }
            Stage::Once | Stage::Exactly | Stage::Received | Stage::Released => false,
        };
        let mut flights: Vec<_> = self.flights.iter().filter(|(_, f)| !is_lost(f)).collect();
        flights.sort_unstable_by_key(|(_, flight)| flight.order);
        flights.into_iter().map(|(id, flight)| flight.in_flight(*id)).collect()
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

    /// The quality of service at which an earlier connection has sent a delivery.
    pub(crate) fn resumed_qos(&self, delivery: &Delivery) -> Option<u8> {
        if self.resumed.is_empty() {
            return None;
        }
        let id = self.resumed.get(&(delivery.consumer, delivery.seq))?;
        self.flights.get(id).map(|flight| flight.qos)
    }

    /// The packet identifier for a delivery, and whether it may have been sent before by an earlier
    /// connection.
    pub(crate) fn packet_id(&mut self, delivery: &Delivery, effects: &mut Effects) -> (u16, bool) {
        if let Some(id) = self.resumed.get(&(delivery.consumer, delivery.seq)) {
            return (*id, true);
        }
        self.forget_departed(delivery, effects);
        let is_unsure = delivery.consumer == SESSION_QUEUE && delivery.seq < self.unsure_before;
        // There is always a free one, because fewer flights are allowed than there are identifiers.
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.flights.contains_key(&self.last_id) {
                return (self.last_id, is_unsure);
            }
        }
    }

    /// True when a delivery must be remembered before it is sent.
    pub(crate) fn must_remember(&self, qos: u8, delivery: &Delivery) -> bool {
        qos == 2 && self.outlives && !self.is_resumed(delivery)
    }

    /// Remembers a delivery that has been written, or that waits to be.
    pub(crate) fn sent(&mut self, packet_id: u16, qos: u8, delivery: &Delivery) {
        let is_resumed = !self.resumed.is_empty()
            && self.resumed.remove(&(delivery.consumer, delivery.seq)).is_some();
        let stage = if qos == 2 { Stage::Exactly } else { Stage::Once };
        self.add(packet_id, qos, stage, is_resumed, delivery);
    }

    fn add(&mut self, id: u16, qos: u8, stage: Stage, remembered: bool, delivery: &Delivery) {
        self.sent += 1;
        self.in_use += 1;
        let Delivery { consumer, number, seq, .. } = *delivery;
        let order = self.sent;
        let flight = Flight { consumer, number, seq, qos, stage, remembered, order };
        self.flights.insert(id, flight);
    }

    /// Forgets a delivery of an earlier connection that will not be sent again.
    pub(crate) fn forget(&mut self, delivery: &Delivery, effects: &mut Effects) {
        if !self.resumed.is_empty()
            && let Some(id) = self.resumed.remove(&(delivery.consumer, delivery.seq))
        {
            self.flights.remove(&id);
            effects.commands.push(Command::ForgetInFlight { packet_id: id });
        }
    }

    /// The session's queue delivers in order, so what it should have delivered again before
    /// `delivery` is gone: expired, or dropped.
    fn forget_departed(&mut self, delivery: &Delivery, effects: &mut Effects) {
        if self.resumed.is_empty() || delivery.consumer != SESSION_QUEUE {
            return;
        }
        let Self { resumed, flights, .. } = self;
        resumed.retain(|(consumer, seq), id| {
            let is_due = *consumer != SESSION_QUEUE || *seq > delivery.seq;
            if !is_due {
                flights.remove(id);
                effects.commands.push(Command::ForgetInFlight { packet_id: *id });
            }
            is_due
        });
    }

    fn finish(&mut self, packet_id: u16, effects: &mut Effects) {
        if let Some(flight) = self.flights.remove(&packet_id) {
            self.in_use = self.in_use.saturating_sub(1);
            if flight.remembered {
                effects.commands.push(Command::ForgetInFlight { packet_id });
            }
        }
    }
}

impl Flight {
    fn in_flight(&self, packet_id: u16) -> InFlight {
        let Self { consumer, seq, qos, .. } = *self;
        let released = matches!(self.stage, Stage::Received | Stage::Released);
        InFlight { packet_id, consumer, seq, qos, released }
    }
}

impl Session {
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    pub(crate) fn on_ack(
        &mut self,
        kind: PacketKind,
        ack: Ack<'_>,
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
                self.settle(&flight, ack, effects);
                self.outbound.finish(id, effects);
            }
            (PacketKind::Pubrec, Some(flight)) if flight.stage == Stage::Exactly => {
                if ack.reason.is_error() {
                    self.settle(&flight, ack, effects);
                    self.outbound.finish(id, effects);
                } else {
                    // What the client has received is remembered before its message is let go.
                    self.release(id, effects);
                    self.settle(&flight, ack, effects);
                }
            }
            (PacketKind::Pubrec, Some(flight)) if flight.stage == Stage::Received => {}
            (PacketKind::Pubrec, Some(flight)) if flight.stage == Stage::Released => {
                put_pubrel(id, Reason::SUCCESS, effects);
            }
            (PacketKind::Pubcomp, Some(flight)) if flight.stage == Stage::Released => {
                self.outbound.finish(id, effects);
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
            (_, Some(flight)) if flight.stage == Stage::Earlier => {}
            (_, Some(_)) => {
                return Err(Fault::protocol("an acknowledgement is not the one that is due"));
            }
        }
        self.send_held(now, effects);
        Ok(())
    }

    /// Answers PUBREC, once the broker has remembered it where that matters.
    fn release(&mut self, packet_id: u16, effects: &mut Effects) {
        let outlives = self.outbound.outlives;
        let Some(flight) = self.outbound.flights.get_mut(&packet_id) else { return };
        flight.stage = if outlives { Stage::Received } else { Stage::Released };
        let in_flight = flight.in_flight(packet_id);
        if outlives {
            self.remember(in_flight, Due::Pubrel(packet_id), effects);
        } else {
            put_pubrel(packet_id, Reason::SUCCESS, effects);
        }
    }

    /// Sends a delivery of quality of service 2 when the broker has remembered it, so that no crash
    /// makes its packet identifier that of another message for the client.
    pub(crate) fn remember_and_send(
        &mut self,
        packet_id: u16,
        delivery: Delivery,
        effects: &mut Effects,
    ) {
        self.outbound.add(packet_id, 2, Stage::Remembering, true, &delivery);
        let (consumer, seq) = (delivery.consumer, delivery.seq);
        let in_flight = InFlight { packet_id, consumer, seq, qos: 2, released: false };
        self.remember(in_flight, Due::Publish(packet_id, delivery), effects);
    }

    /// Asks the broker to remember, together with what was asked in the same call.
    fn remember(&mut self, in_flight: InFlight, due: Due, effects: &mut Effects) {
        // Between two of them stands at most the settlement that goes with the first.
        let recent = effects.commands.iter_mut().rev().take(2);
        let asked = recent.into_iter().find_map(|command| match command {
            Command::KeepInFlight { request, in_flight } => Some((*request, in_flight)),
            _ => None,
        });
        let request = match asked {
            Some((request, together)) => {
                together.push(in_flight);
                request
            }
            None => {
                let request = self.asked.ask(Ask::Remember);
                let in_flight = vec![in_flight];
                effects.commands.push(Command::KeepInFlight { request, in_flight });
                request
            }
        };
        self.outbound.remembering.push_back((request, due));
    }

    /// The broker has remembered deliveries, or could not.
    pub(crate) fn on_remembered(
        &mut self,
        request: RequestId,
        answer: Result<Answer, Refusal>,
        now: Now,
        effects: &mut Effects,
    ) {
        if let Err(refusal) = answer {
            let code = crate::refusal::codes(refusal.kind).disconnect;
            return self.disconnect(code, "store_failed", &refusal.text, effects);
        }
        while let Some((_, due)) =
            self.outbound.remembering.pop_front_if(|(asked, _)| *asked == request)
        {
            match due {
                Due::Publish(packet_id, delivery) => {
                    self.send_remembered(packet_id, &delivery, now, effects);
                }
                Due::Pubcomp(packet_id) => put_pubcomp(packet_id, Reason::SUCCESS, effects),
                Due::Pubrel(packet_id) => {
                    if let Some(flight) = self.outbound.flights.get_mut(&packet_id) {
                        flight.stage = Stage::Released;
                    }
                    put_pubrel(packet_id, Reason::SUCCESS, effects);
                }
            }
        }
        self.send_held(now, effects);
    }

    fn send_remembered(
        &mut self,
        packet_id: u16,
        delivery: &Delivery,
        now: Now,
        effects: &mut Effects,
    ) {
        let is_unsure =
            delivery.consumer == SESSION_QUEUE && delivery.seq < self.outbound.unsure_before;
        if self.put_publish(delivery, 2, packet_id, is_unsure, now, effects) {
            if let Some(flight) = self.outbound.flights.get_mut(&packet_id) {
                flight.stage = Stage::Exactly;
            }
        } else {
            self.outbound.finish(packet_id, effects);
            self.refuse_too_large(delivery, effects);
        }
    }

    /// Sends what had to wait.
    fn send_held(&mut self, now: Now, effects: &mut Effects) {
        while self.outbound.has_room() {
            let Some(delivery) = self.outbound.held.pop_front() else { return };
            self.send(delivery, now, effects);
        }
    }
}

fn put_pubrel(packet_id: u16, reason: Reason, effects: &mut Effects) {
    put_ack(effects.out.frame(), PacketKind::Pubrel, packet_id, reason, None);
}
