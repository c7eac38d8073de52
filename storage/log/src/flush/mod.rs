//! What goes on behind the log: closed files of it are flushed to segments, segments of which
//! little lives are merged, and what the log adds up to is written to a base file, so that old
//! files can go.
//!
//! ```text
//! idle -> copying (a log file, or segments) -> written and synced: readers use the new place
//!      -> base (definitions, logs, counts, which parts of segments live) -> manifest -> deleting
//! ```
//!
//! The base file is not a picture of one moment, and need not be: everything that changed since
//! stands in log files that stay, and replay goes over it. Until the manifest names it, a crash
//! goes back to the files before.

mod base;
mod choose;
mod copy;
mod rewrite;

use std::{collections::BTreeSet, io, sync::Arc};

use parking_lot::Mutex;

use crate::{
    ballast,
    core::Home,
    error::{Failure, fatal_at},
    manifest::{self, Manifest},
    names::{BASE_DIR, base_name, seg_name, wal_name},
    numbers::FileNumbers,
    part::{Part, Source},
    place::{Shared, WalFile},
    segment::{self, Segments},
};

use base::BaseWriter;
use copy::Copying;

/// For each byte of the log that is flushed so many are merged, so that merging keeps up with it.
const MERGED_PER_FLUSHED: u64 = 2;

/// Works in steps, so that a test decides what happens between two of them.
pub(crate) struct Flusher {
    pub(crate) home: Home,
    pub(crate) shared: Arc<Mutex<Shared>>,
    pub(crate) manifest: Manifest,
    segments: Arc<Segments>,
    numbers: Arc<FileNumbers>,
    job: Job,
    /// A merge that has begun.
    merge: Option<Box<Copying>>,
    /// Files of the log that are flushed, but that the manifest still names.
    flushed: Vec<WalFile>,
    /// So much may be merged before more of the log is flushed.
    merge_budget: u64,
    /// Something may be worth merging.
    may_merge: bool,
    /// Segments were merged since the last base file.
    has_unsaved_merges: bool,
    /// Segments that could not be read; they stay as they are.
    unreadable: BTreeSet<u32>,
    /// A step failed; another try waits for a wake-up.
    is_resting: bool,
    last_failure: Option<String>,
    /// How often something was merged.
    pub(crate) merges: u64,
}

#[derive(Default)]
enum Job {
    #[default]
    Idle,
    Copying(Box<Copying>),
    Base(Box<BaseWriter>),
    Deleting(Vec<String>),
}

impl Flusher {
    pub(crate) fn new(
        home: Home,
        shared: Arc<Mutex<Shared>>,
        numbers: Arc<FileNumbers>,
        manifest: Manifest,
    ) -> Self {
        let segments = shared.lock().segments.clone();
        Self {
            home,
            shared,
            manifest,
            segments,
            numbers,
            job: Job::Idle,
            merge: None,
            flushed: Vec::new(),
            merge_budget: 0,
            may_merge: true,
            has_unsaved_merges: false,
            unreadable: BTreeSet::new(),
            is_resting: false,
            last_failure: None,
            merges: 0,
        }
    }

    /// Does a bounded piece of work; true when there is more to do.
    ///
    /// Errors: only those after which nothing can be written any more.
    pub(crate) fn step(&mut self) -> Result<bool, Failure> {
        if self.shared.lock().failed.is_some() {
            return Ok(false);
        }
        let job = std::mem::take(&mut self.job);
        let was_idle = matches!(job, Job::Idle);
        let result = match job {
            Job::Idle => Ok(self.begin()),
            Job::Copying(copying) => self.copy(copying),
            Job::Base(base) => self.write_base(base),
            Job::Deleting(names) => Ok(self.delete_one(names)),
        };
        match result {
            Ok(job) => self.job = job,
            Err(failure) => return Err(self.fail(&failure.to_string())),
        }
        // The end of one job may be the reason for the next.
        let is_idle = matches!(self.job, Job::Idle);
        Ok(!is_idle || (!was_idle && !self.is_resting))
    }

    /// Nothing can be written any more.
    pub(crate) fn fail(&self, why: &str) -> Failure {
        self.shared.lock().failed = Some(why.to_owned());
        Failure::Fatal(why.to_owned())
    }

    /// Tries again what failed.
    pub(crate) fn wake(&mut self) {
        self.is_resting = false;
        self.shared.lock().is_stuck = false;
    }

