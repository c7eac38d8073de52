//! What the writer and the reader need of a database.

use std::time::Duration;

use bytes::Bytes;
use polymq_store::{
    CursorState, Epoch, Health, Hold, LogId, MessageRef, OpenedLog, OwnerId, Page, ReadLimit, Seq,
    ShardBatch, ShardId, StoredMessage,
};

use crate::{
    changes::Changes,
    failure::Failure,
    logs::{ShardLogs, Tally},
};

/// Messages of one read at most, whatever was asked: a page is a unit of work of the database.
pub(crate) const PAGE_MESSAGES_MAX: u32 = 4096;
/// Rows of one step of [`Database::sweep`].
pub(crate) const SWEEP_ROWS: i64 = 2000;

/// What is known after taking ownership.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) logs: ShardLogs,
    pub(crate) opened: Vec<OpenedLog>,
    pub(crate) metas: Vec<(String, u64, Bytes)>,
}

/// Where the shard stands in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) epoch: Epoch,
    pub(crate) last_batch: ShardBatch,
}

/// What became of a batch that was sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is kept; these messages went.
    Kept(Vec<Tally>),
    /// It is not the next batch of the epoch, and nothing was changed.
    NotNext,
}

/// A connection that owns a shard and writes to it. Every method but [`connect`](Self::connect)
/// answers [`Failure::Lost`] when there is no connection, and drops one that it no longer trusts.
pub(crate) trait Database: Send + 'static {
    /// Reads beside the writer.
    type Reader: Reader;

    /// Connects, brings the tables up to date and takes ownership.
    async fn open(&mut self, shard: ShardId, me: OwnerId) -> Result<Position, Failure>;
    /// Everything but messages; `epoch` is the one of this opening.
    async fn load(&mut self) -> Result<Loaded, Failure>;
    /// Makes a lost connection again.
    async fn connect(&mut self) -> Result<(), Failure>;
    fn is_connected(&self) -> bool;
    /// Writes a batch, all of it or nothing.
    async fn commit(&mut self, epoch: Epoch, changes: &Changes<'_>) -> Result<Sent, Failure>;
    async fn position(&mut self) -> Result<Position, Failure>;
    /// How long ownership lasts without a write; `None` when it cannot be taken away.
    fn lease(&self) -> Option<Duration>;
    /// Prolongs ownership; [`Failure::Fenced`] when it has ended.
    async fn renew(&mut self, epoch: Epoch) -> Result<(), Failure>;
    /// Removes some rows of `log` from `from` upwards and below `below`; answers where to go on,
    /// `None` when all are gone.
    async fn sweep(&mut self, log: LogId, from: i64, below: i64) -> Result<Option<i64>, Failure>;
    /// Why not everything is taken that could be written; `None` when all is.
    fn shortage(&self) -> Option<Health> {
        None
    }
    /// In which time it has something to tidy up; `None` when it has not.
    fn tidies_in(&self) -> Option<Duration> {
        None
    }
    /// Does a bounded piece of that.
    async fn tidy(&mut self) -> Result<(), Failure> {
        Ok(())
    }
    /// Gives ownership back and disconnects. Nothing depends on its success.
    async fn close(&mut self, epoch: Epoch);
    /// A reader of the same tables.
    fn reader(&self) -> Self::Reader;
}

/// Reads messages, any number of them at the same time.
pub(crate) trait Reader: Clone + Send + 'static {
    /// One page from `from` upwards.
    async fn read(&self, log: LogId, from: Seq, limit: ReadLimit) -> Result<Page, Failure>;
    async fn read_at(&self, messages: &[MessageRef]) -> Result<Vec<StoredMessage>, Failure>;
    /// `floor` and `next` bound what is looked at.
    async fn cursor(&self, log: LogId, floor: Seq, next: Seq) -> Result<CursorState, Failure>;
    async fn close(&self);
}

/// Positions and counts as a database has them: with a sign, which no position reaches.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The other way round. What we wrote has no sign.
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A number of a log or of a count, which both have 32 bits.
pub(crate) fn narrow(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Counts of a message as a row has them; the first is `None` where there are none.
pub(crate) fn hold(
    delivered: Option<i64>,
    acquired: Option<i64>,
    due: Option<i64>,
) -> Option<Hold> {
    Some(Hold {
        delivery_count: narrow(delivered?),
        acquired_count: narrow(acquired?),
        due_ms: due?.cast_unsigned(),
    })
}

/// Acknowledged ranges from the gaps between live messages.
///
/// `gaps` are the positions before and behind each gap, `lowest` and `highest` the live messages
/// at both ends.
pub(crate) fn cursor_state(
    next: Seq,
    ends: Option<(u64, u64)>,
    gaps: impl Iterator<Item = (u64, u64)>,
) -> CursorState {
    let Some((lowest, highest)) = ends else {
        return CursorState { floor: next, ..CursorState::default() };
    };
    let range = |(before, behind): (u64, u64)| {
        (Seq(before.saturating_add(1)), Seq(behind.saturating_sub(1)))
    };
    let mut acked: Vec<_> = gaps.map(range).collect();
    if highest.saturating_add(1) < next.0 {
        acked.push(range((highest, next.0)));
    }
    CursorState { floor: Seq(lowest), acked, held: Vec::new() }
}

/// How many of these messages, given as position and size, one page takes, and where the next
/// page begins.
pub(crate) fn fitting(sizes: &[(u64, u64)], limit: ReadLimit) -> (usize, Option<Seq>) {
    let messages_max = limit.messages_max.clamp(1, PAGE_MESSAGES_MAX) as usize;
    let mut bytes = 0_u64;
    for (count, (seq, size)) in sizes.iter().enumerate() {
        bytes = bytes.saturating_add(*size);
        if count > 0 && (bytes > limit.bytes_max || count >= messages_max) {
            return (count, Some(Seq(*seq)));
        }
    }
    (sizes.len(), None)
}

/// How many messages to look at for one page: one more than it may hold, to know where it ends.
pub(crate) fn looked_at(limit: ReadLimit) -> i64 {
    i64::from(limit.messages_max.clamp(1, PAGE_MESSAGES_MAX)) + 1
}
