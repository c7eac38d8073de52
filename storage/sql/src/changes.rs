//! What a batch changes in the tables, worked out without asking the database.

use std::collections::BTreeMap;

use polymq_store::{
    Batch, Hold, LogId, Seq, ShardBatch,
    record::{Checks, Publish, Record, RecordError, Records, publish_at},
};

use crate::{
    failure::Failure,
    logs::{LogCounts, ShardLogs},
    ranges::Ranges,
};

/// From how many messages on a log that is emptied leaves its rows to be removed later.
///
/// Below, removing them in the batch costs less than remembering them; above, the statement would
/// hold up the batches behind it.
const REMOVED_LATER_MIN: u64 = 10_000;
/// The database counts with a sign.
const SEQ_MAX: u64 = i64::MAX.unsigned_abs() - 1;

/// Positions of one log, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogRange {
    pub(crate) log: LogId,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// Counts of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NewHold {
    pub(crate) log: LogId,
    pub(crate) seq: u64,
    pub(crate) hold: Hold,
    /// The message is of this batch, so it lives; otherwise the database must look.
    pub(crate) is_fresh: bool,
}

/// The effect of one batch; every list is in the order of logs and positions.
#[derive(Debug, Default)]
pub(crate) struct Changes<'a> {
    pub(crate) number: ShardBatch,
    pub(crate) next_log: LogId,
    /// The records of the batch, which hold the bytes of its messages.
    pub(crate) payload: &'a [u8],
    /// Messages that outlive the batch.
    pub(crate) messages: Vec<Publish<'a>>,
    /// Earlier messages that go.
    pub(crate) removed: Vec<LogRange>,
    /// Ranges whose counts go: like `removed`, without logs that have none.
    pub(crate) unheld: Vec<LogRange>,
    pub(crate) holds: Vec<NewHold>,
    /// Logs as they stand afterwards; what `removed` finds is still to be subtracted.
    pub(crate) logs: Vec<(LogId, LogCounts)>,
    pub(crate) deleted: Vec<LogId>,
    /// Messages below these positions are gone, and their rows are removed later.
    pub(crate) garbage: Vec<(LogId, u64)>,
    /// Keys with version and value; no value means deleted.
    pub(crate) metas: BTreeMap<&'a str, Option<(u64, &'a [u8])>>,
}

impl<'a> Changes<'a> {
    /// Works out what `batch` does to `logs`. The meaning of records is that of
    /// `polymq_store::state::ShardState::apply`.
    ///
    /// Errors: [`Failure::Fatal`] when the payload is no sequence of valid records, or uses the
    /// number of a deleted log again.
    pub(crate) fn of(logs: &ShardLogs, batch: &'a Batch) -> Result<Self, Failure> {
        let mut drafts = Drafts { logs, drafts: BTreeMap::new(), next_log: logs.next_log };
        let mut metas = BTreeMap::new();
        for item in Records::new(&batch.payload, Checks::LengthsOnly) {
            let (_, _, record) = item.map_err(broken)?;
            if let Record::Meta { key, version, value } = record {
                let version = if version == 0 { batch.number.0 } else { version };
                metas.insert(key, value.map(|value| (version, value)));
            } else {
                drafts.apply(&batch.payload, &record)?;
            }
        }
        let next_log = drafts.next_log;
        let (number, payload) = (batch.number, &batch.payload[..]);
        let mut changes = Self { number, next_log, payload, metas, ..Self::default() };
        for (id, draft) in drafts.drafts {
            draft.finish(id, &mut changes);
        }
        Ok(changes)
    }

    /// Where in the payload a message stands: its properties begin there, its body follows them.
    ///
    /// A body that goes to many queues stands there once.
    pub(crate) fn place(&self, message: &Publish<'_>) -> usize {
        message.props.as_ptr().addr().saturating_sub(self.payload.as_ptr().addr())
    }

