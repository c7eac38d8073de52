//! Answers to commands that carry a request.

use polymq_model::{Message, QueueName, Seq, UserName};

use crate::{
    event::Delivery,
    subscription::{InFlight, Subscription},
};

/// What a command with a request is answered with when it succeeded.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The login is complete.
    Authenticated {
        /// Who it is.
        user: UserName,
        /// The user may send messages in the name of others.
        impersonator: bool,
        /// Last server message of SCRAM; empty for other mechanisms.
        server_final: Vec<u8>,
    },
    /// The next message of a login that takes several steps; answer it with another `Authenticate`.
    Challenge(Vec<u8>),
    /// The virtual host is open.
    VhostOpened,
    /// Done; there is nothing to say.
    Done,
    /// The queue exists.
    QueueDeclared {
        /// Its name, made by the broker when the command named none.
        queue: QueueName,
        /// Ready messages.
        messages: u64,
        /// Consumers.
        consumers: u32,
    },
    /// The queue is gone.
    QueueDeleted {
        /// Ready messages that went with it.
        messages: u64,
    },
    /// The queue's ready messages are gone.
    QueuePurged {
        /// How many.
        messages: u64,
    },
    /// The queues, in order of their names.
    Queues {
        /// Names and what they hold.
        queues: Vec<ListedQueue>,
        /// How many there are in all, of those that may be read.
        total: usize,
    },
    /// The bindings that lead to a queue.
    Bindings(Vec<ListedBinding>),
    /// Retained messages, in order of their keys.
    Recalled(Vec<Message>),
    /// Topics that may be read, in dot form and in their order.
    Topics(Vec<String>),
    /// A document; version 0 when there is none.
    Document {
        /// Its version.
        version: u64,
        /// What it says.
        text: String,
    },
    /// The consumer is registered.
    Consuming {
        /// For `amq.rabbitmq.reply-to`: the name that answers are sent to.
        reply_name: Option<String>,
    },
    /// The answer to `Get`.
    Got {
        /// The message, if there was one.
        delivery: Option<Box<Delivery>>,
        /// Ready messages that remain.
        remaining: u64,
    },
    /// The client session is open.
    ClientSession(Box<OpenedClientSession>),
    /// The subscription stands.
    Subscribed {
        /// True when the same filter had been subscribed before.
        existed: bool,
    },
    /// The subscription is gone.
    Unsubscribed {
        /// False when there was no such subscription.
        existed: bool,
    },
}

/// What a client session remembers when it is opened.
#[derive(Debug, Clone)]
pub struct OpenedClientSession {
    /// The client id, made by the broker when the client gave none.
    pub client_id: String,
    /// True when an earlier session goes on.
    pub present: bool,
    /// Its subscriptions. Those of topics are live already; those of queues and shares are to be
    /// subscribed again by the protocol session with `resume`.
    pub subscriptions: Vec<Subscription>,
    /// Deliveries the client had not finished, in the order in which they were sent.
    pub in_flight: Vec<InFlight>,
    /// Packet ids of received messages of quality of service 2 that the client has not released.
    pub received: Vec<u16>,
    /// Positions of the session's queue below this may have been sent by a connection that ended
    /// with the broker, under packet ids that are not known.
    pub unsure_before: Seq,
}

/// A queue in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedQueue {
    /// Its name.
    pub name: QueueName,
    /// Ready messages.
    pub messages: u64,
    /// Consumers.
    pub consumers: u32,
}

/// A binding in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedBinding {
    /// The exchange.
    pub exchange: String,
    /// The binding key.
    pub key: String,
}
