//! Looking at messages without touching them: no order, count or consumer changes.

use std::sync::Arc;

use polymq_model::{LogId, Seq};

use super::{Entry, Position, Queue, lane::Lane, state::State};
use crate::UnackedView;

/// Where a message of a queue is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageState {
    /// It waits for a consumer.
    Ready,
    /// A consumer has it and has not settled it.
    Unacked {
        /// The name of the consumer.
        consumer: Arc<str>,
    },
    /// It came back and is held, or it is a dead letter that nobody has taken yet.
    Scheduled {
        /// Until when, in ms since 1970.
        due_ms: u64,
    },
}

/// A message that was looked at.
#[derive(Debug, Clone)]
pub(crate) struct Peeked {
    pub(crate) entry: Entry,
    pub(crate) state: MessageState,
}

/// What memory knows of a priority level from some position on.
#[derive(Debug)]
pub(crate) struct LanePeek {
    /// Messages in memory, by position.
    pub(crate) found: Vec<Peeked>,
    /// Messages of memory that come behind those begin here; `None` when there are none.
    pub(crate) more_from: Option<Seq>,
    /// The log and the positions that only the disk has: the first, and the one behind the last.
    pub(crate) disk: Option<(LogId, Seq, Seq)>,
}

impl Queue {
    /// The priority levels in use, highest first, each with the position behind its last message.
    pub(crate) fn levels(&self) -> Vec<(u8, Seq)> {
        let state = self.state.lock();
        state.lanes.iter().map(|lane| (lane.level, Seq(lane.next_seq))).collect()
    }

    /// Looks at messages of a level from `from` on, at most `max` of those that are in memory.
    ///
    /// Cost: proportional to `max`, and to the unsettled deliveries when those are wanted.
    pub(crate) fn peek(&self, level: u8, from: Seq, max: usize, unacked: bool) -> Option<LanePeek> {
        let state = self.state.lock();
        let lane = state.lanes.iter().find(|lane| lane.level == level)?;
        let at_least = Position::new(level, from);
        let mut found: Vec<Peeked> = ready_from(lane, from, max).collect();
        found.extend(held_from(&state, at_least));
        if unacked {
            found.extend(unacked_from(&state, at_least));
        }
        found.sort_by_key(|peeked| peeked.entry.at.seq());
        let more_from = found.get(max).map(|peeked| peeked.entry.at.seq());
        found.truncate(max);
        let disk = lane.tail.on_disk().map(|(first, end)| (lane.log, first.max(from), end));
        let disk = disk.filter(|(log, first, end)| log.0 != 0 && first < end);
        Some(LanePeek { found, more_from, disk })
    }

    /// Deliveries that are not settled, behind a consumer's slot and the number of a delivery.
    pub(crate) fn unacked(&self, after: Option<(u64, u64)>, max: usize) -> Vec<UnackedView> {
        let state = self.state.lock();
        let (first_slot, first_number) = after.map_or((0, 0), |(slot, number)| (slot, number + 1));
        let slots = state.consumers.iter().map(|(slot, consumer)| (slot as u64, consumer));
        let slots = slots.skip_while(|(slot, _)| *slot < first_slot);
        let all = slots.flat_map(|(slot, consumer)| {
            let from = if slot == first_slot { first_number } else { 0 };
            let timeout_ms = state.rules.consumer_timeout_of(consumer.spec.timeout_ms);
            consumer.unsettled.from(from).map(move |(number, entry)| UnackedView {
                place: (slot, number),
                seq: entry.at.number().0,
                tag: consumer.spec.tag.clone(),
                connection: consumer.spec.group.connection,
                channel: consumer.spec.group.channel,
                since_ms: consumer.out_since(number),
                timeout_ms: timeout_ms.filter(|_| !consumer.parked),
                failed: entry.failed,
                acquired: entry.acquired,
                payload_bytes: entry.message.body().len() as u64,
            })
        });
        all.take(max).collect()
    }

    /// Leaves out what is somebody's although the disk still has it.
    pub(crate) fn retain_free(&self, level: u8, peeked: &mut Vec<Peeked>) {
        let state = self.state.lock();
        if let Some(lane) = state.lanes.iter().find(|lane| lane.level == level) {
            peeked.retain(|peeked| !lane.tail.is_taken(peeked.entry.at.seq()));
        }
    }
}

/// Ready messages in memory. Of each part no more than `max` can be among the first `max` of all,
/// and one more tells that there are more.
fn ready_from(lane: &Lane, from: Seq, max: usize) -> impl Iterator<Item = Peeked> {
    let returned = lane.returned.range(from..).map(|(_, entry)| entry).take(max + 1);
    let at = lane.ready.partition_point(|entry| entry.at.seq() < from);
    let ready = lane.ready.range(at..).take(max + 1);
    let tail = lane.tail.in_memory().filter(move |entry| entry.at.seq() >= from);
    let all = returned.chain(ready).chain(tail);
    all.map(|entry| Peeked { entry: entry.clone(), state: MessageState::Ready })
}

fn held_from(state: &State, from: Position) -> impl Iterator<Item = Peeked> {
    let is_here = move |at: Position| at.level() == from.level() && at >= from;
    let delayed = state.delayed.iter().map(|((due_ms, _), entry)| (entry, *due_ms));
    let held = delayed.chain(state.staying_from(from));
    held.filter(move |(entry, _)| is_here(entry.at)).map(|(entry, due_ms)| Peeked {
        entry: entry.clone(),
        state: MessageState::Scheduled { due_ms },
    })
}

fn unacked_from(state: &State, from: Position) -> impl Iterator<Item = Peeked> {
    let is_here = move |at: Position| at.level() == from.level() && at >= from;
    state.consumers.iter().flat_map(move |(_, consumer)| {
        let entries = consumer.unsettled.iter().filter(move |entry| is_here(entry.at));
        entries.map(|entry| Peeked {
            entry: entry.clone(),
            state: MessageState::Unacked { consumer: consumer.spec.tag.clone() },
        })
    })
}
