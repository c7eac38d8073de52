//! What a connection asks of the broker.

use polymq_model::{ConsumerId, Message, PublisherId, RequestId, Table, UserName, delay::Delay};

use crate::{
    introduction::Introduction,
    login::Login,
    settlement::Settlement,
    subscription::{InFlight, Subscription},
};

/// Arguments of a declare, bind or consume.
pub type Arguments = Table;

/// An order to the broker. Commands of one connection are executed in order.
///
/// A command with a `request` is answered by [`crate::Event::Answered`], at once or when the disk
/// has what it promises.
#[derive(Debug)]
pub enum Command {
    /// Publishes a message.
    Publish(Publish),
    /// Settles deliveries.
    Settle(Settlement),
    /// A step of logging in.
    Authenticate {
        /// Answered with `Authenticated` or `Challenge`.
        request: RequestId,
        /// The step.
        login: Box<Login>,
    },
    /// Opens a virtual host for the user.
    OpenVhost {
        /// Answered with `VhostOpened`.
        request: RequestId,
        /// Its name; `None` takes the listener's.
        vhost: Option<String>,
    },
    /// Opens a channel: asks whether the user may have one more.
    OpenChannel {
        /// Answered with `Done`.
        request: RequestId,
        /// Its number, which is also that of the group of its consumers.
        channel: u32,
    },
    /// A channel that was opened is no more.
    CloseChannel {
        /// Its number.
        channel: u32,
    },
    /// Says who the client is, for people. Nothing depends on it.
    Introduce(Box<Introduction>),
    /// Says what a channel does, for people. Nothing depends on it.
    DescribeChannel {
        /// Its number.
        channel: u32,
        /// What it does.
        mode: ChannelMode,
    },
    /// From now on tell where publishes with a number go, by [`crate::Event::Placed`].
    TellPlaces,
    /// What comes are single requests, of a virtual host that is opened later, and no client that
    /// stays: limits of connections do not count it.
    Visit,
    /// Declares an exchange.
    DeclareExchange(Box<DeclareExchange>),
    /// Deletes an exchange; one that is missing counts as deleted.
    DeleteExchange {
        /// Answered with `Done`.
        request: RequestId,
        /// Its name.
        exchange: String,
        /// Refuse when bindings lead from it.
        if_unused: bool,
    },
    /// Binds an exchange to an exchange.
    BindExchange(Box<BindExchange>),
    /// Removes such a binding.
    UnbindExchange(Box<BindExchange>),
    /// Declares a queue.
    DeclareQueue(Box<DeclareQueue>),
    /// Deletes a queue; one that is missing counts as deleted.
    DeleteQueue {
        /// Answered with `QueueDeleted`.
        request: RequestId,
        /// Its name.
        queue: String,
        /// Refuse when it has consumers.
        if_unused: bool,
        /// Refuse when it has ready messages.
        if_empty: bool,
    },
    /// Removes the ready messages of a queue.
    PurgeQueue {
        /// Answered with `QueuePurged`.
        request: RequestId,
        /// Its name.
        queue: String,
    },
    /// Binds a queue to an exchange.
    BindQueue(Box<BindQueue>),
    /// Removes such a binding; one that is missing counts as removed.
    UnbindQueue(Box<BindQueue>),
    /// Asks whether a queue is there: whoever may publish to it learns that, as well as whoever has
    /// a right to it.
    FindQueue {
        /// Answered with `Done`.
        request: RequestId,
        /// Its name.
        queue: String,
    },
    /// Asks which queues there are, of those that the user may read.
    ListQueues {
        /// Answered with `Queues`.
        request: RequestId,
        /// Only those whose names come after this one.
        after: Option<String>,
        /// The most that are named.
        count_max: usize,
    },
    /// Asks which bindings of exchanges lead to a queue that the user may read.
    ListBindings {
        /// Answered with `Bindings`.
        request: RequestId,
        /// The queue.
        queue: String,
    },
    /// Stops the deliveries of a queue, or lets them go on.
    PauseQueue {
        /// Answered with `Done`.
        request: RequestId,
        /// The queue.
        queue: String,
        /// Stop or go on.
        paused: bool,
    },
    /// Asks for the retained messages of a topic exchange that the user may read.
    Recall {
        /// Answered with `Recalled`.
        request: RequestId,
        /// The exchange.
        exchange: String,
        /// Pattern in dot form.
        pattern: String,
        /// The most that are returned.
        count_max: usize,
    },
    /// Asks which topics of `amq.topic` the user may read.
    ListTopics {
        /// Answered with `Topics`.
        request: RequestId,
        /// Of these, in dot form; `None` for those with a retained message.
        among: Option<Vec<String>>,
        /// The most that are named.
        count_max: usize,
    },
    /// Reads a document that the protocol keeps for a user.
    ReadDocument {
        /// Answered with `Document`.
        request: RequestId,
        /// Whose.
        user: UserName,
        /// Which.
        name: String,
    },
    /// Replaces such a document. One with an older version than the broker has is passed over.
    WriteDocument {
        /// Answered with `Done` when it is durable.
        request: Option<RequestId>,
        /// Whose.
        user: UserName,
        /// Which.
        name: String,
        /// Grows with each change.
        version: u64,
        /// What it says; empty removes it.
        text: String,
    },
    /// Starts a consumer.
    Consume(Box<Consume>),
    /// Stops a consumer; its unsettled deliveries stay with the connection.
    Cancel {
        /// Answered with `Done`.
        request: RequestId,
        /// The consumer.
        consumer: ConsumerId,
    },
    /// Stops consumers and gives their unsettled deliveries back as failed: a channel has closed.
    Release {
        /// The consumers, cancelled ones and those of `Get` included.
        consumers: Vec<ConsumerId>,
    },
    /// Takes one message.
    Get {
        /// Answered with `Got`.
        request: RequestId,
        /// The queue.
        queue: String,
        /// Settled when sent.
        no_ack: bool,
        /// A fresh consumer number, under which the delivery is settled as number 1.
        consumer: ConsumerId,
    },
    /// Bounds the unsettled deliveries of all consumers of a group together; 0 for no bound.
    SetGroupPrefetch {
        /// The group: a channel in AMQP, 0 in MQTT.
        group: u32,
        /// The bound.
        prefetch: u32,
    },
    /// The commands that follow belong to this publisher's channel. Once a publish of it is
    /// refused, whatever it sends behind that does not happen until the channel is left: publishes
    /// and settlements are dropped, and requests are refused with kind `Conflict`. Only `Release`
    /// is executed.
    EnterChannel {
        /// The channel, by its publisher.
        publisher: PublisherId,
        /// Its number, 0 where the protocol has no channels.
        channel: u32,
    },
    /// The session knows that a publish of this channel was refused, and sends no more for it.
    LeaveChannel {
        /// The channel, by its publisher.
        publisher: PublisherId,
    },
    /// Executes publishes and settlements together.
    Commit(Box<Transaction>),
    /// Opens or resumes the client session of this connection, taking it over from another
    /// connection.
    OpenClientSession(Box<OpenClientSession>),
    /// Adds or replaces a subscription. Matching retained messages follow the answer.
    Subscribe {
        /// Answered with `Subscribed`.
        request: RequestId,
        /// The subscription.
        subscription: Box<Subscription>,
        /// It came back from [`crate::OpenedClientSession`]: no retained messages.
        resume: bool,
    },
    /// Removes a subscription by its filter.
    Unsubscribe {
        /// Answered with `Unsubscribed`.
        request: RequestId,
        /// The filter as the client wrote it.
        filter: String,
    },
    /// The client has released a received packet of quality of service 2.
    ReleaseReceived {
        /// Answered with `Done` when the packet id is free, also after a crash.
        request: Option<RequestId>,
        /// The packet id.
        packet_id: u16,
    },
    /// Remembers deliveries of quality of service 2 beyond a crash: before their first sending, and
    /// again when the client has received them.
    KeepInFlight {
        /// Answered with `Done` when it is durable.
        request: RequestId,
        /// What is unfinished; each replaces what was known of its packet id.
        in_flight: Vec<InFlight>,
    },
    /// The client has finished a delivery that had been remembered.
    ForgetInFlight {
        /// The packet id it was sent with.
        packet_id: u16,
    },
    /// The connection leaves its client session.
    CloseClientSession {
        /// What the client has not finished, in the order of sending.
        in_flight: Vec<InFlight>,
        /// Publish the will.
        will: bool,
        /// A new expiry in seconds, `u32::MAX` for never.
        expiry_secs: Option<u32>,
    },
}

