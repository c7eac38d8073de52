//! The protocol state of one connection.
//!
//! ```text
//!         CONNECT            vhost, client session open: CONNACK
//!   Fresh ---------> Connecting ----------------------> Open
//!     |               |  ^  |                             |
//!     |               |  |  |                             | DISCONNECT, fault, keep alive,
//!     | fault         v  |  | refused                     | takeover, the server stops
//!     |        challenge AUTH                             |
//!     +---------------------+-----------------------------+------> Closed
//! ```
//!
//! While an answer of the broker is due that the client must see first (a step of the login,
//! SUBACK, UNSUBACK), no further packet is taken.

use std::{sync::Arc, time::Instant};

use bytes::{Buf, Bytes, BytesMut};
use polymq_contract::{
    CancelReason, Command, DisconnectCause, Effects, Event, EventBatch, Peer, ProtocolSession,
    Timeout,
};
use polymq_model::{
    ConsumerId, Limits, Now, limits::RAISE_LOGIN_SIZE, message::INLINE_BODY_BYTES_MAX,
};

use crate::{
    Shared,
    answers::ReLogin,
    ask::Asked,
    client::Client,
    codec::{
        Fault, Header, PacketKind, Reason, Version,
        ack::{Ack, Disconnect},
        writer::{put_pingresp, put_reason, reason_string},
    },
    connect::Connecting,
    keep_alive::KeepAlive,
    publish_in::Inbound,
    publish_out::Outbound,
    subscriptions::{SESSION_QUEUE, Subscriptions},
};

/// Bytes a packet may have beside its payload.
const PACKET_HEAD_BYTES_MAX: usize = 128 * 1024;

/// Where the connection stands.
pub(crate) enum Phase {
    /// No CONNECT has come.
    Fresh,
    /// CONNECT has come; login and session are under way.
    Connecting(Box<Connecting>),
    /// CONNACK has been sent.
    Open,
    /// Nothing more is read.
    Closed,
}

/// Protocol state of one MQTT connection.
pub struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) peer: Arc<Peer>,
    pub(crate) phase: Phase,
    pub(crate) client: Client,
    pub(crate) asked: Asked,
    pub(crate) inbound: Inbound,
    pub(crate) outbound: Outbound,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) keep_alive: KeepAlive,
    /// The client session is open and not closed yet.
    pub(crate) has_client_session: bool,
    pub(crate) re_login: ReLogin,
    /// Since when another connection waits for the client session.
    taken_over: Option<Instant>,
}

impl Session {
    /// A session for a new connection.
    pub(crate) fn new(shared: Arc<Shared>, peer: Arc<Peer>, limits: Arc<Limits>, now: Now) -> Self {
        let keep_alive = KeepAlive::new(now.instant, limits.login_timeout);
        Self {
            shared,
            limits,
            peer,
            phase: Phase::Fresh,
            client: Client::default(),
            asked: Asked::default(),
            inbound: Inbound::default(),
            outbound: Outbound::default(),
            subscriptions: Subscriptions::default(),
            keep_alive,
            has_client_session: false,
            re_login: ReLogin::default(),
            taken_over: None,
        }
    }

    /// Largest packet the client may send now.
    pub(crate) fn packet_bytes_max(&self) -> usize {
        match self.phase {
            Phase::Open => {
                let max = self.limits.message_bytes_max.saturating_add(PACKET_HEAD_BYTES_MAX);
                max.min(crate::codec::writer::VAR_INT_MAX)
            }
            Phase::Fresh | Phase::Connecting(_) | Phase::Closed => {
                self.limits.login_frame_bytes_max
            }
        }
    }

    /// User properties a packet may have now.
    pub(crate) fn entries_max(&self) -> usize {
        match self.phase {
            Phase::Open => self.limits.table_entries_max,
            Phase::Fresh | Phase::Connecting(_) | Phase::Closed => {
                self.limits.table_entries_max.min(128)
            }
        }
    }

    /// True while packets must wait.
    fn is_waiting(&self) -> bool {
        self.asked.holds_packets() || self.keep_alive.is_stalled()
    }

    fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Takes whole packets from the front of `input`.
    fn take_packets(
        &mut self,
        input: &mut BytesMut,
        now: Now,
        effects: &mut Effects,
    ) -> Result<(), Fault> {
        let (mut at, mut count) = (0, 0);
        let mut result = Ok(());
        while result.is_ok() && !self.is_closed() && !self.is_waiting() {
            let bytes = input.get(at..).unwrap_or_default();
            let header = match self.header(bytes) {
                Ok(Some(header)) => header,
                Ok(None) => break,
                Err(fault) => {
                    result = Err(fault);
                    break;
                }
            };
            let Some(packet) = bytes.get(..header.total()) else { break };
            self.keep_alive.packet_came(now.instant);
            count += 1;
            let is_large = header.kind == PacketKind::Publish
                && header.remaining > INLINE_BODY_BYTES_MAX
                && matches!(self.phase, Phase::Open);
            if is_large {
                // A long payload stays a slice of the read buffer instead of being copied.
                input.advance(at);
                at = 0;
                let packet = input.split_to(header.total()).freeze();
                result = self.on_publish(&header, &packet, Some(&packet), now, effects);
            } else {
                let body = packet.get(header.len..).unwrap_or_default();
                result = match (header.kind, &self.phase) {
                    (PacketKind::Publish, Phase::Open) => {
                        self.on_publish(&header, packet, None, now, effects)
                    }
                    _ => self.on_packet(&header, body, now, effects),
                };
                at += header.total();
            }
        }
        input.advance(at.min(input.len()));
        self.shared.counters.frames_in.add(count);
        result
    }

    /// Reads a fixed header and refuses what is too long before it has arrived.
    fn header(&mut self, bytes: &[u8]) -> Result<Option<Header>, Fault> {
        let Some(header) = Header::decode(bytes)? else { return Ok(None) };
        if matches!(self.phase, Phase::Fresh) {
            // The first packet must be CONNECT [MQTT-3.1.0-1].
            if header.kind != PacketKind::Connect {
                return Err(Fault::protocol("the first packet is not CONNECT"));
            }
            if header.flags != 0 {
                return Err(Fault::malformed("reserved flags of the fixed header are set"));
            }
        } else {
            header.check(self.client.version)?;
        }
        let max = self.packet_bytes_max();
        if header.total() > max {
            let mut text =
                format!("the packet has {} bytes, at most {max} are taken", header.total());
            if matches!(self.phase, Phase::Fresh) {
                // How it is refused depends on the version, which comes first.
                let start = bytes.get(header.len..).unwrap_or_default();
                let Some(version) = Version::at_front(start) else { return Ok(None) };
                self.client.version = version;
            }
            if !matches!(self.phase, Phase::Open) {
                text.push_str(RAISE_LOGIN_SIZE);
            }
            return Err(Fault::new(Reason::PACKET_TOO_LARGE, text));
        }
        Ok(Some(header))
    }

    fn on_packet(
        &mut self,
        header: &Header,
        body: &[u8],
        now: Now,
        effects: &mut Effects,
    ) -> Result<(), Fault> {
        match self.phase {
            Phase::Fresh => return self.on_connect(header, body, now, effects),
            Phase::Connecting(_) => return self.on_packet_before_connack(header, body, effects),
            Phase::Closed => return Ok(()),
            Phase::Open => {}
        }
        let entries_max = self.entries_max();
        let version = self.client.version;
        match header.kind {
            PacketKind::Puback | PacketKind::Pubrec | PacketKind::Pubrel | PacketKind::Pubcomp => {
                let ack = Ack::decode(header.kind, body, version, entries_max)?;
                self.on_ack(header.kind, ack, now, effects)
            }
            PacketKind::Subscribe => self.on_subscribe(body, effects),
            PacketKind::Unsubscribe => self.on_unsubscribe(body, effects),
            PacketKind::Pingreq => {
                if !body.is_empty() {
                    return Err(Fault::malformed("PINGREQ is not empty"));
                }
                put_pingresp(effects.out.frame());
                Ok(())
            }
            PacketKind::Disconnect => {
                let disconnect = Disconnect::decode(body, version, entries_max)?;
                self.on_disconnect_packet(disconnect, effects)
            }
            PacketKind::Auth => self.on_re_authenticate(body, effects),
            // [MQTT-3.1.0-2]
            PacketKind::Connect => Err(Fault::protocol("CONNECT came twice")),
            PacketKind::Connack
            | PacketKind::Publish
            | PacketKind::Suback
            | PacketKind::Unsuback
            | PacketKind::Pingresp => {
                Err(Fault::protocol("only a server sends packets of this type"))
            }
        }
    }

    /// DISCONNECT from the client: section 3.14.
    fn on_disconnect_packet(
        &mut self,
        disconnect: Disconnect,
        effects: &mut Effects,
    ) -> Result<(), Fault> {
        let expiry = disconnect.session_expiry_secs;
        if self.client.session_expiry_secs == 0 && expiry.is_some_and(|secs| secs != 0) {
            return Err(Fault::protocol("DISCONNECT sets a session expiry that CONNECT had not"));
        }
        let expiry = expiry.map(|secs| secs.min(self.limits.session_expiry_max_secs));
        // [MQTT-3.14.4-3]: the will goes without being published only after a normal disconnection.
        let will = disconnect.reason != Reason::SUCCESS;
        self.leave_client_session(will, expiry, effects);
        self.phase = Phase::Closed;
        effects.close_after_flush("client", "the client disconnected");
        Ok(())
    }

