//! Where a message stands in the write-ahead log: 24 bytes of memory with its position, until it
//! is flushed.

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU32,
    sync::Arc,
};

use polymq_store::{
    record::{ALIGNMENT, HEADER_BYTES},
    state::{Found, Place, ShardState},
};

use crate::{damage::Damages, disk::DiskFile, messages::LogMessages, segment::Segments};

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

    pub(crate) fn file(&self) -> u32 {
        self.file.get()
    }

    pub(crate) fn offset(&self) -> u64 {
        u64::from(self.unit) * ALIGNMENT as u64
    }

    /// Where the record ends, with its padding, unless it only points to another one.
    pub(crate) fn end(&self) -> u64 {
        self.offset() + (u64::from(self.len)).next_multiple_of(ALIGNMENT as u64)
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

/// A file of the log before the one that is written to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WalFile {
    pub(crate) number: u32,
    pub(crate) bytes: u64,
    /// Where replay goes on behind it.
    pub(crate) end: WalEnd,
}

/// The last batch that counts before some point of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct WalEnd {
    pub(crate) wal_seq: u64,
    /// The checksum of its header.
    pub(crate) crc: u32,
    /// Its number within the shard.
    pub(crate) batch: u64,
}

/// What readers, the thread that writes and the one that flushes share.
pub(crate) struct Shared {
    pub(crate) state: ShardState<LogMessages>,
    /// The files of the log, by number.
    pub(crate) files: HashMap<u32, Arc<dyn DiskFile>>,
    /// Those that wait for being flushed, oldest first.
    pub(crate) sealed: VecDeque<WalFile>,
    pub(crate) segments: Arc<Segments>,
    pub(crate) damages: Arc<Damages>,
    /// The file with batches that are part of `state` and perhaps not of the disk.
    pub(crate) unsynced: Option<Arc<dyn DiskFile>>,
    /// The newest file of the log that is durable, with its header.
    pub(crate) durable_wal: u32,
    /// The last batch that was written, and the last one that is durable.
    pub(crate) written_seq: u64,
    pub(crate) durable_seq: u64,
    /// Why nothing can be written any more.
    pub(crate) failed: Option<String>,
    /// Flushing does not get on: waiting for it would be waiting for ever.
    pub(crate) is_stuck: bool,
}

impl Shared {
    pub(crate) fn new(segments: Arc<Segments>, damages: Arc<Damages>) -> Self {
        Self {
            state: ShardState::default(),
            files: HashMap::new(),
            sealed: VecDeque::new(),
            segments,
            damages,
            unsynced: None,
            durable_wal: 0,
            written_seq: 0,
            durable_seq: 0,
            failed: None,
            is_stuck: false,
        }
    }

    /// Closes file `wal` of the log: what lives in it gets no company any more.
    pub(crate) fn freeze(&mut self, file: WalFile) {
        for (_, log) in self.state.logs_mut() {
            log.messages_mut().freeze(file.number);
        }
        self.sealed.push_back(file);
    }

    /// The bytes of log files that wait for being flushed.
    pub(crate) fn sealed_bytes(&self) -> u64 {
        self.sealed.iter().map(|file| file.bytes).sum()
    }
}
