//! How long a message that came back is held before it is delivered again.

use polymq_contract::{Refusal, RefusalKind};

use super::arguments::{Arguments, Wrong};

/// After so many deliveries a message is slowed down, whatever the queue says.
pub(super) const HOT_LOOP_DELIVERIES: u16 = 1000;
/// By so much, in ms.
pub(super) const HOT_LOOP_DELAY_MS: u64 = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backoff {
    Linear,
    Exponential,
    Fixed,
}

/// A retry policy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Retry {
    /// Failed deliveries are held back.
    failed: bool,
    /// Plain returns are.
    returned: bool,
    min_ms: u64,
    max_ms: u64,
    backoff: Backoff,
    factor: f64,
    jitter: f64,
}

impl Retry {
    /// Reads `delayed-retry-…`; `None` when nothing is said about its type.
    ///
    /// Errors: kind `Invalid` for wrong types and ranges, a missing `min`, a `max` below it.
    pub(super) fn parse(arguments: &Arguments<'_>) -> Result<Option<Self>, Refusal> {
        let mut wrong = Wrong::default();
        let kinds = ["disabled", "all", "failed", "returned"];
        let kind = wrong.note(arguments.word("delayed-retry-type", &kinds));
        let min_ms = wrong.note(arguments.time("delayed-retry-min", 0));
        let max_ms = wrong.note(arguments.time("delayed-retry-max", 0));
        let backoffs = ["linear", "exponential", "fixed"];
        let backoff = match wrong.note(arguments.word("delayed-retry-backoff", &backoffs)) {
            Some("exponential") => Backoff::Exponential,
            Some("fixed") => Backoff::Fixed,
            _ => Backoff::Linear,
        };
        let above_1 = "a number above 1";
        let factor = wrong.note(arguments.fraction("delayed-retry-factor", above_1, |f| f > 1.0));
        let part = "a number from 0 to 1";
        let is_part = |j| (0.0..=1.0).contains(&j);
        let jitter = wrong.note(arguments.fraction("delayed-retry-jitter", part, is_part));
        wrong.check()?;
        let min_name = arguments.name("delayed-retry-min");
        if let (Some(min), Some(max)) = (min_ms, max_ms)
            && max < min
        {
            let max_name = arguments.name("delayed-retry-max");
            let text = format!("{max_name} '{max}' is below {min_name} '{min}'");
            return Err(Refusal::new(RefusalKind::Invalid, text));
        }
        let Some(kind) = kind else { return Ok(None) };
        let is_enabled = kind != "disabled";
        if is_enabled && min_ms.is_none() {
            let text = format!("{} needs {min_name}", arguments.name("delayed-retry-type"));
            return Err(Refusal::new(RefusalKind::Invalid, text));
        }
        let min_ms = min_ms.unwrap_or(0);
        Ok(Some(Self {
            failed: matches!(kind, "all" | "failed"),
            returned: matches!(kind, "all" | "returned"),
            min_ms,
            max_ms: max_ms.unwrap_or(u64::MAX),
            backoff,
            factor: factor.unwrap_or(2.0),
            jitter: jitter.unwrap_or(0.0),
        }))
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.failed || self.returned
    }

    /// How long to hold a message that failed, or just came back, for the `times`-th time; `None`
    /// for not at all. `chance` is a random number from 0 to 1.
    pub(super) fn delay_ms(&self, has_failed: bool, times: u16, chance: f64) -> Option<u64> {
        if !(if has_failed { self.failed } else { self.returned }) {
            return None;
        }
        let times = times.max(1);
        let min = self.min_ms as f64;
        let delay = match self.backoff {
            Backoff::Linear => min * f64::from(times),
            Backoff::Exponential => min * self.factor.powi(i32::from(times) - 1),
            Backoff::Fixed => min,
        };
        let delay = delay.min(self.max_ms as f64) * (1.0 - self.jitter * chance);
        // Conversions of floats saturate.
        Some(delay as u64)
    }

    /// True when a random number has an effect.
    pub(super) fn has_jitter(&self) -> bool {
        self.jitter > 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polymq_model::{Table, Value};

    fn retry(pairs: &[(&str, Value)]) -> Result<Option<Retry>, Refusal> {
        let table: Table = pairs.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
        Retry::parse(&Arguments::new(&table, "x-"))
    }

    fn text(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    fn delays(backoff: &str) -> Vec<u64> {
        let retry = retry(&[
            ("x-delayed-retry-type", text("failed")),
            ("x-delayed-retry-min", Value::I32(100)),
            ("x-delayed-retry-max", text("350")),
            ("x-delayed-retry-backoff", text(backoff)),
        ]);
        let retry = retry.expect("a right policy").expect("a policy");
        assert_eq!(retry.delay_ms(false, 1, 0.0), None);
        (1..=4).filter_map(|times| retry.delay_ms(true, times, 0.0)).collect()
    }

    #[test]
    fn delays_grow_as_the_backoff_says_up_to_the_largest() {
        assert_eq!(delays("linear"), [100, 200, 300, 350]);
        assert_eq!(delays("exponential"), [100, 200, 350, 350]);
        assert_eq!(delays("fixed"), [100, 100, 100, 100]);
    }

    #[test]
    fn jitter_takes_up_to_its_part_away() {
        let retry = retry(&[
            ("x-delayed-retry-type", text("all")),
            ("x-delayed-retry-min", Value::I32(1000)),
            ("x-delayed-retry-jitter", Value::F64(0.5)),
        ]);
        let retry = retry.expect("a right policy").expect("a policy");
        assert_eq!(retry.delay_ms(false, 1, 0.0), Some(1000));
        assert_eq!(retry.delay_ms(false, 1, 1.0), Some(500));
    }

    #[test]
    fn a_policy_without_min_or_with_a_max_below_it_is_refused() {
        let all = ("x-delayed-retry-type", text("all"));
        assert!(retry(std::slice::from_ref(&all)).is_err());
        let min = ("x-delayed-retry-min", Value::I32(10));
        assert!(retry(&[all.clone(), min.clone()]).is_ok());
        let max = ("x-delayed-retry-max", Value::I32(9));
        assert!(retry(&[all.clone(), min.clone(), max.clone()]).is_err());
        // Their type may come from elsewhere, a policy or a later declaration.
        assert!(retry(&[min.clone(), max]).is_err());
        for (name, value) in [
            ("x-delayed-retry-factor", Value::I32(1)),
            ("x-delayed-retry-jitter", Value::F64(1.5)),
            ("x-delayed-retry-backoff", text("never")),
            ("x-delayed-retry-type", text("some")),
        ] {
            assert!(retry(&[all.clone(), min.clone(), (name, value)]).is_err(), "{name}");
        }
    }
}
