//! Messages of a queue that traces follow. A queue without any asks a pointer whether it is null.

use polymq_model::{ConnectionId, Seq};

use super::{
    Position, Queue,
    state::{Arriving, State},
};
use crate::trace::{Marks, Tracked};

impl Queue {
    /// Follows those of the messages that are to be followed; they are about to enter a lane.
    #[cold]
    pub(super) fn follow(&self, state: &mut State, lane: usize, arriving: Arriving<'_>) {
        let Some((level, first)) = state.lanes.get(lane).map(|lane| (lane.level, lane.next_seq))
        else {
            return;
        };
        let places = (first..).zip(arriving.messages);
        for (seq, message) in places {
            let marks = arriving.marked.of(message);
            if !marks.is_empty() {
                let new = || Box::new(Tracked::new(self.name.as_str()));
                let tracked = state.tracked.get_or_insert_with(new);
                tracked.entered(Position::new(level, Seq(seq)), marks);
            }
        }
    }

    /// Lets go of traces that are over.
    pub(crate) fn forget_traces(&self) {
        let mut state = self.lock();
        if let Some(tracked) = &mut state.tracked {
            tracked.forget_over();
        }
        state.drop_idle_tracking();
    }

    /// The connections of its consumers, `max` at most.
    pub(crate) fn consumer_connections(&self, max: usize) -> Vec<ConnectionId> {
        let state = self.state.lock();
        let consumers = state.ring.iter().filter_map(|slot| state.consumers.get(*slot));
        consumers.take(max).map(|consumer| consumer.spec.group.connection).collect()
    }
}

impl State {
    /// Something has happened to a message that stays here.
    #[inline]
    pub(super) fn trace(
        &self,
        at: Position,
        event: &'static str,
        fields: impl FnOnce() -> Vec<(&'static str, String)>,
    ) {
        if let Some(tracked) = &self.tracked {
            tracked.note(at, event, fields);
        }
    }

    /// Something has happened to a message that is here no more. Returns what follows it.
    #[inline]
    pub(super) fn trace_end(
        &mut self,
        at: Position,
        event: &'static str,
        detail: Option<&str>,
    ) -> Marks {
        let Some(tracked) = &mut self.tracked else { return Marks::new() };
        tracked.note(at, event, || {
            detail.map(|detail| ("detail", detail.to_owned())).into_iter().collect()
        });
        let marks = tracked.take(at);
        self.drop_idle_tracking();
        marks
    }

    /// A message leaves for where dead letters go. Returns what follows it.
    #[inline]
    pub(super) fn trace_departing(&mut self, at: Position) -> Marks {
        let Some(tracked) = &mut self.tracked else { return Marks::new() };
        let marks = tracked.take(at);
        self.drop_idle_tracking();
        marks
    }

    fn drop_idle_tracking(&mut self) {
        if self.tracked.as_ref().is_some_and(|tracked| tracked.is_empty()) {
            self.tracked = None;
        }
    }
}
