//! What the batches of a shard add up to. One function, [`ShardState::apply`], is the meaning of
//! every record, for engines that answer, for recovery, and for replication.
//!
//! How the live messages of a log are kept, an engine says ([`Messages`]). [`Index`] keeps one
//! place per live message, and nothing of its content.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;

use crate::{
    CursorState, Epoch, LogId, Opened, OpenedLog, Seq, ShardBatch,
    record::{Checks, Publish, Record, RecordError, Records, publish_at},
};

mod index;
#[cfg(test)]
mod tests;

pub use index::Index;

/// How often a message was delivered and when it is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hold {
    /// Deliveries that count against a limit.
    pub delivery_count: u32,
    /// Times a consumer has had it.
    pub acquired_count: u32,
    /// Not before this time in milliseconds since 1970; 0 for now.
    pub due_ms: u64,
}

/// A message with counts or a due time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Its position.
    pub seq: Seq,
    /// Its counts.
    pub hold: Hold,
}

/// Where an engine keeps a message.
pub trait Place {
    /// The bytes of the properties and the body of the message.
    fn content_bytes(&self) -> u64;
}

/// The live messages of one log, as an engine keeps them.
pub trait Messages: Default {
    /// Where it keeps one message.
    type Place: Place;

    /// Adds a message; one that lives there already stays.
    ///
    /// False, and nothing is added, when the position lies before messages that can no longer be
    /// preceded. Positions of a log only grow, so this never happens to a caller that is right.
    fn insert(&mut self, seq: Seq, place: Self::Place) -> bool;

    /// Removes what lives from `first` to `last`, both included.
    fn remove(&mut self, first: Seq, last: Seq);

    /// True when a message lives there.
    fn contains(&self, seq: Seq) -> bool;

    /// The lowest live position.
    fn first(&self) -> Option<Seq>;

    /// How many messages live.
    fn count(&self) -> u64;

    /// The bytes of their properties and bodies.
    fn bytes(&self) -> u64;

    /// The ranges without a live message from `from` to before `until`, both ends included.
    fn gaps(&self, from: Seq, until: Seq) -> Vec<(Seq, Seq)>;

    /// Takes messages back that the engine has written to files of its own, as it described them
    /// in a record of type [`ENGINE`](crate::record::kind::ENGINE). False when that is nonsense.
    fn restore(&mut self, first: Seq, last: Seq, description: &[u8]) -> bool;
}

/// A message that [`ShardState::apply`] wants a place for.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// The message; for a PUBSAME with its own log, position and expiry.
    pub publish: Publish<'a>,
    /// Offset of its record in the payload.
    pub offset: usize,
    /// Offset of the PUB that holds its content: the same, unless `offset` is a PUBSAME.
    pub content_offset: usize,
    /// Length of that PUB without padding.
    pub content_len: u32,
}

/// One log: its counts and its live messages.
#[derive(Debug, Clone)]
pub struct LogState<M> {
    name: String,
    next_seq: Seq,
    live: M,
    holds: BTreeMap<Seq, Hold>,
}

/// A definition and the version of its last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Grows with each change of the key.
    pub version: u64,
    /// The value.
    pub value: Bytes,
}

/// What all batches up to `last_batch` add up to.
#[derive(Debug, Clone)]
pub struct ShardState<M> {
    epoch: Epoch,
    last_batch: ShardBatch,
    logs: BTreeMap<LogId, LogState<M>>,
    metas: BTreeMap<String, Meta>,
    next_log: LogId,
}

/// What to do with a batch that was submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It follows the last one: write it.
    Next,
    /// It is kept already: answer without a change.
    Kept,
    /// It comes from an older opening.
    Fenced,
    /// A batch before it is missing: the caller is broken.
    Gap,
}

impl<M> Default for ShardState<M> {
    fn default() -> Self {
        Self {
            epoch: Epoch(0),
            last_batch: ShardBatch(0),
            logs: BTreeMap::new(),
            metas: BTreeMap::new(),
            next_log: LogId(0),
        }
    }
}

impl<M: Messages> ShardState<M> {
    /// The epoch of the present owner.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Begins a new epoch.
    pub fn set_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// The last batch that was applied.
    pub fn last_batch(&self) -> ShardBatch {
        self.last_batch
    }

    /// Continues after `number`, whose effect is in the state by other means.
    pub fn set_last_batch(&mut self, number: ShardBatch) {
        self.last_batch = number;
    }

    /// How many messages live in all logs.
    pub fn live_count(&self) -> u64 {
        self.logs.values().map(LogState::live_count).sum()
    }