    /// Gives the client session back to the broker, once.
    pub(crate) fn leave_client_session(
        &mut self,
        will: bool,
        expiry_secs: Option<u32>,
        effects: &mut Effects,
    ) {
        if std::mem::take(&mut self.has_client_session) {
            let is_shared = |consumer| self.subscriptions.is_shared(consumer);
            let in_flight = self.outbound.in_flight(is_shared);
            effects.commands.push(Command::CloseClientSession { in_flight, will, expiry_secs });
        }
    }

    /// Ends the connection because of something the client did wrong.
    fn fail(&mut self, fault: Fault, effects: &mut Effects) {
        self.shared.counters.faults.add(1);
        let Fault { reason, text, .. } = &fault;
        tracing::debug!(event = "protocol_error", reason = reason.0, %text, "mqtt fault");
        match self.phase {
            Phase::Fresh if fault.reason == Reason::PACKET_TOO_LARGE => {
                self.refuse_connect(self.client.version, fault.reason, &fault.text, effects);
            }
            Phase::Fresh | Phase::Closed => self.close("protocol_error", &fault.text, effects),
            Phase::Connecting(_) => {
                self.refuse_connect(self.client.version, fault.reason, &fault.text, effects);
            }
            Phase::Open => self.disconnect(fault.reason, "protocol_error", &fault.text, effects),
        }
    }

    /// Sends DISCONNECT where the version has it, and closes.
    pub(crate) fn disconnect(
        &mut self,
        reason: Reason,
        cause: &'static str,
        text: &str,
        effects: &mut Effects,
    ) {
        if self.client.is_v5() && matches!(self.phase, Phase::Open) {
            let properties = reason_string(self.client.problem(text));
            put_reason(effects.out.frame(), PacketKind::Disconnect, reason, &properties);
        }
        self.close(cause, text, effects);
    }

    pub(crate) fn close(&mut self, cause: &'static str, text: &str, effects: &mut Effects) {
        self.phase = Phase::Closed;
        effects.close_after_flush(cause, text);
    }

    fn on_event(&mut self, event: Event, now: Now, effects: &mut Effects) {
        match event {
            Event::Delivered(delivery) => self.deliver(delivery, now, effects),
            Event::Broadcast { matched, batch, .. } => {
                self.broadcast(&matched, &batch, now, effects);
            }
            Event::Confirmed { first, last, outcome, .. } => {
                self.on_confirmed(first, last, outcome, now, effects);
            }
            Event::PublishRefused { number, refusal, .. } => {
                self.on_publish_refused(number, &refusal, now, effects);
            }
            Event::Answered { request, answer } => {
                self.on_answer(request, *answer, now, effects);
            }
            Event::ConsumerCancelled { consumer, reason } => {
                self.on_consumer_cancelled(consumer, reason, effects);
            }
            Event::Blocked { .. } => self.keep_alive.pause(),
            Event::Unblocked => self.keep_alive.resume(now.instant),
            // A client that comes back at once may have said good-bye here: what has arrived is
            // read before the time is looked at.
            Event::TakenOver if matches!(self.phase, Phase::Open) => {
                self.taken_over.get_or_insert(now.instant);
            }
            Event::Passed(_) | Event::Placed { .. } => {}
            Event::TakenOver => {
                if let Phase::Connecting(_) = self.phase {
                    let text = "another connection has come for this client identifier";
                    return self.refuse_connect(
                        self.client.version,
                        Reason::SERVER_UNAVAILABLE,
                        text,
                        effects,
                    );
                }
                self.give_way(effects);
            }
            Event::Closing { reason, shutdown } => {
                let (code, cause) = match shutdown {
                    true => (Reason::SERVER_SHUTTING_DOWN, "shutdown"),
                    false => (Reason::ADMINISTRATIVE_ACTION, "administrator"),
                };
                if let Phase::Connecting(_) = self.phase {
                    let code = Reason::SERVER_UNAVAILABLE;
                    self.refuse_connect(self.client.version, code, &reason, effects);
                }
                self.disconnect(code, cause, &reason, effects);
            }
            // Publishes of MQTT are never mandatory.
            Event::Returned { .. } => {}
        }
    }

