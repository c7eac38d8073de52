//! What a client shows to log in.

use std::fmt;

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
    /// User name and password (SASL PLAIN, AMQPLAIN, MQTT CONNECT).
    Password {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// No credentials.
    Anonymous,
    /// The client certificate of the TLS connection (SASL EXTERNAL); `identity` is the
    /// authorisation identity asked for, which must be empty or the certificate's user.
    Certificate {
        /// Authorisation identity, mostly empty.
        identity: String,
    },
    /// First message of SCRAM-SHA-256 (RFC 7677).
    ScramFirst {
        /// The client-first-message.
        message: Secret,
    },
    /// Final message of SCRAM-SHA-256.
    ScramFinal {
        /// The client-final-message.
        message: Secret,
    },
}
