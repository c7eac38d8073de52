//! How a connection ends.

use polymq_contract::{Close, DisconnectCause};

/// Why the driver lets a connection go; finer than what the broker needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The session asked for it.
    Session(Close),
    /// End of stream, or an error of the socket.
    PeerGone,
    /// The broker wants it gone at once.
    Evicted,
    /// No login in time.
    LoginTimeout,
    /// Too many bytes before the login.
    LoginBytes,
    /// The TLS handshake failed.
    Handshake,
    /// No protocol of the port knows the first bytes.
    Unrecognised,
    /// The broker took no further connection.
    Refused,
    /// The socket belongs to another session of the same client.
    HandedOver,
    /// The peer has broken the rules of its transport.
    Fault,
    /// The server stops.
    Shutdown,
    /// A session, or the broker on its behalf, panicked.
    Panic,
}

impl Ending {
    /// The words of metrics and logs, by index.
    pub(crate) const WORDS: [&'static str; 12] = [
        "session",
        "peer_gone",
        "login_timeout",
        "login_bytes",
        "handshake",
        "unrecognised",
        "refused",
        "shutdown",
        "panic",
        "evicted",
        "handed_over",
        "transport_fault",
    ];

    pub(crate) fn index(&self) -> usize {
        match self {
            Self::Session(_) => 0,
            Self::PeerGone => 1,
            Self::LoginTimeout => 2,
            Self::LoginBytes => 3,
            Self::Handshake => 4,
            Self::Unrecognised => 5,
            Self::Refused => 6,
            Self::Shutdown => 7,
            Self::Panic => 8,
            Self::Evicted => 9,
            Self::HandedOver => 10,
            Self::Fault => 11,
        }
    }

    pub(crate) fn word(&self) -> &'static str {
        Self::WORDS.get(self.index()).copied().unwrap_or_default()
    }

    /// What the session and the broker are told.
    pub(crate) fn cause(&self) -> DisconnectCause {
        match self {
            Self::Session(_)
            | Self::LoginBytes
            | Self::Unrecognised
            | Self::Refused
            | Self::HandedOver => DisconnectCause::Session,
            Self::PeerGone | Self::Evicted | Self::Handshake | Self::Fault => {
                DisconnectCause::PeerGone
            }
            Self::LoginTimeout => DisconnectCause::Timeout,
            Self::Shutdown => DisconnectCause::Shutdown,
            Self::Panic => DisconnectCause::Panic,
        }
    }
}
