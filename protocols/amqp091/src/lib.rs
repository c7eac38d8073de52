//! AMQP 0-9-1 as RabbitMQ speaks it: frames, methods and tables, and the session of one connection.
//!
//! This crate opens no socket, reads no clock and stores nothing. It does not route, does not
//! decide who may do what, and does not know whether a queue exists: it turns bytes into commands
//! and events into bytes. AMQP 1.0 is another protocol and lives elsewhere.
#![forbid(unsafe_code)]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use polymq_contract::{Counters, Offer, Peer, Protocol, ProtocolSession, Recognised};
use polymq_model::{Format, Limits, Now, format};

mod channel;
pub mod codec;
mod connection;
mod convert;
mod events;
mod handshake;
mod heartbeat;
mod refusal;
mod session;

#[cfg(test)]
mod tests;

pub use refusal::ReplyCode;

/// The native form of messages published over this protocol.
pub static AMQP091: Format =
    Format { id: format::AMQP091, name: "amqp091", decode: convert::decode };

/// What the server tells its clients about itself.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Version in the server properties. Clients switch features on by it, so it is that of the
    /// RabbitMQ whose behaviour is offered.
    pub version: String,
    /// Name of the cluster in the server properties.
    pub cluster_name: String,
    /// Ways to log in: passwords as PLAIN and AMQPLAIN, client certificates as EXTERNAL.
    pub offer: Offer,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            version: "4.1.0".to_owned(),
            cluster_name: "polymq".to_owned(),
            offer: Offer::default(),
        }
    }
}

/// The protocol.
#[derive(Debug, Default)]
pub struct Amqp091 {
    shared: Arc<Shared>,
    sessions: AtomicU64,
}

/// What all sessions share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) counters: Counters,
}

impl Amqp091 {
    /// The protocol with these settings.
    pub fn new(settings: Settings) -> Self {
        let counters = Counters::default();
        Self { shared: Arc::new(Shared { settings, counters }), sessions: AtomicU64::new(0) }
    }
}

impl Protocol for Amqp091 {
    fn name(&self) -> &'static str {
        "amqp"
    }

    fn recognise(&self, first: &[u8]) -> Recognised {
        let header = handshake::PROTOCOL_HEADER;
        let seen = first.get(..header.len()).unwrap_or(first);
        if seen.len() < header.len() {
            let known = b"AMQP".starts_with(seen) || seen.starts_with(b"AMQP");
            return if known { Recognised::Unsure } else { Recognised::No };
        }
        match seen {
            // AMQP 1.0, plain, with TLS, and with SASL.
            [b'A', b'M', b'Q', b'P', 0 | 2 | 3, 1, 0, 0] => Recognised::No,
            // Any other version is ours to answer, with the version we speak.
            [b'A', b'M', b'Q', b'P', ..] => Recognised::Yes,
            _ => Recognised::No,
        }
    }

    fn formats(&self) -> Vec<&'static Format> {
        vec![&AMQP091]
    }

    fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    fn session(
        &self,
        peer: &Arc<Peer>,
        limits: &Arc<Limits>,
        now: Now,
    ) -> Box<dyn ProtocolSession> {
        let count = self.sessions.fetch_add(1, Ordering::Relaxed);
        let name = format!("{:x}{count:x}", now.unix_ms);
        Box::new(session::Session::new(peer, limits, &self.shared, name, now))
    }
}
