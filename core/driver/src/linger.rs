//! Looking once more before sleeping.
//!
//! Falling asleep and being woken costs a core several microseconds, more than a message does. A
//! peer that sends one message per write is often about to send the next, so a connection lets
//! others run and looks again before it sleeps: seldom where that does not pay, oftener where it
//! does.

/// The most looks before a sleep; together they last a few microseconds.
const LOOKS_MAX: u8 = 16;

/// How often one connection looks again.
#[derive(Debug)]
pub(crate) struct Linger {
    /// Looks before a sleep, by what they have brought so far.
    budget: u8,
    /// Looks left before this sleep; `None` when it has not been put off yet.
    left: Option<u8>,
}

impl Linger {
    pub(crate) fn new() -> Self {
        Self { budget: 1, left: None }
    }

    /// Something moved. Where a look has brought that, there will be more of them.
    pub(crate) fn moved(&mut self) {
        if self.left.take().is_some() {
            self.budget = self.budget.saturating_mul(2).min(LOOKS_MAX);
        }
    }

    /// Nothing moved. True to look again after others have run, false to sleep.
    pub(crate) fn again(&mut self) -> bool {
        match self.left.unwrap_or(self.budget).checked_sub(1) {
            Some(left) => {
                self.left = Some(left);
                true
            }
            None => {
                self.left = None;
                self.budget = (self.budget / 2).max(1);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(linger: &mut Linger) -> u32 {
        std::iter::from_fn(|| linger.again().then_some(())).count().try_into().unwrap()
    }

    #[test]
    fn looks_that_bring_nothing_become_one() {
        let mut linger = Linger { budget: LOOKS_MAX, left: None };
        let counts: Vec<u32> = (0..6).map(|_| looks(&mut linger)).collect();
        assert_eq!(counts, [16, 8, 4, 2, 1, 1]);
    }

    #[test]
    fn looks_that_pay_become_more() {
        let mut linger = Linger::new();
        for _ in 0..10 {
            assert!(linger.again());
            linger.moved();
        }
        assert_eq!(looks(&mut linger), 16);
    }

    #[test]
    fn what_moves_without_a_look_changes_nothing() {
        let mut linger = Linger::new();
        linger.moved();
        assert_eq!(looks(&mut linger), 1);
    }
}
