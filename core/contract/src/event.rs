//! What the broker tells a connection, in order, through its outbox.

use std::collections::VecDeque;
use std::{any::Any, fmt, sync::Arc};

use polymq_model::{ConsumerId, Durability, Message, PublisherId, RequestId, Seq};

use crate::{
    answer::Answer,
    broadcast::Broadcast,
    refusal::{Refusal, RefusalKind},
    subscription::Matched,
};

/// A message on its way to a consumer.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The consumer.
    pub consumer: ConsumerId,
    /// The message has been delivered before.
    pub redelivered: bool,
    /// Earlier deliveries; shown as `x-acquired-count` when above zero.
    pub acquired: u16,
    /// Failed deliveries; shown as `x-delivery-count` when above zero.
    pub failed: u16,
    /// Number of this delivery for this consumer, counting from 1 without gaps; what
    /// [`crate::Command::Settle`] names. 0 when nothing is to be settled.
    pub number: u64,
    /// Position in the queue.
    pub seq: Seq,
    /// What the matching subscriptions say.
    pub matched: Matched,
    /// The message.
    pub message: Message,
}

/// How a publish with a confirm ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishOutcome {
    /// At least one queue or subscriber took it, and every queue keeps it at least so well.
    Routed(Durability),
    /// Nobody was there to take it.
    Unrouted,
    /// It was refused.
    Refused(RefusalKind),
}

/// Where a publish went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Into so many queues. Subscribers without a queue do not count.
    Queues(u32),
    /// Among the delayed messages of its virtual host, under this schedule id.
    Scheduled(u64),
}

/// Why a consumer ends without having asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReason {
    /// Its queue was deleted.
    QueueDeleted,
    /// It did not settle a delivery in time.
    Timeout,
    /// The user lost the right to read.
    Denied,
    /// An administrator, or its user from elsewhere, has ended it.
    Administrator,
}

/// A fact for a connection.
#[derive(Debug, Clone)]
pub enum Event {
    /// A message of a queue.
    Delivered(Delivery),
    /// Messages for a direct subscription, shared with its other subscribers.
    Broadcast {
        /// The consumer.
        consumer: ConsumerId,
        /// What the matching subscriptions say.
        matched: Matched,
        /// The messages.
        batch: Arc<Broadcast>,
    },
    /// Publishes `first` to `last` of a publisher have ended alike.
    Confirmed {
        /// The publisher.
        publisher: PublisherId,
        /// Number of the first publish.
        first: u64,
        /// Number of the last publish.
        last: u64,
        /// How they ended.
        outcome: PublishOutcome,
    },
    /// Publishes `first` to `last` of a publisher have been taken, and this is where they are; how
    /// safe they are there is told by `Confirmed`. For connections that have asked by
    /// [`crate::Command::TellPlaces`].
    Placed {
        /// The publisher.
        publisher: PublisherId,
        /// Number of the first publish.
        first: u64,
        /// Number of the last publish.
        last: u64,
        /// Where each of them is.
        place: Place,
    },
    /// A mandatory message found no queue. Comes before its confirm.
    Returned {
        /// The publisher.
        publisher: PublisherId,
        /// The message.
        message: Message,
    },
    /// A publish broke a rule: missing exchange, no permission, bad field. It gets no `Confirmed`.
    PublishRefused {
        /// The publisher.
        publisher: PublisherId,
        /// Its number, 0 when it asked for no confirm.
        number: u64,
        /// Why.
        refusal: Box<Refusal>,
    },
    /// The answer to a command with a request. Answers come in the order of their commands.
    Answered {
        /// The request.
        request: RequestId,
        /// What came of it.
        answer: Box<Result<Answer, Refusal>>,
    },
    /// A consumer has ended. Nothing is delivered under it after this.
    ConsumerCancelled {
        /// The consumer.
        consumer: ConsumerId,
        /// Why.
        reason: CancelReason,
    },
    /// Publishes wait until `Unblocked`.
    Blocked {
        /// For the client: what is full, and its mark.
        reason: Box<str>,
    },
    /// Publishes go on.
    Unblocked,
    /// Another connection has taken the client session.
    TakenOver,
    /// Another session of the same protocol says this; the broker has no part in it.
    Passed(Passed),
    /// The broker closes this connection: it stops, or an administrator wants it.
    Closing {
        /// For the client.
        reason: Box<str>,
        /// True when the whole server goes away.
        shutdown: bool,
    },
}

/// What one session of a protocol tells another. Only their protocol knows what it is.
#[derive(Clone)]
pub struct Passed {
    /// The word.
    pub word: Arc<dyn Any + Send + Sync>,
    /// What it weighs.
    pub bytes: usize,
}

impl fmt::Debug for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passed").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Event {
    /// What the event weighs in the outbox's byte budget.
    pub fn weight(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Delivered(delivery) => delivery.message.size(),
                // With what the first subscriber renders of it for all.
                Self::Broadcast { batch, .. } => batch.bytes().saturating_mul(2),
                Self::Returned { message, .. } => message.size(),
                Self::Passed(passed) => passed.bytes,
                Self::Confirmed { .. }
                | Self::Placed { .. }
                | Self::PublishRefused { .. }
                | Self::Answered { .. }
                | Self::ConsumerCancelled { .. }
                | Self::Blocked { .. }
                | Self::Unblocked
                | Self::TakenOver
                | Self::Closing { .. } => 0,
            }
    }
}

/// Events taken out of an outbox, front first. A session may leave the rest when its output is
/// full.
#[derive(Debug, Default)]
pub struct EventBatch {
    pub(crate) events: VecDeque<Event>,
    pub(crate) weight: usize,
}

impl EventBatch {
    /// Takes the next event.
    #[inline]
    pub fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.weight += event.weight();
        Some(event)
    }

    /// Events left.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// True when nothing is left.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The events in order, to be changed in place. An event must weigh what it did.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Event> {
        self.events.iter_mut()
    }

    /// Puts an event at the end; for tests of sessions.
    pub fn push(&mut self, event: Event) {
        self.events.push_back(event);
    }
}
