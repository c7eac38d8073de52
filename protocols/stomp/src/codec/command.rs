//! The commands of clients.

/// What a frame of a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// `CONNECT`, and `STOMP`, which is the same.
    Connect,
    /// `SEND`
    Send,
    /// `SUBSCRIBE`
    Subscribe,
    /// `UNSUBSCRIBE`
    Unsubscribe,
    /// `ACK`
    Ack,
    /// `NACK`
    Nack,
    /// `BEGIN`
    Begin,
    /// `COMMIT`
    Commit,
    /// `ABORT`
    Abort,
    /// `DISCONNECT`
    Disconnect,
}

impl Command {
    /// The longest word.
    pub(crate) const BYTES_MAX: usize = 11;

    /// Reads the first line of a frame.
    pub fn parse(word: &[u8]) -> Option<Self> {
        Some(match word {
            b"SEND" => Self::Send,
            b"ACK" => Self::Ack,
            b"NACK" => Self::Nack,
            b"SUBSCRIBE" => Self::Subscribe,
            b"UNSUBSCRIBE" => Self::Unsubscribe,
            b"BEGIN" => Self::Begin,
            b"COMMIT" => Self::Commit,
            b"ABORT" => Self::Abort,
            b"CONNECT" | b"STOMP" => Self::Connect,
            b"DISCONNECT" => Self::Disconnect,
            _ => return None,
        })
    }

    /// The word of the specification.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Send => "SEND",
            Self::Subscribe => "SUBSCRIBE",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Ack => "ACK",
            Self::Nack => "NACK",
            Self::Begin => "BEGIN",
            Self::Commit => "COMMIT",
            Self::Abort => "ABORT",
            Self::Disconnect => "DISCONNECT",
        }
    }
}
