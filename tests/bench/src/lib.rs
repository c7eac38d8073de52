//! The benchmark: one load generator, and a comparison of brokers under the same load.
//!
//! `engine` is the load loop over `link`s, `latency` the open-loop sender, `rows` says what each
//! row does, `peers` how each broker is started, `compare` runs the rows in turn and `report`
//! prints them.
//!
//! This crate does not check that a broker is correct; it counts messages and what they cost. It
//! shares no code with the brokers it measures, PolyMQ included.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that panics has failed"))]

pub mod amqp;
pub mod broker;
pub mod compare;
pub mod confirms;
pub mod engine;
pub mod goals;
pub mod http;
pub mod latency;
pub mod link;
pub mod mqtt;
pub mod peers;
pub mod process;
pub mod relay;
pub mod report;
pub mod rows;
pub mod stomp;
pub mod web_socket;
pub mod wire;
pub mod work;
pub mod xmpp;
