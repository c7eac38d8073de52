//! The machine: messages in order, consumers in turn. No lock, no store, no clock of its own.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use polymq_contract::{Delivery, Matched, Outbox};
use polymq_model::{LogId, Message, Seq};
use polymq_store::ShardBatch;
use slab::Slab;

use super::{
    ConsumerSpec, Ended, Entry, QueueCounts,
    addressed::Addressed,
    consumer::QueueConsumer,
    departing::{Departing, Dropped, Staying},
    lane::Lane,
    position::Position,
    restriction::Restriction,
    rules::{Overflow, Rules},
    settings::QueueSettings,
    window::Window,
};
use crate::{
    statistics::Activity,
    trace::{Marked, Tracked},
};

/// Messages on their way in.
#[derive(Clone, Copy)]
pub(super) struct Arriving<'a> {
    pub(super) messages: &'a [Message],
    pub(super) matched: &'a Matched,
    pub(super) now_ms: u64,
    /// Which of them are followed.
    pub(super) marked: Marked<'a>,
}

#[derive(Debug)]
pub(super) struct State {
    /// The levels in use, highest first; never empty.
    pub(super) lanes: Vec<Lane>,
    /// What holds now.
    pub(super) rules: Rules,
    /// Messages that came back and are held until they are due, by that time in ms since 1970.
    pub(super) delayed: BTreeMap<(u64, Position), Entry>,
    /// Messages that leave, in the order in which they died.
    pub(super) departing: VecDeque<Departing>,
    /// Somebody is publishing some of those.
    pub(super) is_departing: bool,
    /// Dead letters that nobody has taken yet.
    pub(super) staying: BTreeMap<Position, Staying>,
    pub(super) dropped: Dropped,
    pub(super) unsettled: u64,
    /// Bytes of their bodies.
    pub(super) unsettled_bytes: u64,
    pub(super) consumers: Slab<QueueConsumer>,
    /// Slots of active consumers, highest priority first, among equals the oldest first.
    pub(super) ring: Vec<usize>,
    /// Whose turn it is, as an index into `ring`.
    pub(super) turn: usize,
    /// Who takes only what is addressed to it; `None` until the first of them comes.
    pub(super) addressed: Option<Box<Addressed>>,
    /// Only one consumer gets messages.
    pub(super) single_active: bool,
    /// Which one.
    pub(super) sole: Option<usize>,
    /// The shortest time that consumers have asked to have for a delivery, in ms.
    pub(super) own_timeout_ms: Option<u64>,
    /// Messages and bytes that transactions are about to add.
    pub(super) reserved: (u64, u64),
    pub(super) deleted: bool,
    /// Nothing is delivered.
    pub(super) paused: bool,
    /// Connections that wait for a page, to answer a get.
    pub(super) getters: Vec<Arc<Outbox>>,
    /// What of the messages that are there may not be delivered any more.
    pub(super) restriction: Option<Box<Restriction>>,
    /// How much is kept in memory.
    pub(super) window: Window,
    /// What the budget of all queues knows that this one takes.
    pub(super) reported: usize,
    pub(super) used_ms: u64,
    /// What has happened here.
    pub(super) activity: Activity,
    /// When a message last came, left or was settled, in ms since 1970.
    pub(super) active_ms: u64,
    /// Messages that traces follow, while there are any.
    pub(super) tracked: Option<Box<Tracked>>,
}

impl State {
    pub(super) fn new(window: Window, settings: &QueueSettings, log: LogId) -> Self {
        Self {
            lanes: vec![Lane::new(0, log)],
            rules: settings.rules.clone(),
            delayed: BTreeMap::new(),
            departing: VecDeque::new(),
            is_departing: false,
            staying: BTreeMap::new(),
            dropped: Dropped::default(),
            unsettled: 0,
            unsettled_bytes: 0,
            consumers: Slab::new(),
            ring: Vec::new(),
            turn: 0,
            addressed: None,
            single_active: settings.single_active,
            sole: None,
            own_timeout_ms: None,
            reserved: (0, 0),
            deleted: false,
            paused: false,
            getters: Vec::new(),
            restriction: None,
            window,
            reported: 0,
            used_ms: 0,
            activity: Activity::default(),
            active_ms: 0,
            tracked: None,
        }
    }