    /// Leaves the client session to another connection.
    fn give_way(&mut self, effects: &mut Effects) {
        let text = "another connection uses this client identifier";
        self.disconnect(Reason::SESSION_TAKEN_OVER, "taken_over", text, effects);
        self.leave_client_session(true, None, effects);
    }

    fn on_consumer_cancelled(
        &mut self,
        consumer: ConsumerId,
        reason: CancelReason,
        effects: &mut Effects,
    ) {
        if consumer == SESSION_QUEUE && reason == CancelReason::Denied {
            let text = "a subscription has ended: the user may not read its topics any more";
            return self.disconnect(Reason::NOT_AUTHORIZED, "consumer_cancelled", text, effects);
        }
        let Some(filter) = self.subscriptions.filter_of(consumer) else { return };
        let (code, why) = match reason {
            CancelReason::QueueDeleted => (Reason::ADMINISTRATIVE_ACTION, "its queue was deleted"),
            CancelReason::Timeout => {
                (Reason::ADMINISTRATIVE_ACTION, "a message was not acknowledged in time")
            }
            CancelReason::Denied => (Reason::NOT_AUTHORIZED, "the user may not read it any more"),
            CancelReason::Administrator => {
                (Reason::ADMINISTRATIVE_ACTION, "an administrator ended it")
            }
        };
        let text = format!("the subscription `{filter}` has ended: {why}");
        self.disconnect(code, "consumer_cancelled", &text, effects);
    }

    /// The login's or the client's time is over.
    fn on_time(&mut self, now: Instant, effects: &mut Effects) {
        match self.phase {
            Phase::Fresh | Phase::Connecting(_) => {
                if self.keep_alive.login_is_over(now) {
                    self.close("login_timeout", "the client did not log in in time", effects);
                }
            }
            Phase::Open if self.taken_over.is_some() => self.give_way(effects),
            Phase::Open if self.keep_alive.stall_is_over(now) => {
                let text = "a publish was refused because there was no room for it";
                self.disconnect(Reason::QUOTA_EXCEEDED, "publish_refused", text, effects);
            }
            Phase::Open if self.keep_alive.client_is_gone(now) => {
                // While packets wait on our side their absence proves nothing.
                if self.is_waiting() || self.inbound.awaits_confirms() {
                    self.keep_alive.packet_came(now);
                    return;
                }
                let text = "no packet came within one and a half keep alive intervals";
                self.disconnect(Reason::KEEP_ALIVE_TIMEOUT, "keep_alive", text, effects);
            }
            Phase::Open | Phase::Closed => {}
        }
    }
}

impl ProtocolSession for Session {
    fn on_bytes(&mut self, input: &mut BytesMut, now: Now, effects: &mut Effects) {
        if let Err(fault) = self.take_packets(input, now, effects) {
            self.fail(fault, effects);
        }
        if self.is_closed() {
            input.clear();
        }
        effects.waiting = self.is_waiting();
        self.shared.counters.moved(0, &mut effects.out);
    }

    fn on_events(&mut self, events: &mut EventBatch, now: Now, effects: &mut Effects) {
        while effects.out.len() <= self.limits.output_bytes_max && !self.is_closed() {
            let Some(event) = events.pop() else { break };
            self.on_event(event, now, effects);
        }
        if self.is_closed() {
            while events.pop().is_some() {}
        }
        // The driver calls with what was left of the input because this was set, and clears it
        // then.
        effects.waiting |= self.is_waiting();
        self.shared.counters.moved(0, &mut effects.out);
    }

    fn on_timeout(&mut self, now: Now, effects: &mut Effects) {
        self.on_time(now.instant, effects);
        // The driver calls with what was left of the input because this was set, and clears it
        // then.
        effects.waiting |= self.is_waiting();
        self.shared.counters.moved(0, &mut effects.out);
    }

    fn next_timeout(&self) -> Option<Timeout> {
        match self.phase {
            Phase::Fresh | Phase::Connecting(_) => Some(self.keep_alive.login_timeout()),
            Phase::Open => match self.taken_over {
                Some(at) => Some(Timeout { at, reason: "taken_over" }),
                None => self.keep_alive.next_timeout(),
            },
            Phase::Closed => None,
        }
    }

    fn on_disconnect(&mut self, _cause: DisconnectCause, effects: &mut Effects) {
        self.phase = Phase::Closed;
        self.leave_client_session(true, None, effects);
    }
}

/// A payload that shares the packet's memory, when the packet is given by reference.
pub(crate) fn shared_slice(packet: Option<&Bytes>, part: &[u8]) -> Option<Bytes> {
    packet.filter(|_| part.len() > INLINE_BODY_BYTES_MAX).map(|packet| packet.slice_ref(part))
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("client", &self.client).finish_non_exhaustive()
    }
}
