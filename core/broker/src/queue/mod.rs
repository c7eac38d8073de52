//! Queues: a pure machine of messages and consumers behind one short lock.

mod consumer;
mod dispatch;
mod durable;
mod paging;
mod parked;
mod refusals;
mod settings;
mod state;
mod tail;
#[cfg(test)]
pub(crate) mod tests;
mod unsettled;
mod window;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard};
use polymq_contract::{Delivery, DeliveryRange, Event, Matched, Outbox, Outcome, Refusal};
use polymq_model::{ConnectionId, ConsumerId, LogId, Message, QueueName, Seq};
use polymq_store::{Committer, Durability, PubRef, ShardBatch};

pub(crate) use consumer::{ConsumerSpec, Group};
pub(crate) use paging::Home;
use paging::ReadFailure;
pub(crate) use settings::{DeadLetterTo, QueueSettings, invalid};
use state::State;
pub(crate) use window::WindowBudget;

/// A message in a queue.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) seq: Seq,
    /// The earlier of the message's own deadline and that of the queue, in ms since 1970; 0 for
    /// none.
    pub(crate) deadline_ms: u64,
    pub(crate) acquired: u16,
    pub(crate) failed: u16,
    pub(crate) matched: Matched,
    pub(crate) message: Message,
}

/// A message that left its queue without having been accepted; the caller dead-letters it after the
/// lock is free.
#[derive(Debug)]
pub(crate) struct Departed {
    pub(crate) message: Message,
    pub(crate) reason: &'static str,
}

/// What a get came to.
pub(crate) enum Got {
    /// The message with its slot, if there is one, and how many remain.
    Now(Option<Box<(Delivery, Option<usize>)>>, u64),
    /// Ask again after a nudge.
    Later,
    /// The store cannot read the next message now.
    Unreadable,
}

/// What a push came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// The batch that holds the durable ones, if any.
    pub(crate) batch: Option<ShardBatch>,
    /// How many of the messages, from the end, were refused because the queue is full.
    pub(crate) refused: usize,
}

/// What cancelling a consumer came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cancelled {
    pub(crate) has_unsettled: bool,
    pub(crate) consumers_left: usize,
}

/// A consumer that a deletion has ended.
pub(crate) struct Ended {
    pub(crate) consumer: ConsumerId,
    pub(crate) outbox: Arc<Outbox>,
}

/// Numbers of a queue, for people and for `queue.declare-ok`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Messages that wait for a consumer.
    pub ready: u64,
    /// Messages delivered and not settled.
    pub unsettled: u64,
    /// Consumers.
    pub consumers: u32,
    /// Bytes of the bodies of ready messages.
    pub bytes: u64,
    /// Ready messages in memory; the others are on the disk alone.
    pub in_memory: u64,
}

/// A queue. Shared by the routing snapshot, connections and client sessions.
pub(crate) struct Queue {
    /// Its name.
    pub(crate) name: QueueName,
    pub(crate) settings: QueueSettings,
    pub(crate) log: LogId,
    /// True when the queue survives a restart: it is durable and not exclusive.
    stored: bool,
    /// True when its persistent messages survive, too.
    keeps: bool,
    committer: Arc<Committer>,
    state: Mutex<State>,
    /// Something here may expire.
    perishable: AtomicBool,
    watched: AtomicBool,
    home: Home,
    read_failure: ReadFailure,
}

impl Queue {
    pub(crate) fn new(
        name: QueueName,
        settings: QueueSettings,
        log: LogId,
        stored: bool,
        committer: Arc<Committer>,
        home: Home,
    ) -> Arc<Self> {
        let keeps = stored && settings.durability != Durability::Memory;
        let perishable = settings.ttl_ms.is_some() || settings.expires_ms.is_some();
        Arc::new(Self {
            name,
            settings,
            log,
            stored,
            keeps,
            committer,
            state: Mutex::new(State::new(home.budget.window())),
            perishable: AtomicBool::new(perishable),
            watched: AtomicBool::new(false),
            home,
            read_failure: ReadFailure::default(),
        })
    }

