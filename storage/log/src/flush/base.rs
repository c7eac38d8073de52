//! Writes what the log adds up to: definitions, logs and their counts, which messages of which
//! segments live, and what is held. A base file consists of batches, as the log does.

use std::{num::NonZeroU32, sync::Arc};

use bytes::BytesMut;
use parking_lot::Mutex;

use polymq_store::{
    LogId, Seq,
    record::{FLAG_MUST_UNDERSTAND, Head, crc32c, kind, put},
};

use crate::{
    core::Home,
    disk::DiskFile,
    error::{Failure, fatal_at, io_at},
    format::{BatchHeader, FLAG_BASE, FileHeader, HEADER, PAGE},
    manifest::{BaseFile, Manifest},
    names::base_name,
    numbers::FileNumbers,
    part::Source,
    place::{Shared, WalFile},
};

const DOING: &str = "writing a base file";

/// So much is written between two syncs; the log's own syncs do not queue behind more.
const SYNC_BYTES: u64 = 4 * 1024 * 1024;

/// What comes next.
enum Next {
    Metas(Option<String>),
    Log(LogId),
    Parts(LogId, Seq),
    Holds(LogId),
    End,
}

pub(super) struct BaseWriter {
    numbers: Arc<FileNumbers>,
    epoch: u64,
    base_batch: u64,
    /// Segments nobody needed when this began, so that it does not name them.
    unneeded: Vec<u32>,
    is_new: bool,
    next: Next,
    out: BytesMut,
    records: u32,
    /// Finished files, and the one being written.
    done: Vec<BaseFile>,
    open: Option<OpenBase>,
}

struct OpenBase {
    number: NonZeroU32,
    file: Arc<dyn DiskFile>,
    end: u64,
    synced: u64,
    batches: u32,
    last_crc: u32,
}

impl BaseWriter {
    pub(super) fn new(numbers: Arc<FileNumbers>, manifest: &Manifest) -> Self {
        Self {
            numbers,
            epoch: manifest.epoch,
            base_batch: manifest.base_batch,
            unneeded: Vec::new(),
            is_new: true,
            next: Next::Metas(None),
            out: BytesMut::new(),
            records: 0,
            done: Vec::new(),
            open: None,
        }
    }

    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Begins with what is true now.
    pub(super) fn begin(&mut self, unneeded: Vec<u32>, flushed: Option<&WalFile>) {
        self.is_new = false;
        self.unneeded = unneeded;
        if let Some(flushed) = flushed {
            self.base_batch = flushed.end.batch;
        }
    }

    pub(super) fn done(&self) -> &[BaseFile] {
        &self.done
    }

    pub(super) fn unneeded(&self) -> &[u32] {
        &self.unneeded
    }

    /// Takes back what was written.
    pub(super) fn remove(&self, home: &Home) {
        let open = self.open.iter().map(|open| open.number.get());
        for number in self.done.iter().map(|base| base.file_seq).chain(open) {
            let _ = home.disk.remove(&base_name(number));
        }
    }

    /// Writes a piece; true when that was the last one.
    pub(super) fn step(&mut self, home: &Home, shared: &Mutex<Shared>) -> Result<bool, Failure> {
        if self.open.as_ref().is_none_or(|open| open.end >= home.config.wal_file_bytes) {
            self.seal()?;
            self.open = Some(OpenBase::create(home, &self.numbers)?);
        }
        let limit = home.config.step_bytes;
        while self.out.len() < limit && !matches!(self.next, Next::End) {
            let shared = shared.lock();
            self.next = match std::mem::replace(&mut self.next, Next::End) {
                Next::Metas(after) => self.metas(&shared, after, limit),
                Next::Log(from) => self.log(&shared, from),
                Next::Parts(log, from) => self.parts(&shared, log, from, limit),
                Next::Holds(log) => self.holds(&shared, log),
                Next::End => Next::End,
            };
        }
        self.write(home)?;
        if !matches!(self.next, Next::End) {
            return Ok(false);
        }
        self.seal()?;
        Ok(true)
    }

    fn metas(&mut self, shared: &Shared, after: Option<String>, limit: usize) -> Next {
        if after.is_none()
            && let Some(last) = shared.state.next_log().0.checked_sub(1)
        {
            // Numbers of logs that were deleted must not come back either.
            self.put(Head { kind: kind::CHECKPOINT, log: last, ..Head::default() }, &[], &[]);
        }
        for (key, meta) in shared.state.metas_after(after.as_deref()) {
            let head = Head { kind: kind::META, aux: meta.version, ..Head::default() };
            self.put(head, &[key.as_bytes()], &meta.value);
            if self.out.len() >= limit {
                return Next::Metas(Some(key.to_owned()));
            }
        }
        Next::Log(LogId(0))
    }

