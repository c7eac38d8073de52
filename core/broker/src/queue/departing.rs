//! Messages that leave without having been accepted.
//!
//! The machine puts them into a list in the order in which they die. Behind the lock, one thread at
//! a time publishes them to where dead letters go and then settles them here, in one batch, so that
//! a message is in one of the two places after any crash, and dead letters keep their order.

use std::{
    cell::RefCell,
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use super::{Entry, Held, Position, Queue, settling::Moment, state::State};
use crate::{
    counters::{TotalCounters, add},
    trace::Marks,
};

/// So many leave in one batch at most.
const AT_ONCE_MAX: usize = 256;
/// How long to wait for room in the store, in ms.
const FULL_STORE_RETRY_MS: u64 = 1000;

/// So many circles of dead letters are told of one queue.
const TOLD_CYCLES_MAX: usize = 16;

/// A dead letter on its way.
#[derive(Debug, Clone)]
pub(crate) struct Departing {
    pub(crate) entry: Entry,
    pub(crate) reason: &'static str,
    /// What the consumer said about it.
    pub(crate) detail: Option<Box<str>>,
    /// False for a publish that was refused: it never had a place here.
    had_place: bool,
    /// How often nobody has taken it.
    tries: u16,
    /// Who follows it.
    pub(crate) marks: Marks,
}

/// A dead letter that stays in its queue until somebody takes it.
#[derive(Debug)]
pub(super) struct Staying {
    departing: Departing,
    /// When it is tried again, in ms since 1970.
    pub(super) due_ms: u64,
}

/// Messages that were dropped, by reason, since somebody counted them.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    expired: u64,
    maxlen: u64,
    slow: u64,
    rejected: u64,
    permission: u64,
}

impl Dropped {
    pub(super) fn count(&mut self, reason: &str) {
        match reason {
            "expired" => self.expired += 1,
            "maxlen" => self.maxlen += 1,
            "slow" => self.slow += 1,
            "permission" => self.permission += 1,
            _ => self.rejected += 1,
        }
    }

    fn report(&self, total: &TotalCounters) {
        add(&total.dropped_expired, self.expired);
        add(&total.dropped_maxlen, self.maxlen);
        add(&total.dropped_slow_consumer, self.slow);
        add(&total.dropped_rejected, self.rejected);
        add(&total.dropped_permission, self.permission);
    }

    fn is_empty(&self) -> bool {
        self.expired + self.maxlen + self.slow + self.rejected + self.permission == 0
    }
}

impl State {
    /// A message leaves without having been accepted.
    pub(super) fn depart(&mut self, entry: Entry, reason: &'static str) {
        self.depart_because(entry, reason, None);
    }

    /// A message leaves, and its consumer said why.
    pub(super) fn depart_because(
        &mut self,
        entry: Entry,
        reason: &'static str,
        detail: Option<&str>,
    ) {
        if self.rules.dead_letter.is_none() {
            self.note_settled(&entry);
            self.trace_end(entry.at, "dropped", Some(reason));
            return self.dropped.count(reason);
        }
        let (detail, marks) = (detail.map(Into::into), self.trace_departing(entry.at));
        let had_place = true;
        self.departing.push_back(Departing { entry, reason, detail, had_place, tries: 0, marks });
    }

    /// A message was refused a place.
    pub(super) fn refuse(&mut self, entry: Entry, reason: &'static str) {
        if self.rules.dead_letter.is_some() {
            let (detail, had_place, marks) = (None, false, Marks::new());
            let departing = Departing { entry, reason, detail, had_place, tries: 0, marks };
            self.departing.push_back(departing);
        }
    }

    /// What leaves next; nothing while somebody else is at it.
    fn take_departing(&mut self) -> Vec<Departing> {
        if self.is_departing || self.departing.is_empty() {
            return Vec::new();
        }
        self.is_departing = true;
        let count = self.departing.len().min(AT_ONCE_MAX);
        self.departing.drain(..count).collect()
    }

    /// Dead letters have been published, each to somebody or to nobody.
    fn departed(&mut self, departed: Vec<(Departing, bool)>, moment: Moment<'_>) {
        self.is_departing = false;
        for (departing, is_taken) in departed {
            // A limit is strict, so what is beyond it cannot stay.
            let stays = !is_taken
                && departing.had_place
                && self.rules.keeps_unroutable
                && departing.reason != "maxlen";
            if stays {
                self.stay(departing, moment);
            } else if departing.had_place {
                self.note_settled(&departing.entry);
            }
        }
    }

    /// A dead letter has found nobody: it is tried again later.
    fn stay(&mut self, mut departing: Departing, moment: Moment<'_>) {
        departing.tries = departing.tries.saturating_add(1);
        let tries = departing.tries;
        let retry = self.rules.retry.and_then(|r| r.delay_ms(true, tries, (moment.chance)()));
        let delay_ms = retry.unwrap_or_else(|| default_delay_ms(tries)).max(1);
        let due_ms = moment.now_ms.saturating_add(delay_ms);
        let held = Held { due_ms, reason: Some(departing.reason) };
        self.note_counts(&departing.entry, held.to_stored());
        self.staying.insert(departing.entry.at, Staying { departing, due_ms });
    }

