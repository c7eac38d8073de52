//! Where a message stands in its queue.

use polymq_model::Seq;

/// Bits of a position that hold the place within its level.
const SEQ_BITS: u32 = 56;

/// A priority level and a place within it, as one number that never changes: what clients and the
/// definitions of their sessions name a message by. Level 0 is the place itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Position(Seq);

impl Position {
    /// The place `seq` within `level`.
    pub(crate) fn new(level: u8, seq: Seq) -> Self {
        Self(Seq((u64::from(level) << SEQ_BITS) | seq.0))
    }

    /// The position that a client names.
    pub(crate) fn named(number: Seq) -> Self {
        Self(number)
    }

    /// The number that a client names it by.
    pub(crate) fn number(self) -> Seq {
        self.0
    }

    pub(crate) fn level(self) -> u8 {
        u8::try_from(self.0.0 >> SEQ_BITS).unwrap_or(u8::MAX)
    }

    pub(crate) fn seq(self) -> Seq {
        Seq(self.0.0 & ((1 << SEQ_BITS) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_keeps_level_and_place() {
        for level in [0, 1, 9, 255] {
            let position = Position::new(level, Seq(123_456_789));
            assert_eq!((position.level(), position.seq()), (level, Seq(123_456_789)));
            assert_eq!(Position::named(position.number()), position);
        }
        assert_eq!(Position::new(0, Seq(7)).number(), Seq(7));
    }
}
