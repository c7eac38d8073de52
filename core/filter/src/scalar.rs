//! Values and how they compare.

use std::{borrow::Cow, cmp::Ordering};

use polymq_model::carry::rfc3339_to_ms;

/// A value of a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar<'a> {
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A fraction.
    Float(f64),
    /// Text.
    Text(Cow<'a, str>),
    /// A time in ms since 1970. It compares as a number, and with text in RFC 3339.
    Time(i64),
}

impl<'a> Scalar<'a> {
    /// Text by reference.
    pub fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// A whole number; one that is too large becomes a fraction.
    pub fn unsigned(number: u64) -> Self {
        i64::try_from(number).map_or(Self::Float(number as f64), Self::Int)
    }
}

/// A text in RFC 3339 as a time, in ms since 1970; `None` for any other.
pub(crate) fn time_of(text: &str) -> Option<i64> {
    // A number is a count to whoever wrote it, not a time.
    let is_date = text.as_bytes().get(4) == Some(&b'-');
    is_date.then(|| rfc3339_to_ms(text)).flatten()
}

/// How two values stand to each other; `None` when their types do not compare.
pub(crate) fn order(a: &Scalar<'_>, b: &Scalar<'_>) -> Option<Ordering> {
    use Scalar::{Bool, Float, Int, Text, Time};
    match (a, b) {
        (Int(a) | Time(a), Int(b) | Time(b)) => Some(a.cmp(b)),
        (Float(a), Float(b)) => a.partial_cmp(b),
        (Int(a) | Time(a), Float(b)) => int_with_float(*a, *b),
        (Float(a), Int(b) | Time(b)) => int_with_float(*b, *a).map(Ordering::reverse),
        (Text(a), Text(b)) => Some(a.as_ref().cmp(b.as_ref())),
        (Time(a), Text(b)) => Some(a.cmp(&time_of(b)?)),
        (Text(a), Time(b)) => Some(time_of(a)?.cmp(b)),
        (Bool(a), Bool(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// Compares by value, without rounding the whole number.
fn int_with_float(int: i64, float: f64) -> Option<Ordering> {
    /// 2 to the power of 63, which a fraction holds exactly.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if float.is_nan() {
        return None;
    }
    if float >= BEYOND {
        return Some(Ordering::Less);
    }
    if float < -BEYOND {
        return Some(Ordering::Greater);
    }
    let whole = float.trunc();
    let by_whole = int.cmp(&(whole as i64));
    Some(by_whole.then_with(|| 0.0_f64.partial_cmp(&(float - whole)).unwrap_or(Ordering::Equal)))
}
