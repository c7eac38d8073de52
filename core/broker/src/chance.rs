//! Random numbers where nobody gains by guessing them: cheap, and the same from the same seed.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::hash::mix;

/// SplitMix64. Those who draw from one at the same time get different numbers.
#[derive(Debug, Default)]
pub(crate) struct Chance(AtomicU64);

/// What the state advances by: an odd number near 2^64 divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// A number below `bound`, or 0 for a bound of 0.
    pub(crate) fn below(&self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        let scaled = (u128::from(self.next()) * u128::from(bound)) >> u64::BITS;
        usize::try_from(scaled).unwrap_or(0)
    }

    pub(crate) fn next(&self) -> u64 {
        mix(self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP))
    }
}
