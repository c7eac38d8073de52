mod backup;
mod damage;
mod model;
mod power;
mod real;
mod repair;
mod segments;
mod space;
mod threads;

use std::sync::Arc;

use bytes::BytesMut;

use polymq_store::{Batch, BatchWriter, Epoch, OwnerId, ShardId};

use crate::{
    config::LogConfig,
    core::LogCore,
    error::Failure,
    sim::{SimClock, SimDisk},
};

/// Small files, so that a short run rolls, flushes and merges many times.
pub(super) const SMALL: LogConfig = LogConfig {
    wal_file_bytes: 32 * 1024,
    first_file_bytes: 16 * 1024,
    wal_records_max: 300,
    wal_files_kept: 0,
    wal_files_max: 4,
    segment_bytes: 48 * 1024,
    own_segment_bytes: 3 * 1024,
    garbage_bytes: 4 * 1024,
    alike_segments: 3,
    step_bytes: 4 * 1024,
    ballast_bytes: 64 * 1024,
    is_read_at_start: false,
    scrub_secs: 0,
    scrub_bytes_per_sec: 0,
};

/// The epoch `core` was opened with.
pub(super) fn epoch(core: &LogCore) -> Epoch {
    core.shared.lock().state.epoch()
}

pub(super) fn open(disk: &SimDisk) -> Result<LogCore, Failure> {
    LogCore::open(Arc::new(disk.clone()), Arc::new(SimClock), SMALL, OwnerId(7), &|_| {})
}

/// Commits the next batch of `core`.
pub(super) fn commit(core: &mut LogCore, write: impl FnOnce(&mut BatchWriter<'_>)) {
    let batch = batch(core, write);
    core.commit(&batch, polymq_store::Durability::Sync).unwrap();
}

/// The next batch of `core`.
pub(super) fn batch(core: &LogCore, write: impl FnOnce(&mut BatchWriter<'_>)) -> Batch {
    let number = core.last_batch().next();
    let (mut buf, mut records) = (BytesMut::new(), 0);
    write(&mut BatchWriter::new(number, &mut buf, &mut records));
    let epoch = epoch(core);
    Batch { shard: ShardId(0), epoch, number, records, payload: buf.freeze() }
}
