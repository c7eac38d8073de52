//! What the batches of a shard add up to. One function, [`ShardState::apply`], is the meaning of
//! every record, for engines that answer, for recovery, and for replication.
//!
//! The state keeps one place per live message and nothing of its content; what a place is, an
//! engine says.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;

use crate::{
    CursorState, Epoch, LogId, Opened, OpenedLog, Seq, ShardBatch,
    record::{Checks, Publish, Record, RecordError, Records, publish_at},
};

mod index;
#[cfg(test)]
mod tests;

use index::Index;

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
pub struct LogState<V> {
    name: String,
    next_seq: Seq,
    live: Index<V>,
    live_bytes: u64,
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
pub struct ShardState<V> {
    epoch: Epoch,
    last_batch: ShardBatch,
    logs: BTreeMap<LogId, LogState<V>>,
    metas: BTreeMap<String, Meta>,
    next_log: LogId,
    live_count: u64,
    live_bytes: u64,
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

impl<V> Default for ShardState<V> {
    fn default() -> Self {
        Self {
            epoch: Epoch(0),
            last_batch: ShardBatch(0),
            logs: BTreeMap::new(),
            metas: BTreeMap::new(),
            next_log: LogId(0),
            live_count: 0,
            live_bytes: 0,
        }
    }
}

impl<V: Place> ShardState<V> {
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
        self.live_count
    }

    /// The bytes of their properties and bodies.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// The lowest number that no log ever had.
    pub fn next_log(&self) -> LogId {
        self.next_log
    }

    /// Every log, in the order of the ids.
    pub fn logs(&self) -> impl Iterator<Item = (LogId, &LogState<V>)> {
        self.logs.iter().map(|(id, log)| (*id, log))
    }

    /// The logs whose ids are `first` or higher.
    pub fn logs_from(&self, first: LogId) -> impl Iterator<Item = (LogId, &LogState<V>)> {
        self.logs.range(first..).map(|(id, log)| (*id, log))
    }

    /// The definitions behind `key`, all of them without a key.
    pub fn metas_after(&self, key: Option<&str>) -> impl Iterator<Item = (&str, &Meta)> {
        let start = key.map_or(Bound::Unbounded, Bound::Excluded);
        let metas = self.metas.range::<str, _>((start, Bound::Unbounded));
        metas.map(|(key, meta)| (key.as_str(), meta))
    }

    /// One log.
    pub fn log(&self, id: LogId) -> Option<&LogState<V>> {
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
        mut place: impl FnMut(&Found<'_>) -> V,
    ) -> Result<(), RecordError> {
        for item in Records::new(payload, checks) {
            let (offset, len, record) = item?;
            match record {
                Record::Publish(publish) => {
                    let found = Found { publish, offset, content_offset: offset, content_len: len };
                    self.publish(&found, &mut place);
                }
                Record::PublishSame { log, seq, expiry_ms, first, .. } => {
                    let first = first as usize;
                    let (content_len, content) = publish_at(payload, first, checks)?;
                    let publish = Publish { log, seq, expiry_ms, ..content };
                    let found = Found { publish, offset, content_offset: first, content_len };
                    self.publish(&found, &mut place);
                }
                other => self.apply_other(number, &other),
            }
        }
        self.last_batch = number.max(self.last_batch);
        Ok(())
    }

    fn publish(&mut self, found: &Found<'_>, place: &mut impl FnMut(&Found<'_>) -> V) {
        let seq = found.publish.seq;
        let Some(log) = self.logs.get_mut(&found.publish.log) else { return };
        let place = place(found);
        let bytes = place.content_bytes();
        if log.live.insert(seq, place).is_none() {
            log.live_bytes += bytes;
            self.live_bytes += bytes;
            self.live_count += 1;
        }
        log.next_seq = log.next_seq.max(Seq(seq.0.saturating_add(1)));
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
                    if log.live.at(seq).is_some() {
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
                if let Some(log) = self.logs.remove(&log) {
                    self.live_count -= log.live.len() as u64;
                    self.live_bytes -= log.live_bytes;
                }
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
            Record::Publish(_) | Record::PublishSame { .. } | Record::Skipped => {}
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
        let Some(log) = self.logs.get_mut(&id) else { return };
        let (mut count, mut bytes) = (0, 0);
        let holds = &mut log.holds;
        log.live.remove(first, last, |seq, place| {
            count += 1;
            bytes += place.content_bytes();
            if !holds.is_empty() {
                holds.remove(&seq);
            }
        });
        log.live_bytes -= bytes;
        self.live_bytes -= bytes;
        self.live_count -= count;
    }

    /// Puts the place of a live message elsewhere; false when the message is gone.
    pub fn relocate(&mut self, log: LogId, seq: Seq, to: V) -> bool {
        match self.logs.get_mut(&log).and_then(|log| log.live.at_mut(seq)) {
            Some(place) => {
                *place = to;
                true
            }
            None => false,
        }
    }

    /// What a new owner is told.
    pub fn opened(&self) -> Opened {
        let logs = self.logs.iter().map(|(id, log)| OpenedLog {
            id: *id,
            name: log.name.clone(),
            next_seq: log.next_seq,
            floor: log.floor(),
            live_count: log.live.len() as u64,
            live_bytes: log.live_bytes,
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

impl<V> Default for LogState<V> {
    fn default() -> Self {
        Self {
            name: String::new(),
            next_seq: Seq(0),
            live: Index::default(),
            live_bytes: 0,
            holds: BTreeMap::new(),
        }
    }
}

impl<V> LogState<V> {
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
        self.live.len() as u64
    }

    /// The live messages from `first` upwards.
    pub fn from(&self, first: Seq) -> impl Iterator<Item = (Seq, &V)> {
        self.live.from(first)
    }

    /// The place of one message.
    pub fn at(&self, seq: Seq) -> Option<&V> {
        self.live.at(seq)
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
        let mut acked = Vec::new();
        let mut next = floor;
        for (seq, _) in self.live.from(floor) {
            if let Some(last) = seq.0.checked_sub(1).filter(|last| *last >= next.0) {
                acked.push((next, Seq(last)));
            }
            next = Seq(seq.0.saturating_add(1));
        }
        if let Some(last) = self.next_seq.0.checked_sub(1).filter(|last| *last >= next.0) {
            acked.push((next, Seq(last)));
        }
        CursorState { floor, acked, held: self.holds().collect() }
    }
}
