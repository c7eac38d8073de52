//! A job at work, batch after batch.

use std::sync::{Arc, mpsc};

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{Message, Now};
use polymq_store::StoreError;

use super::{JobRecord, JobSpec, JobState, Work, choose::Choice};
use crate::{access::Principal, core::Core, queue::Queue};

/// Messages of one batch at most.
pub(super) const BATCH_MAX: usize = 256;
/// Batches a second of a job that has a rate, so that it is even and can be ended soon.
const BATCHES_A_SECOND: u32 = 10;
/// How long to wait for room in the store, in ms.
const FULL_STORE_RETRY_MS: u64 = 1000;
/// How long to wait for another job on the same queue, in ms.
const BUSY_RETRY_MS: u64 = 20;

/// What comes after a step of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobStep {
    /// Another step, after so many ms.
    Again {
        /// How long to wait.
        after_ms: u64,
    },
    /// Nothing.
    Over,
}

/// A job that is not over.
pub(super) struct Run {
    who: Principal,
    queue: Arc<Queue>,
    choice: Choice,
    /// What takes the place of the only message.
    pub(super) edited: Option<Message>,
}

impl Run {
    /// Errors: kind `NotFound`, kind `Denied`, kind `Invalid`.
    pub(super) fn begin(
        core: &Arc<Core>,
        who: &Principal,
        spec: &JobSpec,
    ) -> Result<Self, Refusal> {
        let queue = core.readable_queue(who, &spec.vhost, &spec.queue)?;
        core.check_work(who, spec)?;
        let choice = Choice::new(&queue, spec)?;
        Ok(Self { who: who.clone(), queue, choice, edited: None })
    }

    /// About how many messages it has to look at.
    pub(super) fn total(&self) -> Option<u64> {
        Some(self.choice.total())
    }

    /// Does the next batch.
    pub(super) fn step(&mut self, core: &Arc<Core>, record: &mut JobRecord, now: Now) -> JobStep {
        // Without room on the disk what is moved would pile up in memory.
        if core.committer.is_refused() {
            return JobStep::Again { after_ms: FULL_STORE_RETRY_MS };
        }
        match self.try_step(core, record, now) {
            Ok(step) => step,
            Err(refusal) => {
                record.error = Some(refusal.text);
                record.end(JobState::Failed, now.unix_ms);
                JobStep::Over
            }
        }
    }

    fn try_step(
        &mut self,
        core: &Arc<Core>,
        record: &mut JobRecord,
        now: Now,
    ) -> Result<JobStep, Refusal> {
        // Rights may have changed since the last batch.
        let queue = core.readable_queue(&self.who, &record.spec.vhost, &record.spec.queue)?;
        if !Arc::ptr_eq(&queue, &self.queue) {
            let text = format!("queue '{}' was deleted", record.spec.queue);
            return Err(Refusal::missing("queue", &record.spec.queue, text));
        }
        if record.spec.work == Work::Purge {
            record.done = queue.purge();
            wait_until_durable(core)?;
            record.end(JobState::Done, now.unix_ms);
            return Ok(JobStep::Over);
        }
        let Some(_moving) = queue.begin_moving() else {
            return Ok(JobStep::Again { after_ms: BUSY_RETRY_MS });
        };
        let max = match record.spec.rate {
            Some(rate) if rate > 0 => (rate / BATCHES_A_SECOND).max(1) as usize,
            Some(_) | None => BATCH_MAX,
        };
        let chosen = self.choice.next(core, max.min(BATCH_MAX), now.unix_ms)?;
        record.scanned += chosen.scanned;
        record.missed += chosen.missed;
        let (done_before, is_over) = (record.done, chosen.is_over);
        let out =
            core.transfer(&self.who, &queue, record, (chosen.messages, self.edited.as_ref()), now);
        // One batch at a time, and nothing counts before it is kept.
        wait_until_durable(core)?;
        queue.forget_out(&out);
        if is_over {
            record.end(JobState::Done, now.unix_ms);
            return Ok(JobStep::Over);
        }
        let done = record.done - done_before;
        let after_ms = match record.spec.rate {
            Some(rate) if rate > 0 => done.saturating_mul(1000) / u64::from(rate),
            Some(_) | None => 0,
        };
        Ok(JobStep::Again { after_ms })
    }
}

/// Blocks until the store has everything that was written until now. What it refuses for lack of
/// room it is given again by the committer.
///
/// Errors: kind `StoreFailed`.
fn wait_until_durable(core: &Core) -> Result<(), Refusal> {
    let batch = core.committer.append(|_| ()).0;
    let (sender, receiver) = mpsc::sync_channel(1);
    core.committer.when_durable(batch, move |result| {
        // The receiver waits below, so this fails only when its thread is gone.
        let _ = sender.send(result);
    });
    core.committer.kick();
    match receiver.recv().unwrap_or(Err(StoreError::Closed)) {
        Ok(()) => Ok(()),
        Err(error) if error.is_refusal() => Ok(()),
        Err(error) => {
            let text = format!("the store did not take it: {error}");
            Err(Refusal::new(RefusalKind::StoreFailed, text))
        }
    }
}
