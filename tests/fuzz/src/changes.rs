//! Changes of inputs, of the kinds that fuzzers make, in an order that is the same at each run.

/// A small generator of numbers.
pub struct Random(u64);

impl Random {
    /// One whose numbers follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1 << 40)
    }

    /// A number below `bound`; 0 when there is none.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap_or(0) % bound.max(1)
    }
}

/// Changes an input once; pieces of `others` may come in.
pub fn change(random: &mut Random, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
    let at = random.below(bytes.len());
    let interesting = [0, 1, 0x7F, 0x80, 0xFF, 0xCE, b'A', b'F', b'/', b'#', b'+', b'%'];
    match random.below(7) {
        0 => bytes.truncate(at),
        1 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        2 if !bytes.is_empty() => bytes[at] = interesting[random.below(interesting.len())],
        3 => bytes.insert(at, interesting[random.below(interesting.len())]),
        4 if !bytes.is_empty() => drop(bytes.remove(at)),
        5 => {
            let end = at + random.below(bytes.len().saturating_sub(at).min(40) + 1);
            let piece = bytes[at..end].to_vec();
            let to = random.below(bytes.len() + 1);
            bytes.splice(to..to, piece);
        }
        _ => {
            let Some(other) = others.get(random.below(others.len())) else { return };
            let from = random.below(other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
    }
}

/// An input made of one of `from` by a few changes.
pub fn changed(random: &mut Random, from: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = from.get(random.below(from.len())).cloned().unwrap_or_default();
    for _ in 0..=random.below(6) {
        change(random, &mut bytes, from);
    }
    bytes
}
