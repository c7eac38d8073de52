//! Reading messages back; every read checks the record.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use polymq_store::{
    Hold, LogId, MessageRef, Page, ReadLimit, Seq, StoredMessage,
    record::{Checks, Publish, Record, Records, aligned, publish_at},
    state::{Messages, Place},
};

use crate::{
    dead::Dead,
    disk::DiskFile,
    error::{Failure, Unreadable},
    messages::At,
    names::{seg_name, wal_name},
    part::{FilePart, Source},
    place::{Loc, Shared},
    segment::{self, Bad, Found, Start, Visit},
};

/// The length of a record that points to another one.
const SAME_BYTES: usize = 40;
/// Records that stand this close are read together, up to so many bytes.
const GAP_BYTES: u64 = 4 * 1024;
const RUN_BYTES: u64 = 256 * 1024;
/// Messages up to this size share the bytes that were read together.
const OWN_BYTES: usize = 4 * 1024;

/// A message that was found in the index.
pub(crate) struct Wanted {
    pub(crate) at: MessageRef,
    pub(crate) loc: Loc,
    pub(crate) file: Option<Arc<dyn DiskFile>>,
    pub(crate) hold: Option<Hold>,
}

/// The whole bytes of a PUB, and when the message expires.
pub(crate) struct Content {
    pub(crate) expiry_ms: u64,
    record: Bytes,
}

impl Content {
    /// The record as it stands in the log.
    pub(crate) fn record(&self) -> &[u8] {
        &self.record
    }

    /// What the record says; its log and position are those of the first message that used it.
    pub(crate) fn publish(&self) -> Option<Publish<'_>> {
        publish_at(&self.record, 0, Checks::LengthsOnly).ok().map(|(_, publish)| publish)
    }
}

/// Reads the messages of `log` from `from` upwards.
///
/// A page ends before a message that is not readable, so that only the next one fails, at exactly
/// that message.
pub(crate) fn read(
    shared: &Mutex<Shared>,
    log: LogId,
    from: Seq,
    limit: ReadLimit,
) -> Result<Page, Failure> {
    let mut reading = Reading { limit, bytes: 0, messages: Vec::new() };
    let mut from = from;
    loop {
        let step = reading.next_step(&shared.lock(), log, from);
        match step {
            Step::End => return Ok(Page { messages: reading.messages, next: None }),
            Step::Full(next) => return Ok(Page { messages: reading.messages, next: Some(next) }),
            Step::Wal(wanted) => {
                let (contents, failure) = contents(&wanted);
                for (wanted, content) in wanted.iter().zip(&contents) {
                    reading.push(message(wanted, content)?);
                    from = Seq(wanted.at.seq.0.saturating_add(1));
                }
                if let Some(failure) = failure {
                    let next = wanted.get(contents.len()).map_or(from, |wanted| wanted.at.seq);
                    return reading.until_damage(next, failure);
                }
            }
            Step::File(part, start) => {
                let walked = match reading.walk_to(shared, log, &part, start) {
                    Ok(walked) => walked,
                    Err((next, failure)) => return reading.until_damage(next, failure),
                };
                if let Some((_, last)) = walked.found.last() {
                    from = Seq(last.seq.0.saturating_add(1));
                }
                if let Some(next) = reading.push_live(&mut shared.lock(), log, &part, walked) {
                    return Ok(Page { messages: reading.messages, next: Some(next) });
                }
            }
        }
    }
}

/// Reads these messages; those that are gone are left out.
pub(crate) fn read_at(shared: &Mutex<Shared>, at: &[MessageRef]) -> Result<Page, Failure> {
    let limit = ReadLimit { messages_max: 1, bytes_max: u64::MAX };
    let mut page = Page::default();
    for at in at {
        let is_live = {
            let shared = shared.lock();
            shared.state.log(at.log).is_some_and(|log| log.messages().contains(at.seq))
        };
        if is_live {
            let found = read(shared, at.log, at.seq, limit)?;
            page.messages.extend(found.messages.into_iter().filter(|m| m.seq == at.seq));
        }
    }
    Ok(page)
}

/// A page that is being filled.
struct Reading {
    limit: ReadLimit,
    bytes: u64,
    messages: Vec<StoredMessage>,
}

/// What one read of a segment brought: messages with their offsets, and where it ended.
struct Walked {
    found: Vec<(u64, StoredMessage)>,
    rest: Option<(u64, u64)>,
}

