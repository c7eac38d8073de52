//! Sealed files of messages, ascending by log and position, and never written again.
//!
//! ```text
//! header, 64 B in the first 4 KiB: that of a log file, flag bit 1
//! per log: records, as in the log | table
//! table: 0 magic "PQTB" | 4 log u32 | 8 file u32 | 12 entries u32 | 16 runs u32 | 20 reserved
//!   entries x {seq u64, offset u64}, one per 64 KiB of records, offsets from the first record
//!   runs x {gap, length, size}, variable-length numbers: contents of one size side by side
//!   crc u32 (seeded with the store's uuid)
//! ```
//!
//! Which runs of records count, and what of them is acknowledged, stands in the base file that
//! the manifest names; so opening a store reads no segment.

mod check;
mod files;
mod places;
mod reader;
mod table;
mod writer;

pub(crate) use check::{Bad, Checked, Found, check, find};
pub(crate) use files::{SegFile, Segments};
pub(crate) use reader::{Start, Visit, walk};
pub(crate) use table::live_bytes;
pub(crate) use writer::{Sealed, SegmentWriter};
