//! The broker as the driver sees it.

use std::sync::Arc;

use polymq_model::{ConnectionId, Now};

use crate::{command::Command, outbox::Outbox, peer::Peer, refusal::Refusal};

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisconnectCause {
    /// The session closed it in the way its protocol foresees, or because of an error it has told
    /// the peer.
    Session,
    /// The peer closed the socket, or it broke.
    PeerGone,
    /// The peer did not log in, or did not take its output, in time.
    Timeout,
    /// The server stops.
    Shutdown,
    /// A session panicked; the bug is ours.
    Panic,
}

impl DisconnectCause {
    /// The word used in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::PeerGone => "peer_gone",
            Self::Timeout => "timeout",
            Self::Shutdown => "shutdown",
            Self::Panic => "panic",
        }
    }
}

/// The broker: accepts connections.
pub trait Broker: Send + Sync {
    /// Registers a connection of `protocol`. Its events arrive in `outbox`.
    ///
    /// Errors: a refusal of kind `Limit` when there are too many connections, or the broker stops.
    fn connect(
        &self,
        protocol: &'static str,
        peer: &Arc<Peer>,
        outbox: &Arc<Outbox>,
    ) -> Result<Box<dyn Connection>, Refusal>;
}

/// The broker's side of one connection.
pub trait Connection: Send {
    /// Its number, under which the broker's owner finds it.
    fn id(&self) -> ConnectionId;
    /// Executes the commands in order and empties the vector. Never blocks.
    fn execute(&mut self, commands: &mut Vec<Command>, now: Now);
    /// False while publishers of this connection must wait: too much is unconfirmed, or an alarm
    /// stands. Asked before each read; an event follows when it turns true again.
    fn may_read(&self) -> bool;
    /// The outbox has room again after a consumer was skipped for lack of it, or the outbox was
    /// nudged.
    fn on_room(&mut self, now: Now);
    /// The connection is encrypted from now on.
    fn secured(&mut self, peer: &Arc<Peer>);
    /// The connection is gone: unsettled deliveries return, exclusive queues go. Called once, after
    /// the session's last commands were executed.
    fn disconnect(&mut self, cause: DisconnectCause, now: Now);
}
