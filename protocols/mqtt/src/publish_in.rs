//! Publishes of the client: section 3.3, with the receiver's side of sections 4.3 and 4.6.

use std::collections::VecDeque;

use bytes::Bytes;
use polymq_contract::{Command, Effects, Publish as Order, PublishOutcome, Refusal, RefusalKind};
use polymq_model::{
    Now, PublisherId,
    delay::Delay,
    message::{Body, NewMessage},
};

use crate::{
    ask::Ask,
    codec::{Fault, Header, PacketKind, Place, Reason, publish::Publish, writer::put_ack},
    convert::{MQTT3, MQTT5},
    ids::IdMap,
    publish_properties::{Scan, Sender},
    refusal::{Publish3, codes},
    route::{LastRoute, Route, Unroutable},
    session::{Session, shared_slice},
    told::Told,
};

/// What is known about the client's publishes.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    last_number: u64,
    /// Publishes whose acknowledgement is due, in the order received [MQTT-4.6.0-2, -3].
    pending: VecDeque<Pending>,
    /// Packets of quality of service 2 that the client has not released.
    received: IdMap<Received>,
    /// Publishes that count against the receive maximum.
    in_use: usize,
    aliases: Vec<Option<Route>>,
    last_route: LastRoute,
    scratch: Vec<u8>,
    stripped: Vec<u8>,
}

#[derive(Debug)]
struct Pending {
    /// The publish; for packets that were not published, that of the one before.
    number: u64,
    packet_id: u16,
    qos: u8,
    /// The client asked for a class of durability, so it is told which was reached.
    asked: bool,
    done: Option<Done>,
}

#[derive(Debug)]
struct Done {
    reason: Reason,
    told: Told,
}

#[derive(Debug, Clone, Copy)]
struct Received {
    /// Counts against the receive maximum of this connection.
    is_counted: bool,
    /// PUBREC has not been sent.
    is_pending: bool,
    /// PUBREL has come all the same.
    is_released: bool,
}

impl Inbound {
    /// Takes over what the client session remembers.
    pub(crate) fn resume(&mut self, received: &[u16]) {
        for id in received {
            self.received
                .insert(*id, Received { is_counted: false, is_pending: false, is_released: false });
        }
    }

    /// True while confirms of the broker are due, so that reading may be paused.
    pub(crate) fn awaits_confirms(&self) -> bool {
        !self.pending.is_empty()
    }
}

impl Session {
    /// PUBLISH. `packet` holds the whole packet; `shared` is the same by reference, for long
    /// payloads.
    pub(crate) fn on_publish(
        &mut self,
        header: &Header,
        packet: &[u8],
        shared: Option<&Bytes>,
        now: Now,
        effects: &mut Effects,
    ) -> Result<(), Fault> {
        let body = packet.get(header.len..).unwrap_or_default();
        let publish = Publish::decode(header.flags, body, self.client.version)?;
        if publish.payload.len() > self.limits.message_bytes_max {
            let max = self.limits.message_bytes_max;
            let text = format!("a message has at most {max} bytes, {}", publish.payload.len());
            return Err(Fault::new(Reason::PACKET_TOO_LARGE, text));
        }
        let scan = match publish.properties {
            [] => Scan::default(),
            bytes => Scan::read(bytes, Place::Publish, self.limits.table_entries_max)?,
        };
        if let Some(alias) = scan.alias {
            self.set_alias(alias, publish.topic)?;
        } else if publish.topic.is_empty() {
            return Err(Fault::protocol("PUBLISH has neither a topic name nor a topic alias"));
        }
        if publish.qos > 0 && !self.take_packet_id(&publish, effects)? {
            return Ok(());
        }
        if scan.is_text && std::str::from_utf8(publish.payload).is_err() {
            let text = "the payload is not UTF-8, as its format indicator says";
            if publish.qos == 0 {
                return Err(Fault::new(Reason::PAYLOAD_FORMAT_INVALID, text));
            }
            self.done(&publish, Reason::PAYLOAD_FORMAT_INVALID, text, effects);
            return Ok(());
        }
        match self.publish(&publish, &scan, shared, now, effects) {
            Ok(()) => Ok(()),
            Err(unroutable) => self.refuse(&publish, unroutable, now, effects),
        }
    }

