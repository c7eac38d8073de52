//! Memory and start depend on the log that is not flushed, not on the backlog.
#![expect(clippy::unwrap_used, reason = "what fails ends the test")]

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::BytesMut;
use tempfile::TempDir;

use polymq_log::{Disk, DiskFile, Lock, LogConfig, LogStore, RealDisk, SystemClock};
use polymq_store::{
    Batch, BatchWriter, Close, Durability, LogId, Opened, OwnerId, ReadLimit, Seq, ShardBatch,
    ShardId, Store, wait,
};

const LOG: LogId = LogId(1);
const MESSAGES: u64 = 2_000_000;
const BATCH: u64 = 4_000;
const MIB: u64 = 1024 * 1024;

/// A quarter of the default sizes, so that the backlog is many times the log.
const CONFIG: LogConfig = LogConfig {
    wal_file_bytes: 16 * MIB,
    first_file_bytes: 4 * MIB,
    wal_records_max: 500_000,
    wal_files_kept: 1,
    wal_files_max: 4,
    segment_bytes: 16 * MIB,
    own_segment_bytes: 64 * 1024,
    garbage_bytes: 16 * MIB,
    alike_segments: 8,
    step_bytes: 256 * 1024,
    ballast_bytes: 0,
    is_read_at_start: false,
    scrub_secs: 0,
    scrub_bytes_per_sec: 0,
};

/// A disk that counts what is read from it.
struct Counted {
    disk: RealDisk,
    read: Arc<AtomicU64>,
}

struct CountedFile {
    file: Arc<dyn DiskFile>,
    read: Arc<AtomicU64>,
}

impl Counted {
    fn wrap(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(CountedFile { file, read: self.read.clone() })
    }
}

impl Disk for Counted {
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.create(path).map(|file| self.wrap(file))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(path).map(|file| self.wrap(file))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.make_dir(dir)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn lock(&self, path: &str, owner: &str) -> io::Result<Lock> {
        self.disk.lock(path, owner)
    }
}

impl DiskFile for CountedFile {
    fn byte_len(&self) -> io::Result<u64> {
        self.file.byte_len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        self.file.write_at(parts, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }
}

struct Backlog {
    dir: TempDir,
    read: Arc<AtomicU64>,
    store: Option<LogStore>,
    opened: Opened,
}

impl Backlog {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let (read, opened) = (Arc::default(), Opened::default());
        let mut backlog = Self { dir, read, store: None, opened };
        backlog.reopen();
        backlog
    }

    fn reopen(&mut self) {
        if let Some(store) = self.store.take() {
            wait(|reply| store.close(Close::Clean, reply)).unwrap();
        }
        let disk = RealDisk::new(self.dir.path().join("data"));
        self.read.store(0, Ordering::Relaxed);
        let disk = Arc::new(Counted { disk, read: self.read.clone() });
        let clock = Arc::new(SystemClock);
        let store = LogStore::on(disk, clock, CONFIG, |why: &str| panic!("{why}")).unwrap();
        self.opened = wait(|reply| store.open(ShardId(0), OwnerId(9), reply)).unwrap();
        self.store = Some(store);
    }

    fn write(&mut self, write: impl FnOnce(&mut BatchWriter<'_>)) {
        let number = self.opened.last_batch.next();
        let (mut buf, mut records) = (BytesMut::new(), 0);
        write(&mut BatchWriter::new(number, &mut buf, &mut records));
        let epoch = self.opened.epoch;
        let batch = Batch { shard: ShardId(0), epoch, number, records, payload: buf.freeze() };
        let store = self.store.as_ref().unwrap();
        let written = wait(|reply| store.submit(batch, Durability::Sync, reply)).unwrap();
        self.opened.last_batch = ShardBatch(written.0);
    }

    fn fill(&mut self, messages: u64) {
        self.write(|w| w.log_create(LOG, "deep"));
        for first in (0..messages).step_by(usize::try_from(BATCH).unwrap()) {
            self.write(|w| {
                for seq in first..first + BATCH {
                    w.publish(LOG, Seq(seq), 0, 0, &[b"properties"], &[5; 90]);
                }
            });
        }
    }
}

/// One test at a time: they look at the memory of the process.
static ALONE: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

/// Memory of this process, where the system tells.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split(' ').nth(1)?.parse::<u64>().ok()? * 4096)
}

#[test]
fn memory_and_start_do_not_grow_with_the_backlog() {
    let _alone = ALONE.lock();
    let mut backlog = Backlog::new();
    let before = resident_bytes();
    backlog.fill(MESSAGES);
    if let (Some(before), Some(after)) = (before, resident_bytes()) {
        // An index of 24 bytes a message would be 48 MB, beside what is measured here.
        let grown = after.saturating_sub(before);
        assert!(grown < 40 * MIB, "{} MiB for {MESSAGES} messages", grown / MIB);
    }
    backlog.reopen();
    let read = backlog.read.load(Ordering::Relaxed);
    let log = &backlog.opened.logs[0];
    assert_eq!((log.live_count, log.live_bytes), (MESSAGES, MESSAGES * 100));
    let wal = u64::from(CONFIG.wal_files_max) * CONFIG.wal_file_bytes;
    assert!(read < wal + MIB, "{} MiB read at start", read / MIB);
    let backlog_bytes = MESSAGES * 132;
    assert!(read * 3 < backlog_bytes, "a start reads a part of the backlog: {read} bytes");
}

#[test]
fn pages_of_a_long_log_are_read_once_and_its_segments_go() {
    const SOME: u64 = 400_000;
    let _alone = ALONE.lock();
    let mut backlog = Backlog::new();
    backlog.fill(SOME);
    backlog.reopen();
    backlog.read.store(0, Ordering::Relaxed);
    let limit = ReadLimit { messages_max: 1000, bytes_max: u64::MAX };
    let (mut from, mut next) = (Some(Seq(0)), 0);
    while let Some(at) = from {
        let store = backlog.store.as_ref().unwrap();
        let page = wait(|reply| store.read(LOG, at, limit, reply)).unwrap();
        for message in &page.messages {
            assert_eq!(message.seq, Seq(next));
            next += 1;
        }
        from = page.next;
        backlog.write(|w| w.ack(LOG, &[(at, Seq(next - 1))]));
    }
    assert_eq!(next, SOME);
    // The thread that flushes reads the log once more, at most.
    let read = backlog.read.load(Ordering::Relaxed);
    assert!(read < SOME * 136 * 2 + 8 * MIB, "{} MiB read", read / MIB);
    backlog.reopen();
    assert_eq!(backlog.opened.logs[0].live_count, 0);
}
