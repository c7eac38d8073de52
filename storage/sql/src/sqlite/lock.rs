//! The lock beside the file, and what it remembers of the file.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Write},
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use tokio::time::sleep;

use super::beside;
use crate::failure::Failure;

const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Held until it is dropped, or its process ends.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Takes it; waits a moment for a process that is just ending.
    pub(super) async fn take(database: &Path) -> Result<Self, Failure> {
        for _ in 0..LOCK_TRIES {
            match Self::try_take(database) {
                Err(Failure::Held(_)) => sleep(LOCK_PAUSE).await,
                other => return other,
            }
        }
        Self::try_take(database)
    }

    fn try_take(database: &Path) -> Result<Self, Failure> {
        let path = beside(database, ".lock");
        let refused = |error: io::Error| {
            Failure::Refused(format!("the lock file `{}` cannot be used: {error}", path.display()))
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = match options.open(&path) {
            Err(error) if is_full(&error) => return Err(Failure::Full(error.to_string())),
            file => file.map_err(refused)?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = std::fs::read_to_string(&path).map_err(refused)?;
                let owner = text.lines().next().filter(|owner| !owner.is_empty());
                return Err(Failure::Held(owner.unwrap_or("another process").to_owned()));
            }
            Err(TryLockError::Error(error)) => return Err(refused(error)),
        }
        refuse_copy(database, &std::fs::read_to_string(&path).map_err(refused)?)?;
        Ok(Self(file))
    }

    /// Writes down who has it, and which file it is of. The lock counts; a full disk may have no
    /// room for words.
    pub(super) fn sign(&mut self, database: &Path) -> Result<(), Failure> {
        let mut text = format!("process {}\n", std::process::id());
        if let Some(identity) = identity(database) {
            text.push_str(&format!("{identity}\n"));
        }
        match self.0.set_len(0).and_then(|()| self.0.write_all(text.as_bytes())) {
            Err(error) if !is_full(&error) => {
                Err(Failure::Refused(format!("the lock file cannot be written: {error}")))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// A database and its write-ahead file that were copied one after the other while they were
/// written may open, and lack what was confirmed. Nothing in them tells; that the database is
/// another file than the one that was open does.
fn refuse_copy(database: &Path, signed: &str) -> Result<(), Failure> {
    let log = std::fs::metadata(beside(database, "-wal"));
    let was_open = log.is_ok_and(|log| log.len() > 0);
    let known = signed.lines().nth(1);
    let is_another = known.is_some_and(|known| identity(database).is_some_and(|it| it != known));
    if !(was_open && is_another) {
        return Ok(());
    }
    Err(Failure::Refused(format!(
        "it is a copy of a database that was not closed. A copy that was made while a broker ran \
         may lack what was confirmed: make copies by `polymq backup create`. If no broker ran \
         while it was made, remove `{}`",
        beside(database, ".lock").display()
    )))
}

/// Which file it is on its disk: a copy is another one. A mount may change the number of the
/// disk, so that is no part of it.
fn identity(database: &Path) -> Option<String> {
    let data = std::fs::metadata(database).ok()?;
    let born = data.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    Some(format!("file {} of {}", data.ino(), born.unwrap_or_default().as_nanos()))
}
