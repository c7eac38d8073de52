//! What is due leaves the schedule and is routed, with the bindings of that moment.

use std::{collections::HashMap, sync::Arc};

use polymq_model::{ClientNumber, Message, Now, Seq};
use polymq_store::{Durability, MessageRef, Page, StoreError, StoredMessage};

use super::{Entry, Inner};
use crate::{
    core::Core,
    counters::add,
    queue::Room,
    routing::{Routing, Target},
    stored_message,
    vhost::Vhost,
};

/// So many leave in one batch at most.
const AT_ONCE_MAX: usize = 256;
/// So many batches leave at one tick at most, so that other things happen as well.
const ROUNDS_MAX: usize = 64;
/// How long to wait when the store has no answer, in ms.
const RETRY_MS: u64 = 1000;

/// Where a release is. One goes on at a time, because messages leave in order.
#[derive(Debug, Default)]
pub(super) enum Releasing {
    #[default]
    No,
    /// A read is being asked for.
    Asking,
    /// Its answer came before the call returned.
    Answered(Result<Page, StoreError>),
    /// The thread that answers goes on.
    Waiting,
}

/// A message that is due, as far as memory has it. What it has may reach the disk, and be forgotten
/// here, while others are asked for.
type Due = (Entry, Option<Message>);

impl Inner {
    /// What leaves next; those that the store must be asked for are among `wanted`.
    fn take_due(&self, now_ms: u64) -> (Vec<Due>, Vec<MessageRef>) {
        let due = self.due.iter().take_while(|(due_ms, _)| *due_ms <= now_ms);
        let known = |entry: &Entry| (*entry, self.fresh.get(&entry.1).cloned());
        let due: Vec<Due> = due.take(AT_ONCE_MAX).map(known).collect();
        let unknown = due.iter().filter(|(_, message)| message.is_none());
        let wanted = unknown.map(|((_, seq), _)| MessageRef { log: self.log, seq: *seq }).collect();
        (due, wanted)
    }
}

impl Core {
    /// Routes what is due.
    pub(crate) fn release_due(&self, vhost: &Arc<Vhost>, now: Now) {
        // Without room on the disk they would pile up in memory.
        if self.committer.is_refused() {
            return;
        }
        self.release_rounds(vhost, now, ROUNDS_MAX);
    }

    /// The same, for so many batches, on whichever thread the store answers.
    fn release_rounds(&self, vhost: &Arc<Vhost>, now: Now, rounds: usize) {
        for left in (0..rounds).rev() {
            let mut inner = vhost.schedule.0.lock();
            if inner.due.is_empty() || !matches!(inner.releasing, Releasing::No) {
                return;
            }
            let now_ms = inner.clock.now_ms(now);
            let (due, wanted) = inner.take_due(now_ms);
            if due.is_empty() || now_ms < inner.retry_ms {
                return;
            }
            inner.releasing = Releasing::Asking;
            drop(inner);
            if wanted.is_empty() {
                self.release(vhost, &due, Ok(Page::default()), now);
                continue;
            }
            let (core, home, entries) = (self.weak(), Arc::downgrade(vhost), due.clone());
            let answer = move |page| {
                let (Some(core), Some(vhost)) = (core.upgrade(), home.upgrade()) else { return };
                let mut inner = vhost.schedule.0.lock();
                if matches!(inner.releasing, Releasing::Asking) {
                    inner.releasing = Releasing::Answered(page);
                    return;
                }
                drop(inner);
                core.release(&vhost, &entries, page, now);
                // The rest does not wait for the next tick.
                core.release_rounds(&vhost, now, left);
            };
            self.committer.read_at(&wanted, Box::new(answer));
            let mut inner = vhost.schedule.0.lock();
            match std::mem::replace(&mut inner.releasing, Releasing::Waiting) {
                Releasing::Answered(page) => {
                    drop(inner);
                    self.release(vhost, &due, page, now);
                }
                _ => return,
            }
        }
    }

