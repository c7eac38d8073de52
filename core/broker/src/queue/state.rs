//! The machine: messages in order, consumers in turn. No lock, no store, no clock of its own.

use std::collections::{BTreeMap, VecDeque};

use polymq_contract::{Delivery, DeliveryRange, Matched, Outcome};
use polymq_model::{Message, Seq};
use polymq_store::ShardBatch;
use slab::Slab;

use super::{
    ConsumerSpec, Departed, Ended, Entry, QueueCounts,
    consumer::QueueConsumer,
    settings::{Overflow, QueueSettings},
    tail::Tail,
    window::Window,
};

#[derive(Debug)]
pub(super) struct State {
    pub(super) next_seq: u64,
    /// Messages never delivered, in order. All of `returned` stand before them.
    pub(super) ready: VecDeque<Entry>,
    /// Messages that came back, at their own places.
    pub(super) returned: BTreeMap<Seq, Entry>,
    pub(super) ready_bytes: usize,
    pub(super) unsettled: u64,
    pub(super) consumers: Slab<QueueConsumer>,
    /// Slots of active consumers, highest priority first, among equals the oldest first.
    pub(super) ring: Vec<usize>,
    /// Whose turn it is, as an index into `ring`.
    pub(super) turn: usize,
    pub(super) deleted: bool,
    pub(super) tail: Tail,
    /// The last batch with a message of this queue.
    pub(super) last_batch: ShardBatch,
    /// How much is kept in memory.
    pub(super) window: Window,
    /// What the budget of all queues knows that this one takes.
    pub(super) reported: usize,
    used_ms: u64,
    /// Persistent messages that are done with, as ranges, for the store.
    pub(super) settled: Vec<(Seq, Seq)>,
    /// Persistent messages that came back: position, failed and acquired count, for the store.
    pub(super) held: Vec<(Seq, u16, u16)>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            next_seq: 1,
            ready: VecDeque::new(),
            returned: BTreeMap::new(),
            ready_bytes: 0,
            unsettled: 0,
            consumers: Slab::new(),
            ring: Vec::new(),
            turn: 0,
            deleted: false,
            tail: Tail::default(),
            last_batch: ShardBatch(0),
            window: Window::default(),
            reported: 0,
            used_ms: 0,
            settled: Vec::new(),
            held: Vec::new(),
        }
    }
}

impl State {
    pub(super) fn new(window: Window) -> Self {
        Self { window, ..Self::default() }
    }

    pub(super) fn ready_len(&self) -> u64 {
        self.window_len() as u64 + self.tail.len()
    }

    pub(super) fn active_consumers(&self) -> usize {
        self.ring.len()
    }

    pub(super) fn has_exclusive_consumer(&self) -> bool {
        self.ring.iter().any(|slot| self.consumers.get(*slot).is_some_and(|c| c.spec.exclusive))
    }

    pub(super) fn counts(&self) -> QueueCounts {
        QueueCounts {
            ready: self.ready_len(),
            unsettled: self.unsettled,
            consumers: u32::try_from(self.ring.len()).unwrap_or(u32::MAX),
            bytes: self.bytes(),
            in_memory: self.window_len() as u64 + self.tail.memory_len(),
        }
    }

    /// Bytes of the bodies of ready messages, wherever they are.
    fn bytes(&self) -> u64 {
        self.ready_bytes as u64 + self.tail.bytes()
    }

    /// How many of the messages, from the first, the queue takes.
    pub(super) fn room_for(&self, messages: &[Message], settings: &QueueSettings) -> usize {
        if settings.overflow == Overflow::DropHead
            || (settings.length_max.is_none() && settings.bytes_max.is_none())
        {
            return messages.len();
        }
        let (mut length, mut bytes) = (self.ready_len(), self.bytes());
        for (index, message) in messages.iter().enumerate() {
            length += 1;
            bytes += message.body().len() as u64;
            if settings.length_max.is_some_and(|max| length > max)
                || settings.bytes_max.is_some_and(|max| bytes > max)
            {
                return index;
            }
        }
        messages.len()
    }

