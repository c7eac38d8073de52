//! What happens in a queue with time: expiry, held messages that are due, consumers that take too
//! long, and the end of a queue that nobody uses. A queue asks to be looked at when something is
//! due, and costs nothing until then.

use std::sync::{Arc, atomic::Ordering};

use polymq_contract::{CancelReason, DeliveryRange, Outcome};

use super::{Queue, consumers::tell_cancelled, state::State};

/// What a look at a queue came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looked {
    /// It goes on.
    Done,
    /// Nobody has used it for as long as it may be unused: it is to be deleted.
    Unused,
    /// Its last consumer took too long.
    Left,
}

impl State {
    /// When something here is due by itself, in ms since 1970. May be too early. A look is planned
    /// for `scheduled_ms` already.
    pub(super) fn next_due_ms(&mut self, now_ms: u64, scheduled_ms: u64) -> Option<u64> {
        let mut due: Option<u64> = None;
        let mut sooner = |at: u64| due = Some(due.map_or(at, |due| due.min(at)));
        let window = self.window;
        for lane in self.lanes.iter_mut().filter(|lane| lane.has_deadlines) {
            // What stands behind an empty window may be in memory as well.
            lane.has_next(window);
            let head = lane.head().map_or(0, |head| head.deadline_ms);
            if head != 0 {
                sooner(head);
            }
        }
        if let Some(((at, _), _)) = self.delayed.first_key_value() {
            sooner(*at);
        }
        if let Some(due) = self.staying.values().map(|staying| staying.due_ms).min() {
            sooner(due);
        }
        if let Some(ms) =
            self.rules.expires_ms.filter(|_| self.ring.is_empty() && !self.has_addressed())
        {
            sooner(self.used_ms.max(1).saturating_add(ms));
        }
        // The exact time needs a look at every consumer, so a look is planned for when a delivery
        // of this moment would be overdue, and tells the time of the next one. A look that comes
        // sooner does as well; one for something that is due much later does not.
        if let Some(ms) = self.shortest_timeout_ms()
            && self.unsettled > 0
            && now_ms.saturating_add(ms) < scheduled_ms
        {
            sooner(now_ms.saturating_add(ms));
        }
        due
    }
}

impl Queue {
    /// Has the queue looked at when `due_ms` has come.
    pub(super) fn schedule(self: &Arc<Self>, due_ms: u64) {
        if due_ms < self.scheduled_ms.fetch_min(due_ms, Ordering::Relaxed)
            && let Some(vhost) = self.home.vhost()
        {
            vhost.look_at_queue(self, due_ms);
        }
    }

    /// Does what is due.
    pub(crate) fn look(self: &Arc<Self>, now_ms: u64) -> Looked {
        self.scheduled_ms.store(u64::MAX, Ordering::Relaxed);
        let mut state = self.lock();
        if state.deleted {
            return Looked::Done;
        }
        if let Some(ms) = state.rules.expires_ms
            && state.is_idle_for(ms, now_ms)
        {
            return Looked::Unused;
        }
        state.release_due(now_ms);
        state.depart_again(now_ms);
        state.expire_heads(now_ms);
        let is_last_gone = self.end_overdue(&mut state, now_ms);
        state.dispatch(now_ms);
        state.drop_over_limit(now_ms);
        let overdue_ms = state.next_overdue_ms();
        self.finish(state, now_ms);
        if let Some(due_ms) = overdue_ms {
            self.schedule(due_ms);
        }
        if is_last_gone { Looked::Left } else { Looked::Done }
    }

    /// Takes the deliveries of consumers back that took too long. The slot stays until its
    /// connection gives it up. True when no consumer is left.
    fn end_overdue(&self, state: &mut State, now_ms: u64) -> bool {
        let overdue = state.overdue(now_ms);
        let is_any = !overdue.is_empty();
        for late in overdue {
            tracing::warn!(
                event = "consumer_timeout",
                queue = %self.name,
                consumer = &*late.spec.tag,
                "a consumer did not settle a delivery in time and is cancelled"
            );
            state.cancel(late.slot, now_ms);
            let all = DeliveryRange { first: 0, last: u64::MAX };
            self.settle_in(state, late.slot, all, (Outcome::Returned, None), now_ms);
            tell_cancelled(&late.spec, CancelReason::Timeout);
        }
        is_any && state.active_consumers() == 0
    }
}
