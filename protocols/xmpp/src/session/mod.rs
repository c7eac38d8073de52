//! The protocol state of one stream.
//!
//! ```text
//!   Opening --stream header--> Negotiating --<starttls/>, SASL--> Opening (again)
//!                                   |
//!                                   | bind, or <resume/>
//!                                   v
//!                                 Bound --</stream:stream>, fault--> Closed
//!                                   |  ^
//!                        socket lost|  |socket of a stream that resumes this one
//!                                   v  |
//!                                  Bound, without a socket
//! ```
//!
//! A component opens its stream itself and is bound after the handshake.
//!
//! While a step of the login or of binding is due, nothing more is read. What the broker is asked
//! for later on is answered by number, so stanzas go on meanwhile.

mod asks;
mod bind;
mod clock;
mod component;
mod deliver;
mod framing;
mod login;
mod publish;
mod send;
mod sm;
mod stream;

use std::{collections::HashMap, sync::Arc};

use bytes::{Buf, BytesMut};
use polymq_contract::{
    DisconnectCause, Effects, Event, EventBatch, Outbox, Peer, ProtocolSession, Timeout, Transport,
    WebMessages,
};
use polymq_model::{ConsumerId, Limits, Now, limits::RAISE_LOGIN_SIZE};

use crate::{
    ComponentSettings, Shared,
    directory::{Here, Word, nowhere},
    error::StreamError,
    jid::Jid,
    services::state::ServiceState,
    xml::{Bad, Parsed, StreamParser, ns},
};

pub(crate) use asks::Turn;
pub(crate) use bind::consume_of;
pub(crate) use deliver::delay;
pub(crate) use deliver::{Ack, Source};
pub(crate) use publish::Kind;
pub(crate) use send::{Settle, settle_as};

use asks::Asks;
use clock::Clock;
use login::Login;
use publish::Publishes;
use sm::StreamManagement;

/// Depth of a stanza.
const DEPTH_MAX: usize = 32;

/// Where the stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A stream header is due.
    Opening,
    /// Features were sent, or a component's handshake is under way.
    Negotiating,
    /// Stanzas flow.
    Bound,
    /// Nothing more is read.
    Closed,
}

/// Protocol state of one stream.
pub struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) component: Option<Arc<ComponentSettings>>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) peer: Arc<Peer>,
    pub(crate) outbox: Arc<Outbox>,
    parser: StreamParser,
    /// Set when the stream goes over WebSocket.
    messages: Option<WebMessages>,
    pub(crate) phase: Phase,
    /// We have sent a stream header that is not closed.
    is_open: bool,
    login: Login,
    /// The user, once there is one.
    pub(crate) user: String,
    pub(crate) impersonator: bool,
    /// Its address, with a resource once it is bound.
    pub(crate) jid: Jid,
    asks: Asks,
    pub(crate) sm: StreamManagement,
    publishes: Publishes,
    pub(crate) consumers: HashMap<ConsumerId, Source>,
    last_consumer: u32,
    pub(crate) services: ServiceState,
    clock: Clock,
    /// The socket is gone, and the stream waits for another.
    is_detached: bool,
    /// A stanza that is being handled, by its number.
    current: u64,
}

impl Session {
    /// A session for a new connection.
    pub(crate) fn new(
        shared: Arc<Shared>,
        component: Option<Arc<ComponentSettings>>,
        peer: &Arc<Peer>,
        limits: &Arc<Limits>,
        now: Now,
    ) -> Self {
        let jid = Jid {
            local: String::new(),
            domain: shared.domains.base().to_owned(),
            resource: String::new(),
        };
        let clock = Clock::new(now, &shared.settings, component.is_some());
        Self {
            parser: StreamParser::new(limits.login_frame_bytes_max, DEPTH_MAX),
            messages: (peer.transport == Transport::Messages).then(WebMessages::default),
            shared,
            component,
            limits: Arc::clone(limits),
            peer: Arc::clone(peer),
            outbox: nowhere(),
            phase: Phase::Opening,
            is_open: false,
            login: Login::default(),
            user: String::new(),
            impersonator: false,
            jid,
            asks: Asks::default(),
            sm: StreamManagement::default(),
            publishes: Publishes::default(),
            consumers: HashMap::new(),
            last_consumer: 0,
            services: ServiceState::default(),
            clock,
            is_detached: false,
            current: 0,
        }
    }