    /// The lane of a level, made when it is new; where to find it in `lanes`.
    pub(super) fn lane_at(&mut self, level: u8) -> usize {
        let at = self.lanes.partition_point(|lane| lane.level > level);
        if self.lanes.get(at).is_none_or(|lane| lane.level != level) {
            self.lanes.insert(at, Lane::new(level, LogId(0)));
        }
        at
    }

    /// The lane of a position.
    pub(super) fn lane_of(&mut self, at: Position) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| lane.level == at.level())
    }

    pub(super) fn ready_len(&self) -> u64 {
        self.lanes.iter().map(Lane::len).sum()
    }

    /// The message that comes next, when it is in memory.
    pub(super) fn head(&self) -> Option<&Entry> {
        self.lanes.iter().find(|lane| lane.len() > 0)?.head()
    }

    pub(super) fn active_consumers(&self) -> usize {
        self.ring.len()
    }

    pub(super) fn has_exclusive_consumer(&self) -> bool {
        self.ring.iter().any(|slot| self.consumers.get(*slot).is_some_and(|c| c.spec.exclusive))
    }

    pub(super) fn counts(&self) -> QueueCounts {
        let in_memory = |lane: &Lane| lane.window_len() as u64 + lane.tail.memory_len();
        QueueCounts {
            ready: self.ready_len(),
            unsettled: self.unsettled,
            delayed: (self.delayed.len() + self.staying.len()) as u64,
            consumers: u32::try_from(self.ring.len()).unwrap_or(u32::MAX),
            bytes: self.bytes(),
            in_memory: self.lanes.iter().map(in_memory).sum(),
            unsettled_bytes: self.unsettled_bytes,
        }
    }

    /// Bytes of the bodies of ready messages, wherever they are.
    fn bytes(&self) -> u64 {
        self.lanes.iter().map(Lane::bytes).sum()
    }

    /// How many of the messages, from the first, the queue takes.
    pub(super) fn room_for(&self, messages: &[Message]) -> usize {
        if !self.refuses_overflow() {
            return messages.len();
        }
        let (mut length, mut bytes) = self.taken();
        for (index, message) in messages.iter().enumerate() {
            length += 1;
            bytes += message.body().len() as u64;
            if self.rules.is_exceeded(length, bytes) {
                return index;
            }
        }
        messages.len()
    }

    /// True when the next message that comes goes to a consumer that waits for it, and so takes no
    /// room. Asked only by queues that refuse what is too much.
    pub(super) fn hands_over(&mut self) -> bool {
        if !self.refuses_overflow() || self.paused || self.ready_len() > 0 {
            return false;
        }
        let consumers = &mut self.consumers;
        let mut waits = |slot: usize| {
            consumers.get_mut(slot).is_some_and(|consumer| {
                consumer.look_for_room();
                consumer.has_room()
            })
        };
        match self.single_active {
            true => self.sole.is_some_and(waits),
            false => self.ring.iter().any(|slot| waits(*slot)),
        }
    }

    /// True when publishes beyond the limit are refused.
    pub(super) fn refuses_overflow(&self) -> bool {
        self.rules.overflow != Overflow::DropHead && self.rules.is_bounded()
    }

    /// True when so many more messages with so many bytes are not too much.
    pub(super) fn has_room_for(&self, messages: u64, bytes: u64) -> bool {
        let (taken, taken_bytes) = self.taken();
        !self.rules.is_exceeded(taken + messages, taken_bytes + bytes)
    }

    /// Ready messages and their bytes, with those that have room reserved.
    fn taken(&self) -> (u64, u64) {
        (self.ready_len() + self.reserved.0, self.bytes() + self.reserved.1)
    }

    /// Adds messages of one lane at its tail; `batch` holds those that are stored.
    pub(super) fn append(
        &mut self,
        at: usize,
        arriving: Arriving<'_>,
        batch: ShardBatch,
        settings: &QueueSettings,
    ) {
        let is_away = settings.of_client && self.ring.is_empty();
        let Some(lane) = self.lanes.get_mut(at) else { return };
        lane.last_batch = lane.last_batch.max(batch);
        for message in arriving.messages {
            let is_slow =
                settings.at_most_once_bytes_max.is_some_and(|max| lane.ready_bytes >= max);
            if (is_away || is_slow) && is_at_most_once(message) {
                // The place stays empty, so that the others keep those they are stored under.
                lane.skip_place();
                if !is_away {
                    self.dropped.count("slow");
                }
                continue;
            }
            let mut entry = Entry::new(message, arriving.matched);
            entry.deadline_ms = self.rules.deadline_of(message, arriving.now_ms);
            lane.push(entry, batch);
        }
        if self.has_addressed() {
            self.hand_addressed(at, arriving.messages.len(), arriving.now_ms);
        }
    }

    /// The lane of the next message that has not expired and may be delivered, when it is in
    /// memory.
    pub(super) fn next_lane(&mut self, now_ms: u64) -> Option<usize> {
        loop {
            let at = self.first_lane()?;
            let head = self.lanes.get(at).and_then(Lane::head)?;
            if self.restriction.as_ref().is_some_and(|restriction| restriction.denies(head)) {
                let entry = self.pop_head(at)?;
                self.note_settled(&entry);
                self.trace_end(entry.at, "dropped", Some("permission"));
                self.dropped.count("permission");
                continue;
            }
            if head.deadline_ms == 0 || head.deadline_ms > now_ms {
                return Some(at);
            }
            let entry = self.pop_head(at)?;
            self.depart(entry, "expired");
        }
    }

    /// The lane that comes first; `None` when there is none, or its next message is on the disk.
    fn first_lane(&mut self) -> Option<usize> {
        let window = self.window;
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            if lane.has_next(window) {
                return Some(at);
            }
            if lane.len() > 0 {
                return None;
            }
        }
        None
    }

    /// True when the next message is in memory.
    pub(super) fn has_next(&mut self) -> bool {
        self.first_lane().is_some()
    }

    /// These messages of the disk are somebody's, or gone.
    pub(super) fn take_from_disk(&mut self, entries: &[Entry]) {
        for entry in entries {
            if let Some(lane) = self.lane_of(entry.at) {
                lane.take_from_disk([(entry.at.seq(), entry.message.body().len())]);
            }
        }
    }

    /// Takes the message that `next_lane` has found.
    pub(super) fn pop_head(&mut self, at: usize) -> Option<Entry> {
        self.lanes.get_mut(at)?.pop_head()
    }

    /// Removes what has expired at the head of each level.
    pub(super) fn expire_heads(&mut self, now_ms: u64) {
        for at in 0..self.lanes.len() {
            let window = self.window;
            while let Some(lane) = self.lanes.get_mut(at)
                && lane.has_deadlines
                && lane.has_next(window)
                && lane.head().is_some_and(|e| e.deadline_ms != 0 && e.deadline_ms <= now_ms)
                && let Some(entry) = lane.pop(window)
            {
                self.depart(entry, "expired");
            }
        }
    }

    /// Takes out what is too much: the heads of the lowest level that has messages.
    pub(super) fn drop_over_limit(&mut self, now_ms: u64) {
        if self.rules.overflow != Overflow::DropHead || !self.rules.is_bounded() {
            return;
        }
        let mut has_dropped = false;
        while self.rules.is_exceeded(self.ready_len(), self.bytes()) {
            let window = self.window;
            let lowest = self.lanes.iter_mut().rfind(|lane| lane.len() > 0);
            let Some(entry) = lowest.and_then(|lane| lane.pop(window)) else { break };
            self.depart(entry, "maxlen");
            has_dropped = true;
        }
        // What has come to the head may have expired.
        if has_dropped {
            self.expire_heads(now_ms);
        }
    }

    pub(super) fn note_settled(&mut self, entry: &Entry) {
        // What is not stored need not look for its lane.
        if !entry.message.is_durable() {
            return;
        }
        if let Some(lane) = self.lane_of(entry.at) {
            lane.note_settled(entry.at.seq(), &entry.message);
        }
    }

    pub(super) fn note_counts(&mut self, entry: &Entry, due_ms: u64) {
        if let Some(lane) = self.lane_of(entry.at) {
            lane.note_counts(entry, due_ms);
        }
    }

    pub(super) fn get(
        &mut self,
        spec: ConsumerSpec,
        now_ms: u64,
    ) -> Option<(Delivery, Option<usize>)> {
        self.touch(now_ms);
        let Some(entry) = self.next_lane(now_ms).and_then(|at| self.pop_head(at)) else {
            self.activity.got_empty += 1;
            return None;
        };
        self.note_got(&entry, spec.no_ack, now_ms);
        if let Some(tracked) = &mut self.tracked {
            tracked.delivered(entry.at, &spec, entry.acquired > 0);
        }
        let (consumer, no_ack) = (spec.consumer, spec.no_ack);
        if no_ack {
            self.note_settled(&entry);
            return Some((last_delivery(entry, consumer, 0), None));
        }
        let delivery = delivery(&entry, consumer, 1);
        self.note_unsettled(entry.message.body().len() as u64);
        let group = spec.group.clone();
        let slot = self.consumers.insert(QueueConsumer::new(spec, false));
        if let Some(holder) = self.consumers.get_mut(slot) {
            holder.mark(now_ms);
            holder.next_number = 2;
            holder.unsettled.push(1, entry);
        }
        group.take_one();
        Some((delivery, Some(slot)))
    }

    fn note_got(&mut self, entry: &Entry, no_ack: bool, now_ms: u64) {
        self.active_ms = now_ms;
        self.activity.redelivered += u64::from(entry.acquired > 0);
        match no_ack {
            true => self.activity.got_no_ack += 1,
            false => self.activity.got += 1,
        }
    }

    /// Removes every message that no consumer has, those that are held for later among them.
    pub(super) fn purge(&mut self) -> u64 {
        let held: Vec<Entry> = std::mem::take(&mut self.delayed).into_values().collect();
        let held: Vec<Entry> = held.into_iter().chain(self.take_staying()).collect();
        let mut count = self.ready_len();
        for entry in held {
            self.note_settled(&entry);
            count += 1;
        }
        let window = self.window;
        self.lanes.iter_mut().for_each(|lane| lane.purge(window));
        count
    }

    /// Ends the queue. Returns its ready messages' number and the consumers to be told.
    pub(super) fn delete(&mut self) -> (u64, Vec<Ended>) {
        let count = self.ready_len();
        let ended = self
            .ring
            .iter()
            .chain(self.addressed.iter().flat_map(|all| all.values().map(|taker| &taker.slot)))
            .filter_map(|slot| self.consumers.get(*slot))
            .map(|c| Ended { consumer: c.spec.consumer, outbox: c.spec.outbox.clone() })
            .collect();
        for (_, consumer) in &self.consumers {
            let held = u32::try_from(consumer.unsettled.len()).unwrap_or(u32::MAX);
            consumer.spec.group.give_back(held);
        }
        let empty = Self::new(self.window, &QueueSettings::default(), LogId(0));
        let (reported, activity) = (self.reported, self.activity);
        *self = Self { deleted: true, reported, activity, ..empty };
        (count, ended)
    }

    pub(super) fn touch(&mut self, now_ms: u64) {
        self.used_ms = now_ms;
    }

    pub(super) fn is_idle_for(&mut self, ms: u64, now_ms: u64) -> bool {
        if self.used_ms == 0 {
            self.used_ms = now_ms;
        }
        let is_used = !self.ring.is_empty() || self.has_addressed();
        let is_due = !is_used && self.used_ms.saturating_add(ms) <= now_ms;
        is_due && !self.consumers.iter().any(|(_, consumer)| consumer.parked)
    }

    /// A connection waits for a page.
    pub(super) fn wait_for_page(&mut self, outbox: &Arc<Outbox>) {
        self.getters.push(outbox.clone());
    }

    /// Where the next page begins, and of which lane, when one is wanted now.
    pub(super) fn page_wanted(&self) -> Option<(usize, Seq)> {
        let has_takers = !self.ring.is_empty() || !self.getters.is_empty();
        if self.deleted {
            return None;
        }
        let wanted = |(at, lane): (usize, &Lane)| {
            lane.page_wanted(self.window, has_takers).map(|from| (at, from))
        };
        self.lanes.iter().enumerate().find_map(wanted)
    }
}

/// True for a message that is only for clients that are connected when it comes.
fn is_at_most_once(message: &Message) -> bool {
    message.qos() == 0 && !message.is_durable()
}

/// The event's view of an entry that stays until it is settled.
#[inline]
pub(super) fn delivery(entry: &Entry, consumer: polymq_model::ConsumerId, number: u64) -> Delivery {
    last_delivery(entry.clone(), consumer, number)
}

/// The event's view of an entry that is nowhere else any more.
#[inline]
pub(super) fn last_delivery(
    entry: Entry,
    consumer: polymq_model::ConsumerId,
    number: u64,
) -> Delivery {
    Delivery {
        consumer,
        redelivered: entry.acquired > 0,
        acquired: entry.acquired,
        failed: entry.failed,
        number,
        seq: entry.at.number(),
        matched: entry.matched,
        message: entry.message,
    }
}
