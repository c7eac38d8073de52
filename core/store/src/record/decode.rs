//! Reading records. Whatever the bytes are, this answers; it never panics.

use super::{
    FLAG_DELETED, FLAG_DEPENDED_ON, FLAG_LONG_PROPS, FLAG_MUST_UNDERSTAND, FLAGS_OF_PUBLISHER,
    HEADER_BYTES, aligned, crc32c, kind,
};
use crate::{CursorId, Epoch, Held, Hold, LogId, Seq};

/// Bytes that are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no valid record at byte {offset}: {what}")]
pub struct RecordError {
    /// Where the record would start.
    pub offset: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// Whether the checksum of each record is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checks {
    /// The bytes come from a disk or from a peer.
    Checksums,
    /// The bytes were encoded by this process just now.
    LengthsOnly,
}

/// A message with its properties and body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Its log.
    pub log: LogId,
    /// Its position.
    pub seq: Seq,
    /// When it expires, in milliseconds since 1970; 0 for never.
    pub expiry_ms: u64,
    /// The flags of the publisher.
    pub flags: u8,
    /// Something else in the batch depends on it.
    pub is_depended_on: bool,
    /// Its properties.
    pub props: &'a [u8],
    /// Its body.
    pub body: &'a [u8],
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// A message.
    Publish(Publish<'a>),
    /// A message whose content is that of the PUB at `first` in the same batch.
    PublishSame {
        /// Its log.
        log: LogId,
        /// Its position.
        seq: Seq,
        /// When it expires.
        expiry_ms: u64,
        /// Offset of the PUB from the start of the batch.
        first: u32,
        /// Offset of this record from the start of the batch.
        own: u32,
        /// Something else in the batch depends on it.
        is_depended_on: bool,
    },
    /// Acknowledged ranges.
    Ack {
        /// The log.
        log: LogId,
        /// Who acknowledged; 0 for the log's own cursor.
        cursor: CursorId,
        /// The ranges, both ends included.
        ranges: Ranges<'a>,
    },
    /// Counts and due times.
    Hold {
        /// The log.
        log: LogId,
        /// Who holds; 0 for the log's own cursor.
        cursor: CursorId,
        /// The messages.
        entries: HeldEntries<'a>,
    },
    /// Everything below `floor` is acknowledged.
    Floor {
        /// The log.
        log: LogId,
        /// Who acknowledged; 0 for the log's own cursor.
        cursor: CursorId,
        /// The lowest position that is not.
        floor: Seq,
    },
    /// Everything below is removed.
    Purge {
        /// The log.
        log: LogId,
        /// The lowest position that stays.
        below: Seq,
    },
    /// A log begins.
    LogCreate {
        /// The log.
        log: LogId,
        /// Its name.
        name: &'a str,
    },
    /// A log ends.
    LogDelete {
        /// The log.
        log: LogId,
    },
    /// A definition; no value means deleted.
    Meta {
        /// Its key.
        key: &'a str,
        /// Its version; 0 for the number of the batch.
        version: u64,
        /// Its value.
        value: Option<&'a [u8]>,
    },
    /// A new epoch.
    Fence {
        /// The epoch.
        epoch: Epoch,
    },
    /// Where a log stood when its live messages were rewritten.
    Checkpoint {
        /// The log.
        log: LogId,
        /// The lowest position no message ever had.
        next_seq: Seq,
        /// Everything below is gone.
        floor: Seq,
    },
    /// Messages that an engine keeps elsewhere.
    Engine {
        /// The log.
        log: LogId,
        /// The first position.
        first: Seq,
        /// The last position.
        last: Seq,
        /// Where they are; only the engine knows how to read it.
        description: &'a [u8],
    },
    /// A type this reader does not know and may skip.
    Skipped,
}

/// Acknowledged ranges of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranges<'a>(&'a [u8]);

impl Iterator for Ranges<'_> {
    type Item = (Seq, Seq);

    fn next(&mut self) -> Option<(Seq, Seq)> {
        let (entry, rest) = self.0.split_first_chunk::<16>()?;
        self.0 = rest;
        Some((Seq(u64_at(entry, 0)?), Seq(u64_at(entry, 8)?)))
    }
}

/// Held messages of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldEntries<'a>(&'a [u8]);

impl Iterator for HeldEntries<'_> {
    type Item = Held;

    fn next(&mut self) -> Option<Held> {
        let (entry, rest) = self.0.split_first_chunk::<24>()?;
        self.0 = rest;
        Some(Held {
            seq: Seq(u64_at(entry, 0)?),
            hold: Hold {
                delivery_count: u32_at(entry, 8)?,
                acquired_count: u32_at(entry, 12)?,
                due_ms: u64_at(entry, 16)?,
            },
        })
    }
}

/// Walks over the records of a payload; ends after the first error.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    payload: &'a [u8],
    offset: usize,
    checks: Checks,
}

/// One record and where it stands.
type Located<'a> = (usize, u32, Record<'a>);

impl<'a> Records<'a> {
    /// Starts at the first record of `payload`.
    pub fn new(payload: &'a [u8], checks: Checks) -> Self {
        Self { payload, offset: 0, checks }
    }

    /// Where the next record starts, or the bad one after an error.
    pub fn offset(&self) -> usize {
        self.offset
    }
}