    /// Adds messages at the tail and hands them on to consumers with room.
    ///
    /// `refs` holds one place per message and remembers where a body stands in the open batch, so
    /// that the next queue of a fan-out points to it instead of writing it again.
    pub(crate) fn push(
        self: &Arc<Self>,
        messages: &[Message],
        matched: &Matched,
        refs: &mut [Option<PubRef>],
        now_ms: u64,
        departed: &mut Vec<Departed>,
    ) -> Pushed {
        let mut state = self.state.lock();
        if state.deleted {
            return Pushed { batch: None, refused: 0 };
        }
        let accepted = state.room_for(messages, &self.settings);
        let (taken, refused) = messages.split_at_checked(accepted).unwrap_or((messages, &[]));
        let first = Seq(state.next_seq);
        let batch = self.keeps.then(|| self.store(taken, first, refs, now_ms)).flatten();
        let stored_in = batch.unwrap_or_default();
        if state.append(taken, stored_in, matched, &self.settings, now_ms, departed) {
            self.perishable.store(true, Ordering::Relaxed);
        }
        state.drop_head_over_limit(&self.settings, departed);
        // What expires at this very moment still goes to a consumer that is waiting.
        state.dispatch(now_ms.saturating_sub(1), departed);
        state.expire_head(now_ms, departed);
        if self.keeps {
            state.window = self.home.budget.window();
            state.spill(self.committer.durable());
        }
        self.finish(state, now_ms);
        Pushed { batch, refused: refused.len() }
    }

    /// Registers a consumer and hands it what waits, after the event `first`.
    ///
    /// Errors: kind `Denied` when the queue has an exclusive consumer, or this one wants to be and
    /// is not alone.
    pub(crate) fn add_consumer(
        self: &Arc<Self>,
        spec: ConsumerSpec,
        first: Option<Event>,
        now_ms: u64,
        departed: &mut Vec<Departed>,
    ) -> Result<usize, Refusal> {
        let mut state = self.state.lock();
        if state.deleted {
            return Err(self.missing());
        }
        if state.has_exclusive_consumer() || (spec.exclusive && state.active_consumers() > 0) {
            return Err(self.in_exclusive_use());
        }
        if let Some(first) = first {
            spec.outbox.push(first);
        }
        let slot = state.add_consumer(spec, now_ms);
        state.dispatch(now_ms, departed);
        self.finish(state, now_ms);
        Ok(slot)
    }

    /// Delivers what waits to the consumers that have been registered since the last dispatch.
    pub(crate) fn dispatch(self: &Arc<Self>, now_ms: u64, departed: &mut Vec<Departed>) {
        let mut state = self.state.lock();
        state.dispatch(now_ms, departed);
        self.finish(state, now_ms);
    }

    /// Stops deliveries to a consumer. What it has not settled stays with it; without that it is
    /// gone.
    pub(crate) fn cancel(&self, slot: usize, now_ms: u64) -> Cancelled {
        let mut state = self.state.lock();
        state.cancel(slot, now_ms);
        let has_unsettled = state.has_unsettled(slot);
        if !has_unsettled {
            state.forget(slot);
        }
        Cancelled { has_unsettled, consumers_left: state.active_consumers() }
    }

    /// Removes a consumer and returns what it has not settled to its places. Returns the consumers
    /// left.
    pub(crate) fn release(
        self: &Arc<Self>,
        slot: usize,
        outcome: Outcome,
        now_ms: u64,
        departed: &mut Vec<Departed>,
    ) -> usize {
        let mut state = self.state.lock();
        state.cancel(slot, now_ms);
        let all = DeliveryRange { first: 0, last: u64::MAX };
        state.settle(slot, all, outcome, &self.settings, departed);
        if self.settings.of_client {
            state.spare_returned();
        }
        state.forget(slot);
        state.drop_head_over_limit(&self.settings, departed);
        state.dispatch(now_ms, departed);
        let left = state.active_consumers();
        self.finish(state, now_ms);
        left
    }

