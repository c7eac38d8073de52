//! Jobs: work on many messages in batches of the store, with progress, and an end that can be
//! asked for between two batches.
//!
//! The broker has no threads of its own: whoever starts a job calls [`BrokerHandle::step_job`]
//! until it is done, on a thread that may block.

mod choose;
mod record;
mod run;
mod transfer;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{Message, Now};

use crate::{
    BrokerHandle,
    access::Principal,
    core::Core,
    definitions::{self, kind},
};
pub use choose::JobPreview;
pub use record::{JobRecord, JobSpec, JobState, MoveTo, RefusedMessage, Via, Work};
pub use run::JobStep;
use run::{BATCH_MAX, Run};

/// Jobs that are kept, those at work included.
const JOBS_MAX: usize = 1000;
/// Jobs at work or waiting at a time.
const ACTIVE_MAX: usize = 32;

/// All jobs that are known.
#[derive(Default)]
pub(crate) struct Jobs(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    last_id: u64,
    jobs: BTreeMap<u64, Job>,
}

struct Job {
    record: JobRecord,
    /// `None` while a step is under way, and once it is over.
    run: Option<Box<Run>>,
    cancelled: Arc<AtomicBool>,
}

impl BrokerHandle {
    /// Has a job wait for its first [`step`](Self::step_job). It is done in the name of `who`, with
    /// the rights that `who` has at each batch.
    ///
    /// Errors: kind `NotFound` for the queue and for its target; kind `Denied`; kind `Invalid` for
    /// a filter; kind `Limit` when too many are at work.
    pub fn start_job(
        &self,
        who: &Principal,
        spec: JobSpec,
        now: Now,
    ) -> Result<JobRecord, Refusal> {
        self.start_job_with(who, spec, None, now)
    }

    /// The same; `edited` takes the place of the one message that is moved, copied or retried. What
    /// the broker knows about that stays with it.
    ///
    /// Errors: those of [`start_job`](Self::start_job); kind `Invalid` for any other work.
    pub fn start_job_with(
        &self,
        who: &Principal,
        spec: JobSpec,
        edited: Option<Message>,
        now: Now,
    ) -> Result<JobRecord, Refusal> {
        let is_one = spec.seqs.len() == 1 && !matches!(spec.work, Work::Purge | Work::Delete);
        if edited.is_some() && !is_one {
            let text = "one message is edited, while it is moved, copied or retried";
            return Err(Refusal::new(RefusalKind::Invalid, text));
        }
        let mut run = Run::begin(&self.0, who, &spec)?;
        run.edited = edited;
        let mut inner = self.0.jobs.0.lock();
        let active = inner.jobs.values().filter(|job| !job.record.state.is_over()).count();
        if active >= ACTIVE_MAX {
            let text = format!("{ACTIVE_MAX} jobs are at work or wait; end one or wait");
            return Err(Refusal::new(RefusalKind::Limit, text));
        }
        inner.last_id += 1;
        let id = inner.last_id;
        let mut record = JobRecord::new(id, spec, &who.user, now.unix_ms);
        record.total = run.total();
        self.0.store_job(&record);
        let cancelled = Arc::default();
        let job = Job { record: record.clone(), run: Some(Box::new(run)), cancelled };
        inner.jobs.insert(id, job);
        let forgotten = inner.forget_oldest();
        drop(inner);
        self.0.unstore_jobs(&forgotten);
        Ok(record)
    }

    /// All jobs, the newest first.
    pub fn jobs(&self) -> Vec<JobRecord> {
        self.0.jobs.0.lock().jobs.values().rev().map(|job| job.record.clone()).collect()
    }

    /// A job.
    pub fn job(&self, id: u64) -> Option<JobRecord> {
        self.0.jobs.0.lock().jobs.get(&id).map(|job| job.record.clone())
    }

    /// True when somebody has asked for the end of a job, or it is known no more.
    pub fn is_job_ending(&self, id: u64) -> bool {
        let inner = self.0.jobs.0.lock();
        inner.jobs.get(&id).is_none_or(|job| job.cancelled.load(Ordering::SeqCst))
    }

