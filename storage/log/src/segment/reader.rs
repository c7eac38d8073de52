//! Reading the records of a part in order: many of them with one read of the file.

use bytes::{Bytes, BytesMut};

use polymq_store::record::{Checks, HEADER_BYTES, Publish, aligned, publish_at};

use crate::{
    disk::DiskFile,
    error::Failure,
    format::{get32, get64},
    names::seg_name,
    part::FilePart,
    segment::Segments,
};

const READ_BYTES_MIN: u64 = 4 * 1024;
const READ_BYTES_MAX: u64 = 1024 * 1024;
/// Parts shorter than this are read from their first record on, without their table.
const SHORT_BYTES: u64 = 64 * 1024;

/// A hint that many positions before the start is as good as the table.
const NEAR: u64 = 256;

/// Where to start.
pub(crate) struct Start {
    pub(crate) seq: u64,
    /// A position and its offset that an earlier walk ended at.
    pub(crate) hint: Option<(u64, u64)>,
}

/// A record that was read.
pub(crate) struct Visit<'a> {
    /// What was read with it, and where in it the record stands.
    pub(crate) chunk: &'a Bytes,
    pub(crate) at: usize,
    /// Its bytes with padding.
    pub(crate) len: usize,
    /// Where it stands in its part.
    pub(crate) offset: u64,
    pub(crate) publish: Publish<'a>,
}

/// Reads once, as much as holds about `messages` messages, and visits the whole records that are
/// at `start` or behind it, until `visit` says false.
///
/// Returns where the next walk may start, `None` at the end of the part. Records before `start`
/// are skipped without a check, and a damaged one ends a walk that has visited some.
///
/// Errors: [`Failure::Damaged`] when the first record that is wanted is not what was written.
pub(crate) fn walk(
    segments: &Segments,
    part: &FilePart,
    start: &Start,
    messages: u64,
    mut visit: impl FnMut(&Visit<'_>) -> Result<bool, Failure>,
) -> Result<Option<(u64, u64)>, Failure> {
    let file = segments.open_part(part)?;
    let mut offset = offset_of(segments, part, start)?;
    let average = part.bytes / part.count.max(1) + 1;
    let mut wanted = average.saturating_mul(messages).clamp(READ_BYTES_MIN, READ_BYTES_MAX);
    let mut next_seq = start.seq;
    let mut is_any = false;
    while offset < part.bytes && !is_any {
        let len = usize::try_from(wanted.min(part.bytes - offset)).unwrap_or(0);
        let bad = |at: u64| damaged(part, part.offset + offset + at);
        let at = part.offset + offset;
        let chunk = bytes_at(&*file, at, len).or_else(|| record_at(&*file, at, len));
        let chunk = chunk.ok_or_else(|| bad(0))?;
        if chunk.len() < HEADER_BYTES {
            return Err(bad(0));
        }
        let mut at = 0;
        while at + HEADER_BYTES <= chunk.len() {
            let record = aligned(get32(&chunk, at + 4) as usize);
            if record < HEADER_BYTES || record as u64 > part.bytes - offset - at as u64 {
                let rest = (next_seq, offset + at as u64);
                return if is_any { Ok(Some(rest)) } else { Err(bad(at as u64)) };
            }
            if at + record > chunk.len() {
                wanted = wanted.max(record as u64);
                break;
            }
            let seq = get64(&chunk, at + 16);
            // Behind the first one that is wanted nothing is skipped unchecked.
            if is_any || seq >= start.seq {
                let offset = offset + at as u64;
                let publish = match publish_at(&chunk, at, Checks::Checksums) {
                    Ok((_, publish)) => publish,
                    // The next walk finds out whether anybody wants this one.
                    Err(_) if is_any => return Ok(Some((next_seq, offset))),
                    Err(_) => return Err(bad(at as u64)),
                };
                if !visit(&Visit { chunk: &chunk, at, len: record, offset, publish })? {
                    return Ok(Some((seq, offset)));
                }
                is_any = true;
            }
            next_seq = seq.saturating_add(1);
            at += record;
        }
        offset += at as u64;
    }
    Ok((offset < part.bytes).then_some((next_seq, offset)))
}

fn bytes_at(file: &dyn DiskFile, offset: u64, len: usize) -> Option<Bytes> {
    let mut bytes = BytesMut::zeroed(len);
    file.read_at(&mut bytes, offset).ok()?;
    Some(bytes.freeze())
}

/// The record at `offset` alone: when many cannot be read together, because the file was cut or a
/// sector is bad, this one may be readable.
fn record_at(file: &dyn DiskFile, offset: u64, len_max: usize) -> Option<Bytes> {
    let header = bytes_at(file, offset, HEADER_BYTES)?;
    let len = aligned(get32(&header, 4) as usize);
    if len > len_max { None } else { bytes_at(file, offset, len) }
}

fn offset_of(segments: &Segments, part: &FilePart, start: &Start) -> Result<u64, Failure> {
    let hint = start.hint.filter(|(seq, offset)| *seq <= start.seq && *offset <= part.bytes);
    if let Some((seq, offset)) = hint
        && start.seq - seq < NEAR
    {
        return Ok(offset);
    }
    if part.bytes <= SHORT_BYTES {
        return Ok(0);
    }
    let known = segments.table(part)?.offset_of(start.seq);
    // Acknowledged messages were skipped: the hint may still be nearer.
    Ok(hint.map_or(known, |(_, offset)| offset.max(known)))
}

fn damaged(part: &FilePart, offset: u64) -> Failure {
    let name = seg_name(part.file.number());
    Failure::Damaged(format!("{name} is not readable at byte {offset}"))
}
