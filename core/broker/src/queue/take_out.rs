//! Taking chosen messages out, wherever they stand: for what an administrator moves, copies or
//! deletes.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};

use polymq_model::Seq;

use super::{Entry, MessageState, Peeked, Queue, lane::Lane, state::State};

/// The only one that takes messages out of a queue, until it is dropped.
///
/// What was read from the disk before somebody else's batch had left it would be taken twice.
pub(crate) struct Moving<'q>(&'q Queue);

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        self.0.moving.store(false, Ordering::Release);
    }
}

impl Queue {
    /// Has nobody else take messages out: from before they are read until the store has forgotten
    /// them. `None` while somebody else does.
    pub(crate) fn begin_moving(&self) -> Option<Moving<'_>> {
        (!self.moving.swap(true, Ordering::Acquire)).then_some(Moving(self))
    }

    /// Takes those of the messages out that are still there and that no consumer has. They must
    /// then be settled by [`settle_out`](Self::settle_out), in the same batch of the store that
    /// has them elsewhere.
    pub(crate) fn take_out(&self, chosen: Vec<Peeked>) -> Vec<Entry> {
        let mut state = self.lock();
        if state.deleted {
            return Vec::new();
        }
        let mut taken = Vec::with_capacity(chosen.len());
        let mut in_ready = Vec::new();
        for Peeked { entry, state: at } in chosen {
            let is_out = match at {
                MessageState::Ready => {
                    let is_in_ready = state.is_in_ready(&entry);
                    if is_in_ready {
                        in_ready.push(entry.at);
                    }
                    is_in_ready || state.take_ready(&entry)
                }
                MessageState::Scheduled { due_ms } => {
                    state.delayed.remove(&(due_ms, entry.at)).is_some()
                        || state.staying.remove(&entry.at).is_some()
                        // After a restart the disk has what is held as well.
                        || state.take_from_disk_once(&entry)
                }
                MessageState::Unacked { .. } => false,
            };
            if is_out {
                taken.push(entry);
            }
        }
        for lane in &mut state.lanes {
            let seqs: BTreeSet<Seq> =
                in_ready.iter().filter(|at| at.level() == lane.level).map(|at| at.seq()).collect();
            lane.remove_ready(&seqs);
        }
        self.report(&mut state);
        taken
    }

    /// Settles what was taken out.
    pub(crate) fn settle_out(self: &Arc<Self>, taken: &[Entry], now_ms: u64) {
        let mut state = self.lock();
        for entry in taken {
            state.note_settled(entry);
            state.trace_end(entry.at, "taken_out", None);
        }
        state.dispatch(now_ms);
        self.finish(state, now_ms);
    }

    /// The store has forgotten what was taken out.
    pub(crate) fn forget_out(&self, taken: &[Entry]) {
        let mut state = self.lock();
        for lane in &mut state.lanes {
            let ours = taken.iter().filter(|entry| entry.at.level() == lane.level);
            let seqs: Vec<Seq> = ours.map(|entry| entry.at.seq()).collect();
            lane.tail.forget_taken(&seqs);
        }
    }
}

impl State {
    fn is_in_ready(&mut self, entry: &Entry) -> bool {
        let seq = entry.at.seq();
        let lane = self.lane_of(entry.at);
        lane.is_some_and(|lane| lane.ready.binary_search_by_key(&seq, |e| e.at.seq()).is_ok())
    }

    /// Takes a ready message out that is not among those of the window that nobody has had.
    fn take_ready(&mut self, entry: &Entry) -> bool {
        let seq = entry.at.seq();
        let Some(lane) = self.lane_of(entry.at) else { return false };
        if let Some(returned) = lane.returned.remove(&seq) {
            lane.ready_bytes = lane.ready_bytes.saturating_sub(returned.message.body().len());
            return true;
        }
        lane.tail.remove_in_memory(seq) || self.take_from_disk_once(entry)
    }

    fn take_from_disk_once(&mut self, entry: &Entry) -> bool {
        let Some(lane) = self.lane_of(entry.at) else { return false };
        let seq = entry.at.seq();
        let is_there = lane.tail.has_on_disk(seq);
        if is_there {
            lane.take_from_disk([(seq, entry.message.body().len())]);
        }
        is_there
    }
}

impl Lane {
    /// Takes messages out of the middle of the window.
    ///
    /// Cost: proportional to the distance between the first and the last, and to what stands on
    /// the shorter side of them.
    fn remove_ready(&mut self, seqs: &BTreeSet<Seq>) {
        let (Some(first), Some(last)) = (seqs.first(), seqs.last()) else { return };
        let from = self.ready.partition_point(|entry| entry.at.seq() < *first);
        let end = self.ready.partition_point(|entry| entry.at.seq() <= *last);
        let mut kept = from;
        for at in from..end {
            let Some(entry) = self.ready.get(at) else { break };
            if seqs.contains(&entry.at.seq()) {
                self.ready_bytes = self.ready_bytes.saturating_sub(entry.message.body().len());
            } else {
                self.ready.swap(kept, at);
                kept += 1;
            }
        }
        self.ready.drain(kept..end);
    }
}
