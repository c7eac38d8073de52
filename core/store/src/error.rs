//! Why a store did not do what it was asked.

use std::sync::Arc;

use polymq_model::{LogId, Seq};

/// The answer of an engine that did not, or may not have done, what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another owner has the store; the text names it. Be a standby.
    #[error("the store is held by {0}; stop that broker first")]
    Held(Arc<str>),
    /// Another owner took over: stop serving the shard at once.
    #[error("the shard was taken over by another owner")]
    Fenced,
    /// Nothing was written, because the disk or the quota is full.
    #[error("the store is full; free space, publishing resumes by itself")]
    Full,
    /// Nothing was written, because the store cannot be written to.
    #[error("the store is read-only; make it writable, publishing resumes by itself")]
    ReadOnly,
    /// The commit may have happened: never confirm, ask [`Store::outcome`](crate::Store::outcome).
    #[error("it is not known whether the batch was written")]
    Unknown,
    /// The store cannot be opened, because what was confirmed is damaged; the text says where.
    #[error("stored data is damaged: {0}")]
    Damaged(Arc<str>),
    /// These messages cannot be read; those before and behind them can.
    #[error("stored messages are damaged: {what}")]
    Unreadable {
        /// Their log.
        log: LogId,
        /// The first position.
        first: Seq,
        /// The last position.
        last: Seq,
        /// How many of the positions hold a message that is not acknowledged.
        messages: u64,
        /// Which they are and where they stand.
        what: Arc<str>,
    },
    /// The store cannot be opened by this program and was left untouched.
    #[error("the store cannot be opened: {0}")]
    Refused(Arc<str>),
    /// The store was closed, or was never opened.
    #[error("the store is closed")]
    Closed,
    /// The process must end; recovery at the next start decides what was kept.
    #[error("the store failed: {0}")]
    Fatal(Arc<str>),
}

impl StoreError {
    /// True when nothing was written and the same may succeed later.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Full | Self::ReadOnly)
    }
}
