//! The fixed header: section 2.1.

use super::{Fault, Version, reader::var_int};

/// The type of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketKind {
    /// CONNECT.
    Connect,
    /// CONNACK.
    Connack,
    /// PUBLISH.
    Publish,
    /// PUBACK.
    Puback,
    /// PUBREC.
    Pubrec,
    /// PUBREL.
    Pubrel,
    /// PUBCOMP.
    Pubcomp,
    /// SUBSCRIBE.
    Subscribe,
    /// SUBACK.
    Suback,
    /// UNSUBSCRIBE.
    Unsubscribe,
    /// UNSUBACK.
    Unsuback,
    /// PINGREQ.
    Pingreq,
    /// PINGRESP.
    Pingresp,
    /// DISCONNECT.
    Disconnect,
    /// AUTH, in MQTT 5 only.
    Auth,
}

impl PacketKind {
    /// First byte of a packet of this kind, with the flags the specification fixes.
    pub fn first_byte(self) -> u8 {
        match self {
            Self::Connect => 0x10,
            Self::Connack => 0x20,
            Self::Publish => 0x30,
            Self::Puback => 0x40,
            Self::Pubrec => 0x50,
            Self::Pubrel => 0x62,
            Self::Pubcomp => 0x70,
            Self::Subscribe => 0x82,
            Self::Suback => 0x90,
            Self::Unsubscribe => 0xA2,
            Self::Unsuback => 0xB0,
            Self::Pingreq => 0xC0,
            Self::Pingresp => 0xD0,
            Self::Disconnect => 0xE0,
            Self::Auth => 0xF0,
        }
    }

    fn of(first: u8) -> Option<Self> {
        Some(match first >> 4 {
            1 => Self::Connect,
            2 => Self::Connack,
            3 => Self::Publish,
            4 => Self::Puback,
            5 => Self::Pubrec,
            6 => Self::Pubrel,
            7 => Self::Pubcomp,
            8 => Self::Subscribe,
            9 => Self::Suback,
            10 => Self::Unsubscribe,
            11 => Self::Unsuback,
            12 => Self::Pingreq,
            13 => Self::Pingresp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }
}

/// A fixed header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The type.
    pub kind: PacketKind,
    /// The four flags.
    pub flags: u8,
    /// Bytes of this header.
    pub len: usize,
    /// Bytes that follow it.
    pub remaining: usize,
    /// False when the length could have been written with fewer bytes.
    pub minimal: bool,
}

impl Header {
    /// Reads the header at the front of `bytes`; `None` when more bytes are needed.
    ///
    /// Errors: a fault when the type is 0 or the length has more than four bytes.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, Fault> {
        let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
        let kind =
            PacketKind::of(*first).ok_or_else(|| Fault::malformed("a packet has type zero"))?;
        let Some(length) = var_int(rest)? else { return Ok(None) };
        Ok(Some(Self {
            kind,
            flags: first & 0x0F,
            len: length.len.saturating_add(1),
            remaining: usize::try_from(length.value).unwrap_or(usize::MAX),
            minimal: length.minimal,
        }))
    }

    /// Bytes of the whole packet.
    pub fn total(&self) -> usize {
        self.len.saturating_add(self.remaining)
    }

    /// Checks what the chosen version demands of a fixed header [MQTT-2.1.3-1].
    ///
    /// MQTT 3.1 lets a client set DUP on PUBREL, SUBSCRIBE and UNSUBSCRIBE and calls the other
    /// flags unused, and MQTT 3 says nothing about lengths that are longer than needed.
    pub fn check(&self, version: Version) -> Result<(), Fault> {
        if version == Version::V5 && !self.minimal {
            return Err(Fault::malformed("the remaining length is longer than needed"));
        }
        if version != Version::V5 && self.kind == PacketKind::Auth {
            return Err(Fault::malformed("a packet has type fifteen"));
        }
        let fixed = self.kind.first_byte() & 0x0F;
        if self.kind == PacketKind::Publish || version == Version::V31 || self.flags == fixed {
            return Ok(());
        }
        Err(Fault::malformed("reserved flags of the fixed header are set"))
    }
}
