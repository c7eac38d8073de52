//! Reading the arguments of a declaration or the definition of a policy.

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{Table, Value, value::find};

use crate::declare::shown;

/// Longest time of a queue's arguments, in ms: ten years, as RabbitMQ has it.
const TIME_MS_MAX: u64 = 315_360_000_000;

/// What is wrong with a table, so that all of it can be told at once.
#[derive(Default)]
pub(super) struct Wrong(Vec<Refusal>);

impl Wrong {
    /// The value where it is right.
    pub(super) fn note<T>(&mut self, found: Result<Option<T>, Refusal>) -> Option<T> {
        match found {
            Ok(value) => value,
            Err(refusal) => {
                self.0.push(refusal);
                None
            }
        }
    }

    /// Errors: one refusal with everything that was noted, of the kind of the first.
    pub(super) fn check(self) -> Result<(), Refusal> {
        let Some(kind) = self.0.first().map(|refusal| refusal.kind) else { return Ok(()) };
        let texts: Vec<String> = self.0.into_iter().map(|refusal| refusal.text).collect();
        Err(Refusal::new(kind, texts.join("; ")))
    }
}

/// A table whose names begin with a prefix.
pub(super) struct Arguments<'a> {
    table: &'a Table,
    prefix: &'static str,
}

impl<'a> Arguments<'a> {
    pub(super) fn new(table: &'a Table, prefix: &'static str) -> Self {
        Self { table, prefix }
    }

    /// The whole name of an argument.
    pub(super) fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        find(self.table, &self.name(name))
    }

    fn invalid(&self, name: &str, value: &Value, wanted: &str) -> Refusal {
        invalid(&self.name(name), value, wanted)
    }

    /// A whole number; the inner `None` is one below 0.
    ///
    /// Errors: kind `Invalid` for another type, or less than `least`.
    pub(super) fn number(&self, name: &str, least: i64) -> Result<Option<Option<u64>>, Refusal> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_i64() {
            Some(number) if number >= least => Ok(Some(u64::try_from(number).ok())),
            _ => Err(self.invalid(name, value, &format!("a number of at least {least}"))),
        }
    }

    /// A number of 0 or more.
    ///
    /// Errors: as of [`number`](Self::number).
    pub(super) fn count(&self, name: &str) -> Result<Option<u64>, Refusal> {
        Ok(self.number(name, 0)?.flatten())
    }

    /// A time in ms.
    ///
    /// Errors: as of [`number`](Self::number), and for times that are too long.
    pub(super) fn time(&self, name: &str, least: i64) -> Result<Option<u64>, Refusal> {
        let time = self.number(name, least)?.flatten();
        match (time, self.get(name)) {
            (Some(ms), Some(value)) if ms > TIME_MS_MAX => {
                Err(self.invalid(name, value, &format!("a number of at most {TIME_MS_MAX}")))
            }
            _ => Ok(time),
        }
    }

    /// A number that may have a fraction.
    ///
    /// Errors: kind `Invalid` for another type, and when it is not `wanted`.
    pub(super) fn fraction(
        &self,
        name: &str,
        wanted: &str,
        is_right: impl Fn(f64) -> bool,
    ) -> Result<Option<f64>, Refusal> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match fraction_of(value).filter(|number| is_right(*number)) {
            Some(number) => Ok(Some(number)),
            None => Err(self.invalid(name, value, wanted)),
        }
    }

    /// Errors: kind `Invalid` for another type.
    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.invalid(name, value, "text"))
    }

    /// One of some words.
    ///
    /// Errors: kind `Invalid` for another type or word.
    pub(super) fn word(&self, name: &str, words: &[&str]) -> Result<Option<&'a str>, Refusal> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        if words.contains(&text) {
            return Ok(Some(text));
        }
        let (last, others) = words.split_last().unwrap_or((&"", &[]));
        let wanted = format!("{} or {last}", others.join(", "));
        Err(self.invalid(name, &Value::String(text.to_owned()), &wanted))
    }

    /// Errors: kind `Invalid` for another type.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Refusal> {
        let Some(value) = self.get(name) else { return Ok(false) };
        value.as_bool().ok_or_else(|| self.invalid(name, value, "true or false"))
    }
}

/// A number of any type that may have a fraction.
pub(super) fn fraction_of(value: &Value) -> Option<f64> {
    match value {
        Value::F32(number) => Some(f64::from(*number)),
        Value::F64(number) => Some(*number),
        Value::String(text) => text.parse().ok(),
        Value::Decimal { scale, unscaled } => {
            Some(*unscaled as f64 / 10_f64.powi(i32::from(*scale)))
        }
        other => other.as_i64().map(|number| number as f64),
    }
}

pub(crate) fn invalid(name: &str, value: &Value, wanted: &str) -> Refusal {
    Refusal::new(
        RefusalKind::Invalid,
        format!("invalid arg '{name}': '{}' is not {wanted}", shown(value)),
    )
}
