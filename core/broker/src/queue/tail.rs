//! The part of a queue that only the disk has.
//!
//! ```text
//!   returned   ready          disk               fresh
//!  [ memory ][ memory ][ from ....... until ][ memory ]   positions grow to the right
//! ```
//!
//! A queue that grows beyond its window hands its tail to the store, which has it anyway: what is
//! durable needs no memory. `fresh` holds what is not durable yet. Transient messages stay in
//! memory at their positions. The window is filled again from the left end of the disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use polymq_model::Seq;
use polymq_store::ShardBatch;

use super::{
    Entry, Held,
    lane::Lane,
    window::{Window, weight},
};

/// Where the reading of a page stands.
#[derive(Debug, Default)]
pub(super) enum Reading {
    #[default]
    Idle,
    /// A thread is about to ask, or has asked and not returned from that.
    Asking,
    /// The answer came before that thread returned.
    Answered(Page),
    Waiting,
}

/// What was read.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) entries: Vec<Entry>,
    /// Those that are held back.
    pub(super) due: BTreeMap<Seq, Held>,
    /// Where to read on; `None` when the store has no more.
    pub(super) next: Option<Seq>,
    /// What stood before that and cannot be read: positions, and how many messages nobody has
    /// acknowledged.
    pub(super) gone: Option<(Seq, Seq, u64)>,
}

/// Everything behind the window.
#[derive(Debug, Default)]
pub(super) struct Tail {
    from: u64,
    pub(super) until: u64,
    /// Messages on the disk, and the bytes of their bodies; may be too high after a batch was
    /// refused, and is exact again when the disk has been read to its end.
    count: u64,
    bytes: u64,
    fresh: VecDeque<(ShardBatch, Entry)>,
    transient: VecDeque<Entry>,
    /// Positions on the disk that are somebody's already.
    taken: BTreeSet<Seq>,
    /// Those of them that the store has forgotten while a page was on its way.
    gone: Vec<Seq>,
    pub(super) reading: Reading,
    /// Grows when what is being read is not wanted any more.
    pub(super) generation: u64,
}

impl Tail {
    pub(super) fn is_empty(&self) -> bool {
        self.from >= self.until && self.fresh.is_empty() && self.transient.is_empty()
    }

    pub(super) fn len(&self) -> u64 {
        self.count + self.memory_len()
    }

    /// Messages of the tail that are in memory.
    pub(super) fn memory_len(&self) -> u64 {
        (self.fresh.len() + self.transient.len()) as u64
    }

    /// Bytes of bodies on the disk and in memory.
    pub(super) fn bytes(&self) -> u64 {
        let size = |entry: &Entry| entry.message.body().len() as u64;
        let fresh: u64 = self.fresh.iter().map(|(_, entry)| size(entry)).sum();
        self.bytes + fresh + self.transient.iter().map(size).sum::<u64>()
    }

