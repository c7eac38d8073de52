//! Handing ready messages to consumers: highest priority first, in turn among equals.

use polymq_contract::Event;

use super::{
    Entry,
    consumer::QueueConsumer,
    state::{State, delivery, last_delivery},
};

impl State {
    /// Hands ready messages to consumers until either runs out.
    pub(super) fn dispatch(&mut self, now_ms: u64) {
        if self.paused || !self.has_next() {
            return;
        }
        if self.is_behind() {
            self.catch_up(now_ms);
        }
        if self.ring.is_empty() {
            return;
        }
        for slot in &self.ring {
            if let Some(consumer) = self.consumers.get_mut(*slot) {
                consumer.look_for_room();
                consumer.mark(now_ms);
            }
        }
        self.active_ms = now_ms;
        while let Some(lane) = self.next_lane(now_ms) {
            // A turn counts only when there is something to hand over.
            let Some(slot) = self.next_consumer() else { break };
            if !self.consumers.get_mut(slot).is_some_and(QueueConsumer::reserve) {
                continue;
            }
            let Some(entry) = self.pop_head(lane) else { break };
            self.hand(entry, slot);
        }
        for slot in &self.ring {
            if let Some(consumer) = self.consumers.get_mut(*slot) {
                consumer.send_staged();
            }
        }
    }

    /// Hands a message to a consumer that has a place for it; it goes out with what else is staged.
    #[inline(always)]
    pub(super) fn hand(&mut self, entry: Entry, slot: usize) {
        let Some(consumer) = self.consumers.get_mut(slot) else { return };
        let weight = size_of::<Event>() + entry.message.size();
        let is_again = entry.acquired > 0;
        self.activity.redelivered += u64::from(is_again);
        consumer.staged_again += u64::from(is_again);
        if let Some(tracked) = &mut self.tracked {
            tracked.delivered(entry.at, &consumer.spec, is_again);
        }
        if consumer.spec.no_ack {
            let number = consumer.spec.consumer;
            consumer.next_number += 1;
            self.activity.delivered_no_ack += 1;
            self.note_settled(&entry);
            let event = Event::Delivered(last_delivery(entry, number, 0));
            if let Some(consumer) = self.consumers.get_mut(slot) {
                consumer.stage(event, weight);
            }
            return;
        }
        self.activity.delivered += 1;
        let number = consumer.next_number;
        consumer.next_number += 1;
        let event = Event::Delivered(delivery(&entry, consumer.spec.consumer, number));
        consumer.stage(event, weight);
        let bytes = entry.message.body().len() as u64;
        consumer.unsettled.push(number, entry);
        self.note_unsettled(bytes);
    }
}
