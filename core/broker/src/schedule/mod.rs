//! Messages that are to be routed later.
//!
//! Each virtual host has one log of them. Memory holds when each is due and where it stands, in the
//! order in which they leave; the messages themselves are on the disk, except the newest, which are
//! not there yet.

mod admin;
mod clock;
mod release;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{
    LogId, Message, Now, Seq,
    delay::Delay,
    message::{Annotations, Delayed},
};
use polymq_store::{Durability, ShardBatch};

use crate::{
    client_session::ClientSession,
    core::Core,
    definitions::{self, StoredSchedule, kind},
    stored_message,
    vhost::Vhost,
};
pub use admin::{ScheduledAt, ScheduledRights, ScheduledView};
use clock::SteadyClock;
use release::Releasing;

/// When a message is due, in ms since 1970, and its place in the log. Messages leave in this order.
type Entry = (u64, Seq);

/// The delayed messages of a virtual host.
#[derive(Debug, Default)]
pub(crate) struct Schedule(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Where they are stored; 0 before the first.
    log: LogId,
    next_seq: u64,
    due: BTreeSet<Entry>,
    /// When those are due that somebody has moved, in ms since 1970.
    moved: HashMap<Seq, u64>,
    /// Messages that the store may not have yet.
    fresh: HashMap<Seq, Message>,
    clock: SteadyClock,
    releasing: Releasing,
    /// Nothing is released before this time: the store had no answer.
    retry_ms: u64,
}

impl Schedule {
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().due.len()
    }

    /// Goes on with a log that a restart has found.
    pub(crate) fn restore(&self, log: LogId, next_seq: Seq) {
        let mut inner = self.0.lock();
        inner.log = log;
        inner.next_seq = next_seq.0;
    }

    /// Its log, if it has one.
    pub(crate) fn log(&self) -> Option<LogId> {
        Some(self.0.lock().log).filter(|log| log.0 != 0)
    }

    /// Its log, when it has one; it has no messages any more.
    pub(crate) fn end(&self) -> Option<LogId> {
        let mut inner = self.0.lock();
        let log = Some(inner.log).filter(|log| log.0 != 0);
        *inner = Inner::default();
        log
    }
}

impl Inner {
    /// The message leaves.
    fn forget(&mut self, seq: Seq) {
        if !self.moved.is_empty() {
            self.moved.remove(&seq);
        }
        self.fresh.remove(&seq);
    }
}

impl Core {
    /// Keeps a message until it is due. The answer is the batch that holds it, and its schedule id.
    ///
    /// Errors: kind `Full` while the store has no room.
    pub(crate) fn delay(
        &self,
        vhost: &Arc<Vhost>,
        message: Message,
        delay: Delay,
        publisher: Option<&ClientSession>,
        now: Now,
    ) -> Result<(ShardBatch, u64), Refusal> {
        if self.committer.is_refused() {
            let text = "the disk is full, so that no message can be delayed";
            return Err(Refusal::new(RefusalKind::Full, text));
        }
        let mut inner = vhost.schedule.0.lock();
        if inner.log.0 == 0 {
            inner.log = self.begin_schedule(vhost);
        }
        let now_ms = inner.clock.now_ms(now);
        let delay_ms = match delay {
            Delay::For(ms) => ms,
            Delay::Until(at_ms) => at_ms.saturating_sub(now.unix_ms),
        };
        let due_ms = now_ms.saturating_add(delay_ms);
        let annotations = Annotations {
            delayed: Some(Delayed {
                due_ms,
                delay_ms,
                publisher: publisher.map(|client| client.client_id.clone()),
            }),
            ..message.annotations().cloned().unwrap_or_default()
        };
        let message = message.with_annotations(annotations);
        inner.next_seq = inner.next_seq.max(1);
        let (log, seq) = (inner.log, Seq(inner.next_seq));
        inner.next_seq += 1;
        // What stays in memory elsewhere is on the disk here, but nobody waits for it.
        let class = self.durability.weaker(message.durability()).stronger(Durability::Os);
        let (batch, _) = self.committer.append_as(class, |writer| {
            stored_message::write(writer, log, seq, message.deadline_ms(), &message)
        });
        inner.due.insert((due_ms, seq));
        inner.fresh.insert(seq, message);
        drop(inner);
        // If the store refuses it the entry finds nothing there when it is due, unless the message
        // was part of something that the store takes later.
        let vhost = Arc::downgrade(vhost);
        self.committer.when_durable(batch, move |_| {
            if let Some(vhost) = vhost.upgrade() {
                vhost.schedule.0.lock().fresh.remove(&seq);
            }
        });
        Ok((batch, seq.0))
    }

    fn begin_schedule(&self, vhost: &Vhost) -> LogId {
        let log = self.next_log();
        let key = definitions::key(&[kind::SCHEDULE, vhost.name.as_str()]);
        let value = definitions::encode(&StoredSchedule { log: log.0 });
        self.committer.append(|writer| {
            writer.log_create(log, &format!("{} delayed", vhost.name));
            writer.meta_put(&key, &value);
        });
        log
    }
}
