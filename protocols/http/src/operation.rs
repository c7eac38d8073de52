//! What the server knows about itself and does when it is asked to: its configuration and its log.

use std::sync::Arc;

use polymq_contract::Peer;
use polymq_model::Message;
use serde_json::{Map, Value};

use crate::OpenPort;

/// A value of the configuration that holds. A secret is masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigValue {
    /// Its key, such as `limits.connections`.
    pub key: String,
    /// As it would stand in a file.
    pub value: String,
    /// `default`, `polymq.toml:12`, `env NAME` or `flag --set ...`.
    pub origin: String,
    /// True when a reload applies another value, false when that waits for a restart.
    pub is_reloadable: bool,
    /// The value that waits for a restart, and where it stands.
    pub waiting: Option<(String, String)>,
}

/// A key of which the sources say something else than what holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    /// Its key.
    pub key: String,
    /// What holds, or held; empty when there was none.
    pub from: String,
    /// What the sources say; empty when they say nothing any more.
    pub to: String,
    /// Where that stands.
    pub origin: String,
    /// True when a reload applies it, false when it waits for a restart.
    pub is_applied: bool,
}

/// The configuration of the server. Every call but the first reads files, so it may block.
pub trait Configuration: Send + Sync {
    /// False when the last reload was refused, by whoever had asked for it.
    fn is_reload_ok(&self) -> bool {
        true
    }

    /// What holds, by key.
    fn effective(&self) -> Vec<ConfigValue>;

    /// What a reload would change.
    ///
    /// Errors: every mistake, without the lines of the files, in which there may be secrets.
    fn check(&self) -> Result<Vec<ConfigChange>, Vec<String>>;

    /// Reads everything again and applies what can be applied.
    ///
    /// Errors: those of [`check`](Self::check); then nothing has changed.
    fn reload(&self) -> Result<Vec<ConfigChange>, Vec<String>>;

    /// Writes other values of keys that a reload applies into the file they come from, and reloads;
    /// a key without a value is taken out of the file. `is_dry` only tells what that would change.
    ///
    /// Errors: the values are wrong, or cannot be written; then nothing has changed.
    fn change(
        &self,
        values: &[(String, Option<Value>)],
        is_dry: bool,
    ) -> Result<Vec<ConfigChange>, ConfigRefusal>;
}

/// Why values of the configuration stay what they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigRefusal {
    /// Every mistake, without the lines of the files.
    Invalid(Vec<String>),
    /// They cannot be written from here.
    ReadOnly {
        /// Why.
        why: String,
        /// The lines that say the same, for whoever changes the file.
        lines: Vec<String>,
    },
}

/// The ports that the server listens on.
pub trait Listeners: Send + Sync {
    /// Those that are open.
    fn open(&self) -> Vec<OpenPort>;

    /// Those that somebody has stopped.
    fn stopped(&self) -> Vec<OpenPort>;

    /// Closes the ports of a listener until somebody opens them again, or the server starts again;
    /// connections go on. Called within the runtime; may wait until a port is free. True when that
    /// changes something.
    ///
    /// Errors: why not.
    fn run(&self, name: &str, is_running: bool) -> Result<bool, String>;
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct LogLine {
    /// Its number since the start, from 1.
    pub number: u64,
    /// When it was written, in ms since 1970.
    pub at_ms: u64,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: &'static str,
    /// The part of the broker that wrote it, such as `polymq_broker::queue`.
    pub target: String,
    /// What has happened, such as `job_started`; empty when it has no name.
    pub event: String,
    /// Everything else.
    pub fields: Map<String, Value>,
}

/// Makes spans of what happens to messages, for whoever follows them over several programs.
pub trait Spans: Send + Sync {
    /// Of a message that a client of HTTP publishes; the message as it goes on when it has a span.
    fn published(&self, peer: &Peer, message: &Message) -> Option<Message>;

    /// Of a message that a client of HTTP is given; the message as it is shown.
    fn delivered(&self, peer: &Peer, message: &Message, redelivered: bool) -> Option<Message>;
}

/// The last lines of the log.
pub trait LiveLog: Send + Sync {
    /// Those after a number, oldest first, as far as they are kept.
    fn after(&self, number: u64) -> Vec<Arc<LogLine>>;
}
