//! What can go wrong with files, and what the broker is told.

use std::{fmt, io};

use polymq_store::{LogId, Seq, StoreError};

/// Messages of one log that are not readable, and where they should stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable {
    pub(crate) log: LogId,
    /// Positions, both included.
    pub(crate) first: Seq,
    pub(crate) last: Seq,
    /// How many of them live.
    pub(crate) messages: u64,
    pub(crate) file: String,
    pub(crate) offset: u64,
    /// 0 when nobody knows where it ends.
    pub(crate) bytes: u64,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { log, first, last, file, offset, bytes, .. } = self;
        write!(f, "log {log}, message")?;
        match first == last {
            true => write!(f, " {first} is")?,
            false => write!(f, "s {first} to {last} are")?,
        }
        match bytes {
            0 => write!(f, " not readable at byte {offset} of {file}"),
            bytes => write!(f, " not readable at bytes {offset} to {} of {file}", offset + bytes),
        }
    }
}

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
    /// These messages are not readable.
    #[error("{0}")]
    Unreadable(Box<Unreadable>),
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
            Failure::Unreadable(range) => Self::Unreadable {
                log: range.log,
                first: range.first,
                last: range.last,
                messages: range.messages,
                what: range.to_string().into(),
            },
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
