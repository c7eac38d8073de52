//! The file log: one shared write-ahead log with group commit.
//!
//! A batch is confirmed after `fdatasync`. A full file of the log is flushed: what still lives goes
//! to segments, one per log that has much and one for the rest. Memory and start time depend on
//! the log that is not flushed yet, never on the backlog. See `storage/README.md` for the
//! directory, the formats and the decisions.
//!
//! This crate does not know queues or protocols, never maps a file into memory, never retries a
//! failed sync, and repairs nothing silently.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod backup;
mod ballast;
mod clock;
mod config;
mod core;
mod damage;
mod dead;
mod direct;
mod disk;
mod error;
mod flush;
mod flush_thread;
mod format;
mod manifest;
mod messages;
mod names;
mod numbers;
mod overlay;
mod own;
mod part;
mod place;
mod prepare;
mod preparer;
mod quarantine;
mod read;
mod recovery;
mod repair;
mod scan;
mod scrub;
mod segment;
mod store;
mod sweep;
#[cfg(test)]
mod tests;
mod writer;

#[cfg(any(test, feature = "sim"))]
pub mod sim;

pub use crate::{
    backup::{BackedUp, back_up},
    clock::{Clock, SystemClock},
    config::LogConfig,
    disk::{Disk, DiskFile, Lock, RealDisk},
    overlay::Overlay,
    repair::{Finding, Lost, Repair, examine, repair},
    store::{EXIT_CODE_STORE_FAILED, LogStore},
};
