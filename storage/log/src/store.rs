//! The log behind the port of `core/store`: a thread that writes, one that reads.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
};

use parking_lot::Mutex;

use polymq_store::{
    Batch, Capabilities, Close, CursorId, CursorState, Damage, Durability, FULL_FOR, Health, Live,
    LogId, MessageRef, Opened, Outcome, OwnerId, Page, ReadLimit, Reply, Seq, ShardBatch, ShardId,
    Store, StoreError,
};

use crate::{
    clock::{Clock, SystemClock},
    config::LogConfig,
    disk::{Disk, RealDisk},
    error::{Failure, Unreadable},
    overlay::Overlay,
    place::Shared,
    preparer::Preparer,
    read,
    writer::{Command, Status, Writer},
};

/// What the process should exit with after a failed write or sync (`EX_IOERR`).
pub const EXIT_CODE_STORE_FAILED: i32 = 74;

/// The file log.
///
/// The store's secret name comes from the first [`OwnerId`] it is opened with, so that must be
/// random.
pub struct LogStore {
    commands: Option<Sender<Command>>,
    reads: Sender<Read>,
    status: Arc<Status>,
    writer: Option<JoinHandle<()>>,
}

enum Read {
    From(LogId, Seq, ReadLimit, Reply<Page>),
    At(Vec<MessageRef>, Reply<Page>),
    Cursor(CursorId, Reply<CursorState>),
}

impl LogStore {
    /// A store in the directory at `path`; nothing is touched until it is opened.
    ///
    /// `on_fatal` is called once, on a thread of the store, when a write or a sync has failed:
    /// the process should end there with [`EXIT_CODE_STORE_FAILED`].
    ///
    /// Errors: when no thread can be started.
    pub fn at(
        path: impl Into<PathBuf>,
        config: LogConfig,
        on_fatal: impl FnOnce(&str) + Send + 'static,
    ) -> io::Result<Self> {
        let disk = Arc::new(RealDisk::new(path));
        Self::on(disk, Arc::new(SystemClock), config, on_fatal)
    }

    /// The store in the directory at `path`, to look at: it is recovered in memory, whatever is
    /// written to it goes with it, and the directory is not touched.
    ///
    /// Errors: when no thread can be started.
    pub fn untouched(path: impl Into<PathBuf>, config: LogConfig) -> io::Result<Self> {
        let disk = Arc::new(Overlay::new(path));
        let config = LogConfig { scrub_secs: 0, ..config };
        Self::on(disk, Arc::new(SystemClock), config, |_| {})
    }

    /// A store on this disk.
    ///
    /// Errors: when no thread can be started.
    pub fn on(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        config: LogConfig,
        on_fatal: impl FnOnce(&str) + Send + 'static,
    ) -> io::Result<Self> {
        let status = Arc::new(Status {
            health: Mutex::new(Health::Ok),
            full_at: Mutex::new(None),
            shared: Mutex::new(None),
            on_fatal: Mutex::new(Some(Box::new(on_fatal))),
        });
        let (commands, incoming) = channel();
        let (reads, incoming_reads) = channel();
        let writer = Writer {
            disk,
            clock,
            config,
            status: status.clone(),
            preparer: Preparer::start()?,
            core: None,
            flush: None,
            scrub: None,
            requested_at: 0,
            sync_by: None,
        };
        let writer = thread::Builder::new()
            .name("polymq-log-write".into())
            .spawn(move || writer.run(&incoming))?;
        let read_status = status.clone();
        thread::Builder::new()
            .name("polymq-log-read".into())
            .spawn(move || serve_reads(&incoming_reads, &read_status))?;
        Ok(Self { commands: Some(commands), reads, status, writer: Some(writer) })
    }

    fn send(&self, command: Command) {
        let lost = match &self.commands {
            Some(commands) => commands.send(command).err().map(|lost| lost.0),
            None => Some(command),
        };
        match lost {
            None => {}
            Some(Command::Open(_, reply)) => reply(Err(StoreError::Closed)),
            Some(Command::Submit(_, _, reply)) => reply(Err(StoreError::Closed)),
            Some(Command::Outcome(_, reply)) => reply(Err(StoreError::Closed)),
            Some(Command::Close(_, reply)) => reply(Err(StoreError::Closed)),
        }
    }