    /// Bytes of messages and definitions.
    pub(crate) fn byte_len(&self) -> usize {
        let messages = self.messages.iter().map(|message| message.props.len() + message.body.len());
        let metas = self.metas.values().flatten().map(|(_, value)| value.len());
        messages.chain(metas).sum()
    }
}

fn broken(error: RecordError) -> Failure {
    Failure::fatal("a batch cannot be read", &error)
}

/// The logs that a batch touches.
struct Drafts<'l, 'a> {
    logs: &'l ShardLogs,
    drafts: BTreeMap<LogId, Draft<'l, 'a>>,
    next_log: LogId,
}

/// One log while the records of a batch are gone through.
#[derive(Default)]
struct Draft<'l, 'a> {
    /// As it was before the batch; `None` when it began in it.
    before: Option<&'l LogCounts>,
    name: Option<String>,
    next_seq: u64,
    floor: u64,
    fresh: BTreeMap<u64, Publish<'a>>,
    removed: Ranges,
    holds: BTreeMap<u64, Hold>,
    has_holds: bool,
    /// All earlier messages are gone.
    is_emptied: bool,
    is_deleted: bool,
}

impl<'l, 'a> Drafts<'l, 'a> {
    fn apply(&mut self, payload: &'a [u8], record: &Record<'a>) -> Result<(), Failure> {
        match *record {
            Record::Publish(publish) => self.publish(publish)?,
            Record::PublishSame { log, seq, expiry_ms, first, .. } => {
                let found = publish_at(payload, first as usize, Checks::LengthsOnly);
                let (_, content) = found.map_err(broken)?;
                self.publish(Publish { log, seq, expiry_ms, ..content })?;
            }
            Record::Ack { log, ranges, .. } => {
                if let Some(log) = self.draft(log) {
                    for (first, last) in ranges {
                        log.remove(first.0, last.0);
                    }
                }
            }
            Record::Hold { log, entries, .. } => {
                if let Some(log) = self.draft(log) {
                    for held in entries {
                        log.hold(held.seq.0, held.hold);
                    }
                }
            }
            Record::Floor { log, floor: below, .. } | Record::Purge { log, below } => {
                if let Some(log) = self.draft(log) {
                    log.remove_below(below);
                }
            }
            Record::LogCreate { log, name } => self.create(log, name)?,
            Record::LogDelete { log } => {
                if let Some(log) = self.draft(log) {
                    log.is_deleted = true;
                }
            }
            // These are written by engines that keep files, about themselves.
            Record::Checkpoint { .. } | Record::Fence { .. } | Record::Engine { .. } => {}
            Record::Meta { .. } | Record::Skipped => {}
        }
        Ok(())
    }

    /// A log that exists at this point of the batch.
    fn draft(&mut self, id: LogId) -> Option<&mut Draft<'l, 'a>> {
        if !self.drafts.contains_key(&id) {
            let before = self.logs.logs.get(&id)?;
            self.drafts.insert(id, Draft::after(before));
        }
        self.drafts.get_mut(&id).filter(|draft| !draft.is_deleted)
    }

    fn create(&mut self, id: LogId, name: &str) -> Result<(), Failure> {
        if let Some(log) = self.draft(id) {
            log.name = Some(name.to_owned());
            return Ok(());
        }
        // Rows of the earlier log of that number may still be there.
        if id < self.next_log {
            return Err(Failure::Fatal(format!("log {id} was deleted and is created again")));
        }
        self.next_log = LogId(id.0.saturating_add(1));
        self.drafts.insert(id, Draft { name: Some(name.to_owned()), ..Draft::default() });
        Ok(())
    }

    fn publish(&mut self, publish: Publish<'a>) -> Result<(), Failure> {
        let seq = publish.seq.0;
        if seq > SEQ_MAX {
            return Err(Failure::Fatal(format!("position {seq} exceeds what a database counts")));
        }
        if let Some(log) = self.draft(publish.log) {
            log.fresh.entry(seq).or_insert(publish);
            log.next_seq = log.next_seq.max(seq + 1);
            log.floor = log.floor.min(seq);
        }
        Ok(())
    }
}

