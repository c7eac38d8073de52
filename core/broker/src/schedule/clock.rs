//! Wall time that never goes back.

use std::time::Instant;

use polymq_model::Now;

/// Follows the wall clock when it jumps forward. When it jumps back, it goes on with the steady
/// clock, so that nothing waits longer than it was delayed.
#[derive(Debug, Default)]
pub(super) struct SteadyClock(Option<(Instant, u64)>);

impl SteadyClock {
    /// Ms since 1970, at least so many more than before as have really passed.
    pub(super) fn now_ms(&mut self, now: Now) -> u64 {
        let steady_ms = match self.0 {
            Some((instant, ms)) => {
                let passed = now.instant.saturating_duration_since(instant).as_millis();
                ms.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
            }
            None => 0,
        };
        if now.unix_ms >= steady_ms {
            self.0 = Some((now.instant, now.unix_ms));
        }
        steady_ms.max(now.unix_ms)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_jump_forward_counts_and_a_jump_back_does_not() {
        let start = Instant::now();
        let at = |secs: u64, unix_ms| Now { instant: start + Duration::from_secs(secs), unix_ms };
        let mut clock = SteadyClock::default();
        assert_eq!(clock.now_ms(at(0, 1_000_000)), 1_000_000);
        assert_eq!(clock.now_ms(at(1, 1_001_000)), 1_001_000);
        // Back by an hour's worth.
        assert_eq!(clock.now_ms(at(2, 10_000)), 1_002_000);
        assert_eq!(clock.now_ms(at(3, 11_000)), 1_003_000);
        assert_eq!(clock.now_ms(at(4, 9_000_000)), 9_000_000);
        assert_eq!(clock.now_ms(at(5, 9_001_000)), 9_001_000);
    }
}