    fn send_read(&self, read: Read) {
        match self.reads.send(read) {
            Ok(()) => {}
            Err(lost) => match lost.0 {
                Read::From(.., reply) | Read::At(_, reply) => reply(Err(StoreError::Closed)),
                Read::Cursor(_, reply) => reply(Err(StoreError::Closed)),
            },
        }
    }
}

fn serve_reads(reads: &Receiver<Read>, status: &Status) {
    for read in reads {
        let shared = status.shared.lock().clone();
        // A panic of whoever asked must not stop the reads of the others.
        let served = catch_unwind(AssertUnwindSafe(|| serve(read, shared.as_deref())));
        if served.is_err() {
            tracing::error!(event = "read_callback_panicked", "the answer to a read panicked");
        }
    }
}

fn serve(read: Read, shared: Option<&Mutex<Shared>>) {
    let page = |result: Option<Result<Page, Failure>>| match result {
        Some(result) => {
            if let (Err(Failure::Unreadable(range)), Some(shared)) = (&result, shared) {
                note(shared, range);
            }
            result.map_err(StoreError::from)
        }
        None => Err(StoreError::Closed),
    };
    match read {
        Read::From(log, from, limit, reply) => {
            reply(page(shared.map(|shared| read::read(shared, log, from, limit))));
        }
        Read::At(messages, reply) => {
            reply(page(shared.map(|shared| read::read_at(shared, &messages))));
        }
        Read::Cursor(cursor, reply) => {
            let state = shared.map(|shared| {
                let id = u32::try_from(cursor.0).ok().map(LogId);
                let shared = shared.lock();
                let log = id.and_then(|id| shared.state.log(id));
                log.map(polymq_store::state::LogState::cursor).unwrap_or_default()
            });
            reply(state.ok_or(StoreError::Closed));
        }
    }
}

/// Takes note of damage, outside of the lock.
pub(crate) fn note(shared: &Mutex<Shared>, range: &Unreadable) {
    let (damages, name) = {
        let shared = shared.lock();
        let name = shared.state.log(range.log).map(|log| log.name().to_owned());
        (shared.damages.clone(), name.unwrap_or_default())
    };
    damages.note(range, &name);
}

impl Store for LogStore {
    fn capabilities(&self) -> Capabilities {
        let batch_bytes_max = u64::from(u32::MAX);
        Capabilities { durable: true, weaker_classes: true, batch_bytes_max }
    }

    fn open(&self, _shard: ShardId, me: OwnerId, reply: Reply<Opened>) {
        self.send(Command::Open(me, reply));
    }

    fn submit(&self, batch: Batch, wanted: Durability, reply: Reply<ShardBatch>) {
        self.send(Command::Submit(batch, wanted, reply));
    }

    fn outcome(&self, _shard: ShardId, number: ShardBatch, reply: Reply<Outcome>) {
        self.send(Command::Outcome(number, reply));
    }

    fn read(&self, log: LogId, from: Seq, limit: ReadLimit, reply: Reply<Page>) {
        self.send_read(Read::From(log, from, limit, reply));
    }

    fn read_at(&self, messages: &[MessageRef], reply: Reply<Page>) {
        self.send_read(Read::At(messages.to_vec(), reply));
    }

    fn cursor(&self, cursor: CursorId, reply: Reply<CursorState>) {
        self.send_read(Read::Cursor(cursor, reply));
    }

    fn health(&self) -> Health {
        let health = self.status.health.lock().clone();
        let full_at = *self.status.full_at.lock();
        match health {
            Health::Ok if full_at.is_some_and(|at| at.elapsed() < FULL_FOR) => Health::NearFull,
            health => health,
        }
    }

    fn live(&self) -> Option<Live> {
        let shared = self.status.shared.lock().clone()?;
        let shared = shared.lock();
        Some(Live { messages: shared.state.live_count(), bytes: shared.state.live_bytes() })
    }

    fn damage(&self) -> Damage {
        let shared = self.status.shared.lock().clone();
        shared.map(|shared| shared.lock().damages.clone().summary()).unwrap_or_default()
    }

    fn close(&self, how: Close, reply: Reply<()>) {
        self.send(Command::Close(how, reply));
    }
}

impl Drop for LogStore {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(writer) = self.writer.take() {
            // The last owner may be a callback on that very thread.
            if writer.thread().id() != thread::current().id() {
                let _ = writer.join();
            }
        }
    }
}

impl std::fmt::Debug for LogStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogStore").field("health", &self.health()).finish_non_exhaustive()
    }
}
