//! What a protocol and the broker say to each other, and the door between a connection's task and
//! the rest.
//!
//! Here is no I/O, no runtime, no routing and no protocol: only the words. A [`ProtocolSession`]
//! turns bytes into [`Command`]s and [`Event`]s into bytes; a [`Broker`] turns commands into
//! events; the driver moves bytes.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod answer;
pub mod broadcast;
pub mod broker;
pub mod command;
pub mod conversions;
pub mod counters;
pub mod effects;
pub mod event;
pub mod introduction;
pub mod login;
pub mod offer;
pub mod outbox;
pub mod output;
pub mod peer;
pub mod protocol;
pub mod refusal;
pub mod settlement;
pub mod subscription;
pub mod web_message;

pub use answer::{Answer, ListedBinding, ListedQueue, OpenedClientSession};
pub use broadcast::Broadcast;
pub use broker::{Broker, Connection, DisconnectCause};
pub use command::{
    Arguments, BindExchange, BindQueue, ChannelMode, Command, Consume, DeclareExchange,
    DeclareQueue, OpenClientSession, Publish, Transaction, Will,
};
pub use conversions::{Conversions, Pair};
pub use counters::{Counter, Counters};
pub use effects::{Close, Effects};
pub use event::{CancelReason, Delivery, Event, EventBatch, Passed, Place, PublishOutcome};
pub use introduction::{Introduction, Traffic, TrafficCounts};
pub use login::{Login, PasswordsInClear, Scram, ScramHash, Secret};
pub use offer::{Mechanisms, Offer};
pub use outbox::Outbox;
pub use output::Output;
pub use peer::{Account, ChannelBindings, KnownUser, Peer, TlsPeer, Transport};
pub use protocol::{Destination, Protocol, ProtocolSession, Recognised, Timeout};
pub use refusal::{Refusal, RefusalKind};
pub use settlement::{DeliveryRange, Note, Outcome, Settlement};
pub use subscription::{InFlight, Matched, Subscription, SubscriptionIds, SubscriptionTarget};
pub use web_message::{MessageKind, MessageTooLong, WebMessage, WebMessages};
