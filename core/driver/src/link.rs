//! The connection loop: moves bytes between a socket and a session, and words between the session
//! and the broker.

mod line;

use std::{
    ops::ControlFlow::{self, Break, Continue},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use polymq_contract::{
    Close, Connection, DisconnectCause, Effects, EventBatch, Outbox, Output, Peer, ProtocolSession,
};
use polymq_model::{ConnectionId, Limits, Now};

use line::Line;

use crate::{
    clock, ending::Ending, gate::Gate, input::Input, pace::Pace, pacer::Tick, parting::poll_output,
    socket::Socket, timer::Timer, tls::Tls,
};

/// Turns before other tasks get their turn.
const TURNS_MAX: usize = 16;
/// Times that answers of the broker are handed to the session in one turn, should each make it ask
/// again.
const ROUNDS_MAX: usize = 8;
/// Idle time after which buffers are freed.
const WARM: Duration = Duration::from_secs(2);
/// Events of this weight are worth a write of their own.
const MANY_BYTES: usize = 4096;
/// Bytes moved before they are added to the shared counters.
const COUNTED_BYTES_MIN: u64 = 256 * 1024;

/// One connection whose protocol is known.
pub(crate) struct Link<S> {
    line: Line<S>,
    session: Box<dyn ProtocolSession>,
    connection: Box<dyn Connection>,
    outbox: Arc<Outbox>,
    gate: Arc<Gate>,
    limits: Arc<Limits>,
    peer: Arc<Peer>,
    start_tls: Option<Arc<Tls>>,
    /// Under which it may get another socket.
    key: Option<Box<str>>,
    input: Input,
    batch: EventBatch,
    effects: Effects,
    timer: Timer,
    login_deadline: Instant,
    login_bytes: usize,
    /// The session is to see the left-over input again, with no new bytes needed.
    resume: bool,
    /// Bytes are inside the transport (TLS) that have not reached the socket.
    unflushed: bool,
    /// When the buffers are to be freed; `None` when they are.
    warm_until: Option<Instant>,
    uncounted: (u64, u64),
    /// Bytes of answers since the output is full.
    unread: usize,
    pace: Pace,
    /// The tick that this connection waits for while it pauses.
    tick: Option<Tick>,
    /// The task was put to sleep and has not run since.
    asleep: bool,
}

/// What a link comes to when it is not put to sleep.
pub(crate) enum Step {
    /// Others are to run, then it is polled again.
    Yield,
    /// The connection is over.
    Ended(Ending),
}

/// What a link is made of.
pub(crate) struct Parts<S> {
    pub(crate) socket: S,
    pub(crate) session: Box<dyn ProtocolSession>,
    pub(crate) connection: Box<dyn Connection>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) limits: Arc<Limits>,
    /// The first bytes, read to tell the protocol.
    pub(crate) input: Input,
    pub(crate) timer: Timer,
    pub(crate) login_deadline: Instant,
    pub(crate) peer: Arc<Peer>,
    pub(crate) start_tls: Option<Arc<Tls>>,
}

