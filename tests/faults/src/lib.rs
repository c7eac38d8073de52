//! Faults against the real binary, judged by a ledger.
//!
//! The clients here are raw blocking sockets that know just enough of their protocols to tell
//! what was confirmed and what was delivered. Nothing in this crate looks into the broker: it is a
//! program that is started, killed and talked to.
#![forbid(unsafe_code)]

pub mod amqp;
pub mod broker;
pub mod disk;
pub mod files;
pub mod ledger;
pub mod load;
pub mod mqtt;
pub mod native;
pub mod netns;
pub mod proxy;
pub mod random;
pub mod report;
pub mod strace;
pub mod talk;
pub mod web;
