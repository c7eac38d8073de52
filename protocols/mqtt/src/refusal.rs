//! The one table from refusals of the broker to the codes of MQTT.

use polymq_contract::RefusalKind;

use crate::codec::{Reason, Version};

/// How MQTT 3 treats a publish that was refused; it has no code to say so [MQTT-3.3.5-2].
///
/// MQTT 3.1 leaves no choice for a publish that is not permitted: section 3.3 demands that it is
/// acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Publish3 {
    /// It is acknowledged and counted.
    Acknowledge,
    /// The connection closes.
    Close,
    /// No acknowledgement, reading stops, and the connection closes later, so that the client sends
    /// again.
    Stall,
}

/// The codes of one kind of refusal, by packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Codes {
    /// CONNACK of MQTT 5.
    pub(crate) connack: Reason,
    /// CONNACK of MQTT 3.
    pub(crate) connack_3: u8,
    /// PUBACK and PUBREC of MQTT 5. Codes these packets do not know end the connection.
    pub(crate) publish: Reason,
    /// Publishes of MQTT 3.
    publish_3: Publish3,
    /// SUBACK of MQTT 5; MQTT 3.1.1 has 0x80 and MQTT 3.1 closes.
    pub(crate) suback: Reason,
    /// UNSUBACK of MQTT 5.
    pub(crate) unsuback: Reason,
    /// DISCONNECT of MQTT 5.
    pub(crate) disconnect: Reason,
}

impl Codes {
    /// How a publish of `version`, which is one of MQTT 3, is treated.
    pub(crate) fn publish_3(&self, version: Version) -> Publish3 {
        match (version, self.publish) {
            (Version::V31, Reason::NOT_AUTHORIZED) => Publish3::Acknowledge,
            _ => self.publish_3,
        }
    }
}

/// Looks a kind of refusal up.
pub(crate) fn codes(kind: RefusalKind) -> Codes {
    use Publish3::{Acknowledge, Close, Stall};
    let row = |connack, connack_3, publish, publish_3, suback, unsuback, disconnect| Codes {
        connack: Reason(connack),
        connack_3,
        publish: Reason(publish),
        publish_3,
        suback: Reason(suback),
        unsuback: Reason(unsuback),
        disconnect: Reason(disconnect),
    };
    match kind {
        RefusalKind::NotFound => row(0x87, 5, 0x10, Acknowledge, 0x8F, 0x11, 0x80),
        RefusalKind::Denied => row(0x87, 5, 0x87, Close, 0x87, 0x87, 0x87),
        RefusalKind::Conflict => row(0x83, 3, 0x83, Close, 0x83, 0x83, 0x83),
        RefusalKind::Invalid => row(0x83, 3, 0x83, Close, 0x83, 0x83, 0x83),
        RefusalKind::Locked => row(0x87, 5, 0x87, Close, 0x87, 0x87, 0x87),
        RefusalKind::Limit => row(0x97, 3, 0x97, Stall, 0x97, 0x80, 0x97),
        RefusalKind::Full => row(0x97, 3, 0x97, Stall, 0x97, 0x80, 0x97),
        RefusalKind::TooLarge => row(0x95, 3, 0x95, Close, 0x80, 0x80, 0x95),
        RefusalKind::NotAvailable => row(0x83, 3, 0x83, Close, 0x83, 0x83, 0x83),
        RefusalKind::StoreFailed => row(0x88, 3, 0x80, Close, 0x80, 0x80, 0x80),
        RefusalKind::LoginFailed => row(0x86, 4, 0x87, Close, 0x87, 0x87, 0x87),
        // Try later: version 3 has no other word for it.
        RefusalKind::TooManyLogins => row(0x9F, 3, 0x87, Close, 0x87, 0x87, 0x87),
        RefusalKind::Banned => row(0x8A, 5, 0x87, Close, 0x87, 0x87, 0x87),
        RefusalKind::Reserved => row(0x87, 5, 0x87, Close, 0x87, 0x87, 0x87),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // MQTT 5, section 3.2.2.2.
    fn whoever_is_banned_is_told_so() {
        assert_eq!(codes(RefusalKind::Banned).connack, Reason(0x8A));
        assert_eq!(codes(RefusalKind::Banned).connack_3, 5);
    }
}
