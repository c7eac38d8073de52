//! Handing ready messages to consumers: highest priority first, in turn among equals.

use polymq_contract::Event;

use super::{
    Departed,
    consumer::QueueConsumer,
    state::{State, delivery},
};

impl State {
    /// Hands ready messages to consumers until either runs out.
    pub(super) fn dispatch(&mut self, now_ms: u64, departed: &mut Vec<Departed>) {
        if self.ring.is_empty() || !self.has_next() {
            return;
        }
        for slot in &self.ring {
            if let Some(consumer) = self.consumers.get_mut(*slot) {
                consumer.look_for_room();
            }
        }
        loop {
            self.expire_head(now_ms, departed);
            if !self.has_next() {
                break;
            }
            // A turn counts only when there is something to hand over.
            let Some(slot) = self.next_consumer() else { break };
            if !self.consumers.get_mut(slot).is_some_and(QueueConsumer::reserve) {
                continue;
            }
            let Some(entry) = self.pop_any() else { break };
            let Some(consumer) = self.consumers.get_mut(slot) else { break };
            let weight = size_of::<Event>() + entry.message.size();
            if consumer.spec.no_ack {
                let event = Event::Delivered(delivery(&entry, consumer.spec.consumer, 0));
                consumer.stage(event, weight);
                self.note_settled(&entry);
                continue;
            }
            let number = consumer.next_number;
            consumer.next_number += 1;
            let event = Event::Delivered(delivery(&entry, consumer.spec.consumer, number));
            consumer.stage(event, weight);
            consumer.unsettled.push(number, entry);
            self.note_unsettled();
        }
        for slot in &self.ring {
            if let Some(consumer) = self.consumers.get_mut(*slot) {
                consumer.send_staged();
            }
        }
    }

    /// The consumer whose turn it is: the first with room of the highest priority that has one.
    fn next_consumer(&mut self) -> Option<usize> {
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
