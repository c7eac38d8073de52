//! Consumers and gets of a queue.

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::MutexGuard;
use polymq_contract::{
    CancelReason, DeliveryRange, Event, Outcome, Refusal, RefusalKind, Settlement,
};
use polymq_model::{ConnectionId, ConsumerId, Seq};

use super::{
    Cancelled, ConsumerSpec, Entry, Got, Queue, consumers::tell_cancelled, settling::Moment,
    state::State,
};

/// Every delivery of a consumer.
const ALL: DeliveryRange = DeliveryRange { first: 0, last: u64::MAX };

impl Queue {
    /// Runs `work` with the time, and with chance where the rules want it.
    pub(super) fn at<T>(&self, now_ms: u64, work: impl FnOnce(Moment<'_>) -> T) -> T {
        work(Moment { now_ms, chance: &|| self.home.chance(), note: None })
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
    ) -> Result<usize, Refusal> {
        let mut state = self.lock();
        if state.deleted {
            return Err(self.missing());
        }
        let is_addressed = spec.address.is_some();
        if !is_addressed
            && (state.has_exclusive_consumer() || (spec.exclusive && state.active_consumers() > 0))
        {
            return Err(self.in_exclusive_use());
        }
        if let Some(first) = first {
            spec.outbox.push(first);
        }
        let slot = state.add_consumer(spec, now_ms);
        state.dispatch(now_ms);
        self.finish(state, now_ms);
        Ok(slot)
    }

    /// Errors: kind `Denied` when a consumer has the queue for itself.
    pub(crate) fn check_shareable(&self) -> Result<(), Refusal> {
        match self.state.lock().has_exclusive_consumer() {
            true => Err(self.in_exclusive_use()),
            false => Ok(()),
        }
    }

    /// Delivers what waits to the consumers that have been registered since the last dispatch.
    pub(crate) fn dispatch(self: &Arc<Self>, now_ms: u64) {
        let mut state = self.lock();
        state.dispatch(now_ms);
        self.finish(state, now_ms);
    }

    /// Stops deliveries to a consumer. What it has not settled stays with it; without that it is
    /// gone.
    pub(crate) fn cancel(self: &Arc<Self>, slot: usize, now_ms: u64) -> Cancelled {
        let mut state = self.lock();
        state.cancel(slot, now_ms);
        let has_unsettled = state.has_unsettled(slot);
        if !has_unsettled {
            state.forget(slot);
        }
        let consumers_left = state.active_consumers();
        // Of single active consumers the next one takes over.
        state.dispatch(now_ms);
        self.finish(state, now_ms);
        Cancelled { has_unsettled, consumers_left }
    }

    /// Removes a consumer and returns what it has not settled to its places. Returns the consumers
    /// left.
    pub(crate) fn release(self: &Arc<Self>, slot: usize, outcome: Outcome, now_ms: u64) -> usize {
        let mut state = self.lock();
        state.cancel(slot, now_ms);
        self.settle_in(&mut state, slot, ALL, (outcome, None), now_ms);
        if self.settings.of_client {
            state.spare_returned();
        }
        state.forget(slot);
        state.dispatch(now_ms);
        state.drop_over_limit(now_ms);
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
    ) -> (bool, usize) {
        let mut state = self.lock();
        let stays = self.at(now_ms, |moment| state.park(slot, begun, moment));
        state.dispatch(now_ms);
        state.drop_over_limit(now_ms);
        let left = state.active_consumers();
        self.finish(state, now_ms);
        (stays, left)
    }

    /// Parks messages that a restart has found in the store, as [`park`](Self::park) does.
    pub(crate) fn park_restored(&self, consumer: ConsumerId, begun: Vec<Entry>) -> usize {
        let mut state = self.lock();
        state.take_from_disk(&begun);
        state.park_restored(consumer, begun)
    }

    /// Takes away what a restart has found in the store although its consumer has had it.
    pub(crate) fn settle_restored(&self, had: &[Entry]) {
        let mut state = self.lock();
        state.take_from_disk(had);
        for entry in had {
            state.note_settled(entry);
        }
        self.settle_records(&mut state);
    }

    /// The client of a parked consumer is back: it is sent again what stayed. No further deliveries
    /// come before [`reactivate`](Self::reactivate). False when the queue is gone.
    pub(crate) fn unpark(self: &Arc<Self>, slot: usize, spec: ConsumerSpec) -> bool {
        let mut state = self.lock();
        let done = state.unpark(slot, spec);
        self.settle_records(&mut state);
        done
    }

    /// Has deliveries go to an ended consumer again.
    pub(crate) fn reactivate(self: &Arc<Self>, slot: usize, now_ms: u64) {
        let mut state = self.lock();
        state.activate(slot, now_ms);
        state.dispatch(now_ms);
        self.finish(state, now_ms);
    }

    /// The client of a parked consumer does not come back.
    pub(crate) fn drop_parked(&self, slot: usize) {
        let mut state = self.lock();
        self.settle_in(&mut state, slot, ALL, (Outcome::Accepted, None), 0);
        state.forget(slot);
        self.settle_records(&mut state);
    }

    /// Settles deliveries, for which the consumer may give a reason. Returns true when it has none
    /// left and is cancelled.
    pub(crate) fn settle(
        self: &Arc<Self>,
        slot: usize,
        settlement: &Settlement,
        now_ms: u64,
    ) -> bool {
        let Settlement { deliveries, outcome, ref note, .. } = *settlement;
        let mut state = self.lock();
        let note = note.as_deref();
        let done = self.settle_in(&mut state, slot, deliveries, (outcome, note), now_ms);
        state.dispatch(now_ms);
        if outcome != Outcome::Accepted {
            state.drop_over_limit(now_ms);
        }
        if done {
            state.forget(slot);
        }
        self.finish(state, now_ms);
        done
    }

    /// Ends a consumer whose user may not read here any more, takes back what it has, and tells it.
    /// The slot stays until its connection gives it up. Returns the consumers left.
    pub(crate) fn deny(self: &Arc<Self>, slot: usize, now_ms: u64) -> usize {
        self.end_consumer(self.lock(), slot, CancelReason::Denied, now_ms)
    }

    /// Does the same with a consumer that somebody else wants to end; `None` when it is not there.
    pub(crate) fn cancel_of(
        self: &Arc<Self>,
        (connection, channel): (ConnectionId, u32),
        tag: &str,
        now_ms: u64,
    ) -> Option<usize> {
        let state = self.lock();
        let (slot, _) = state.consumers.iter().find(|(_, consumer)| {
            let spec = &consumer.spec;
            consumer.active
                && (spec.group.connection, spec.group.channel) == (connection, channel)
                && *spec.tag == *tag
        })?;
        Some(self.end_consumer(state, slot, CancelReason::Administrator, now_ms))
    }

    fn end_consumer(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        slot: usize,
        reason: CancelReason,
        now_ms: u64,
    ) -> usize {
        let spec = state.consumers.get(slot).map(|consumer| consumer.spec.clone());
        state.cancel(slot, now_ms);
        self.settle_in(&mut state, slot, ALL, (Outcome::Returned, None), now_ms);
        if let Some(spec) = spec {
            tell_cancelled(&spec, reason);
        }
        state.dispatch(now_ms);
        state.drop_over_limit(now_ms);
        let left = state.active_consumers();
        self.finish(state, now_ms);
        left
    }

    /// Takes the next message. With `spec.no_ack` it is settled; otherwise a cancelled consumer
    /// holds it as its delivery number 1, and its slot is returned.
    ///
    /// When the next message is on the disk the connection of `spec` is nudged once it has been
    /// read.
    pub(crate) fn get(self: &Arc<Self>, spec: ConsumerSpec, now_ms: u64) -> Got {
        let mut state = self.lock();
        state.expire_heads(now_ms);
        if state.paused {
            let remaining = state.ready_len();
            self.finish(state, now_ms);
            return Got::Now(None, remaining);
        }
        if !state.has_next() && state.ready_len() > 0 {
            if self.read_failure.stands(now_ms) {
                return Got::Unreadable;
            }
            state.wait_for_page(&spec.outbox);
            self.finish(state, now_ms);
            // An engine may have answered at once.
            state = self.lock();
            if !state.has_next() {
                return Got::Later;
            }
        }
        let found = state.get(spec, now_ms);
        // The count that is answered is of messages that can still be had.
        state.expire_heads(now_ms);
        let remaining = state.ready_len();
        self.finish(state, now_ms);
        Got::Now(found.map(Box::new), remaining)
    }

    /// Errors: kind `Locked` when only the active consumer may have messages.
    pub(crate) fn check_gettable(&self) -> Result<(), Refusal> {
        if !self.settings.single_active {
            return Ok(());
        }
        let text = format!("queue '{}' has a single active consumer: it cannot be got", self.name);
        Err(Refusal::new(RefusalKind::Locked, text))
    }
}
