//! The log without threads: open, commit, close. One caller at a time; what happens depends on
//! nothing but the calls and the disk.

use std::{num::NonZeroU32, sync::Arc};

use parking_lot::Mutex;

use polymq_store::{
    Batch, Durability, Epoch, Opened, OwnerId, ShardBatch, may_be_refused, record::crc32c,
    state::Admission,
};

use crate::{
    ballast,
    clock::Clock,
    config::LogConfig,
    disk::{Disk, DiskFile, Lock},
    error::{Failure, fatal_at, io_at},
    flush::{Flusher, settle_sizes},
    format::{BatchHeader, FileHeader, HEADER, PAGE, StoreUuid, stride},
    manifest::{self, Manifest},
    names::{WAL_DIR, wal_name},
    numbers::FileNumbers,
    own::{own_manifest, own_store},
    place::{Shared, WalEnd, WalFile},
    prepare::{Fill, Prepared, prepare},
    recovery::{self, Recovered, apply},
    repair, sweep,
};

/// What everything that touches files needs.
#[derive(Clone)]
pub(crate) struct Home {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: LogConfig,
    pub(crate) uuid: StoreUuid,
}

/// The file batches are appended to.
struct Head {
    number: NonZeroU32,
    file: Arc<dyn DiskFile>,
    bytes: u64,
    end: u64,
    records: u32,
    /// The header is on its way with the first batch.
    has_header: bool,
}

/// How much of the log waits for being flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backlog {
    Small,
    /// Publishers should be slowed.
    Large,
    /// Publishers should wait.
    Full,
}

pub(crate) struct LogCore {
    pub(crate) home: Home,
    pub(crate) shared: Arc<Mutex<Shared>>,
    /// Shared with the thread that flushes, one step at a time.
    pub(crate) flusher: Arc<Mutex<Flusher>>,
    head: Head,
    wal_seq: u64,
    /// The last batch that is certain to be on the disk.
    synced_seq: u64,
    prev_crc: u32,
    prepared: Option<Prepared>,
    numbers: Arc<FileNumbers>,
    _lock: Option<Box<dyn Send>>,
}