    /// Adds messages at the tail; `batch` holds those that are stored. Returns true when one of
    /// them may expire.
    pub(super) fn append(
        &mut self,
        messages: &[Message],
        batch: ShardBatch,
        matched: &Matched,
        settings: &QueueSettings,
        now_ms: u64,
        departed: &mut Vec<Departed>,
    ) -> bool {
        self.last_batch = self.last_batch.max(batch);
        let mut perishable = false;
        let is_away = settings.of_client && self.ring.is_empty();
        for message in messages {
            let is_slow =
                settings.at_most_once_bytes_max.is_some_and(|max| self.ready_bytes >= max);
            if (is_away || is_slow) && is_at_most_once(message) {
                // The place stays empty, so that the others keep those they are stored under.
                self.next_seq += 1;
                if !is_away {
                    departed.push(Departed { message: message.clone(), reason: "slow" });
                }
                continue;
            }
            let entry = Entry {
                seq: Seq(self.next_seq),
                deadline_ms: settings.deadline_of(message, now_ms),
                acquired: 0,
                failed: 0,
                matched: matched.clone(),
                message: message.clone(),
            };
            perishable |= entry.deadline_ms != 0;
            self.next_seq += 1;
            if self.tail.is_empty() {
                self.ready_bytes += message.body().len();
                self.ready.push_back(entry);
            } else {
                self.tail.push(batch, entry);
            }
        }
        perishable
    }

    /// Takes the first message that has not expired.
    pub(super) fn pop(&mut self, now_ms: u64, departed: &mut Vec<Departed>) -> Option<Entry> {
        self.expire_head(now_ms, departed);
        self.pop_any()
    }

    pub(super) fn pop_any(&mut self) -> Option<Entry> {
        if !self.has_next() {
            return None;
        }
        let entry = if self.returned.is_empty() {
            self.ready.pop_front()?
        } else {
            self.returned.pop_first()?.1
        };
        self.ready_bytes = self.ready_bytes.saturating_sub(entry.message.body().len());
        if self.ready.is_empty() && self.ready.capacity() > 4096 {
            self.ready = VecDeque::new();
        }
        Some(entry)
    }

    pub(super) fn expire_head(&mut self, now_ms: u64, departed: &mut Vec<Departed>) {
        loop {
            if !self.has_next() {
                return;
            }
            let head =
                self.returned.first_key_value().map(|(_, e)| e).or_else(|| self.ready.front());
            if head.is_none_or(|e| e.deadline_ms == 0 || e.deadline_ms > now_ms) {
                return;
            }
            let Some(entry) = self.pop_any() else { return };
            self.depart(entry, "expired", departed);
        }
    }

    pub(super) fn drop_head_over_limit(
        &mut self,
        settings: &QueueSettings,
        departed: &mut Vec<Departed>,
    ) {
        if settings.overflow != Overflow::DropHead {
            return;
        }
        while settings.length_max.is_some_and(|max| self.ready_len() > max)
            || settings.bytes_max.is_some_and(|max| self.bytes() > max)
        {
            let Some(entry) = self.pop_any() else { return };
            self.depart(entry, "maxlen", departed);
        }
    }

    /// A message leaves without having been accepted.
    fn depart(&mut self, entry: Entry, reason: &'static str, departed: &mut Vec<Departed>) {
        self.note_settled(&entry);
        departed.push(Departed { message: entry.message, reason });
    }

    pub(super) fn note_settled(&mut self, entry: &Entry) {
        if !entry.message.is_durable() {
            return;
        }
        match self.settled.last_mut() {
            Some((_, last)) if last.next() == entry.seq => *last = entry.seq,
            Some(_) | None => self.settled.push((entry.seq, entry.seq)),
        }
    }

    /// Settles deliveries of a consumer. Returns true when it is cancelled and has none left.
    pub(super) fn settle(
        &mut self,
        slot: usize,
        deliveries: DeliveryRange,
        outcome: Outcome,
        settings: &QueueSettings,
        departed: &mut Vec<Departed>,
    ) -> bool {
        let Some(consumer) = self.consumers.get_mut(slot) else { return false };
        let mut unsettled = std::mem::take(&mut consumer.unsettled);
        let mut count = 0;
        unsettled.take(deliveries.first, deliveries.last, |entry| {
            count += 1;
            match outcome {
                Outcome::Accepted => self.note_settled(&entry),
                Outcome::Returned => self.give_back(entry, false),
                Outcome::Failed if settings.is_last_failure(entry.failed) => {
                    self.depart(entry, "delivery_limit", departed);
                }
                Outcome::Failed => self.give_back(entry, true),
                Outcome::Rejected => self.depart(entry, "rejected", departed),
                Outcome::TooLarge => self.depart(entry, "too_large", departed),
            }
        });
        self.unsettled = self.unsettled.saturating_sub(u64::from(count));
        let left = unsettled.len();
        let Some(consumer) = self.consumers.get_mut(slot) else { return false };
        consumer.unsettled = unsettled;
        consumer.spec.group.give_back(count);
        !consumer.active && left == 0
    }

    pub(super) fn give_back(&mut self, mut entry: Entry, failed: bool) {
        entry.acquired = entry.acquired.saturating_add(1);
        entry.failed = entry.failed.saturating_add(u16::from(failed));
        self.ready_bytes += entry.message.body().len();
        if entry.message.is_durable() {
            self.held.push((entry.seq, entry.failed, entry.acquired));
        }
        self.returned.insert(entry.seq, entry);
    }

