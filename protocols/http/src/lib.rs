//! HTTP: health for whoever watches the process, metrics, and messages for clients that speak
//! nothing else.
//!
//! A request becomes commands of the broker, so its permissions and limits are those of every other
//! protocol. This crate routes and stores nothing, and knows no storage engine.
#![forbid(unsafe_code)]

mod api;
mod call;
mod client;
mod clock;
mod events;
mod exposition;
mod feed;
mod forecast;
mod front;
mod guest;
mod health;
mod host_meta;
mod identity;
mod json;
mod leases;
mod local;
mod metrics;
mod mistakes;
mod openapi;
mod operation;
mod origin;
mod pages;
mod problem;
mod protocols;
mod rabbitmq;
mod raw;
mod schema;
mod serve;
mod sessions;
mod settings;
mod socket;
#[doc(hidden)]
pub mod strangers;
#[cfg(test)]
mod tests;
mod times;
mod v1;
mod websocket;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use arc_swap::ArcSwap;
use polymq_broker::BrokerHandle;
use polymq_contract::{Conversions, Pair, Protocol};
use polymq_driver::DriverCounters;
use polymq_model::{Limits, Message, json_form::HTTP};

pub use local::LocalListener;
pub use operation::{
    ConfigChange, ConfigRefusal, ConfigValue, Configuration, Listeners, LiveLog, LogLine, Spans,
};
pub use serve::{Audience, Http, HttpListener};
pub use settings::{Entropy, Settings};
pub use websocket::{Greeting, WebSocketRoute, WebSockets};

/// Where the process stands between its start and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It recovers what was stored.
    Recovering,
    /// It serves.
    Serving,
    /// It was told to stop.
    Draining,
}

/// The phase, shared with who changes it.
#[derive(Debug, Default)]
pub struct SharedPhase(AtomicU8);

impl SharedPhase {
    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        let number = match phase {
            Phase::Recovering => 0,
            Phase::Serving => 1,
            Phase::Draining => 2,
        };
        self.0.store(number, Ordering::Release);
    }

    /// The phase.
    pub fn now(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Recovering,
            1 => Phase::Serving,
            _ => Phase::Draining,
        }
    }
}

/// What only the server knows, asked when somebody looks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// Why the store does not work.
    pub store_problem: Option<String>,
    /// There is no room for messages, which are refused; what makes room is still written.
    pub store_is_full: bool,
    /// Places at which stored messages were found damaged since the start.
    pub store_damaged_ranges: u64,
    /// Messages at them that nobody had acknowledged.
    pub store_damaged_messages: u64,
    /// Bytes read only to find damage.
    pub store_scrubbed_bytes: u64,
    /// How often everything was read for that.
    pub store_scrubs: u64,
    /// Percent of the recovery that is done.
    pub recovered_percent: u8,
    /// What the files of the store take on a disk of this machine.
    pub store_disk_bytes: Option<u64>,
    /// Messages that live in the store, and the bytes of their properties and bodies.
    pub store_live: Option<(u64, u64)>,
    /// Bytes that are open or on their way to the store.
    pub store_pending_bytes: u64,
    /// How long the store has not answered what it was given.
    pub store_unanswered_seconds: f64,
    /// Batches written.
    pub store_batches: u64,
    /// Records written.
    pub store_records: u64,
    /// Bytes of these batches.
    pub store_batch_bytes: u64,
    /// Batches by the time they took: upper bound in seconds, and how many took that or less
    /// than that and more than the bound before.
    pub store_sync_buckets: Vec<(f64, u64)>,
    /// The sum of those times in seconds.
    pub store_sync_seconds: f64,
    /// Files that the process has open.
    pub files_open: Option<u64>,
    /// Files that it may have open.
    pub files_max: Option<u64>,
    /// Memory of the process.
    pub memory_resident_bytes: Option<u64>,
    /// Above this publishers wait.
    pub memory_high_bytes: Option<u64>,
    /// Free space on the data directory's disk.
    pub disk_free_bytes: Option<u64>,
    /// Below this publishers wait.
    pub disk_low_bytes: u64,
    /// Once it was below that, publishers wait until so much is free.
    pub disk_resume_bytes: u64,
    /// Which of these marks are reached, by resource.
    pub marks_reached: Vec<(&'static str, bool)>,
    /// Lines for the log that were dropped, because nobody took them.
    pub log_lines_dropped: u64,
    /// Seconds since the process started.
    pub uptime_secs: f64,
}

