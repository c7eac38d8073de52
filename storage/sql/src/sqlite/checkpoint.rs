//! Moving pages from the write-ahead file into the database. SQLite would do so by itself and tell
//! nobody when that fails: the file would grow for ever, and a disk that breaks would be written
//! to as if nothing were.

use std::time::{Duration, Instant};

use sqlx::{SqliteConnection, query_as};

use super::failure;
use crate::failure::Failure;

/// Pages of 4 KiB in the write-ahead file before they are moved into the database: 16 MiB.
const PAGES: i64 = 4096;
/// What could not be done, for want of room or because somebody reads, is tried again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// When pages were moved last.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    again_at: Option<Instant>,
}

impl Checkpoints {
    /// Moves pages when there are enough of them, and it is not too soon after a failure.
    pub(super) async fn run_when_due(&mut self, on: &mut SqliteConnection) -> Result<(), Failure> {
        if self.again_at.is_some_and(|at| at > Instant::now()) {
            return Ok(());
        }
        if waiting(on, "PRAGMA wal_checkpoint(NOOP)").await? < PAGES {
            return Ok(());
        }
        self.run(on).await
    }

    /// Moves what no reader needs where it is.
    ///
    /// Errors: [`Failure::Full`], [`Failure::NotWritten`] when nothing is lost by it;
    /// [`Failure::Fatal`] when nobody knows what the disk has.
    pub(super) async fn run(&mut self, on: &mut SqliteConnection) -> Result<(), Failure> {
        let left = waiting(on, "PRAGMA wal_checkpoint(PASSIVE)").await;
        let is_done = matches!(left, Ok(left) if left < PAGES);
        self.again_at = (!is_done).then(|| Instant::now() + AGAIN_AFTER);
        left.map(|_| ())
    }
}

/// Pages in the write-ahead file that the database does not have, after this statement.
async fn waiting(on: &mut SqliteConnection, sql: &'static str) -> Result<i64, Failure> {
    let row = query_as::<_, (i64, i64, i64)>(sql).fetch_one(on).await.map_err(failure)?;
    let (_, written, moved) = row;
    Ok(written.saturating_sub(moved))
}
