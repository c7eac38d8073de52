//! The protocol state of one connection.
//!
//! ```text
//!          CONNECT, STOMP        user, then virtual host: CONNECTED
//!   Fresh ---------------> Connecting -----------------------------> Open
//!     |                        |                                     |  | DISCONNECT with receipt
//!     | ERROR                  | ERROR                         ERROR |  v
//!     |                        |                                     | Leaving
//!     +------------------------+-------------------------------------+--+------> Closed
//! ```
//!
//! ERROR always ends the connection, and nothing that the client had sent behind the frame that
//! failed happens. A frame that needs an answer of the broker before it can be dealt with stays in
//! the input, and is read again when the answer has come.

use std::{sync::Arc, time::Instant};

use bytes::{Buf, Bytes, BytesMut};
use hashbrown::{HashMap, HashSet};
use polymq_contract::{
    Answer, CancelReason, Command as Order, DisconnectCause, Effects, Event, EventBatch, Peer,
    ProtocolSession, PublishOutcome, Refusal, Timeout,
};
use polymq_model::{ConsumerId, Limits, Now, RequestId};

use crate::{
    Shared,
    codec::{
        Bounds, Command, Frame, HeaderAt, HeaderBounds, Splitter, Version,
        writer::{Error, put_error},
    },
    deliver::LastOrigin,
    heart_beat::HeartBeat,
    queues::{Ensuring, TempQueue, TempQueueStep},
    receipts::Receipts,
    refusal::{Failure, Step},
    route::LastRoute,
    send::PUBLISHER,
    subscribe::Subscribing,
    subscription::Subscriptions,
    transaction::Transactions,
};

/// Bodies up to this size are copied out of the read buffer; a slice would pin a large buffer for a
/// small message.
const COPIED_BODY_BYTES_MAX: usize = 16 * 1024;

/// Where the conversation stands; drawn above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Fresh,
    Connecting,
    Open,
    Leaving,
    Closed,
}

/// What the broker owes an answer to, while no frame is taken.
#[derive(Debug)]
pub(crate) enum Pending {
    Login,
    Vhost,
    Ensure(Ensuring),
    TempQueue(TempQueueStep),
    Subscribe(Box<Subscribing>),
}

/// Why a frame is not done.
#[derive(Debug)]
pub(crate) enum Later {
    /// It is read again after an answer of the broker.
    Wait,
    /// It ends the connection.
    Failure(Box<Failure>),
}

impl From<Box<Failure>> for Later {
    fn from(failure: Box<Failure>) -> Self {
        Self::Failure(failure)
    }
}

/// Protocol state of one STOMP connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) peer: Arc<Peer>,
    /// Tells this connection from others, in what the server names.
    pub(crate) name: String,
    pub(crate) phase: Phase,
    pub(crate) version: Version,
    pub(crate) user: String,
    pub(crate) impersonator: bool,
    /// The virtual host asked for.
    pub(crate) host: Option<String>,
    /// What the client can send and wants to have, in ms.
    pub(crate) heart_beats_asked: (u32, u32),
    pub(crate) heart_beat: HeartBeat,
    pub(crate) pending: Option<(RequestId, Pending)>,
    /// The header `receipt` of the frame that waits for it.
    pub(crate) pending_receipt: Option<Box<str>>,
    pub(crate) receipts: Receipts,
    pub(crate) last_route: LastRoute,
    pub(crate) last_origin: LastOrigin,
    /// Queues that are known to be there.
    pub(crate) known_queues: HashSet<Box<str>>,
    pub(crate) temp_queues: HashMap<Box<str>, TempQueue>,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) transactions: Transactions,
    /// Bytes of the message being built.
    pub(crate) scratch: Vec<u8>,
    /// Headers that travel on.
    pub(crate) native: Vec<u8>,
    splitter: Splitter,
    places: Vec<HeaderAt>,
    login_until: Instant,
    /// Publishes wait, so the driver does not read.
    is_blocked: bool,
    next_request: u32,
    /// Bytes of a partial frame left in the input after the last call.
    left: usize,
}