    /// Routes these, which are due and among which are those that the store was asked for.
    fn release(&self, vhost: &Arc<Vhost>, due: &[Due], page: Result<Page, StoreError>, now: Now) {
        let page = match page {
            Ok(page) => page,
            Err(error) => return self.put_off(vhost, due, &error, now),
        };
        let read = |m: StoredMessage| {
            let message = stored_message::read(&m.props, m.body, m.expiry_ms, &self.formats)?;
            Some((m.seq, message))
        };
        let stored: HashMap<Seq, Message> = page.messages.into_iter().filter_map(read).collect();
        // Leaving here and arriving there are kept together or not at all.
        let _together = self.committer.together();
        let mut left = Vec::with_capacity(due.len());
        for (entry, known) in due {
            let (_, seq) = *entry;
            let mut inner = vhost.schedule.0.lock();
            // It may have been cancelled or moved meanwhile.
            if !inner.due.remove(entry) {
                continue;
            }
            inner.forget(seq);
            let message = known.as_ref().or_else(|| stored.get(&seq));
            drop(inner);
            left.push((seq, seq));
            // What the store has refused is not there.
            if let Some(message) = message {
                self.route_due(vhost, message, now);
            }
        }
        let mut inner = vhost.schedule.0.lock();
        inner.releasing = Releasing::No;
        let log = inner.log;
        drop(inner);
        if log.0 != 0 && !left.is_empty() {
            self.committer.append_as(Durability::Os, |writer| writer.ack(log, &left));
        }
    }

    /// The store has no answer: it is asked again, but not for what it can never read. That stays
    /// there for a repair.
    fn put_off(&self, vhost: &Vhost, due: &[Due], error: &StoreError, now: Now) {
        tracing::error!(event = "schedule_unreadable", vhost = %vhost.name, %error);
        let mut inner = vhost.schedule.0.lock();
        inner.releasing = Releasing::No;
        let before = inner.due.len();
        if let StoreError::Unreadable { first, last, .. } = error {
            for (entry, _) in due.iter().filter(|((_, seq), _)| (*first..=*last).contains(seq)) {
                inner.due.remove(entry);
            }
        }
        if inner.due.len() == before {
            inner.retry_ms = inner.clock.now_ms(now).saturating_add(RETRY_MS);
        }
    }

    /// Publishes a message whose time has come.
    fn route_due(&self, vhost: &Arc<Vhost>, message: &Message, now: Now) {
        let publisher =
            message.annotations().and_then(|known| known.delayed.as_ref()?.publisher.as_ref());
        let client = publisher.and_then(|id| vhost.clients.lock().get(id).cloned());
        let message = undelayed(message, now);
        self.retain_late(vhost, &message, client.as_deref());
        let topology = vhost.topology.load();
        let number = client.map_or(ClientNumber(0), |client| client.endpoint.number);
        let routing = Routing { topology: &topology, publisher: number, message: Some(&message) };
        let keys = std::iter::once(message.key()).chain(message.extra_keys().iter().map(|k| &**k));
        let mut targets = routing.route(message.exchange(), keys).targets;
        if message.exchange_bytes().is_empty()
            && let Some(reply) = vhost.replies.lock().get(message.key()).cloned()
        {
            targets.push(Target::Reply(reply));
        }
        let handed = self.hand_over(&targets, &mut vec![message], Room::Free, now.unix_ms);
        let counter = match targets.len() > handed.refusing {
            true => &self.counters.total.delayed_released,
            false => &self.counters.total.delayed_unroutable,
        };
        add(counter, 1);
    }
}

/// The message as it is published when its time has come: its expiry begins then.
fn undelayed(message: &Message, now: Now) -> Message {
    let mut annotations = message.annotations().cloned().unwrap_or_default();
    if let Some(delayed) = &mut annotations.delayed {
        delayed.publisher = None;
    }
    let deadline_ms = match message.deadline_ms() {
        0 => 0,
        deadline_ms => {
            let ttl_ms = deadline_ms.saturating_sub(message.arrived_ms());
            now.unix_ms.saturating_add(ttl_ms).max(1)
        }
    };
    let keys = message.extra_keys().to_vec();
    message.with_deadline(deadline_ms).with_annotations(annotations).with_extra_keys(keys)
}
