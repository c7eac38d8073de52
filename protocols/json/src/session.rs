//! The protocol state of one connection.
//!
//! ```text
//!   Fresh --connect--> Connecting --user, then virtual host: connected--> Open
//!     |                    |                                               |
//!     +--------------------+---- error that ends, closing -----------------+----> Closed
//! ```
//!
//! While a login is under way nothing more is read. Everything later is answered by id, so
//! operations go on meanwhile; only too many that are unanswered stop the reading.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use polymq_contract::{
    Answer, Command, Counters, DisconnectCause, Effects, Event, EventBatch, Login, MessageKind,
    ProtocolSession, Refusal, Secret, Timeout, WebMessage, WebMessages,
};
use polymq_model::{ConsumerId, Limits, Now, RequestId, limits::RAISE_LOGIN_SIZE};
use serde::de::DeserializeOwned;

use crate::{
    answer::{Bounds, Said, Server, Wrong, say, say_wrong},
    op::{Connect, Head, Id, Op, Ping},
    publish::Publishing,
    subscribe::{Cancelling, Subscription},
};

/// Requests that may be unanswered before nothing more is read.
const ASKS_MAX: usize = 1024;
/// What a message may be longer than twice the largest body: properties, names, base64.
const ROOM_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Fresh,
    Connecting,
    Open,
    Closed,
}

/// What the broker owes an answer to.
#[derive(Debug)]
pub(crate) enum Ask {
    Login {
        vhost: Option<String>,
    },
    Vhost,
    /// The next step of a subscription follows.
    Subscribing(ConsumerId),
    Cancelled(Cancelling),
    /// It does not matter.
    Forgotten,
}

/// One call into the session.
pub(crate) struct Turn<'a> {
    pub(crate) now: Now,
    pub(crate) effects: &'a mut Effects,
}

/// Protocol state of one connection.
#[derive(Debug)]
pub(crate) struct Session {
    server: Arc<str>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) phase: Phase,
    pub(crate) user: String,
    pub(crate) impersonator: bool,
    messages: WebMessages,
    /// The id of `connect`.
    connect: Option<Id>,
    asks: HashMap<RequestId, Ask>,
    next_request: u32,
    /// Publishes that are to be confirmed.
    pub(crate) publishes: BTreeMap<u64, Publishing>,
    pub(crate) last_publish: u64,
    pub(crate) subs: HashMap<Box<str>, ConsumerId>,
    pub(crate) consumers: HashMap<ConsumerId, Subscription>,
    pub(crate) last_consumer: u32,
    pub(crate) scratch: Vec<u8>,
}

impl Session {
    pub(crate) fn new(server: Arc<str>, counters: Arc<Counters>, limits: Arc<Limits>) -> Self {
        Self {
            server,
            counters,
            limits,
            phase: Phase::Fresh,
            user: String::new(),
            impersonator: false,
            messages: WebMessages::default(),
            connect: None,
            asks: HashMap::new(),
            next_request: 0,
            publishes: BTreeMap::new(),
            last_publish: 0,
            subs: HashMap::new(),
            consumers: HashMap::new(),
            last_consumer: 0,
            scratch: Vec::new(),
        }
    }

    /// Orders something that is answered.
    pub(crate) fn ask(
        &mut self,
        ask: Ask,
        turn: &mut Turn<'_>,
        command: impl FnOnce(RequestId) -> Command,
    ) {
        self.next_request = self.next_request.wrapping_add(1);
        let request = RequestId(self.next_request);
        self.asks.insert(request, ask);
        turn.effects.commands.push(command(request));
    }

    fn must_wait(&self) -> bool {
        self.phase == Phase::Connecting || self.asks.len() >= ASKS_MAX
    }

    fn message_bytes_max(&self) -> usize {
        match self.phase {
            Phase::Open => self.limits.message_bytes_max.saturating_mul(2) + ROOM_BYTES,
            _ => self.limits.login_frame_bytes_max,
        }
    }

    fn take_messages(&mut self, input: &mut BytesMut, turn: &mut Turn<'_>) {
        while self.phase != Phase::Closed && !self.must_wait() {
            match self.messages.next(input, self.message_bytes_max()) {
                Ok(Some(message)) => {
                    self.counters.frames_in.add(1);
                    self.on_message(message, turn);
                }
                Ok(None) => return,
                Err(bad) => {
                    let mut text = bad.to_string();
                    if self.phase != Phase::Open {
                        text.push_str(RAISE_LOGIN_SIZE);
                    }
                    let wrong = Wrong::new("too_large", text);
                    self.end_wrong(None, &wrong, "message_too_long", turn);
                }
            }
        }
    }