    /// Who is there in the virtual host of this stream.
    pub(crate) fn here(&self) -> Here<'_> {
        self.shared.directory.at(&self.peer.vhost)
    }

    pub(crate) fn is_component(&self) -> bool {
        self.component.is_some()
    }

    /// A number for a new consumer.
    pub(crate) fn next_consumer(&mut self) -> ConsumerId {
        self.last_consumer = self.last_consumer.wrapping_add(1);
        ConsumerId(self.last_consumer)
    }

    /// Reads stanzas from now on that are as large as those of somebody who has logged in.
    fn restart(&mut self) {
        self.parser = StreamParser::new(self.stanza_bytes_max(), DEPTH_MAX);
        self.phase = Phase::Opening;
    }

    fn stanza_bytes_max(&self) -> usize {
        match self.is_stranger() {
            true => self.limits.login_frame_bytes_max,
            false => self.shared.settings.stanza_bytes_max,
        }
    }

    fn is_stranger(&self) -> bool {
        self.user.is_empty() && !self.is_component()
    }

    fn take_elements(&mut self, input: &mut BytesMut, turn: &mut Turn<'_>) {
        let mut count = 0;
        while self.phase != Phase::Closed && !self.must_wait(turn) {
            let mut rest = &input[..];
            let before = rest.len();
            let parsed = self.parser.next(&mut rest);
            let taken = before.saturating_sub(rest.len());
            input.advance(taken);
            if taken > 0 {
                self.clock.heard(turn.now);
            }
            match parsed {
                Ok(Some(Parsed::Opened(header))) => self.on_header(&header, turn),
                Ok(Some(Parsed::Stanza(stanza))) => {
                    count += 1;
                    self.on_element(stanza, turn);
                }
                Ok(Some(Parsed::Closed)) => self.close_stream("client", "the stream ended", turn),
                Ok(None) => break,
                Err(bad) => {
                    let mut error = StreamError::from(bad);
                    if bad == Bad::Limit && self.is_stranger() {
                        error.text.push_str(RAISE_LOGIN_SIZE);
                    }
                    self.fail(error, turn);
                }
            }
        }
        if turn.effects.start_tls {
            // Some clients end <starttls/> with a line feed, which says nothing.
            let white = input.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            input.advance(white);
        }
        self.shared.counters.frames_in.add(count);
    }

    fn must_wait(&self, turn: &Turn<'_>) -> bool {
        self.asks.must_wait()
            || self.sm.is_resuming()
            || turn.effects.start_tls
            || turn.effects.resume.is_some()
    }

    /// Ends the stream because of something the other side did wrong, or we cannot do.
    pub(crate) fn fail(&mut self, error: StreamError, turn: &mut Turn<'_>) {
        if self.phase == Phase::Closed {
            return;
        }
        self.shared.counters.faults.add(1);
        let (condition, text) = (error.condition, &error.text);
        tracing::debug!(event = "protocol_error", condition, %text, "xmpp fault");
        self.put_header(turn);
        self.put_raw(&error.element(), turn);
        self.close_stream(error.condition, &error.text, turn);
    }

    /// Closes our side, and the connection with it. The stream cannot be resumed.
    pub(crate) fn close_stream(&mut self, cause: &'static str, why: &str, turn: &mut Turn<'_>) {
        if self.phase == Phase::Closed {
            return;
        }
        self.leave(turn);
        self.phase = Phase::Closed;
        if std::mem::take(&mut self.is_open) && !self.is_detached {
            let end = match self.is_framed() {
                true => format!("<close xmlns='{}'/>", ns::FRAMING),
                false => "</stream:stream>".to_owned(),
            };
            turn.effects.out.push_shared(self.wrapped(end));
        }
        turn.effects.close_after_flush(cause, why);
    }

    fn on_event(&mut self, event: Event, turn: &mut Turn<'_>) {
        match event {
            Event::Answered { request, answer } => self.on_answer(request, *answer, turn),
            Event::Delivered(delivery) => self.on_delivery(&delivery, turn),
            Event::Broadcast { .. } => {}
            Event::Confirmed { first, last, outcome, .. } => {
                self.on_confirmed(first, last, outcome, turn);
            }
            Event::Returned { .. } => {}
            Event::PublishRefused { number, refusal, .. } => {
                self.on_publish_refused(number, *refusal, turn);
            }
            Event::ConsumerCancelled { consumer, reason } => {
                self.on_consumer_cancelled(consumer, reason, turn);
            }
            // Publishes are confirmed later, and with them the stanzas.
            Event::Blocked { .. } | Event::Unblocked | Event::TakenOver | Event::Placed { .. } => {}
            Event::Passed(passed) => {
                if let Some(word) = passed.word.downcast_ref::<Word>() {
                    self.on_word(word, turn);
                }
            }
            Event::Closing { reason, shutdown } => {
                let condition = if shutdown { "system-shutdown" } else { "policy-violation" };
                self.fail(StreamError::new(condition, &*reason), turn);
            }
        }
    }

    fn on_word(&mut self, word: &Word, turn: &mut Turn<'_>) {
        if self.phase != Phase::Bound {
            return;
        }
        match word {
            Word::Stanza(stanza) => self.send_passed(stanza.clone(), turn),
            Word::Mailbox(is_ours) => self.on_mailbox(*is_ours, turn),
            Word::Replaced => {
                let text = "the resource is bound by another connection";
                self.fail(StreamError::new("conflict", text), turn);
            }
            Word::Resume(count) => self.on_resume(*count, turn),
            Word::Roster(item, version) => self.push_roster(item, *version, turn),
        }
    }
}

