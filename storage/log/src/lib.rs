//! The file log: one shared write-ahead log with group commit.
//!
//! A batch is confirmed after `fdatasync`. Bodies do not stay in memory; 24 bytes a live message
//! do. What lives is rewritten when old files hold mostly what does not. See `storage/README.md`
//! for the directory, the formats and the decisions.
//!
//! This crate does not know queues or protocols, never maps a file into memory, never retries a
//! failed sync, and repairs nothing silently.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod checkpoint;
mod clock;
mod core;
mod disk;
mod error;
mod format;
mod manifest;
mod names;
mod place;
mod prepare;
mod preparer;
mod read;
mod recovery;
mod scan;
mod store;
mod sweep;
#[cfg(test)]
mod tests;
mod writer;

#[cfg(any(test, feature = "sim"))]
pub mod sim;

pub use crate::{
    clock::{Clock, SystemClock},
    core::LogConfig,
    disk::{Disk, DiskFile, Lock, RealDisk},
    store::{EXIT_CODE_STORE_FAILED, LogStore},
};
