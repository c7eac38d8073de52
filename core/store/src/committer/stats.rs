//! Counters of a committer.

/// Upper bounds of the buckets of [`CommitStats::sync_buckets`], in nanoseconds.
pub const SYNC_BUCKETS_NANOS: [u64; 12] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    1_000_000_000,
    u64::MAX,
];

/// What a committer has done since it began. Sums and counts only grow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitStats {
    /// Batches written.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Payload bytes in them.
    pub bytes: u64,
    /// Times the engine refused a batch because it was full or read-only.
    pub refused: u64,
    /// Time from submission to answer of the last batch.
    pub sync_nanos_last: u64,
    /// How long the engine has not answered the batch it has now; 0 when it has none.
    pub unanswered_nanos: u64,
    /// The sum of these times.
    pub sync_nanos_total: u64,
    /// The longest of these times.
    pub sync_nanos_max: u64,
    /// Batches by time; a batch counts in the first bucket whose bound it does not exceed.
    pub sync_buckets: [u64; SYNC_BUCKETS_NANOS.len()],
    /// Callbacks that panicked.
    pub callback_panics: u64,
}

impl CommitStats {
    pub(super) fn written(&mut self, records: u32, bytes: usize, nanos: u64) {
        self.batches += 1;
        self.records += u64::from(records);
        self.bytes += bytes as u64;
        self.sync_nanos_last = nanos;
        self.sync_nanos_total = self.sync_nanos_total.saturating_add(nanos);
        self.sync_nanos_max = self.sync_nanos_max.max(nanos);
        let bucket = SYNC_BUCKETS_NANOS.partition_point(|bound| *bound < nanos);
        if let Some(count) = self.sync_buckets.get_mut(bucket) {
            *count += 1;
        }
    }
}
