//! What all connections of a driver share, and the signal that stops them.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::Waker,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::{sync::Notify, task::JoinHandle};

use polymq_contract::Broker;
use polymq_model::Limits;

use crate::{
    counters::DriverCounters,
    door::{Door, Entered},
    handshakes::Handshakes,
    heirs::Heirs,
    pacer::Pacer,
};

const SERVING: u8 = 0;
const DRAINING: u8 = 1;
const CUT: u8 = 2;

/// Shared by the driver, its listeners and its connections.
pub(crate) struct Gate {
    pub(crate) broker: Arc<dyn Broker>,
    /// For connections that come from now on.
    limits: ArcSwap<Limits>,
    pub(crate) counters: Arc<DriverCounters>,
    pub(crate) handshakes: Handshakes,
    pub(crate) pacer: Pacer,
    pub(crate) heirs: Heirs,
    pub(crate) door: Door,
    phase: AtomicU8,
    next_id: AtomicU64,
    wakers: Mutex<HashMap<u64, Waker>>,
    /// Told when the last connection has gone.
    pub(crate) empty: Notify,
    /// The tasks that accept.
    pub(crate) listeners: Mutex<Vec<JoinHandle<()>>>,
    /// Told when listeners are to stop.
    pub(crate) closing: Notify,
}

impl Gate {
    pub(crate) fn new(broker: Arc<dyn Broker>, limits: Arc<Limits>) -> Self {
        Self {
            broker,
            door: Door::new(&limits),
            limits: ArcSwap::new(limits),
            counters: Arc::default(),
            handshakes: Handshakes::default(),
            pacer: Pacer::default(),
            heirs: Heirs::default(),
            phase: AtomicU8::new(SERVING),
            next_id: AtomicU64::new(0),
            wakers: Mutex::default(),
            empty: Notify::new(),
            listeners: Mutex::default(),
            closing: Notify::new(),
        }
    }

    /// The limits of a connection that comes now.
    pub(crate) fn limits(&self) -> Arc<Limits> {
        self.limits.load_full()
    }

    pub(crate) fn set_limits(&self, limits: Arc<Limits>) {
        self.door.set(&limits);
        self.limits.store(limits);
    }

    /// True when nobody new is let in and who has not logged in goes.
    pub(crate) fn is_draining(&self) -> bool {
        self.phase.load(Ordering::Acquire) >= DRAINING
    }

    /// True when everybody goes, whatever is unsent.
    pub(crate) fn is_cut(&self) -> bool {
        self.phase.load(Ordering::Acquire) == CUT
    }

    pub(crate) fn drain(&self) {
        self.advance(DRAINING);
        self.closing.notify_waiters();
    }

    pub(crate) fn cut(&self) {
        self.advance(CUT);
    }

    fn advance(&self, phase: u8) {
        self.phase.fetch_max(phase, Ordering::AcqRel);
        for waker in self.wakers.lock().values() {
            waker.wake_by_ref();
        }
    }

    /// Lets a connection in; `None` when there are too many, from this address or at all.
    pub(crate) fn enter(self: &Arc<Self>, from: Option<IpAddr>) -> Option<Ticket> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let limits = self.limits();
        let open = self.counters.opened();
        let has_room = usize::try_from(open).is_ok_and(|open| open <= limits.connections_max);
        let mut ticket = Ticket { gate: Arc::clone(self), limits, id, entered: None };
        if has_room {
            ticket.entered = self.door.enter(from);
        }
        if ticket.entered.is_none() {
            self.counters.refused();
            return None;
        }
        Some(ticket)
    }
}

/// An open connection: counted until it is dropped.
pub(crate) struct Ticket {
    pub(crate) gate: Arc<Gate>,
    /// Its limits, which stay what they are.
    pub(crate) limits: Arc<Limits>,
    id: u64,
    entered: Option<Entered>,
}

impl Ticket {
    /// Keeps the waker of the connection's task for the stop signal. A task's waker never changes,
    /// so once is enough.
    pub(crate) fn register(&self, waker: &Waker) {
        self.gate.wakers.lock().insert(self.id, waker.clone());
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.gate.wakers.lock().remove(&self.id);
        // Whoever sees that nobody is left may let somebody in.
        self.entered = None;
        if self.gate.counters.closed() == 0 {
            self.gate.empty.notify_waiters();
        }
    }
}
