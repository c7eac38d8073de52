//! Consumers that take only what is addressed to them: the resources of a mailbox.
//!
//! A message whose key is that of such a consumer goes to it when it comes, past those that wait.
//! It is a delivery like any other, so a durable one is stored, and when it comes back it waits for
//! the consumers of the whole queue.

use std::collections::HashMap;

use super::state::State;

/// Slots of consumers by the keys that they take; whoever came last has a key.
pub(super) type Addressed = HashMap<Box<str>, usize>;

impl State {
    /// Has a consumer take what has its key from now on; false when it takes everything.
    pub(super) fn address(&mut self, slot: usize) -> bool {
        let address = self.consumers.get(slot).and_then(|consumer| consumer.spec.address.clone());
        let Some(address) = address else { return false };
        self.addressed.get_or_insert_default().insert(address, slot);
        true
    }

    /// A consumer takes nothing more.
    pub(super) fn forget_address(&mut self, slot: usize) {
        if let Some(addressed) = &mut self.addressed {
            addressed.retain(|_, other| *other != slot);
        }
    }

    /// True while somebody takes what is addressed to it.
    pub(super) fn has_addressed(&self) -> bool {
        self.addressed.as_ref().is_some_and(|addressed| !addressed.is_empty())
    }

    /// Hands those of the last `count` messages of a lane over that are addressed to a consumer
    /// with room. What finds none waits like any other message.
    pub(super) fn hand_addressed(&mut self, lane: usize, count: usize, now_ms: u64) {
        let Some(addressed) = self.addressed.take_if(|_| !self.paused) else { return };
        let come = match self.lanes.get_mut(lane) {
            // What stands behind the window stays there: the disk knows its place.
            Some(lane) if lane.tail.is_empty() => lane.take_last(count),
            _ => Vec::new(),
        };
        let timed_ms = self.is_timed().then_some(now_ms);
        let mut slots: Vec<usize> = Vec::new();
        for entry in come {
            let slot = addressed.get(entry.message.key()).copied();
            if let Some(slot) = slot.filter(|slot| self.takes(*slot, slots.contains(slot))) {
                self.hand(entry, slot, timed_ms);
                if !slots.contains(&slot) {
                    slots.push(slot);
                }
            } else if let Some(lane) = self.lanes.get_mut(lane) {
                lane.put_last(entry);
            }
        }
        for slot in slots {
            if let Some(consumer) = self.consumers.get_mut(slot) {
                consumer.send_staged();
            }
        }
        self.addressed = Some(addressed);
    }

    /// True when a consumer has room, and has taken it.
    fn takes(&mut self, slot: usize, has_looked: bool) -> bool {
        self.consumers.get_mut(slot).is_some_and(|consumer| {
            if !has_looked {
                consumer.look_for_room();
            }
            consumer.has_room() && consumer.reserve()
        })
    }

    /// Hands what is too much for the window to the store. What has been handed over past it stands
    /// between, and must not be read there again.
    pub(super) fn spill(&mut self, durable: polymq_store::ShardBatch) {
        let window = self.window;
        for at in 0..self.lanes.len() {
            let Some(lane) = self.lanes.get_mut(at) else { return };
            let had_tail = !lane.tail.is_empty();
            lane.spill(window, durable);
            if had_tail || lane.tail.is_empty() || self.addressed.is_none() {
                continue;
            }
            let level = lane.level;
            let out = self.consumers.iter().flat_map(|(_, consumer)| consumer.unsettled.iter());
            let out = out.chain(self.delayed.values()).filter(|entry| entry.at.level() == level);
            let out: Vec<_> = out.map(|entry| entry.at.seq()).collect();
            let Some(lane) = self.lanes.get_mut(at) else { return };
            let back: Vec<_> = lane.returned.keys().copied().collect();
            lane.tail.pass_over(out.into_iter().chain(back));
        }
    }
}
