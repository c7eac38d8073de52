//! Packets of MQTT 3.1, 3.1.1 and 5.0, by hand: bytes in, plain values out, and back.
//!
//! Nothing here keeps state or allocates from a declared length.
#![warn(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "numbers and lengths here come from the wire"
)]

pub mod ack;
pub mod connack;
pub mod connect;
pub mod header;
pub mod property;
pub mod publish;
pub mod reader;
pub mod reason;
pub mod subscribe;
#[cfg(test)]
mod tests;
pub mod writer;

use std::borrow::Cow;

pub use header::{Header, PacketKind};
pub use property::{Place, Property, PropertyReader, Value};
pub use reader::Reader;
pub use reason::Reason;

/// The protocol version that a CONNECT chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// MQTT 3.1, protocol name `MQIsdp`, level 3.
    V31,
    /// MQTT 3.1.1, level 4.
    V311,
    /// MQTT 5.0, level 5.
    V5,
}

impl Version {
    /// The version that the front of a CONNECT names; `None` when more bytes are needed. What
    /// names none of them counts as one that is closed without a word.
    pub fn at_front(connect: &[u8]) -> Option<Self> {
        const NAME: &[u8] = b"\x00\x04MQTT";
        let name = connect.get(..NAME.len().min(connect.len()))?;
        if !NAME.starts_with(name) {
            return Some(Self::V31);
        }
        connect.get(NAME.len()).map(|level| if *level == 5 { Self::V5 } else { Self::V311 })
    }
}

/// What a peer did wrong, and how MQTT 5 calls it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Fault {
    /// The reason code of MQTT 5; earlier versions only close.
    pub reason: Reason,
    /// Lower-case sentence for the peer and the log.
    pub text: Cow<'static, str>,
}

impl Fault {
    /// A fault with any reason.
    pub fn new(reason: Reason, text: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, text: text.into() }
    }

    /// The bytes cannot be read as the specification lays them out.
    pub fn malformed(text: &'static str) -> Self {
        Self::new(Reason::MALFORMED_PACKET, text)
    }

    /// The bytes can be read and say something that is not allowed.
    pub fn protocol(text: &'static str) -> Self {
        Self::new(Reason::PROTOCOL_ERROR, text)
    }
}
