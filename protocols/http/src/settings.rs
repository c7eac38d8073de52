//! How the operator wants it.

use std::{sync::Arc, time::Duration};

use polymq_model::Limits;

use crate::websocket::WebSockets;

/// Fills a buffer with random bytes.
pub type Entropy = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// Settings of all HTTP listeners.
pub struct Settings {
    /// First part of every path, such as `/polymq`; empty for none.
    pub path_prefix: String,
    /// Origins of web pages of other hosts that may use the API, such as `https://app.example`;
    /// `*` stands for all.
    pub cors_origins: Vec<String>,
    /// Connections at a time, over all listeners.
    pub connections_max: usize,
    /// A session of a web page that is not used for so long is over.
    pub login_idle: Duration,
    /// Bounds on messages and logins.
    pub limits: Arc<Limits>,
    /// Fills a buffer with random bytes, for what must not be guessed.
    pub entropy: Entropy,
    /// What is spoken over WebSocket; `None` for nothing.
    pub web_sockets: Option<WebSockets>,
}