    /// Remembers or finds a topic alias: section 3.3.2.3.4.
    fn set_alias(&mut self, alias: u16, topic: &str) -> Result<(), Fault> {
        if alias > self.limits.topic_alias_max {
            let text = format!("topic alias {alias} is above {}", self.limits.topic_alias_max);
            return Err(Fault::new(Reason::TOPIC_ALIAS_INVALID, text));
        }
        let at = usize::from(alias).saturating_sub(1);
        let aliases = &mut self.inbound.aliases;
        if topic.is_empty() {
            return match aliases.get(at) {
                Some(Some(_)) => Ok(()),
                _ => Err(Fault::protocol("a topic alias is used before it was set")),
            };
        }
        if aliases.len() <= at {
            aliases.resize_with(at + 1, || None);
        }
        let route = self.inbound.last_route.find(topic, &self.shared.exchange, &self.limits);
        let route = match route {
            Ok(route) => route.clone(),
            Err(Unroutable::Fault(fault)) => return Err(fault),
            // The alias names a topic that is refused whenever it is used; the empty route stands
            // for that.
            Err(Unroutable::NotOurs(_) | Unroutable::Refused { .. }) => Route::default(),
        };
        if let Some(slot) = self.inbound.aliases.get_mut(at) {
            *slot = Some(route);
        }
        Ok(())
    }

    /// Counts a publish of quality of service 1 or 2; false when it repeats one that is known.
    fn take_packet_id(
        &mut self,
        publish: &Publish<'_>,
        effects: &mut Effects,
    ) -> Result<bool, Fault> {
        let inbound = &mut self.inbound;
        let mut is_counted = true;
        let mut is_repeat = false;
        if publish.qos == 2 {
            // [MQTT-4.3.3-10]: until PUBREL, the same packet identifier is the same message.
            if let Some(received) = inbound.received.get_mut(&publish.packet_id) {
                is_repeat = true;
                is_counted = !std::mem::replace(&mut received.is_counted, true);
            } else {
                let received = Received { is_counted: true, is_pending: true, is_released: false };
                inbound.received.insert(publish.packet_id, received);
            }
        }
        inbound.in_use += usize::from(is_counted);
        if self.client.is_v5() && inbound.in_use > usize::from(self.limits.receive_max) {
            let text = format!("more than {} publishes are unfinished", self.limits.receive_max);
            return Err(Fault::new(Reason::RECEIVE_MAXIMUM_EXCEEDED, text));
        }
        let received = inbound.received.get(&publish.packet_id).filter(|_| is_repeat);
        if let Some(received) = received {
            // A repeat of a publish whose PUBREC is due is answered by that PUBREC.
            if !received.is_pending {
                self.done(publish, Reason::SUCCESS, "", effects);
            }
        }
        Ok(!is_repeat)
    }

    fn publish(
        &mut self,
        publish: &Publish<'_>,
        scan: &Scan,
        shared: Option<&Bytes>,
        now: Now,
        effects: &mut Effects,
    ) -> Result<(), Unroutable> {
        let durability = scan.durability().map_err(|bad| Unroutable::invalid(&bad))?;
        let Inbound { last_route, aliases, scratch, stripped, last_number, pending, .. } =
            &mut self.inbound;
        let route = match scan.alias {
            Some(alias) if publish.topic.is_empty() => {
                let at = usize::from(alias).saturating_sub(1);
                let route = aliases.get(at).and_then(Option::as_ref);
                route.filter(|route| **route != Route::default()).ok_or_else(|| {
                    Unroutable::NotOurs("the topic alias names a topic that is refused".into())
                })?
            }
            _ => last_route.find(publish.topic, &self.shared.exchange, &self.limits)?,
        };
        let delay = match route.delay_secs {
            0 => scan.delays.delay().map_err(|bad| Unroutable::invalid(&bad))?,
            secs => Some(Delay::For(secs.saturating_mul(1000))),
        };
        let sender = Sender { user: &self.client.user, impersonator: self.client.impersonator };
        let props =
            scan.kept(publish.properties, &sender, stripped, &self.shared.counters.conversions);
        let message = NewMessage {
            format: if self.client.is_v5() { &MQTT5 } else { &MQTT3 },
            exchange: &route.exchange,
            key: &route.key,
            props,
            body: match shared_slice(shared, publish.payload) {
                Some(bytes) => Body::Shared(bytes),
                None => Body::Slice(publish.payload),
            },
            durable: publish.qos > 0,
            priority: scan.priority,
            qos: publish.qos,
            retain: publish.retain,
            deadline_ms: scan.deadline_ms(now.unix_ms),
            arrived_ms: now.unix_ms,
            extra_keys: Vec::new(),
        }
        .build(scratch)
        .lowered(durability);
        let mut number = 0;
        if publish.qos > 0 {
            *last_number += 1;
            number = *last_number;
            let (packet_id, qos) = (publish.packet_id, publish.qos);
            let asked = durability.is_some();
            pending.push_back(Pending { number, packet_id, qos, asked, done: None });
        }
        effects.commands.push(Command::Publish(Order {
            publisher: PublisherId(0),
            number,
            mandatory: false,
            received: (publish.qos == 2).then_some(publish.packet_id),
            delay,
            message,
        }));
        Ok(())
    }