    /// Deliveries that a client has been sent go on when it comes back, whatever their expiry says
    /// [MQTT-4.3.3-7].
    pub(super) fn spare_returned(&mut self) {
        for entry in self.returned.values_mut() {
            entry.deadline_ms = 0;
        }
    }

    pub(super) fn note_unsettled(&mut self) {
        self.unsettled += 1;
    }

    pub(super) fn add_consumer(&mut self, spec: ConsumerSpec, now_ms: u64) -> usize {
        let slot = self.consumers.insert(QueueConsumer::new(spec, false));
        self.activate(slot, now_ms);
        slot
    }

    /// Gives a consumer its place in the ring.
    pub(super) fn activate(&mut self, slot: usize, now_ms: u64) {
        let Some(consumer) = self.consumers.get_mut(slot) else { return };
        consumer.active = true;
        let priority = consumer.spec.priority;
        let at = self.ring.partition_point(|other| {
            self.consumers.get(*other).is_some_and(|c| c.spec.priority >= priority)
        });
        self.ring.insert(at, slot);
        self.touch(now_ms);
    }

    pub(super) fn cancel(&mut self, slot: usize, now_ms: u64) {
        if let Some(consumer) = self.consumers.get_mut(slot) {
            consumer.active = false;
            self.ring.retain(|other| *other != slot);
            self.touch(now_ms);
        }
    }

    pub(super) fn has_unsettled(&self, slot: usize) -> bool {
        self.consumers.get(slot).is_some_and(|consumer| consumer.unsettled.len() > 0)
    }

    pub(super) fn forget(&mut self, slot: usize) {
        self.consumers.try_remove(slot);
    }

    pub(super) fn get(
        &mut self,
        spec: ConsumerSpec,
        now_ms: u64,
        departed: &mut Vec<Departed>,
    ) -> Option<(Delivery, Option<usize>)> {
        self.touch(now_ms);
        let entry = self.pop(now_ms, departed)?;
        let (consumer, no_ack) = (spec.consumer, spec.no_ack);
        let number = u64::from(!no_ack);
        let delivery = delivery(&entry, consumer, number);
        if no_ack {
            self.note_settled(&entry);
            return Some((delivery, None));
        }
        let group = spec.group.clone();
        let slot = self.consumers.insert(QueueConsumer::new(spec, false));
        if let Some(holder) = self.consumers.get_mut(slot) {
            holder.next_number = 2;
            holder.unsettled.push(1, entry);
        }
        group.take_one();
        self.unsettled += 1;
        Some((delivery, Some(slot)))
    }

    pub(super) fn purge(&mut self) -> u64 {
        let count = self.ready_len();
        while let Some(entry) = self.pop_any() {
            self.note_settled(&entry);
        }
        self.clear_tail();
        count
    }

    pub(super) fn delete(&mut self) -> (u64, Vec<Ended>) {
        let count = self.ready_len();
        let ended = self
            .ring
            .iter()
            .filter_map(|slot| self.consumers.get(*slot))
            .map(|c| Ended { consumer: c.spec.consumer, outbox: c.spec.outbox.clone() })
            .collect();
        for (_, consumer) in &self.consumers {
            let held = u32::try_from(consumer.unsettled.len()).unwrap_or(u32::MAX);
            consumer.spec.group.give_back(held);
        }
        *self = Self { deleted: true, reported: self.reported, ..Self::default() };
        (count, ended)
    }

    pub(super) fn touch(&mut self, now_ms: u64) {
        self.used_ms = now_ms;
    }

    pub(super) fn is_idle_for(&mut self, ms: u64, now_ms: u64) -> bool {
        if self.used_ms == 0 {
            self.used_ms = now_ms;
        }
        let is_due = self.ring.is_empty() && self.used_ms.saturating_add(ms) <= now_ms;
        is_due && !self.consumers.iter().any(|(_, consumer)| consumer.parked)
    }
}

/// True for a message that is only for clients that are connected when it comes.
fn is_at_most_once(message: &Message) -> bool {
    message.qos() == 0 && !message.is_durable()
}

/// The event's view of an entry.
pub(super) fn delivery(entry: &Entry, consumer: polymq_model::ConsumerId, number: u64) -> Delivery {
    Delivery {
        consumer,
        redelivered: entry.acquired > 0,
        acquired: entry.acquired,
        failed: entry.failed,
        number,
        seq: entry.seq,
        matched: entry.matched.clone(),
        message: entry.message.clone(),
    }
}
