//! Rewrites what lives into base files, so that old files of the log can go.
//!
//! Log files are dropped whole, from the oldest on. What lives in them is first copied, in small
//! steps between batches: definitions, then log by log. The copy is not a picture of one moment,
//! and need not be: everything that changed since the rewriting began stands in log files that
//! stay, and is replayed over it.

use std::num::NonZeroU32;

use bytes::BytesMut;

use polymq_store::{
    LogId, MessageRef, Seq,
    record::{FLAGS_OF_PUBLISHER, Head, crc32c, kind, put},
};

use crate::{
    core::{Home, LogCore},
    disk::DiskFile,
    error::{Failure, fatal_at, io_at},
    format::{BatchHeader, FLAG_BASE, FileHeader, HEADER, PAGE},
    manifest::{BaseFile, Manifest},
    names::{BASE_DIR, base_name, wal_name},
    place::Loc,
    read::{Wanted, content},
};

/// Memory and disk a live message takes beside its content, for the decision to rewrite.
const RECORD_BYTES: u64 = 40;
/// Messages whose new place is entered in one step.
const MOVES_PER_STEP: usize = 4096;

/// The rewriting that is under way, if any.
#[derive(Default)]
pub(crate) struct Checkpoint {
    phase: Phase,
    /// Do not try again before the files take this much.
    not_before_bytes: u64,
    /// A live message could not be read: old files must stay.
    is_blocked: bool,
}

#[derive(Default)]
enum Phase {
    #[default]
    Idle,
    Copying(Box<Copying>),
    Moving(Vec<Move>, Vec<String>, Vec<u32>),
    Deleting(Vec<String>),
}

struct Move {
    at: MessageRef,
    to: Loc,
}

/// What comes next.
enum Next {
    Metas(Option<String>),
    Log(LogId),
    Messages(LogId, Seq),
    Holds(LogId),
    End,
}

struct Copying {
    /// The first log file that stays, and the batch before it.
    first_wal: u32,
    prev_wal_seq: u64,
    prev_crc: u32,
    base_batch: u64,
    next: Next,
    out: BytesMut,
    records: u32,
    moves: Vec<Move>,
    /// Finished files, and the one being written.
    done: Vec<BaseFile>,
    open: Option<OpenBase>,
}

struct OpenBase {
    number: NonZeroU32,
    file: std::sync::Arc<dyn DiskFile>,
    end: u64,
    batches: u32,
    last_crc: u32,
}

impl LogCore {
    /// Does a bounded piece of the work that keeps the disk small; true when there is more to do.
    ///
    /// Errors: only those after which nothing can be written any more.
    pub(crate) fn tidy(&mut self) -> Result<bool, Failure> {
        let phase = std::mem::take(&mut self.checkpoint.phase);
        let result = match phase {
            Phase::Idle => self.begin_rewriting(),
            Phase::Copying(copying) => self.copy(copying),
            Phase::Moving(moves, files, numbers) => Ok(self.move_some(moves, files, numbers)),
            Phase::Deleting(files) => Ok(self.delete_one(files)),
        };
        let result = self.poison(result);
        self.checkpoint.phase = result?;
        Ok(!matches!(self.checkpoint.phase, Phase::Idle))
    }

    fn begin_rewriting(&mut self) -> Result<Phase, Failure> {
        let total = self.file_bytes();
        let config = self.home.config;
        let above = config.rewrite_above_bytes.max(self.checkpoint.not_before_bytes);
        if total <= above || self.checkpoint.is_blocked || self.failed().is_some() {
            return Ok(Phase::Idle);
        }
        let live = {
            let state = &self.shared.lock().state;
            state.live_bytes() + state.live_count() * RECORD_BYTES
        };
        if live.saturating_mul(2) >= total {
            return Ok(Phase::Idle);
        }
        if !self.is_head_empty()
            && let Err(failure) = self.roll(PAGE)
        {
            return self.give_up(failure, &[]);
        }
        let first_wal = match self.settle_head() {
            Ok(number) => number,
            Err(failure) => return self.give_up(failure, &[]),
        };
        Ok(Phase::Copying(Box::new(Copying {
            first_wal,
            prev_wal_seq: self.wal_seq,
            prev_crc: self.prev_crc,
            base_batch: self.last_batch().0,
            next: Next::Metas(None),
            out: BytesMut::new(),
            records: 0,
            moves: Vec::new(),
            done: Vec::new(),
            open: None,
        })))
    }