/// What is read next, outside of the lock.
enum Step {
    End,
    Full(Seq),
    Wal(Vec<Wanted>),
    File(FilePart, Start),
}

impl Reading {
    /// True when a message with content of `bytes` belongs to the next page.
    fn is_full(&self, count: usize, bytes: u64) -> bool {
        let has_any = count > 0;
        has_any && (count >= self.limit.messages_max as usize || bytes > self.limit.bytes_max)
    }

    fn next_step(&self, shared: &Shared, id: LogId, from: Seq) -> Step {
        let Some(log) = shared.state.log(id) else { return Step::End };
        let Some((first, at)) = log.messages().next_live(from) else { return Step::End };
        if self.is_full(self.messages.len(), self.bytes) {
            return Step::Full(first);
        }
        let (part, index) = match at {
            At::Tail(index) => (None, index),
            At::Part(part) => match &part.source {
                Source::Wal(_, index) => (Some(part), &**index),
                Source::File(file) => {
                    return Step::File(file.clone(), Start { seq: first.0, hint: part.hint });
                }
            },
        };
        let (mut wanted, mut bytes) = (Vec::new(), self.bytes);
        for (seq, loc) in index.from(first) {
            if part.is_some_and(|part| part.dead.contains(seq.0)) {
                continue;
            }
            bytes = bytes.saturating_add(loc.content_bytes());
            if self.is_full(self.messages.len() + wanted.len(), bytes) {
                if wanted.is_empty() {
                    return Step::Full(seq);
                }
                break;
            }
            let file = shared.files.get(&loc.file()).cloned();
            let at = MessageRef { log: id, seq };
            wanted.push(Wanted { at, loc: *loc, file, hold: log.hold(seq) });
        }
        Step::Wal(wanted)
    }

    /// Reads some messages of a segment from one on that lives.
    ///
    /// A record before it may be damaged, so that no length leads to it any more: then the table
    /// does.
    ///
    /// Errors: that message is not readable, and perhaps some behind it.
    fn walk_to(
        &self,
        shared: &Mutex<Shared>,
        log: LogId,
        part: &FilePart,
        start: Start,
    ) -> Result<Walked, (Seq, Failure)> {
        let seq = start.seq;
        // It lived when this was planned, so it must be there.
        let is_there = |walked: &Walked| walked.found.first().is_some_and(|(_, m)| m.seq.0 == seq);
        if let Some(walked) = self.walk(shared, log, part, &start).ok().filter(is_there) {
            return Ok(walked);
        }
        let segments = shared.lock().segments.clone();
        let bad = match segment::find(&segments, part, log, seq) {
            Found::At(offset) => {
                let start = Start { seq, hint: Some((seq, offset)) };
                match self.walk(shared, log, part, &start).ok().filter(is_there) {
                    Some(walked) => return Ok(walked),
                    None => Bad { first: seq, last: seq, offset, bytes: 0 },
                }
            }
            Found::Bad(bad) => bad,
        };
        Err((Seq(seq), unreadable_in(&shared.lock(), (log, seq), part, &bad)))
    }

    /// Reads some messages of a segment, acknowledged or not.
    fn walk(
        &self,
        shared: &Mutex<Shared>,
        log: LogId,
        part: &FilePart,
        start: &Start,
    ) -> Result<Walked, Failure> {
        let segments = shared.lock().segments.clone();
        let average = part.content_bytes / part.count.max(1) + 1;
        let room = (self.limit.bytes_max.saturating_sub(self.bytes) / average).saturating_add(1);
        let more = (self.limit.messages_max as usize).saturating_sub(self.messages.len()).max(1);
        let more = more.min(usize::try_from(room).unwrap_or(usize::MAX));
        let mut found = Vec::with_capacity(more.min(4096));
        // A little more than the average, so that one read usually fills the page.
        let wanted = more.saturating_add(more / 16) as u64;
        let rest = segment::walk(&segments, part, start, wanted, |visit| {
            let is_taken = visit.publish.log == log && found.len() < more;
            if is_taken {
                found.push((visit.offset, stored(visit)));
            }
            Ok(is_taken)
        })?;
        Ok(Walked { found, rest })
    }