    /// The bytes of their properties and bodies.
    pub fn live_bytes(&self) -> u64 {
        self.logs.values().map(LogState::live_bytes).sum()
    }

    /// The lowest number that no log ever had.
    pub fn next_log(&self) -> LogId {
        self.next_log
    }

    /// Every log, in the order of the ids.
    pub fn logs(&self) -> impl Iterator<Item = (LogId, &LogState<M>)> {
        self.logs.iter().map(|(id, log)| (*id, log))
    }

    /// The logs whose ids are `first` or higher.
    pub fn logs_from(&self, first: LogId) -> impl Iterator<Item = (LogId, &LogState<M>)> {
        self.logs.range(first..).map(|(id, log)| (*id, log))
    }

    /// The definitions behind `key`, all of them without a key.
    pub fn metas_after(&self, key: Option<&str>) -> impl Iterator<Item = (&str, &Meta)> {
        let start = key.map_or(Bound::Unbounded, Bound::Excluded);
        let metas = self.metas.range::<str, _>((start, Bound::Unbounded));
        metas.map(|(key, meta)| (key.as_str(), meta))
    }

    /// One log, for an engine that moves its messages.
    pub fn log_mut(&mut self, id: LogId) -> Option<&mut LogState<M>> {
        self.logs.get_mut(&id)
    }

    /// Every log, for an engine that moves messages.
    pub fn logs_mut(&mut self) -> impl Iterator<Item = (LogId, &mut LogState<M>)> {
        self.logs.iter_mut().map(|(id, log)| (*id, log))
    }

    /// One log.
    pub fn log(&self, id: LogId) -> Option<&LogState<M>> {
        self.logs.get(&id)
    }

    /// Every definition, in the order of the keys.
    pub fn metas(&self) -> impl Iterator<Item = (&str, &Meta)> {
        self.metas.iter().map(|(key, meta)| (key.as_str(), meta))
    }

    /// Whether a batch may be written.
    pub fn admit(&self, epoch: Epoch, number: ShardBatch) -> Admission {
        if epoch != self.epoch {
            Admission::Fenced
        } else if number <= self.last_batch {
            Admission::Kept
        } else if number == self.last_batch.next() {
            Admission::Next
        } else {
            Admission::Gap
        }
    }

