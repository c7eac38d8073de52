//! The other end of a connection.

use std::{any::Any, fmt, net::SocketAddr, sync::Arc};

use polymq_model::{UserName, VhostName};

/// How bytes arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A stream of bytes without boundaries: TCP, TLS, Unix socket, and WebSocket where the
    /// protocol does not care for messages.
    Stream,
    /// WebSocket messages with their boundaries, see [`crate::web_message`].
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
    /// The connection may be encrypted later, when the session asks for it.
    pub offers_tls: bool,
    /// Who it is before it has said anything.
    pub account: Option<Account>,
    /// How bytes arrive.
    pub transport: Transport,
    /// Name of the listener.
    pub listener: Arc<str>,
    /// Virtual host of clients that name none.
    pub vhost: VhostName,
}

impl Peer {
    /// True for somebody who has logged in before, as a web page has by its session: SASL EXTERNAL
    /// stands for that login where no client certificate names a user.
    pub fn is_known(&self) -> bool {
        matches!(self.account, Some(Account::Known(_)))
    }
}

/// Who a connection is before it has said anything.
#[derive(Debug, Clone)]
pub enum Account {
    /// The user that the configuration gives a connection which we have opened ourselves.
    Configured(UserName),
    /// Somebody who has logged in before this connection became one of this protocol: it is this
    /// user if it shows no credentials.
    Known(KnownUser),
    /// Somebody for whom the kernel of this machine stands: root, or the user that the server runs
    /// as. It is the first administrator.
    Local,
}

impl Account {
    /// The user of the configuration.
    pub fn configured(&self) -> Option<&UserName> {
        match self {
            Self::Configured(user) => Some(user),
            Self::Known(_) | Self::Local => None,
        }
    }
}

/// Somebody who has logged in, as the broker knows it; opaque to everybody else.
#[derive(Clone)]
pub struct KnownUser(Arc<dyn Any + Send + Sync>);

impl KnownUser {
    /// Whatever the broker knows of a user.
    pub fn new(who: impl Any + Send + Sync) -> Self {
        Self(Arc::new(who))
    }

    /// The same, for the broker.
    pub fn known_as<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl fmt::Debug for KnownUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KnownUser")
    }
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
    /// When the first certificate of those that the client has shown ends, in ms since 1970.
    pub certificate_until_ms: Option<u64>,
    /// What ties a login to this connection and to no other.
    pub bindings: ChannelBindings,
}

/// What SCRAM with channel binding compares on both sides of a TLS connection (RFC 5056).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChannelBindings {
    /// `tls-exporter` of RFC 9266; `None` when TLS gives none that is safe.
    pub exporter: Option<[u8; 32]>,
    /// `tls-server-end-point` of RFC 5929: the hash of our certificate; empty when it has none.
    pub server_end_point: Vec<u8>,
}
