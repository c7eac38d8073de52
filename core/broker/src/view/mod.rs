//! What people and tools are shown of the broker: connections and their channels, consumers,
//! queues, exchanges, bindings.
//!
//! Lists are made from snapshots: a `…Ref` costs a few references, and only what is shown of it is
//! read. No lock is held for longer than one object takes.

mod connection;
mod exchange;
mod listing;
mod queue;

pub(crate) use connection::ConnectionFacts;
pub use connection::{ChannelView, ConnectionRef, ConnectionTotals};
pub use exchange::{BindingView, ExchangeView};
pub use listing::QueueList;
pub(crate) use listing::QueueNames;
pub(crate) use queue::Seen;
pub use queue::{ConsumerView, QueueDetails, QueueRef, UnackedView};
