//! Maps by packet identifier and by consumer.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use polymq_model::ConsumerId;

/// A map by packet identifier. Identifiers are small numbers that a client cannot make collide in a
/// harmful way, so hashing them is one multiplication.
pub(crate) type IdMap<T> = HashMap<u16, T, BuildHasherDefault<IdHasher>>;

/// A map by consumer; the session numbers its consumers itself.
pub(crate) type ConsumerMap<T> = HashMap<ConsumerId, T, BuildHasherDefault<IdHasher>>;

/// Spreads a packet identifier over all bits.
#[derive(Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = u64::from(id).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write_u16(&mut self, id: u16) {
        self.0 = u64::from(id).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}
