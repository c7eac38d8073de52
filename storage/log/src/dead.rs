//! Which positions of a stretch hold no live message: ranges, or a bitmap where that is smaller.
//!
//! Acknowledgements in order cost one range; in random order at most one bit a position.

use bytes::{BufMut, BytesMut};

/// Below this many ranges a bitmap is not considered.
const RANGES_MIN: usize = 32;
const TAG_RANGES: u8 = 0;
const TAG_BITS: u8 = 1;

/// The positions from `first` to `last`, both included, that are gone or never were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dead {
    first: u64,
    last: u64,
    count: u64,
    form: Form,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// Ascending, not adjacent, both ends included.
    Ranges(Vec<(u64, u64)>),
    /// One bit a position, from `first` on.
    Bits(Vec<u64>),
}

impl Dead {
    /// All positions from `first` to `last` live.
    pub(crate) fn new(first: u64, last: u64) -> Self {
        debug_assert!(first <= last, "a stretch has at least one position");
        Self { first, last, count: 0, form: Form::Ranges(Vec::new()) }
    }

    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    pub(crate) fn live_count(&self) -> u64 {
        (self.last - self.first).saturating_add(1) - self.count
    }

    /// Adds the positions from `first` to `last` as far as they belong here.
    pub(crate) fn add(&mut self, first: u64, last: u64) {
        let (first, last) = (first.max(self.first), last.min(self.last));
        if first > last {
            return;
        }
        match &mut self.form {
            Form::Ranges(ranges) => self.count += add_range(ranges, first, last),
            Form::Bits(bits) => {
                let (from, to) = (first - self.first, last - self.first);
                for_words(from, to, |word, mask| {
                    self.count += u64::from((mask & !bits[word]).count_ones());
                    bits[word] |= mask;
                });
            }
        }
        self.choose_form();
    }

    pub(crate) fn contains(&self, seq: u64) -> bool {
        if seq < self.first || seq > self.last {
            return true;
        }
        match &self.form {
            Form::Ranges(ranges) => {
                let at = ranges.partition_point(|(_, last)| *last < seq);
                ranges.get(at).is_some_and(|(first, _)| *first <= seq)
            }
            Form::Bits(bits) => is_set(bits, seq - self.first),
        }
    }

    /// The lowest live position from `from` on.
    pub(crate) fn next_live(&self, from: u64) -> Option<u64> {
        let from = from.max(self.first);
        let found = match &self.form {
            Form::Ranges(ranges) => {
                let at = ranges.partition_point(|(_, last)| *last < from);
                match ranges.get(at) {
                    Some((first, last)) if *first <= from => last.checked_add(1)?,
                    _ => from,
                }
            }
            Form::Bits(bits) => self.first + next_clear(bits, from.checked_sub(self.first)?)?,
        };
        Some(found).filter(|found| *found <= self.last)
    }

    /// How many positions from `first` to `last` live.
    pub(crate) fn live_in(&self, first: u64, last: u64) -> u64 {
        let (first, last) = (first.max(self.first), last.min(self.last));
        if first > last {
            return 0;
        }
        let mut live = (last - first).saturating_add(1);
        self.each_range(first, |from, to| {
            if from <= last {
                live -= to.min(last) - from.max(first) + 1;
            }
            from <= last
        });
        live
    }

    /// Calls `visit` with each dead range that ends at `from` or later, until it says false.
    pub(crate) fn each_range(&self, from: u64, mut visit: impl FnMut(u64, u64) -> bool) {
        match &self.form {
            Form::Ranges(ranges) => {
                let at = ranges.partition_point(|(_, last)| *last < from);
                for (first, last) in ranges.iter().skip(at) {
                    if !visit(*first, *last) {
                        return;
                    }
                }
            }
            Form::Bits(bits) => {
                let mut at = from.max(self.first) - self.first;
                while let Some(start) = next_set(bits, at) {
                    let end = next_clear(bits, start);
                    let last = end.map_or(self.last, |end| self.first + end - 1).min(self.last);
                    if !visit(self.first + start, last) {
                        return;
                    }
                    match end {
                        Some(end) => at = end,
                        None => return,
                    }
                }
            }
        }
    }

    fn choose_form(&mut self) {
        let Form::Ranges(ranges) = &self.form else { return };
        let span = (self.last - self.first).saturating_add(1);
        if ranges.len() <= RANGES_MIN || (ranges.len() as u64).saturating_mul(128) <= span {
            return;
        }
        let Ok(words) = usize::try_from(span.div_ceil(64)) else { return };
        let mut bits = vec![0; words];
        for (first, last) in ranges {
            for_words(first - self.first, last - self.first, |word, mask| bits[word] |= mask);
        }
        self.form = Form::Bits(bits);
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        match &self.form {
            Form::Ranges(ranges) => {
                out.put_u8(TAG_RANGES);
                for (first, last) in ranges {
                    out.put_u64_le(*first);
                    out.put_u64_le(*last);
                }
            }
            Form::Bits(bits) => {
                out.put_u8(TAG_BITS);
                for word in bits {
                    out.put_u64_le(*word);
                }
            }
        }
    }

