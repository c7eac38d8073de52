//! What the queue of a client session may not deliver any more, because its user has lost the right
//! to a topic after the message came.

use polymq_model::topic::Pattern;

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
    /// Has only messages on these topics delivered of those that are here.
    pub(crate) fn restrict(&self, topics: Vec<Pattern>) {
        let mut state = self.state.lock();
        let Some(lane) = state.lanes.first() else { return };
        let before = Position::new(lane.level, polymq_model::Seq(lane.next_seq));
        state.restriction = Some(Box::new(Restriction { before, topics }));
    }
}
