//! Reading back what only the disk has: a page at a time, ahead of the consumers, on the thread of
//! the engine.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use polymq_model::{LogId, Seq, VhostName};
use polymq_store::{OpenedLog, Page as StoredPage, StoreError};

use super::{
    Held, Position, Queue,
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
    vhost_name: VhostName,
    pub(super) budget: Arc<WindowBudget>,
}

impl Home {
    pub(crate) fn new(core: &Weak<Core>, vhost: &Arc<Vhost>, budget: &Arc<WindowBudget>) -> Self {
        Self {
            core: core.clone(),
            vhost: Arc::downgrade(vhost),
            vhost_name: vhost.name.clone(),
            budget: budget.clone(),
        }
    }

    pub(super) fn core(&self) -> Option<Arc<Core>> {
        self.core.upgrade()
    }

    pub(super) fn vhost(&self) -> Option<Arc<Vhost>> {
        self.vhost.upgrade()
    }

    pub(super) fn vhost_name(&self) -> &str {
        self.vhost_name.as_str()
    }

    pub(super) fn next_log(&self) -> Option<LogId> {
        self.core.upgrade().map(|core| core.next_log())
    }

    /// A random number from 0 to 1.
    pub(super) fn chance(&self) -> f64 {
        let mut bytes = [0; 4];
        if let Some(core) = self.core.upgrade() {
            (core.entropy)(&mut bytes);
        }
        f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
    }
}

/// When something could not be read last, 0 for never, and why.
#[derive(Debug, Default)]
pub(super) struct ReadFailure(AtomicU64, Mutex<Option<StoreError>>);

impl ReadFailure {
    /// True while it is too early to try again.
    pub(super) fn stands(&self, now_ms: u64) -> bool {
        let at = self.0.load(Ordering::Relaxed);
        at != 0 && now_ms < at.saturating_add(RETRY_MS)
    }

    /// Notes a failure; true when it is another one than before, which should be told.
    fn note(&self, error: &StoreError, now_ms: u64) -> bool {
        self.0.store(now_ms.max(1), Ordering::Relaxed);
        self.1.lock().replace(error.clone()).as_ref() != Some(error)
    }
}

/// A page that was asked for.
#[derive(Debug, Clone, Copy)]
struct Asked {
    level: u8,
    /// Everything before this was on the disk when the page was asked for.
    until: Seq,
    generation: u64,
    now_ms: u64,
}

impl Queue {
    /// Reads the next page of each level, if one is wanted and none is on its way. Called without
    /// the queue's lock, because an engine may answer at once.
    pub(super) fn fill(self: &Arc<Self>, now_ms: u64) {
        loop {
            let (at, asked, limit) = {
                let mut state = self.lock();
                let Some((lane, from)) = state.page_wanted() else { return };
                if self.read_failure.stands(now_ms) {
                    return;
                }
                let limit = state.window.page();
                let Some(lane) = state.lanes.get_mut(lane) else { return };
                lane.tail.reading = Reading::Asking;
                let (level, generation) = (lane.level, lane.tail.generation);
                let asked = Asked { level, until: Seq(lane.tail.until), generation, now_ms };
                ((lane.log, from), asked, limit)
            };
            let (queue, level) = (self.clone(), asked.level);
            let reply = Box::new(move |page| queue.on_page(page, asked));
            self.committer.read(at.0, at.1, limit, reply);
            let mut state = self.lock();
            let Some(lane) = state.lanes.iter_mut().find(|lane| lane.level == level) else {
                return;
            };
            match std::mem::take(&mut lane.tail.reading) {
                Reading::Answered(page) => {
                    drop(state);
                    self.take(page, asked);
                }
                // Other levels may want a page as well.
                Reading::Asking => lane.tail.reading = Reading::Waiting,
                Reading::Idle | Reading::Waiting => return,
            }
        }
    }