    fn begin(&mut self) -> Job {
        if self.is_resting {
            return Job::Idle;
        }
        if self.merge_budget > 0
            && let Some(merge) = self.next_merge()
        {
            let step = self.home.config.step_bytes as u64;
            self.merge_budget = self.merge_budget.saturating_sub(step);
            return Job::Copying(merge);
        }
        if let Some(copying) = self.oldest_to_flush() {
            return Job::Copying(copying);
        }
        let released = self.segments.released_bytes();
        if !self.flushed.is_empty() || released >= self.home.config.segment_bytes {
            return Job::Base(self.new_base());
        }
        if let Some(merge) = self.next_merge() {
            return Job::Copying(merge);
        }
        if self.has_unsaved_merges {
            return Job::Base(self.new_base());
        }
        Job::Idle
    }

    /// The merge that has begun, or one that is worth it.
    fn next_merge(&mut self) -> Option<Box<Copying>> {
        let merge = self.merge.take();
        if merge.is_some() || !self.may_merge {
            return merge;
        }
        let merge = self.worth_merging();
        self.may_merge = merge.is_some();
        merge
    }

    fn new_base(&self) -> Box<BaseWriter> {
        Box::new(BaseWriter::new(self.numbers.clone(), &self.manifest))
    }

    /// The oldest closed file of the log, when enough of them wait.
    ///
    /// One stays unflushed, because many messages live so shortly that they need no segment.
    fn oldest_to_flush(&self) -> Option<Box<Copying>> {
        let shared = self.shared.lock();
        let config = &self.home.config;
        let kept = config.wal_file_bytes * u64::from(config.wal_files_kept);
        let oldest = *shared.sealed.front()?;
        (shared.sealed_bytes() > kept).then(|| Box::new(Copying::flush(&shared, oldest)))
    }

    fn copy(&mut self, mut copying: Box<Copying>) -> Result<Job, Failure> {
        match copying.step(&self.home, &self.shared, &self.numbers) {
            Ok(false) if copying.flushed().is_none() => {
                // Publishers may wait for flushing, so it gets its turn in between.
                self.merge = Some(copying);
                Ok(Job::Idle)
            }
            Ok(false) => Ok(Job::Copying(copying)),
            Ok(true) => {
                copying.switch(&self.shared, &self.segments);
                self.may_merge = true;
                let Some(wal) = copying.flushed() else {
                    // The base file can wait for more merges: a crash only repeats them.
                    self.merges += 1;
                    self.has_unsaved_merges = true;
                    return Ok(Job::Idle);
                };
                self.flushed.push(wal);
                self.merge_budget = self.home.config.wal_file_bytes * MERGED_PER_FLUSHED;
                // Several small files that wait are flushed before one base file is written.
                let flushed: u64 = self.flushed.iter().map(|file| file.bytes).sum();
                let is_little = flushed < self.home.config.wal_file_bytes;
                Ok(match self.oldest_to_flush().filter(|_| is_little) {
                    Some(copying) => Job::Copying(copying),
                    None => Job::Base(self.new_base()),
                })
            }
            Err(failure) => {
                for number in copying.created() {
                    self.segments.forget(*number);
                    let _ = self.home.disk.remove(&seg_name(*number));
                }
                let suspects = copying.suspects();
                if matches!(failure, Failure::Damaged(_)) && !suspects.is_empty() {
                    tracing::error!(
                        event = "segments_not_mended", %failure,
                        "damaged segments stay as they are"
                    );
                    self.unreadable.extend(suspects);
                    return Ok(Job::Idle);
                }
                self.give_up(failure)
            }
        }
    }

    fn write_base(&mut self, mut base: Box<BaseWriter>) -> Result<Job, Failure> {
        if base.is_new() {
            base.begin(self.segments.unneeded(), self.flushed.last());
            self.settle_sizes();
        }
        match base.step(&self.home, &self.shared) {
            Ok(false) => Ok(Job::Base(base)),
            Ok(true) => self.name_base(*base),
            Err(failure) => {
                base.remove(&self.home);
                self.give_up(failure)
            }
        }
    }

    /// Nothing is lost when this fails: the files before still hold everything.
    fn give_up(&mut self, failure: Failure) -> Result<Job, Failure> {
        if let Failure::Fatal(_) = failure {
            return Err(failure);
        }
        if let Failure::Full(_) = failure {
            // The next try has more room.
            ballast::release(&self.home);
        }
        // It is tried again every second, and the reason rarely changes.
        let why = failure.to_string();
        if self.last_failure.as_ref() != Some(&why) {
            tracing::error!(
                event = "flush_failed", %failure,
                "old files stay, because flushing or merging failed"
            );
            self.last_failure = Some(why);
        }
        self.is_resting = true;
        self.shared.lock().is_stuck = true;
        Ok(Job::Idle)
    }