impl ProtocolSession for Session {
    fn on_bytes(&mut self, input: &mut BytesMut, now: Now, effects: &mut Effects) {
        let mut turn = Turn { now, effects };
        match self.is_framed() {
            true => self.take_messages(input, &mut turn),
            false => self.take_elements(input, &mut turn),
        }
        turn.effects.waiting = self.must_wait(&turn) && self.phase != Phase::Closed;
        self.shared.counters.moved(0, &mut effects.out);
    }

    fn on_events(&mut self, events: &mut EventBatch, now: Now, effects: &mut Effects) {
        let mut turn = Turn { now, effects };
        while turn.effects.out.len() < self.limits.output_bytes_max {
            let Some(event) = events.pop() else { break };
            if self.phase != Phase::Closed {
                self.on_event(event, &mut turn);
            }
        }
        self.shared.counters.moved(0, &mut effects.out);
    }

    fn on_timeout(&mut self, now: Now, effects: &mut Effects) {
        self.on_time(&mut Turn { now, effects });
        self.shared.counters.moved(0, &mut effects.out);
    }

    fn next_timeout(&self) -> Option<Timeout> {
        self.clock.next(self.phase, self.is_detached)
    }

    fn on_disconnect(&mut self, _: DisconnectCause, effects: &mut Effects) {
        // Nothing that is said now depends on the time.
        let now = self.clock.last();
        self.leave(&mut Turn { now, effects });
        self.phase = Phase::Closed;
    }

    fn on_open(&mut self, outbox: &Arc<Outbox>) {
        self.outbox = Arc::clone(outbox);
    }

    fn on_secured(&mut self, peer: &Arc<Peer>) {
        self.peer = Arc::clone(peer);
        self.is_open = false;
        self.restart();
    }

    fn on_socket_lost(&mut self, now: Now) -> bool {
        self.lose_socket(now)
    }

    fn on_socket_gained(&mut self, now: Now, effects: &mut Effects) {
        self.gain_socket(&mut Turn { now, effects });
    }

    fn on_resume_failed(&mut self, now: Now, effects: &mut Effects) {
        self.refuse_resume(&mut Turn { now, effects });
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("jid", &self.jid).finish_non_exhaustive()
    }
}

impl Session {
    /// Notes which stanza is being handled.
    pub(crate) fn set_current(&mut self, number: u64) {
        self.current = number;
    }

    /// The stanza that is being handled.
    pub(crate) fn current(&self) -> u64 {
        self.current
    }
}
