//! Who is there to take messages.

use polymq_contract::Event;

use super::{ConsumerSpec, consumer::QueueConsumer, rules::Rules, state::State};

/// A consumer that took too long.
pub(super) struct Overdue {
    pub(super) slot: usize,
    pub(super) spec: ConsumerSpec,
}

impl State {
    pub(super) fn add_consumer(&mut self, spec: ConsumerSpec, now_ms: u64) -> usize {
        if let Some(ms) = spec.timeout_ms.filter(|ms| *ms > 0) {
            self.own_timeout_ms = self.own_timeout_ms.map_or(Some(ms), |least| Some(least.min(ms)));
        }
        let slot = self.consumers.insert(QueueConsumer::new(spec, false));
        self.activate(slot, now_ms);
        slot
    }

    /// Gives a consumer its place in the ring.
    pub(super) fn activate(&mut self, slot: usize, now_ms: u64) {
        let Some(consumer) = self.consumers.get_mut(slot) else { return };
        consumer.active = true;
        let priority = consumer.spec.priority;
        if self.address(slot) {
            return self.touch(now_ms);
        }
        let at = self.ring.partition_point(|other| {
            self.consumers.get(*other).is_some_and(|c| c.spec.priority >= priority)
        });
        self.ring.insert(at, slot);
        if self.single_active && self.sole.is_none() {
            self.sole = Some(slot);
        }
        self.touch(now_ms);
    }

    pub(super) fn cancel(&mut self, slot: usize, now_ms: u64) {
        if let Some(consumer) = self.consumers.get_mut(slot) {
            consumer.active = false;
            self.ring.retain(|other| *other != slot);
            self.forget_address(slot);
            if self.sole == Some(slot) {
                // The next in priority, then age, takes over.
                self.sole = self.ring.first().copied();
            }
            self.touch(now_ms);
        }
    }

    pub(super) fn has_unsettled(&self, slot: usize) -> bool {
        self.consumers.get(slot).is_some_and(|consumer| consumer.unsettled.len() > 0)
    }

    pub(super) fn forget(&mut self, slot: usize) {
        self.consumers.try_remove(slot);
    }

    /// The consumers whose oldest delivery has been out for too long. Connections that only got
    /// something are among them.
    pub(super) fn overdue(&mut self, now_ms: u64) -> Vec<Overdue> {
        if !self.is_timed() {
            return Vec::new();
        }
        let mut overdue = Vec::new();
        for (slot, consumer) in &mut self.consumers {
            let due = overdue_at(consumer, &self.rules).filter(|_| !consumer.parked);
            if due.is_some_and(|due| due <= now_ms) {
                overdue.push(Overdue { slot, spec: consumer.spec.clone() });
            }
        }
        overdue
    }

    /// When the next delivery will have been out for too long.
    pub(super) fn next_overdue_ms(&mut self) -> Option<u64> {
        if !self.is_timed() {
            return None;
        }
        let waiting = self.consumers.iter_mut().filter(|(_, consumer)| !consumer.parked);
        waiting.filter_map(|(_, consumer)| overdue_at(consumer, &self.rules)).min()
    }

    /// True when some consumer may take only so long.
    pub(super) fn is_timed(&self) -> bool {
        self.shortest_timeout_ms().is_some()
    }

    /// The shortest time that a consumer here may take; may be too short.
    pub(super) fn shortest_timeout_ms(&self) -> Option<u64> {
        self.rules.consumer_timeout_ms.into_iter().chain(self.own_timeout_ms).min()
    }

    /// The consumer whose turn it is: the first with room of the highest priority that has one.
    pub(super) fn next_consumer(&mut self) -> Option<usize> {
        if self.single_active {
            return self
                .sole
                .filter(|slot| self.consumers.get(*slot).is_some_and(QueueConsumer::has_room));
        }
        let count = self.ring.len();
        let mut best: Option<(usize, i64)> = None;
        for step in 0..count {
            let at = (self.turn + step) % count;
            let slot = *self.ring.get(at)?;
            let Some(consumer) = self.consumers.get(slot) else { continue };
            if !consumer.has_room() {
                continue;
            }
            let priority = consumer.spec.priority;
            if best.is_none_or(|(_, highest)| priority > highest) {
                best = Some((at, priority));
            }
            // The ring is sorted, so nobody ranks above its first consumer.
            let top = self.ring.first().and_then(|s| self.consumers.get(*s));
            if top.is_none_or(|c| c.spec.priority == priority) {
                break;
            }
        }
        let (at, _) = best?;
        self.turn = (at + 1) % count;
        self.ring.get(at).copied()
    }
}

/// Until when the oldest delivery of a consumer must be settled, in ms since 1970.
fn overdue_at(consumer: &mut QueueConsumer, rules: &Rules) -> Option<u64> {
    let timeout_ms = rules.consumer_timeout_of(consumer.spec.timeout_ms)?;
    consumer.overdue_at(timeout_ms)
}

/// Tells a consumer that it has ended.
pub(super) fn tell_cancelled(spec: &ConsumerSpec, reason: polymq_contract::CancelReason) {
    spec.outbox.push(Event::ConsumerCancelled { consumer: spec.consumer, reason });
}