impl Session {
    pub(crate) fn new(
        shared: Arc<Shared>,
        peer: Arc<Peer>,
        limits: Arc<Limits>,
        name: String,
        now: Now,
    ) -> Self {
        Self {
            login_until: now.instant + limits.login_timeout,
            shared,
            limits,
            peer,
            name,
            phase: Phase::Fresh,
            version: Version::V10,
            user: String::new(),
            impersonator: false,
            host: None,
            heart_beats_asked: (0, 0),
            heart_beat: HeartBeat::off(now.instant),
            pending: None,
            pending_receipt: None,
            receipts: Receipts::default(),
            last_route: LastRoute::default(),
            last_origin: LastOrigin::default(),
            known_queues: HashSet::new(),
            temp_queues: HashMap::new(),
            subscriptions: Subscriptions::default(),
            transactions: Transactions::default(),
            scratch: Vec::new(),
            native: Vec::new(),
            splitter: Splitter::default(),
            places: Vec::new(),
            is_blocked: false,
            next_request: 0,
            left: 0,
        }
    }

    /// A number for a request that does not hold frames back.
    pub(crate) fn fresh_request(&mut self) -> RequestId {
        self.next_request = self.next_request.wrapping_add(1);
        RequestId(self.next_request)
    }

    /// A number for a request whose answer is due before the next frame.
    pub(crate) fn ask(&mut self, pending: Pending) -> RequestId {
        let request = self.fresh_request();
        self.pending = Some((request, pending));
        request
    }

    fn bounds(&self) -> Bounds {
        let limits = &self.limits;
        match self.phase {
            Phase::Fresh | Phase::Connecting => Bounds {
                head_bytes_max: limits.login_header_bytes_max.min(limits.login_frame_bytes_max),
                body_bytes_max: limits.login_header_bytes_max.min(limits.login_frame_bytes_max),
            },
            Phase::Open | Phase::Leaving | Phase::Closed => Bounds {
                head_bytes_max: limits.header_bytes_max.saturating_add(Command::BYTES_MAX + 2),
                body_bytes_max: limits.message_bytes_max,
            },
        }
    }

    fn header_bounds(&self) -> HeaderBounds {
        let headers_max = match self.phase {
            Phase::Fresh | Phase::Connecting => self.limits.login_headers_max,
            Phase::Open | Phase::Leaving | Phase::Closed => self.limits.headers_max,
        };
        HeaderBounds { headers_max }
    }

    fn is_waiting(&self) -> bool {
        self.pending.is_some() || self.phase == Phase::Leaving || self.receipts.is_full()
    }

    /// Takes whole frames from the front of `input`.
    fn take_frames(&mut self, input: &mut BytesMut, now: Now, effects: &mut Effects) {
        let mut places = std::mem::take(&mut self.places);
        let mut at = 0;
        while self.phase != Phase::Closed && !self.is_waiting() {
            at += ends_of_lines(input.get(at..).unwrap_or_default());
            let bytes = input.get(at..).unwrap_or_default();
            let whole = match self.splitter.find(bytes, self.bounds()) {
                Ok(Some(whole)) => whole,
                Ok(None) => break,
                Err(error) => {
                    self.fail(&Box::<Failure>::from(error), receipt_of(bytes), effects);
                    break;
                }
            };
            let size = whole.size();
            let is_large = whole.body_bytes > COPIED_BODY_BYTES_MAX && self.phase == Phase::Open;
            let (version, bounds) = (self.version, self.header_bounds());
            let mut taken = None;
            if is_large {
                // A long body stays a slice of the read buffer, so its frame is taken out of it;
                // put back are only frames that have to wait.
                input.advance(at);
                at = 0;
                taken = Some(input.split_to(size).freeze());
            }
            let bytes = match &taken {
                Some(taken) => taken,
                None => input.get(at..).unwrap_or_default(),
            };
            let done = match Frame::parse(bytes, whole, version, bounds, &mut places) {
                Ok(frame) => self.on_frame(&frame, taken.as_ref(), now, effects),
                Err(error) => Err(Later::Failure(error.into())),
            };
            let receipt = || receipt_of(bytes);
            match done {
                Ok(()) if taken.is_some() => {}
                Ok(()) => at += size,
                Err(Later::Failure(failure)) => self.fail(&failure, receipt(), effects),
                Err(Later::Wait) => {
                    self.pending_receipt = receipt().map(Into::into);
                    if let Some(taken) = taken {
                        put_back(taken, input);
                    }
                }
            }
        }
        input.advance(at.min(input.len()));
        self.places = places;
    }