    fn on_page(self: &Arc<Self>, page: Result<StoredPage, StoreError>, asked: Asked) {
        let page = match page {
            Ok(page) => self.read(page),
            Err(StoreError::Unreadable { first, last, messages, what, .. })
                if self.skips_damage() && last.0 < u64::MAX =>
            {
                let queue = &self.name;
                tracing::warn!(event = "messages_skipped", %queue, messages, %what);
                let gone = Some((first, last, messages));
                Page {
                    entries: Vec::new(),
                    due: Default::default(),
                    next: Some(Seq(last.0 + 1)),
                    gone,
                }
            }
            Err(error) => {
                if self.read_failure.note(&error, asked.now_ms) {
                    tracing::error!(event = "queue_unreadable", queue = %self.name, %error);
                }
                let mut state = self.lock();
                if let Some(lane) = state.lanes.iter_mut().find(|lane| lane.level == asked.level) {
                    lane.tail.reading = Reading::Idle;
                }
                let getters = std::mem::take(&mut state.getters);
                drop(state);
                getters.iter().for_each(|outbox| outbox.nudge());
                return;
            }
        };
        let mut state = self.lock();
        let is_deleted = state.deleted;
        let Some(lane) = state.lanes.iter_mut().find(|lane| lane.level == asked.level) else {
            return;
        };
        let is_stale = lane.tail.generation != asked.generation || is_deleted;
        match (&lane.tail.reading, is_stale) {
            (_, true) => lane.tail.reading = Reading::Idle,
            (Reading::Asking, false) => lane.tail.reading = Reading::Answered(page),
            (Reading::Idle | Reading::Answered(_) | Reading::Waiting, false) => {
                lane.tail.reading = Reading::Idle;
                drop(state);
                self.take(page, asked);
                self.fill(asked.now_ms);
            }
        }
    }

    /// Makes entries of stored messages; without the lock, because a client session may have to be
    /// asked.
    fn read(self: &Arc<Self>, page: StoredPage) -> Page {
        let due = page.messages.iter().filter_map(|stored| {
            let due_ms = stored.hold.map_or(0, |hold| hold.due_ms);
            (due_ms > 0).then_some((stored.seq, Held::of_stored(due_ms)))
        });
        let due = due.collect();
        let entries = match self.home.core.upgrade() {
            Some(core) => core.entries_of(self, page.messages),
            None => Vec::new(),
        };
        Page { entries, due, next: page.next, gone: None }
    }

    fn skips_damage(&self) -> bool {
        self.home.core.upgrade().is_some_and(|core| core.skips_damage)
    }

    fn take(self: &Arc<Self>, mut page: Page, asked: Asked) {
        let now_ms = asked.now_ms;
        // A page that ends with the log says nothing of what has come to the disk since.
        let last = page.entries.last().map_or(Seq(0), |entry| Seq(entry.at.seq().0 + 1));
        page.next = page.next.or_else(|| Some(asked.until.max(last)));
        let mut state = self.lock();
        state.window = self.home.budget.window();
        let window = state.window;
        for entry in &mut page.entries {
            entry.at = Position::new(asked.level, entry.at.seq());
            if let Some(ttl_ms) = state.rules.ttl_ms {
                entry.bring_deadline_forward(now_ms.saturating_add(ttl_ms).max(1));
            }
        }
        let lane = state.lanes.iter_mut().find(|lane| lane.level == asked.level);
        let held = lane.map(|lane| lane.take_page(page, window, now_ms)).unwrap_or_default();
        for (Held { due_ms, reason }, entry) in held {
            match reason {
                Some(reason) => state.stay_again(entry, reason, due_ms),
                None => {
                    state.delayed.insert((due_ms, entry.at), entry);
                }
            }
        }
        state.expire_heads(now_ms);
        state.dispatch(now_ms);
        state.drop_over_limit(now_ms);
        let getters = std::mem::take(&mut state.getters);
        self.finish_but_fill(state, now_ms);
        getters.iter().for_each(|outbox| outbox.nudge());
    }

    /// Tells all queues together what this one takes.
    pub(super) fn report(&self, state: &mut State) {
        if self.keeps {
            let size = |lane: &super::lane::Lane| weight(lane.ready.len(), lane.ready_bytes);
            let weight = state.lanes.iter().map(size).sum();
            state.reported = self.home.budget.report(state.reported, weight);
        }
    }

    /// Takes over what a restart has found in the store of one level.
    pub(crate) fn restore(self: &Arc<Self>, level: u8, log: &OpenedLog, bytes: u64) {
        let mut state = self.lock();
        let at = state.lane_at(level);
        if let Some(lane) = state.lanes.get_mut(at) {
            lane.log = log.id;
            lane.restore(log.floor, log.next_seq, log.live_count, bytes);
        }
        drop(state);
        if log.live_count > 0 {
            // What may expire there is known when it has been read.
            self.schedule(1);
        }
    }

    /// Takes over where a level is stored.
    pub(crate) fn restore_level(&self, level: u8, log: LogId) {
        let mut state = self.lock();
        let at = state.lane_at(level);
        if let Some(lane) = state.lanes.get_mut(at) {
            lane.log = log;
        }
    }

    /// Every level that is stored, and where.
    pub(crate) fn logs(&self) -> Vec<(u8, LogId)> {
        let state = self.state.lock();
        state.lanes.iter().map(|lane| (lane.level, lane.log)).filter(|(_, l)| l.0 != 0).collect()
    }
}
