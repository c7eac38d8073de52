//! What can go wrong with files, and what the broker is told.

use std::io;

use polymq_store::StoreError;

/// Why the log did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The disk or the quota is full; nothing was written.
    #[error("no space left while {0}")]
    Full(String),
    /// The file system is read-only; nothing was written.
    #[error("read-only file system while {0}")]
    ReadOnly(String),
    /// Confirmed data is not readable.
    #[error("{0}")]
    Damaged(String),
    /// A newer version of this program wrote here.
    #[error("{0}")]
    TooNew(String),
    /// Another process has the directory.
    #[error("{0}")]
    Held(String),
    /// The batch is of an older opening.
    #[error("another owner took over")]
    Fenced,
    /// The store is being closed.
    #[error("the store is closed")]
    Closed,
    /// Nobody knows what the disk holds; only a new start can tell.
    #[error("{0}")]
    Fatal(String),
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Full(_) => Self::Full,
            Failure::ReadOnly(_) => Self::ReadOnly,
            Failure::Damaged(what) => Self::Damaged(what.into()),
            Failure::TooNew(what) => Self::Refused(what.into()),
            Failure::Held(by) => Self::Held(by.into()),
            Failure::Fenced => Self::Fenced,
            Failure::Closed => Self::Closed,
            Failure::Fatal(what) => Self::Fatal(what.into()),
        }
    }
}

/// Turns an error of the operating system into a failure that says what was being done.
pub(crate) fn io_at(doing: &str) -> impl FnOnce(io::Error) -> Failure + '_ {
    move |error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Failure::Full(doing.to_owned())
        }
        io::ErrorKind::ReadOnlyFilesystem => Failure::ReadOnly(doing.to_owned()),
        _ => Failure::Fatal(format!("{doing}: {error}")),
    }
}

/// Like [`io_at`] where no error is harmless: after a failed sync nobody knows what is on the disk.
pub(crate) fn fatal_at(doing: &str) -> impl FnOnce(io::Error) -> Failure + '_ {
    move |error| Failure::Fatal(format!("{doing}: {error}"))
}
