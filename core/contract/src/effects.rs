//! The single collector of what a session wants done.

use crate::{command::Command, output::Output};

/// How a session wants its connection to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// For the log and the metrics: a short stable word, as `protocol_error`, `client`,
    /// `keep_alive`, `taken_over`.
    pub cause: &'static str,
    /// For the log: what exactly; never holds a secret.
    pub detail: String,
}

/// What a session fills and the driver empties.
#[derive(Debug, Default)]
pub struct Effects {
    /// Frames for the peer.
    pub out: Output,
    /// Orders to the broker, executed after the call returns and before output is written.
    pub commands: Vec<Command>,
    /// Set to end the connection after the output has been written. The first cause wins.
    pub close: Option<Close>,
    /// Bytes that are not consumed wait until the next event; then `on_bytes` is called again, with
    /// no new bytes needed. A session sets this while an answer of the broker is due, or its peer
    /// must wait.
    pub waiting: bool,
    /// Set once the login is complete; the driver then lifts the limits of strangers.
    pub logged_in: bool,
    /// Set to encrypt the connection once the output has been written. Bytes that are left in the
    /// input then were sent before the handshake and end the connection. `on_secured` follows.
    pub start_tls: bool,
    /// Set once: the session may outlive its socket, and goes on with that of another session of
    /// its protocol which asks for this key. Nobody may be able to guess it.
    pub resumable: Option<Box<str>>,
    /// Set to hand the socket to the session with this key and end this one. `on_resume_failed`
    /// follows when there is none any more.
    pub resume: Option<Box<str>>,
}

impl Effects {
    /// Ends the connection after the output has been written.
    pub fn close_after_flush(&mut self, cause: &'static str, detail: impl Into<String>) {
        if self.close.is_none() {
            self.close = Some(Close { cause, detail: detail.into() });
        }
    }
}
