//! Sizes of the log.

use polymq_store::RESERVE_BYTES;

/// Sizes of the log.
#[derive(Debug, Clone, Copy)]
pub struct LogConfig {
    /// Files of the log are prepared with this size.
    pub wal_file_bytes: u64,
    /// The first file after a start, which is prepared while the broker waits for it.
    pub first_file_bytes: u64,
    /// A file of the log ends after so many records, which bounds the memory for their places.
    pub wal_records_max: u32,
    /// So many full files of the log stay unflushed, because most messages live shortly.
    pub wal_files_kept: u32,
    /// When so many full files of the log wait for being flushed, publishers wait as well.
    pub wal_files_max: u32,
    /// About the size of a segment, and how much of segments that are not needed may pile up.
    pub segment_bytes: u64,
    /// A log that flushes at least this much gets a segment of its own.
    pub own_segment_bytes: u64,
    /// Segments may take this much more than twice what lives in them, before they are merged.
    pub garbage_bytes: u64,
    /// So many segments of about one size, of one log or shared by small ones, become one.
    pub alike_segments: usize,
    /// About how much is flushed in one step.
    pub step_bytes: usize,
    /// Room that is kept for the time when the disk is full; 0 for none.
    pub ballast_bytes: u64,
    /// Everything is read before the store opens, and damage refuses it.
    pub is_read_at_start: bool,
    /// About how long it takes to read every segment once while the store is open; 0 for never.
    pub scrub_secs: u64,
    /// The most that is read a second for that.
    pub scrub_bytes_per_sec: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        const KIB: u64 = 1024;
        const MIB: u64 = 1024 * KIB;
        Self {
            wal_file_bytes: 64 * MIB,
            first_file_bytes: 4 * MIB,
            wal_records_max: 500_000,
            wal_files_kept: 1,
            wal_files_max: 4,
            segment_bytes: 64 * MIB,
            own_segment_bytes: 256 * KIB,
            garbage_bytes: 64 * MIB,
            alike_segments: 8,
            step_bytes: 256 * 1024,
            ballast_bytes: RESERVE_BYTES,
            is_read_at_start: false,
            scrub_secs: 7 * 24 * 3600,
            scrub_bytes_per_sec: 8 * MIB,
        }
    }
}

impl LogConfig {
    /// The largest segment that small logs share. It is many times larger than others, so that a
    /// small log has its messages in few places.
    pub(crate) fn shared_bytes_max(&self) -> u64 {
        self.segment_bytes.saturating_mul(16)
    }
}
