//! Writing past the page cache, for batches that are synced right behind.
//!
//! A small write that is synced at once costs half the processor time so, because nothing is
//! copied into the cache, marked and searched for again by the sync.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    sync::OnceLock,
};

use parking_lot::Mutex;
use rustix::fs::OFlags;

/// What offset, length and memory must be multiples of on every disk in use.
const ALIGNMENT: usize = 4096;
/// Longer writes are better off in the cache, from which they are read again when they are flushed.
const BYTES_MAX: usize = 64 * 1024;

/// A second way into an open file.
#[derive(Default)]
pub(crate) struct Direct {
    /// `None` inside when the file system has no such way.
    file: OnceLock<Option<File>>,
    buffer: Mutex<Vec<u8>>,
}

impl Direct {
    /// Writes `parts` from `offset` into `file`. False when nothing was written because it does
    /// not go this way.
    pub(crate) fn write(&self, file: &File, parts: &[&[u8]], offset: u64) -> io::Result<bool> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let is_aligned = len.is_multiple_of(ALIGNMENT) && offset.is_multiple_of(ALIGNMENT as u64);
        if len == 0 || len > BYTES_MAX || !is_aligned {
            return Ok(false);
        }
        let Some(direct) = self.file.get_or_init(|| reopen(file).ok()) else { return Ok(false) };
        let mut buffer = self.buffer.lock();
        buffer.resize(BYTES_MAX + ALIGNMENT, 0);
        let start = buffer.as_ptr().align_offset(ALIGNMENT);
        let Some(target) = buffer.get_mut(start..start.saturating_add(len)) else {
            return Ok(false);
        };
        let mut rest = &mut *target;
        for part in parts {
            let (filled, later) = rest.split_at_mut(part.len());
            filled.copy_from_slice(part);
            rest = later;
        }
        match direct.write_all_at(target, offset) {
            // The disk wants another alignment than every one we know.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(false),
            written => written.map(|()| true),
        }
    }
}

/// Opens the same file again, whatever it is called by now.
fn reopen(file: &File) -> io::Result<File> {
    let direct = i32::try_from(OFlags::DIRECT.bits()).map_err(io::Error::other)?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    OpenOptions::new().write(true).custom_flags(direct).open(path)
}
