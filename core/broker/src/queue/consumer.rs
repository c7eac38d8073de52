//! A consumer as its queue sees it.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use polymq_contract::{Arguments, ChannelMode, Event, Outbox};
use polymq_model::{ConnectionId, ConsumerId};

use super::unsettled::Unsettled;
use crate::{
    counters::add,
    statistics::{ActivityCounters, Ring},
};

/// How exactly the age of a delivery is known, in ms.
const MARK_EVERY_MS: u64 = 100;
/// Marks that are kept without looking whether a delivery of theirs is still out.
const MARKS_MIN: usize = 64;

/// The consumers of a channel: it bounds their unsettled deliveries together, and counts what
/// happens on the channel.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// Whose it is.
    pub(crate) connection: ConnectionId,
    /// What it speaks.
    pub(crate) protocol: &'static str,
    /// The number of the channel, 0 where a protocol has none.
    pub(crate) channel: u32,
    limit: AtomicU32,
    used: AtomicU32,
    /// What its last consumer asked for.
    pub(crate) prefetch: AtomicU32,
    /// Who publishes here.
    pub(crate) publisher: AtomicU32,
    /// Publishes that asked for a confirm.
    pub(crate) confirms_asked: AtomicU64,
    /// It has asked for confirms.
    pub(crate) is_confirming: AtomicBool,
    /// It has had a transaction.
    pub(crate) is_transactional: AtomicBool,
    /// Publishes, and deliveries to settle, that wait for a commit.
    pub(crate) uncommitted: (AtomicUsize, AtomicUsize),
    pub(crate) activity: ActivityCounters,
    pub(crate) history: Mutex<Ring>,
}

impl Group {
    /// The group of a channel.
    pub(crate) fn new(connection: ConnectionId, protocol: &'static str, channel: u32) -> Self {
        Self { connection, protocol, channel, ..Self::default() }
    }

    /// What is shown of the channel.
    pub(crate) fn describe(&self, mode: ChannelMode) {
        match mode {
            ChannelMode::Confirms => self.is_confirming.store(true, Ordering::Relaxed),
            ChannelMode::Transaction { publishes, settlements } => {
                self.is_transactional.store(true, Ordering::Relaxed);
                self.uncommitted.0.store(publishes, Ordering::Relaxed);
                self.uncommitted.1.store(settlements, Ordering::Relaxed);
            }
        }
    }

    /// Its bound, 0 for none, and the unsettled deliveries.
    pub(crate) fn usage(&self) -> (u32, u32) {
        (self.limit.load(Ordering::Relaxed), self.used.load(Ordering::Relaxed))
    }

    /// Sets the bound; 0 for none.
    pub(crate) fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// True when there is a bound.
    pub(crate) fn is_bounded(&self) -> bool {
        self.limit.load(Ordering::Relaxed) != 0
    }

    fn has_room(&self) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        limit == 0 || self.used.load(Ordering::Relaxed) < limit
    }

    /// Counts one more below the bound. Other queues hand out to the same group meanwhile.
    fn try_take(&self) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let below = |used| (limit == 0 || used < limit).then_some(used + 1);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below).is_ok()
    }

    pub(super) fn take_one(&self) {
        self.used.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self, count: u32) {
        self.used.fetch_sub(count, Ordering::Relaxed);
    }
}

/// What a connection says about a consumer it registers.
#[derive(Debug, Clone)]
pub(crate) struct ConsumerSpec {
    pub(crate) consumer: ConsumerId,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) no_ack: bool,
    pub(crate) exclusive: bool,
    pub(crate) prefetch: u32,
    pub(crate) group: Arc<Group>,
    pub(crate) priority: i64,
    /// How long it asks to have for a delivery, in ms: 0 for no bound, `None` for what the queue
    /// says.
    pub(crate) timeout_ms: Option<u64>,
    /// The only key that it takes, and only as messages come; `None` for all that waits.
    pub(crate) address: Option<Box<str>>,
    /// Its name, for people.
    pub(crate) tag: Arc<str>,
    /// What it was started with, for people.
    pub(crate) arguments: Arc<Arguments>,
}

#[derive(Debug)]
pub(super) struct QueueConsumer {
    pub(super) spec: ConsumerSpec,
    /// False once cancelled: only its unsettled deliveries are left.
    pub(super) active: bool,
    /// Its client is away, and comes back for its unsettled deliveries.
    pub(super) parked: bool,
    pub(super) next_number: u64,
    pub(super) unsettled: Unsettled,
    /// Deliveries of the dispatch that is under way.
    pub(super) staged: Vec<Event>,
    staged_acked: u32,
    /// Those of them that had been delivered before.
    pub(super) staged_again: u64,
    /// Bytes the outbox still takes in the dispatch that is under way.
    room: usize,
    /// Since when deliveries from a number on have been out: (number, ms).
    marks: VecDeque<(u64, u64)>,
    /// So many marks are enough to look which of them still say something.
    marks_max: usize,
    /// Since when that counts for how long a delivery may take, in ms since 1970.
    timed_from_ms: u64,
}

impl QueueConsumer {
    pub(super) fn new(spec: ConsumerSpec, active: bool) -> Self {
        Self {
            spec,
            active,
            parked: false,
            next_number: 1,
            unsettled: Unsettled::default(),
            staged: Vec::new(),
            staged_acked: 0,
            staged_again: 0,
            room: 0,
            marks: VecDeque::new(),
            marks_max: MARKS_MIN,
            timed_from_ms: 0,
        }
    }

