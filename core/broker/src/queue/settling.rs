//! How deliveries end: accepted, back at their places, held for later, or gone as dead letters.

use polymq_contract::{DeliveryRange, Note, Outcome};

use super::{
    Entry,
    retry::{HOT_LOOP_DELAY_MS, HOT_LOOP_DELIVERIES},
    state::State,
};

/// The time, and what the core does not have itself: chance.
#[derive(Clone, Copy)]
pub(super) struct Moment<'a> {
    pub(super) now_ms: u64,
    /// A random number from 0 to 1.
    pub(super) chance: &'a dyn Fn() -> f64,
    /// What a client says about what it settles.
    pub(super) note: Option<&'a Note>,
}

impl State {
    /// Settles deliveries of a consumer. Returns true when it is cancelled and has none left.
    pub(super) fn settle(
        &mut self,
        slot: usize,
        deliveries: DeliveryRange,
        outcome: Outcome,
        moment: Moment<'_>,
    ) -> bool {
        let Some(consumer) = self.consumers.get_mut(slot) else { return false };
        let mut unsettled = std::mem::take(&mut consumer.unsettled);
        let mut count = 0;
        let before = self.departing.len();
        let reason = moment.note.and_then(|note| note.reason.as_deref());
        unsettled.take(deliveries.first, deliveries.last, |entry| {
            count += 1;
            match outcome {
                Outcome::Accepted => self.note_settled(&entry),
                Outcome::Returned => self.come_back(entry, false, moment),
                Outcome::Failed => self.come_back(entry, true, moment),
                Outcome::Rejected => self.depart_with(entry, "rejected", reason),
                Outcome::TooLarge => self.depart_with(entry, "too_large", reason),
            }
        });
        self.unsettled = self.unsettled.saturating_sub(u64::from(count));
        let left = unsettled.len();
        let Some(consumer) = self.consumers.get_mut(slot) else { return false };
        consumer.unsettled = unsettled;
        consumer.spec.group.give_back(count);
        let over_limit = self.departing.iter().skip(before);
        let over_limit = over_limit.filter(|d| d.reason == "delivery_limit").count();
        if over_limit > 0 {
            // A crash of a consumer hits everything it had at once, and people should know which.
            tracing::warn!(
                event = "delivery_limit",
                consumer = &*consumer.spec.tag,
                messages = over_limit,
                "messages have failed too often"
            );
        }
        !consumer.active && left == 0
    }

    /// A message comes back, unless that was once too often.
    fn come_back(&mut self, entry: Entry, has_failed: bool, moment: Moment<'_>) {
        if self.rules.is_last_delivery(entry.failed, entry.acquired, has_failed) {
            return self.depart(entry, "delivery_limit");
        }
        self.give_back(entry, has_failed, moment);
    }

    /// Returns a message to its place, or holds it until it is due.
    pub(super) fn give_back(&mut self, mut entry: Entry, has_failed: bool, moment: Moment<'_>) {
        entry.acquired = entry.acquired.saturating_add(1);
        entry.failed = entry.failed.saturating_add(u16::from(has_failed));
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
            None if entry.acquired > HOT_LOOP_DELIVERIES => {
                tracing::warn!(
                    event = "hot_loop",
                    seq = entry.at.number().0,
                    deliveries = entry.acquired,
                    "a message that comes back again and again is slowed down"
                );
                Some(HOT_LOOP_DELAY_MS)
            }
            None => None,
        }
    }

    /// Holds a message until it is due.
    pub(super) fn hold(&mut self, entry: Entry, due_ms: u64) {
        self.note_counts(&entry, due_ms);
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
