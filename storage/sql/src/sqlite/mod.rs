//! SQLite: one file, one connection that writes, a few that read.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use polymq_store::{
    Epoch, Health, LogId, OwnerId, RESERVE_BYTES, ShardBatch, ShardId, may_be_refused,
};
use sqlx::{
    Connection, Row, SqliteConnection, raw_sql,
    sqlite::{
        SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions,
        SqliteSynchronous,
    },
};

use crate::{
    changes::Changes,
    database::{Database, Loaded, Position, SWEEP_ROWS, Sent, unsigned},
    failure::Failure,
    load, migrations,
};

mod backup;
mod checkpoint;
mod commit;
mod lock;
mod read;
mod reserve;

pub use backup::{Examined, back_up_sqlite, examine_sqlite};
use checkpoint::Checkpoints;
use lock::Lock;
pub(crate) use read::SqliteReader;
use reserve::{Refusals, Reserve, explained};

/// Pages that are given back at once: a bound on how long a batch waits behind it.
const GIVE_BACK: &str = "PRAGMA incremental_vacuum(4096)";
/// As many on a full disk: they go through the write-ahead file.
const GIVE_BACK_LITTLE: &str = "PRAGMA incremental_vacuum(1024)";
/// The write-ahead file is cut to this when it begins anew. One batch or a long read may have made
/// it longer; a file that keeps its length syncs faster.
const WAL_BYTES_KEPT: u32 = 64 * 1024 * 1024;
/// How often a reserve that was given up is asked for again.
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// While there is more to give back; batches have their turn in between.
const TIDY_SOON: Duration = Duration::from_millis(5);
/// For a tool that has the file open; brokers keep each other out by the lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const READERS: u32 = 2;

/// Where SQLite keeps everything.
#[derive(Debug, Clone)]
pub struct SqliteConfig {
    /// The file of the database, made when it is not there. Beside it stand `-wal`, `-shm`,
    /// `.lock` and `.reserve`.
    pub path: PathBuf,
    /// Room in bytes that is kept for the time when the disk is full; 0 for none.
    pub reserve_bytes: u64,
}

impl SqliteConfig {
    /// This file, with the usual reserve.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), reserve_bytes: RESERVE_BYTES }
    }
}

pub(crate) struct Sqlite {
    path: PathBuf,
    reserve_bytes: u64,
    open: Option<Open>,
}

/// An open file.
struct Open {
    path: PathBuf,
    connection: SqliteConnection,
    shard: ShardId,
    checkpoints: Checkpoints,
    reserve: Reserve,
    refusals: Refusals,
    /// When to ask for the reserve, once it was given up.
    tidies_at: Instant,
    /// Held until the file is closed.
    _lock: Lock,
}

impl Sqlite {
    pub(crate) fn new(config: SqliteConfig) -> Self {
        let SqliteConfig { path, reserve_bytes } = config;
        Self { path, reserve_bytes, open: None }
    }

    fn options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(&self.path)
            .create_if_missing(true)
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("trusted_schema", "OFF")
            .pragma("cell_size_check", "ON")
            .pragma("wal_autocheckpoint", "0")
            .pragma("journal_size_limit", WAL_BYTES_KEPT.to_string())
            // Neither is another disk asked for room in the middle of a statement.
            .pragma("temp_store", "MEMORY")
    }

    /// Connects, brings the tables up to date, and begins a new epoch.
    async fn own(&self, shard: ShardId) -> Result<(SqliteConnection, Position), Failure> {
        let refused = |error| cannot_open(&self.path, error);
        let options = self.options();
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(refused)?;
        let migrated = migrations::sqlite().run(&mut connection).await;
        migrated.map_err(|error| migrations::failure(error, refused))?;
        let taken = sqlx::query(
            "INSERT INTO pmq_shard (shard, epoch, last_batch, next_log) VALUES (?1, 1, 0, 0)
             ON CONFLICT (shard) DO UPDATE SET epoch = epoch + 1 RETURNING epoch, last_batch",
        );
        let row = taken.bind(shard.0).fetch_one(&mut connection).await;
        let row = row.map_err(|error| explained(&self.path, failure(error)))?;
        Ok((connection, position_in(&row)?))
    }

    fn file(&mut self) -> Result<&mut Open, Failure> {
        self.open.as_mut().ok_or(Failure::Closed)
    }
}