    /// Notes when the next deliveries go out.
    #[inline]
    pub(super) fn mark(&mut self, now_ms: u64) {
        match self.marks.back_mut() {
            Some((_, ms)) if now_ms < *ms + MARK_EVERY_MS => {}
            // Nothing has gone out since.
            Some((number, ms)) if *number == self.next_number => *ms = now_ms,
            _ => self.add_mark(now_ms),
        }
    }

    /// Deliveries that are still out are as many as there may be marks, so that one delivery that
    /// is never settled keeps few of them.
    fn add_mark(&mut self, now_ms: u64) {
        if self.marks.len() >= self.marks_max {
            let behind: Vec<u64> = self.marks.iter().skip(1).map(|(number, _)| *number).collect();
            let mut behind = behind.into_iter();
            let unsettled = &self.unsettled;
            self.marks.retain(|(number, _)| match behind.next() {
                Some(next) => unsettled.from(*number).next().is_some_and(|(n, _)| n < next),
                None => true,
            });
            self.marks_max = self.marks.len().saturating_mul(2).max(MARKS_MIN);
        }
        self.marks.push_back((self.next_number, now_ms));
    }

    /// Since when a delivery has been out, in ms since 1970, to a tenth of a second; `None` for one
    /// of before this connection.
    pub(super) fn out_since(&self, number: u64) -> Option<u64> {
        let behind = self.marks.partition_point(|(first, _)| *first <= number);
        behind.checked_sub(1).and_then(|at| self.marks.get(at)).map(|(_, ms)| *ms)
    }

    /// Its deliveries are numbered anew.
    pub(super) fn forget_times(&mut self) {
        self.marks.clear();
    }

    /// Deliveries that are out may take only so long from now on.
    pub(super) fn begin_timing(&mut self, now_ms: u64) {
        self.timed_from_ms = now_ms;
        if self.marks.is_empty() {
            self.marks.push_back((self.unsettled.first().unwrap_or(self.next_number), now_ms));
        }
    }

    /// Until when the oldest delivery must be settled when it may take `timeout_ms`, in ms since
    /// 1970.
    pub(super) fn overdue_at(&mut self, timeout_ms: u64) -> Option<u64> {
        let oldest = self.unsettled.first()?;
        while self.marks.get(1).is_some_and(|(number, _)| *number <= oldest) {
            self.marks.pop_front();
        }
        let since = self.marks.front().map(|(_, ms)| (*ms).max(self.timed_from_ms));
        since.map(|ms| ms.saturating_add(timeout_ms + MARK_EVERY_MS))
    }

    /// Looks how much the connection takes; called once at the start of a dispatch.
    ///
    /// When there is no room, the connection's task is asked to come back once there is.
    pub(super) fn look_for_room(&mut self) {
        self.room = self.spec.outbox.room();
        if self.active && self.room == 0 && self.spec.outbox.note_stalled() {
            self.room = self.spec.outbox.room();
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.active
            && self.room > 0
            && (self.spec.no_ack
                || ((self.spec.prefetch == 0
                    || self.unsettled.len() < self.spec.prefetch as usize)
                    && self.spec.group.has_room()))
    }

    /// Takes the group's place for the next delivery; false when somebody else has the last one.
    pub(super) fn reserve(&mut self) -> bool {
        if self.spec.no_ack {
            return true;
        }
        if self.spec.group.is_bounded() {
            return self.spec.group.try_take();
        }
        // Without a bound nobody looks at the count, so it is added up once for all.
        self.staged_acked += 1;
        true
    }

    #[inline]
    pub(super) fn stage(&mut self, event: Event, weight: usize) {
        self.room = self.room.saturating_sub(weight);
        if self.room == 0 {
            // What is staged fills the outbox: its task is to come back when that has been sent.
            self.spec.outbox.note_stalled();
        }
        self.staged.push(event);
    }

    pub(super) fn send_staged(&mut self) {
        if self.staged.is_empty() {
            return;
        }
        if self.staged_acked > 0 {
            self.spec.group.used.fetch_add(self.staged_acked, Ordering::Relaxed);
            self.staged_acked = 0;
        }
        let activity = &self.spec.group.activity;
        let counter =
            if self.spec.no_ack { &activity.delivered_no_ack } else { &activity.delivered };
        add(counter, self.staged.len() as u64);
        add(&activity.redelivered, std::mem::take(&mut self.staged_again));
        self.spec.outbox.push_all(self.staged.drain(..));
        if self.staged.capacity() > 1024 {
            self.staged = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{parked::absent, tests::entry};

    #[test]
    fn a_delivery_that_is_never_settled_keeps_few_marks_and_its_own_time() {
        let mut consumer = QueueConsumer::new(absent(ConsumerId(1)), true);
        for number in 1..=100_000 {
            let now_ms = 1_000_000 + number * MARK_EVERY_MS;
            consumer.mark(now_ms);
            consumer.unsettled.push(number, entry(number));
            consumer.next_number += 1;
            if number > 1 {
                consumer.unsettled.take(number, number, drop);
            }
        }
        assert!(consumer.marks.len() <= MARKS_MIN, "{}", consumer.marks.len());
        assert_eq!(consumer.out_since(1), Some(1_000_100));
        assert_eq!(consumer.overdue_at(500), Some(1_000_700));
        assert_eq!(QueueConsumer::new(absent(ConsumerId(1)), true).out_since(1), None);
    }
}
