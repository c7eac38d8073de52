//! How deliveries end: accepted, back at their places, held for later, or gone as dead letters.

use polymq_contract::{DeliveryRange, Note, Outcome};

use super::{
    Entry, Held, Queue,
    retry::{HOT_LOOP_DELAY_MS, HOT_LOOP_DELIVERIES},
    state::State,
};
use crate::counters::add;

/// So much of what a consumer says about a message is kept, in bytes.
const REASON_BYTES_MAX: usize = 1024;

/// The time, and what the core does not have itself: chance.
#[derive(Clone, Copy)]
pub(super) struct Moment<'a> {
    pub(super) now_ms: u64,
    /// A random number from 0 to 1.
    pub(super) chance: &'a dyn Fn() -> f64,
    /// What a client says about what it settles.
    pub(super) note: Option<&'a Note>,
}

impl<'a> Moment<'a> {
    /// What the client says about why, as far as it is kept.
    fn reason(&self) -> Option<&'a str> {
        let reason = self.note?.reason.as_deref().filter(|reason| !reason.is_empty())?;
        Some(&reason[..reason.floor_char_boundary(REASON_BYTES_MAX)])
    }
}

/// What settling came to.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// The consumer is cancelled and has no deliveries left.
    pub(super) is_done: bool,
    /// Messages that have failed too often.
    over_limit: usize,
    /// Messages that come back again and again and are slowed down.
    slowed: usize,
}

impl Queue {
    /// Settles deliveries of a consumer. Returns true when it is cancelled and has none left.
    pub(super) fn settle_in(
        &self,
        state: &mut State,
        slot: usize,
        deliveries: DeliveryRange,
        (outcome, note): (Outcome, Option<&Note>),
        now_ms: u64,
    ) -> bool {
        let settled = self.at(now_ms, |moment| {
            state.settle(slot, deliveries, outcome, Moment { note, ..moment })
        });
        // A crash of a consumer hits everything it had at once, and people should know which.
        let consumer = || state.consumers.get(slot).map(|c| c.spec.tag.clone()).unwrap_or_default();
        if settled.over_limit > 0 {
            tracing::warn!(
                event = "delivery_limit",
                queue = %self.name,
                consumer = &*consumer(),
                messages = settled.over_limit,
                "messages have failed too often"
            );
        }
        if settled.slowed > 0 {
            tracing::warn!(
                event = "hot_loop",
                queue = %self.name,
                consumer = &*consumer(),
                messages = settled.slowed,
                "messages that come back again and again are slowed down"
            );
        }
        settled.is_done
    }
}

impl State {
    /// Settles deliveries of a consumer.
    pub(super) fn settle(
        &mut self,
        slot: usize,
        deliveries: DeliveryRange,
        outcome: Outcome,
        moment: Moment<'_>,
    ) -> Settled {
        let mut settled = Settled::default();
        let Some(consumer) = self.consumers.get_mut(slot) else { return settled };
        let mut unsettled = std::mem::take(&mut consumer.unsettled);
        let (mut count, mut bytes) = (0, 0);
        unsettled.take(deliveries.first, deliveries.last, |entry| {
            count += 1;
            bytes += entry.message.body().len() as u64;
            match outcome {
                Outcome::Accepted => {
                    self.note_settled(&entry);
                    if self.tracked.is_some() {
                        self.trace_end(entry.at, "acknowledged", None);
                    }
                }
                Outcome::Returned => self.come_back(entry, false, moment, &mut settled),
                Outcome::Failed => self.come_back(entry, true, moment, &mut settled),
                Outcome::Rejected => self.depart_because(entry, "rejected", moment.reason()),
                Outcome::TooLarge => self.depart(entry, "too_large"),
            }
        });
        self.note_taken_back(u64::from(count), bytes);
        self.active_ms = moment.now_ms.max(self.active_ms);
        let acknowledged = if outcome == Outcome::Accepted { u64::from(count) } else { 0 };
        self.activity.acknowledged += acknowledged;
        let left = unsettled.len();
        let Some(consumer) = self.consumers.get_mut(slot) else { return settled };
        consumer.unsettled = unsettled;
        consumer.spec.group.give_back(count);
        add(&consumer.spec.group.activity.acknowledged, acknowledged);
        settled.is_done = !consumer.active && left == 0;
        settled
    }

