//! New files for the log.

use std::{num::NonZeroU32, sync::Arc};

use crate::{
    core::Home,
    disk::DiskFile,
    error::{Failure, fatal_at, io_at},
    names::{WAL_DIR, wal_name},
};

/// An empty file with zeros, synced with its directory entry.
pub(crate) struct Prepared {
    pub(crate) number: NonZeroU32,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) bytes: u64,
}

/// How a new file gets its space.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Written once, so that a sync of data later has no metadata to write.
    Zeros,
    /// Only reserved: at once, but each sync is slower.
    Reserved,
}

/// Creates a file of the log; nothing is left behind when there is no room.
pub(crate) fn prepare(
    home: &Home,
    number: NonZeroU32,
    bytes: u64,
    fill: Fill,
    stop: &dyn Fn() -> bool,
) -> Result<Prepared, Failure> {
    let name = wal_name(number.get());
    let doing = "preparing a log file";
    let file = home.disk.create(&name).map_err(io_at(doing))?;
    let filled = file.allocate(bytes).map_err(io_at(doing)).and_then(|()| match fill {
        Fill::Zeros => write_zeros(&*file, bytes, stop),
        Fill::Reserved => Ok(()),
    });
    if let Err(failure) = filled {
        // What stays behind is blank and goes at the next start.
        let _ = home.disk.remove(&name);
        return Err(failure);
    }
    file.sync_all().map_err(fatal_at(doing))?;
    home.disk.sync_dir(WAL_DIR).map_err(fatal_at(doing))?;
    Ok(Prepared { number, file, bytes })
}

/// Syncs every few MiB, so that a batch that is synced meanwhile does not queue behind it all.
fn write_zeros(file: &dyn DiskFile, bytes: u64, stop: &dyn Fn() -> bool) -> Result<(), Failure> {
    const CHUNK: u64 = 1024 * 1024;
    let zeros = vec![0; usize::try_from(CHUNK.min(bytes)).unwrap_or(0)];
    let mut at = 0;
    while at < bytes {
        if stop() {
            return Err(Failure::Closed);
        }
        let len = CHUNK.min(bytes - at);
        let part = &zeros[..usize::try_from(len).unwrap_or(0)];
        file.write_at(&[part], at).map_err(io_at("preparing a log file"))?;
        at += len;
        if at % (4 * CHUNK) == 0 {
            file.sync_data().map_err(fatal_at("preparing a log file"))?;
        }
    }
    Ok(())
}
