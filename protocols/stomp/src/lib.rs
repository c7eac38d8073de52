//! STOMP 1.0, 1.1 and 1.2 on the server side: frames of a client in, commands to the broker out,
//! and back.
//!
//! This crate does no I/O, reads no clock, routes nothing and stores nothing. Queues, exchanges,
//! transactions and permissions belong to the broker; sockets, TLS and WebSocket frames to the
//! driver. It does not yet offer selectors.
#![forbid(unsafe_code)]

pub mod codec;
mod connect;
mod convert;
mod deliver;
mod events;
mod frames;
mod heart_beat;
mod native;
mod queues;
mod receipts;
mod refusal;
mod route;
mod send;
mod session;
mod settle;
mod subscribe;
mod subscription;
mod transaction;
mod unsettled;

#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use polymq_contract::{Counters, Destination, Pair, Peer, Protocol, ProtocolSession, Recognised};
use polymq_model::{Format, Limits, Now, address::TOPIC_EXCHANGE, format::PLAIN_FORMAT};

pub use convert::STOMP;

use route::Route;

/// How the operator wants it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The exchange behind `/topic/`.
    pub exchange: String,
    /// A `host` that is no virtual host is refused; otherwise it is taken for the name of the
    /// machine, and the client gets the virtual host of its listener.
    pub strict_host: bool,
    /// NACK without `requeue` gives a message back; otherwise it rejects it.
    pub nack_requeues: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { exchange: TOPIC_EXCHANGE.to_owned(), strict_host: false, nack_requeues: true }
    }
}

/// The protocol: recognises its clients and makes a session for each.
#[derive(Debug, Clone, Default)]
pub struct Stomp {
    shared: Arc<Shared>,
}

/// What all sessions share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    settings: Settings,
    counters: Counters,
    sessions: AtomicU64,
}

impl Stomp {
    /// The protocol with these settings.
    pub fn new(settings: Settings) -> Self {
        Self { shared: Arc::new(Shared { settings, ..Shared::default() }) }
    }
}

impl Shared {
    /// What is removed from messages that enter.
    pub(crate) fn entering(&self) -> &Pair {
        self.counters.conversions.pair(&STOMP, &PLAIN_FORMAT)
    }
}

impl Protocol for Stomp {
    fn name(&self) -> &'static str {
        "stomp"
    }

    fn recognise(&self, first: &[u8]) -> Recognised {
        let start = first.trim_ascii_start();
        let words: [&[u8]; 2] = [b"CONNECT", b"STOMP"];
        for word in words {
            match start.strip_prefix(word) {
                // CONNECT with a target behind it is a request of HTTP.
                Some([b'\n', ..] | [b'\r', b'\n', ..]) => return Recognised::Yes,
                Some([] | [b'\r']) => return Recognised::Unsure,
                Some(_) => {}
                None if word.starts_with(start) => return Recognised::Unsure,
                None => {}
            }
        }
        Recognised::No
    }

    fn formats(&self) -> Vec<&'static Format> {
        vec![&STOMP]
    }

    fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    fn destination(&self, address: &str, limits: &Limits) -> Option<Result<Destination, String>> {
        let route = Route::of_send(address, &self.shared.settings.exchange, limits);
        Some(match route {
            Ok(Route { exchange, key, is_queue }) => Ok(Destination {
                exchange,
                key,
                declares_queue: is_queue,
                ..Destination::default()
            }),
            Err(failure) => Err(failure.detail),
        })
    }

    fn session(
        &self,
        peer: &Arc<Peer>,
        limits: &Arc<Limits>,
        now: Now,
    ) -> Box<dyn ProtocolSession> {
        let count = self.shared.sessions.fetch_add(1, Ordering::Relaxed);
        let name = format!("{:x}{count:x}", now.unix_ms);
        let (shared, peer) = (Arc::clone(&self.shared), Arc::clone(peer));
        Box::new(session::Session::new(shared, peer, Arc::clone(limits), name, now))
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