impl Command {
    /// The request that is to be answered, if the command makes one.
    pub fn request(&self) -> Option<RequestId> {
        match self {
            Self::Authenticate { request, .. }
            | Self::OpenVhost { request, .. }
            | Self::OpenChannel { request, .. }
            | Self::DeleteExchange { request, .. }
            | Self::DeleteQueue { request, .. }
            | Self::PurgeQueue { request, .. }
            | Self::FindQueue { request, .. }
            | Self::ListQueues { request, .. }
            | Self::ListBindings { request, .. }
            | Self::PauseQueue { request, .. }
            | Self::Recall { request, .. }
            | Self::ListTopics { request, .. }
            | Self::ReadDocument { request, .. }
            | Self::Cancel { request, .. }
            | Self::Get { request, .. }
            | Self::Subscribe { request, .. }
            | Self::Unsubscribe { request, .. }
            | Self::KeepInFlight { request, .. } => Some(*request),
            Self::DeclareExchange(declare) => Some(declare.request),
            Self::BindExchange(bind) | Self::UnbindExchange(bind) => Some(bind.request),
            Self::DeclareQueue(declare) => Some(declare.request),
            Self::BindQueue(bind) | Self::UnbindQueue(bind) => Some(bind.request),
            Self::Consume(consume) => Some(consume.request),
            Self::Commit(transaction) => Some(transaction.request),
            Self::OpenClientSession(open) => Some(open.request),
            Self::ReleaseReceived { request, .. } | Self::WriteDocument { request, .. } => *request,
            Self::Publish(_)
            | Self::Settle(_)
            | Self::Release { .. }
            | Self::SetGroupPrefetch { .. }
            | Self::CloseChannel { .. }
            | Self::Introduce(_)
            | Self::DescribeChannel { .. }
            | Self::TellPlaces
            | Self::Visit
            | Self::EnterChannel { .. }
            | Self::LeaveChannel { .. }
            | Self::ForgetInFlight { .. }
            | Self::CloseClientSession { .. } => None,
        }
    }
}