impl<'l, 'a> Draft<'l, 'a> {
    fn after(before: &'l LogCounts) -> Self {
        let LogCounts { next_seq, floor, has_holds, .. } = *before;
        Self { before: Some(before), next_seq, floor, has_holds, ..Self::default() }
    }

    /// Positions that earlier messages may have.
    fn earlier(&self) -> Option<(&'l LogCounts, u64, u64)> {
        let before = self.before.filter(|log| log.live_count > 0 && !self.is_emptied)?;
        Some((before, before.floor, before.next_seq.checked_sub(1)?))
    }

    fn remove(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        while let Some((&seq, _)) = self.fresh.range(first..=last).next() {
            self.fresh.remove(&seq);
        }
        while let Some((&seq, _)) = self.holds.range(first..=last).next() {
            self.holds.remove(&seq);
        }
        if let Some((before, lowest, highest)) = self.earlier() {
            let is_all = first <= lowest && last >= highest;
            if is_all && before.live_count >= REMOVED_LATER_MIN {
                self.is_emptied = true;
                self.removed.clear();
            } else {
                self.removed.insert(first.max(lowest), last.min(highest));
            }
        }
        if first <= self.floor {
            self.floor = self.floor.max(last.saturating_add(1).min(self.next_seq));
        }
    }

    /// A purge counts as a position that was given, so that numbers never come back.
    fn remove_below(&mut self, below: Seq) {
        let below = below.0.min(SEQ_MAX);
        self.next_seq = self.next_seq.max(below);
        if let Some(last) = below.checked_sub(1) {
            self.remove(0, last);
        }
    }

    fn hold(&mut self, seq: u64, hold: Hold) {
        let may_live = self.fresh.contains_key(&seq)
            || self.earlier().is_some_and(|(_, lowest, highest)| {
                (lowest..=highest).contains(&seq) && !self.removed.contains(seq)
            });
        if may_live {
            self.holds.insert(seq, hold);
            self.has_holds = true;
        }
    }

    fn finish(self, log: LogId, changes: &mut Changes<'a>) {
        let had_holds = self.before.is_some_and(|before| before.has_holds);
        let everything = LogRange { log, first: 0, last: SEQ_MAX };
        if self.is_deleted {
            let Some(before) = self.before else { return };
            changes.deleted.push(log);
            if before.live_count >= REMOVED_LATER_MIN {
                changes.garbage.push((log, SEQ_MAX));
            } else if before.live_count > 0 {
                changes.removed.push(everything);
            }
            changes.unheld.extend(had_holds.then_some(everything));
            return;
        }
        let (mut live_count, mut live_bytes) = match self.before {
            Some(before) if !self.is_emptied => (before.live_count, before.live_bytes),
            Some(_) | None => (0, 0),
        };
        live_count += self.fresh.len() as u64;
        for message in self.fresh.values() {
            live_bytes += (message.props.len() + message.body.len()) as u64;
        }
        if let Some(before) = self.before.filter(|_| self.is_emptied) {
            changes.garbage.push((log, before.next_seq));
            changes.unheld.extend(had_holds.then_some(everything));
        }
        for (first, last) in self.removed.iter() {
            let range = LogRange { log, first, last };
            changes.removed.push(range);
            changes.unheld.extend(had_holds.then_some(range));
        }
        let is_fresh = |seq: &u64| self.fresh.contains_key(seq);
        changes.holds.extend(self.holds.iter().map(|(seq, hold)| NewHold {
            log,
            seq: *seq,
            hold: *hold,
            is_fresh: is_fresh(seq),
        }));
        let kept_name = || self.before.map(|before| before.name.clone()).unwrap_or_default();
        let counts = LogCounts {
            name: self.name.clone().unwrap_or_else(kept_name),
            next_seq: self.next_seq,
            floor: self.floor,
            live_count,
            live_bytes,
            has_holds: self.has_holds,
        };
        changes.logs.push((log, counts));
        changes.messages.extend(self.fresh.into_values());
    }
}