    /// Applies the records of batch `number`, and asks `place` where each message is kept.
    ///
    /// Records of logs that do not exist are skipped: they can only come after the deletion.
    ///
    /// Errors: when the payload is not a sequence of valid records; those before the bad one
    /// have been applied.
    pub fn apply(
        &mut self,
        number: ShardBatch,
        payload: &[u8],
        checks: Checks,
        mut place: impl FnMut(&Found<'_>) -> M::Place,
    ) -> Result<(), RecordError> {
        for item in Records::new(payload, checks) {
            let (offset, len, record) = item?;
            let fail = |what| RecordError { offset, what };
            match record {
                Record::Publish(publish) => {
                    let found = Found { publish, offset, content_offset: offset, content_len: len };
                    self.publish(&found, &mut place).map_err(fail)?;
                }
                Record::PublishSame { log, seq, expiry_ms, first, .. } => {
                    let first = first as usize;
                    let (content_len, content) = publish_at(payload, first, checks)?;
                    let publish = Publish { log, seq, expiry_ms, ..content };
                    let found = Found { publish, offset, content_offset: first, content_len };
                    self.publish(&found, &mut place).map_err(fail)?;
                }
                Record::Engine { log, first, last, description } => {
                    let Some(log) = self.logs.get_mut(&log) else { continue };
                    if !log.live.restore(first, last, description) {
                        return Err(fail("messages are described in a way nobody understands"));
                    }
                }
                other => self.apply_other(number, &other),
            }
        }
        self.last_batch = number.max(self.last_batch);
        Ok(())
    }

    fn publish(
        &mut self,
        found: &Found<'_>,
        place: &mut impl FnMut(&Found<'_>) -> M::Place,
    ) -> Result<(), &'static str> {
        let seq = found.publish.seq;
        let Some(log) = self.logs.get_mut(&found.publish.log) else { return Ok(()) };
        if !log.live.insert(seq, place(found)) {
            return Err("a message has a position behind which others are stored");
        }
        log.next_seq = log.next_seq.max(Seq(seq.0.saturating_add(1)));
        Ok(())
    }

    fn apply_other(&mut self, number: ShardBatch, record: &Record<'_>) {
        match *record {
            Record::Ack { log, ranges, .. } => {
                for (first, last) in ranges {
                    self.remove(log, first, last);
                }
            }
            Record::Hold { log, entries, .. } => {
                let Some(log) = self.logs.get_mut(&log) else { return };
                for Held { seq, hold } in entries {
                    if log.live.contains(seq) {
                        log.holds.insert(seq, hold);
                    }
                }
            }
            Record::Floor { log, floor, .. } => self.remove_below(log, floor),
            Record::Purge { log, below } => self.remove_below(log, below),
            Record::LogCreate { log, name } => {
                self.uses_log(log);
                self.logs.entry(log).or_default().name = name.to_owned();
            }
            Record::LogDelete { log } => {
                self.logs.remove(&log);
            }
            Record::Meta { key, value: None, .. } => {
                self.metas.remove(key);
            }
            Record::Meta { key, version, value: Some(value) } => {
                let version = if version == 0 { number.0 } else { version };
                let meta = Meta { version, value: Bytes::copy_from_slice(value) };
                self.metas.insert(key.to_owned(), meta);
            }
            Record::Checkpoint { log, next_seq, .. } => {
                self.uses_log(log);
                if let Some(log) = self.logs.get_mut(&log) {
                    log.next_seq = log.next_seq.max(next_seq);
                }
            }
            Record::Fence { epoch } => self.epoch = self.epoch.max(epoch),
            Record::Publish(_)
            | Record::PublishSame { .. }
            | Record::Engine { .. }
            | Record::Skipped => {}
        }
    }

    fn uses_log(&mut self, id: LogId) {
        self.next_log = self.next_log.max(LogId(id.0.saturating_add(1)));
    }

    /// A purge counts as a position that was given, so that numbers never come back.
    fn remove_below(&mut self, id: LogId, below: Seq) {
        if let Some(last) = below.0.checked_sub(1) {
            self.remove(id, Seq(0), Seq(last));
        }
        if let Some(log) = self.logs.get_mut(&id) {
            log.next_seq = log.next_seq.max(below);
        }
    }

    fn remove(&mut self, id: LogId, first: Seq, last: Seq) {
        let Some(log) = self.logs.get_mut(&id).filter(|_| first <= last) else { return };
        log.live.remove(first, last);
        while let Some((seq, _)) = log.holds.range(first..=last).next() {
            let seq = *seq;
            log.holds.remove(&seq);
        }
    }

    /// What a new owner is told.
    pub fn opened(&self) -> Opened {
        let logs = self.logs.iter().map(|(id, log)| OpenedLog {
            id: *id,
            name: log.name.clone(),
            next_seq: log.next_seq,
            floor: log.floor(),
            live_count: log.live_count(),
            live_bytes: log.live_bytes(),
        });
        let metas = self.metas.iter();
        Opened {
            epoch: self.epoch,
            last_batch: self.last_batch,
            next_log: self.next_log,
            logs: logs.collect(),
            metas: metas.map(|(key, m)| (key.clone(), m.version, m.value.clone())).collect(),
        }
    }
}

impl<M: Default> Default for LogState<M> {
    fn default() -> Self {
        Self { name: String::new(), next_seq: Seq(0), live: M::default(), holds: BTreeMap::new() }
    }
}

impl<M: Messages> LogState<M> {
    /// The name it was created with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The lowest position no message ever had.
    pub fn next_seq(&self) -> Seq {
        self.next_seq
    }

    /// Every message below is gone.
    pub fn floor(&self) -> Seq {
        self.live.first().unwrap_or(self.next_seq)
    }

    /// How many messages live.
    pub fn live_count(&self) -> u64 {
        self.live.count()
    }

    /// The bytes of their properties and bodies.
    pub fn live_bytes(&self) -> u64 {
        self.live.bytes()
    }

    /// Its live messages.
    pub fn messages(&self) -> &M {
        &self.live
    }

    /// Its live messages, for an engine that moves them.
    pub fn messages_mut(&mut self) -> &mut M {
        &mut self.live
    }

    /// The counts of one message.
    pub fn hold(&self, seq: Seq) -> Option<Hold> {
        self.holds.get(&seq).copied()
    }

    /// Every message with counts, in the order of the positions.
    pub fn holds(&self) -> impl Iterator<Item = Held> {
        self.holds.iter().map(|(seq, hold)| Held { seq: *seq, hold: *hold })
    }

    /// What the log's own cursor has acknowledged and holds.
    pub fn cursor(&self) -> CursorState {
        let floor = self.floor();
        let acked = self.live.gaps(floor, self.next_seq);
        CursorState { floor, acked, held: self.holds().collect() }
    }
}