impl Database for Sqlite {
    type Reader = SqliteReader;

    async fn open(&mut self, shard: ShardId, _me: OwnerId) -> Result<Position, Failure> {
        self.open = None;
        let mut lock = Lock::take(&self.path).await?;
        let mut reserve = Reserve::of(&self.path, self.reserve_bytes);
        let owned = match self.own(shard).await {
            Err(Failure::Full(_)) if reserve.release() => self.own(shard).await,
            owned => owned,
        };
        let (connection, position) = owned?;
        lock.sign(&self.path)?;
        reserve.refill();
        let (path, checkpoints) = (self.path.clone(), Checkpoints::default());
        let tidies_at = Instant::now();
        let open = Open {
            path,
            connection,
            shard,
            checkpoints,
            reserve,
            refusals: Refusals::default(),
            tidies_at,
            _lock: lock,
        };
        self.open = Some(open);
        Ok(position)
    }

    async fn load(&mut self) -> Result<Loaded, Failure> {
        let Open { connection, shard, .. } = self.file()?;
        let place = sqlx::query_as(load::SHARD).bind(shard.0);
        let logs = sqlx::query_as(load::LOGS).bind(shard.0);
        let garbage = sqlx::query_as(load::GARBAGE);
        let rows = load::Rows {
            shard: place.fetch_one(&mut *connection).await.map_err(failure)?,
            logs: logs.fetch_all(&mut *connection).await.map_err(failure)?,
            garbage: garbage.fetch_all(&mut *connection).await.map_err(failure)?,
            metas: sqlx::query_as(load::METAS).fetch_all(connection).await.map_err(failure)?,
        };
        rows.loaded()
    }

    async fn connect(&mut self) -> Result<(), Failure> {
        self.file().map(|_| ())
    }

    fn is_connected(&self) -> bool {
        self.open.is_some()
    }

    async fn commit(&mut self, epoch: Epoch, changes: &Changes<'_>) -> Result<Sent, Failure> {
        let open = self.file()?;
        if open.reserve.is_given_up() && may_be_refused(changes.payload) {
            open.reserve.refill();
            if open.reserve.is_given_up() {
                return Err(Failure::Full("what is left is kept for acknowledgements".to_owned()));
            }
        }
        let sent = match open.commit(epoch, changes).await {
            Err(Failure::Full(_)) if !may_be_refused(changes.payload) && open.reserve.release() => {
                open.commit(epoch, changes).await
            }
            sent => sent,
        }?;
        open.checkpoint_when_due().await?;
        Ok(sent)
    }

    async fn position(&mut self) -> Result<Position, Failure> {
        let open = self.file()?;
        let position = sqlx::query("SELECT epoch, last_batch FROM pmq_shard WHERE shard = ?1");
        let row = position.bind(open.shard.0).fetch_one(&mut open.connection).await;
        position_in(&row.map_err(failure)?)
    }

    fn lease(&self) -> Option<Duration> {
        None
    }

    async fn renew(&mut self, _epoch: Epoch) -> Result<(), Failure> {
        Ok(())
    }

    async fn sweep(&mut self, log: LogId, from: i64, below: i64) -> Result<Option<i64>, Failure> {
        let open = self.file()?;
        let swept = match open.sweep(log, from, below).await {
            Err(Failure::Full(_)) if open.reserve.release() => open.sweep(log, from, below).await,
            swept => swept,
        }?;
        open.checkpoint_when_due().await?;
        Ok(swept)
    }

