//! Where a live message stands on the disk: 24 bytes of memory with its position in the index.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc};

use polymq_store::{
    record::{ALIGNMENT, HEADER_BYTES},
    state::{Found, Place, ShardState},
};

use crate::disk::DiskFile;

const FLAG_SAME: u32 = 1;
const FLAG_LONG_PROPS: u32 = 2;

/// A record in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Loc {
    file: NonZeroU32,
    /// Offset of the record in units of [`ALIGNMENT`].
    unit: u32,
    /// Length of the PUB that holds the content, without padding.
    len: u32,
    flags: u32,
}

impl Loc {
    /// The place of `found`, when its payload starts at `payload_offset` of `file`.
    pub(crate) fn of(found: &Found<'_>, file: NonZeroU32, payload_offset: u64) -> Self {
        let offset = payload_offset + found.offset as u64;
        let content = found.publish.props.len() + found.publish.body.len();
        let is_long = HEADER_BYTES + content != found.content_len as usize;
        let mut flags = if is_long { FLAG_LONG_PROPS } else { 0 };
        if found.offset != found.content_offset {
            flags |= FLAG_SAME;
        }
        Self { file, unit: unit_of(offset), len: found.content_len, flags }
    }

    /// The place of a whole PUB of `len` bytes with the same content as `self`.
    pub(crate) fn moved(&self, file: NonZeroU32, offset: u64, len: u32) -> Self {
        Self { file, unit: unit_of(offset), len, flags: self.flags & !FLAG_SAME }
    }

    pub(crate) fn file(&self) -> u32 {
        self.file.get()
    }

    pub(crate) fn offset(&self) -> u64 {
        u64::from(self.unit) * ALIGNMENT as u64
    }

    pub(crate) fn content_len(&self) -> u32 {
        self.len
    }

    /// True when the record only points to another one of its batch.
    pub(crate) fn is_same(&self) -> bool {
        self.flags & FLAG_SAME != 0
    }
}

/// Files end far below 32 GiB: they hold one batch of at most 4 GiB, or 64 MiB.
fn unit_of(offset: u64) -> u32 {
    u32::try_from(offset / ALIGNMENT as u64).expect("log files are shorter than 32 GiB")
}

impl Place for Loc {
    fn content_bytes(&self) -> u64 {
        let prefix = if self.flags & FLAG_LONG_PROPS != 0 { 4 } else { 0 };
        u64::from(self.len) - HEADER_BYTES as u64 - prefix
    }
}

/// What readers and the writer share.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) state: ShardState<Loc>,
    pub(crate) files: HashMap<u32, Arc<dyn DiskFile>>,
}
