//! A stretch of one log that no publish adds to any more: its messages stand in a file of the
//! write-ahead log, later in a segment. What is acknowledged of it is kept beside it.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use polymq_store::{
    Seq,
    state::{Index, Messages, Place},
};

use crate::{
    dead::Dead,
    format::{get32, get64},
    place::Loc,
    segment::SegFile,
};

/// The size that says that messages differ in size.
const MIXED: u32 = u32::MAX;
/// Bytes of a description before the positions that are dead.
const DESCRIPTION_BYTES: usize = 64;

/// Where the messages of a part are.
#[derive(Clone)]
pub(crate) enum Source {
    /// In the write-ahead log; this is the last file of it that holds any.
    Wal(u32, Arc<Index<Loc>>),
    /// In a segment.
    File(FilePart),
}

/// A run of records in a segment, ascending by position.
#[derive(Debug, Clone)]
pub(crate) struct FilePart {
    pub(crate) file: Arc<SegFile>,
    /// Where its records start, and their bytes.
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    /// Its table, which stands behind the records.
    pub(crate) table_bytes: u32,
    /// Messages that were written, dead or not, and the bytes of their properties and bodies.
    pub(crate) count: u64,
    pub(crate) content_bytes: u64,
    /// The size all contents have; `None` when they differ.
    pub(crate) uniform: Option<u32>,
}

pub(crate) struct Part {
    pub(crate) dead: Dead,
    pub(crate) source: Source,
    /// The bytes of what lives; too many while `is_stale`.
    pub(crate) live_bytes: u64,
    /// Something was acknowledged whose size nobody has looked up yet.
    pub(crate) is_stale: bool,
    /// The record at this offset has this position or a higher one, and none before it has.
    pub(crate) hint: Option<(u64, u64)>,
}

impl Part {
    /// What lives of an index that gets no more messages; `None` when nothing does.
    pub(crate) fn frozen(wal: u32, mut index: Index<Loc>) -> Option<Self> {
        index.shrink();
        let (first, last) = (index.first()?, index.last()?);
        let mut dead = Dead::new(first.0, last.0);
        for (from, to) in index.gaps(first, last) {
            dead.add(from.0, to.0);
        }
        let live_bytes = index.bytes();
        let source = Source::Wal(wal, Arc::new(index));
        Some(Self { dead, source, live_bytes, is_stale: false, hint: None })
    }

    pub(crate) fn first(&self) -> u64 {
        self.dead.first()
    }

    pub(crate) fn last(&self) -> u64 {
        self.dead.last()
    }

    /// True when its messages stand there.
    pub(crate) fn is_at(&self, place: &FilePart) -> bool {
        match &self.source {
            Source::Wal(..) => false,
            Source::File(part) => {
                part.file.number() == place.file.number() && part.offset == place.offset
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.dead.live_count() == 0
    }

    /// Roughly the bytes its live records take.
    pub(crate) fn record_bytes(&self) -> u64 {
        match &self.source {
            Source::Wal(..) => self.live_bytes + 40 * self.dead.live_count(),
            Source::File(part) => {
                let all = u128::from(part.bytes) + u128::from(part.table_bytes);
                let live = all * u128::from(self.dead.live_count()) / u128::from(part.count.max(1));
                u64::try_from(live).unwrap_or(u64::MAX)
            }
        }
    }

    pub(crate) fn remove(&mut self, first: u64, last: u64) {
        let before = self.dead.live_count();
        if let Source::Wal(_, index) = &self.source {
            let range = index.from(Seq(first.max(self.first())));
            for (seq, loc) in range.take_while(|(seq, _)| seq.0 <= last) {
                if !self.dead.contains(seq.0) {
                    self.live_bytes -= loc.content_bytes();
                }
            }
        }
        self.dead.add(first, last);
        if self.dead.live_count() != before {
            self.note_size();
        }
    }

    /// Says what lives now, as far as that can be told without reading.
    pub(crate) fn note_size(&mut self) {
        let Source::File(part) = &self.source else { return };
        match part.uniform {
            Some(size) => self.live_bytes = self.dead.live_count() * u64::from(size),
            None => self.is_stale = true,
        }
        if self.is_empty() {
            (self.live_bytes, self.is_stale) = (0, false);
        }
    }

    /// How [`Part::restored`] finds it again; only for parts in segments.
    pub(crate) fn describe(&self, out: &mut BytesMut) {
        let Source::File(part) = &self.source else { return };
        out.put_u32_le(part.file.number());
        out.put_u32_le(part.uniform.unwrap_or(MIXED));
        out.put_u64_le(part.file.bytes());
        out.put_u64_le(part.offset);
        out.put_u64_le(part.bytes);
        out.put_u64_le(part.count);
        out.put_u64_le(part.content_bytes);
        out.put_u64_le(self.live_bytes);
        out.put_u32_le(part.table_bytes);
        out.put_u32_le(u32::from(self.is_stale));
        self.dead.encode(out);
    }

    /// The reverse of [`describe`](Self::describe). Its file is one of its own for now.
    pub(crate) fn restored(first: u64, last: u64, description: &[u8]) -> Option<Self> {
        let (fixed, dead) = description.split_at_checked(DESCRIPTION_BYTES)?;
        let dead = Dead::decode(first, last, dead)?;
        let uniform = Some(get32(fixed, 4)).filter(|size| *size != MIXED);
        let part = FilePart {
            file: Arc::new(SegFile::new(get32(fixed, 0), get64(fixed, 8))),
            offset: get64(fixed, 16),
            bytes: get64(fixed, 24),
            count: get64(fixed, 32),
            content_bytes: get64(fixed, 40),
            table_bytes: get32(fixed, 56),
            uniform,
        };
        let is_stale = get32(fixed, 60) != 0;
        let live_bytes = get64(fixed, 48);
        Some(Self { dead, source: Source::File(part), live_bytes, is_stale, hint: None })
    }
}