    /// A dead letter that stayed before a restart has been read.
    pub(super) fn stay_again(&mut self, entry: Entry, reason: &'static str, due_ms: u64) {
        let at = entry.at;
        let (detail, had_place, marks) = (None, true, Marks::new());
        let departing = Departing { entry, reason, detail, had_place, tries: 1, marks };
        self.staying.insert(at, Staying { departing, due_ms });
    }

    /// Gives up the dead letters that nobody has taken.
    pub(super) fn take_staying(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.staying).into_values().map(|s| s.departing.entry).collect()
    }

    /// Dead letters that wait for somebody to take them, with the time of the next try.
    pub(super) fn staying_from(&self, from: Position) -> impl Iterator<Item = (&Entry, u64)> {
        self.staying.range(from..).map(|(_, staying)| (&staying.departing.entry, staying.due_ms))
    }

    /// Has dead letters tried again that are due.
    pub(super) fn depart_again(&mut self, now_ms: u64) {
        let due = self.staying.extract_if(.., |_, staying| staying.due_ms <= now_ms);
        self.departing.extend(due.map(|(_, staying)| staying.departing));
    }
}

/// How long a dead letter waits that nobody takes, when no retry policy says: 1 s, 2 s, … 60 s.
fn default_delay_ms(times: u16) -> u64 {
    u64::from(times.clamp(1, 60)) * 1000
}

/// Queues with the time in ms since 1970.
type Waiting = VecDeque<(Arc<Queue>, u64)>;

thread_local! {
    /// Queues whose dead letters this thread is to publish. A dead letter may push out others, so
    /// they wait here instead of on the stack.
    static WAITING: RefCell<Option<Waiting>> = const { RefCell::new(None) };
}

impl Queue {
    /// Publishes the dead letters that wait, those of others that they push out, and so on.
    pub(super) fn publish_dead_letters(self: &Arc<Self>, now_ms: u64) {
        let is_nested = WAITING.with_borrow_mut(|waiting| match waiting {
            Some(waiting) => {
                waiting.push_back((self.clone(), now_ms));
                true
            }
            None => {
                *waiting = Some(VecDeque::new());
                false
            }
        });
        if is_nested {
            return;
        }
        self.publish_own_dead_letters(now_ms);
        let next = || WAITING.with_borrow_mut(|waiting| waiting.as_mut()?.pop_front());
        while let Some((queue, now_ms)) = next() {
            queue.publish_own_dead_letters(now_ms);
        }
        WAITING.set(None);
    }

    fn publish_own_dead_letters(self: &Arc<Self>, now_ms: u64) {
        let (Some(core), Some(vhost)) = (self.home.core(), self.home.vhost()) else { return };
        // Without room on the disk they would pile up in memory.
        if self.committer.is_refused() {
            return self.schedule(now_ms.saturating_add(FULL_STORE_RETRY_MS));
        }
        loop {
            let (departing, to) = {
                let mut state = self.lock();
                (state.take_departing(), state.rules.dead_letter.clone())
            };
            if departing.is_empty() {
                return;
            }
            // Leaving here and arriving there are kept together or not at all.
            let _together = self.committer.together();
            let publish = |departing: Departing| {
                let is_taken = to
                    .as_ref()
                    .is_none_or(|to| core.dead_letter(&vhost, self, to, &departing, now_ms));
                (departing, is_taken)
            };
            let departed: Vec<_> = departing.into_iter().map(publish).collect();
            let mut state = self.lock();
            self.at(now_ms, |moment| state.departed(departed, moment));
            self.settle_records(&mut state);
            let due_ms = state.next_due_ms(now_ms, self.scheduled_ms.load(Ordering::Relaxed));
            drop(state);
            if let Some(due_ms) = due_ms {
                self.schedule(due_ms);
            }
        }
    }

    /// Logs a circle of dead letters that ends at `target`, once.
    pub(crate) fn tell_cycle(&self, target: &Self) {
        let mut told = self.told_cycles.lock();
        if told.contains(&target.name) || told.len() >= TOLD_CYCLES_MAX {
            return;
        }
        told.push(target.name.clone());
        tracing::warn!(
            event = "dead_letter_cycle",
            vhost = self.home.vhost_name(),
            from = %self.name,
            to = %target.name,
            "dead letters that go in a circle are dropped"
        );
    }

    /// Counts what was dropped.
    pub(super) fn report_dropped(&self, dropped: &Dropped) {
        if !dropped.is_empty()
            && let Some(core) = self.home.core()
        {
            dropped.report(&core.counters.total);
        }
    }
}