    fn copy(&mut self, mut copying: Box<Copying>) -> Result<Phase, Failure> {
        let step = copying.collect(self).and_then(|()| {
            copying.write(self)?;
            if !matches!(copying.next, Next::End) {
                return Ok(false);
            }
            copying.seal()?;
            Ok(true)
        });
        match step {
            Ok(false) => Ok(Phase::Copying(copying)),
            Ok(true) => self.switch(*copying),
            Err(failure) => {
                let open = copying.open.iter().map(|open| open.number.get());
                let done = copying.done.iter().map(|base| base.file_seq);
                let numbers: Vec<_> = open.chain(done).collect();
                self.give_up(failure, &numbers)
            }
        }
    }

    /// Nothing is lost when rewriting fails: the old files still hold everything.
    fn give_up(&mut self, failure: Failure, bases: &[u32]) -> Result<Phase, Failure> {
        for number in bases {
            self.shared.lock().files.remove(number);
            let _ = self.home.disk.remove(&base_name(*number));
        }
        if let Failure::Fatal(_) = failure {
            return Err(failure);
        }
        self.checkpoint.is_blocked = matches!(failure, Failure::Damaged(_));
        self.checkpoint.not_before_bytes = self.file_bytes() + self.home.config.wal_file_bytes;
        tracing::error!(%failure, "old log files stay, because rewriting live messages failed");
        Ok(Phase::Idle)
    }

    /// Makes the new base files count instead of the old files.
    fn switch(&mut self, copying: Copying) -> Result<Phase, Failure> {
        self.home.disk.sync_dir(BASE_DIR).map_err(fatal_at("rewriting live messages"))?;
        let before = self.manifest.clone();
        self.manifest.bases = copying.done;
        self.manifest.first_wal = copying.first_wal;
        self.manifest.prev_wal_seq = copying.prev_wal_seq;
        self.manifest.prev_crc = copying.prev_crc;
        self.manifest.base_batch = copying.base_batch;
        self.manifest.next_file = self.next_file();
        if let Err(failure) = self.write_manifest() {
            let number = self.manifest.number;
            let after = std::mem::replace(&mut self.manifest, Manifest { number, ..before });
            let bases: Vec<_> = after.bases.iter().map(|base| base.file_seq).collect();
            return self.give_up(failure, &bases);
        }
        let old_bases = before.bases;
        let (old, kept): (Vec<_>, Vec<_>) =
            self.sealed.drain(..).partition(|file| file.number < copying.first_wal);
        self.sealed = kept;
        let mut names: Vec<_> = old.iter().map(|file| wal_name(file.number)).collect();
        names.extend(old_bases.iter().map(|base| base_name(base.file_seq)));
        let mut numbers: Vec<_> = old.iter().map(|file| file.number).collect();
        numbers.extend(old_bases.iter().map(|base| base.file_seq));
        Ok(Phase::Moving(copying.moves, names, numbers))
    }

    fn move_some(&self, mut moves: Vec<Move>, names: Vec<String>, numbers: Vec<u32>) -> Phase {
        let mut shared = self.shared.lock();
        let rest = moves.split_off(moves.len().min(MOVES_PER_STEP));
        for Move { at, to } in moves {
            // False when it was acknowledged meanwhile.
            shared.state.relocate(at.log, at.seq, to);
        }
        if !rest.is_empty() {
            return Phase::Moving(rest, names, numbers);
        }
        for number in numbers {
            shared.files.remove(&number);
        }
        Phase::Deleting(names)
    }

    fn delete_one(&self, mut names: Vec<String>) -> Phase {
        if let Some(name) = names.pop()
            && let Err(error) = self.home.disk.remove(&name)
        {
            tracing::warn!(file = name, %error, "an old file stays until the next start");
        }
        if names.is_empty() { Phase::Idle } else { Phase::Deleting(names) }
    }
}

impl Copying {
    /// Encodes the next piece of what lives.
    fn collect(&mut self, core: &mut LogCore) -> Result<(), Failure> {
        let limit = core.home.config.rewrite_step_bytes;
        let needs_file =
            self.open.as_ref().is_none_or(|o| o.end >= core.home.config.wal_file_bytes);
        if needs_file {
            self.seal()?;
            self.open = Some(OpenBase::create(core)?);
        }
        while self.out.len() < limit {
            self.next = match std::mem::replace(&mut self.next, Next::End) {
                Next::Metas(after) => self.metas(core, after, limit),
                Next::Log(from) => self.log(core, from),
                Next::Messages(log, from) => self.messages(core, log, from, limit)?,
                Next::Holds(log) => self.holds(core, log),
                Next::End => return Ok(()),
            };
        }
        Ok(())
    }

