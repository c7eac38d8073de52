//! Publishes that wait while publishers are blocked. Everything else on the connection goes on, so
//! that a client that publishes and consumes on one connection can make the room it waits for.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use polymq_contract::{Publish, PublishOutcome, Refusal, RefusalKind, Transaction};
use polymq_model::Now;

use super::BrokerConnection;
use crate::core::Core;

/// What all connections together let wait; beyond it, a blocked publisher is not read from.
const ALL_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What waits on one connection, in order.
#[derive(Default)]
pub(super) struct Parked {
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

struct Waiting {
    since: Instant,
    bytes: usize,
    /// It came on a channel that is still there and fails with it.
    is_of_channel: bool,
    what: What,
}

enum What {
    Publish(Publish),
    Commit(Box<Transaction>),
}

impl Parked {
    /// True when no more may be read.
    pub(super) fn is_full(&self, core: &Core) -> bool {
        self.bytes >= core.limits.unconfirmed_bytes_max
            || (self.bytes > 0 && core.parked_bytes.load(Ordering::Relaxed) > ALL_BYTES_MAX)
    }
}

impl BrokerConnection {
    /// True when a publish has to wait.
    #[inline]
    fn must_wait(&self) -> bool {
        !self.parked.waiting.is_empty() || self.is_blocked()
    }

    fn is_blocked(&self) -> bool {
        self.core.alarmed.load(Ordering::Relaxed)
            || self.vhost.as_ref().is_some_and(|vhost| vhost.tenancy.is_blocked())
    }

    /// Publishes a message, now or when publishers may go on.
    #[inline]
    pub(super) fn publish(&mut self, publish: Publish, now: Now) {
        self.mark_publisher();
        match self.must_wait() {
            false => self.publish_now(publish, now),
            true => {
                let bytes = publish.message.size();
                self.park(What::Publish(publish), bytes, now);
            }
        }
    }

    /// Executes a transaction, now or when publishers may go on.
    pub(super) fn commit(&mut self, transaction: Box<Transaction>, now: Now) {
        if transaction.publishes.is_empty() {
            return self.commit_now(*transaction, now);
        }
        self.mark_publisher();
        if !self.must_wait() {
            return self.commit_now(*transaction, now);
        }
        let bytes = transaction.publishes.iter().map(|publish| publish.message.size()).sum();
        self.park(What::Commit(transaction), bytes, now);
    }

    fn park(&mut self, what: What, bytes: usize, now: Now) {
        let is_of_channel = match &what {
            What::Publish(publish) => self.channels.is_current(publish.publisher),
            What::Commit(_) => false,
        };
        self.parked.bytes += bytes;
        self.core.parked_bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.parked.waiting.is_empty() {
            self.record_parked(true);
        }
        let since = now.instant;
        self.parked.waiting.push_back(Waiting { since, bytes, is_of_channel, what });
    }

    /// The broker wakes connections on which something waits.
    fn record_parked(&self, has_parked: bool) {
        if let Some(record) = self.core.connections.lock().get_mut(&self.id) {
            record.has_parked = has_parked;
        }
    }

    /// A channel has closed: what it published before that happens all the same.
    pub(super) fn outlive_channel(&mut self, channel: polymq_model::PublisherId) {
        for waiting in &mut self.parked.waiting {
            if matches!(&waiting.what, What::Publish(publish) if publish.publisher == channel) {
                waiting.is_of_channel = false;
            }
        }
    }

    /// Executes what has waited, if publishers may go on, and refuses what has waited too long.
    pub(super) fn unpark(&mut self, now: Now) {
        if self.parked.waiting.is_empty() {
            return;
        }
        let patience = self.core.limits_now.load().publish_block_timeout;
        let channel = self.channels.current();
        while let Some(first) = self.parked.waiting.front() {
            let is_blocked = self.is_blocked();
            let waited = now.instant.saturating_duration_since(first.since);
            if is_blocked && waited < patience {
                break;
            }
            let Some(waiting) = self.take_parked() else { break };
            match waiting.what {
                What::Publish(publish) => {
                    let publisher = Some(publish.publisher).filter(|_| waiting.is_of_channel);
                    self.channels.resume(publisher);
                    match (self.channels.is_void(), is_blocked) {
                        (true, _) => {}
                        (false, false) => self.publish_now(publish, now),
                        (false, true) => self.give_up(&publish),
                    }
                }
                What::Commit(transaction) if is_blocked => {
                    let refusal = Err(self.blocked_too_long());
                    self.answer(transaction.request, refusal, None);
                }
                What::Commit(transaction) => self.commit_now(*transaction, now),
            }
        }
        self.channels.resume(channel);
        if self.parked.waiting.is_empty() {
            self.record_parked(false);
        }
        self.finish_execution(now);
    }

    fn give_up(&mut self, publish: &Publish) {
        if publish.number == 0 {
            let refusal = self.blocked_too_long();
            return self.refuse_publish(publish, refusal);
        }
        self.tally.refused += 1;
        let refused = PublishOutcome::Refused(RefusalKind::Full);
        self.end_publish(publish.publisher, publish.number, refused, None);
    }

    fn blocked_too_long(&self) -> Refusal {
        let secs = self.core.limits_now.load().publish_block_timeout.as_secs();
        let why = self.vhost.as_ref().and_then(|vhost| vhost.tenancy.blocked_reason());
        let why = self.core.alarm.read().clone().or(why).unwrap_or_else(|| Arc::from("blocked"));
        Refusal::new(RefusalKind::Full, format!("the publish was blocked for {secs} s: {why}"))
    }

    fn take_parked(&mut self) -> Option<Waiting> {
        let waiting = self.parked.waiting.pop_front()?;
        self.parked.bytes = self.parked.bytes.saturating_sub(waiting.bytes);
        self.core.parked_bytes.fetch_sub(waiting.bytes, Ordering::Relaxed);
        Some(waiting)
    }

    /// The client is gone: what waits was never answered.
    pub(super) fn drop_parked_publishes(&mut self) {
        while self.take_parked().is_some() {
            self.tally.refused += 1;
        }
    }
}
