//! Keeps everything in a database: PostgreSQL, or SQLite in one file.
//!
//! A batch is one transaction that holds its own fence: it commits only when the epoch is still
//! ours and the batch is the next one. A message is a row; counts live beside its log, so opening
//! reads no message and memory does not grow with the backlog. See `storage/sql/README.md` for the
//! decisions.
//!
//! This crate does not know queues or protocols, does not create databases or roles, and repairs
//! nothing silently.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod changes;
mod database;
mod failure;
mod load;
mod logs;
mod migrations;
mod postgres;
mod ranges;
mod reader;
mod sqlite;
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod writer;

pub use crate::{
    postgres::{BadUrl, PostgresConfig},
    sqlite::{Examined, SqliteConfig, back_up_sqlite, examine_sqlite},
    store::SqlStore,
};