    /// What is in memory of the tail.
    pub(super) fn in_memory_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.fresh.iter_mut().map(|(_, entry)| entry).chain(self.transient.iter_mut())
    }

    /// The same, to look at: what is not durable yet behind the disk, and what never will be.
    pub(super) fn in_memory(&self) -> impl Iterator<Item = &Entry> {
        self.fresh.iter().map(|(_, entry)| entry).chain(self.transient.iter())
    }

    /// The positions that only the disk has: the first, and the one behind the last.
    pub(super) fn on_disk(&self) -> Option<(Seq, Seq)> {
        (self.from < self.until).then_some((Seq(self.from), Seq(self.until)))
    }

    /// True for a message on the disk that is nobody's yet.
    pub(super) fn has_on_disk(&self, seq: Seq) -> bool {
        (self.from..self.until).contains(&seq.0) && !self.taken.contains(&seq)
    }

    /// True for a message on the disk that is somebody's already.
    pub(super) fn is_taken(&self, seq: Seq) -> bool {
        self.taken.contains(&seq)
    }

    /// Takes a message out that is in memory.
    pub(super) fn remove_in_memory(&mut self, seq: Seq) -> bool {
        if let Ok(at) = self.fresh.binary_search_by_key(&seq, |(_, entry)| entry.at.seq()) {
            return self.fresh.remove(at).is_some();
        }
        let found = self.transient.binary_search_by_key(&seq, |entry| entry.at.seq());
        found.is_ok_and(|at| self.transient.remove(at).is_some())
    }

    /// The store gives these to nobody any more, so that nothing has to be remembered of them once
    /// no page is on its way that may still hold them.
    pub(super) fn forget_taken(&mut self, seqs: &[Seq]) {
        self.gone.extend_from_slice(seqs);
        if matches!(self.reading, Reading::Idle) {
            for seq in std::mem::take(&mut self.gone) {
                self.taken.remove(&seq);
            }
        }
    }

    /// These positions are somebody's already, wherever the disk is read.
    pub(super) fn pass_over(&mut self, seqs: impl IntoIterator<Item = Seq>) {
        self.taken.extend(seqs);
    }

    pub(super) fn push(&mut self, batch: ShardBatch, entry: Entry) {
        self.fresh.push_back((batch, entry));
    }

    /// Lets go of what is durable.
    fn forget_durable(&mut self, durable: ShardBatch) {
        while let Some((_, entry)) = self.fresh.pop_front_if(|(batch, _)| *batch <= durable) {
            if !entry.message.is_durable() {
                self.transient.push_back(entry);
                continue;
            }
            if self.from >= self.until {
                self.from = entry.at.seq().0;
            }
            self.until = entry.at.seq().0 + 1;
            self.count += 1;
            self.bytes += entry.message.body().len() as u64;
        }
    }

    /// Takes everything; `settled` gets the ranges that only the disk has.
    fn clear(&mut self, settled: &mut Vec<(Seq, Seq)>) -> Vec<Entry> {
        let mut first = self.from;
        for taken in std::mem::take(&mut self.taken).range(Seq(self.from)..) {
            if first < taken.0 {
                settled.push((Seq(first), Seq(taken.0 - 1)));
            }
            first = taken.0 + 1;
        }
        if first < self.until {
            settled.push((Seq(first), Seq(self.until - 1)));
        }
        self.from = self.until;
        (self.count, self.bytes) = (0, 0);
        self.generation += 1;
        let fresh = std::mem::take(&mut self.fresh);
        fresh.into_iter().map(|(_, entry)| entry).chain(self.transient.drain(..)).collect()
    }
}

impl Lane {
    /// True when the next message is in memory; one that need not be read is taken there.
    pub(super) fn has_next(&mut self, window: Window) -> bool {
        if self.window_len() == 0 && !self.tail.is_empty() {
            self.refill(window);
        }
        self.window_len() > 0
    }

    /// Hands what is too much for the window to the store, which has all of it when the last batch
    /// with a message of this queue is durable.
    pub(super) fn spill(&mut self, window: Window, durable: ShardBatch) {
        let batch = self.last_batch;
        let is_over = self.ready.len() > window.entries_max
            || weight(self.ready.len(), self.ready_bytes) > window.bytes_max;
        if is_over && self.tail.is_empty() {
            while self.ready.len() > window.entries_kept()
                || weight(self.ready.len(), self.ready_bytes) > window.bytes_kept()
            {
                let Some(entry) = self.ready.pop_back() else { break };
                self.ready_bytes = self.ready_bytes.saturating_sub(entry.message.body().len());
                self.tail.fresh.push_front((batch, entry));
            }
            self.ready.shrink_to(window.entries_kept());
        }
        if !self.tail.is_empty() {
            self.tail.forget_durable(durable);
        }
    }

    /// Takes over what a restart has found in the store.
    pub(super) fn restore(&mut self, floor: Seq, next_seq: Seq, count: u64, bytes: u64) {
        self.next_seq = self.next_seq.max(next_seq.0);
        if count > 0 {
            (self.tail.from, self.tail.until) = (floor.0, next_seq.0);
            (self.tail.count, self.tail.bytes) = (count, bytes);
        }
    }

