//! When a connection reads by the clock instead of being woken.
//!
//! Each wake-up, read and write costs both sides more than a small message does. A peer that sends
//! one message per write, and many of them, is better read some dozen microseconds later and a
//! dozen messages at once. A peer that waits for an answer before it sends on is not, and looks
//! the same until it was tried: so what a pause has brought decides about the next one.

use std::time::{Duration, Instant};

/// Reads that follow each other within this time are many.
const SHORT: Duration = Duration::from_micros(25);
/// Small reads in a row before the first pause.
const STREAK: u16 = 32;
/// A read is not small, and a pause is worth it, when it brings this many times the least that a
/// read of the streak brought.
const WORTH: usize = 3;
/// Pauses in a row that may bring less.
const POOR_MAX: u8 = 4;
/// The longest pause, about 120 us: as long as the peer goes on without an answer, longer pauses
/// let it fill the socket's buffers, where the system joins its messages and both sides save most.
const TICKS_MAX: u8 = 5;
/// Small reads until pauses are tried again, after those that were not worth it; doubles each time.
const BARRED_MIN: u16 = 64;
const BARRED_MAX: u16 = 16 * 1024;

/// The habits of one connection's peer.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    read_at: Option<Instant>,
    /// Small reads in a row.
    streak: u16,
    /// The least that one of them brought.
    least_bytes: usize,
    /// What the present pause has brought, while there is one.
    paused_bytes: Option<usize>,
    /// Pauses in a row that were not worth it.
    poor: u8,
    /// Small reads before pauses are tried again, and how many it were last time.
    barred: u16,
    barred_last: u16,
    /// How long the next pause lasts.
    ticks: u8,
}

impl Pace {
    /// A read brought `count` bytes.
    pub(crate) fn received(&mut self, count: usize, now: Instant) {
        let before = self.read_at.replace(now);
        if let Some(bytes) = &mut self.paused_bytes {
            *bytes += count;
        } else if before.is_none_or(|at| now.saturating_duration_since(at) >= SHORT) {
            self.streak = 0;
        } else if self.barred > 0 {
            self.barred -= 1;
        } else {
            self.least_bytes = if self.streak == 0 { count } else { self.least_bytes.min(count) };
            self.streak = if count < WORTH * self.least_bytes { self.streak + 1 } else { 0 };
        }
    }

    /// True when the connection should pause before it reads again.
    pub(crate) fn pauses(&mut self) -> bool {
        if self.streak >= STREAK {
            self.paused_bytes.get_or_insert(0);
        }
        self.paused_bytes.is_some()
    }

    /// How long the next pause lasts, in ticks.
    pub(crate) fn ticks(&self) -> u8 {
        self.ticks.max(1)
    }

    /// A pause has passed.
    pub(crate) fn paused(&mut self) {
        let Some(bytes) = self.paused_bytes.take() else { return };
        if bytes >= WORTH * self.least_bytes {
            (self.poor, self.barred_last) = (0, 0);
            self.ticks = self.ticks().saturating_mul(2).min(TICKS_MAX);
            return;
        }
        self.poor += 1;
        self.ticks = 1;
        if self.poor >= POOR_MAX {
            (self.poor, self.streak) = (0, 0);
            self.barred_last = self.barred_last.saturating_mul(2).clamp(BARRED_MIN, BARRED_MAX);
            self.barred = self.barred_last;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: usize = 100;

    /// Reads single messages until a pause is due; returns how many, at most `most`.
    fn reads_before_a_pause(pace: &mut Pace, gap: Duration, most: u32) -> u32 {
        let mut now = Instant::now();
        for count in 0..most {
            if pace.pauses() {
                return count;
            }
            now += gap;
            pace.received(MESSAGE, now);
        }
        most
    }

    fn busy(pace: &mut Pace, most: u32) -> u32 {
        reads_before_a_pause(pace, Duration::from_micros(4), most)
    }

    /// A pause that brings so many messages.
    fn pause(pace: &mut Pace, messages: usize) {
        assert!(pace.pauses());
        for _ in 0..messages {
            pace.received(MESSAGE, Instant::now());
        }
        pace.paused();
    }

    #[test]
    fn only_small_reads_close_together_lead_to_a_pause() {
        let mut pace = Pace::default();
        assert_eq!(reads_before_a_pause(&mut pace, Duration::from_micros(100), 1000), 1000);
        assert_eq!(busy(&mut pace, 1000), u32::from(STREAK));
        let mut pace = Pace::default();
        let now = Instant::now();
        for _ in 0..1000 {
            pace.received(MESSAGE, now);
            pace.received(8 * MESSAGE, now);
            assert!(!pace.pauses());
        }
    }

    #[test]
    fn a_pause_that_brings_many_messages_is_followed_by_another() {
        let mut pace = Pace::default();
        busy(&mut pace, 1000);
        for messages in [6, 3, 1, 1, 0, 12].repeat(20) {
            pause(&mut pace, messages);
        }
        assert!(pace.pauses());
    }

    #[test]
    fn pauses_grow_while_they_are_worth_it_and_shrink_at_once() {
        let mut pace = Pace::default();
        busy(&mut pace, 1000);
        let mut ticks = vec![pace.ticks()];
        for messages in [9, 9, 9, 9, 1, 9] {
            pause(&mut pace, messages);
            ticks.push(pace.ticks());
        }
        assert_eq!(ticks, [1, 2, 4, 5, 5, 1, 2]);
    }

    #[test]
    fn a_peer_that_waits_for_answers_is_paused_ever_more_rarely() {
        let mut pace = Pace::default();
        let mut reads = 0;
        for _ in 0..6 {
            let before = busy(&mut pace, 100_000);
            assert!(before > reads, "{before} after {reads}");
            reads = before;
            (0..POOR_MAX).for_each(|_| pause(&mut pace, 1));
            assert!(!pace.pauses(), "one message is not worth a pause");
        }
    }

    #[test]
    fn a_silent_peer_ends_the_pauses() {
        let mut pace = Pace::default();
        busy(&mut pace, 1000);
        (0..POOR_MAX).for_each(|_| pause(&mut pace, 0));
        assert!(!pace.pauses());
    }
}
