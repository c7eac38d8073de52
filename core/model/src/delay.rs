//! Delayed publishing: what a publisher asks for, and the headers that say so.

use crate::value::Value;

/// The header that also shows the delay of a message that has been delayed, negated.
pub const DELAY_HEADER: &str = "x-delay";

/// When a message is to be routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delay {
    /// So many ms after it was published.
    For(u64),
    /// At this wall time, in ms since 1970.
    Until(u64),
}

/// A header that says nothing that can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadDelay {
    /// It delays, but holds no number of ms.
    #[error("header {0} is not a whole number of milliseconds")]
    NotANumber(&'static str),
    /// What it asks for is planned: see [`DelayHeaders::LATER`].
    #[error("header {0} is not available yet")]
    NotAvailable(&'static str),
}

/// What the headers of a message say about its delay. Where several do, the first of
/// [`DelayHeaders::NAMES`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DelayHeaders {
    /// The place among the names of the one that counts, and what it says.
    found: Option<(u8, Delay)>,
    bad: Option<BadDelay>,
}

impl DelayHeaders {
    /// The headers that delay: a number of ms, or a time in ms since 1970, each as a number or as
    /// text.
    pub const NAMES: [&str; 4] =
        [DELAY_HEADER, "x-delivery-time", "AMQ_SCHEDULED_DELAY", "AMQ_SCHEDULED_TIME"];

    /// Headers that hold a message back in ways that are planned. They are refused, because a
    /// message that is delivered at once instead, or once, would look as if all were well.
    pub const LATER: [&str; 6] = [
        "x-half",
        "x-schedule-cron",
        "x-schedule-period",
        "AMQ_SCHEDULED_CRON",
        "AMQ_SCHEDULED_PERIOD",
        "AMQ_SCHEDULED_REPEAT",
    ];

    /// True when the header is one of [`DelayHeaders::NAMES`] or [`DelayHeaders::LATER`]. Cheap for
    /// all others.
    pub fn is_one(name: &[u8]) -> bool {
        matches!(name, [b'x', b'-', b'd' | b'h' | b's', ..] | [b'A', b'M', b'Q', b'_', ..])
            && Self::NAMES.iter().chain(&Self::LATER).any(|known| known.as_bytes() == name)
    }

    /// Notes a header. Others than those of [`DelayHeaders::is_one`] say nothing.
    pub fn add(&mut self, name: &str, value: &Value) {
        let Some(place) = Self::NAMES.iter().position(|known| *known == name) else {
            let later = Self::LATER.iter().find(|known| **known == name);
            if let Some(later) = later.filter(|_| value.as_bool() != Some(false)) {
                self.bad = Some(BadDelay::NotAvailable(later));
            }
            return;
        };
        let Some(ms) = value.as_i64() else {
            self.bad = Self::NAMES.get(place).map(|name| BadDelay::NotANumber(name));
            return;
        };
        // Less than zero means now, which is how a message shows that it has been delayed.
        let ms = u64::try_from(ms).unwrap_or(0);
        let delay = if place % 2 == 0 { Delay::For(ms) } else { Delay::Until(ms) };
        let place = u8::try_from(place).unwrap_or(u8::MAX);
        if self.found.is_none_or(|(before, _)| place < before) {
            self.found = Some((place, delay));
        }
    }

    /// The delay; `None` for now.
    ///
    /// Errors: [`BadDelay`] when one of the headers is no number or not available yet.
    pub fn delay(&self) -> Result<Option<Delay>, BadDelay> {
        if let Some(bad) = self.bad {
            return Err(bad);
        }
        let delay = self.found.map(|(_, delay)| delay);
        Ok(delay.filter(|delay| !matches!(delay, Delay::For(0) | Delay::Until(0))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&str, Value)]) -> Result<Option<Delay>, BadDelay> {
        let mut found = DelayHeaders::default();
        headers.iter().for_each(|(name, value)| found.add(name, value));
        found.delay()
    }

    fn text(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    #[test]
    fn numbers_and_decimal_text_count() {
        assert_eq!(of(&[("x-delay", Value::I32(5000))]), Ok(Some(Delay::For(5000))));
        assert_eq!(of(&[("x-delay", text("5000"))]), Ok(Some(Delay::For(5000))));
        assert_eq!(of(&[("x-delivery-time", Value::I64(9))]), Ok(Some(Delay::Until(9))));
        assert_eq!(of(&[("AMQ_SCHEDULED_DELAY", text("7"))]), Ok(Some(Delay::For(7))));
        assert_eq!(of(&[("AMQ_SCHEDULED_TIME", Value::U64(8))]), Ok(Some(Delay::Until(8))));
    }

    #[test]
    fn zero_or_less_means_now() {
        assert_eq!(of(&[("x-delay", Value::I32(0))]), Ok(None));
        assert_eq!(of(&[("x-delay", Value::I32(-5))]), Ok(None));
        // So a message that is published again as it was received is not delayed again.
        let again = [("AMQ_SCHEDULED_DELAY", Value::I32(9)), ("x-delay", Value::I32(-9))];
        assert_eq!(of(&again), Ok(None));
    }

    #[test]
    fn there_is_no_upper_bound() {
        let delay = Delay::For(i64::MAX as u64);
        assert_eq!(of(&[("x-delay", Value::I64(i64::MAX))]), Ok(Some(delay)));
    }

    #[test]
    fn anything_else_is_refused() {
        for value in [text("soon"), text(""), Value::Bool(true), Value::F64(1.5)] {
            assert_eq!(of(&[("x-delay", value)]), Err(BadDelay::NotANumber("x-delay")));
        }
        assert_eq!(of(&[("x-other", text("soon"))]), Ok(None));
    }

    #[test]
    fn what_is_planned_is_refused_unless_it_is_switched_off() {
        for name in DelayHeaders::LATER {
            assert_eq!(of(&[(name, text("1"))]), Err(BadDelay::NotAvailable(name)));
            assert_eq!(of(&[(name, Value::Bool(false))]), Ok(None));
        }
    }

    #[test]
    fn names_are_told_from_others() {
        for name in DelayHeaders::NAMES.into_iter().chain(DelayHeaders::LATER) {
            assert!(DelayHeaders::is_one(name.as_bytes()), "{name}");
        }
        for name in ["x-death", "AMQ_OTHER", "", "delay"] {
            assert!(!DelayHeaders::is_one(name.as_bytes()), "{name}");
        }
    }
}