    /// Takes what lives of `walked`; the position of the first one that has no room.
    fn push_live(
        &mut self,
        shared: &mut Shared,
        id: LogId,
        part: &FilePart,
        walked: Walked,
    ) -> Option<Seq> {
        let log = shared.state.log(id)?;
        let has_holds = log.holds().next().is_some();
        let (mut hint, mut full) = (walked.rest, None);
        for (offset, mut message) in walked.found {
            if !log.messages().contains(message.seq) {
                continue;
            }
            let content = (message.props.len() + message.body.len()) as u64;
            if self.is_full(self.messages.len(), self.bytes.saturating_add(content)) {
                hint = Some((message.seq.0, offset));
                full = Some(message.seq);
                break;
            }
            if has_holds {
                message.hold = log.hold(message.seq);
            }
            self.push(message);
        }
        if let Some(hint) = hint
            && let Some(log) = shared.state.log_mut(id)
            && let Some(at) = log.messages_mut().part_at_mut(Seq(hint.0))
            && at.is_at(part)
        {
            at.hint = Some(hint);
        }
        full
    }

    /// What was read before the damage; the damage itself when that is nothing.
    fn until_damage(self, next: Seq, failure: Failure) -> Result<Page, Failure> {
        if self.messages.is_empty() {
            return Err(failure);
        }
        Ok(Page { messages: self.messages, next: Some(next) })
    }

    fn push(&mut self, message: StoredMessage) {
        self.bytes += (message.props.len() + message.body.len()) as u64;
        self.messages.push(message);
    }
}
fn message(wanted: &Wanted, content: &Content) -> Result<StoredMessage, Failure> {
    let publish = content.publish().ok_or_else(|| unreadable(wanted))?;
    Ok(StoredMessage {
        log: wanted.at.log,
        seq: wanted.at.seq,
        expiry_ms: content.expiry_ms,
        flags: publish.flags,
        props: content.record.slice_ref(publish.props),
        body: content.record.slice_ref(publish.body),
        hold: wanted.hold,
    })
}

/// A message of a segment. Small ones share the bytes of their page; a large one gets its own, so
/// that whoever keeps one does not keep them all.
fn stored(visit: &Visit<'_>) -> StoredMessage {
    let publish = &visit.publish;
    let slice = |part: &[u8]| match part.len() {
        0 => Bytes::new(),
        1..=OWN_BYTES => visit.chunk.slice_ref(part),
        _ => Bytes::copy_from_slice(part),
    };
    StoredMessage {
        log: publish.log,
        seq: publish.seq,
        expiry_ms: publish.expiry_ms,
        flags: publish.flags,
        props: slice(publish.props),
        body: slice(publish.body),
        hold: None,
    }
}

/// Reads the records of messages, neighbours with one read.
///
/// Ends before the first one whose bytes are not those that were written, and says so.
pub(crate) fn contents(wanted: &[Wanted]) -> (Vec<Content>, Option<Failure>) {
    let mut out = Vec::with_capacity(wanted.len());
    let mut rest = wanted;
    while let Some(first) = rest.first() {
        let (count, bytes) = neighbours(rest);
        let run = if count > 1 { read_run(first, bytes) } else { None };
        for wanted in &rest[..count] {
            let found = run.as_ref().and_then(|run| in_run(run, first, wanted));
            match found.map_or_else(|| content(wanted), Ok) {
                Ok(content) => out.push(content),
                Err(failure) => return (out, Some(failure)),
            }
        }
        rest = &rest[count..];
    }
    (out, None)
}

/// How many of `wanted` stand close together, and over how many bytes.
fn neighbours(wanted: &[Wanted]) -> (usize, u64) {
    let Some(first) = wanted.first().filter(|first| !first.loc.is_same()) else { return (1, 0) };
    let (start, mut end, mut count) = (first.loc.offset(), first.loc.end(), 1);
    for next in &wanted[1..] {
        let is_near = !next.loc.is_same()
            && next.loc.file() == first.loc.file()
            && (end..=end + GAP_BYTES).contains(&next.loc.offset())
            && next.loc.end() - start <= RUN_BYTES;
        if !is_near {
            break;
        }
        end = next.loc.end();
        count += 1;
    }
    (count, end - start)
}

fn read_run(first: &Wanted, bytes: u64) -> Option<Bytes> {
    let mut run = BytesMut::zeroed(usize::try_from(bytes).ok()?);
    first.file.as_ref()?.read_at(&mut run, first.loc.offset()).ok()?;
    Some(run.freeze())
}