    /// These messages of the disk are somebody's, or gone.
    pub(super) fn take_from_disk(&mut self, seqs: impl IntoIterator<Item = (Seq, usize)>) {
        for (seq, bytes) in seqs {
            if (self.tail.from..self.tail.until).contains(&seq.0) && self.tail.taken.insert(seq) {
                self.tail.count = self.tail.count.saturating_sub(1);
                self.tail.bytes = self.tail.bytes.saturating_sub(bytes as u64);
            }
        }
    }

    /// Where the next page begins, when one is wanted now.
    pub(super) fn page_wanted(&self, window: Window, has_takers: bool) -> Option<Seq> {
        if self.tail.from >= self.tail.until {
            return None;
        }
        let is_wanted = match has_takers {
            false => self.window_len() == 0,
            true => self.ready.len() < window.entries_low(),
        };
        let is_idle = matches!(self.tail.reading, Reading::Idle);
        (is_wanted && is_idle).then_some(Seq(self.tail.from))
    }

    /// Adds what was read to the window. Returns what is not due yet, and what has died.
    pub(super) fn take_page(
        &mut self,
        mut page: Page,
        window: Window,
        now_ms: u64,
    ) -> Vec<(Held, Entry)> {
        let mut held = Vec::new();
        if let Some((first, last, messages)) = page.gone {
            self.give_up(first, last, messages);
        }
        let mut reached = page.next.map_or(self.tail.until, |next| next.0);
        for entry in page.entries {
            let seq = entry.at.seq();
            if seq.0 >= self.tail.until {
                reached = self.tail.until;
                break;
            }
            // A page that was asked for twice brings nothing twice.
            if seq.0 < self.tail.from || self.tail.taken.remove(&seq) {
                continue;
            }
            self.take_transient(seq.0);
            self.tail.count = self.tail.count.saturating_sub(1);
            let bytes = entry.message.body().len();
            self.tail.bytes = self.tail.bytes.saturating_sub(bytes as u64);
            let is_back = |held: &Held| held.due_ms > now_ms || held.reason.is_some();
            match page.due.remove(&seq).filter(is_back) {
                Some(back) => held.push((back, entry)),
                None => {
                    self.has_deadlines |= entry.deadline_ms != 0;
                    self.ready_bytes += bytes;
                    self.ready.push_back(entry);
                }
            }
        }
        self.tail.from = self.tail.from.max(reached.min(self.tail.until));
        self.tail.forget_taken(&[]);
        self.refill(window);
        held
    }

    /// Settles messages that nobody can read.
    fn give_up(&mut self, first: Seq, last: Seq, messages: u64) {
        let taken = self.tail.taken.range(first..=last).count() as u64;
        self.tail.taken.retain(|seq| *seq < first || *seq > last);
        let gone = messages.saturating_sub(taken);
        self.tail.count = self.tail.count.saturating_sub(gone);
        self.settled.push((first, last));
    }

    fn take_transient(&mut self, before: u64) {
        while let Some(entry) = self.tail.transient.pop_front_if(|entry| entry.at.seq().0 < before)
        {
            self.ready_bytes += entry.message.body().len();
            self.ready.push_back(entry);
        }
    }

    /// When the disk has been read to its end, memory goes on.
    fn refill(&mut self, window: Window) {
        if self.tail.from < self.tail.until {
            return;
        }
        (self.tail.count, self.tail.bytes) = (0, 0);
        // What is still to reach the disk may have been passed over there.
        let next = self.tail.fresh.front().map_or(Seq(u64::MAX), |(_, entry)| entry.at.seq());
        self.tail.taken = self.tail.taken.split_off(&next);
        self.take_transient(u64::MAX);
        while self.ready.is_empty()
            || (self.ready.len() < window.entries_kept()
                && weight(self.ready.len(), self.ready_bytes) < window.bytes_kept())
        {
            let Some((_, entry)) = self.tail.fresh.pop_front() else { return };
            self.ready_bytes += entry.message.body().len();
            self.ready.push_back(entry);
        }
    }

    /// Takes everything behind the window out of the queue.
    pub(super) fn clear_tail(&mut self) {
        for entry in self.tail.clear(&mut self.settled) {
            self.note_settled(entry.at.seq(), &entry.message);
        }
    }
}
