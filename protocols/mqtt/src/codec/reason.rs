//! Reason codes of MQTT 5, section 2.4.

/// One reason code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reason(pub u8);

impl Reason {
    /// Success, normal disconnection, granted QoS 0.
    pub const SUCCESS: Self = Self(0x00);
    /// DISCONNECT that asks for the will.
    pub const DISCONNECT_WITH_WILL: Self = Self(0x04);
    /// Nobody took the message.
    pub const NO_MATCHING_SUBSCRIBERS: Self = Self(0x10);
    /// UNSUBSCRIBE found nothing.
    pub const NO_SUBSCRIPTION_EXISTED: Self = Self(0x11);
    /// The authentication goes on.
    pub const CONTINUE_AUTHENTICATION: Self = Self(0x18);
    /// A new authentication begins.
    pub const RE_AUTHENTICATE: Self = Self(0x19);
    /// No reason is given.
    pub const UNSPECIFIED: Self = Self(0x80);
    /// The packet cannot be read.
    pub const MALFORMED_PACKET: Self = Self(0x81);
    /// The packet says something that is not allowed.
    pub const PROTOCOL_ERROR: Self = Self(0x82);
    /// Valid, and not accepted by this server.
    pub const IMPLEMENTATION_SPECIFIC: Self = Self(0x83);
    /// The server does not speak this version.
    pub const UNSUPPORTED_VERSION: Self = Self(0x84);
    /// The client identifier is not accepted.
    pub const CLIENT_ID_INVALID: Self = Self(0x85);
    /// The login was wrong.
    pub const BAD_LOGIN: Self = Self(0x86);
    /// The client may not do this.
    pub const NOT_AUTHORIZED: Self = Self(0x87);
    /// The server is not available.
    pub const SERVER_UNAVAILABLE: Self = Self(0x88);
    /// The server stops.
    pub const SERVER_SHUTTING_DOWN: Self = Self(0x8B);
    /// The authentication method is not supported.
    pub const BAD_AUTHENTICATION_METHOD: Self = Self(0x8C);
    /// The client was silent for too long.
    pub const KEEP_ALIVE_TIMEOUT: Self = Self(0x8D);
    /// Another connection uses the same client identifier.
    pub const SESSION_TAKEN_OVER: Self = Self(0x8E);
    /// The topic filter is not accepted.
    pub const TOPIC_FILTER_INVALID: Self = Self(0x8F);
    /// The topic name is not accepted.
    pub const TOPIC_NAME_INVALID: Self = Self(0x90);
    /// No flow has this packet identifier.
    pub const PACKET_ID_NOT_FOUND: Self = Self(0x92);
    /// More unacknowledged publishes than were allowed.
    pub const RECEIVE_MAXIMUM_EXCEEDED: Self = Self(0x93);
    /// A topic alias is zero or above the maximum.
    pub const TOPIC_ALIAS_INVALID: Self = Self(0x94);
    /// The packet is larger than allowed.
    pub const PACKET_TOO_LARGE: Self = Self(0x95);
    /// A limit of the server is reached.
    pub const QUOTA_EXCEEDED: Self = Self(0x97);
    /// An administrator ended the connection.
    pub const ADMINISTRATIVE_ACTION: Self = Self(0x98);
    /// The payload is not what its format indicator says.
    pub const PAYLOAD_FORMAT_INVALID: Self = Self(0x99);
    /// A shared subscription is not possible here.
    pub const SHARED_SUBSCRIPTIONS_NOT_SUPPORTED: Self = Self(0x9E);

    /// True for the codes that mean failure.
    pub fn is_error(self) -> bool {
        self.0 >= 0x80
    }
}
