//! How long the free space of the disk lasts, from what it was when somebody asked.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// At which distance readings are kept, in ms.
const EVERY_MS: u64 = 5_000;
/// Readings that are kept: ten minutes of them for somebody who asks every five seconds.
const KEPT: usize = 121;
/// Readings closer than this say nothing about what comes, in ms.
const SPAN_MIN_MS: u64 = 60_000;

/// Free bytes of the disk over the last time, while somebody has asked for them.
#[derive(Debug, Default)]
pub(crate) struct Forecast(Mutex<VecDeque<(u64, u64)>>);

impl Forecast {
    /// So many bytes are free at a time in ms since 1970.
    pub(crate) fn note(&self, at_ms: u64, free: u64) {
        let mut kept = self.0.lock();
        if kept.back().is_none_or(|(last, _)| last.saturating_add(EVERY_MS) <= at_ms) {
            kept.push_back((at_ms, free));
            if kept.len() > KEPT {
                kept.pop_front();
            }
        }
    }

    /// In how many seconds no more than `low` bytes are free, at the speed of the last minutes;
    /// `None` when the disk does not fill, or nobody has asked for long enough to know.
    pub(crate) fn seconds_to(&self, low: u64) -> Option<u64> {
        let kept = self.0.lock();
        let ((first_ms, before), (last_ms, now)) = (*kept.front()?, *kept.back()?);
        let span_ms = last_ms.checked_sub(first_ms).filter(|ms| *ms >= SPAN_MIN_MS)?;
        let filled = before.checked_sub(now).filter(|bytes| *bytes > 0)?;
        let left = u128::from(now.saturating_sub(low));
        let seconds = left * u128::from(span_ms) / u128::from(filled) / 1000;
        u64::try_from(seconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_speed_of_the_last_minutes_tells_how_long_the_disk_lasts() {
        let forecast = Forecast::default();
        for second in 0..=60 {
            assert_eq!(forecast.seconds_to(0), None, "too early to say: {second}");
            forecast.note(second * 1000, 10_000 - second * 10);
        }
        assert_eq!(forecast.seconds_to(400), Some(900));
        assert_eq!(forecast.seconds_to(20_000), Some(0));
        for second in 61..=1000 {
            forecast.note(second * 1000, 20_000);
        }
        assert_eq!(forecast.seconds_to(0), None, "it does not fill any more");
    }
}
