//! Looking again before sleeping.
//!
//! Falling asleep and being woken costs two cores several microseconds each, more than a message
//! does. A peer that sends one message per write is often about to send the next, so a connection
//! whose last sleep was short lets others run and looks again a few times before the next one.

use std::time::{Duration, Instant};

/// The most looks before a sleep; together they last about ten microseconds.
const LOOKS_MAX: u8 = 16;
/// A sleep that was shorter than this was not worth it.
const SHORT: Duration = Duration::from_micros(20);

/// How often one connection looks again.
#[derive(Debug, Default)]
pub(crate) struct Linger {
    /// Looks before a sleep, by how long the last sleeps were.
    budget: u8,
    /// Looks left before the next sleep.
    left: u8,
    /// Since when the connection sleeps.
    asleep: Option<Instant>,
}

impl Linger {
    /// Something moved.
    pub(crate) fn moved(&mut self, now: Instant) {
        if let Some(since) = self.asleep.take() {
            self.budget = if now.saturating_duration_since(since) < SHORT {
                self.budget.saturating_mul(2).clamp(1, LOOKS_MAX)
            } else {
                self.budget / 2
            };
        }
        self.left = self.budget;
    }

    /// Nothing moved. True to look again after others have run, false to sleep from `now` on.
    pub(crate) fn again(&mut self, now: Instant) -> bool {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => {
                self.asleep.get_or_insert(now);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks, sleeps for `sleep`, and is woken by something that moves; returns the looks.
    fn turn(linger: &mut Linger, now: &mut Instant, sleep: Duration) -> u32 {
        let mut looks = 0;
        while linger.again(*now) {
            looks += 1;
        }
        *now += sleep;
        linger.moved(*now);
        looks
    }

    #[test]
    fn short_sleeps_make_more_looks_and_long_ones_fewer() {
        let (mut linger, mut now) = (Linger::default(), Instant::now());
        let short = Duration::from_micros(4);
        let counts: Vec<u32> = (0..7).map(|_| turn(&mut linger, &mut now, short)).collect();
        assert_eq!(counts, [0, 1, 2, 4, 8, 16, 16]);
        let long = Duration::from_micros(100);
        let counts: Vec<u32> = (0..6).map(|_| turn(&mut linger, &mut now, long)).collect();
        assert_eq!(counts, [16, 8, 4, 2, 1, 0]);
    }

    #[test]
    fn a_look_that_pays_keeps_the_number_of_looks() {
        let (mut linger, mut now) = (Linger::default(), Instant::now());
        (0..5).for_each(|_| {
            turn(&mut linger, &mut now, Duration::from_micros(4));
        });
        for _ in 0..10 {
            assert!(linger.again(now));
            linger.moved(now);
        }
        assert_eq!(turn(&mut linger, &mut now, Duration::ZERO), 16);
    }
}