    fn on_frame(
        &mut self,
        frame: &Frame<'_>,
        shared: Option<&Bytes>,
        now: Now,
        effects: &mut Effects,
    ) -> Result<(), Later> {
        if self.phase == Phase::Fresh {
            return Ok(self.on_connect(frame, effects)?);
        }
        if self.version != Version::V10 && !frame.body.is_empty() && frame.command != Command::Send
        {
            let text = format!("{} must not have a body", frame.command.as_str());
            return Err(Failure::malformed(text).into());
        }
        match frame.command {
            Command::Send => return self.on_send(frame, shared, now, effects),
            Command::Subscribe => return self.on_subscribe(frame, effects),
            Command::Ack => self.on_ack(frame, effects)?,
            Command::Nack => self.on_nack(frame, effects)?,
            Command::Unsubscribe => self.on_unsubscribe(frame, effects)?,
            Command::Begin => self.on_begin(frame)?,
            Command::Commit => self.on_commit(frame, effects)?,
            Command::Abort => self.on_abort(frame)?,
            Command::Disconnect => self.on_good_bye(frame, effects),
            Command::Connect => {
                return Err(Failure::unexpected("the connection is connected already").into());
            }
        }
        Ok(())
    }

    /// Sends ERROR and ends the connection. `receipt` is the header of the frame that caused it.
    pub(crate) fn fail(&mut self, failure: &Failure, receipt: Option<&str>, effects: &mut Effects) {
        if self.phase == Phase::Closed {
            return;
        }
        self.shared.counters.faults.add(1);
        tracing::debug!(message = failure.message, detail = %failure.detail, "stomp error");
        self.receipts.put(effects.out.buffer());
        let error = Error {
            version: self.version,
            message: failure.message,
            detail: &failure.detail,
            receipt,
            names_versions: failure.names_versions,
        };
        put_error(&error, effects.out.buffer());
        self.close("protocol_error", &failure.detail, effects);
    }

    pub(crate) fn close(&mut self, cause: &'static str, text: &str, effects: &mut Effects) {
        self.phase = Phase::Closed;
        self.pending = None;
        effects.close_after_flush(cause, text);
    }

    /// Fails on behalf of the frame that waits for an answer.
    pub(crate) fn fail_pending(&mut self, failure: &Failure, effects: &mut Effects) {
        let receipt = self.pending_receipt.take();
        self.fail(failure, receipt.as_deref(), effects);
    }

