//! A copy of a database that a broker may be writing to, and what such a copy holds.

use std::{fs::File, path::Path, time::Duration};

use polymq_store::StoreError;
use sqlx::{
    Connection, SqliteConnection, query, query_as, query_scalar, sqlite::SqliteConnectOptions,
};
use tokio::time::{MissedTickBehavior, interval};

use super::{BUSY_TIMEOUT, cannot_open, failure};
use crate::{database::unsigned, failure::Failure, store::runtime};

/// How often somebody is told how far a copy has come.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// Problems that are named.
const PROBLEMS_MAX: usize = 20;

/// What a database says it holds, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Examined {
    /// Definitions.
    pub definitions: u64,
    /// Logs, which are the messages of one queue each.
    pub logs: u64,
    /// Messages.
    pub messages: u64,
    /// The bytes of their properties and bodies.
    pub bytes: u64,
    /// What is not as it should be; empty when the database is sound.
    pub problems: Vec<String>,
}

/// Copies the database at `from`, whether a broker has it open or not, into the file `to`, which
/// must not exist. The copy is that of one moment after the call began, holds no free pages and is
/// on the disk at the end. `progress` is told about how many bytes are done, of how many.
///
/// While it runs, the write-ahead file of the database cannot begin anew, and grows.
///
/// Errors: when the database cannot be read, when there is no room.
pub fn back_up_sqlite(
    from: &Path,
    to: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), StoreError> {
    let copied = starting(runtime())?.block_on(copy(from, to, progress));
    copied.map_err(StoreError::from)?;
    let synced = File::open(to).and_then(|file| file.sync_all());
    synced.map_err(|error| Failure::fatal("syncing the copy", &error).into())
}

/// Reads a database that nobody has open, without touching it, and says what it holds.
///
/// Errors: when it cannot be read, or is none of ours.
pub fn examine_sqlite(path: &Path) -> Result<Examined, StoreError> {
    starting(runtime())?.block_on(examine(path)).map_err(StoreError::from)
}

fn starting<T>(runtime: std::io::Result<T>) -> Result<T, StoreError> {
    runtime.map_err(|error| Failure::fatal("starting a runtime", &error).into())
}

async fn copy(from: &Path, to: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<(), Failure> {
    let name = to.to_str().ok_or_else(|| {
        Failure::Refused(format!("`{}` is no UTF-8, which SQLite wants", to.display()))
    })?;
    let options = SqliteConnectOptions::new()
        .filename(from)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("wal_autocheckpoint", "0");
    let mut connection =
        SqliteConnection::connect_with(&options).await.map_err(|error| cannot_open(from, error))?;
    let pages = query_as::<_, (i64, i64, i64)>(
        "SELECT p.page_count, f.freelist_count, s.page_size
         FROM pragma_page_count p, pragma_freelist_count f, pragma_page_size s",
    );
    let (pages, free, size) = pages.fetch_one(&mut connection).await.map_err(failure)?;
    let all = unsigned(pages.saturating_sub(free).saturating_mul(size));
    let mut ticks = interval(TELL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let vacuumed = {
        let vacuum = query("VACUUM INTO ?1").bind(name).execute(&mut connection);
        tokio::pin!(vacuum);
        loop {
            tokio::select! {
                done = &mut vacuum => break done,
                _ = ticks.tick() => {
                    let done = std::fs::metadata(to).map_or(0, |data| data.len());
                    progress(done.min(all), all);
                }
            }
        }
    };
    vacuumed.map_err(failure)?;
    progress(all, all);
    // It was only read.
    connection.close().await.map_err(failure)
}

async fn examine(path: &Path) -> Result<Examined, Failure> {
    let refused = |error| cannot_open(path, error);
    let options = SqliteConnectOptions::new().filename(path).read_only(true).immutable(true);
    let mut connection = SqliteConnection::connect_with(&options).await.map_err(refused)?;
    let checked = query_scalar::<_, String>("SELECT integrity_check FROM pragma_integrity_check");
    let mut problems = checked.fetch_all(&mut connection).await.map_err(refused)?;
    problems.retain(|problem| problem != "ok");
    let logs = query_as::<_, (i64, String, i64, i64, i64, i64)>(
        "SELECT l.log_id, l.name, l.live_count, l.live_bytes, count(m.seq),
                coalesce(sum(length(m.props) + length(m.body)), 0)
         FROM pmq_log l LEFT JOIN pmq_msg m ON m.log_id = l.log_id AND m.seq >= l.floor
         GROUP BY l.log_id ORDER BY l.log_id",
    );
    let logs = logs.fetch_all(&mut connection).await.map_err(refused)?;
    let mut found = Examined { logs: logs.len() as u64, ..Examined::default() };
    for (id, name, count, bytes, counted, counted_bytes) in logs {
        found.messages += unsigned(counted);
        found.bytes += unsigned(counted_bytes);
        if (count, bytes) != (counted, counted_bytes) {
            problems.push(format!(
                "log {id} (`{}`) holds {counted} messages with {counted_bytes} bytes and says \
                 {count} with {bytes}",
                name.escape_debug()
            ));
        }
    }
    let definitions = query_scalar::<_, i64>("SELECT count(*) FROM pmq_meta");
    found.definitions = unsigned(definitions.fetch_one(&mut connection).await.map_err(refused)?);
    connection.close().await.map_err(failure)?;
    if problems.len() > PROBLEMS_MAX {
        let more = problems.len() - PROBLEMS_MAX;
        problems.truncate(PROBLEMS_MAX);
        problems.push(format!("and {more} more"));
    }
    found.problems = problems;
    Ok(found)
}