/// An open port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenPort {
    /// The word of its protocol in the configuration.
    pub protocol: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its name in the configuration.
    pub name: String,
    /// It speaks TLS from the first byte.
    pub has_tls: bool,
    /// The certificate of clients that speak TLS, from the first byte or later.
    pub certificate: Option<Certificate>,
}

/// A certificate of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Its name in the configuration.
    pub name: String,
    /// When it ends, in seconds since 1970.
    pub expires_unix_secs: u64,
    /// How long before that somebody should know.
    pub warning_secs: u64,
}

/// What the pages show.
pub struct Watched {
    /// The name of the server.
    pub name: String,
    /// The broker.
    pub broker: BrokerHandle,
    /// The protocols that clients speak.
    pub protocols: Vec<Arc<dyn Protocol>>,
    /// The counters of the driver.
    pub driver: Arc<DriverCounters>,
    /// Where the process stands.
    pub phase: Arc<SharedPhase>,
    /// The ports.
    pub listeners: Arc<dyn Listeners>,
    /// Begins the end of the process, as a signal does.
    pub drain: Box<dyn Fn() + Send + Sync>,
    /// What the server is configured with.
    pub configuration: Arc<dyn Configuration>,
    /// The last lines of its log.
    pub log: Arc<dyn LiveLog>,
    /// Who makes spans of messages, if anybody does.
    pub spans: Option<Arc<dyn Spans>>,
    /// The rest.
    pub facts: Box<dyn Fn() -> Facts + Send + Sync>,
}

/// What all connections share.
pub(crate) struct Site {
    watched: Arc<Watched>,
    settings: ArcSwap<Settings>,
    traffic: serve::Traffic,
    request_ids: front::RequestIds,
    leases: Arc<leases::Leases>,
    readers: v1::Readers,
    replays: Arc<v1::Replays>,
    times: times::RequestTimes,
    forecast: forecast::Forecast,
    limits: ArcSwap<Limits>,
    sessions: sessions::Sessions,
    /// Messages that were shown as JSON or headers, and came in another form.
    conversions: Conversions,
    /// The numbers of the process when somebody asked for them.
    node_history: rabbitmq::NodeHistory,
    forgotten_logins: rabbitmq::ForgottenLogins,
}

impl Site {
    fn new(watched: Arc<Watched>, settings: Settings) -> Self {
        let mut start = [0; 8];
        (settings.entropy)(&mut start);
        Self {
            watched,
            traffic: serve::Traffic::new(settings.connections_max, &settings.limits),
            request_ids: front::RequestIds::new(u64::from_le_bytes(start)),
            leases: Arc::new(leases::Leases::new(&settings.entropy)),
            readers: v1::Readers::default(),
            replays: Arc::default(),
            times: times::RequestTimes::default(),
            forecast: forecast::Forecast::default(),
            limits: ArcSwap::new(Arc::clone(&settings.limits)),
            sessions: sessions::Sessions::default(),
            conversions: Conversions::default(),
            node_history: rabbitmq::NodeHistory::default(),
            forgotten_logins: rabbitmq::ForgottenLogins::default(),
            settings: ArcSwap::from_pointee(settings),
        }
    }

    /// The name of the cluster that an administrator has given, or that of the server.
    pub(crate) fn cluster_name(&self) -> String {
        let kept = self.watched.broker.global_parameter("cluster_name");
        let kept = kept.and_then(|value| value.as_str().map(str::to_owned));
        kept.unwrap_or_else(|| self.watched.name.clone())
    }

    /// How the operator wants it now.
    pub(crate) fn settings(&self) -> arc_swap::Guard<Arc<Settings>> {
        self.settings.load()
    }

    /// The limits of what comes now.
    pub(crate) fn limits(&self) -> Arc<Limits> {
        self.limits.load_full()
    }

    /// Counts a message that a client of HTTP is given.
    fn note_shown(&self, message: &Message) {
        if message.format().id != HTTP.id {
            self.conversion_of(message).messages.add(1);
        }
    }

    /// Where it counts what becomes of a message that a client of HTTP is given.
    fn conversion_of(&self, message: &Message) -> &Pair {
        self.conversions.pair(message.format(), &HTTP)
    }
}
