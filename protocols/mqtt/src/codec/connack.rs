//! CONNACK: section 3.2.

use bytes::{BufMut, BytesMut};

use super::{
    PacketKind, Reason,
    property::id,
    writer::{Properties, put_var_int},
};

/// What a server of MQTT 5 tells in a CONNACK that accepts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Granted<'a> {
    /// Session expiry, when it differs from what was asked.
    pub session_expiry_secs: Option<u32>,
    /// Unacknowledged publishes the server takes.
    pub receive_max: u16,
    /// Largest packet the server takes.
    pub packet_bytes_max: u32,
    /// Client identifier, when the server made it.
    pub client_id: Option<&'a str>,
    /// Topic aliases the server takes.
    pub topic_alias_max: u16,
    /// Keep alive, when it differs from what was asked.
    pub keep_alive_secs: Option<u16>,
    /// Beginning of topics for answers, when asked for.
    pub response_information: Option<&'a str>,
    /// Method and last message of an enhanced authentication.
    pub authentication: Option<(&'a str, &'a [u8])>,
}

impl Granted<'_> {
    /// The properties; `brief` leaves out what only repeats a default or is a courtesy.
    pub fn properties(&self, brief: bool) -> Properties {
        let mut out = Properties::default();
        if let Some(secs) = self.session_expiry_secs {
            out.u32(id::SESSION_EXPIRY, secs);
        }
        out.u16(id::RECEIVE_MAXIMUM, self.receive_max);
        out.u32(id::MAXIMUM_PACKET_SIZE, self.packet_bytes_max);
        if let Some(client_id) = self.client_id {
            out.binary(id::ASSIGNED_CLIENT_ID, client_id.as_bytes());
        }
        if self.topic_alias_max > 0 {
            out.u16(id::TOPIC_ALIAS_MAXIMUM, self.topic_alias_max);
        }
        if let Some(secs) = self.keep_alive_secs {
            out.u16(id::SERVER_KEEP_ALIVE, secs);
        }
        if let Some((method, data)) = self.authentication {
            out.binary(id::AUTHENTICATION_METHOD, method.as_bytes());
            if !data.is_empty() {
                out.binary(id::AUTHENTICATION_DATA, data);
            }
        }
        if !brief {
            out.u8(id::WILDCARD_AVAILABLE, 1);
            out.u8(id::SUBSCRIPTION_IDS_AVAILABLE, 1);
            out.u8(id::SHARED_AVAILABLE, 1);
            if let Some(prefix) = self.response_information {
                out.binary(id::RESPONSE_INFORMATION, prefix.as_bytes());
            }
        }
        out
    }
}

/// Writes CONNACK of MQTT 5.
pub fn put_connack_5(out: &mut BytesMut, present: bool, reason: Reason, properties: &Properties) {
    out.put_u8(PacketKind::Connack.first_byte());
    put_var_int(out, properties.encoded_len().saturating_add(2));
    out.put_u8(u8::from(present));
    out.put_u8(reason.0);
    properties.put(out);
}

/// Writes CONNACK of MQTT 3 with a return code of 0 to 5.
pub fn put_connack_3(out: &mut BytesMut, present: bool, code: u8) {
    out.put_slice(&[PacketKind::Connack.first_byte(), 2, u8::from(present), code]);
}
