//! Room that is given up when the disk is full, and what the disk says about a refused write.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use polymq_store::{Room, take_reserve};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::beside;
use crate::failure::Failure;

/// The reserve of one database: a file, which is empty once the reserve was given up, so that the
/// next start knows.
#[derive(Debug)]
pub(super) struct Reserve {
    file: PathBuf,
    bytes: u64,
    /// It was given up, and there was not room for it again so far.
    is_given_up: bool,
}

impl Reserve {
    pub(super) fn of(database: &Path, bytes: u64) -> Self {
        let file = beside(database, ".reserve");
        let is_given_up = fs::metadata(&file).is_ok_and(|data| data.len() == 0);
        Self { file, bytes, is_given_up }
    }

    /// Takes it when there is plenty of room.
    pub(super) fn refill(&mut self) {
        let plenty = self.bytes.saturating_mul(2);
        // Asking costs less than trying.
        let is_plenty = self.is_taken() || free_bytes(&self.file).is_some_and(|free| free > plenty);
        let is_there = is_plenty && take_reserve(self, self.bytes).unwrap_or(false);
        if is_there && self.is_given_up {
            tracing::info!(event = "reserve_taken", "there is room again");
            self.is_given_up = false;
        }
    }

    /// Gives it up, so that what makes room can be written; false when there is none.
    pub(super) fn release(&mut self) -> bool {
        let is_released = self.give_up();
        if is_released {
            self.is_given_up = true;
            tracing::warn!(event = "reserve_released", "the disk is full: the reserve is given up");
        }
        is_released
    }

    /// True while messages must not use up what was reserved for others.
    pub(super) fn is_given_up(&self) -> bool {
        self.is_given_up
    }
}

impl Room for Reserve {
    type Failure = std::convert::Infallible;

    fn is_taken(&self) -> bool {
        fs::metadata(&self.file).is_ok_and(|data| data.len() > 0)
    }

    fn take(&self, bytes: u64) -> Result<bool, Self::Failure> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(&self.file);
        // A file system that cannot reserve has no reserve.
        let is_taken =
            file.is_ok_and(|file| fallocate(&file, FallocateFlags::empty(), 0, bytes).is_ok());
        if !is_taken && !self.is_given_up {
            // An empty file would say that there had been one.
            let _ = fs::remove_file(&self.file);
        }
        Ok(is_taken)
    }

    fn give_up(&self) -> bool {
        let emptied = || OpenOptions::new().write(true).open(&self.file)?.set_len(0);
        self.is_taken() && emptied().is_ok()
    }
}

/// Bytes that can be written in the folder of a file.
fn free_bytes(file: &Path) -> Option<u64> {
    let disk = statvfs(folder(file)).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|folder| *folder != Path::new("")).unwrap_or_else(|| Path::new("."))
}

/// Why a write of the database was refused. SQLite has one word for a quota, for a disk that
/// became read-only and for one that breaks; a small file beside it tells them apart.
pub(super) fn explained(database: &Path, failure: Failure) -> Failure {
    let Failure::NotWritten(why) = failure else { return failure };
    match probe(&beside(database, ".probe")).map_err(|error| error.kind()) {
        Err(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => Failure::Full(why),
        Err(io::ErrorKind::ReadOnlyFilesystem) => {
            Failure::ReadOnly(format!("read-only file system: {why}"))
        }
        // Nobody knows what the disk does.
        Ok(()) | Err(_) => Failure::Fatal(why),
    }
}

/// What is known of a disk from one refused write to the next.
#[derive(Default)]
pub(super) struct Refusals {
    /// It took no writes when it was last asked.
    is_refused: bool,
}

impl Refusals {
    /// A write was taken.
    pub(super) fn end(&mut self) {
        self.is_refused = false;
    }

    /// Why a write was refused, as [`explained`]. A disk that took none a moment ago may be
    /// writable again between the write and the look why; then the next write tells.
    pub(super) fn explained(&mut self, database: &Path, failure: Failure) -> Failure {
        let is_of_disk = matches!(failure, Failure::NotWritten(_));
        match explained(database, failure) {
            Failure::Fatal(why) if is_of_disk && std::mem::take(&mut self.is_refused) => {
                Failure::ReadOnly(why)
            }
            failure => {
                self.is_refused |= matches!(failure, Failure::ReadOnly(_) | Failure::Full(_));
                failure
            }
        }
    }
}

fn probe(path: &Path) -> io::Result<()> {
    let written = File::create(path).and_then(|file| file.write_all_at(&[0; 4096], 0));
    let removed = fs::remove_file(path);
    written.and(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserve_is_given_up_once_and_taken_again() {
        let dir = tempfile::TempDir::new().unwrap();
        let database = dir.path().join("polymq.db");
        let mut reserve = Reserve::of(&database, 64 * 1024);
        assert!(!reserve.release(), "there is none");
        assert!(!reserve.is_given_up());
        reserve.refill();
        assert!(reserve.is_taken());
        assert!(reserve.release());
        assert!(!reserve.release());
        assert!(reserve.is_given_up());
        assert!(Reserve::of(&database, 64 * 1024).is_given_up(), "the next start knows");
        reserve.refill();
        assert!(!reserve.is_given_up());
        assert!(!Reserve::of(&database, 64 * 1024).is_given_up());
        let mut impossible = Reserve::of(&dir.path().join("other.db"), u64::MAX / 4);
        impossible.refill();
        assert!(!impossible.is_taken());
        assert_eq!(take_reserve(&impossible, u64::MAX / 4), Ok(false));
        assert!(!impossible.file.exists(), "it never had one");
    }

    #[test]
    fn write_that_fails_on_a_sound_disk_is_the_end() {
        let dir = tempfile::TempDir::new().unwrap();
        let database = dir.path().join("polymq.db");
        let why = || Failure::NotWritten("disk I/O error".to_owned());
        assert!(matches!(explained(&database, why()), Failure::Fatal(_)));
        assert!(matches!(explained(Path::new("/proc/none.db"), why()), Failure::Fatal(_)));
        assert_eq!(dir.path().read_dir().unwrap().count(), 0, "nothing is left behind");
    }

    #[test]
    fn disk_that_is_writable_again_while_one_looks_why_it_was_not_is_asked_once_more() {
        let dir = tempfile::TempDir::new().unwrap();
        let database = dir.path().join("polymq.db");
        let mut refusals = Refusals::default();
        let mut told = |failure| refusals.explained(&database, failure);
        let write = || Failure::NotWritten("disk I/O error".to_owned());
        assert!(matches!(told(Failure::ReadOnly("it says so".to_owned())), Failure::ReadOnly(_)));
        assert!(matches!(told(Failure::Fatal("a sync".to_owned())), Failure::Fatal(_)));
        assert!(matches!(told(write()), Failure::ReadOnly(_)));
        assert!(matches!(told(write()), Failure::Fatal(_)), "it breaks");
        told(Failure::Full("no room".to_owned()));
        refusals.end();
        assert!(matches!(refusals.explained(&database, write()), Failure::Fatal(_)));
    }
}