/// One message to publish.
#[derive(Debug)]
pub struct Publish {
    /// Which of the connection's publishers it is.
    pub publisher: PublisherId,
    /// Number of the publish, counting from 1 for each publisher; 0 asks for no confirm.
    pub number: u64,
    /// Return the message when no queue takes it.
    pub mandatory: bool,
    /// Packet id of a publish of quality of service 2, remembered in the same batch so that a
    /// repeat is known.
    pub received: Option<u16>,
    /// Route it later. The headers that asked for that are not part of the message any more.
    pub delay: Option<Delay>,
    /// The message.
    pub message: Message,
}

/// Declares an exchange.
#[derive(Debug, Clone, PartialEq)]
pub struct DeclareExchange {
    /// Answered with `Done`.
    pub request: RequestId,
    /// Its name.
    pub exchange: String,
    /// Its type, as `direct`.
    pub kind: String,
    /// Only ask whether it exists.
    pub passive: bool,
    /// Survives a restart.
    pub durable: bool,
    /// Goes with its last binding.
    pub auto_delete: bool,
    /// Clients may not publish to it.
    pub internal: bool,
    /// Arguments, `alternate-exchange` among them.
    pub arguments: Arguments,
}

/// Binds `source` to the exchange `destination`.
#[derive(Debug, Clone, PartialEq)]
pub struct BindExchange {
    /// Answered with `Done`.
    pub request: RequestId,
    /// Where messages go.
    pub destination: String,
    /// Where messages come from.
    pub source: String,
    /// Binding key.
    pub key: String,
    /// Arguments.
    pub arguments: Arguments,
}