    /// Answers a publish that never reached the broker.
    fn refuse(
        &mut self,
        publish: &Publish<'_>,
        unroutable: Unroutable,
        now: Now,
        effects: &mut Effects,
    ) -> Result<(), Fault> {
        let (reason, text, publish_3) = match unroutable {
            Unroutable::Fault(fault) => return Err(fault),
            Unroutable::NotOurs(text) => (Reason::TOPIC_NAME_INVALID, text, Publish3::Acknowledge),
            Unroutable::Refused { reason, kind, text } => {
                (reason, text, codes(kind).publish_3(self.client.version))
            }
        };
        self.shared.counters.publishes_dropped.add(1);
        if self.client.is_v5() || publish_3 == Publish3::Acknowledge {
            if publish.qos > 0 {
                let reason = if self.client.is_v5() { reason } else { Reason::SUCCESS };
                self.done(publish, reason, &text, effects);
            }
            return Ok(());
        }
        self.give_up(publish_3, &text, now, effects);
        Ok(())
    }

    /// Ends an acknowledged publish without the broker.
    fn done(&mut self, publish: &Publish<'_>, reason: Reason, text: &str, effects: &mut Effects) {
        let told = Told::problem(self.client.problem(text));
        self.inbound.pending.push_back(Pending {
            number: self.inbound.last_number,
            packet_id: publish.packet_id,
            qos: publish.qos,
            asked: false,
            done: Some(Done { reason, told }),
        });
        self.send_acks(effects);
    }

    /// Publishes `first` to `last` have ended alike.
    pub(crate) fn on_confirmed(
        &mut self,
        first: u64,
        last: u64,
        outcome: PublishOutcome,
        now: Now,
        effects: &mut Effects,
    ) {
        match outcome {
            PublishOutcome::Routed(kept) => self.settle_publishes(first, last, |asked| Done {
                reason: Reason::SUCCESS,
                told: Told::kept(kept, asked),
            }),
            PublishOutcome::Unrouted => self.settle_publishes(first, last, |_| Done {
                reason: Reason::NO_MATCHING_SUBSCRIBERS,
                told: Told::Nothing,
            }),
            PublishOutcome::Refused(kind) => {
                self.refused(first, last, kind, "the publish was refused", now, effects);
            }
        }
        self.send_acks(effects);
    }

    /// A publish broke a rule of the broker.
    pub(crate) fn on_publish_refused(
        &mut self,
        number: u64,
        refusal: &Refusal,
        now: Now,
        effects: &mut Effects,
    ) {
        self.refused(number, number, refusal.kind, &refusal.text, now, effects);
        self.send_acks(effects);
    }

