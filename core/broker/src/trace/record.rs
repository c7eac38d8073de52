//! One trace: which messages it has taken, and what has happened to them.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;

use super::NewTrace;
use crate::access::Principal;

/// Events that are kept; then the oldest go.
const EVENTS_MAX: usize = 10_000;
/// Bytes of events that are kept.
const EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of one value.
const VALUE_BYTES_MAX: usize = 1024;
/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// Something that has happened to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceEvent {
    /// Its number within the trace, from 1.
    pub number: u64,
    /// The number of the message within the trace, from 1.
    pub message: u64,
    /// When it has happened, in ms since 1970.
    pub at_ms: u64,
    /// Microseconds since the message was received.
    pub after_us: u64,
    /// What has happened: `received`, `converted`, `routed`, `refused`, `queued`, `delivered`,
    /// `acknowledged`, `returned`, `dead_lettered`, `dropped` or `taken_out`.
    pub event: &'static str,
    /// The values that belong to it.
    pub fields: Vec<(&'static str, String)>,
}

impl TraceEvent {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.fields.iter().map(|(_, value)| 40 + value.len()).sum::<usize>()
    }
}

/// A trace for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceView {
    /// Its number.
    pub id: u64,
    /// What it was to be.
    pub new: NewTrace,
    /// Who has started it.
    pub by: String,
    /// When it began, in ms since 1970.
    pub started_ms: u64,
    /// When it ends at the latest, in ms since 1970.
    pub ends_ms: u64,
    /// Why it is over, if it is: `duration`, `messages`, `stopped` or `permission`.
    pub ended: Option<&'static str>,
    /// Messages that it follows.
    pub messages: u64,
    /// Messages that it does not follow because there were too many a second.
    pub skipped: u64,
    /// Events that are kept.
    pub events: usize,
    /// Events that are kept no more.
    pub forgotten: u64,
}

/// A trace. A leaf of the order of locks: nothing is locked below it.
pub(crate) struct Trace {
    pub(crate) id: u64,
    pub(crate) who: Principal,
    pub(crate) new: NewTrace,
    pub(super) started_ms: u64,
    pub(super) ends_ms: u64,
    /// Steady nanoseconds.
    clock: fn() -> u64,
    /// When it began, by that clock.
    started: u64,
    is_over: AtomicBool,
    /// It has ended, and queues have not let go of it yet.
    is_left_behind: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    events: VecDeque<TraceEvent>,
    bytes: usize,
    numbered: u64,
    messages: u64,
    skipped: u64,
    forgotten: u64,
    ended: Option<&'static str>,
    /// When the second at hand began, and how many messages it has had.
    second: u64,
    in_second: u32,
}

/// A message that a trace follows.
#[derive(Clone)]
pub(crate) struct Mark {
    trace: Arc<Trace>,
    message: u64,
    /// When it was received, by the clock of the trace.
    start: u64,
}

impl Trace {
    pub(super) fn new(
        id: u64,
        who: Principal,
        new: NewTrace,
        clock: fn() -> u64,
        now_ms: u64,
    ) -> Self {
        let ends_ms = now_ms.saturating_add(new.duration_ms);
        Self {
            id,
            who,
            new,
            started_ms: now_ms,
            ends_ms,
            clock,
            started: clock(),
            is_over: AtomicBool::new(false),
            is_left_behind: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// True once after the end.
    pub(super) fn is_left_behind(&self) -> bool {
        self.is_left_behind.swap(false, Ordering::AcqRel)
    }

    /// Ends it, for a reason.
    pub(super) fn end(&self, why: &'static str) {
        if !self.is_over.swap(true, Ordering::AcqRel) {
            self.state.lock().ended = Some(why);
            self.is_left_behind.store(true, Ordering::Release);
        }
    }

    /// Takes a message, unless there are too many.
    pub(super) fn pick(self: &Arc<Self>) -> Option<Mark> {
        if self.is_over() {
            return None;
        }
        let start = (self.clock)();
        let mut state = self.state.lock();
        if start.saturating_sub(state.second) >= SECOND {
            (state.second, state.in_second) = (start, 0);
        }
        if state.in_second >= self.new.rate {
            state.skipped += 1;
            return None;
        }
        state.in_second += 1;
        state.messages += 1;
        let message = state.messages;
        drop(state);
        if message >= self.new.messages_max {
            self.end("messages");
        }
        Some(Mark { trace: Arc::clone(self), message, start })
    }

    pub(super) fn view(&self) -> TraceView {
        let state = self.state.lock();
        TraceView {
            id: self.id,
            new: self.new.clone(),
            by: self.who.user.as_str().to_owned(),
            started_ms: self.started_ms,
            ends_ms: self.ends_ms,
            ended: state.ended,
            messages: state.messages,
            skipped: state.skipped,
            events: state.events.len(),
            forgotten: state.forgotten,
        }
    }

    /// The events after a number, `max` at most.
    pub(super) fn events(&self, after: u64, max: usize) -> Vec<TraceEvent> {
        let state = self.state.lock();
        let from = state.events.partition_point(|event| event.number <= after);
        state.events.range(from..).take(max).cloned().collect()
    }
}

impl Mark {
    /// Writes down what has happened to the message. Long values lose their end.
    pub(crate) fn note(&self, event: &'static str, mut fields: Vec<(&'static str, String)>) {
        let now = (self.trace.clock)();
        let after_us = now.saturating_sub(self.start) / 1000;
        let since_ms = now.saturating_sub(self.trace.started) / 1_000_000;
        let at_ms = self.trace.started_ms.saturating_add(since_ms);
        for (_, value) in &mut fields {
            value.truncate(value.floor_char_boundary(VALUE_BYTES_MAX));
        }
        let mut state = self.trace.state.lock();
        state.numbered += 1;
        let (number, message) = (state.numbered, self.message);
        let event = TraceEvent { number, message, at_ms, after_us, event, fields };
        state.bytes += event.bytes();
        state.events.push_back(event);
        while state.events.len() > EVENTS_MAX || state.bytes > EVENT_BYTES_MAX {
            let Some(oldest) = state.events.pop_front() else { break };
            state.bytes = state.bytes.saturating_sub(oldest.bytes());
            state.forgotten += 1;
        }
    }

    /// A message of a trace that was ended by somebody is followed no more; one that has all its
    /// messages goes on with those.
    pub(super) fn is_void(&self) -> bool {
        let ended = || self.trace.state.lock().ended;
        self.trace.is_over() && ended() != Some("messages")
    }

    pub(super) fn trace(&self) -> &Trace {
        &self.trace
    }
}

impl std::fmt::Debug for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mark({}/{})", self.trace.id, self.message)
    }
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trace({})", self.id)
    }
}