    /// Ends a job: at once, or with the batch that is under way. What it has done stays. One that
    /// is over is forgotten.
    ///
    /// Errors: kind `NotFound`.
    pub fn cancel_job(&self, id: u64) -> Result<(), Refusal> {
        let now_ms = self.0.clock_ms();
        let mut inner = self.0.jobs.0.lock();
        let Some(job) = inner.jobs.get_mut(&id) else {
            return Err(Refusal::missing("job", id.to_string(), format!("no job {id}")));
        };
        job.cancelled.store(true, Ordering::SeqCst);
        if job.record.state.is_over() {
            inner.jobs.remove(&id);
            drop(inner);
            self.0.unstore_jobs(&[id]);
        } else if job.run.take().is_some() {
            job.record.end(JobState::Cancelled, now_ms);
            self.0.store_job(&job.record);
        }
        Ok(())
    }

    /// Does the next batch of a job. Blocks until the store has it.
    ///
    /// Nothing happens while another thread does a batch of the same job.
    pub fn step_job(&self, id: u64, now: Now) -> JobStep {
        let (mut run, mut record, cancelled, is_first) = {
            let mut inner = self.0.jobs.0.lock();
            let Some(job) = inner.jobs.get_mut(&id) else { return JobStep::Over };
            let Some(run) = job.run.take() else { return JobStep::Over };
            let is_first = job.record.state == JobState::Queued;
            if is_first {
                job.record.state = JobState::Running;
                job.record.started_ms = now.unix_ms;
            }
            (run, job.record.clone(), job.cancelled.clone(), is_first)
        };
        let step = match cancelled.load(Ordering::SeqCst) {
            true => {
                record.end(JobState::Cancelled, now.unix_ms);
                JobStep::Over
            }
            false => run.step(&self.0, &mut record, now),
        };
        let mut inner = self.0.jobs.0.lock();
        if let Some(job) = inner.jobs.get_mut(&id) {
            job.record = record;
            let is_over = job.record.state.is_over();
            // Also of one that goes on, so that a restart knows how far it came; but a long list of
            // positions is not written again and again.
            if is_over || is_first || job.record.spec.seqs.len() <= BATCH_MAX {
                self.0.store_job(&job.record);
            }
            if !is_over {
                job.run = Some(run);
            }
        }
        step
    }
}

impl Inner {
    /// Forgets what is too much, those that are over and oldest first.
    fn forget_oldest(&mut self) -> Vec<u64> {
        let excess = self.jobs.len().saturating_sub(JOBS_MAX);
        let over = self.jobs.iter().filter(|(_, job)| job.record.state.is_over());
        let forgotten: Vec<u64> = over.map(|(id, _)| *id).take(excess).collect();
        for id in &forgotten {
            self.jobs.remove(id);
        }
        forgotten
    }
}

impl Core {
    fn store_job(&self, record: &JobRecord) {
        let key = definitions::key(&[kind::JOB, &record.id.to_string()]);
        self.committer.append(|writer| writer.meta_put(&key, &definitions::encode(record)));
    }

    fn unstore_jobs(&self, ids: &[u64]) {
        if ids.is_empty() {
            return;
        }
        self.committer.append(|writer| {
            for id in ids {
                writer.meta_delete(&definitions::key(&[kind::JOB, &id.to_string()]));
            }
        });
    }

    /// Takes over a job that a restart has found. One that was at work goes on no more.
    pub(crate) fn restore_job(&self, mut record: JobRecord, now_ms: u64) {
        if !record.state.is_over() {
            record.end(JobState::Interrupted, now_ms);
            self.store_job(&record);
        }
        let mut inner = self.jobs.0.lock();
        inner.last_id = inner.last_id.max(record.id);
        let cancelled = Arc::default();
        inner.jobs.insert(record.id, Job { record, run: None, cancelled });
    }
}
