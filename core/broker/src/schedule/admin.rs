//! What an administrator does with delayed messages, and what a restart finds of them.

use std::sync::Arc;

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{Message, Now, Seq, VhostName};
use polymq_store::{MessageRef, OpenedLog, Page, Reply, Store, StoreError, StoredMessage, wait};

use super::Entry;
use crate::{
    BrokerHandle,
    access::{Principal, Read, Role, Topics},
    core::Core,
    recover::PAGE,
    stored_message,
    vhost::Vhost,
};

/// Where a delayed message stands in the order in which they leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScheduledAt {
    /// When it is due, in ms since 1970.
    pub due_ms: u64,
    /// Its schedule id, which is its own for ever in its virtual host.
    pub id: u64,
}

/// A delayed message.
#[derive(Debug, Clone)]
pub struct ScheduledView {
    /// When it leaves.
    pub at: ScheduledAt,
    /// The message as it was published, without the headers that delay it.
    pub message: Message,
}

/// What somebody may do with a delayed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScheduledRights {
    /// See that it is there and where it goes: whoever could have sent it, and who monitors.
    pub see: bool,
    /// See what is in it: whoever may read where it goes.
    pub read: bool,
    /// Cancel it or have it leave at another time: whoever may do both, and administrators.
    pub change: bool,
}

impl BrokerHandle {
    /// What somebody may do with a delayed message. Until it is routed nobody knows all queues it
    /// goes to, so that its exchange and keys count.
    pub fn scheduled_rights(
        &self,
        who: &Principal,
        vhost: &VhostName,
        message: &Message,
    ) -> ScheduledRights {
        let tags = self.0.access.tags_of(who);
        let vhost = self.0.vhost(vhost.as_str());
        let (send, read) = vhost.map_or((false, false), |vhost| {
            let send = self.0.check_may_publish(who, &vhost, message.exchange(), keys_of(message));
            (send.is_ok(), self.0.may_read_what_comes(who, &vhost, message))
        });
        ScheduledRights {
            see: send || tags.include(Role::Monitoring),
            read,
            change: (send && read) || tags.include(Role::Administrator),
        }
    }

    /// How many delayed messages a virtual host has.
    ///
    /// Errors: kind `NotFound`.
    pub fn scheduled_count(&self, vhost: &VhostName) -> Result<usize, Refusal> {
        Ok(self.0.vhost(vhost.as_str())?.schedule.len())
    }

    /// Delayed messages in the order in which they leave, those behind `after`, at most `count`.
    /// Blocks while the store is read.
    ///
    /// Errors: kind `NotFound` for the virtual host, kind `StoreFailed`.
    pub fn scheduled(
        &self,
        vhost: &VhostName,
        after: Option<ScheduledAt>,
        count: usize,
    ) -> Result<Vec<ScheduledView>, Refusal> {
        let vhost = self.0.vhost(vhost.as_str())?;
        let after = after.map(|after| (after.due_ms, Seq(after.id)));
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let entries: Vec<Entry> = {
            let inner = vhost.schedule.0.lock();
            inner.due.range((from, std::ops::Bound::Unbounded)).take(count).copied().collect()
        };
        let mut views = Vec::with_capacity(entries.len());
        for entry in entries {
            let (due_ms, seq) = entry;
            let at = ScheduledAt { due_ms, id: seq.0 };
            let message = self.0.scheduled_message(&vhost, seq)?;
            views.extend(message.map(|message| ScheduledView { at, message }));
        }
        Ok(views)
    }

    /// Drops a delayed message. Blocks while the store is read.
    ///
    /// Errors: kind `NotFound` for the virtual host and for an id that waits no more, kind
    /// `StoreFailed`.
    pub fn cancel_scheduled(&self, vhost: &VhostName, id: u64) -> Result<(), Refusal> {
        let vhost = self.0.vhost(vhost.as_str())?;
        let entry = self.0.scheduled_entry(&vhost, id)?;
        let mut inner = vhost.schedule.0.lock();
        if !inner.due.remove(&entry) {
            return Err(missing(&vhost, id));
        }
        inner.forget(entry.1);
        let log = inner.log;
        self.0.committer.append(|writer| writer.ack(log, &[(entry.1, entry.1)]));
        Ok(())
    }

    /// Has a delayed message leave at another time, in ms since 1970. It keeps its id. Blocks while
    /// the store is read.
    ///
    /// Errors: kind `NotFound` for the virtual host and for an id that waits no more, kind
    /// `StoreFailed`.
    pub fn move_scheduled(
        &self,
        vhost: &VhostName,
        id: u64,
        due_ms: u64,
        now: Now,
    ) -> Result<(), Refusal> {
        let vhost = self.0.vhost(vhost.as_str())?;
        let entry = self.0.scheduled_entry(&vhost, id)?;
        let mut inner = vhost.schedule.0.lock();
        if !inner.due.remove(&entry) {
            return Err(missing(&vhost, id));
        }
        // What is past is due now, and 0 would say that it was never moved.
        let due_ms = due_ms.max(now.unix_ms).max(1);
        inner.due.insert((due_ms, entry.1));
        inner.moved.insert(entry.1, due_ms);
        let log = inner.log;
        self.0.committer.append(|writer| writer.hold(log, entry.1, 0, 0, due_ms));
        Ok(())
    }
}