    /// A message goes to a consumer that is to settle it.
    pub(super) fn note_unsettled(&mut self, bytes: u64) {
        self.unsettled += 1;
        self.unsettled_bytes += bytes;
    }

    /// Messages are with their consumers no more.
    pub(super) fn note_taken_back(&mut self, messages: u64, bytes: u64) {
        self.unsettled = self.unsettled.saturating_sub(messages);
        self.unsettled_bytes = self.unsettled_bytes.saturating_sub(bytes);
    }

    /// A message comes back, unless that was once too often.
    fn come_back(
        &mut self,
        entry: Entry,
        has_failed: bool,
        moment: Moment<'_>,
        settled: &mut Settled,
    ) {
        if self.rules.is_last_delivery(entry.failed, entry.acquired, has_failed) {
            settled.over_limit += 1;
            return self.depart_because(entry, "delivery_limit", moment.reason());
        }
        let is_hot = self.rules.retry.is_none() && entry.acquired >= HOT_LOOP_DELIVERIES;
        settled.slowed += usize::from(is_hot);
        self.give_back(entry, has_failed, moment);
    }

    /// Returns a message to its place, or holds it until it is due.
    pub(super) fn give_back(&mut self, mut entry: Entry, has_failed: bool, moment: Moment<'_>) {
        entry.acquired = entry.acquired.saturating_add(1);
        entry.failed = entry.failed.saturating_add(u16::from(has_failed));
        self.trace(entry.at, "returned", || vec![("failed", has_failed.to_string())]);
        match self.hold_for(&entry, has_failed, moment) {
            Some(ms) if ms > 0 => self.hold(entry, moment.now_ms.saturating_add(ms)),
            _ => {
                self.note_counts(&entry, 0);
                self.put_back(entry);
            }
        }
    }

    fn hold_for(&self, entry: &Entry, has_failed: bool, moment: Moment<'_>) -> Option<u64> {
        if let Some(ms) = moment.note.and_then(|note| note.retry_after_ms) {
            return Some(ms);
        }
        let times = if has_failed { entry.failed } else { entry.acquired };
        match &self.rules.retry {
            Some(retry) => {
                let chance = if retry.has_jitter() { (moment.chance)() } else { 0.0 };
                retry.delay_ms(has_failed, times, chance)
            }
            None if entry.acquired > HOT_LOOP_DELIVERIES => Some(HOT_LOOP_DELAY_MS),
            None => None,
        }
    }

    /// Holds a message until it is due.
    pub(super) fn hold(&mut self, entry: Entry, due_ms: u64) {
        self.note_counts(&entry, Held { due_ms, reason: None }.to_stored());
        self.delayed.insert((due_ms, entry.at), entry);
    }

    pub(super) fn put_back(&mut self, entry: Entry) {
        if let Some(lane) = self.lane_of(entry.at) {
            lane.put_back(entry);
        }
    }

    /// Returns to their places what is due by now.
    pub(super) fn release_due(&mut self, now_ms: u64) {
        while let Some(first) = self.delayed.first_entry()
            && first.key().0 <= now_ms
        {
            let entry = first.remove();
            self.put_back(entry);
        }
    }

    /// Deliveries that a client has been sent go on when it comes back, whatever their expiry says
    /// [MQTT-4.3.3-7].
    pub(super) fn spare_returned(&mut self) {
        for entry in self.lanes.iter_mut().flat_map(|lane| lane.returned.values_mut()) {
            entry.deadline_ms = 0;
        }
    }
}
