//! What a protocol brings: a way to recognise its clients, and a state machine per connection.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use polymq_model::{Format, Limits, Message, Now, carry::Explained};

use crate::{
    broker::DisconnectCause, counters::Counters, effects::Effects, event::EventBatch,
    outbox::Outbox, peer::Peer,
};

/// What the first bytes of a connection say about its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recognised {
    /// It is this protocol.
    Yes,
    /// It is another one.
    No,
    /// More bytes are needed to tell.
    Unsure,
}

/// Where a message goes that a client publishes to an address of its protocol.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Destination {
    /// The exchange.
    pub exchange: String,
    /// The routing key in dot form.
    pub key: String,
    /// The key is a queue, which is declared when it is missing.
    pub declares_queue: bool,
    /// How long the message is held before it goes there.
    pub delay: Duration,
}

/// A protocol: made once, shared by all its connections.
pub trait Protocol: Send + Sync {
    /// Short name in configuration, metrics and logs: `amqp`, `mqtt`.
    fn name(&self) -> &'static str;
    /// Looks at the first bytes of a connection, for ports that serve several protocols.
    fn recognise(&self, first: &[u8]) -> Recognised;
    /// The native forms its messages come in.
    fn formats(&self) -> Vec<&'static Format>;
    /// What it counts of all its sessions.
    fn counters(&self) -> &Counters;
    /// What becomes of each field of a message over this protocol; `None` where the model can tell.
    fn explain(&self, message: &Message, unix_ms: u64) -> Option<Vec<Explained>> {
        let _ = (message, unix_ms);
        None
    }
    /// Where a publish to this address goes; `None` where messages name exchange and key.
    ///
    /// Errors: no client may publish there; the text says why.
    fn destination(&self, address: &str, limits: &Limits) -> Option<Result<Destination, String>> {
        let _ = (address, limits);
        None
    }
    /// A session for a new connection.
    fn session(&self, peer: &Arc<Peer>, limits: &Arc<Limits>, now: Now)
    -> Box<dyn ProtocolSession>;
}

/// When a session wants to be called again, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeout {
    /// When.
    pub at: Instant,
    /// For logs: `heartbeat`, `keep_alive`, `login`.
    pub reason: &'static str,
}

/// Protocol state of one client connection. Does no I/O and never reads the clock.
pub trait ProtocolSession: Send {
    /// Takes every whole frame from the front of `input`; leaves a partial frame in place.
    ///
    /// While `effects.waiting` is set after the call, the driver reads no further bytes and calls
    /// again, with what was left, after the next events.
    fn on_bytes(&mut self, input: &mut BytesMut, now: Now, effects: &mut Effects);
    /// Takes what the broker has to say, in order. May stop early when `effects.out` has grown
    /// beyond the output limit; it is called again when the output has drained.
    fn on_events(&mut self, events: &mut EventBatch, now: Now, effects: &mut Effects);
    /// The time of [`ProtocolSession::next_timeout`] has come.
    fn on_timeout(&mut self, now: Now, effects: &mut Effects);
    /// When to call `on_timeout` next, and why.
    fn next_timeout(&self) -> Option<Timeout>;
    /// The connection is gone or about to close: last commands only; output is no longer written.
    fn on_disconnect(&mut self, cause: DisconnectCause, effects: &mut Effects);
    /// Comes once, before everything else: where other sessions of the protocol reach this one,
    /// with [`crate::Event::Passed`]. Protocols whose clients do not talk to each other ignore it.
    fn on_open(&mut self, outbox: &Arc<Outbox>) {
        let _ = outbox;
    }
    /// The handshake that `effects.start_tls` asked for is done.
    fn on_secured(&mut self, peer: &Arc<Peer>) {
        let _ = peer;
    }
    /// The socket is gone. True when the session goes on without: events and the time still come,
    /// output is dropped, and it ends when it closes or takes another session's socket.
    fn on_socket_lost(&mut self, now: Now) -> bool {
        let _ = now;
        false
    }
    /// The socket of a session that asked for `effects.resume` belongs to this one now.
    fn on_socket_gained(&mut self, now: Now, effects: &mut Effects) {
        let _ = (now, effects);
    }
    /// There is no session with the key of `effects.resume`.
    fn on_resume_failed(&mut self, now: Now, effects: &mut Effects) {
        let _ = (now, effects);
    }
}
