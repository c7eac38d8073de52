//! Where each record of a part stands, told without trusting the records: after damage the length
//! of a record says nothing any more, and a body may look like a record.
//!
//! A valid table has position and size of every record, so each place is exact. Without one the
//! lengths count, when all of them together lead to the end of the part.

use polymq_store::record::{Checks, HEADER_BYTES, aligned, publish_at};

use crate::{
    disk::DiskFile,
    format::{get32, get64},
    part::FilePart,
    segment::{Segments, table},
};

/// One record: from `offset` to `end`, counted from the first record of its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its position; `None` when only the record itself says it.
    pub(crate) seq: Option<u64>,
    pub(crate) offset: u64,
    pub(crate) end: u64,
}

/// The places of a part in order.
pub(crate) enum Places {
    Table(Layout),
    Lengths(std::vec::IntoIter<Place>),
}

impl Places {
    /// `None` when nobody can tell: the file is missing, or neither header nor table is its own.
    pub(crate) fn of(segments: &Segments, part: &FilePart) -> Option<Self> {
        if let Ok(bytes) = segments.table_bytes(part) {
            return Some(Self::Table(Layout::new(bytes, part.bytes)));
        }
        if !segments.has_own_header(part.file.number()) {
            return None;
        }
        let file = segments.open(part.file.number()).ok()?;
        let bytes = what_is_there(&*file, part);
        Some(Self::Lengths(by_lengths(&bytes, part).into_iter()))
    }
}

impl Iterator for Places {
    type Item = Place;

    fn next(&mut self) -> Option<Place> {
        match self {
            Self::Table(layout) => layout.next(),
            Self::Lengths(places) => places.next(),
        }
    }
}

/// The records of a part; zeros where the file has ended or cannot be read.
fn what_is_there(file: &dyn DiskFile, part: &FilePart) -> Vec<u8> {
    const PIECE: usize = 64 * 1024;
    let mut bytes = vec![0; usize::try_from(part.bytes).unwrap_or(0)];
    let len = file.byte_len().unwrap_or(0);
    let mut at = part.offset;
    for piece in bytes.chunks_mut(PIECE) {
        let there = len.saturating_sub(at).min(piece.len() as u64);
        let there = usize::try_from(there).unwrap_or(0);
        let _ = file.read_at(&mut piece[..there], at);
        at += piece.len() as u64;
    }
    bytes
}

/// Every record when the lengths lead to the end and count as many as were written; otherwise
/// the sound ones before the first that is not, and one place for the rest.
fn by_lengths(bytes: &[u8], part: &FilePart) -> Vec<Place> {
    let (mut places, mut at) = (Vec::new(), 0);
    let mut sound = None;
    while at < bytes.len() {
        let len = aligned(get32(bytes, at + 4) as usize);
        if len < HEADER_BYTES || len > bytes.len() - at {
            break;
        }
        if sound.is_none() && publish_at(bytes, at, Checks::Checksums).is_err() {
            sound = Some(places.len());
        }
        places.push(Place { seq: None, offset: at as u64, end: (at + len) as u64 });
        at += len;
    }
    if at != bytes.len() || places.len() as u64 != part.count {
        places.truncate(sound.unwrap_or(places.len()));
        let offset = places.last().map_or(0, |place| place.end);
        if offset < part.bytes {
            places.push(Place { seq: None, offset, end: part.bytes });
        }
    }
    places
}

/// Walks over a valid table.
pub(crate) struct Layout {
    bytes: Vec<u8>,
    /// Where the next entry stands, and where they end.
    entry: usize,
    runs: usize,
    runs_end: usize,
    next_seq: u64,
    /// What is left of the run: messages, and the size of their contents.
    left: u64,
    size: u64,
    part_bytes: u64,
    ahead: Option<(u64, u64, u64)>,
}

impl Layout {
    fn new(bytes: Vec<u8>, part_bytes: u64) -> Self {
        let runs = table::FIXED_BYTES + get32(&bytes, 12) as usize * table::ENTRY_BYTES;
        let runs_end = runs + get32(&bytes, 16) as usize;
        let entry = table::FIXED_BYTES;
        let (next_seq, left, size, ahead) = (0, 0, 0, None);
        let mut layout =
            Self { bytes, entry, runs, runs_end, next_seq, left, size, part_bytes, ahead };
        layout.ahead = layout.position(0);
        layout
    }

    /// Position, offset and size of the next record, which stands at `offset` unless the table
    /// has an entry for it.
    fn position(&mut self, offset: u64) -> Option<(u64, u64, u64)> {
        if self.left == 0 {
            let mut runs = self.bytes.get(self.runs..self.runs_end)?;
            let before = runs.len();
            let (gap, length) = (table::varint(&mut runs)?, table::varint(&mut runs)?);
            self.size = table::varint(&mut runs)?;
            self.runs += before - runs.len();
            self.next_seq = self.next_seq.checked_add(gap)?;
            self.left = length;
        }
        let seq = self.next_seq;
        self.next_seq = seq.checked_add(1)?;
        self.left = self.left.checked_sub(1)?;
        let is_entry = self.entry + table::ENTRY_BYTES <= self.bytes.len()
            && get64(&self.bytes, self.entry) == seq;
        if !is_entry {
            return Some((seq, offset, self.size));
        }
        let offset = get64(&self.bytes, self.entry + 8);
        self.entry += table::ENTRY_BYTES;
        Some((seq, offset, self.size))
    }
}

impl Iterator for Layout {
    type Item = Place;

    fn next(&mut self) -> Option<Place> {
        let (seq, offset, size) = self.ahead.take()?;
        let record = (HEADER_BYTES as u64).checked_add(size)?.checked_next_multiple_of(8)?;
        // A record so long that its header may be longer has an entry behind it, or nothing.
        self.ahead = self.position(offset.checked_add(record)?);
        let end = self.ahead.map_or(self.part_bytes, |(_, offset, _)| offset);
        let is_sound = offset < end && end <= self.part_bytes;
        is_sound.then_some(Place { seq: Some(seq), offset, end })
    }
}