impl<'a> Iterator for Records<'a> {
    /// Offset, length without padding, and content.
    type Item = Result<Located<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.payload.get(self.offset..)?;
        if rest.is_empty() {
            return None;
        }
        let offset = self.offset;
        match split(rest, self.checks).and_then(|raw| Ok((raw.len, typed(&raw)?))) {
            Ok((len, record)) => {
                self.offset = offset.saturating_add(aligned(len as usize));
                Some(Ok((offset, len, record)))
            }
            Err(what) => {
                self.payload = &[];
                Some(Err(RecordError { offset, what }))
            }
        }
    }
}

/// Reads the PUB at `offset` of `payload`.
///
/// Errors: when no valid PUB stands there.
pub fn publish_at(
    payload: &[u8],
    offset: usize,
    checks: Checks,
) -> Result<(u32, Publish<'_>), RecordError> {
    let fail = |what| RecordError { offset, what };
    let rest = payload.get(offset..).ok_or_else(|| fail("the offset is behind the end"))?;
    let raw = split(rest, checks).map_err(fail)?;
    match typed(&raw).map_err(fail)? {
        Record::Publish(publish) => Ok((raw.len, publish)),
        _ => Err(fail("the record is not a message")),
    }
}

struct Raw<'a> {
    len: u32,
    kind: u8,
    flags: u8,
    log: LogId,
    seq: u64,
    aux: u64,
    props: &'a [u8],
    body: &'a [u8],
}

fn split(rest: &[u8], checks: Checks) -> Result<Raw<'_>, &'static str> {
    const SHORT: &str = "the header is cut";
    let crc = u32_at(rest, 0).ok_or(SHORT)?;
    let len = u32_at(rest, 4).ok_or(SHORT)?;
    let whole = rest.get(..len as usize).ok_or("the length exceeds the payload")?;
    if whole.len() < HEADER_BYTES {
        return Err("the length is shorter than a header");
    }
    if aligned(whole.len()) > rest.len() {
        return Err("the padding is cut");
    }
    if checks == Checks::Checksums && crc32c(&whole[4..]) != crc {
        return Err("the checksum differs");
    }
    let flags = whole[9];
    let mut content = &whole[HEADER_BYTES..];
    let mut props_len = usize::from(u16::from_le_bytes([whole[10], whole[11]]));
    if flags & FLAG_LONG_PROPS != 0 {
        props_len = u32_at(content, 0).ok_or("the long length is cut")? as usize;
        content = &content[4..];
    }
    if props_len > content.len() {
        return Err("the properties exceed the record");
    }
    let (props, body) = content.split_at(props_len);
    Ok(Raw {
        len,
        kind: whole[8],
        flags,
        log: LogId(u32_at(whole, 12).ok_or(SHORT)?),
        seq: u64_at(whole, 16).ok_or(SHORT)?,
        aux: u64_at(whole, 24).ok_or(SHORT)?,
        props,
        body,
    })
}

fn typed<'a>(raw: &Raw<'a>) -> Result<Record<'a>, &'static str> {
    let (log, seq, aux) = (raw.log, Seq(raw.seq), raw.aux);
    Ok(match raw.kind {
        kind::PUB => Record::Publish(Publish {
            log,
            seq,
            expiry_ms: aux,
            flags: raw.flags & FLAGS_OF_PUBLISHER,
            is_depended_on: raw.flags & FLAG_DEPENDED_ON != 0,
            props: raw.props,
            body: raw.body,
        }),
        kind::PUBSAME => Record::PublishSame {
            log,
            seq,
            expiry_ms: aux,
            first: u32_at(raw.props, 0).ok_or("the offset of the body is cut")?,
            own: u32_at(raw.props, 4).ok_or("the offset of the record is cut")?,
            is_depended_on: raw.flags & FLAG_DEPENDED_ON != 0,
        },
        kind::ACK if raw.body.len().is_multiple_of(16) => {
            Record::Ack { log, cursor: CursorId(aux), ranges: Ranges(raw.body) }
        }
        kind::ACK => return Err("the ranges are cut"),
        kind::HOLD if raw.body.len().is_multiple_of(24) => {
            Record::Hold { log, cursor: CursorId(aux), entries: HeldEntries(raw.body) }
        }
        kind::HOLD => return Err("the held messages are cut"),
        kind::FLOOR => Record::Floor { log, cursor: CursorId(aux), floor: seq },
        kind::PURGE => Record::Purge { log, below: seq },
        kind::LOG_CREATE => Record::LogCreate { log, name: text(raw.props)? },
        kind::LOG_DELETE => Record::LogDelete { log },
        kind::META => Record::Meta {
            key: text(raw.props)?,
            version: aux,
            value: (raw.flags & FLAG_DELETED == 0).then_some(raw.body),
        },
        kind::FENCE => Record::Fence { epoch: Epoch(raw.seq) },
        kind::CHECKPOINT => Record::Checkpoint { log, next_seq: seq, floor: Seq(aux) },
        kind::ENGINE => Record::Engine { log, first: seq, last: Seq(aux), description: raw.body },
        _ if raw.flags & FLAG_MUST_UNDERSTAND != 0 => {
            return Err("a newer version wrote a record that must be understood");
        }
        _ => Record::Skipped,
    })
}

fn text(bytes: &[u8]) -> Result<&str, &'static str> {
    std::str::from_utf8(bytes).map_err(|_| "a name is not UTF-8")
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*four))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let eight = bytes.get(at..)?.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*eight))
}
