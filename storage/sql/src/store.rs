//! A database behind the port of `core/store`: a thread that writes, one that reads.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Instant,
};

use polymq_store::{
    Batch, Capabilities, Close, CursorId, CursorState, Durability, Epoch, Health, LogId,
    MessageRef, Opened, Outcome, OwnerId, Page, ReadLimit, Reply, Seq, ShardBatch, ShardId, Store,
    StoreError,
};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::{
    database::Database,
    postgres::{Postgres, PostgresConfig, PostgresReader},
    reader::{self, Read},
    sqlite::{Sqlite, SqliteConfig, SqliteReader},
    writer::{Command, OnFatal, Shared, Writer},
};

/// The largest payload of one batch. It travels as one value, of which both databases take a
/// little less than 1 GiB.
pub(crate) const BATCH_BYTES_MAX: u64 = 900 * 1024 * 1024;

/// A store in a database.
///
/// Every durability class is served as [`Durability::Sync`].
pub struct SqlStore {
    commands: Option<UnboundedSender<Command>>,
    reads: Reads,
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

/// Where reads go.
enum Reads {
    Postgres(UnboundedSender<Read<PostgresReader>>),
    Sqlite(UnboundedSender<Read<SqliteReader>>),
}

impl SqlStore {
    /// A store in PostgreSQL; nothing is touched until it is opened.
    ///
    /// `on_fatal` is called once, on the thread that writes, when the process should end: another
    /// broker took over, or nobody knows what the database holds.
    ///
    /// Errors: when no thread can be started.
    pub fn postgres(
        config: PostgresConfig,
        on_fatal: impl FnOnce(&str) + Send + 'static,
    ) -> io::Result<Self> {
        Self::start(Postgres::new(config), Box::new(on_fatal), Reads::Postgres)
    }

    /// A store in a file of SQLite; nothing is touched until it is opened.
    ///
    /// `on_fatal` is called once, on the thread that writes, when a write or a sync has failed:
    /// the process should end there.
    ///
    /// Errors: when no thread can be started.
    pub fn sqlite(
        config: SqliteConfig,
        on_fatal: impl FnOnce(&str) + Send + 'static,
    ) -> io::Result<Self> {
        Self::start(Sqlite::new(config), Box::new(on_fatal), Reads::Sqlite)
    }

    fn start<D: Database>(
        database: D,
        on_fatal: OnFatal,
        wrap: fn(UnboundedSender<Read<D::Reader>>) -> Reads,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (commands, incoming) = unbounded_channel();
        let (reads, asked) = unbounded_channel();
        let writer = Writer {
            database,
            shared: Arc::clone(&shared),
            commands: incoming,
            reads: reads.clone(),
            on_fatal: Some(on_fatal),
            epoch: Epoch::default(),
            ended: None,
            is_behind: false,
            renewed: Instant::now(),
            swept: None,
            sweeps_after: None,
        };
        // Each thread makes its own runtime: sockets stay where they were opened.
        let writer_runtime = runtime()?;
        let writer = thread::Builder::new()
            .name("polymq-sql-write".into())
            .spawn(move || writer_runtime.block_on(writer.run()))?;
        let read_shared = Arc::clone(&shared);
        let reader_runtime = runtime()?;
        thread::Builder::new()
            .name("polymq-sql-read".into())
            .spawn(move || reader_runtime.block_on(reader::serve(asked, read_shared)))?;
        Ok(Self { commands: Some(commands), reads: wrap(reads), shared, writer: Some(writer) })
    }

    /// Whether all rows are those of messages that live.
    #[cfg(test)]
    pub(crate) fn has_no_garbage(&self) -> bool {
        self.shared.logs.lock().as_ref().is_some_and(|logs| logs.garbage.is_empty())
    }

    fn send(&self, command: Command) {
        let lost = match &self.commands {
            Some(commands) => commands.send(command).err().map(|lost| lost.0),
            None => Some(command),
        };
        match lost {
            None => {}
            Some(Command::Open(_, _, reply)) => reply(Err(StoreError::Closed)),
            Some(Command::Submit(_, reply)) => reply(Err(StoreError::Closed)),
            Some(Command::Outcome(_, reply)) => reply(Err(StoreError::Closed)),
            Some(Command::Close(reply)) => reply(Err(StoreError::Closed)),
        }
    }
}

pub(crate) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Hands a read over. The reader's thread lives as long as anybody can ask.
fn ask<R>(reads: &UnboundedSender<Read<R>>, read: Read<R>) {
    match reads.send(read).map_err(|lost| lost.0) {
        Err(Read::From(.., reply) | Read::At(_, reply)) => reply(Err(StoreError::Closed)),
        Err(Read::Cursor(_, reply)) => reply(Err(StoreError::Closed)),
        Ok(()) | Err(Read::Use(_) | Read::Stop(_)) => {}
    }
}

impl Store for SqlStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: true, weaker_classes: false, batch_bytes_max: BATCH_BYTES_MAX }
    }

    fn open(&self, shard: ShardId, me: OwnerId, reply: Reply<Opened>) {
        self.send(Command::Open(shard, me, reply));
    }

    fn submit(&self, batch: Batch, _wanted: Durability, reply: Reply<ShardBatch>) {
        self.send(Command::Submit(batch, reply));
    }

    fn outcome(&self, _shard: ShardId, number: ShardBatch, reply: Reply<Outcome>) {
        self.send(Command::Outcome(number, reply));
    }

    fn read(&self, log: LogId, from: Seq, limit: ReadLimit, reply: Reply<Page>) {
        match &self.reads {
            Reads::Postgres(reads) => ask(reads, Read::From(log, from, limit, reply)),
            Reads::Sqlite(reads) => ask(reads, Read::From(log, from, limit, reply)),
        }
    }

    fn read_at(&self, messages: &[MessageRef], reply: Reply<Page>) {
        match &self.reads {
            Reads::Postgres(reads) => ask(reads, Read::At(messages.to_vec(), reply)),
            Reads::Sqlite(reads) => ask(reads, Read::At(messages.to_vec(), reply)),
        }
    }

    fn cursor(&self, cursor: CursorId, reply: Reply<CursorState>) {
        match &self.reads {
            Reads::Postgres(reads) => ask(reads, Read::Cursor(cursor, reply)),
            Reads::Sqlite(reads) => ask(reads, Read::Cursor(cursor, reply)),
        }
    }

    fn health(&self) -> Health {
        self.shared.health()
    }

    fn close(&self, _how: Close, reply: Reply<()>) {
        self.send(Command::Close(reply));
    }
}

impl Drop for SqlStore {
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

impl std::fmt::Debug for SqlStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlStore").field("health", &self.health()).finish_non_exhaustive()
    }
}
