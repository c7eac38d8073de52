//! Messages that arrive at the tail.

use std::sync::Arc;

use parking_lot::MutexGuard;
use polymq_contract::Matched;
use polymq_model::Message;
use polymq_store::{PubRef, ShardBatch};

use super::{
    Entry, Queue, Room,
    rules::Overflow,
    state::{Arriving, State},
};
use crate::trace::Marked;

/// What a push came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// The batch that holds the durable ones, if any.
    pub(crate) batch: Option<ShardBatch>,
    /// How many of the messages, from the end, were refused because the queue is full.
    pub(crate) refused: usize,
}

/// The tail of a queue while it is held, so that nothing comes between what is pushed to it.
///
/// It holds the lock of the queue: what is pushed takes effect with [`release`](Self::release).
pub(crate) struct HeldTail<'a> {
    queue: &'a Arc<Queue>,
    state: MutexGuard<'a, State>,
    now_ms: u64,
}

impl HeldTail<'_> {
    /// Adds messages at the tail and hands them on to consumers with room.
    ///
    /// `refs` holds one place per message and remembers where a body stands in the open batch, so
    /// that the next queue of a fan-out points to it instead of writing it again.
    pub(crate) fn push(
        &mut self,
        marked: Marked<'_>,
        matched: &Matched,
        refs: &mut [Option<PubRef>],
        room: Room,
    ) -> Pushed {
        let (queue, state, now_ms) = (self.queue, &mut *self.state, self.now_ms);
        let messages = marked.messages;
        let (mut batch, mut refused, mut refs) = (None, messages, refs);
        while !refused.is_empty() {
            let accepted = match room {
                Room::Free => state.room_for(refused).max(usize::from(state.hands_over())),
                Room::Reserved => refused.len(),
            };
            let Some((taken, rest)) = refused.split_at_checked(accepted) else { break };
            if taken.is_empty() {
                break;
            }
            let (own, others) = refs.split_at_mut(accepted.min(refs.len()));
            (refused, refs) = (rest, others);
            let arriving = Arriving { messages: taken, matched, now_ms, marked };
            let stored = match queue.settings.levels.is_single() {
                true => queue.add(state, 0, arriving, own),
                false => queue.add_by_level(state, arriving, own),
            };
            batch = batch.max(stored);
            // What goes to a waiting consumer makes room, as it would if messages came one by one.
            // What expires at this very moment still goes there.
            state.dispatch(now_ms.saturating_sub(1));
        }
        if state.rules.overflow == Overflow::RejectPublishDlx {
            for message in refused {
                state.refuse(Entry::new(message, matched), "maxlen");
            }
        }
        state.activity.published += (messages.len() - refused.len()) as u64;
        Pushed { batch, refused: refused.len() }
    }

    /// Lets the tail go.
    pub(crate) fn release(self) {
        let Self { queue, mut state, now_ms } = self;
        state.active_ms = now_ms;
        state.drop_over_limit(now_ms);
        state.expire_heads(now_ms);
        if queue.keeps {
            state.window = queue.home.budget.window();
            state.spill(queue.committer.durable());
        }
        queue.finish(state, now_ms);
    }
}

impl Queue {
    /// The tail of the queue; `None` when the queue has been deleted.
    pub(crate) fn hold_tail(self: &Arc<Self>, now_ms: u64) -> Option<HeldTail<'_>> {
        let state = self.lock();
        (!state.deleted).then(|| HeldTail { queue: self, state, now_ms })
    }

    /// Adds messages at the tail, as [`HeldTail::push`] does.
    pub(crate) fn push(
        self: &Arc<Self>,
        messages: &[Message],
        matched: &Matched,
        refs: &mut [Option<PubRef>],
        room: Room,
        now_ms: u64,
    ) -> Pushed {
        let marked = Marked { messages, marks: &[] };
        self.push_followed(marked, matched, refs, room, now_ms).unwrap_or_default()
    }

    /// The same with messages that are followed; `None` when the queue has been deleted.
    pub(crate) fn push_followed(
        self: &Arc<Self>,
        marked: Marked<'_>,
        matched: &Matched,
        refs: &mut [Option<PubRef>],
        room: Room,
        now_ms: u64,
    ) -> Option<Pushed> {
        let mut tail = self.hold_tail(now_ms)?;
        let pushed = tail.push(marked, matched, refs, room);
        tail.release();
        Some(pushed)
    }

    /// Adds messages of one level.
    fn add(
        &self,
        state: &mut State,
        lane: usize,
        arriving: Arriving<'_>,
        refs: &mut [Option<PubRef>],
    ) -> Option<ShardBatch> {
        let batch = self.keeps.then(|| self.store(state, lane, arriving, refs)).flatten();
        if !arriving.marked.is_empty() {
            self.follow(state, lane, arriving);
        }
        state.append(lane, arriving, batch.unwrap_or_default(), &self.settings);
        batch
    }

    fn add_by_level(
        &self,
        state: &mut State,
        arriving: Arriving<'_>,
        refs: &mut [Option<PubRef>],
    ) -> Option<ShardBatch> {
        let level_of = |message: &Message| self.settings.levels.of(message);
        let (mut batch, mut refs) = (None, refs);
        for messages in arriving.messages.chunk_by(|a, b| level_of(a) == level_of(b)) {
            let Some(level) = messages.first().map(level_of) else { continue };
            let lane = state.lane_at(level);
            let (own, others) = refs.split_at_mut(messages.len().min(refs.len()));
            let stored = self.add(state, lane, Arriving { messages, ..arriving }, own);
            batch = batch.max(stored);
            refs = others;
        }
        batch
    }
}