    /// Removes a consumer whose client goes away. What it has begun to receive, at the positions
    /// `begun`, stays for it with the slot, and the rest returns to its places. Returns whether
    /// anything stays, and the consumers left.
    pub(crate) fn park(
        self: &Arc<Self>,
        slot: usize,
        begun: &BTreeSet<Seq>,
        now_ms: u64,
        departed: &mut Vec<Departed>,
    ) -> (bool, usize) {
        let mut state = self.state.lock();
        let stays = state.park(slot, begun, now_ms);
        state.drop_head_over_limit(&self.settings, departed);
        state.dispatch(now_ms, departed);
        let left = state.active_consumers();
        self.finish(state, now_ms);
        (stays, left)
    }

    /// Parks messages that a restart has found in the store, as [`park`](Self::park) does.
    pub(crate) fn park_restored(&self, consumer: ConsumerId, begun: Vec<Entry>) -> usize {
        let mut state = self.state.lock();
        state.take_from_disk(begun.iter().map(|entry| (entry.seq, entry.message.body().len())));
        state.park_restored(consumer, begun)
    }

    /// Takes away what a restart has found in the store although its consumer has had it.
    pub(crate) fn settle_restored(&self, had: &[Entry]) {
        let mut state = self.state.lock();
        state.take_from_disk(had.iter().map(|entry| (entry.seq, entry.message.body().len())));
        for entry in had {
            state.note_settled(entry);
        }
        self.settle_records(&mut state);
    }

    /// The client of a parked consumer is back: it is sent again what stayed. No further deliveries
    /// come before [`reactivate`](Self::reactivate). False when the queue is gone.
    pub(crate) fn unpark(self: &Arc<Self>, slot: usize, spec: ConsumerSpec) -> bool {
        let mut state = self.state.lock();
        let done = state.unpark(slot, spec);
        self.settle_records(&mut state);
        done
    }

    /// Has deliveries go to an ended consumer again.
    pub(crate) fn reactivate(
        self: &Arc<Self>,
        slot: usize,
        now_ms: u64,
        departed: &mut Vec<Departed>,
    ) {
        let mut state = self.state.lock();
        state.activate(slot, now_ms);
        state.dispatch(now_ms, departed);
        self.finish(state, now_ms);
    }

    /// The client of a parked consumer does not come back.
    pub(crate) fn drop_parked(&self, slot: usize) {
        let mut state = self.state.lock();
        let all = DeliveryRange { first: 0, last: u64::MAX };
        state.settle(slot, all, Outcome::Accepted, &self.settings, &mut Vec::new());
        state.forget(slot);
        self.settle_records(&mut state);
    }

    /// Settles deliveries. Returns true when the consumer has none left and is cancelled.
    pub(crate) fn settle(
        self: &Arc<Self>,
        slot: usize,
        deliveries: DeliveryRange,
        outcome: Outcome,
        now_ms: u64,
        departed: &mut Vec<Departed>,
    ) -> bool {
        let mut state = self.state.lock();
        let done = state.settle(slot, deliveries, outcome, &self.settings, departed);
        if outcome != Outcome::Accepted {
            state.drop_head_over_limit(&self.settings, departed);
        }
        state.dispatch(now_ms, departed);
        if done {
            state.forget(slot);
        }
        self.finish(state, now_ms);
        done
    }

    /// Takes the next message. With `spec.no_ack` it is settled; otherwise a cancelled consumer
    /// holds it as its delivery number 1, and its slot is returned.
    ///
    /// When the next message is on the disk the connection of `spec` is nudged once it has been
    /// read.
    pub(crate) fn get(
        self: &Arc<Self>,
        spec: ConsumerSpec,
        now_ms: u64,
        departed: &mut Vec<Departed>,
    ) -> Got {
        let mut state = self.state.lock();
        state.expire_head(now_ms, departed);
        if !state.has_next() && state.ready_len() > 0 {
            if self.read_failure.stands(now_ms) {
                return Got::Unreadable;
            }
            state.wait_for_page(&spec.outbox);
            self.finish(state, now_ms);
            // An engine may have answered at once.
            state = self.state.lock();
            if !state.has_next() {
                return Got::Later;
            }
        }
        let found = state.get(spec, now_ms, departed);
        // The count that is answered is of messages that can still be had.
        state.expire_head(now_ms, departed);
        let remaining = state.ready_len();
        self.finish(state, now_ms);
        Got::Now(found.map(Box::new), remaining)
    }