    fn shortage(&self) -> Option<Health> {
        self.open.as_ref().filter(|open| open.reserve.is_given_up()).map(|_| Health::NearFull)
    }

    fn tidies_in(&self) -> Option<Duration> {
        let open = self.open.as_ref().filter(|open| open.reserve.is_given_up())?;
        Some(open.tidies_at.saturating_duration_since(Instant::now()))
    }

    async fn tidy(&mut self) -> Result<(), Failure> {
        let open = self.file()?;
        let has_more = open.give_back_little().await?;
        open.reserve.refill();
        open.tidies_at = Instant::now() + if has_more { TIDY_SOON } else { TIDY_EVERY };
        Ok(())
    }

    async fn close(&mut self, _epoch: Epoch) {
        if let Some(open) = self.open.take()
            && let Err(error) = open.connection.close().await
        {
            tracing::warn!(event = "database_not_closed", why = %error);
        }
    }

    fn reader(&self) -> SqliteReader {
        let options = self.options().pragma("query_only", "ON");
        let pool = SqlitePoolOptions::new().max_connections(READERS).idle_timeout(None);
        SqliteReader::new(pool.max_lifetime(None).connect_lazy_with(options))
    }
}

impl Open {
    async fn commit(&mut self, epoch: Epoch, changes: &Changes<'_>) -> Result<Sent, Failure> {
        let sent = commit::commit(&mut self.connection, self.shard, epoch, changes).await;
        match sent {
            Ok(sent) => {
                self.refusals.end();
                Ok(sent)
            }
            Err(failure) => Err(self.explained(failure)),
        }
    }

    fn explained(&mut self, failure: Failure) -> Failure {
        self.refusals.explained(&self.path, failure)
    }

    async fn sweep(&mut self, log: LogId, from: i64, below: i64) -> Result<Option<i64>, Failure> {
        let swept = sweep(&mut self.connection, log, from, below).await;
        swept.map_err(|failure| self.explained(failure))
    }

    async fn checkpoint_when_due(&mut self) -> Result<(), Failure> {
        let moved = self.checkpoints.run_when_due(&mut self.connection).await;
        match self.harmless(moved)? {
            // What is moved makes room in the write-ahead file, so the reserve is for that too.
            false if self.reserve.release() => {
                let moved = self.checkpoints.run(&mut self.connection).await;
                self.harmless(moved).map(|_| ())
            }
            true | false => Ok(()),
        }
    }

    /// Gives pages that nothing uses back to a full disk, a few at a time; true when there are
    /// more.
    async fn give_back_little(&mut self) -> Result<bool, Failure> {
        let before = self.free_pages().await?;
        let given = raw_sql(GIVE_BACK_LITTLE).execute(&mut self.connection).await;
        let given = given.map(|_| ()).map_err(failure);
        // Only then does the file become shorter.
        if self.harmless(given)? {
            let moved = self.checkpoints.run(&mut self.connection).await;
            self.harmless(moved)?;
        }
        let after = self.free_pages().await?;
        Ok(after > 0 && after < before)
    }

    async fn free_pages(&mut self) -> Result<i64, Failure> {
        let count = sqlx::query_scalar("PRAGMA freelist_count");
        count.fetch_one(&mut self.connection).await.map_err(failure)
    }

    /// Whether something was done that can also be done later, when there is room.
    fn harmless(&mut self, done: Result<(), Failure>) -> Result<bool, Failure> {
        match done.map_err(|failure| self.explained(failure)) {
            Ok(()) => Ok(true),
            Err(Failure::Full(_)) => Ok(false),
            Err(Failure::ReadOnly(_) | Failure::Again(_)) => Ok(true),
            Err(failure) => Err(failure),
        }
    }
}

