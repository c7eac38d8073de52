//! Reading messages back; every read checks the record.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use polymq_store::{
    Hold, LogId, MessageRef, Page, ReadLimit, Seq, StoredMessage,
    record::{Checks, Publish, Record, Records, aligned, publish_at},
};

use crate::{
    disk::DiskFile,
    error::Failure,
    place::{Loc, Shared},
};

/// The length of a record that points to another one.
const SAME_BYTES: usize = 40;

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
    /// What the record says; its log and position are those of the first message that used it.
    pub(crate) fn publish(&self) -> Option<Publish<'_>> {
        publish_at(&self.record, 0, Checks::LengthsOnly).ok().map(|(_, publish)| publish)
    }
}

/// Reads the messages of `log` from `from` upwards.
pub(crate) fn read(
    shared: &Mutex<Shared>,
    log: LogId,
    from: Seq,
    limit: ReadLimit,
) -> Result<Page, Failure> {
    let (wanted, next) = find(shared, log, from, limit);
    let messages = wanted.iter().map(message).collect::<Result<_, _>>()?;
    Ok(Page { messages, next })
}

/// Reads these messages; those that are gone are left out.
pub(crate) fn read_at(shared: &Mutex<Shared>, at: &[MessageRef]) -> Result<Page, Failure> {
    let wanted: Vec<_> = {
        let shared = shared.lock();
        at.iter().filter_map(|at| wanted(&shared, *at)).collect()
    };
    let messages = wanted.iter().map(message).collect::<Result<_, _>>()?;
    Ok(Page { messages, next: None })
}

fn find(
    shared: &Mutex<Shared>,
    id: LogId,
    from: Seq,
    limit: ReadLimit,
) -> (Vec<Wanted>, Option<Seq>) {
    use polymq_store::state::Place;
    let shared = shared.lock();
    let (mut found, mut bytes) = (Vec::new(), 0_u64);
    let Some(log) = shared.state.log(id) else { return (found, None) };
    for (seq, loc) in log.from(from) {
        bytes = bytes.saturating_add(loc.content_bytes());
        let is_full = found.len() >= limit.messages_max as usize || bytes > limit.bytes_max;
        if !found.is_empty() && is_full {
            return (found, Some(seq));
        }
        found.extend(wanted(&shared, MessageRef { log: id, seq }));
    }
    (found, None)
}

fn wanted(shared: &Shared, at: MessageRef) -> Option<Wanted> {
    let log = shared.state.log(at.log)?;
    let loc = *log.at(at.seq)?;
    let file = shared.files.get(&loc.file()).cloned();
    Some(Wanted { at, loc, file, hold: log.hold(at.seq) })
}

fn message(wanted: &Wanted) -> Result<StoredMessage, Failure> {
    let content = content(wanted)?;
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

/// Reads the record of a message.
///
/// Errors: [`Failure::Damaged`] when the bytes are not those that were written.
pub(crate) fn content(wanted: &Wanted) -> Result<Content, Failure> {
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
    let Some(Ok((_, _, Record::PublishSame { log, seq, expiry_ms, first, own }))) = pointer else {
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
    Failure::Damaged(format!(
        "message {} of log {} is not readable at byte {} of file {}",
        wanted.at.seq,
        wanted.at.log,
        wanted.loc.offset(),
        wanted.loc.file()
    ))
}
