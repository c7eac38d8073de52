mod damage;
mod model;
mod power;
mod real;
mod space;

use std::sync::Arc;

use polymq_store::OwnerId;

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
