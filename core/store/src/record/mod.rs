//! The encoding of stored records: the same bytes in every engine that keeps files.
//!
//! ```text
//! 0 crc u32 (CRC-32C from byte 4 to the end of the body) | 4 len u32 (header + props + body)
//! 8 type u8 | 9 flags u8 | 10 props_len u16 | 12 log_id u32 | 16 seq u64 | 24 aux u64
//! 32 props | body | zeros to a multiple of 8
//! ```
//!
//! All numbers are little-endian. What `seq`, `aux`, props and body mean for a type:
//!
//! | type | seq | aux | props | body |
//! | --- | --- | --- | --- | --- |
//! | 1 PUB | position | expiry in ms, 0 none | properties | body |
//! | 2 PUBSAME | position | expiry | offset u32 of the PUB, own offset u32, in this batch | |
//! | 4 ACK | first acknowledged | cursor | | (first u64, last u64), both included, repeated |
//! | 5 HOLD | first held | cursor | | (seq u64, deliveries u32, acquired u32, due u64) repeated |
//! | 6 FLOOR | everything below is acknowledged | cursor | | |
//! | 7 PURGE | everything below is removed | | | |
//! | 8 LOG_CREATE | | | name | |
//! | 9 LOG_DELETE | | | | |
//! | 10 META | | version, 0 for the number of the batch | key | value; flag bit 1: deleted |
//! | 11 FENCE | epoch | | | |
//! | 12 CHECKPOINT | next position of the log | its floor | | |
//! | 13 ENGINE | first position | last position | | where an engine keeps messages |
//!
//! Flag bit 0 says that `props_len` is 0xFFFF and the first u32 of props is the length. Flag bit
//! 7 says "must understand": an unknown type with it stops the reader. Bits 1 to 5 of a PUB are
//! the publisher's; bit 6 serves the writer of the batch.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::{Checks, HeldEntries, Publish, Ranges, Record, RecordError, Records, publish_at};
pub use encode::{Head, put};

/// The bytes before the properties of a record.
pub const HEADER_BYTES: usize = 32;
/// Records start at multiples of this.
pub const ALIGNMENT: usize = 8;

/// Types of records.
pub mod kind {
    /// A message with its body.
    pub const PUB: u8 = 1;
    /// A message whose properties and body stand in an earlier PUB of the same batch.
    pub const PUBSAME: u8 = 2;
    /// Acknowledged ranges.
    pub const ACK: u8 = 4;
    /// Counts and due times of messages that were returned or held.
    pub const HOLD: u8 = 5;
    /// Everything below is acknowledged.
    pub const FLOOR: u8 = 6;
    /// Everything below is removed.
    pub const PURGE: u8 = 7;
    /// A log begins.
    pub const LOG_CREATE: u8 = 8;
    /// A log and all its messages end.
    pub const LOG_DELETE: u8 = 9;
    /// A definition.
    pub const META: u8 = 10;
    /// A new epoch.
    pub const FENCE: u8 = 11;
    /// Where a log stood when its live messages were rewritten.
    pub const CHECKPOINT: u8 = 12;
    /// Where an engine keeps messages outside the log; only in files of that engine.
    pub const ENGINE: u8 = 13;
}

/// Flag: the length of the properties is the first u32 of them.
pub const FLAG_LONG_PROPS: u8 = 1;
/// Flag of META: the key is deleted.
pub const FLAG_DELETED: u8 = 2;
/// Flag: a reader that does not know the type must stop.
pub const FLAG_MUST_UNDERSTAND: u8 = 0x80;
/// Flag of PUB and PUBSAME: something else in the batch depends on the message, so that it stays in
/// a batch that the engine refuses for want of space. Only the writer of the batch looks at it.
pub const FLAG_DEPENDED_ON: u8 = 0x40;
/// The flags of a PUB that belong to the publisher.
pub const FLAGS_OF_PUBLISHER: u8 = 0x3E;

/// CRC-32C, the checksum of every stored format.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// Rounds `len` up to where the next record starts.
pub const fn aligned(len: usize) -> usize {
    len.next_multiple_of(ALIGNMENT)
}