    fn on_event(&mut self, event: Event, now: Now, effects: &mut Effects) {
        match event {
            Event::Delivered(delivery) => self.deliver(&delivery, now, effects),
            Event::Confirmed { first, last, outcome, kept, .. } => match outcome {
                PublishOutcome::Routed => self.receipts.confirmed(first, last, Some(kept)),
                PublishOutcome::Unrouted => self.receipts.confirmed(first, last, None),
                PublishOutcome::Refused(kind) => {
                    let failure = Failure::of_kind(kind, "the message was not taken");
                    self.fail_publish(first, &failure, effects);
                }
            },
            Event::PublishRefused { number, refusal, .. } => {
                self.fail_publish(number, &Failure::refused(&refusal), effects);
            }
            Event::Answered { request, answer } => self.on_answer(request, *answer, now, effects),
            Event::ConsumerCancelled { consumer, reason } => {
                self.on_consumer_cancelled(consumer, reason, effects);
            }
            Event::Blocked { .. } => self.is_blocked = true,
            Event::Unblocked => {
                self.is_blocked = false;
                self.heart_beat.received(now.instant);
            }
            Event::Closing { reason, .. } => {
                self.fail(&Failure::closing(&reason), None, effects);
            }
            // Nothing is published as mandatory, and no client session is opened.
            Event::Returned { .. } | Event::Broadcast { .. } | Event::TakenOver => {}
        }
    }

    /// A publish was refused: its connection ends, and the broker has dropped what came behind it.
    fn fail_publish(&mut self, number: u64, failure: &Failure, effects: &mut Effects) {
        let receipt = self.receipts.of_publish(number).map(str::to_owned);
        self.fail(failure, receipt.as_deref(), effects);
    }

    fn on_answer(
        &mut self,
        request: RequestId,
        answer: Result<Answer, Refusal>,
        now: Now,
        effects: &mut Effects,
    ) {
        if self.phase == Phase::Closed {
            return;
        }
        let Some((_, pending)) = self.pending.take_if(|(pending, _)| *pending == request) else {
            return self.on_late_answer(request, answer, effects);
        };
        let step = match pending {
            Pending::Login => self.on_logged_in(answer, effects),
            Pending::Vhost => self.on_vhost(answer, now, effects),
            Pending::Ensure(ensuring) => self.on_ensured(ensuring, answer, effects),
            Pending::TempQueue(step) => self.on_temp_queue(step, answer, effects),
            Pending::Subscribe(subscribing) => self.on_subscribing(subscribing, answer, effects),
        };
        if let Err(failure) = step {
            self.fail_pending(&failure, effects);
        }
        // The receipt of a subscription comes before its first message.
        self.put_receipts(effects);
    }

    /// An answer that no frame was held back for.
    fn on_late_answer(
        &mut self,
        request: RequestId,
        answer: Result<Answer, Refusal>,
        effects: &mut Effects,
    ) {
        match answer {
            Ok(_) => {
                self.receipts.answered(request);
            }
            Err(refusal) => {
                let receipt = self.receipts.of_request(request).map(str::to_owned);
                self.fail(&Failure::refused(&refusal), receipt.as_deref(), effects);
            }
        }
    }

    fn on_consumer_cancelled(
        &mut self,
        consumer: ConsumerId,
        reason: CancelReason,
        effects: &mut Effects,
    ) {
        let Some(what) = self.subscriptions.describe(consumer) else { return };
        let why = match reason {
            CancelReason::QueueDeleted => "its queue was deleted",
            CancelReason::Timeout => "a message was not acknowledged in time",
            CancelReason::Denied => "the user may not read it any more",
        };
        self.fail(&Failure::cancelled(format!("{what} has ended: {why}")), None, effects);
    }

    fn on_time(&mut self, now: Instant, effects: &mut Effects) {
        match self.phase {
            Phase::Fresh | Phase::Connecting if now >= self.login_until => {
                self.close("login_timeout", "the client did not log in in time", effects);
            }
            Phase::Open | Phase::Leaving => {
                // While nothing is read the silence of a client proves nothing.
                let is_unheard = self.is_blocked
                    || self.is_waiting()
                    || self.receipts.is_waiting()
                    || effects.out.len() >= self.limits.output_bytes_max;
                if is_unheard {
                    self.heart_beat.received(now);
                }
                if self.heart_beat.is_client_gone(now) {
                    self.close("heart_beat", "no heart-beat of the client in time", effects);
                } else if self.heart_beat.is_due(now) {
                    effects.out.buffer().extend_from_slice(b"\n");
                }
            }
            Phase::Fresh | Phase::Connecting | Phase::Closed => {}
        }
    }

