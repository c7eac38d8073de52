//! Values that every crate of PolyMQ shares: names, messages, properties, header values, topics, limits.
//!
//! This crate does no I/O, starts no thread, reads no clock and knows no protocol and no store.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod address;
pub mod carry;
pub mod format;
pub mod ids;
pub mod limits;
pub mod message;
pub mod names;
pub mod persistent;
pub mod properties;
pub mod topic;
pub mod value;

pub use format::{Format, FormatId, Formats};
pub use ids::{ClientNumber, ConnectionId, ConsumerId, LogId, Now, PublisherId, RequestId, Seq};
pub use limits::Limits;
pub use message::{Annotations, Body, Death, Message, NewMessage};
pub use names::{BadName, ExchangeName, QueueName, UserName, VhostName};
pub use persistent::PersistentMap;
pub use properties::{Ident, Properties};
pub use value::{Table, Value};