fn keys_of(message: &Message) -> impl Iterator<Item = &str> {
    let others = message.extra_keys().iter().map(|key| &**key);
    std::iter::once(message.key()).chain(others)
}

impl Core {
    /// Whether somebody may read wherever a message goes by its exchange and keys.
    fn may_read_what_comes(&self, who: &Principal, vhost: &Vhost, message: &Message) -> bool {
        let exchange = message.exchange();
        if exchange.is_empty() {
            let may = |queue| self.permit::<Read>(who, vhost, "queue", queue).is_ok();
            return keys_of(message).all(may);
        }
        self.permit::<Read>(who, vhost, "exchange", exchange).is_ok()
            && keys_of(message).all(|key| {
                let asked = (exchange, Topics::Key(key));
                self.access.check_topics::<Read>(who, &vhost.name, asked, None).is_ok()
            })
    }

    /// Finds out what is delayed, by reading it all: about a second for a million messages.
    ///
    /// Errors: those of reading.
    pub(crate) fn restore_schedule(
        &self,
        vhost: &Vhost,
        log: &OpenedLog,
        store: &Arc<dyn Store>,
    ) -> Result<(), StoreError> {
        vhost.schedule.restore(log.id, log.next_seq);
        let mut from = Some(Seq(0));
        while let Some(at) = from {
            let page = match wait(|reply| store.read(log.id, at, PAGE, reply)) {
                Ok(page) => page,
                // They stay there for a repair.
                Err(error @ StoreError::Unreadable { last, .. }) if last.0 < u64::MAX => {
                    tracing::error!(event = "schedule_unreadable", vhost = %vhost.name, %error);
                    from = Some(Seq(last.0 + 1));
                    continue;
                }
                Err(error) => return Err(error),
            };
            from = page.next;
            let mut inner = vhost.schedule.0.lock();
            for StoredMessage { seq, expiry_ms, props, body, hold, .. } in page.messages {
                let message = stored_message::read(&props, body, expiry_ms, &self.formats);
                let moved_ms = hold.map(|hold| hold.due_ms).filter(|due_ms| *due_ms > 0);
                let Some(due_ms) = moved_ms.or_else(|| message.as_ref().and_then(due_of)) else {
                    continue;
                };
                inner.due.insert((due_ms, seq));
                inner.moved.extend(moved_ms.map(|moved_ms| (seq, moved_ms)));
            }
        }
        Ok(())
    }

    /// A delayed message, wherever it is.
    fn scheduled_message(&self, vhost: &Vhost, seq: Seq) -> Result<Option<Message>, Refusal> {
        let log = {
            let inner = vhost.schedule.0.lock();
            if let Some(message) = inner.fresh.get(&seq) {
                return Ok(Some(message.clone()));
            }
            inner.log
        };
        let at = [MessageRef { log, seq }];
        let page = wait(|reply: Reply<Page>| self.committer.read_at(&at, reply));
        let page = page.map_err(|error| {
            Refusal::new(RefusalKind::StoreFailed, format!("a delayed message: {error}"))
        })?;
        let read =
            |m: StoredMessage| stored_message::read(&m.props, m.body, m.expiry_ms, &self.formats);
        Ok(page.messages.into_iter().next().and_then(read))
    }

    /// A delayed message by its schedule id.
    ///
    /// Errors: kind `NotFound` when it waits no more, kind `StoreFailed`.
    pub(crate) fn find_scheduled(&self, vhost: &Vhost, id: u64) -> Result<Message, Refusal> {
        self.scheduled_message(vhost, Seq(id))?.ok_or_else(|| missing(vhost, id))
    }

    /// When a message leaves by its schedule id.
    fn scheduled_entry(&self, vhost: &Vhost, id: u64) -> Result<Entry, Refusal> {
        let seq = Seq(id);
        let message = self.scheduled_message(vhost, seq)?.ok_or_else(|| missing(vhost, id))?;
        let moved_ms = vhost.schedule.0.lock().moved.get(&seq).copied();
        Ok((moved_ms.or_else(|| due_of(&message)).unwrap_or(0), seq))
    }
}

/// When a message was due when it was published.
fn due_of(message: &Message) -> Option<u64> {
    Some(message.annotations()?.delayed.as_ref()?.due_ms)
}

fn missing(vhost: &Vhost, id: u64) -> Refusal {
    let text = format!("no delayed message {id} in vhost '{}'", vhost.name);
    Refusal::missing("message", id.to_string(), text)
}
