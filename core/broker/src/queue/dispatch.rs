//! Handing ready messages to consumers: highest priority first, in turn among equals.

use polymq_contract::Event;

use super::{
    consumer::QueueConsumer,
    state::{State, delivery, last_delivery},
};

impl State {
    /// Hands ready messages to consumers until either runs out.
    pub(super) fn dispatch(&mut self, now_ms: u64) {
        if self.ring.is_empty() || self.paused || !self.has_next() {
            return;
        }
        for slot in &self.ring {
            if let Some(consumer) = self.consumers.get_mut(*slot) {
                consumer.look_for_room();
            }
        }
        let is_timed = self.is_timed();
        self.active_ms = now_ms;
        while let Some(lane) = self.next_lane(now_ms) {
            // A turn counts only when there is something to hand over.
            let Some(slot) = self.next_consumer() else { break };
            if !self.consumers.get_mut(slot).is_some_and(QueueConsumer::reserve) {
                continue;
            }
            let Some(lane) = self.lanes.get_mut(lane) else { break };
            let Some(entry) = lane.pop_head() else { break };
            let Some(consumer) = self.consumers.get_mut(slot) else { break };
            let weight = size_of::<Event>() + entry.message.size();
            let is_again = entry.acquired > 0;
            self.activity.redelivered += u64::from(is_again);
            consumer.staged_again += u64::from(is_again);
            if let Some(tracked) = &mut self.tracked {
                tracked.delivered(entry.at, &consumer.spec, is_again);
            }
            if consumer.spec.no_ack {
                self.activity.delivered_no_ack += 1;
                lane.note_settled(entry.at.seq(), &entry.message);
                let delivery = last_delivery(entry, consumer.spec.consumer, 0);
                consumer.stage(Event::Delivered(delivery), weight);
                continue;
            }
            if is_timed {
                consumer.mark(now_ms);
            }
            self.activity.delivered += 1;
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
}
