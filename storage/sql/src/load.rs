//! Reading everything but messages: the same statements for both databases.

use std::collections::BTreeMap;

use bytes::Bytes;
use polymq_store::{Epoch, LogId, OpenedLog, Seq, ShardBatch};

use crate::{
    database::{Loaded, narrow, unsigned},
    failure::Failure,
    logs::{LogCounts, ShardLogs},
};

pub(crate) const SHARD: &str = "SELECT epoch, last_batch, next_log FROM pmq_shard WHERE shard = $1";
/// The lowest message is found in the index, at most one step for each log.
pub(crate) const LOGS: &str = "
SELECT log_id, name, next_seq, floor, live_count, live_bytes,
       EXISTS (SELECT 1 FROM pmq_hold h WHERE h.log_id = l.log_id),
       CASE WHEN live_count > 0 THEN (SELECT min(seq) FROM pmq_msg m
            WHERE m.log_id = l.log_id AND m.seq >= l.floor) END
FROM pmq_log l WHERE shard = $1";
pub(crate) const GARBAGE: &str = "SELECT log_id, below FROM pmq_garbage";
pub(crate) const METAS: &str = "SELECT key, version, value FROM pmq_meta";

type LogRow = (i64, String, i64, i64, i64, i64, bool, Option<i64>);

/// The rows of the tables, as they came.
pub(crate) struct Rows {
    pub(crate) shard: (i64, i64, i64),
    pub(crate) logs: Vec<LogRow>,
    pub(crate) garbage: Vec<(i64, i64)>,
    pub(crate) metas: Vec<(Vec<u8>, i64, Vec<u8>)>,
}

impl Rows {
    /// Errors: [`Failure::Damaged`] when a key is no text.
    pub(crate) fn loaded(self) -> Result<Loaded, Failure> {
        let (epoch, last_batch, next_log) = self.shard;
        let mut loaded = Loaded {
            logs: ShardLogs {
                epoch: Epoch(unsigned(epoch)),
                last_batch: ShardBatch(unsigned(last_batch)),
                next_log: LogId(narrow(next_log)),
                ..ShardLogs::default()
            },
            ..Loaded::default()
        };
        for (id, name, next_seq, floor, count, bytes, has_holds, lowest) in self.logs {
            let counts = LogCounts {
                name,
                next_seq: unsigned(next_seq),
                floor: unsigned(floor),
                live_count: unsigned(count),
                live_bytes: unsigned(bytes),
                has_holds,
            };
            let id = LogId(narrow(id));
            loaded.opened.push(opened(id, &counts, lowest));
            loaded.logs.logs.insert(id, counts);
        }
        loaded.opened.sort_by_key(|log| log.id);
        let garbage = self.garbage.into_iter();
        loaded.logs.garbage =
            garbage.map(|(id, below)| (LogId(narrow(id)), unsigned(below))).collect();
        let mut metas = BTreeMap::new();
        for (key, version, value) in self.metas {
            let key = String::from_utf8(key)
                .map_err(|_| Failure::Damaged("a key in pmq_meta is not UTF-8".to_owned()))?;
            metas.insert(key, (version.cast_unsigned(), Bytes::from(value)));
        }
        loaded.metas =
            metas.into_iter().map(|(key, (version, value))| (key, version, value)).collect();
        Ok(loaded)
    }
}

/// A log as it is told to the broker; `lowest` is the position of its first message.
fn opened(id: LogId, counts: &LogCounts, lowest: Option<i64>) -> OpenedLog {
    OpenedLog {
        id,
        name: counts.name.clone(),
        next_seq: Seq(counts.next_seq),
        floor: lowest.map_or(Seq(counts.next_seq), |lowest| Seq(unsigned(lowest))),
        live_count: counts.live_count,
        live_bytes: counts.live_bytes,
    }
}