    /// Removes all ready messages and returns how many there were.
    pub(crate) fn purge(&self) -> u64 {
        let mut state = self.state.lock();
        let count = state.purge();
        self.settle_records(&mut state);
        count
    }

    /// Ends the queue. Returns its ready messages' number and the consumers to be told, or `None`
    /// when it had ended.
    ///
    /// Errors: kind `Conflict` when a condition does not hold.
    pub(crate) fn delete(
        &self,
        if_unused: bool,
        if_empty: bool,
    ) -> Result<Option<(u64, Vec<Ended>)>, Refusal> {
        let mut state = self.state.lock();
        if state.deleted {
            return Ok(None);
        }
        if if_unused && state.active_consumers() > 0 {
            return Err(self.in_state("in use"));
        }
        if if_empty && state.ready_len() > 0 {
            return Err(self.in_state("not empty"));
        }
        if self.stored {
            self.committer.append(|writer| writer.log_delete(self.log));
        }
        let deleted = state.delete();
        self.report(&mut state);
        Ok(Some(deleted))
    }

    /// What every change ends with: records for the store, and the next page when it is wanted.
    fn finish(self: &Arc<Self>, mut state: MutexGuard<'_, State>, now_ms: u64) {
        self.settle_records(&mut state);
        self.report(&mut state);
        let is_page_wanted = state.page_wanted().is_some();
        drop(state);
        if is_page_wanted {
            self.fill(now_ms);
        }
    }

    /// What the queue holds now.
    pub(crate) fn counts(&self) -> QueueCounts {
        self.state.lock().counts()
    }

    /// True when the queue has had neither consumer nor use for `ms`.
    pub(crate) fn is_idle_for(&self, ms: u64, now_ms: u64) -> bool {
        self.state.lock().is_idle_for(ms, now_ms)
    }

    /// Notes that somebody has used the queue.
    pub(crate) fn touch(&self, now_ms: u64) {
        self.state.lock().touch(now_ms);
    }

    /// Removes what has expired at the head.
    pub(crate) fn expire(self: &Arc<Self>, now_ms: u64, departed: &mut Vec<Departed>) {
        let mut state = self.state.lock();
        state.expire_head(now_ms, departed);
        self.finish(state, now_ms);
    }

    /// The next position, for telling redeliveries from first ones.
    pub(crate) fn next_seq(&self) -> Seq {
        Seq(self.state.lock().next_seq)
    }

    /// Errors: kind `Locked` when the queue belongs to another connection.
    pub(crate) fn check_owner(&self, connection: ConnectionId) -> Result<(), Refusal> {
        match self.settings.exclusive {
            Some(owner) if owner != connection => Err(self.locked()),
            Some(_) | None => Ok(()),
        }
    }

    /// Errors: kind `Locked` when the queue is exclusive and is not meant to be, or the other way
    /// round.
    pub(crate) fn check_exclusivity(&self, wanted: bool) -> Result<(), Refusal> {
        if self.settings.exclusive.is_some() == wanted { Ok(()) } else { Err(self.locked()) }
    }

    /// True once, when something here may expire and nobody watches the queue yet.
    pub(crate) fn wants_watching(&self) -> bool {
        self.perishable.load(Ordering::Relaxed)
            && !self.watched.load(Ordering::Relaxed)
            && !self.watched.swap(true, Ordering::Relaxed)
    }

    /// True when the queue survives a restart.
    pub(crate) fn is_stored(&self) -> bool {
        self.stored
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("name", &self.name).finish_non_exhaustive()
    }
}
