//! XMPP on the server's side: streams of clients, and streams to servers that this broker joins as
//! a component. Bytes in, commands to the broker out, and back.
//!
//! This crate does no I/O, reads no clock, routes nothing and stores nothing. Queues, topics,
//! mailboxes and permissions belong to the broker; sockets and TLS to the driver. What clients tell
//! each other beside messages (presence, rooms, carbons) goes from session to session through
//! [`directory`]. There is no server-to-server federation.
#![forbid(unsafe_code)]

mod directory;
pub mod error;
pub mod jid;
mod message;
mod services;
mod session;
mod sha1;
#[cfg(test)]
mod tests;
pub mod xml;

use std::{fmt, sync::Arc, time::Duration};

use polymq_contract::{
    Counters, Destination, Offer, Pair, Peer, Protocol, ProtocolSession, Recognised,
};
use polymq_model::{
    Format, Limits, Message, Now,
    address::{TOPIC_EXCHANGE, mailbox_key},
    carry::Explained,
    format::PLAIN_FORMAT,
};

pub use message::XMPP;
pub use session::Session;

use directory::Directory;
use jid::{Domains, Jid, Place, Service, room_key};

/// Fills a buffer with random bytes.
pub type Entropy = Box<dyn Fn(&mut [u8]) + Send + Sync>;

/// What the operator decides about XMPP.
pub struct Settings {
    /// The domain of users.
    pub domain: String,
    /// Largest stanza.
    pub stanza_bytes_max: usize,
    /// How long a stream outlives its connection; zero for not at all.
    pub resume_timeout: Duration,
    /// Silence after which a client is asked whether it is there; zero for never.
    pub ping_after: Duration,
    /// SASL mechanisms that are offered.
    pub offer: Offer,
    /// For names that must not be guessed.
    pub entropy: Entropy,
}

/// A server that this broker joins as a component (XEP-0114).
#[derive(Clone)]
pub struct ComponentSettings {
    /// The domain that the server gives us.
    pub domain: String,
    /// What both sides know.
    pub secret: polymq_contract::Secret,
}

/// The protocol: recognises its clients and makes a session for each.
#[derive(Clone)]
pub struct Xmpp {
    shared: Arc<Shared>,
    component: Option<Arc<ComponentSettings>>,
}

/// What all sessions share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) domains: Domains,
    pub(crate) counters: Arc<Counters>,
    pub(crate) directory: Directory,
}

impl Xmpp {
    /// XMPP for clients.
    pub fn new(settings: Settings) -> Self {
        let domains = Domains::Server(settings.domain.to_lowercase());
        Self { shared: Arc::new(Shared::new(settings, domains)), component: None }
    }

    /// XMPP for the stream to a server that we join as a component.
    pub fn component(settings: Settings, component: ComponentSettings) -> Self {
        let domains = Domains::Component(component.domain.to_lowercase());
        let shared = Arc::new(Shared::new(settings, domains));
        Self { shared, component: Some(Arc::new(component)) }
    }
}

impl Shared {
    fn new(settings: Settings, domains: Domains) -> Self {
        let counters = Arc::<Counters>::default();
        let directory = Directory::new(&counters);
        Self { settings, domains, counters, directory }
    }

    /// What is removed from messages that enter.
    pub(crate) fn entering(&self) -> &Pair {
        self.counters.conversions.pair(&XMPP, &PLAIN_FORMAT)
    }

    /// A name that nobody can guess.
    pub(crate) fn random_name(&self) -> String {
        use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
        let mut bytes = [0; 15];
        (self.settings.entropy)(&mut bytes);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }
}

impl Protocol for Xmpp {
    fn name(&self) -> &'static str {
        "xmpp"
    }

    fn recognise(&self, first: &[u8]) -> Recognised {
        let white = first.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let start = first.get(white..).unwrap_or_default();
        let heads: [&[u8]; 2] = [b"<?xml", b"<stream:stream"];
        if heads.iter().any(|head| start.starts_with(head)) {
            Recognised::Yes
        } else if heads.iter().any(|head| head.starts_with(start)) {
            Recognised::Unsure
        } else {
            Recognised::No
        }
    }

    fn formats(&self) -> Vec<&'static Format> {
        vec![&XMPP]
    }

    fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    fn destination(&self, address: &str, _: &Limits) -> Option<Result<Destination, String>> {
        let to = |exchange: &str, key: String| {
            let exchange = exchange.to_owned();
            Ok(Destination { exchange, key, ..Destination::default() })
        };
        let domains = &self.shared.domains;
        let Some(jid) = Jid::parse(address) else {
            return Some(Err(format!("`{address}` is no address of XMPP")));
        };
        Some(match domains.place(&jid) {
            Place::User if self.component.is_none() => to("", mailbox_key(&jid.to_string())),
            Place::Named(Service::Queues, queue) => to("", queue),
            Place::Named(Service::Topics, key) => to(TOPIC_EXCHANGE, key),
            Place::Named(Service::Rooms, room) if jid.is_bare() => {
                to(TOPIC_EXCHANGE, room_key(&room))
            }
            Place::Elsewhere => Err(format!("`{address}` is of another server")),
            Place::Server | Place::Service(_) | Place::Named(Service::Rooms, _) | Place::User => {
                Err(format!("messages to `{address}` go into no queue"))
            }
        })
    }

    fn explain(&self, message: &Message, unix_ms: u64) -> Option<Vec<Explained>> {
        Some(message::explain(message, unix_ms, &self.shared.domains))
    }

    fn session(
        &self,
        peer: &Arc<Peer>,
        limits: &Arc<Limits>,
        now: Now,
    ) -> Box<dyn ProtocolSession> {
        let shared = Arc::clone(&self.shared);
        let session = Session::new(shared, self.component.clone(), peer, limits, now);
        Box::new(session)
    }
}

impl fmt::Debug for Xmpp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Xmpp").field("domains", &self.shared.domains).finish_non_exhaustive()
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
