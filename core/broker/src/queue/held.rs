//! What the store remembers of a message that is held: when it is due, and what it has died of if
//! it is a dead letter that nobody has taken.
//!
//! Both are one number for the store: the reason is in the highest byte of the time. So an engine
//! keeps what it has always kept, and what was stored without reasons has none.

/// Bits of the time. In ms they are two million years.
const DUE_BITS: u32 = 56;
const DUE_MS_MAX: u64 = (1 << DUE_BITS) - 1;

/// The reasons whose messages may stay. Their places here, from 1 on, are stored.
const REASONS: [&str; 4] = ["rejected", "expired", "delivery_limit", "too_large"];

/// What is stored of a held message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// When it is looked at again, in ms since 1970.
    pub(crate) due_ms: u64,
    /// What it has died of.
    pub(crate) reason: Option<&'static str>,
}

impl Held {
    pub(crate) fn of_stored(number: u64) -> Self {
        let code = usize::try_from(number >> DUE_BITS).ok();
        let reason = code.and_then(|code| REASONS.get(code.checked_sub(1)?).copied());
        Self { due_ms: number & DUE_MS_MAX, reason }
    }

    pub(super) fn to_stored(self) -> u64 {
        let place = REASONS.iter().position(|known| Some(*known) == self.reason);
        let code = place.map_or(0, |place| place as u64 + 1);
        self.due_ms.min(DUE_MS_MAX) | code << DUE_BITS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_reasons_come_back() {
        for reason in REASONS.map(Some).into_iter().chain([None]) {
            for due_ms in [0, 1, 1_800_000_000_000, DUE_MS_MAX] {
                let held = Held { due_ms, reason };
                assert_eq!(Held::of_stored(held.to_stored()), held);
            }
        }
        assert_eq!(Held { due_ms: 7, reason: None }.to_stored(), 7, "as without reasons");
        let never = Held { due_ms: u64::MAX, reason: None };
        assert_eq!(Held::of_stored(never.to_stored()), Held { due_ms: DUE_MS_MAX, reason: None });
    }
}
