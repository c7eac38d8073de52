//! What can go wrong with a database, and what the broker is told.

use polymq_store::StoreError;

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// No space, or no quota; nothing was written.
    #[error("the database is full: {0}")]
    Full(String),
    /// The database takes no writes; nothing was written.
    #[error("the database is read-only: {0}")]
    ReadOnly(String),
    /// A write was refused and nothing was written; why is for the disk to say.
    #[error("{0}")]
    NotWritten(String),
    /// Rolled back for a reason that passes: the same may be sent again.
    #[error("the database rolled back: {0}")]
    Again(String),
    /// The connection is gone. What was sent may have been done.
    #[error("no connection to the database: {0}")]
    Lost(String),
    /// Stored data cannot be read.
    #[error("{0}")]
    Damaged(String),
    /// This program does not serve this database.
    #[error("{0}")]
    Refused(String),
    /// Another broker has it.
    #[error("{0}")]
    Held(String),
    /// Another broker took over, or this opening is an old one.
    #[error("another owner took over")]
    Fenced,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// Nobody knows what the database holds; only a new start can tell.
    #[error("{0}")]
    Fatal(String),
}

impl Failure {
    /// An error on which nothing but a log line depends.
    pub(crate) fn fatal(doing: &str, error: &dyn std::fmt::Display) -> Self {
        Self::Fatal(format!("{doing}: {error}"))
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Full(_) => Self::Full,
            Failure::ReadOnly(_) => Self::ReadOnly,
            Failure::Again(_) | Failure::Lost(_) => Self::Unknown,
            Failure::Damaged(what) => Self::Damaged(what.into()),
            Failure::Refused(what) => Self::Refused(what.into()),
            Failure::Held(by) => Self::Held(by.into()),
            Failure::Fenced => Self::Fenced,
            Failure::Closed => Self::Closed,
            Failure::NotWritten(what) | Failure::Fatal(what) => Self::Fatal(what.into()),
        }
    }
}
