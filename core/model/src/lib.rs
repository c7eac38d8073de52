//! Values that every crate of PolyMQ shares: names, messages, properties, header values, topics,
//! limits.
//!
//! This crate does no I/O, starts no thread, reads no clock and knows no protocol and no store.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod address;
pub mod annotations;
pub mod carry;
pub mod delay;
pub mod durability;
pub mod format;
pub mod ids;
pub mod json_form;
pub mod limits;
pub mod message;
pub mod names;
pub mod persistent;
pub mod properties;
mod sha256;
pub mod topic;
mod trace_context;
pub mod value;

pub use durability::{BadDurability, DURABILITY, Durability};
pub use format::{Format, FormatId, Formats};
pub use ids::{ClientNumber, ConnectionId, ConsumerId, LogId, Now, PublisherId, RequestId, Seq};
pub use limits::Limits;
pub use message::{Annotations, Body, Death, Message, NewMessage};
pub use names::{BadName, ExchangeName, QueueName, UserName, VhostName};
pub use persistent::PersistentMap;
pub use properties::{Ident, Properties};
pub use sha256::sha256;
pub use trace_context::TraceContext;
pub use value::{Table, Value};

/// Property tests replay: one seed, unless `PROPTEST_RNG_SEED` in the environment asks for another.
#[cfg(test)]
fn test_config(cases: u32) -> proptest::test_runner::Config {
    use proptest::test_runner::{Config, RngSeed};
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    match config.rng_seed {
        RngSeed::Random => Config { rng_seed: RngSeed::Fixed(1), ..config },
        RngSeed::Fixed(_) => config,
    }
}