/// `None` when the record must be read alone, to find out what is wrong with it.
fn in_run(run: &Bytes, first: &Wanted, wanted: &Wanted) -> Option<Content> {
    let start = usize::try_from(wanted.loc.offset() - first.loc.offset()).ok()?;
    let len = aligned(wanted.loc.content_len() as usize);
    let bytes = run.get(start..start + len)?;
    let (_, publish) = publish_at(bytes, 0, Checks::Checksums).ok()?;
    let is_it = publish.log == wanted.at.log && publish.seq == wanted.at.seq;
    let expiry_ms = publish.expiry_ms;
    let is_large = len > OWN_BYTES;
    let record = if is_large { Bytes::copy_from_slice(bytes) } else { run.slice_ref(bytes) };
    is_it.then_some(Content { expiry_ms, record })
}

/// Reads the record of a message.
///
/// Errors: [`Failure::Damaged`] when the bytes are not those that were written.
fn content(wanted: &Wanted) -> Result<Content, Failure> {
    let damaged = || unreadable(wanted);
    let file = wanted.file.as_ref().ok_or_else(damaged)?;
    let loc = &wanted.loc;
    if !loc.is_same() {
        let record = read_record(&**file, loc.offset(), loc.content_len()).ok_or_else(damaged)?;
        let (_, publish) = publish_at(&record, 0, Checks::Checksums).map_err(|_| damaged())?;
        let is_it = publish.log == wanted.at.log && publish.seq == wanted.at.seq;
        let expiry_ms = publish.expiry_ms;
        return if is_it { Ok(Content { expiry_ms, record }) } else { Err(damaged()) };
    }
    let mut same = [0; SAME_BYTES];
    file.read_at(&mut same, loc.offset()).map_err(|_| damaged())?;
    let pointer = Records::new(&same, Checks::Checksums).next();
    let Some(Ok((_, _, Record::PublishSame { log, seq, expiry_ms, first, own, .. }))) = pointer
    else {
        return Err(damaged());
    };
    if log != wanted.at.log || seq != wanted.at.seq {
        return Err(damaged());
    }
    let batch = loc.offset().checked_sub(u64::from(own)).ok_or_else(damaged)?;
    let record = read_record(&**file, batch + u64::from(first), loc.content_len());
    let record = record.ok_or_else(damaged)?;
    publish_at(&record, 0, Checks::Checksums).map_err(|_| damaged())?;
    Ok(Content { expiry_ms, record })
}

fn read_record(file: &dyn DiskFile, offset: u64, len: u32) -> Option<Bytes> {
    let mut record = BytesMut::zeroed(aligned(len as usize));
    file.read_at(&mut record, offset).ok()?;
    Some(record.freeze())
}

fn unreadable(wanted: &Wanted) -> Failure {
    let loc = &wanted.loc;
    let bytes = if loc.is_same() { SAME_BYTES as u64 } else { loc.end() - loc.offset() };
    Failure::Unreadable(Box::new(Unreadable {
        log: wanted.at.log,
        first: wanted.at.seq,
        last: wanted.at.seq,
        messages: 1,
        file: wal_name(loc.file()),
        offset: loc.offset(),
        bytes,
    }))
}

/// What of a part is damaged, as far as its messages live.
fn unreadable_in(shared: &Shared, (log, seq): (LogId, u64), part: &FilePart, bad: &Bad) -> Failure {
    let found = shared.state.log(log).and_then(|log| log.messages().part_at(Seq(seq)));
    let found = found.filter(|found| found.is_at(part));
    Failure::Unreadable(Box::new(bad_range(log, part, bad, found.map(|part| &part.dead))))
}

/// The same with what is acknowledged of the part.
pub(crate) fn bad_range(log: LogId, part: &FilePart, bad: &Bad, dead: Option<&Dead>) -> Unreadable {
    let (mut first, mut last, mut messages) = (bad.first, bad.last, 1);
    if let Some(dead) = dead {
        (first, last) = (first.max(dead.first()), last.min(dead.last()));
        messages = dead.live_in(first, last);
    }
    Unreadable {
        log,
        first: Seq(first),
        last: Seq(last.max(first)),
        messages,
        file: seg_name(part.file.number()),
        offset: part.offset + bad.offset,
        bytes: bad.bytes,
    }
}
