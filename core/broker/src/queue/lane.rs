//! The messages of one priority level, in order. A queue without priorities has one lane.

use std::collections::{BTreeMap, VecDeque};

use polymq_model::{LogId, Message, Seq};
use polymq_store::ShardBatch;

use super::{Entry, position::Position, tail::Tail, window::Window};

/// The counts of a message that lives, for the store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    pub(super) seq: Seq,
    pub(super) failed: u16,
    pub(super) acquired: u16,
    /// When it may be delivered again, in ms since 1970; 0 for at once.
    pub(super) due_ms: u64,
}

/// The messages of one priority level.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) level: u8,
    /// Where its messages are stored; 0 when they are not.
    pub(super) log: LogId,
    pub(super) next_seq: u64,
    /// Messages never delivered, in order. All of `returned` stand before them.
    pub(super) ready: VecDeque<Entry>,
    /// Messages that came back, at their own places.
    pub(super) returned: BTreeMap<Seq, Entry>,
    pub(super) ready_bytes: usize,
    pub(super) tail: Tail,
    /// True once a message here had a deadline.
    pub(super) has_deadlines: bool,
    /// The last batch with a message of this lane.
    pub(super) last_batch: ShardBatch,
    /// Persistent messages that are done with, as ranges, for the store.
    pub(super) settled: Vec<(Seq, Seq)>,
    /// Persistent messages that came back, for the store.
    pub(super) counts: Vec<Counts>,
}

impl Lane {
    pub(super) fn new(level: u8, log: LogId) -> Self {
        Self {
            level,
            log,
            next_seq: 1,
            ready: VecDeque::new(),
            returned: BTreeMap::new(),
            ready_bytes: 0,
            tail: Tail::default(),
            has_deadlines: false,
            last_batch: ShardBatch(0),
            settled: Vec::new(),
            counts: Vec::new(),
        }
    }

    /// Ready messages, wherever they are.
    pub(super) fn len(&self) -> u64 {
        self.window_len() as u64 + self.tail.len()
    }

    /// Bytes of the bodies of ready messages, wherever they are.
    pub(super) fn bytes(&self) -> u64 {
        self.ready_bytes as u64 + self.tail.bytes()
    }

    /// Messages in memory that come next.
    pub(super) fn window_len(&self) -> usize {
        self.returned.len() + self.ready.len()
    }

    /// Leaves the next place empty.
    pub(super) fn skip_place(&mut self) {
        self.next_seq += 1;
    }

    /// Adds an entry at the next place; `batch` holds it if it is stored.
    pub(super) fn push(&mut self, mut entry: Entry, batch: ShardBatch) {
        entry.at = Position::new(self.level, Seq(self.next_seq));
        self.next_seq += 1;
        self.has_deadlines |= entry.deadline_ms != 0;
        if self.tail.is_empty() {
            self.ready_bytes += entry.message.body().len();
            self.ready.push_back(entry);
        } else {
            self.tail.push(batch, entry);
        }
    }

    /// The next message, when it is in memory.
    pub(super) fn head(&self) -> Option<&Entry> {
        self.returned.first_key_value().map(|(_, entry)| entry).or_else(|| self.ready.front())
    }

    pub(super) fn pop(&mut self, window: Window) -> Option<Entry> {
        if !self.has_next(window) {
            return None;
        }
        self.pop_head()
    }

    /// Takes the message that `head` shows.
    #[inline]
    pub(super) fn pop_head(&mut self) -> Option<Entry> {
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

    /// Takes the last messages of the window out, which are to be put back by
    /// [`put_last`](Self::put_last) in order.
    pub(super) fn take_last(&mut self, count: usize) -> Vec<Entry> {
        let at = self.ready.len().saturating_sub(count);
        let last: Vec<Entry> = self.ready.drain(at..).collect();
        let bytes: usize = last.iter().map(|entry| entry.message.body().len()).sum();
        self.ready_bytes = self.ready_bytes.saturating_sub(bytes);
        last
    }

    /// Puts a message at the end of the window.
    pub(super) fn put_last(&mut self, entry: Entry) {
        self.ready_bytes += entry.message.body().len();
        self.ready.push_back(entry);
    }

    /// Takes the message at this place of `ready` out.
    pub(super) fn take_at(&mut self, at: usize) -> Option<Entry> {
        let entry = self.ready.remove(at)?;
        self.ready_bytes = self.ready_bytes.saturating_sub(entry.message.body().len());
        Some(entry)
    }

    /// Takes a message back to its own place.
    pub(super) fn put_back(&mut self, entry: Entry) {
        self.ready_bytes += entry.message.body().len();
        self.has_deadlines |= entry.deadline_ms != 0;
        self.returned.insert(entry.at.seq(), entry);
    }

    /// A message is done with.
    pub(super) fn note_settled(&mut self, seq: Seq, message: &Message) {
        if !message.is_durable() {
            return;
        }
        match self.settled.last_mut() {
            Some((_, last)) if last.next() == seq => *last = seq,
            Some(_) | None => self.settled.push((seq, seq)),
        }
    }

    /// What was delivered of a message changes.
    pub(super) fn note_counts(&mut self, entry: &Entry, due_ms: u64) {
        if entry.message.is_durable() {
            let (seq, failed, acquired) = (entry.at.seq(), entry.failed, entry.acquired);
            self.counts.push(Counts { seq, failed, acquired, due_ms });
        }
    }

    /// Takes everything out.
    pub(super) fn purge(&mut self, window: Window) {
        while let Some(entry) = self.pop(window) {
            self.note_settled(entry.at.seq(), &entry.message);
        }
        self.clear_tail();
    }

    /// No message in memory lives longer than this, in ms since 1970.
    pub(super) fn bring_deadlines_forward(&mut self, latest_ms: u64) {
        self.has_deadlines = true;
        for entry in self.returned.values_mut().chain(self.ready.iter_mut()) {
            entry.bring_deadline_forward(latest_ms);
        }
        self.tail.in_memory_mut().for_each(|entry| entry.bring_deadline_forward(latest_ms));
    }
}
