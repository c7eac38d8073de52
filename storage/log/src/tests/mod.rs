mod damage;
mod model;
mod power;
mod real;
mod space;

use std::sync::Arc;

use bytes::BytesMut;

use polymq_store::{Batch, BatchWriter, Epoch, OwnerId, ShardId};

use crate::{
    core::{LogConfig, LogCore},
    error::Failure,
    sim::{SimClock, SimDisk},
};

/// Small files, so that a short run rolls and rewrites many times.
pub(super) const SMALL: LogConfig = LogConfig {
    wal_file_bytes: 32 * 1024,
    first_file_bytes: 16 * 1024,
    rewrite_above_bytes: 96 * 1024,
    rewrite_step_bytes: 4 * 1024,
};

pub(super) fn open(disk: &SimDisk) -> Result<LogCore, Failure> {
    LogCore::open(Arc::new(disk.clone()), Arc::new(SimClock), SMALL, OwnerId(7), &|_| {})
}

/// Commits the next batch of `core`.
pub(super) fn commit(core: &mut LogCore, write: impl FnOnce(&mut BatchWriter<'_>)) {
    let number = core.last_batch().next();
    let (mut buf, mut records) = (BytesMut::new(), 0);
    write(&mut BatchWriter::new(number, &mut buf, &mut records));
    let epoch = Epoch(core.manifest.epoch);
    let batch = Batch { shard: ShardId(0), epoch, number, records, payload: buf.freeze() };
    core.commit(&batch).unwrap();
}