    fn refused(
        &mut self,
        first: u64,
        last: u64,
        kind: RefusalKind,
        text: &str,
        now: Now,
        effects: &mut Effects,
    ) {
        let row = codes(kind);
        if first == 0 {
            self.shared.counters.publishes_dropped.add(1);
        }
        if self.client.is_v5() {
            // PUBACK has no code for this.
            if kind == RefusalKind::TooLarge {
                return self.disconnect(row.disconnect, "too_large", text, effects);
            }
            let text = self.client.problem(text).map(str::to_owned);
            return self.settle_publishes(first, last, |_| Done {
                reason: row.publish,
                told: Told::problem(text.as_deref()),
            });
        }
        match row.publish_3(self.client.version) {
            Publish3::Acknowledge => self.settle_publishes(first, last, |_| Done {
                reason: Reason::SUCCESS,
                told: Told::Nothing,
            }),
            // A publish of quality of service 0 may get lost; the connection need not.
            Publish3::Stall if first == 0 => {}
            other => self.give_up(other, text, now, effects),
        }
    }

    /// Leaves a publish of MQTT 3 unanswered.
    fn give_up(&mut self, how: Publish3, text: &str, now: Now, effects: &mut Effects) {
        match how {
            Publish3::Acknowledge => {}
            Publish3::Stall => {
                self.keep_alive.stall(now.instant, self.limits.refused_publish_wait);
            }
            Publish3::Close => self.close("publish_refused", text, effects),
        }
    }

    /// Notes how publishes have ended; `how` is told of each whether it asked for a class.
    fn settle_publishes(&mut self, first: u64, last: u64, how: impl Fn(bool) -> Done) {
        let pending = &mut self.inbound.pending;
        let at = pending.partition_point(|entry| entry.number < first);
        for entry in pending.range_mut(at..).take_while(|entry| entry.number <= last) {
            if entry.done.is_none() {
                entry.done = Some(how(entry.asked));
            }
        }
    }

    /// Sends the acknowledgements that are ready, in the order in which their publishes came.
    fn send_acks(&mut self, effects: &mut Effects) {
        while let Some(Pending { packet_id, qos, done: Some(done), .. }) =
            self.inbound.pending.pop_front_if(|pending| pending.done.is_some())
        {
            let kind = if qos == 2 { PacketKind::Pubrec } else { PacketKind::Puback };
            let reason = if self.client.is_v5() { done.reason } else { Reason::SUCCESS };
            let properties = done.told.properties(&self.client);
            put_ack(effects.out.frame(), kind, packet_id, reason, properties.as_ref());
            let inbound = &mut self.inbound;
            if qos == 1 {
                inbound.in_use = inbound.in_use.saturating_sub(1);
            } else if reason.is_error() {
                inbound.forget(packet_id);
            } else if let Some(received) = inbound.received.get_mut(&packet_id) {
                received.is_pending = false;
                if received.is_released {
                    self.on_pubrel(packet_id, effects);
                }
            }
        }
    }

    /// PUBREL: the client will not send this packet again.
    pub(crate) fn on_pubrel(&mut self, packet_id: u16, effects: &mut Effects) {
        let received = self.inbound.received.get_mut(&packet_id);
        if let Some(received) = received {
            // It should have waited for PUBREC [MQTT-4.3.3-4]. To answer before that would leave a
            // packet identifier behind that the client takes for free.
            if received.is_pending {
                received.is_released = true;
                return;
            }
            self.inbound.forget(packet_id);
            // Once PUBCOMP is out the client uses the packet identifier again, so no crash may
            // bring it back.
            let request = self.outbound.outlives().then(|| self.asked.ask(Ask::Remember));
            effects.commands.push(Command::ReleaseReceived { request, packet_id });
            if let Some(request) = request {
                return self.outbound.complete_later(request, packet_id);
            }
            put_pubcomp(packet_id, Reason::SUCCESS, effects);
        } else {
            let reason = match self.client.is_v5() {
                true => Reason::PACKET_ID_NOT_FOUND,
                false => Reason::SUCCESS,
            };
            put_pubcomp(packet_id, reason, effects);
        }
    }
}

pub(crate) fn put_pubcomp(packet_id: u16, reason: Reason, effects: &mut Effects) {
    put_ack(effects.out.frame(), PacketKind::Pubcomp, packet_id, reason, None);
}

impl Inbound {
    fn forget(&mut self, packet_id: u16) {
        if self.received.remove(&packet_id).is_some_and(|received| received.is_counted) {
            self.in_use = self.in_use.saturating_sub(1);
        }
    }
}
