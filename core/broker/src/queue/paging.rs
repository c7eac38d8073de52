//! Reading back what only the disk has: a page at a time, ahead of the consumers, on the thread of
//! the engine.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicU64, Ordering},
};

use polymq_model::{Now, Seq};
use polymq_store::{Page as StoredPage, StoreError};

use super::{
    Departed, Queue,
    state::State,
    tail::{Page, Reading},
    window::{WindowBudget, weight},
};
use crate::{core::Core, vhost::Vhost};

/// After a page could not be read: how long until it is tried again, in ms.
const RETRY_MS: u64 = 1000;

/// What a queue needs of its broker to read.
#[derive(Clone)]
pub(crate) struct Home {
    core: Weak<Core>,
    vhost: Weak<Vhost>,
    pub(super) budget: Arc<WindowBudget>,
}

impl Home {
    pub(crate) fn new(core: &Weak<Core>, vhost: &Arc<Vhost>, budget: &Arc<WindowBudget>) -> Self {
        Self { core: core.clone(), vhost: Arc::downgrade(vhost), budget: budget.clone() }
    }

    pub(super) fn vhost_name(&self) -> String {
        self.vhost.upgrade().map(|vhost| vhost.name.to_string()).unwrap_or_default()
    }
}

/// When something could not be read last; 0 for never.
#[derive(Debug, Default)]
pub(super) struct ReadFailure(AtomicU64);

impl ReadFailure {
    /// True while it is too early to try again.
    pub(super) fn stands(&self, now_ms: u64) -> bool {
        let at = self.0.load(Ordering::Relaxed);
        at != 0 && now_ms < at.saturating_add(RETRY_MS)
    }
}

impl Queue {
    /// Reads the next page, if one is wanted and none is on its way. Called without the queue's
    /// lock, because an engine may answer at once.
    pub(super) fn fill(self: &Arc<Self>, now_ms: u64) {
        loop {
            let (from, generation, limit) = {
                let mut state = self.state.lock();
                let Some(from) = state.page_wanted() else { return };
                if self.read_failure.stands(now_ms) {
                    return;
                }
                state.tail.reading = Reading::Asking;
                (from, state.tail.generation, state.window.page())
            };
            let queue = self.clone();
            self.committer.read(
                self.log,
                from,
                limit,
                Box::new(move |page| queue.on_page(page, generation, now_ms)),
            );
            let mut state = self.state.lock();
            match std::mem::take(&mut state.tail.reading) {
                Reading::Answered(page) => {
                    drop(state);
                    self.take(page, now_ms);
                }
                Reading::Asking => {
                    state.tail.reading = Reading::Waiting;
                    return;
                }
                Reading::Idle | Reading::Waiting => return,
            }
        }
    }

    fn on_page(
        self: &Arc<Self>,
        page: Result<StoredPage, StoreError>,
        generation: u64,
        now_ms: u64,
    ) {
        let page = match page {
            Ok(page) => self.read(page),
            Err(error) => {
                tracing::error!(event = "queue_unreadable", queue = %self.name, %error);
                self.read_failure.0.store(now_ms.max(1), Ordering::Relaxed);
                let mut state = self.state.lock();
                state.tail.reading = Reading::Idle;
                let getters = state.take_getters();
                drop(state);
                getters.iter().for_each(|outbox| outbox.nudge());
                return;
            }
        };
        let mut state = self.state.lock();
        let is_stale = state.tail.generation != generation || state.deleted;
        match (&state.tail.reading, is_stale) {
            (_, true) => state.tail.reading = Reading::Idle,
            (Reading::Asking, false) => state.tail.reading = Reading::Answered(page),
            (Reading::Idle | Reading::Answered(_) | Reading::Waiting, false) => {
                state.tail.reading = Reading::Idle;
                drop(state);
                self.take(page, now_ms);
                self.fill(now_ms);
            }
        }
    }

    /// Makes entries of stored messages; without the lock, because a client session may have to be
    /// asked.
    fn read(self: &Arc<Self>, page: StoredPage) -> Page {
        let entries = match self.home.core.upgrade() {
            Some(core) => core.entries_of(self, page.messages),
            None => Vec::new(),
        };
        Page { entries, next: page.next }
    }

    fn take(self: &Arc<Self>, page: Page, now_ms: u64) {
        let mut departed = Vec::new();
        let mut state = self.state.lock();
        state.window = self.home.budget.window();
        if state.take_page(page) {
            self.perishable.store(true, Ordering::Relaxed);
        }
        state.expire_head(now_ms, &mut departed);
        state.drop_head_over_limit(&self.settings, &mut departed);
        state.dispatch(now_ms, &mut departed);
        self.settle_records(&mut state);
        self.report(&mut state);
        let getters = state.take_getters();
        drop(state);
        getters.iter().for_each(|outbox| outbox.nudge());
        self.depart(departed, now_ms);
    }

    fn depart(self: &Arc<Self>, departed: Vec<Departed>, now_ms: u64) {
        if departed.is_empty() {
            return;
        }
        if let (Some(core), Some(vhost)) = (self.home.core.upgrade(), self.home.vhost.upgrade()) {
            let now = Now { instant: std::time::Instant::now(), unix_ms: now_ms };
            core.after_departure(&vhost, self, departed, now);
        }
    }

    /// Tells all queues together what this one takes.
    pub(super) fn report(&self, state: &mut State) {
        if self.keeps {
            let weight = weight(state.ready.len(), state.ready_bytes);
            state.reported = self.home.budget.report(state.reported, weight);
        }
    }

    /// Takes over what a restart has found in the store.
    pub(crate) fn restore(&self, floor: Seq, next_seq: Seq, count: u64, bytes: u64) {
        if count > 0 {
            self.perishable.store(true, Ordering::Relaxed);
        }
        self.state.lock().restore(floor, next_seq, count, bytes);
    }
}
