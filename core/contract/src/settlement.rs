//! How deliveries end.

use polymq_model::ConsumerId;

/// Numbers of deliveries of one consumer, both inclusive. Those already settled are passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryRange {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

/// How a delivery ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done with.
    Accepted,
    /// Back to its place; counts as acquired.
    Returned,
    /// Back to its place as a failed delivery.
    Failed,
    /// Dead-lettered or dropped.
    Rejected,
    /// Dead-lettered or dropped because the client's packet limit does not allow it.
    TooLarge,
}

/// Settles deliveries of one consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// The consumer.
    pub consumer: ConsumerId,
    /// Which of its deliveries.
    pub deliveries: DeliveryRange,
    /// How they end.
    pub outcome: Outcome,
    /// What the client says beside that; most say nothing.
    pub note: Option<Box<Note>>,
}

impl Settlement {
    /// A settlement of which nothing more is to be said.
    pub fn new(consumer: ConsumerId, deliveries: DeliveryRange, outcome: Outcome) -> Self {
        Self { consumer, deliveries, outcome, note: None }
    }
}

/// What a client may say about deliveries that it does not accept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Note {
    /// Those that come back are held for this long, in ms, instead of the time that the queue's
    /// retry policy says.
    pub retry_after_ms: Option<u64>,
    /// Why, for the record of a message that dies of it. The broker keeps the first KiB.
    pub reason: Option<String>,
}
