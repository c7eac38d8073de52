//! What is kept in memory about the logs of the shard: a few numbers each, nothing per message.

use std::collections::BTreeMap;

use polymq_store::{Epoch, LogId, ShardBatch};

use crate::changes::Changes;

/// One log in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LogCounts {
    pub(crate) name: String,
    /// The lowest position that no message ever had.
    pub(crate) next_seq: u64,
    /// Nothing below is left; the lowest message may be higher.
    pub(crate) floor: u64,
    pub(crate) live_count: u64,
    pub(crate) live_bytes: u64,
    /// Whether a message of it may have counts.
    pub(crate) has_holds: bool,
}

/// All logs, and where the shard stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ShardLogs {
    pub(crate) epoch: Epoch,
    pub(crate) last_batch: ShardBatch,
    pub(crate) next_log: LogId,
    pub(crate) logs: BTreeMap<LogId, LogCounts>,
    /// Below which position rows of a log are still to be removed.
    pub(crate) garbage: BTreeMap<LogId, u64>,
}

/// Messages of one log that a batch removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) log: LogId,
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

impl ShardLogs {
    /// Takes over what a batch changed, once it is kept.
    pub(crate) fn apply(&mut self, changes: &Changes<'_>, removed: &[Tally]) {
        self.last_batch = changes.number;
        self.next_log = changes.next_log;
        for id in &changes.deleted {
            self.logs.remove(id);
        }
        for (id, counts) in &changes.logs {
            self.logs.insert(*id, counts.clone());
        }
        for tally in removed {
            if let Some(log) = self.logs.get_mut(&tally.log) {
                log.live_count = log.live_count.saturating_sub(tally.count);
                log.live_bytes = log.live_bytes.saturating_sub(tally.bytes);
            }
        }
        for (id, below) in &changes.garbage {
            self.garbage.insert(*id, *below);
        }
    }
}
