//! Deliveries that stay with a consumer while its client is away, so that a client of quality of
//! service 2 completes what it has begun and nobody else gets it. MQTT 5, section 4.8.2.

use std::{collections::BTreeSet, sync::Arc};

use polymq_contract::{Event, Outbox};
use polymq_model::{ConsumerId, Seq};

use super::{
    ConsumerSpec, Entry,
    consumer::QueueConsumer,
    settling::Moment,
    state::{State, delivery},
    unsettled::Unsettled,
};

impl State {
    /// Keeps the deliveries at `begun` with the slot and returns the others to their places. False
    /// when there is nothing to keep: the consumer is gone then.
    pub(super) fn park(&mut self, slot: usize, begun: &BTreeSet<Seq>, moment: Moment<'_>) -> bool {
        self.cancel(slot, moment.now_ms);
        let Some(consumer) = self.consumers.get_mut(slot) else { return false };
        let mut all = std::mem::take(&mut consumer.unsettled);
        let count = all.len();
        consumer.spec.group.give_back(u32::try_from(count).unwrap_or(u32::MAX));
        let number = consumer.spec.consumer;
        consumer.spec = absent(number);
        consumer.parked = true;
        let (mut kept, mut next_number) = (Unsettled::default(), 1);
        let mut others = Vec::new();
        all.take(0, u64::MAX, |entry| {
            if begun.contains(&entry.at.number()) {
                kept.push(next_number, entry);
                next_number += 1;
            } else {
                others.push(entry);
            }
        });
        let stays = kept.len() > 0;
        consumer.unsettled = kept;
        consumer.next_number = next_number;
        consumer.forget_times();
        let bytes = others.iter().map(|entry| entry.message.body().len() as u64).sum();
        self.note_taken_back(others.len() as u64, bytes);
        for entry in others {
            self.give_back(entry, false, moment);
        }
        if !stays {
            self.forget(slot);
        }
        stays
    }

    pub(super) fn park_restored(&mut self, consumer: ConsumerId, begun: Vec<Entry>) -> usize {
        let mut parked = QueueConsumer::new(absent(consumer), false);
        parked.parked = true;
        for entry in begun {
            self.note_unsettled(entry.message.body().len() as u64);
            parked.unsettled.push(parked.next_number, entry);
            parked.next_number += 1;
        }
        self.consumers.insert(parked)
    }

    /// Sends what stayed to the consumer's new connection.
    pub(super) fn unpark(&mut self, slot: usize, spec: ConsumerSpec) -> bool {
        let Some(consumer) = self.consumers.get_mut(slot).filter(|c| c.parked) else {
            return false;
        };
        let mut entries = Vec::new();
        std::mem::take(&mut consumer.unsettled).take(0, u64::MAX, |entry| entries.push(entry));
        consumer.parked = false;
        consumer.spec = spec;
        consumer.next_number = 1;
        consumer.forget_times();
        let mut events = Vec::with_capacity(entries.len());
        for entry in &mut entries {
            entry.acquired = entry.acquired.saturating_add(1);
        }
        for entry in &entries {
            self.note_counts(entry, 0);
        }
        let Some(consumer) = self.consumers.get_mut(slot) else { return false };
        for entry in entries {
            let number = consumer.next_number;
            consumer.next_number += 1;
            events.push(Event::Delivered(delivery(&entry, consumer.spec.consumer, number)));
            consumer.unsettled.push(number, entry);
            consumer.spec.group.take_one();
        }
        consumer.spec.outbox.push_all(events);
        true
    }
}

/// A consumer that nothing is sent to.
pub(super) fn absent(consumer: ConsumerId) -> ConsumerSpec {
    ConsumerSpec {
        consumer,
        outbox: Arc::new(Outbox::new(0)),
        no_ack: false,
        exclusive: false,
        prefetch: 0,
        group: Arc::default(),
        priority: 0,
        timeout_ms: None,
        address: None,
        tag: Arc::from(""),
        arguments: Arc::default(),
    }
}
