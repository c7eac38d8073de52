//! The table behind the records of a part: where they stand, and how large their contents are.

use polymq_store::record::crc32c;

use crate::{
    dead::Dead,
    error::Failure,
    format::{StoreUuid, get32, get64, put32},
    names::seg_name,
    part::FilePart,
    segment::Segments,
};

const MAGIC: u32 = u32::from_le_bytes(*b"PQTB");
pub(super) const FIXED_BYTES: usize = 24;
pub(super) const ENTRY_BYTES: usize = 16;
/// The distance of two entries in bytes of records.
const STEP_BYTES: u64 = 64 * 1024;

/// Positions and offsets, one per [`STEP_BYTES`].
#[derive(Debug)]
pub(crate) struct Table {
    entries: Vec<(u64, u64)>,
}

impl Table {
    /// The offset from which a message at `seq` or behind it is found.
    pub(crate) fn offset_of(&self, seq: u64) -> u64 {
        let behind = self.entries.partition_point(|(at, _)| *at <= seq);
        behind.checked_sub(1).and_then(|at| self.entries.get(at)).map_or(0, |(_, offset)| *offset)
    }
}

/// Collects a table while records are written.
#[derive(Default)]
pub(crate) struct TableBuilder {
    entries: Vec<u8>,
    next_entry: u64,
    runs: Vec<u8>,
    run: Option<Run>,
    /// The position behind the last run.
    next: u64,
}

struct Run {
    first: u64,
    length: u64,
    size: u32,
}

impl TableBuilder {
    /// Notes a record at `offset` from the first one.
    pub(crate) fn add(&mut self, seq: u64, offset: u64, size: u32) {
        if offset >= self.next_entry {
            self.entries.extend_from_slice(&seq.to_le_bytes());
            self.entries.extend_from_slice(&offset.to_le_bytes());
            self.next_entry = offset + STEP_BYTES;
        }
        if let Some(run) = &mut self.run
            && run.size == size
            && run.first + run.length == seq
        {
            run.length += 1;
            return;
        }
        self.end_run();
        self.run = Some(Run { first: seq, length: 1, size });
    }

    fn end_run(&mut self) {
        if let Some(run) = self.run.take() {
            put_varint(&mut self.runs, run.first - self.next);
            put_varint(&mut self.runs, run.length);
            put_varint(&mut self.runs, u64::from(run.size));
            self.next = run.first + run.length;
        }
    }

    pub(crate) fn finish(mut self, uuid: StoreUuid, log: u32, file: u32) -> Vec<u8> {
        self.end_run();
        let mut out = vec![0; FIXED_BYTES];
        put32(&mut out, 0, MAGIC);
        put32(&mut out, 4, log);
        put32(&mut out, 8, file);
        let entries = self.entries.len() / ENTRY_BYTES;
        put32(&mut out, 12, u32::try_from(entries).unwrap_or(u32::MAX));
        put32(&mut out, 16, u32::try_from(self.runs.len()).unwrap_or(u32::MAX));
        out.extend_from_slice(&self.entries);
        out.extend_from_slice(&self.runs);
        let crc = seeded_crc(uuid, &out);
        out.extend_from_slice(&crc.to_le_bytes());
        // Records behind a table start at multiples of 8 again.
        out.resize(out.len().next_multiple_of(8), 0);
        out
    }
}

fn seeded_crc(uuid: StoreUuid, bytes: &[u8]) -> u32 {
    crc32c(bytes) ^ crc32c(&uuid.0)
}

/// True when these bytes are the table of `part`.
pub(crate) fn is_valid(bytes: &[u8], uuid: StoreUuid, part: &FilePart) -> bool {
    let end = FIXED_BYTES + get32(bytes, 12) as usize * ENTRY_BYTES + get32(bytes, 16) as usize;
    get32(bytes, 0) == MAGIC
        && get32(bytes, 8) == part.file.number()
        && bytes.len() >= end + 4
        && seeded_crc(uuid, &bytes[..end]) == get32(bytes, end)
}

pub(crate) fn entries(bytes: &[u8]) -> Option<Table> {
    let count = get32(bytes, 12) as usize;
    let entries = bytes.get(FIXED_BYTES..FIXED_BYTES + count * ENTRY_BYTES)?;
    let pair = |entry: &[u8]| (get64(entry, 0), get64(entry, 8));
    Some(Table { entries: entries.chunks_exact(ENTRY_BYTES).map(pair).collect() })
}

/// The bytes of the contents of a part that are not dead.
pub(crate) fn live_bytes(
    segments: &Segments,
    part: &FilePart,
    dead: &Dead,
) -> Result<u64, Failure> {
    let bytes = segments.table_bytes(part)?;
    let start = FIXED_BYTES + get32(&bytes, 12) as usize * ENTRY_BYTES;
    let mut runs = &bytes[start..start + get32(&bytes, 16) as usize];
    let (mut total, mut next) = (0_u64, 0_u64);
    while !runs.is_empty() {
        let mut number = || varint(&mut runs).ok_or_else(|| damaged(part));
        let (gap, length, size) = (number()?, number()?, number()?);
        let first = next.saturating_add(gap);
        next = first.saturating_add(length);
        total = total.saturating_add(dead.live_in(first, next.saturating_sub(1)) * size);
    }
    Ok(total)
}

pub(crate) fn damaged(part: &FilePart) -> Failure {
    let name = seg_name(part.file.number());
    Failure::Damaged(format!("{name} has no valid table at byte {}", part.offset + part.bytes))
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
