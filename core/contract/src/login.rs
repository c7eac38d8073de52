//! What a client shows to log in.

use std::fmt;

use crate::peer::Peer;

/// Bytes that are never printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Wraps the bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes, for the one place that checks them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// One step of a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// User name and password (SASL PLAIN, AMQPLAIN, MQTT CONNECT). In place of the password an API
    /// token or a signed token of an identity provider may stand, which names the user itself; the
    /// name beside it may then be empty.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// No credentials.
    Anonymous,
    /// The client certificate of the TLS connection, or else the login of before this connection
    /// (SASL EXTERNAL, see [`crate::Peer::is_known`]); `identity` is the authorisation identity
    /// asked for, which must be empty or that user.
    Certificate {
        /// Authorisation identity, mostly empty.
        identity: String,
    },
    /// Whoever this connection is before it has said anything, see [`crate::Peer::account`].
    Configured,
    /// First message of SCRAM (RFC 5802 and RFC 7677).
    ScramFirst {
        /// The mechanism.
        scram: Scram,
        /// The client-first-message.
        message: Secret,
    },
    /// Final message of SCRAM.
    ScramFinal {
        /// The client-final-message.
        message: Secret,
    },
}

/// Over which connections without TLS a password is taken as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordsInClear {
    /// Over all of them.
    Anywhere,
    /// Over those from this machine.
    Loopback,
    /// Over none.
    Nowhere,
}

impl PasswordsInClear {
    /// True when this peer may show its password.
    pub fn allow(self, peer: &Peer) -> bool {
        peer.tls.is_some()
            || match self {
                Self::Anywhere => true,
                Self::Loopback => peer.is_loopback,
                Self::Nowhere => false,
            }
    }
}

/// A mechanism of the SCRAM family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scram {
    /// The hash.
    pub hash: ScramHash,
    /// The mechanism's name ends in `-PLUS`: the login is tied to its TLS connection.
    pub is_bound: bool,
    /// The client was offered a mechanism with channel binding, so that one which says that it was
    /// not has been deceived (RFC 5802, section 6).
    pub offers_bound: bool,
}

impl Scram {
    /// SCRAM-SHA-256 without channel binding.
    pub const SHA256: Self = Self { hash: ScramHash::Sha256, is_bound: false, offers_bound: false };
}

/// The hash of a SCRAM mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScramHash {
    /// RFC 5802.
    Sha1,
    /// RFC 7677.
    Sha256,
}