impl LogCore {
    /// Takes the directory, recovers what it holds, and begins a new epoch.
    ///
    /// Errors: [`Failure::Held`], [`Failure::TooNew`] and [`Failure::Damaged`] leave every file as
    /// it was.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        config: LogConfig,
        me: OwnerId,
        progress: &dyn Fn(u8),
    ) -> Result<Self, Failure> {
        disk.make_dir("").map_err(io_at("making the data directory"))?;
        let owner = format!("process {}", std::process::id());
        let lock = match disk.lock("LOCK", &owner).map_err(io_at("locking the data directory"))? {
            Lock::Taken(lock) => lock,
            Lock::HeldBy(owner) => return Err(Failure::Held(owner)),
        };
        let uuid = own_store(&*disk, &*clock, me)?;
        let home = Home { disk, clock, config, uuid };
        let manifest = own_manifest(&home)?;
        let mut lock = Some(lock);
        let core = ballast::with_reserve(&home, || {
            let recovered = recovery::recover(&home, &manifest, progress, None)?;
            if home.config.is_read_at_start {
                repair::refuse_damage(&recovered.shared)?;
            }
            let epoch = recovered.epoch + 1;
            let manifest = Manifest { epoch, ..manifest.clone() };
            Self::begin(home.clone(), manifest, recovered, &mut lock)
        })?;
        ballast::take(&core.home)?;
        Ok(core)
    }

    /// Writes what is not proven once more into a new file, and makes the new epoch durable.
    pub(crate) fn begin(
        home: Home,
        mut manifest: Manifest,
        mut recovered: Recovered,
        lock: &mut Option<Box<dyn Send>>,
    ) -> Result<Self, Failure> {
        let batches: u64 = recovered.unproven.iter().map(|batch| batch.header.stride()).sum();
        let bytes = home.config.first_file_bytes.max(PAGE + batches).next_multiple_of(PAGE);
        let numbers = FileNumbers::new(recovered.next_file);
        let number = numbers.take()?;
        let file = prepare(&home, number, bytes, Fill::Zeros, &|| false)?.file;
        let WalEnd { wal_seq: prev_wal_seq, crc: prev_crc, .. } = recovered.end;
        let mut head = Head { number, file, bytes, end: PAGE, records: 0, has_header: true };
        let (mut wal_seq, mut crc) = (prev_wal_seq, prev_crc);
        for batch in recovered.unproven.drain(..) {
            let header = BatchHeader { prev_crc: crc, ..batch.header };
            let offset = head.end;
            crc = write_batch(&home, &mut head, &header, &batch.payload, true)?;
            wal_seq = header.wal_seq;
            let state = &mut recovered.shared.state;
            apply(state, header.shard_batch, number, offset, &batch.payload)
                .ok_or_else(|| Failure::Damaged("the last batch has bad records".into()))?;
        }
        // Until the header is there this file does not count, and the old copies do.
        sync(&*head.file, number)?;
        let header = file_header(&home, &head, prev_wal_seq, prev_crc);
        head.file.write_at(&[&header], 0).map_err(fatal_at("beginning a log file"))?;
        sync(&*head.file, number)?;

        let mut shared = recovered.shared;
        sweep::remove_unused(&home, recovered.unused)?;
        sweep::sweep(&home, &manifest, &shared.segments)?;
        manifest.clean_close = 0;
        manifest.next_file = numbers.next();
        manifest.last_wal = number.get();
        manifest.durable_seq = wal_seq;
        shared.durable_wal = number.get();
        (shared.written_seq, shared.durable_seq) = (wal_seq, wal_seq);
        manifest::write_manifest(&*home.disk, home.uuid, &mut manifest)?;

        shared.state.set_epoch(Epoch(manifest.epoch));
        shared.files.insert(number.get(), head.file.clone());
        let (shared, numbers) = (Arc::new(Mutex::new(shared)), Arc::new(numbers));
        let flusher = Flusher::new(home.clone(), shared.clone(), numbers.clone(), manifest);
        Ok(Self {
            home,
            shared,
            flusher: Arc::new(Mutex::new(flusher)),
            head,
            wal_seq,
            synced_seq: wal_seq,
            prev_crc: crc,
            prepared: None,
            numbers,
            _lock: lock.take(),
        })
    }

    /// What the broker is told about the store.
    pub(crate) fn opened(&self) -> Opened {
        settle_sizes(&self.shared);
        self.shared.lock().state.opened()
    }

    /// Writes a batch, and syncs it and those before it when `wanted` says so.
    ///
    /// Errors: after [`Failure::Fatal`] nothing can be written any more.
    pub(crate) fn commit(&mut self, batch: &Batch, wanted: Durability) -> Result<(), Failure> {
        let admission = {
            let shared = self.shared.lock();
            if let Some(why) = &shared.failed {
                return Err(Failure::Fatal(why.clone()));
            }
            shared.state.admit(batch.epoch, batch.number)
        };
        let result = match admission {
            Admission::Next => self.write_or_make_room(batch, wanted),
            Admission::Kept => Ok(()),
            Admission::Fenced => Err(Failure::Fenced),
            Admission::Gap => {
                Err(Failure::Fatal(format!("a batch before {} was left out", batch.number)))
            }
        };
        self.poison(result)
    }

    /// True when the file batches go to is so full that the next one should be prepared.
    pub(crate) fn wants_prepared(&self) -> bool {
        let is_small = self.head.bytes < self.home.config.wal_file_bytes;
        // A broker that hardly writes does without.
        let enough = if is_small { self.head.bytes / 64 } else { self.head.bytes / 2 };
        self.prepared.is_none() && self.head.end > PAGE + enough
    }

    /// The number of the file batches go to.
    pub(crate) fn head_number(&self) -> u32 {
        self.head.number.get()
    }

    /// A number no file had before.
    pub(crate) fn take_file_number(&self) -> Result<NonZeroU32, Failure> {
        self.numbers.take()
    }

    /// True when there are segments that could be deleted.
    pub(crate) fn has_garbage(&self) -> bool {
        let released = self.shared.lock().segments.released_bytes();
        released >= self.home.config.segment_bytes
    }

    /// True when flushing does not get on, as a rule because the disk is full.
    pub(crate) fn is_stuck(&self) -> bool {
        self.shared.lock().is_stuck
    }

    /// How far flushing is behind.
    pub(crate) fn backlog(&self) -> Backlog {
        let shared = self.shared.lock();
        let config = &self.home.config;
        let waiting = shared.sealed_bytes() / config.wal_file_bytes.max(1);
        let max = u64::from(config.wal_files_max);
        if shared.is_stuck || shared.failed.is_some() || waiting + 1 < max {
            return Backlog::Small;
        }
        if waiting < max { Backlog::Large } else { Backlog::Full }
    }

    /// Does what the thread that flushes does, for tests that want it at a certain time.
    #[cfg(test)]
    pub(crate) fn tidy(&mut self) -> Result<bool, Failure> {
        let mut flusher = self.flusher.lock();
        flusher.wake();
        flusher.step()
    }

    /// Remembers a failure after which nobody knows what the disk holds.
    pub(crate) fn poison<T>(&mut self, result: Result<T, Failure>) -> Result<T, Failure> {
        if let Err(Failure::Fatal(why)) = &result {
            self.shared.lock().failed = Some(why.clone());
        }
        result
    }

    pub(crate) fn failed(&self) -> Option<String> {
        self.shared.lock().failed.clone()
    }

    /// Marks that everything is there.
    pub(crate) fn close_clean(&mut self) -> Result<(), Failure> {
        if let Some(why) = self.failed() {
            return Err(Failure::Fatal(why));
        }
        self.sync()?;
        let mut flusher = self.flusher.lock();
        flusher.manifest.clean_close = self.wal_seq;
        flusher.write_manifest()
    }

    /// What makes room sooner or later may use up the reserve.
    fn write_or_make_room(&mut self, batch: &Batch, wanted: Durability) -> Result<(), Failure> {
        match self.write(batch, wanted) {
            Err(Failure::Full(_))
                if !may_be_refused(&batch.payload) && ballast::release(&self.home) =>
            {
                self.write(batch, wanted)
            }
            result => result,
        }
    }

    fn write(&mut self, batch: &Batch, wanted: Durability) -> Result<(), Failure> {
        let payload = &batch.payload;
        let payload_len = u32::try_from(payload.len())
            .map_err(|_| Failure::Fatal("a batch is longer than 4 GiB".into()))?;
        let is_long = self.head.records >= self.home.config.wal_records_max;
        if is_long || self.head.end + stride(payload.len()) > self.head.bytes {
            self.roll(stride(payload.len()))?;
        }
        let header = BatchHeader {
            wal_seq: self.wal_seq + 1,
            epoch: batch.epoch.0,
            last_durable: self.synced_seq,
            shard_batch: batch.number.0,
            shard: batch.shard.0,
            payload_len,
            records: batch.records,
            prev_crc: self.prev_crc,
            payload_crc: crc32c(payload),
        };
        let offset = self.head.end;
        if !self.head.has_header {
            let header = file_header(&self.home, &self.head, self.wal_seq, self.prev_crc);
            self.head.file.write_at(&[&header], 0).map_err(io_at("beginning a log file"))?;
            self.head.has_header = true;
        }
        let is_synced = wanted == Durability::Sync;
        let crc = match write_batch(&self.home, &mut self.head, &header, payload, is_synced) {
            Ok(crc) => crc,
            Err(failure @ (Failure::Full(_) | Failure::ReadOnly(_))) => {
                self.cut(offset)?;
                return Err(failure);
            }
            Err(failure) => return Err(failure),
        };
        self.wal_seq = header.wal_seq;
        self.prev_crc = crc;
        if is_synced {
            self.sync_head()?;
        }
        self.head.records = self.head.records.saturating_add(batch.records);
        let is_unsynced = self.is_unsynced();
        let shared = &mut *self.shared.lock();
        shared.written_seq = header.wal_seq;
        if is_unsynced {
            shared.unsynced = Some(self.head.file.clone());
        }
        let state = &mut shared.state;
        apply(state, batch.number.0, self.head.number, offset, payload)
            .ok_or_else(|| Failure::Fatal(format!("batch {} has bad records", batch.number)))
    }

    /// Makes everything durable that has been written.
    ///
    /// Errors: as of [`commit`](Self::commit).
    pub(crate) fn sync(&mut self) -> Result<(), Failure> {
        let result = self.sync_head();
        self.poison(result)
    }

    /// True when a power loss would cost something that has been written.
    pub(crate) fn is_unsynced(&self) -> bool {
        self.synced_seq < self.wal_seq
    }

    fn sync_head(&mut self) -> Result<(), Failure> {
        if self.is_unsynced() {
            sync(&*self.head.file, self.head.number)?;
            self.synced_seq = self.wal_seq;
            let mut shared = self.shared.lock();
            shared.unsynced = None;
            shared.durable_wal = self.head.number.get();
            shared.durable_seq = self.wal_seq;
        }
        Ok(())
    }

    /// Takes back the beginning of a batch the disk had no room for.
    fn cut(&self, offset: u64) -> Result<(), Failure> {
        match self.head.file.write_at(&[&[0; HEADER]], offset) {
            // The next batch stands in its place.
            Err(error) if error.kind() == std::io::ErrorKind::ReadOnlyFilesystem => Ok(()),
            result => result.map_err(fatal_at("cutting a refused batch")),
        }
    }

    /// A file to go on with when this one is full.
    ///
    /// Errors: only those after which nothing can be written any more.
    pub(crate) fn offer(&mut self, mut prepared: Prepared) -> Result<(), Failure> {
        if self.prepared.is_some() {
            self.discard(&prepared);
            return Ok(());
        }
        // Files of the log are in the order of their numbers, so a late one gets a new number.
        if prepared.number < self.head.number {
            let doing = "numbering a prepared log file";
            let number = self.take_file_number()?;
            let (from, to) = (wal_name(prepared.number.get()), wal_name(number.get()));
            match self.home.disk.rename(&from, &to).map_err(io_at(doing)) {
                Ok(()) => {}
                // The next file is made when it is needed.
                Err(Failure::Full(_) | Failure::ReadOnly(_)) => {
                    self.discard(&prepared);
                    return Ok(());
                }
                Err(failure) => return Err(failure),
            }
            self.home.disk.sync_dir(WAL_DIR).map_err(fatal_at(doing))?;
            prepared.number = number;
        }
        self.prepared = Some(prepared);
        Ok(())
    }

    pub(crate) fn discard(&self, prepared: &Prepared) {
        // What stays behind is blank and goes at the next start.
        let _ = self.home.disk.remove(&wal_name(prepared.number.get()));
    }

    /// Goes on with a new file that has room for `bytes`.
    pub(crate) fn roll(&mut self, bytes: u64) -> Result<(), Failure> {
        // That a later file exists says that this one is durable.
        self.sync_head()?;
        let wanted = PAGE + bytes;
        let prepared = match self.prepared.take() {
            Some(prepared) if prepared.bytes >= wanted => prepared,
            unfit => {
                if let Some(unfit) = unfit {
                    self.discard(&unfit);
                }
                self.reserve(wanted)?
            }
        };
        let Prepared { number, file, bytes } = prepared;
        let next = Head { number, file, bytes, end: PAGE, records: 0, has_header: false };
        let old = std::mem::replace(&mut self.head, next);
        let mut shared = self.shared.lock();
        shared.files.insert(number.get(), self.head.file.clone());
        let batch = shared.state.last_batch().0;
        let end = WalEnd { wal_seq: self.wal_seq, crc: self.prev_crc, batch };
        shared.freeze(WalFile { number: old.number.get(), bytes: old.bytes, end });
        Ok(())
    }

    /// A new file of the usual size, or a small one when there is no room for that.
    fn reserve(&self, wanted: u64) -> Result<Prepared, Failure> {
        let config = &self.home.config;
        let of_size = |bytes: u64| {
            let bytes = wanted.max(bytes).next_multiple_of(PAGE);
            prepare(&self.home, self.take_file_number()?, bytes, Fill::Reserved, &|| false)
        };
        match of_size(config.wal_file_bytes) {
            Err(Failure::Full(_)) => of_size(config.first_file_bytes),
            prepared => prepared,
        }
    }

    pub(crate) fn last_batch(&self) -> ShardBatch {
        self.shared.lock().state.last_batch()
    }
}

