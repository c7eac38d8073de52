//! Consumers that take only what is addressed to them: the resources of a mailbox.
//!
//! A message whose key is that of such a consumer goes to it when it comes, past those that wait.
//! It is a delivery like any other, so a durable one is stored, and when it comes back it waits for
//! the consumers of the whole queue.
//!
//! What finds no room waits in its place, and whatever comes for the same consumer waits behind it,
//! so that nothing overtakes (RFC 6120, section 10.1). The consumer takes it as it gets room,
//! unless one of the whole queue was there first. It knows up to where it has looked, so that a
//! mailbox that fills looks at each message once.

use std::collections::HashMap;

use polymq_model::Seq;

use super::{Entry, position::Position, state::State};

/// Who takes what by the keys; whoever came last has a key.
pub(super) type Addressed = HashMap<Box<str>, Taker>;

#[derive(Debug, Clone)]
pub(super) struct Taker {
    pub(super) slot: usize,
    /// Something may wait that it has to get first.
    is_behind: bool,
    /// The first place of each level in use that it has not looked at. Before it nothing waits for
    /// this consumer: what comes back to its place is for those of the whole queue.
    next: Vec<Position>,
}

impl Taker {
    fn new(slot: usize) -> Self {
        Self { slot, is_behind: false, next: Vec::new() }
    }

    fn next_of(&self, level: u8) -> Position {
        let next = self.next.iter().find(|next| next.level() == level);
        next.copied().unwrap_or_else(|| Position::new(level, Seq(0)))
    }

    fn looked_to(&mut self, place: Position) {
        match self.next.iter_mut().find(|next| next.level() == place.level()) {
            Some(next) => *next = place,
            None => self.next.push(place),
        }
    }
}

impl State {
    /// Has a consumer take what has its key from now on; false when it takes everything.
    pub(super) fn address(&mut self, slot: usize) -> bool {
        let address = self.consumers.get(slot).and_then(|consumer| consumer.spec.address.clone());
        let Some(address) = address else { return false };
        self.addressed.get_or_insert_default().insert(address, Taker::new(slot));
        true
    }

    /// A consumer takes nothing more.
    pub(super) fn forget_address(&mut self, slot: usize) {
        if let Some(addressed) = &mut self.addressed {
            addressed.retain(|_, taker| taker.slot != slot);
        }
    }

    /// True while somebody takes what is addressed to it.
    pub(super) fn has_addressed(&self) -> bool {
        self.addressed.as_ref().is_some_and(|addressed| !addressed.is_empty())
    }

    /// Hands those of the last `count` messages of a lane over that are addressed to a consumer
    /// with room. What finds none waits like any other message.
    pub(super) fn hand_addressed(&mut self, lane: usize, count: usize, now_ms: u64) {
        let Some(mut addressed) = self.addressed.take() else { return };
        let come = match self.lanes.get_mut(lane) {
            Some(lane) if lane.tail.is_empty() => lane.take_last(count),
            _ => {
                // What stands behind the window stays there: the disk knows its place.
                addressed.values_mut().for_each(|taker| taker.is_behind = true);
                Vec::new()
            }
        };
        let mut slots: Vec<usize> = Vec::new();
        for entry in come {
            if let Some(taker) = addressed.get_mut(entry.message.key()) {
                let is_first = !slots.contains(&taker.slot);
                taker.is_behind =
                    taker.is_behind || self.paused || !self.takes(taker.slot, !is_first);
                if !taker.is_behind {
                    self.hand_one(entry, taker.slot, now_ms);
                    if is_first {
                        slots.push(taker.slot);
                    }
                    continue;
                }
            }
            if let Some(lane) = self.lanes.get_mut(lane) {
                lane.put_last(entry);
            }
        }
        self.send_staged(&slots);
        self.addressed = Some(addressed);
    }

    /// Hands over what waits for consumers that have room again.
    pub(super) fn catch_up(&mut self, now_ms: u64) {
        let Some(mut addressed) = self.addressed.take() else { return };
        let mut slots = Vec::new();
        for (key, taker) in addressed.iter_mut().filter(|(_, taker)| taker.is_behind) {
            let Some(consumer) = self.consumers.get_mut(taker.slot) else { continue };
            consumer.look_for_room();
            slots.push(taker.slot);
            let mut has_room = consumer.has_room();
            for lane in 0..self.lanes.len() {
                while has_room && let Some(at) = self.waiting_for(lane, taker, key, now_ms) {
                    has_room = self.takes(taker.slot, true);
                    if has_room && let Some(entry) = self.take_at(lane, at) {
                        self.hand_one(entry, taker.slot, now_ms);
                    }
                }
            }
            // Whatever is on the disk may be for it.
            taker.is_behind = !has_room || self.lanes.iter().any(|lane| !lane.tail.is_empty());
        }
        self.send_staged(&slots);
        self.addressed = Some(addressed);
    }

    /// True when somebody takes what is addressed to it and has to get what waits first.
    pub(super) fn is_behind(&self) -> bool {
        let addressed = self.addressed.as_ref();
        addressed.is_some_and(|addressed| addressed.values().any(|taker| taker.is_behind))
    }

    /// The first message in the window of a lane that a taker has not looked at, that has its key
    /// and may be delivered. An empty window takes in what has not gone to the disk.
    fn waiting_for(
        &mut self,
        lane: usize,
        taker: &mut Taker,
        key: &str,
        now_ms: u64,
    ) -> Option<usize> {
        let lane = self.lanes.get_mut(lane)?;
        lane.has_next(self.window);
        let restriction = self.restriction.as_ref();
        let is_due = |entry: &Entry| {
            let lives = entry.deadline_ms == 0 || entry.deadline_ms > now_ms;
            lives && !restriction.is_some_and(|restriction| restriction.denies(entry))
        };
        let next = taker.next_of(lane.level);
        // What may not be read now may be later, when the right comes back.
        let from = match restriction {
            Some(_) => 0,
            None => lane.ready.partition_point(|entry| entry.at < next),
        };
        let mut waiting = lane.ready.iter().enumerate().skip(from);
        let found = waiting.find(|(_, entry)| entry.message.key() == key && is_due(entry));
        let looked_to = match (found, lane.ready.back()) {
            (Some((_, entry)), _) => Some(entry.at.seq()),
            (None, Some(last)) => Some(last.at.seq().next()),
            (None, None) => None,
        };
        if let Some(seq) = looked_to {
            taker.looked_to(Position::new(lane.level, seq));
        }
        found.map(|(at, _)| at)
    }

    /// Apart, so that the code for it stands here once and in the dispatch of queues once.
    #[inline(never)]
    fn hand_one(&mut self, entry: Entry, slot: usize, now_ms: u64) {
        if let Some(consumer) = self.consumers.get_mut(slot) {
            consumer.mark(now_ms);
        }
        self.hand(entry, slot);
    }

    fn take_at(&mut self, lane: usize, at: usize) -> Option<Entry> {
        self.lanes.get_mut(lane)?.take_at(at)
    }

    fn send_staged(&mut self, slots: &[usize]) {
        for slot in slots {
            if let Some(consumer) = self.consumers.get_mut(*slot) {
                consumer.send_staged();
            }
        }
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
