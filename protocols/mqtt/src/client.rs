//! What CONNECT said about the client, and what the server granted.

use crate::codec::Version;

/// More than the bytes of an acknowledgement around the text in it.
const ACK_HEAD_BYTES: usize = 16;

/// A client as far as packets after CONNECT depend on it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) version: Version,
    /// Its client identifier.
    pub(crate) id: String,
    /// The user it logged in as.
    pub(crate) user: String,
    /// It may send messages in the name of others.
    pub(crate) impersonator: bool,
    /// Largest packet it takes.
    pub(crate) packet_bytes_max: usize,
    /// It wants reason strings.
    pub(crate) wants_problems: bool,
    /// The method of its enhanced authentication.
    pub(crate) auth_method: Option<String>,
    /// Seconds that its session outlives the connection.
    pub(crate) session_expiry_secs: u32,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            version: Version::V311,
            id: String::new(),
            user: String::new(),
            impersonator: false,
            packet_bytes_max: usize::MAX,
            wants_problems: true,
            auth_method: None,
            session_expiry_secs: 0,
        }
    }
}

impl Client {
    /// True when the client speaks MQTT 5.
    pub(crate) fn is_v5(&self) -> bool {
        self.version == Version::V5
    }

    /// The text, when the client wants such texts and its packet limit leaves room for it
    /// [MQTT-3.4.2-2].
    pub(crate) fn problem<'a>(&self, text: &'a str) -> Option<&'a str> {
        let fits = text.len().saturating_add(ACK_HEAD_BYTES) <= self.packet_bytes_max;
        (self.is_v5() && self.wants_problems && !text.is_empty() && fits).then_some(text)
    }

    /// True when an acknowledgement may carry a user property of so many bytes [MQTT-3.1.2-29],
    /// [MQTT-3.4.2-3].
    pub(crate) fn takes_ack_property(&self, bytes: usize) -> bool {
        let fits = bytes.saturating_add(ACK_HEAD_BYTES) <= self.packet_bytes_max;
        self.is_v5() && self.wants_problems && fits
    }
}