    /// `None` when the bytes are not what [`encode`](Self::encode) writes.
    pub(crate) fn decode(first: u64, last: u64, bytes: &[u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first()?;
        if first > last || !rest.len().is_multiple_of(8) {
            return None;
        }
        let mut dead = Self::new(first, last);
        let words: Vec<u64> = rest.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b)).collect();
        match *tag {
            TAG_RANGES if words.len().is_multiple_of(2) => {
                for pair in words.chunks_exact(2) {
                    dead.add(pair[0], pair[1]);
                }
            }
            TAG_BITS if words.len() as u64 == (last - first).saturating_add(1).div_ceil(64) => {
                dead.count = words.iter().map(|word| u64::from(word.count_ones())).sum();
                dead.form = Form::Bits(words);
                if dead.count > (last - first).saturating_add(1) {
                    return None;
                }
            }
            _ => return None,
        }
        Some(dead)
    }
}

/// Adds a range; returns how many positions were not covered before.
fn add_range(ranges: &mut Vec<(u64, u64)>, first: u64, last: u64) -> u64 {
    // Ranges that touch the new one are joined with it.
    let start = ranges.partition_point(|(_, end)| end.saturating_add(1) < first);
    let touching = &ranges[start..];
    let count = touching.partition_point(|(begin, _)| *begin <= last.saturating_add(1));
    let (mut low, mut high, mut before) = (first, last, 0);
    for (begin, end) in &touching[..count] {
        before += end - begin + 1;
        low = low.min(*begin);
        high = high.max(*end);
    }
    ranges.splice(start..start + count, [(low, high)]);
    high - low + 1 - before
}

/// Calls `act` with each word and the mask of its bits between `from` and `to`.
fn for_words(from: u64, to: u64, mut act: impl FnMut(usize, u64)) {
    for word in from / 64..=to / 64 {
        let low = if word == from / 64 { from % 64 } else { 0 };
        let high = if word == to / 64 { to % 64 } else { 63 };
        let mask = (u64::MAX << low) & (u64::MAX >> (63 - high));
        if let Ok(word) = usize::try_from(word) {
            act(word, mask);
        }
    }
}

fn is_set(bits: &[u64], at: u64) -> bool {
    let word = usize::try_from(at / 64).ok().and_then(|word| bits.get(word));
    word.is_none_or(|word| word & (1 << (at % 64)) != 0)
}

fn next_set(bits: &[u64], from: u64) -> Option<u64> {
    next_bit(bits, from, |word| word)
}

fn next_clear(bits: &[u64], from: u64) -> Option<u64> {
    next_bit(bits, from, |word| !word)
}

fn next_bit(bits: &[u64], from: u64, read: impl Fn(u64) -> u64) -> Option<u64> {
    let start = usize::try_from(from / 64).ok()?;
    let mut mask = u64::MAX << (from % 64);
    for (index, word) in bits.iter().enumerate().skip(start) {
        let found = read(*word) & mask;
        if found != 0 {
            return Some(index as u64 * 64 + u64::from(found.trailing_zeros()));
        }
        mask = u64::MAX;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::BytesMut;

    use super::Dead;
    use crate::sim::Rng;

    fn agrees(dead: &Dead, live: &BTreeSet<u64>, what: &str) {
        assert_eq!(dead.live_count(), live.len() as u64, "{what}");
        for seq in dead.first().saturating_sub(2)..dead.last() + 3 {
            assert_eq!(dead.contains(seq), !live.contains(&seq), "{what}: {seq}");
            assert_eq!(dead.next_live(seq), live.range(seq..).next().copied(), "{what}: {seq}");
            let before = live.range(..seq).count() as u64;
            if seq > 0 {
                assert_eq!(dead.live_in(0, seq - 1), before, "{what}: {seq}");
            }
        }
    }

    #[test]
    fn random_ranges_agree_with_a_set() {
        for seed in 0..60 {
            let mut rng = Rng::new(seed);
            let (first, span) = (rng.below(5), 1 + rng.below(900));
            let mut dead = Dead::new(first, first + span - 1);
            let mut live: BTreeSet<_> = (first..first + span).collect();
            for step in 0..rng.below(200) {
                let from = rng.below(first + span + 2);
                let to = from + rng.below(2) * rng.below(9);
                dead.add(from, to);
                live.retain(|seq| *seq < from || *seq > to);
                if step % 37 == 0 {
                    agrees(&dead, &live, &format!("seed {seed}, step {step}"));
                }
            }
            let mut bytes = BytesMut::new();
            dead.encode(&mut bytes);
            let read = Dead::decode(dead.first(), dead.last(), &bytes).unwrap();
            agrees(&read, &live, &format!("seed {seed}, read back"));
        }
    }

    #[test]
    fn random_order_costs_a_bit_a_position() {
        let mut dead = Dead::new(0, 99_999);
        for seq in (0..100_000).step_by(2) {
            dead.add(seq, seq);
        }
        let mut bytes = BytesMut::new();
        dead.encode(&mut bytes);
        assert!(bytes.len() < 100_000 / 8 + 16, "{} bytes", bytes.len());
    }
}
