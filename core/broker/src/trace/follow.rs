//! Following messages of a run into queues, and through a queue.

use std::collections::HashMap;

use polymq_model::Message;
use smallvec::SmallVec;

use super::Mark;
use crate::queue::{ConsumerSpec, Position};

/// Messages that one queue follows at a time.
const FOLLOWED_MAX: usize = 1000;

/// The traces that follow one message.
pub(crate) type Marks = SmallVec<[Mark; 1]>;

/// Messages on their way into queues, and which of them are followed, by their places.
#[derive(Clone, Copy, Default)]
pub(crate) struct Marked<'a> {
    pub(crate) messages: &'a [Message],
    pub(crate) marks: &'a [(usize, Mark)],
}

impl Marked<'_> {
    /// True when none of them is.
    pub(crate) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// The marks of a message, which must be a reference into the run.
    pub(crate) fn of(&self, message: &Message) -> Marks {
        let is_it = |(place, _): &&(usize, Mark)| {
            self.messages.get(*place).is_some_and(|known| std::ptr::eq(known, message))
        };
        self.marks.iter().filter(is_it).map(|(_, mark)| mark.clone()).collect()
    }
}

/// The followed messages of a queue, by position.
#[derive(Debug)]
pub(crate) struct Tracked {
    queue: Box<str>,
    marks: HashMap<Position, Marks>,
}

impl Tracked {
    pub(crate) fn new(queue: &str) -> Self {
        Self { queue: queue.into(), marks: HashMap::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// A message has entered.
    pub(crate) fn entered(&mut self, at: Position, marks: Marks) {
        for mark in &marks {
            mark.note("queued", self.fields(at, vec![]));
        }
        if self.marks.len() < FOLLOWED_MAX {
            self.marks.insert(at, marks);
        }
    }

    /// Something has happened to a message.
    pub(crate) fn note(
        &self,
        at: Position,
        event: &'static str,
        fields: impl FnOnce() -> Vec<(&'static str, String)>,
    ) {
        let Some(marks) = self.marks.get(&at) else { return };
        let fields = self.fields(at, fields());
        for mark in marks {
            mark.note(event, fields.clone());
        }
    }

    /// A message goes to a consumer; with `is_last` the queue knows it no more.
    pub(crate) fn delivered(&mut self, at: Position, to: &ConsumerSpec, is_again: bool) {
        self.note(at, "delivered", || {
            vec![
                ("protocol", to.group.protocol.to_owned()),
                ("consumer", to.tag.to_string()),
                ("connection", to.group.connection.0.to_string()),
                ("redelivered", is_again.to_string()),
                ("ack", if to.no_ack { "none" } else { "wanted" }.to_owned()),
            ]
        });
        if to.no_ack {
            self.marks.remove(&at);
        }
    }

    /// A message has left; what follows it is returned.
    pub(crate) fn take(&mut self, at: Position) -> Marks {
        self.marks.remove(&at).unwrap_or_default()
    }

    /// Lets go of traces that are over.
    pub(crate) fn forget_over(&mut self) {
        self.marks.retain(|_, marks| {
            marks.retain(|mark| !mark.is_void());
            !marks.is_empty()
        });
    }

    fn fields(
        &self,
        at: Position,
        mut more: Vec<(&'static str, String)>,
    ) -> Vec<(&'static str, String)> {
        more.push(("queue", self.queue.to_string()));
        more.push(("seq", at.number().0.to_string()));
        more
    }
}
