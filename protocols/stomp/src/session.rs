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

use bytes::BytesMut;
use hashbrown::{HashMap, HashSet};
use polymq_contract::{
    Command as Order, DisconnectCause, Effects, EventBatch, Peer, ProtocolSession, Timeout,
};
use polymq_model::{Limits, Now, RequestId};

use crate::{
    Shared,
    codec::{
        HeaderAt, Splitter, Version,
        writer::{Error, put_error},
    },
    deliver::LastOrigin,
    heart_beat::HeartBeat,
    queues::{Ensuring, TempQueue, TempQueueStep},
    receipts::Receipts,
    refusal::Failure,
    route::LastRoute,
    send::PUBLISHER,
    subscribe::Subscribing,
    subscription::Subscriptions,
    transaction::Transactions,
};

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
    pub(crate) splitter: Splitter,
    pub(crate) places: Vec<HeaderAt>,
    login_until: Instant,
    /// Publishes wait, so the driver does not read.
    pub(crate) is_blocked: bool,
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

    pub(crate) fn is_waiting(&self) -> bool {
        self.pending.is_some() || self.phase == Phase::Leaving || self.receipts.is_full()
    }

    /// Sends ERROR and ends the connection. `receipt` is the header of the frame that caused it.
    pub(crate) fn fail(&mut self, failure: &Failure, receipt: Option<&str>, effects: &mut Effects) {
        if self.phase == Phase::Closed {
            return;
        }
        self.shared.counters.faults.add(1);
        let (text, detail) = (failure.message, &failure.detail);
        tracing::debug!(event = "protocol_error", text, %detail, "stomp error");
        self.receipts.put(&mut effects.out);
        let error = Error {
            version: self.version,
            message: failure.message,
            detail: &failure.detail,
            receipt,
            names_versions: failure.names_versions,
        };
        put_error(&error, effects.out.frame());
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

    pub(crate) fn put_receipts(&mut self, effects: &mut Effects) {
        if self.phase != Phase::Closed && self.receipts.put(&mut effects.out) {
            self.close("client", "the client disconnected", effects);
        }
    }

    /// What every call ends with. `waiting` is only ever set here: the driver clears it.
    fn settle_effects(&mut self, frames_in: usize, now: Now, effects: &mut Effects) {
        self.put_receipts(effects);
        self.shared.counters.moved(frames_in, &mut effects.out);
        effects.waiting |= self.is_waiting() && self.phase != Phase::Closed;
        if !effects.out.is_empty() {
            self.heart_beat.sent(now.instant);
        }
    }
}

impl ProtocolSession for Session {
    fn on_bytes(&mut self, input: &mut BytesMut, now: Now, effects: &mut Effects) {
        if input.len() > self.left {
            self.heart_beat.received(now.instant);
        }
        let taken = self.take_frames(input, now, effects);
        if self.phase == Phase::Closed {
            input.clear();
        }
        self.left = input.len();
        self.settle_effects(taken, now, effects);
    }

    fn on_events(&mut self, events: &mut EventBatch, now: Now, effects: &mut Effects) {
        while effects.out.len() <= self.limits.output_bytes_max && self.phase != Phase::Closed {
            let Some(event) = events.pop() else { break };
            self.on_event(event, now, effects);
        }
        if self.phase == Phase::Closed {
            while events.pop().is_some() {}
        }
        self.settle_effects(0, now, effects);
    }

    fn on_timeout(&mut self, now: Now, effects: &mut Effects) {
        // Nothing was sent for a while, so buffers may be given back.
        self.scratch = Vec::new();
        self.native = Vec::new();
        self.places = Vec::new();
        self.on_time(now.instant, effects);
        self.settle_effects(0, now, effects);
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
    effects.commands.push(Order::EnterChannel { publisher: PUBLISHER, channel: 0 });
}