    fn put_receipts(&mut self, effects: &mut Effects) {
        if self.phase != Phase::Closed && self.receipts.put(effects.out.buffer()) {
            self.close("client", "the client disconnected", effects);
        }
    }

    /// What every call ends with. `waiting` is only ever set here: the driver clears it.
    fn settle_effects(&mut self, now: Now, effects: &mut Effects) {
        self.put_receipts(effects);
        effects.waiting |= self.is_waiting() && self.phase != Phase::Closed;
        if !effects.out.is_empty() {
            self.heart_beat.sent(now.instant);
        }
    }
}

/// How many bytes before the next frame are ends of lines: heart-beats, or an old habit.
fn ends_of_lines(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count()
}

/// The header `receipt` of a frame that may be damaged, so that ERROR can name it.
fn receipt_of(bytes: &[u8]) -> Option<&str> {
    let head = bytes.split(|byte| *byte == b'\n').take_while(|line| !line.is_empty());
    let mut values = head.filter_map(|line| line.strip_prefix(b"receipt:"));
    let value = values.next().map(|value| value.strip_suffix(b"\r").unwrap_or(value))?;
    let is_plain = |text: &&str| !text.contains('\0');
    std::str::from_utf8(value).ok().filter(is_plain)
}

/// Puts a frame back in front of what follows it.
fn put_back(frame: Bytes, input: &mut BytesMut) {
    let rest = std::mem::take(input);
    let mut whole = frame.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
    whole.unsplit(rest);
    *input = whole;
}

impl ProtocolSession for Session {
    fn on_bytes(&mut self, input: &mut BytesMut, now: Now, effects: &mut Effects) {
        if input.len() > self.left {
            self.heart_beat.received(now.instant);
        }
        self.take_frames(input, now, effects);
        if self.phase == Phase::Closed {
            input.clear();
        }
        self.left = input.len();
        self.settle_effects(now, effects);
    }

    fn on_events(&mut self, events: &mut EventBatch, now: Now, effects: &mut Effects) {
        while effects.out.len() <= self.limits.output_bytes_max && self.phase != Phase::Closed {
            let Some(event) = events.pop() else { break };
            self.on_event(event, now, effects);
        }
        if self.phase == Phase::Closed {
            while events.pop().is_some() {}
        }
        self.settle_effects(now, effects);
    }

    fn on_timeout(&mut self, now: Now, effects: &mut Effects) {
        // Nothing was sent for a while, so buffers may be given back.
        self.scratch = Vec::new();
        self.native = Vec::new();
        self.places = Vec::new();
        self.on_time(now.instant, effects);
        self.settle_effects(now, effects);
    }

    fn next_timeout(&self) -> Option<Timeout> {
        match self.phase {
            Phase::Fresh | Phase::Connecting => {
                Some(Timeout { at: self.login_until, reason: "login" })
            }
            Phase::Open | Phase::Leaving => {
                let at = self.heart_beat.next()?;
                Some(Timeout { at, reason: "heart_beat" })
            }
            Phase::Closed => None,
        }
    }

    fn on_disconnect(&mut self, _cause: DisconnectCause, _effects: &mut Effects) {
        self.phase = Phase::Closed;
        self.pending = None;
    }
}

/// Tells the broker whose commands follow, so that nothing happens that the client has sent behind
/// a publish that is refused.
pub(crate) fn enter(effects: &mut Effects) {
    effects.commands.push(Order::EnterChannel { publisher: PUBLISHER });
}

/// The value that a frame must have.
///
/// Errors: it has none.
pub(crate) fn demand<'a>(frame: &Frame<'a>, name: &'static str) -> Step<std::borrow::Cow<'a, str>> {
    frame.find(name).ok_or_else(|| {
        Failure::malformed(format!("{} has no header '{name}'", frame.command.as_str()))
    })
}