fn file_header(home: &Home, head: &Head, prev_wal_seq: u64, prev_crc: u32) -> [u8; HEADER] {
    let header = FileHeader {
        flags: 0,
        file_seq: head.number.get(),
        prev_wal_seq,
        prev_crc,
        created_ms: home.clock.unix_ms(),
        size: head.bytes,
    };
    header.encode(home.uuid)
}

/// Writes a batch behind the last one of `head`; returns the checksum of its header.
fn write_batch(
    home: &Home,
    head: &mut Head,
    header: &BatchHeader,
    payload: &[u8],
    is_synced: bool,
) -> Result<u32, Failure> {
    const ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];
    let (bytes, crc) = header.encode(home.uuid, head.number.get());
    let padding = usize::try_from(header.stride()).unwrap_or(0) - HEADER - payload.len();
    let parts: [&[u8]; 3] = [&bytes, payload, &ZEROS[..padding]];
    let written = if is_synced {
        head.file.write_before_sync(&parts, head.end)
    } else {
        head.file.write_at(&parts, head.end)
    };
    written.map_err(io_at("writing to the log"))?;
    head.end += header.stride();
    Ok(crc)
}

fn sync(file: &dyn DiskFile, number: NonZeroU32) -> Result<(), Failure> {
    file.sync_data()
        .map_err(|error| Failure::Fatal(format!("syncing {}: {error}", wal_name(number.get()))))
}