    fn log(&mut self, shared: &Shared, from: LogId) -> Next {
        let Some((id, log)) = shared.state.logs_from(from).next() else { return Next::End };
        let head = Head { kind: kind::LOG_CREATE, log: id.0, ..Head::default() };
        self.put(head, &[log.name().as_bytes()], &[]);
        let (seq, aux) = (log.next_seq().0, log.floor().0);
        self.put(Head { kind: kind::CHECKPOINT, flags: 0, log: id.0, seq, aux }, &[], &[]);
        Next::Parts(id, Seq(0))
    }

    fn parts(&mut self, shared: &Shared, id: LogId, from: Seq, limit: usize) -> Next {
        let mut description = BytesMut::new();
        // It was deleted since the last piece.
        let Some(log) = shared.state.log(id) else { return Next::Holds(id) };
        for part in log.messages().parts().iter().filter(|part| part.first() >= from.0) {
            if self.out.len() >= limit {
                return Next::Parts(id, Seq(part.first()));
            }
            if let Source::File(_) = part.source {
                description.clear();
                part.describe(&mut description);
                let (seq, aux) = (part.first(), part.last());
                let flags = FLAG_MUST_UNDERSTAND;
                let head = Head { kind: kind::ENGINE, flags, log: id.0, seq, aux };
                self.put(head, &[], &description);
            }
        }
        Next::Holds(id)
    }

    fn holds(&mut self, shared: &Shared, id: LogId) -> Next {
        if let Some(log) = shared.state.log(id) {
            for held in log.holds() {
                let mut body = [0; 24];
                body[..8].copy_from_slice(&held.seq.0.to_le_bytes());
                body[8..12].copy_from_slice(&held.hold.delivery_count.to_le_bytes());
                body[12..16].copy_from_slice(&held.hold.acquired_count.to_le_bytes());
                body[16..].copy_from_slice(&held.hold.due_ms.to_le_bytes());
                let (log, seq) = (id.0, held.seq.0);
                self.put(Head { kind: kind::HOLD, log, seq, ..Head::default() }, &[], &body);
            }
        }
        id.0.checked_add(1).map_or(Next::End, |next| Next::Log(LogId(next)))
    }

    fn put(&mut self, head: Head, props: &[&[u8]], body: &[u8]) -> (usize, u32) {
        self.records += 1;
        put(&mut self.out, head, props, body)
    }

    /// Writes what was collected as one batch.
    fn write(&mut self, home: &Home) -> Result<(), Failure> {
        let Some(open) = self.open.as_mut().filter(|_| !self.out.is_empty()) else { return Ok(()) };
        let header = BatchHeader {
            wal_seq: u64::from(open.batches) + 1,
            epoch: self.epoch,
            shard_batch: self.base_batch,
            payload_len: u32::try_from(self.out.len()).unwrap_or(u32::MAX),
            records: self.records,
            prev_crc: open.last_crc,
            payload_crc: crc32c(&self.out),
            ..BatchHeader::default()
        };
        let (bytes, crc) = header.encode(home.uuid, open.number.get());
        let padding = usize::try_from(header.stride()).unwrap_or(0) - HEADER - self.out.len();
        let zeros = vec![0; padding];
        open.file.write_at(&[&bytes, &self.out, &zeros], open.end).map_err(io_at(DOING))?;
        open.end += header.stride();
        if open.end - open.synced >= SYNC_BYTES {
            open.file.sync_data().map_err(fatal_at(DOING))?;
            open.synced = open.end;
        }
        open.batches += 1;
        open.last_crc = crc;
        self.out.clear();
        self.records = 0;
        Ok(())
    }

    fn seal(&mut self) -> Result<(), Failure> {
        if let Some(open) = self.open.take() {
            open.file.sync_all().map_err(fatal_at(DOING))?;
            self.done.push(BaseFile {
                file_seq: open.number.get(),
                bytes: open.end,
                batches: open.batches,
                last_crc: open.last_crc,
            });
        }
        Ok(())
    }
}

impl OpenBase {
    fn create(home: &Home, numbers: &FileNumbers) -> Result<Self, Failure> {
        let number = numbers.take()?;
        let Home { disk, clock, uuid, .. } = home;
        let file = disk.create(&base_name(number.get())).map_err(io_at(DOING))?;
        let header = FileHeader {
            flags: FLAG_BASE,
            file_seq: number.get(),
            prev_wal_seq: 0,
            prev_crc: 0,
            created_ms: clock.unix_ms(),
            size: 0,
        };
        file.write_at(&[&header.encode(*uuid)], 0).map_err(io_at(DOING))?;
        Ok(Self { number, file, end: PAGE, synced: 0, batches: 0, last_crc: 0 })
    }
}