    fn metas(&mut self, core: &LogCore, after: Option<String>, limit: usize) -> Next {
        let shared = core.shared.lock();
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

    fn log(&mut self, core: &LogCore, from: LogId) -> Next {
        let shared = core.shared.lock();
        let Some((id, log)) = shared.state.logs_from(from).next() else { return Next::End };
        let head = Head { kind: kind::LOG_CREATE, log: id.0, ..Head::default() };
        self.put(head, &[log.name().as_bytes()], &[]);
        let (seq, aux) = (log.next_seq().0, log.floor().0);
        self.put(Head { kind: kind::CHECKPOINT, flags: 0, log: id.0, seq, aux }, &[], &[]);
        Next::Messages(id, Seq(0))
    }

    fn messages(
        &mut self,
        core: &LogCore,
        id: LogId,
        from: Seq,
        limit: usize,
    ) -> Result<Next, Failure> {
        let (wanted, next) = self.pick(core, id, from, limit);
        let payload_offset = self.open.as_ref().map_or(PAGE, |open| open.end) + HEADER as u64;
        for wanted in wanted {
            let content = content(&wanted)?;
            let publish = content.publish().ok_or_else(|| {
                Failure::Damaged(format!("message {} of log {id} is not readable", wanted.at.seq))
            })?;
            let head = Head {
                kind: kind::PUB,
                flags: publish.flags & FLAGS_OF_PUBLISHER,
                log: id.0,
                seq: wanted.at.seq.0,
                aux: content.expiry_ms,
            };
            let (offset, len) = self.put(head, &[publish.props], publish.body);
            let Some(open) = &self.open else { continue };
            let to = wanted.loc.moved(open.number, payload_offset + offset as u64, len);
            self.moves.push(Move { at: wanted.at, to });
        }
        Ok(next)
    }

    /// Live messages of a log in files that will go, about `limit` bytes of them.
    fn pick(&self, core: &LogCore, id: LogId, from: Seq, limit: usize) -> (Vec<Wanted>, Next) {
        let shared = core.shared.lock();
        let mut wanted = Vec::new();
        // It was deleted since the last step.
        let Some(log) = shared.state.log(id) else { return (wanted, Next::Holds(id)) };
        let mut bytes = self.out.len();
        for (seq, loc) in log.from(from) {
            if bytes >= limit {
                return (wanted, Next::Messages(id, seq));
            }
            let is_kept = loc.file() >= self.first_wal && !core.is_base(loc.file());
            if !is_kept {
                bytes += loc.content_len() as usize;
                let file = shared.files.get(&loc.file()).cloned();
                let at = MessageRef { log: id, seq };
                wanted.push(Wanted { at, loc: *loc, file, hold: None });
            }
        }
        (wanted, Next::Holds(id))
    }

    fn holds(&mut self, core: &LogCore, id: LogId) -> Next {
        let shared = core.shared.lock();
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

    /// Writes what was collected as one batch, and syncs it.
    fn write(&mut self, core: &LogCore) -> Result<(), Failure> {
        let Some(open) = self.open.as_mut().filter(|_| !self.out.is_empty()) else { return Ok(()) };
        let header = BatchHeader {
            wal_seq: u64::from(open.batches) + 1,
            epoch: core.manifest.epoch,
            shard_batch: self.base_batch,
            payload_len: u32::try_from(self.out.len()).unwrap_or(u32::MAX),
            records: self.records,
            prev_crc: open.last_crc,
            payload_crc: crc32c(&self.out),
            ..BatchHeader::default()
        };
        let (bytes, crc) = header.encode(core.home.uuid, open.number.get());
        let padding = usize::try_from(header.stride()).unwrap_or(0) - HEADER - self.out.len();
        let zeros = vec![0; padding];
        open.file
            .write_at(&[&bytes, &self.out, &zeros], open.end)
            .map_err(io_at("rewriting live messages"))?;
        open.file.sync_data().map_err(fatal_at("rewriting live messages"))?;
        open.end += header.stride();
        open.batches += 1;
        open.last_crc = crc;
        self.out.clear();
        self.records = 0;
        Ok(())
    }

    fn seal(&mut self) -> Result<(), Failure> {
        if let Some(open) = self.open.take() {
            open.file.sync_all().map_err(fatal_at("rewriting live messages"))?;
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
    fn create(core: &mut LogCore) -> Result<Self, Failure> {
        let doing = "rewriting live messages";
        let number = core.take_file_number()?;
        let Home { disk, clock, uuid, .. } = &core.home;
        let file = disk.create(&base_name(number.get())).map_err(io_at(doing))?;
        let header = FileHeader {
            flags: FLAG_BASE,
            file_seq: number.get(),
            prev_wal_seq: 0,
            prev_crc: 0,
            created_ms: clock.unix_ms(),
            size: 0,
        };
        file.write_at(&[&header.encode(*uuid)], 0).map_err(io_at(doing))?;
        core.shared.lock().files.insert(number.get(), file.clone());
        Ok(Self { number, file, end: PAGE, batches: 0, last_crc: 0 })
    }
}
