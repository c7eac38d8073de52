//! What publishers are told about how their publishes ended.

use std::sync::atomic::Ordering;

use polymq_contract::{Event, PublishOutcome, RefusalKind};
use polymq_model::PublisherId;
use polymq_store::ShardBatch;

use super::BrokerConnection;

/// A range of publishes that ended alike.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    pub(super) publisher: PublisherId,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) outcome: PublishOutcome,
    /// Told when this is durable.
    pub(super) batch: Option<ShardBatch>,
}

impl BrokerConnection {
    /// Tells what is known about confirms, and asks to be told about the rest.
    pub(super) fn settle_confirms(&mut self) {
        let confirmed: u64 = self.ended.iter().map(|e| e.last - e.first + 1).sum();
        self.tally.confirmed += confirmed;
        let durable = self.core.committer.durable();
        let appended = self.appended.take().filter(|batch| *batch > durable);
        let Some(batch) = appended else {
            if !self.ended.is_empty() {
                self.facts.told_confirms(self.ended.iter().map(Ended::count));
                self.outbox.push_all(self.ended.iter().map(Ended::event));
                self.ended.clear();
            }
            self.unconfirmed_new = 0;
            return;
        };
        let bytes = std::mem::take(&mut self.unconfirmed_new);
        let before = self.unconfirmed.fetch_add(bytes, Ordering::SeqCst);
        let bytes_max = self.core.limits.unconfirmed_bytes_max;
        if before + bytes >= bytes_max {
            self.wait_for = self.wait_for.max(Some(batch));
        }
        // Those without a batch are told with the others: an order within a publisher costs nothing
        // then.
        let ended = std::mem::take(&mut self.ended);
        let (outbox, unconfirmed) = (self.outbox.clone(), self.unconfirmed.clone());
        let (facts, refuses) = (self.facts.clone(), self.core.store_refuses.clone());
        self.core.committer.when_durable(batch, move |result| {
            let waited = unconfirmed.fetch_sub(bytes, Ordering::SeqCst) >= bytes_max;
            facts.told_confirms(ended.iter().map(Ended::count));
            match result {
                Ok(()) => {
                    if refuses.load(Ordering::Relaxed) {
                        refuses.store(false, Ordering::Relaxed);
                    }
                    outbox.push_all(ended.iter().map(Ended::event));
                }
                Err(error) => {
                    if !refuses.swap(true, Ordering::Relaxed) {
                        tracing::error!(
                            event = "store_refused", %error,
                            "publishes are not confirmed"
                        );
                    }
                    outbox.push_all(ended.iter().map(Ended::failed));
                }
            }
            if waited && ended.is_empty() {
                outbox.nudge();
            }
        });
    }
}

impl Ended {
    /// Whose publishes, and how many.
    fn count(&self) -> (PublisherId, u64) {
        (self.publisher, self.last - self.first + 1)
    }

    fn event(&self) -> Event {
        Event::Confirmed {
            publisher: self.publisher,
            first: self.first,
            last: self.last,
            outcome: self.outcome,
        }
    }

    fn failed(&self) -> Event {
        Event::Confirmed {
            publisher: self.publisher,
            first: self.first,
            last: self.last,
            outcome: match self.batch {
                Some(_) => PublishOutcome::Refused(RefusalKind::StoreFailed),
                None => self.outcome,
            },
        }
    }
}