    fn on_message(&mut self, message: WebMessage, turn: &mut Turn<'_>) {
        let (json, body) = match split(message) {
            Ok(parts) => parts,
            Err(wrong) => return self.end_wrong(None, &wrong, "protocol_error", turn),
        };
        let Head { op, id } = match serde_json::from_slice::<Head<'_>>(&json) {
            Ok(head) => head,
            // What has no operation has no id to answer, so nobody could go on from there.
            Err(bad) => {
                let wrong = Wrong::new("bad_json", bad.to_string());
                return self.end_wrong(None, &wrong, "protocol_error", turn);
            }
        };
        let done = self.on_parts(&op, (&json, body), id.as_ref(), turn);
        if let Err(wrong) = done {
            say_wrong(id.as_ref(), &wrong, turn.effects);
        }
    }

    fn on_parts(
        &mut self,
        op: &str,
        (json, body): (&[u8], Option<Bytes>),
        id: Option<&Id>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Wrong> {
        if id.is_some_and(|id| !id.is_short()) {
            return Err(Wrong::new("bad_id", "an id has at most 255 bytes"));
        }
        let Some(op) = Op::named(op) else {
            return Err(Wrong::new("bad_op", format!("there is no operation `{op}`")));
        };
        if body.is_some() && op != Op::Publish {
            return Err(Wrong::new("bad_op", "only `publish` has a body behind its JSON"));
        }
        self.on_op(op, (json, body), id, turn)
    }

    fn on_op(
        &mut self,
        op: Op,
        (json, body): (&[u8], Option<Bytes>),
        id: Option<&Id>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Wrong> {
        match op {
            Op::Connect => return self.on_connect(read(json)?, id, turn),
            Op::Ping => {
                let Ping { .. } = read(json)?;
                say(&Said::Pong { re: id }, turn.effects);
                return Ok(());
            }
            _ if self.phase == Phase::Fresh => {
                let wrong = Wrong::new("login_required", "`connect` comes first");
                self.end_wrong(id, &wrong, "login_refused", turn);
                return Ok(());
            }
            _ => {}
        }
        match op {
            Op::Publish => return self.on_publish(read(json)?, body, id, turn),
            Op::Subscribe => return self.on_subscribe(read(json)?, id, turn),
            Op::Credit => self.on_credit(&read(json)?, turn)?,
            Op::Settle => self.on_settle(read(json)?, turn)?,
            Op::Unsubscribe => return self.on_unsubscribe(&read(json)?, id, turn),
            Op::Connect | Op::Ping => {}
        }
        if let Some(re) = id {
            say(&Said::Ok { re }, turn.effects);
        }
        Ok(())
    }

    fn on_connect(
        &mut self,
        connect: Connect,
        id: Option<&Id>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Wrong> {
        if self.phase != Phase::Fresh {
            return Err(Wrong::new("connected", "the connection is open already"));
        }
        let Connect { vhost, token, user, password, .. } = connect;
        // A token is taken in place of a password, without a user.
        let login = match (token, user, password) {
            (Some(token), None, None) => {
                Login::Password { user: String::new(), password: Secret::new(token.0) }
            }
            (None, Some(user), password) => {
                Login::Password { user, password: Secret::new(password.unwrap_or_default().0) }
            }
            (None, None, None) => Login::Anonymous,
            _ => return Err(Wrong::new("bad_login", "give a token, or user and password")),
        };
        self.phase = Phase::Connecting;
        self.connect = id.cloned();
        let login = Box::new(login);
        let ask = Ask::Login { vhost };
        self.ask(ask, turn, |request| Command::Authenticate { request, login });
        Ok(())
    }

    fn on_answer(
        &mut self,
        request: RequestId,
        answer: Result<Answer, Refusal>,
        turn: &mut Turn<'_>,
    ) {
        let Some(ask) = self.asks.remove(&request) else { return };
        match (ask, answer) {
            (Ask::Login { vhost }, Ok(Answer::Authenticated { user, impersonator, .. })) => {
                self.user = user.as_str().to_owned();
                self.impersonator = impersonator;
                self.ask(Ask::Vhost, turn, |request| Command::OpenVhost { request, vhost });
            }
            (Ask::Vhost, Ok(_)) => self.open(turn),
            (Ask::Login { .. } | Ask::Vhost, answer) => {
                let wrong = match answer {
                    Err(refusal) => Wrong::refused(&refusal),
                    Ok(_) => Wrong::new("login_failed", "the login takes several steps"),
                };
                let id = self.connect.take();
                self.end_wrong(id.as_ref(), &wrong, "login_refused", turn);
            }
            (Ask::Subscribing(consumer), answer) => self.on_subscribing(consumer, answer, turn),
            (Ask::Cancelled(cancelling), _) => self.on_cancelled(&cancelling, turn),
            (Ask::Forgotten, _) => {}
        }
    }

    fn open(&mut self, turn: &mut Turn<'_>) {
        self.phase = Phase::Open;
        turn.effects.logged_in = true;
        turn.effects.commands.push(Command::TellPlaces);
        let said = Said::Connected {
            re: self.connect.as_ref(),
            server: Server { name: &self.server, version: env!("CARGO_PKG_VERSION") },
            user: &self.user,
            limits: Bounds {
                message_bytes: self.limits.message_bytes_max,
                subscriptions: self.limits.destinations_max,
                credit: self.limits.prefetch_max,
            },
        };
        say(&said, turn.effects);
        self.connect = None;
    }

    /// Says what is wrong and ends the connection.
    fn end_wrong(
        &mut self,
        re: Option<&Id>,
        wrong: &Wrong,
        cause: &'static str,
        turn: &mut Turn<'_>,
    ) {
        self.counters.faults.add(1);
        say_wrong(re, wrong, turn.effects);
        self.phase = Phase::Closed;
        turn.effects.close_after_flush(cause, wrong.text.clone());
    }

    fn on_event(&mut self, event: Event, turn: &mut Turn<'_>) {
        match event {
            Event::Answered { request, answer } => self.on_answer(request, *answer, turn),
            Event::Delivered(delivery) => self.deliver(&delivery, turn),
            Event::Confirmed { first, last, outcome, .. } => {
                self.on_confirmed(first, last, outcome, turn);
            }
            Event::Placed { first, last, place, .. } => self.on_placed(first, last, place),
            Event::PublishRefused { number, refusal, .. } => {
                let id = self.publishes.remove(&number).map(|publishing| publishing.id);
                say_wrong(id.as_ref(), &Wrong::refused(&refusal), turn.effects);
            }
            Event::ConsumerCancelled { consumer, reason } => {
                self.on_consumer_cancelled(consumer, reason, turn);
            }
            Event::Blocked { reason } => say(&Said::Blocked { reason: &reason }, turn.effects),
            Event::Unblocked => say(&Said::Unblocked {}, turn.effects),
            Event::Closing { reason, shutdown } => {
                say(&Said::Closing { reason: &reason }, turn.effects);
                self.phase = Phase::Closed;
                let cause = if shutdown { "shutdown" } else { "administrator" };
                turn.effects.close_after_flush(cause, &*reason);
            }
            // Nothing is published as mandatory, and there are neither client sessions nor direct
            // subscriptions.
            Event::Returned { .. }
            | Event::Broadcast { .. }
            | Event::TakenOver
            | Event::Passed(_) => {}
        }
    }
}

/// Reads an operation whose name is known.
fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, Wrong> {
    serde_json::from_slice(json).map_err(|bad| Wrong::new("bad_field", bad.to_string()))
}

/// The JSON of a message, and the body behind it. A binary message begins with the length of its
/// JSON in four bytes, the highest first.
fn split(message: WebMessage) -> Result<(Bytes, Option<Bytes>), Wrong> {
    let payload = message.payload;
    if message.kind == MessageKind::Text {
        return Ok((payload, None));
    }
    let cut = || Wrong::new("bad_frame", "a binary message is shorter than it says");
    let (length, _) = payload.split_first_chunk::<4>().ok_or_else(cut)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    let end = length.checked_add(4).filter(|end| *end <= payload.len()).ok_or_else(cut)?;
    Ok((payload.slice(4..end), Some(payload.slice(end..))))
}

impl ProtocolSession for Session {
    fn on_bytes(&mut self, input: &mut BytesMut, now: Now, effects: &mut Effects) {
        let mut turn = Turn { now, effects };
        self.take_messages(input, &mut turn);
        if self.phase == Phase::Closed {
            input.clear();
        }
        effects.waiting |= self.must_wait();
        self.counters.moved(0, &mut effects.out);
    }

    fn on_events(&mut self, events: &mut EventBatch, now: Now, effects: &mut Effects) {
        let mut turn = Turn { now, effects };
        while turn.effects.out.len() < self.limits.output_bytes_max {
            let Some(event) = events.pop() else { break };
            if self.phase != Phase::Closed {
                self.on_event(event, &mut turn);
            }
        }
        effects.waiting |= self.must_wait();
        self.counters.moved(0, &mut effects.out);
    }

    fn on_timeout(&mut self, _: Now, _: &mut Effects) {}

    /// The driver bounds the login and asks whether a silent client is there.
    fn next_timeout(&self) -> Option<Timeout> {
        None
    }

    fn on_disconnect(&mut self, _: DisconnectCause, _: &mut Effects) {
        self.phase = Phase::Closed;
    }
}
