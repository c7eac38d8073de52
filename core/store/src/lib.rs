//! The ports to disk: what the broker asks of a storage engine, the encoding of stored records,
//! and the committer that groups what many publishers write into few batches.
//!
//! This crate does no I/O, starts no thread and reads no clock; it does not know what the
//! properties and the body of a message mean, nor what a queue is.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod batch;
mod committer;
pub mod copy;
mod error;
mod ids;
mod port;
pub mod record;
mod reserve;
pub mod state;
#[cfg(any(test, feature = "suite"))]
pub mod suite;

pub use batch::{BatchWriter, PubRef};
pub use committer::{CommitStats, Committer, SYNC_BUCKETS_NANOS, Together};
pub use error::StoreError;
pub use ids::{CursorId, Epoch, OwnerId, ShardBatch, ShardId};
pub use polymq_model::{Durability, LogId, Seq};
pub use port::{
    Batch, Capabilities, Close, CursorState, Damage, Health, Live, MessageRef, Opened, OpenedLog,
    Outcome, Page, ReadLimit, Reply, Store, StoredMessage, wait,
};
pub use reserve::{FULL_FOR, RESERVE_BYTES, Room, may_be_refused, take_reserve};
pub use state::{Held, Hold};
