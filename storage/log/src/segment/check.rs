//! Looking at every record of a part, and telling exactly what of it is damaged.

use bytes::{Bytes, BytesMut};

use polymq_store::{
    LogId,
    record::{Checks, aligned, publish_at},
};

use crate::{
    disk::DiskFile,
    error::Failure,
    part::FilePart,
    segment::{
        Segments, Visit,
        places::{Place, Places},
    },
};

/// About what is read at once.
const READ_BYTES: u64 = 256 * 1024;

/// Records that are not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bad {
    /// The positions they may have, both included.
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Where they stand, from the first record of their part.
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

impl Bad {
    /// All of a part.
    pub(crate) fn whole(part: &FilePart) -> Self {
        Self { first: 0, last: u64::MAX, offset: 0, bytes: part.bytes }
    }
}

/// What stands at one place or several.
pub(crate) enum Checked<'a> {
    Good(&'a Visit<'a>),
    Bad(Bad),
}

/// Where a message stands.
pub(crate) enum Found {
    /// It is sound, so far from the first record of its part.
    At(u64),
    Bad(Bad),
}

/// Visits every record of `part`, sound or not, in order, until `visit` fails. What the table puts
/// before position `from` is not looked at.
pub(crate) fn check(
    segments: &Segments,
    part: &FilePart,
    log: LogId,
    from: u64,
    mut visit: impl FnMut(Checked<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let all = Bad::whole(part);
    let Some(places) = Places::of(segments, part) else { return visit(Checked::Bad(all)) };
    let Ok(file) = segments.open(part.file.number()) else { return visit(Checked::Bad(all)) };
    let mut reader = Reader { file: &*file, part, start: 0, chunk: Bytes::new() };
    let (mut bad, mut next, mut end): (Option<Bad>, u64, u64) = (None, 0, 0);
    for place in places {
        end = place.end;
        if place.seq.is_some_and(|seq| seq < from) {
            continue;
        }
        let at = reader.at(&place);
        let found = at.and_then(|at| {
            let (len, publish) = publish_at(&reader.chunk, at, Checks::Checksums).ok()?;
            let len = aligned(len as usize);
            let is_it = publish.log == log
                && place.seq.is_none_or(|seq| seq == publish.seq.0)
                && publish.seq.0 >= next
                && len as u64 == place.end - place.offset;
            let offset = place.offset;
            is_it.then_some(Visit { chunk: &reader.chunk, at, len, offset, publish })
        });
        match found {
            Some(found) => {
                let seq = found.publish.seq.0;
                if let Some(bad) = bad.take() {
                    let last = if place.seq.is_some() { bad.last } else { seq.saturating_sub(1) };
                    visit(Checked::Bad(Bad { last, ..bad }))?;
                }
                next = seq.saturating_add(1);
                visit(Checked::Good(&found))?;
            }
            None => {
                let first = place.seq.unwrap_or(next);
                let new = Bad { first, last: first, offset: place.offset, bytes: 0 };
                let bad = bad.get_or_insert(new);
                bad.last = place.seq.unwrap_or(u64::MAX);
                bad.bytes = place.end - bad.offset;
            }
        }
    }
    if end < part.bytes {
        let (offset, bytes) = (end, part.bytes - end);
        let rest = bad.get_or_insert(Bad { first: next, last: u64::MAX, offset, bytes });
        (rest.last, rest.bytes) = (u64::MAX, part.bytes - rest.offset);
    }
    bad.map_or(Ok(()), |bad| visit(Checked::Bad(bad)))
}

/// Looks for the message at `seq` by the table alone, and how far the damage goes when it is not
/// readable.
pub(crate) fn find(segments: &Segments, part: &FilePart, log: LogId, seq: u64) -> Found {
    let unknown = Bad { first: seq, last: seq, offset: 0, bytes: 0 };
    let mut found = Found::Bad(unknown);
    // What is visited behind the answer ends the walk.
    let _ = check(segments, part, log, seq, |checked| {
        let done = Err(Failure::Closed);
        match checked {
            Checked::Good(visit) if visit.publish.seq.0 < seq => Ok(()),
            Checked::Good(visit) => {
                if visit.publish.seq.0 == seq {
                    found = Found::At(visit.offset);
                }
                done
            }
            Checked::Bad(bad) if bad.last < seq => Ok(()),
            Checked::Bad(bad) if bad.first <= seq => {
                found = Found::Bad(bad);
                done
            }
            Checked::Bad(_) => done,
        }
    });
    found
}

/// Reads many records at once.
struct Reader<'a> {
    file: &'a dyn DiskFile,
    part: &'a FilePart,
    start: u64,
    chunk: Bytes,
}

impl Reader<'_> {
    /// Where the record at `place` stands in the chunk; `None` when it cannot be read.
    fn at(&mut self, place: &Place) -> Option<usize> {
        let chunk_end = self.start + self.chunk.len() as u64;
        if place.offset < self.start || place.end > chunk_end {
            let least = place.end - place.offset;
            let most = (self.part.bytes - place.offset).min(READ_BYTES.max(least));
            self.chunk = match self.read(place.offset, most) {
                Some(chunk) => chunk,
                // The next one may be readable.
                None => self.read(place.offset, least)?,
            };
            self.start = place.offset;
        }
        usize::try_from(place.offset - self.start).ok()
    }

    fn read(&self, offset: u64, len: u64) -> Option<Bytes> {
        let mut chunk = BytesMut::zeroed(usize::try_from(len).ok()?);
        self.file.read_at(&mut chunk, self.part.offset + offset).ok()?;
        Some(chunk.freeze())
    }
}
