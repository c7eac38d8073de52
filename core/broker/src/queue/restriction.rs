//! What the queue of a client session may not deliver any more, because its user has lost the right
//! to a topic after the message came.

use polymq_model::{Seq, topic::Pattern};

use super::{Entry, Position, Queue};

/// Only messages on these topics are delivered of those before a position.
#[derive(Debug)]
pub(super) struct Restriction {
    before: Position,
    topics: Vec<Pattern>,
}

impl Restriction {
    pub(super) fn denies(&self, entry: &Entry) -> bool {
        let is_free = |topic: &Pattern| topic.matches(entry.message.key());
        entry.at < self.before && !self.topics.iter().any(is_free)
    }
}

impl Queue {
    /// Has only messages on these topics delivered of those that are here. Returns the number of
    /// the position that the next message gets.
    pub(crate) fn restrict(&self, topics: Vec<Pattern>) -> Seq {
        let mut state = self.lock();
        let Some(lane) = state.lanes.first() else { return Seq(0) };
        let before = Position::new(lane.level, Seq(lane.next_seq));
        state.restriction = Some(Box::new(Restriction { before, topics }));
        before.number()
    }

    /// The same after a restart, for what was there when the right was lost.
    pub(crate) fn restrict_again(&self, before: Seq, topics: Vec<Pattern>) {
        let before = Position::named(before);
        self.lock().restriction = Some(Box::new(Restriction { before, topics }));
    }
}