async fn sweep(
    connection: &mut SqliteConnection,
    log: LogId,
    from: i64,
    below: i64,
) -> Result<Option<i64>, Failure> {
    let doomed = sqlx::query(
        "SELECT count(*), max(seq) FROM (SELECT seq FROM pmq_msg
         WHERE log_id = ?1 AND seq >= ?2 AND seq < ?3 ORDER BY seq LIMIT ?4)",
    );
    let doomed = doomed.bind(log.0).bind(from).bind(below).bind(SWEEP_ROWS);
    let row = doomed.fetch_one(&mut *connection).await.map_err(failure)?;
    let (count, last): (i64, Option<i64>) =
        (row.try_get(0).map_err(failure)?, row.try_get(1).map_err(failure)?);
    if let Some(last) = last {
        let delete = sqlx::query("DELETE FROM pmq_msg WHERE log_id = ?1 AND seq BETWEEN ?2 AND ?3");
        let delete = delete.bind(log.0).bind(from).bind(last);
        delete.execute(&mut *connection).await.map_err(failure)?;
    }
    // What was freed goes back to the file system, as much as one step frees.
    raw_sql(GIVE_BACK).execute(&mut *connection).await.map_err(failure)?;
    if let Some(last) = last.filter(|_| count >= SWEEP_ROWS) {
        return Ok(Some(last.saturating_add(1)));
    }
    let done = sqlx::query("DELETE FROM pmq_garbage WHERE log_id = ?1 AND below = ?2");
    done.bind(log.0).bind(below).execute(connection).await.map_err(failure)?;
    Ok(None)
}

fn position_in(row: &sqlx::sqlite::SqliteRow) -> Result<Position, Failure> {
    let epoch: i64 = row.try_get("epoch").map_err(failure)?;
    let last_batch: i64 = row.try_get("last_batch").map_err(failure)?;
    Ok(Position { epoch: Epoch(unsigned(epoch)), last_batch: ShardBatch(unsigned(last_batch)) })
}

/// A file whose name is that of the database and something more.
fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// A file that is no database of ours is left alone.
fn cannot_open(path: &Path, error: sqlx::Error) -> Failure {
    match explained(path, failure(error)) {
        Failure::Fatal(why) | Failure::Damaged(why) | Failure::Lost(why) => {
            Failure::Refused(format!("`{}`: {why}", path.display()))
        }
        other => other,
    }
}

/// What an error of SQLite means. Codes: <https://www.sqlite.org/rescode.html>.
pub(crate) fn failure(error: sqlx::Error) -> Failure {
    const BUSY: u32 = 5;
    const LOCKED: u32 = 6;
    const READONLY: u32 = 8;
    const IO: u32 = 10;
    const CORRUPT: u32 = 11;
    const FULL: u32 = 13;
    const CANNOT_OPEN: u32 = 14;
    const NOTADB: u32 = 26;
    const IO_WRITE: u32 = IO | 3 << 8;
    const IO_TRUNCATE: u32 = IO | 6 << 8;
    const IO_SHM_OPEN: u32 = IO | 18 << 8;
    const IO_SHM_SIZE: u32 = IO | 19 << 8;
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    let code = code.and_then(|code| code.parse::<u32>().ok());
    let text = error.to_string();
    // The low byte is the kind, the rest its detail.
    match (code.map(|code| code & 0xFF), code) {
        (Some(BUSY | LOCKED), _) => Failure::Again(text),
        (Some(READONLY), _) => Failure::ReadOnly(text),
        (Some(FULL), _) => Failure::Full(text),
        (Some(CORRUPT | NOTADB), _) => Failure::Damaged(text),
        (Some(CANNOT_OPEN), _) | (_, Some(IO_WRITE | IO_TRUNCATE | IO_SHM_OPEN | IO_SHM_SIZE)) => {
            Failure::NotWritten(text)
        }
        // After a failed sync nobody knows what is on the disk.
        (Some(_) | None, _) => Failure::Fatal(text),
    }
}
