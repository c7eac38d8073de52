//! SQLite: one file, one connection that writes, a few that read.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use polymq_store::{Epoch, LogId, OwnerId, ShardBatch, ShardId};
use sqlx::{
    Connection, Row, SqliteConnection, raw_sql,
    sqlite::{
        SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions,
        SqliteSynchronous,
    },
};
use tokio::time::sleep;

use crate::{
    changes::Changes,
    database::{Database, Loaded, Position, SWEEP_ROWS, Sent, unsigned},
    failure::Failure,
    load, migrations,
};

mod commit;
mod read;

pub(crate) use read::SqliteReader;

/// Pages of 4 KiB in the write-ahead file before SQLite moves them into the database: 16 MiB.
const CHECKPOINT_PAGES: u32 = 4096;
/// Pages that are given back at once: a bound on how long a batch waits behind it.
const GIVE_BACK: &str = "PRAGMA incremental_vacuum(4096)";
/// For a tool that has the file open; brokers keep each other out by the lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const READERS: u32 = 2;
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Where SQLite keeps everything.
#[derive(Debug, Clone)]
pub struct SqliteConfig {
    /// The file of the database, made when it is not there. Beside it stand `-wal`, `-shm` and
    /// `.lock`.
    pub path: PathBuf,
}

pub(crate) struct Sqlite {
    path: PathBuf,
    open: Option<Open>,
}

/// An open file.
struct Open {
    connection: SqliteConnection,
    shard: ShardId,
    /// Held until the file is closed.
    _lock: File,
}

impl Sqlite {
    pub(crate) fn new(config: SqliteConfig) -> Self {
        Self { path: config.path, open: None }
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
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES.to_string())
    }

    fn file(&mut self) -> Result<&mut Open, Failure> {
        self.open.as_mut().ok_or(Failure::Closed)
    }
}

impl Database for Sqlite {
    type Reader = SqliteReader;

    async fn open(&mut self, shard: ShardId, _me: OwnerId) -> Result<Position, Failure> {
        self.open = None;
        let lock = locked_soon(&self.path).await?;
        let options = self.options();
        let connect = SqliteConnection::connect_with(&options);
        let mut connection = connect.await.map_err(|error| cannot_open(&self.path, error))?;
        let migrated = migrations::sqlite().run(&mut connection).await;
        migrated
            .map_err(|error| migrations::failure(error, |error| cannot_open(&self.path, error)))?;
        let taken = sqlx::query(
            "INSERT INTO pmq_shard (shard, epoch, last_batch, next_log) VALUES (?1, 1, 0, 0)
             ON CONFLICT (shard) DO UPDATE SET epoch = epoch + 1 RETURNING epoch, last_batch",
        );
        let row = taken.bind(shard.0).fetch_one(&mut connection).await.map_err(failure)?;
        let position = position_in(&row)?;
        self.open = Some(Open { connection, shard, _lock: lock });
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
        commit::commit(&mut open.connection, open.shard, epoch, changes).await
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
        let connection = &mut self.file()?.connection;
        let doomed = sqlx::query(
            "SELECT count(*), max(seq) FROM (SELECT seq FROM pmq_msg
             WHERE log_id = ?1 AND seq >= ?2 AND seq < ?3 ORDER BY seq LIMIT ?4)",
        );
        let doomed = doomed.bind(log.0).bind(from).bind(below).bind(SWEEP_ROWS);
        let row = doomed.fetch_one(&mut *connection).await.map_err(failure)?;
        let (count, last): (i64, Option<i64>) =
            (row.try_get(0).map_err(failure)?, row.try_get(1).map_err(failure)?);
        if let Some(last) = last {
            let delete =
                sqlx::query("DELETE FROM pmq_msg WHERE log_id = ?1 AND seq BETWEEN ?2 AND ?3");
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

fn position_in(row: &sqlx::sqlite::SqliteRow) -> Result<Position, Failure> {
    let epoch: i64 = row.try_get("epoch").map_err(failure)?;
    let last_batch: i64 = row.try_get("last_batch").map_err(failure)?;
    Ok(Position { epoch: Epoch(unsigned(epoch)), last_batch: ShardBatch(unsigned(last_batch)) })
}

/// Waits a moment for a process that is just ending.
async fn locked_soon(path: &Path) -> Result<File, Failure> {
    for _ in 0..LOCK_TRIES {
        match locked(path) {
            Err(Failure::Held(_)) => sleep(LOCK_PAUSE).await,
            other => return other,
        }
    }
    locked(path)
}

/// Takes the lock beside the file; it ends with the process.
fn locked(path: &Path) -> Result<File, Failure> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let path = PathBuf::from(name);
    let refused = |error: io::Error| {
        Failure::Refused(format!("the lock file `{}` cannot be used: {error}", path.display()))
    };
    let mut options = OpenOptions::new();
    let opened = options.read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.map_err(refused)?;
    match file.try_lock() {
        Ok(()) => {
            let owner = format!("process {}", std::process::id());
            let written = file.set_len(0).and_then(|()| file.write_all(owner.as_bytes()));
            written.map_err(refused)?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let owner = std::fs::read_to_string(&path).map_err(refused)?;
            let owner = if owner.is_empty() { "another process" } else { owner.trim() };
            Err(Failure::Held(owner.to_owned()))
        }
        Err(TryLockError::Error(error)) => Err(refused(error)),
    }
}

/// A file that is no database of ours is left alone.
fn cannot_open(path: &Path, error: sqlx::Error) -> Failure {
    match failure(error) {
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
    const CORRUPT: u32 = 11;
    const FULL: u32 = 13;
    const NOTADB: u32 = 26;
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    // The low byte is the kind, the rest its detail.
    let kind = code.and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xFF);
    let text = error.to_string();
    match kind {
        Some(BUSY | LOCKED) => Failure::Again(text),
        Some(READONLY) => Failure::ReadOnly(text),
        Some(FULL) => Failure::Full(text),
        Some(CORRUPT | NOTADB) => Failure::Damaged(text),
        // After a failed write or sync nobody knows what is on the disk.
        Some(_) | None => Failure::Fatal(text),
    }
}
