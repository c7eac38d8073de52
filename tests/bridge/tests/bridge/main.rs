//! What a message is after it went from one protocol to another, and back.
//!
//! Every test speaks the bytes of the protocols to real sessions over a real broker. The encoders
//! and decoders of the clients are this crate's own, so that an error in those of the protocols
//! cannot hide itself. Time stands still until a test moves it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod addresses;
mod amqp;
mod delays;
mod durability;
mod events;
mod exact;
mod explain;
mod fields;
mod headers;
mod http;
mod http_bridge;
mod injection;
mod limits;
mod lossless;
mod mqtt;
mod paths;
mod queues;
mod refusals;
mod rights;
mod round_trip;
mod stomp;
mod stomp_bridge;
mod stomp_lossless;
mod topics;
mod wire;
mod world;
mod xmpp;
mod xmpp_client;
mod xmpp_lossless;