impl<S: Socket + Send + 'static> Link<S> {
    /// The number of the connection.
    pub(crate) fn id(&self) -> ConnectionId {
        self.connection.id()
    }

    pub(crate) fn new(mut parts: Parts<S>) -> Self {
        let login_bytes = parts.input.bytes().len();
        parts.outbox.traffic().received(login_bytes);
        Self {
            login_bytes,
            line: Line::Socket(parts.socket),
            peer: parts.peer,
            start_tls: parts.start_tls,
            key: None,
            session: parts.session,
            connection: parts.connection,
            outbox: parts.outbox,
            gate: parts.gate,
            limits: parts.limits,
            input: parts.input,
            batch: EventBatch::default(),
            effects: Effects::default(),
            timer: parts.timer,
            login_deadline: parts.login_deadline,
            resume: true,
            unflushed: false,
            warm_until: None,
            uncounted: (login_bytes as u64, 0),
            unread: 0,
            pace: Pace::default(),
            tick: None,
            asleep: false,
        }
    }

    /// Runs until nothing moves, or others are due; then the task sleeps until bytes, the outbox,
    /// room to write, the timer or the stop signal wake it.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if self.lets_others_go_first() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let turns = catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..TURNS_MAX {
                let now = clock::now();
                match self.turn(cx, now) {
                    Continue(true) if !self.pace.pauses() => {}
                    Continue(_) => match self.rest(cx, now) {
                        Continue(true) => {}
                        Continue(false) => {
                            self.asleep = true;
                            return Poll::Pending;
                        }
                        Break(Ending::PeerGone) if self.outlives_socket(now) => {}
                        Break(ending) => return Poll::Ready(Step::Ended(ending)),
                    },
                    Break(Ending::PeerGone) if self.outlives_socket(now) => {}
                    Break(ending) => return Poll::Ready(Step::Ended(ending)),
                }
            }
            Poll::Ready(Step::Yield)
        }));
        turns.unwrap_or(Poll::Ready(Step::Ended(Ending::Panic)))
    }

    /// True once when a few events have woken the task. The runtime runs whom a task wakes right
    /// after it, but others that are due may have more for this connection, and a write of many
    /// messages costs little more than that of one.
    fn lets_others_go_first(&mut self) -> bool {
        std::mem::take(&mut self.asleep) && (1..MANY_BYTES).contains(&self.outbox.bytes())
    }

    /// One turn; true when something moved, so that another one is worth it.
    fn turn(&mut self, cx: &mut Context<'_>, now: Now) -> ControlFlow<Ending, bool> {
        if self.gate.is_cut() || (!self.effects.logged_in && self.gate.is_draining()) {
            return Break(Ending::Shutdown);
        }
        if self.outbox.is_evicted() {
            return Break(Ending::Evicted);
        }
        let mut moved = self.outbox.take_nudge();
        if moved {
            self.connection.on_room(now);
            self.gain_socket(now);
        }
        moved |= self.finish_securing(cx)?;
        moved |= self.on_events(now);
        if self.read(cx, now)? {
            moved = true;
            self.on_events(now);
        }
        // After the read: a peer whose bytes wait in the socket has not been silent, however late
        // we are.
        moved |= self.on_time(now)?;
        moved |= self.write(cx)?;
        moved |= self.change_line(now)?;
        if let Some(close) = self.effects.close.take() {
            return Break(Ending::Session(close));
        }
        if moved {
            self.warm_until = Some(now.instant + WARM);
        }
        Continue(moved)
    }

    fn on_time(&mut self, now: Now) -> ControlFlow<Ending, bool> {
        if !self.effects.logged_in && now.instant >= self.login_deadline {
            return Break(Ending::LoginTimeout);
        }
        let due = self.session.next_timeout().is_some_and(|timeout| timeout.at <= now.instant);
        if due {
            self.session.on_timeout(now, &mut self.effects);
            self.execute(now);
        }
        Continue(due)
    }

    /// Hands events to the session, and left-over input to a session that waited for them.
    fn on_events(&mut self, now: Now) -> bool {
        let mut moved = false;
        for _ in 0..ROUNDS_MAX {
            if self.effects.close.is_some() || self.is_full() {
                break;
            }
            let mut step = self.take_events(now);
            if self.resume && self.effects.close.is_none() {
                self.on_bytes(now);
                step = true;
            }
            if !step {
                break;
            }
            moved = true;
        }
        moved
    }

    fn take_events(&mut self, now: Now) -> bool {
        if self.batch.is_empty() {
            self.outbox.take(&mut self.batch);
        }
        let before = self.batch.len();
        if before == 0 {
            return false;
        }
        self.session.on_events(&mut self.batch, now, &mut self.effects);
        let room = self.outbox.release(&mut self.batch);
        self.execute(now);
        if room {
            self.connection.on_room(now);
        }
        let moved = self.batch.len() < before;
        self.resume |= moved && self.effects.waiting;
        moved
    }

    fn on_bytes(&mut self, now: Now) {
        self.resume = false;
        self.effects.waiting = false;
        self.session.on_bytes(self.input.bytes(), now, &mut self.effects);
        self.execute(now);
    }

    fn execute(&mut self, now: Now) {
        if !self.effects.commands.is_empty() {
            self.connection.execute(&mut self.effects.commands, now);
        }
    }

    fn read(&mut self, cx: &mut Context<'_>, now: Now) -> ControlFlow<Ending, bool> {
        let pauses = self.is_pausing() || self.is_ignored();
        let (was_full, before) = (self.is_full(), self.effects.out.len());
        let Line::Socket(socket) = &mut self.line else { return Continue(false) };
        let held = self.effects.waiting
            || self.resume
            || self.effects.start_tls
            || self.effects.close.is_some();
        if held || pauses {
            return Continue(false);
        }
        if !self.connection.may_read() {
            // What is unread hides the end behind it, and may stay unread for long.
            return if socket.is_hung_up() { Break(Ending::PeerGone) } else { Continue(false) };
        }
        let bytes_max = if self.effects.logged_in {
            usize::MAX
        } else {
            self.limits.login_bytes_max.saturating_sub(self.login_bytes)
        };
        if bytes_max == 0 {
            return Break(Ending::LoginBytes);
        }
        match self.input.poll_read(socket, bytes_max, cx) {
            Poll::Ready(Ok(count)) if count > 0 => {
                self.login_bytes = self.login_bytes.saturating_add(count);
                self.uncounted.0 += count as u64;
                self.outbox.traffic().received(count);
                self.pace.received(count, now.instant);
                self.on_bytes(now);
                let answer = self.effects.out.len().saturating_sub(before);
                self.unread = if was_full { self.unread.saturating_add(answer) } else { 0 };
                Continue(true)
            }
            Poll::Ready(_) if socket.has_fault() => Break(Ending::Fault),
            Poll::Ready(_) => Break(Ending::PeerGone),
            Poll::Pending => Continue(false),
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> ControlFlow<Ending, bool> {
        let mut moved = false;
        let socket = match &mut self.line {
            Line::Socket(socket) => socket,
            Line::Securing(_) => return Continue(false),
            Line::Gone => {
                self.effects.out.take_all();
                return Continue(false);
            }
        };
        while !self.effects.out.is_empty() {
            match poll_output(socket, &mut self.effects.out, cx) {
                Poll::Ready(Ok(count)) => {
                    self.uncounted.1 += count as u64;
                    self.outbox.traffic().sent(count);
                    self.unflushed = true;
                    moved = true;
                }
                Poll::Ready(Err(_)) => return Break(Ending::PeerGone),
                Poll::Pending => return Continue(moved),
            }
        }
        if self.unflushed {
            match Pin::new(socket).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => return Break(Ending::PeerGone),
                Poll::Pending => {}
            }
        }
        Continue(moved)
    }

    /// False when the task may pause or sleep.
    fn rest(&mut self, cx: &mut Context<'_>, now: Now) -> ControlFlow<Ending, bool> {
        let pauses = self.pauses(cx);
        let watched = match &mut self.line {
            Line::Socket(socket) if pauses => socket.unwatch().map(|()| false),
            Line::Socket(socket) => socket.watch(),
            Line::Securing(_) | Line::Gone => Ok(false),
        };
        match watched {
            Ok(newly) => Continue(newly || self.has_more(cx, now)),
            Err(_) => Break(Ending::PeerGone),
        }
    }

    /// True when the pacer wakes the task soon, so that its socket need not.
    fn pauses(&mut self, cx: &Context<'_>) -> bool {
        if self.is_pausing() {
            return true;
        }
        if self.tick.take().is_some() {
            self.pace.paused();
        }
        // Room to write is something that only a watched socket tells.
        if self.effects.out.is_empty() && !self.unflushed && self.pace.pauses() {
            self.tick = self.gate.pacer.wait(self.pace.ticks(), cx.waker());
        }
        self.tick.is_some()
    }

    fn is_pausing(&self) -> bool {
        self.tick.is_some_and(|tick| !self.gate.pacer.has_come(tick))
    }

    /// False when the task may sleep: everything that can wake it knows its waker.
    fn has_more(&mut self, cx: &mut Context<'_>, now: Now) -> bool {
        let waker = cx.waker();
        let called =
            if self.is_full() { self.outbox.poll_asked(waker) } else { self.outbox.poll(waker) };
        if called {
            return true;
        }
        self.input.rest();
        if self.warm_until.is_some_and(|until| until <= now.instant) {
            self.cool();
        }
        let login = (!self.effects.logged_in).then_some(self.login_deadline);
        let session = self.session.next_timeout().map(|timeout| timeout.at);
        let next = [login, session, self.warm_until].into_iter().flatten().min();
        if self.uncounted.0 + self.uncounted.1 >= COUNTED_BYTES_MIN {
            self.count();
        }
        self.timer.poll(next, now.instant, cx)
    }

    /// Frees the buffers of a connection that has gone idle.
    fn cool(&mut self) {
        self.warm_until = None;
        self.effects.out.shrink();
        if self.effects.commands.is_empty() {
            self.effects.commands = Vec::new();
        }
        if self.batch.is_empty() {
            self.batch = EventBatch::default();
        }
        self.outbox.shrink();
        self.count();
    }

    fn count(&mut self) {
        let (bytes_in, bytes_out) = std::mem::take(&mut self.uncounted);
        self.gate.counters.moved(bytes_in, bytes_out);
    }

    /// True when the peer asks on without reading the answers. Acknowledgements have none: a peer
    /// that writes them before it reads on must not wait for a broker that waits for it.
    fn is_ignored(&self) -> bool {
        self.is_full() && self.unread >= self.limits.output_bytes_max
    }

    fn is_full(&self) -> bool {
        self.effects.out.len() >= self.limits.output_bytes_max
    }

    /// Parts from session and broker. What the peer is still to see comes back with the socket.
    pub(crate) fn end(mut self, ending: &Ending) -> (Option<S>, Output) {
        self.count();
        if let Some(key) = &self.key {
            self.gate.heirs.leave(key);
        }
        let out = std::mem::take(&mut self.effects.out);
        let cause = ending.cause();
        let now = clock::now();
        let mut panicked = cause == DisconnectCause::Panic;
        if !panicked {
            panicked = catch_unwind(AssertUnwindSafe(|| {
                self.session.on_disconnect(cause, &mut self.effects);
                self.execute(now);
            }))
            .is_err();
        }
        self.outbox.close();
        panicked |=
            catch_unwind(AssertUnwindSafe(|| self.connection.disconnect(cause, now))).is_err();
        if panicked {
            tracing::error!(
                event = "session_panicked",
                "a session or the broker panicked; its connection is closed"
            );
        }
        if let Ending::Session(Close { cause, detail }) = ending {
            tracing::debug!(
                event = "session_closed",
                cause,
                detail,
                "the session closed its connection"
            );
        }
        let socket = match self.line {
            Line::Socket(socket) => Some(socket),
            Line::Securing(_) | Line::Gone => None,
        };
        (socket, out)
    }
}
