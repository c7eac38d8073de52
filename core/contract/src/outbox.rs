//! Where a connection's events wait for its task: the only door between tasks.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    task::Waker,
};

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::{
    event::{Event, EventBatch},
    introduction::Traffic,
};

/// Events of one connection, in order, under one short lock, with one wake-up per sleep.
#[derive(Debug)]
pub struct Outbox {
    inner: Mutex<Inner>,
    /// Weight of the events that wait here or were taken and are not yet encoded.
    bytes: AtomicUsize,
    bytes_max: usize,
    stalled: AtomicBool,
    nudged: AtomicBool,
    evicted: AtomicBool,
    traffic: Traffic,
}

#[derive(Debug, Default)]
struct Inner {
    events: VecDeque<Event>,
    waker: Option<Waker>,
    /// New events are no reason to wake the task: it is awake, or its output is full.
    hushed: bool,
    closed: bool,
}

impl Outbox {
    /// An outbox that has room while less than `bytes_max` waits.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            inner: Mutex::default(),
            bytes: AtomicUsize::new(0),
            bytes_max,
            stalled: AtomicBool::new(false),
            nudged: AtomicBool::new(false),
            evicted: AtomicBool::new(false),
            traffic: Traffic::default(),
        }
    }

    /// Adds an event and wakes the task when it sleeps.
    pub fn push(&self, event: Event) {
        self.push_all(std::iter::once(event));
    }

    /// Adds events and wakes the task when it sleeps. Events for a closed connection are dropped.
    pub fn push_all(&self, events: impl IntoIterator<Item = Event>) {
        let mut weight = 0;
        let mut inner = self.inner.lock();
        if inner.closed {
            return;
        }
        for event in events {
            weight += event.weight();
            inner.events.push_back(event);
        }
        self.bytes.fetch_add(weight, Ordering::Relaxed);
        let waker = if inner.hushed { None } else { inner.waker.take() };
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// False when so much waits that consumers of this connection are to be skipped.
    pub fn has_room(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) < self.bytes_max
    }

    /// Bytes that may still be added before consumers of this connection are to be skipped.
    pub fn room(&self) -> usize {
        self.bytes_max.saturating_sub(self.bytes.load(Ordering::Relaxed))
    }

    /// Notes that a consumer was skipped; the task then calls `Connection::on_room` once there is
    /// room.
    ///
    /// Returns true when there is room after all, so that no wake-up is lost between look and note.
    pub fn note_stalled(&self) -> bool {
        self.stalled.store(true, Ordering::SeqCst);
        self.bytes.load(Ordering::SeqCst) < self.bytes_max
    }

    /// Moves what waits into `batch`, which must be empty or is appended to. Events wake nobody
    /// from now on until the next [`Outbox::poll`].
    pub fn take(&self, batch: &mut EventBatch) {
        let mut inner = self.inner.lock();
        inner.hushed = true;
        if batch.events.is_empty() {
            std::mem::swap(&mut batch.events, &mut inner.events);
        } else {
            batch.events.append(&mut inner.events);
        }
    }

    /// Gives back the weight of the events that the session has taken from `batch`.
    ///
    /// Returns true when a skipped consumer waits for this room: the caller then calls
    /// `Connection::on_room`.
    pub fn release(&self, batch: &mut EventBatch) -> bool {
        let weight = std::mem::take(&mut batch.weight);
        let before = self.bytes.fetch_sub(weight, Ordering::SeqCst);
        let room = before - weight < self.bytes_max / 2;
        room && self.stalled.load(Ordering::SeqCst) && self.stalled.swap(false, Ordering::SeqCst)
    }

    /// Asks the task to call `Connection::on_room`: something its broker side waits for may have
    /// come.
    pub fn nudge(&self) {
        self.nudged.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// True once after a nudge; the task asks at each turn.
    pub fn take_nudge(&self) -> bool {
        self.nudged.load(Ordering::SeqCst) && self.nudged.swap(false, Ordering::SeqCst)
    }

    /// Ends the connection without waiting for its output: the peer may have stopped reading.
    pub fn evict(&self) {
        self.evicted.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// True once the connection is to end at once; the task asks at each turn.
    pub fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::SeqCst)
    }

    fn wake(&self) {
        let waker = self.inner.lock().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// True when there is something to do; otherwise keeps `waker`, to be woken by the next event.
    pub fn poll(&self, waker: &Waker) -> bool {
        let mut inner = self.inner.lock();
        if self.is_asked() || !inner.events.is_empty() {
            return true;
        }
        inner.hushed = false;
        inner.keep(waker);
        false
    }

    /// As [`Outbox::poll`] for a task whose output is full: only a nudge or an eviction counts.
    pub fn poll_asked(&self, waker: &Waker) -> bool {
        let mut inner = self.inner.lock();
        if self.is_asked() {
            return true;
        }
        inner.hushed = true;
        inner.keep(waker);
        false
    }

    fn is_asked(&self) -> bool {
        self.nudged.load(Ordering::SeqCst) || self.is_evicted()
    }

    /// Drops what waits, and everything that comes later.
    pub fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        inner.waker = None;
        let events = std::mem::take(&mut inner.events);
        drop(inner);
        drop(events);
    }

    /// Frees the memory of an empty outbox; for connections that go idle.
    pub fn shrink(&self) {
        let mut inner = self.inner.lock();
        if inner.events.is_empty() {
            inner.events = VecDeque::new();
        }
    }

    /// What has gone over the connection's socket; its task counts it here.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Weight of what waits.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Inner {
    fn keep(&mut self, waker: &Waker) {
        if self.waker.as_ref().is_none_or(|kept| !kept.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }
}
