//! Numbers that the health and metrics pages ask the server for.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use polymq_http::Facts;
use polymq_store::{Committer, Health, SYNC_BUCKETS_NANOS, Store};

use crate::{alarm::Marks, config::DiskSlow, logging, process, slow_store};

/// Where the numbers come from.
pub(crate) struct FactSources {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) marks: Arc<Marks>,
    pub(crate) disk_slow: DiskSlow,
    pub(crate) started: Instant,
}

impl FactSources {
    pub(crate) fn read(&self) -> Facts {
        let health = self.store.health();
        let store_is_full = health == Health::NearFull;
        let (problem, recovered_percent) = match health {
            Health::Ok | Health::NearFull => (None, 100),
            Health::Recovering(percent) => (None, percent),
            Health::ReadOnly(reason) | Health::Failed(reason) => (Some(reason), 100),
        };
        let failed = self.committer.failed().map(|error| error.to_string());
        let stats = self.committer.stats();
        let unanswered = Duration::from_nanos(stats.unanswered_nanos);
        let silence = || slow_store::problem(&self.disk_slow, unanswered);
        let damage = self.store.damage();
        let bounds = SYNC_BUCKETS_NANOS.iter().map(|nanos| match *nanos {
            u64::MAX => f64::INFINITY,
            nanos => seconds(nanos),
        });
        Facts {
            store_problem: problem.or(failed).or_else(silence),
            store_is_full,
            recovered_percent,
            store_damaged_ranges: damage.ranges,
            store_damaged_messages: damage.messages,
            store_scrubbed_bytes: damage.scrubbed_bytes,
            store_scrubs: damage.scrubs,
            store_disk_bytes: self.data_dir.as_deref().map(process::bytes_below),
            store_live: self.store.live().map(|live| (live.messages, live.bytes)),
            store_pending_bytes: u64::try_from(self.committer.pending_bytes()).unwrap_or(u64::MAX),
            store_unanswered_seconds: unanswered.as_secs_f64(),
            store_batches: stats.batches,
            store_records: stats.records,
            store_batch_bytes: stats.bytes,
            store_sync_buckets: bounds.zip(stats.sync_buckets).collect(),
            store_sync_seconds: seconds(stats.sync_nanos_total),
            files_open: process::files_open(),
            files_max: process::files_max(),
            memory_resident_bytes: process::resident_bytes(),
            memory_high_bytes: self.marks.memory_high_bytes(),
            disk_free_bytes: self.data_dir.as_deref().and_then(process::disk_free_bytes),
            disk_low_bytes: self.marks.disk_low_bytes(),
            disk_resume_bytes: self.marks.disk_resume_bytes(),
            marks_reached: self.marks.reached().to_vec(),
            log_lines_dropped: logging::dropped_lines(),
            uptime_secs: self.started.elapsed().as_secs_f64(),
        }
    }
}

fn seconds(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64()
}
