//! Bodies that say who sent them and whether they are whole.
//!
//! ```text
//! run u64 | producer u32 | n u64 | length u32 | crc32c u32 | filler
//! ```
//!
//! The length counts all bytes, and the checksum is over everything but itself.

use crate::random::Random;

/// Bytes before the filler.
const HEAD_BYTES: usize = 28;
/// Where the checksum stands.
const CRC_AT: usize = 24;

/// What a body says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Body {
    /// The run, so that leftovers of another one are noticed.
    pub run: u64,
    /// Who published it.
    pub producer: u32,
    /// Its number.
    pub n: u64,
}

/// The body is not what anybody sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadBody;

impl Body {
    /// The bytes, with `filler` bytes that differ from message to message.
    pub fn encode(&self, filler: usize) -> Vec<u8> {
        let length = u32::try_from(HEAD_BYTES + filler).unwrap_or(u32::MAX);
        let mut out = Vec::with_capacity(HEAD_BYTES + filler);
        out.extend(self.run.to_le_bytes());
        out.extend(self.producer.to_le_bytes());
        out.extend(self.n.to_le_bytes());
        out.extend(length.to_le_bytes());
        out.extend([0; 4]);
        let mut random = Random::new(self.run ^ u64::from(self.producer) << 40 ^ self.n);
        while out.len() < HEAD_BYTES + filler {
            out.extend(random.next_u64().to_le_bytes());
        }
        out.truncate(HEAD_BYTES + filler);
        let crc = checksum(&out).to_le_bytes();
        for (slot, byte) in out.iter_mut().skip(CRC_AT).zip(crc) {
            *slot = byte;
        }
        out
    }

    /// Reads a body, as it is or in hexadecimal, as it goes through protocols of text.
    ///
    /// Errors: [`BadBody`] when a byte is wrong, missing or too much.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBody> {
        Self::read(bytes).or_else(|bad| Self::read(&from_hexadecimal(bytes).ok_or(bad)?))
    }

    fn read(bytes: &[u8]) -> Result<Self, BadBody> {
        let u32_at = |at: usize| bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b));
        let u64_at = |at: usize| bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b));
        let read = || {
            let body = Self { run: u64_at(0)?, producer: u32_at(8)?, n: u64_at(12)? };
            let is_whole = u32_at(20)? == u32::try_from(bytes.len()).ok()?;
            (is_whole && u32_at(CRC_AT)? == checksum(bytes)).then_some(body)
        };
        read().ok_or(BadBody)
    }
}

fn from_hexadecimal(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.iter().map(byte).collect::<Option<_>>().filter(|_| rest.is_empty())
}

fn checksum(bytes: &[u8]) -> u32 {
    let (before, rest) = bytes.split_at(CRC_AT.min(bytes.len()));
    let after = rest.get(4..).unwrap_or_default();
    crc_fast::crc32_iscsi(&[before, after].concat())
}
