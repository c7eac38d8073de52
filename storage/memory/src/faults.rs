//! Misbehaviour on request.

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;

use polymq_store::{Batch, Durability, LogId, Page, Reply, Seq, ShardBatch, StoreError};

/// What the store does wrong from now on. Submissions are counted from 1, over all openings.
#[derive(Default)]
pub struct Faults {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    submits: u64,
    last_wanted: Option<Durability>,
    fail_at: BTreeMap<u64, (StoreError, bool)>,
    fail_all: Option<StoreError>,
    is_delaying: bool,
    delayed: VecDeque<(Batch, Reply<ShardBatch>)>,
    is_slow_to_read: bool,
    slow_pages: VecDeque<(Result<Page, StoreError>, Reply<Page>)>,
    unreadable: Option<(LogId, Seq, Seq)>,
}

pub(crate) enum Plan {
    Commit(Batch, Reply<ShardBatch>),
    CommitAndFail(Batch, StoreError, Reply<ShardBatch>),
    Fail(StoreError, Reply<ShardBatch>),
    Delayed,
}

impl Faults {
    /// Answers the `nth` submission from now (1 is the next) with `error`, and keeps nothing of it.
    pub fn fail_submit(&self, nth: u64, error: StoreError) {
        let mut inner = self.inner.lock();
        let at = inner.submits.saturating_add(nth);
        inner.fail_at.insert(at, (error, false));
    }

    /// Keeps the `nth` submission from now, and answers it with `error` nevertheless.
    pub fn fail_after_commit(&self, nth: u64, error: StoreError) {
        let mut inner = self.inner.lock();
        let at = inner.submits.saturating_add(nth);
        inner.fail_at.insert(at, (error, true));
    }

    /// Answers every submission with `error`, until called with `None`.
    pub fn fail_all(&self, error: Option<StoreError>) {
        self.inner.lock().fail_all = error;
    }

    /// Holds back every submission until [`MemoryStore::release`](crate::MemoryStore::release).
    ///
    /// A batch that is held back is not kept yet.
    pub fn delay_replies(&self, delay: bool) {
        self.inner.lock().is_delaying = delay;
    }

    /// Forgets the batches that are held back, like a crash before the sync. Their callers see
    /// an engine that went away.
    pub fn lose_delayed(&self) {
        let lost = std::mem::take(&mut self.inner.lock().delayed);
        drop(lost);
    }

    /// Makes these positions of a log unreadable, until called with `None`.
    pub fn damage(&self, positions: Option<(LogId, Seq, Seq)>) {
        self.inner.lock().unreadable = positions;
    }

    /// What is damaged at this position, as far as it goes.
    pub(crate) fn damage_at(&self, log: LogId, seq: Seq) -> Option<(Seq, Seq)> {
        let damaged = self.inner.lock().unreadable;
        let damaged =
            damaged.filter(|(of, first, last)| *of == log && (*first..=*last).contains(&seq));
        damaged.map(|(_, first, last)| (first, last))
    }

    /// How many batches are held back.
    pub fn delayed(&self) -> usize {
        self.inner.lock().delayed.len()
    }

    /// How many batches were submitted so far.
    pub fn submits(&self) -> u64 {
        self.inner.lock().submits
    }

    /// How well the latest batch was to be kept, if there was one.
    pub fn last_wanted(&self) -> Option<Durability> {
        self.inner.lock().last_wanted
    }

    /// Holds back what is read, as it was at that time, until
    /// [`Faults::release_page`](Self::release_page).
    pub fn delay_pages(&self, delay: bool) {
        self.inner.lock().is_slow_to_read = delay;
    }

    /// Answers the oldest read that is held back; false when there is none.
    pub fn release_page(&self) -> bool {
        let slow = self.inner.lock().slow_pages.pop_front();
        slow.map(|(page, reply)| reply(page)).is_some()
    }

    /// Answers a read, now or later.
    pub(crate) fn answer(&self, page: Result<Page, StoreError>, reply: Reply<Page>) {
        let mut inner = self.inner.lock();
        if inner.is_slow_to_read {
            return inner.slow_pages.push_back((page, reply));
        }
        drop(inner);
        reply(page);
    }

    pub(crate) fn take_delayed(&self) -> Option<(Batch, Reply<ShardBatch>)> {
        self.inner.lock().delayed.pop_front()
    }

    pub(crate) fn plan(&self, batch: Batch, wanted: Durability, reply: Reply<ShardBatch>) -> Plan {
        let mut inner = self.inner.lock();
        inner.submits += 1;
        inner.last_wanted = Some(wanted);
        let now = inner.submits;
        match inner.fail_at.remove(&now) {
            Some((error, true)) => return Plan::CommitAndFail(batch, error, reply),
            Some((error, false)) => return Plan::Fail(error, reply),
            None => {}
        }
        if let Some(error) = inner.fail_all.clone() {
            return Plan::Fail(error, reply);
        }
        if inner.is_delaying || !inner.delayed.is_empty() {
            inner.delayed.push_back((batch, reply));
            return Plan::Delayed;
        }
        Plan::Commit(batch, reply)
    }
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inner = self.inner.lock();
        f.debug_struct("Faults")
            .field("submits", &inner.submits)
            .field("delayed", &inner.delayed.len())
            .finish_non_exhaustive()
    }
}