    /// Makes the new base files count instead of the old files.
    fn name_base(&mut self, base: BaseWriter) -> Result<Job, Failure> {
        self.home.disk.sync_dir(BASE_DIR).map_err(fatal_at("writing a base file"))?;
        let before = self.manifest.clone();
        self.manifest.bases = base.done().to_vec();
        if let Some(wal) = self.flushed.last() {
            self.manifest.first_wal = wal.number + 1;
            self.manifest.prev_wal_seq = wal.end.wal_seq;
            self.manifest.prev_crc = wal.end.crc;
            self.manifest.base_batch = wal.end.batch;
        }
        self.sync_log()?;
        if let Err(failure) = self.write_manifest() {
            let number = self.manifest.number;
            self.manifest = Manifest { number, ..before };
            base.remove(&self.home);
            return self.give_up(failure);
        }
        self.last_failure = None;
        self.has_unsaved_merges = false;
        ballast::take(&self.home)?;
        let mut names: Vec<_> = before.bases.iter().map(|b| base_name(b.file_seq)).collect();
        names.extend(self.flushed.drain(..).map(|file| wal_name(file.number)));
        for number in base.unneeded() {
            self.segments.forget(*number);
            names.push(seg_name(*number));
        }
        Ok(Job::Deleting(names))
    }

    /// A base file may say what batches have done that are not synced. Before it counts they must
    /// be, or a power loss would leave half of what they did.
    fn sync_log(&mut self) -> Result<(), Failure> {
        let (unsynced, written) = {
            let shared = self.shared.lock();
            (shared.unsynced.clone(), shared.written_seq)
        };
        if let Some(file) = unsynced {
            file.sync_data().map_err(fatal_at("syncing the log"))?;
        }
        self.manifest.durable_seq = written;
        Ok(())
    }

    pub(crate) fn write_manifest(&mut self) -> Result<(), Failure> {
        self.manifest.next_file = self.numbers.next();
        {
            let shared = self.shared.lock();
            self.manifest.last_wal = shared.durable_wal;
            self.manifest.durable_seq = shared.durable_seq.max(self.manifest.durable_seq);
        }
        let home = &self.home;
        manifest::write_manifest(&*home.disk, home.uuid, &mut self.manifest)
    }

    fn delete_one(&self, mut names: Vec<String>) -> Job {
        if let Some(name) = names.pop()
            && let Err(error) = self.home.disk.remove(&name)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(
                event = "old_file_stays", file = name, %error,
                "an old file stays until the next start"
            );
        }
        if names.is_empty() { Job::Idle } else { Job::Deleting(names) }
    }

    fn settle_sizes(&self) {
        settle_sizes(&self.shared);
    }
}

/// Looks up how large the acknowledged messages were, where only their segment knows.
///
/// Acknowledging reads nothing; this does, from the tables of the segments concerned.
pub(crate) fn settle_sizes(shared: &Mutex<Shared>) {
    let (segments, stale) = {
        let shared = shared.lock();
        let mut stale = Vec::new();
        for (id, log) in shared.state.logs() {
            let parts = log.messages().parts().iter().filter(|part| part.is_stale);
            stale.extend(parts.map(|part| (id, part.first())));
        }
        (shared.segments.clone(), stale)
    };
    for (id, first) in stale {
        let first = polymq_store::Seq(first);
        let part = {
            let shared = shared.lock();
            let part = shared.state.log(id).and_then(|log| log.messages().part_at(first));
            part.and_then(file_and_dead)
        };
        let Some((file, dead)) = part else { continue };
        match segment::live_bytes(&segments, &file, &dead) {
            Ok(bytes) => {
                let mut shared = shared.lock();
                let log = shared.state.log_mut(id);
                let part = log.and_then(|log| log.messages_mut().part_at_mut(first));
                if let Some(part) = part.filter(|part| part.is_at(&file) && part.dead == dead) {
                    (part.live_bytes, part.is_stale) = (bytes, false);
                }
            }
            Err(failure) => {
                tracing::error!(
                    event = "size_estimated", %failure, log = id.0,
                    "the bytes of this log are an estimate"
                );
            }
        }
    }
}

fn file_and_dead(part: &Part) -> Option<(crate::part::FilePart, crate::dead::Dead)> {
    match &part.source {
        Source::File(file) => Some((file.clone(), part.dead.clone())),
        Source::Wal(..) => None,
    }
}