/// Declares a queue.
#[derive(Debug, Clone, PartialEq)]
pub struct DeclareQueue {
    /// Answered with `QueueDeclared`.
    pub request: RequestId,
    /// Its name; empty for one made by the broker.
    pub queue: String,
    /// Only ask whether it exists.
    pub passive: bool,
    /// Survives a restart.
    pub durable: bool,
    /// Belongs to this connection and goes with it.
    pub exclusive: bool,
    /// Goes with its last consumer.
    pub auto_delete: bool,
    /// Arguments.
    pub arguments: Arguments,
}

/// Binds `queue` to `exchange`.
#[derive(Debug, Clone, PartialEq)]
pub struct BindQueue {
    /// Answered with `Done`.
    pub request: RequestId,
    /// Where messages go.
    pub queue: String,
    /// Where messages come from.
    pub exchange: String,
    /// Binding key.
    pub key: String,
    /// Arguments.
    pub arguments: Arguments,
}

/// Starts a consumer.
#[derive(Debug, Clone, PartialEq)]
pub struct Consume {
    /// Answered with `Consuming`.
    pub request: RequestId,
    /// Chosen by the session.
    pub consumer: ConsumerId,
    /// The queue, or `amq.rabbitmq.reply-to`.
    pub queue: String,
    /// Deliveries are settled when sent.
    pub no_ack: bool,
    /// No other consumer may be on the queue.
    pub exclusive: bool,
    /// Unsettled deliveries allowed; 0 for no bound.
    pub prefetch: u32,
    /// The group whose bound counts as well.
    pub group: u32,
    /// The consumer's name, for people.
    pub tag: String,
    /// Arguments, `x-priority` among them.
    pub arguments: Arguments,
}

/// What a channel does beside the usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelMode {
    /// Its publishes are confirmed.
    Confirms,
    /// A transaction is under way, with what waits for its commit.
    Transaction {
        /// Messages to publish.
        publishes: usize,
        /// Deliveries to settle.
        settlements: usize,
    },
}

/// Publishes and settlements that belong together.
#[derive(Debug)]
pub struct Transaction {
    /// Answered with `Done` when everything is stored.
    pub request: RequestId,
    /// Messages to publish.
    pub publishes: Vec<Publish>,
    /// Deliveries to settle.
    pub settlements: Vec<Settlement>,
}

/// Opens or resumes a client session.
#[derive(Debug)]
pub struct OpenClientSession {
    /// Answered with `ClientSession`.
    pub request: RequestId,
    /// The client's id; `None` asks the broker to make one.
    pub client_id: Option<String>,
    /// Forget what an earlier session remembers.
    pub clean_start: bool,
    /// Seconds the session outlives its connection; 0 for not at all, `u32::MAX` for ever.
    pub expiry_secs: u32,
    /// Unfinished deliveries of quality of service 1 and 2 the client accepts.
    pub receive_max: u16,
    /// Message to publish when the connection is lost.
    pub will: Option<Will>,
}

/// A message to publish when a client is lost.
#[derive(Debug, Clone)]
pub struct Will {
    /// The message.
    pub message: Message,
    /// Seconds to wait for the client to come back.
    pub delay_secs: u32,
}
