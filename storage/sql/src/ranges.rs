//! A set of positions, as ranges that do not touch.

use std::collections::BTreeMap;

/// First and last position by first, both included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds every position from `first` to `last`.
    pub(crate) fn insert(&mut self, mut first: u64, mut last: u64) {
        if first > last {
            return;
        }
        // Ranges that begin before `last` or right behind it, highest first, until one ends
        // before `first`.
        let behind = last.saturating_add(1);
        while let Some((&low, &high)) = self.0.range(..=behind).next_back() {
            if high.saturating_add(1) < first {
                break;
            }
            first = first.min(low);
            last = last.max(high);
            self.0.remove(&low);
        }
        self.0.insert(first, last);
    }

    pub(crate) fn contains(&self, at: u64) -> bool {
        self.0.range(..=at).next_back().is_some_and(|(_, &last)| at <= last)
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(&first, &last)| (first, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_become_one() {
        let mut ranges = Ranges::default();
        for (first, last) in [(5, 6), (1, 2), (9, 9), (3, 3), (20, 10), (7, 7)] {
            ranges.insert(first, last);
        }
        assert!(ranges.iter().eq([(1, 3), (5, 7), (9, 9)]));
        ranges.insert(2, 8);
        assert!(ranges.iter().eq([(1, 9)]));
        ranges.insert(u64::MAX, u64::MAX);
        assert!(ranges.contains(9) && ranges.contains(u64::MAX));
        assert!(!ranges.contains(0) && !ranges.contains(10));
    }

    #[test]
    fn any_order_gives_the_set_that_a_bitmap_gives() {
        let mut state = 7_u64;
        let mut random = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % bound
        };
        for _ in 0..200 {
            let (mut ranges, mut bits) = (Ranges::default(), [false; 64]);
            for _ in 0..12 {
                let first = random(60);
                let last = first + random(4);
                ranges.insert(first, last);
                for at in first..=last {
                    bits[at as usize] = true;
                }
            }
            for (at, bit) in (0..).zip(bits) {
                assert_eq!(ranges.contains(at), bit);
            }
            let pairs: Vec<_> = ranges.iter().collect();
            assert!(pairs.windows(2).all(|two| two[0].1 + 1 < two[1].0), "{pairs:?}");
        }
    }
}
