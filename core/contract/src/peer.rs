//! The other end of a connection.

use std::{net::SocketAddr, sync::Arc};

use polymq_model::VhostName;

/// How bytes arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A stream of bytes without boundaries: TCP, TLS, Unix socket.
    Stream,
    /// WebSocket messages; each frame of the protocol leaves as one message where the protocol asks
    /// for that.
    Messages,
}

/// The other end of a connection, as the driver knows it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address; `None` on a Unix socket.
    pub address: Option<SocketAddr>,
    /// Our address.
    pub local: Option<SocketAddr>,
    /// True when the peer's own address is a loopback one, or the connection is a Unix socket.
    pub is_loopback: bool,
    /// TLS facts, when the connection is encrypted.
    pub tls: Option<Arc<TlsPeer>>,
    /// How bytes arrive.
    pub transport: Transport,
    /// Name of the listener.
    pub listener: Arc<str>,
    /// Virtual host of clients that name none.
    pub vhost: VhostName,
}

/// What TLS told about the peer.
#[derive(Debug, Clone, Default)]
pub struct TlsPeer {
    /// Protocol version, as `TLSv1.3`.
    pub version: String,
    /// Cipher suite.
    pub cipher: String,
    /// The user that the verified client certificate maps to.
    pub certificate_user: Option<String>,
}
