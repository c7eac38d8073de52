//! MQTT 3.1, 3.1.1 and 5.0 on the server side: bytes of a client in, commands to the broker out,
//! and back.
//!
//! This crate does no I/O, reads no clock, routes nothing and stores nothing. Client sessions,
//! retained messages, wills and the matching of filters belong to the broker; sockets, TLS and
//! WebSocket frames to the driver. It does not yet offer `$json/` topics, publishing
//! of `$SYS` statistics, or enhanced authentication by other methods than SCRAM-SHA-256.
#![forbid(unsafe_code)]

mod answers;
mod ask;
mod client;
pub mod codec;
mod connect;
mod convert;
mod ids;
mod keep_alive;
mod publish_in;
mod publish_out;
mod publish_properties;
mod refusal;
mod render;
mod route;
mod session;
mod settle;
mod subscribe;
mod subscriptions;
#[cfg(test)]
mod tests;
mod told;
mod will;

use std::sync::Arc;

use polymq_contract::{Counters, Destination, Offer, Peer, Protocol, ProtocolSession, Recognised};
use polymq_model::{Format, Limits, Now, address::TOPIC_EXCHANGE};

pub use convert::{MQTT3, MQTT5};
pub use session::Session;

use codec::reader::var_int;
use route::Route;

/// The protocol: recognises its clients and makes a session for each.
#[derive(Debug, Clone)]
pub struct Mqtt {
    shared: Arc<Shared>,
}

/// What all sessions share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The exchange behind plain topics.
    exchange: String,
    /// Ways to log in: SCRAM-SHA-256 is one.
    offer: Offer,
    counters: Counters,
}

impl Mqtt {
    /// MQTT whose topics are those of `exchange`, usually `amq.topic`, with SCRAM-SHA-256 as a way
    /// to log in where that is offered.
    pub fn new(exchange: impl Into<String>, offer: Offer) -> Self {
        let (exchange, counters) = (exchange.into(), Counters::default());
        Self { shared: Arc::new(Shared { exchange, offer, counters }) }
    }
}

impl Default for Mqtt {
    fn default() -> Self {
        Self::new(TOPIC_EXCHANGE, Offer::default())
    }
}

impl Protocol for Mqtt {
    fn name(&self) -> &'static str {
        "mqtt"
    }

    fn recognise(&self, first: &[u8]) -> Recognised {
        let Some((kind, rest)) = first.split_first() else { return Recognised::Unsure };
        if *kind != codec::PacketKind::Connect.first_byte() {
            return Recognised::No;
        }
        let start = match var_int(rest) {
            Ok(Some(length)) => rest.get(length.len..).unwrap_or_default(),
            Ok(None) => return Recognised::Unsure,
            Err(_) => return Recognised::No,
        };
        let names: [&[u8]; 2] = [b"\x00\x04MQTT", b"\x00\x06MQIsdp"];
        if names.iter().any(|name| start.starts_with(name)) {
            Recognised::Yes
        } else if names.iter().any(|name| name.starts_with(start)) {
            Recognised::Unsure
        } else {
            Recognised::No
        }
    }

    fn formats(&self) -> Vec<&'static Format> {
        vec![&MQTT3, &MQTT5]
    }

    fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    fn destination(&self, address: &str, limits: &Limits) -> Option<Result<Destination, String>> {
        let route = Route::of_topic(address, &self.shared.exchange, limits);
        Some(route.map(Destination::from).map_err(|why| why.to_string()))
    }

    fn session(
        &self,
        peer: &Arc<Peer>,
        limits: &Arc<Limits>,
        now: Now,
    ) -> Box<dyn ProtocolSession> {
        let (shared, peer) = (Arc::clone(&self.shared), Arc::clone(peer));
        Box::new(Session::new(shared, peer, Arc::clone(limits), now))
    }
}

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
