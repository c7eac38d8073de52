//! Matching of header values, for exchanges of type `headers`.

use std::borrow::Cow;

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{Properties, Table, Value, carry::header_as_sent, value::find};

/// Errors: kind `Invalid` when `x-match` is none of the words it can be.
pub(super) fn check(arguments: &Table) -> Result<(), Refusal> {
    match find(arguments, "x-match").map(Value::as_str) {
        None | Some(Some("all" | "any" | "all-with-x" | "any-with-x")) => Ok(()),
        Some(other) => Err(Refusal::new(
            RefusalKind::Invalid,
            format!(
                "x-match is all, any, all-with-x or any-with-x, not '{}'",
                other.unwrap_or("a value of another type")
            ),
        )),
    }
}

/// Whether the headers of a message satisfy the arguments of a binding.
///
/// Without `-with-x`, arguments whose names begin with `x-` are not looked at.
pub(super) fn matches(arguments: &Table, props: &Properties) -> bool {
    let mode = find(arguments, "x-match").and_then(Value::as_str).unwrap_or("all");
    let (any, with_x) = match mode {
        "any" => (true, false),
        "any-with-x" => (true, true),
        "all-with-x" => (false, true),
        _ => (false, false),
    };
    let mut wanted = arguments
        .iter()
        .filter(|(name, _)| name != "x-match" && (with_x || !name.starts_with("x-")));
    let satisfied = |(name, value): &(String, Value)| {
        header_of(props, name).is_some_and(|found| *value == Value::Null || same(value, &found))
    };
    if any { wanted.any(satisfied) } else { wanted.all(satisfied) }
}

/// The first argument of a binding that the headers of a message do not satisfy.
pub(crate) fn unmet_header<'a>(arguments: &'a Table, props: &Properties) -> Option<&'a str> {
    let is_unmet = |(name, value): &&(String, Value)| {
        let alone = vec![(name.clone(), value.clone())];
        name != "x-match" && !name.starts_with("x-") && !matches(&alone, props)
    };
    arguments.iter().find(is_unmet).map(|(name, _)| name.as_str())
}

/// The header under the name its sender gave it.
pub(super) fn header_of<'a>(props: &'a Properties, name: &str) -> Option<Cow<'a, Value>> {
    let found = props.header(name).map(Cow::Borrowed);
    found.or_else(|| header_as_sent(props, name))
}

/// Values compare by the class of their type and by value: all numbers are one class, so are all
/// texts, and all bytes.
fn same(a: &Value, b: &Value) -> bool {
    match (whole(a), whole(b), fraction(a), fraction(b)) {
        (Some(x), Some(y), _, _) => return x == y,
        (Some(x), None, None, Some(y)) | (None, Some(x), Some(y), None) => return x as f64 == y,
        (None, None, Some(x), Some(y)) => return x == y,
        _ => {}
    }
    match (a, b) {
        (Value::Bytes(x) | Value::LongString(x), Value::Bytes(y) | Value::LongString(y)) => x == y,
        _ => match (a.as_str(), b.as_str()) {
            (Some(x), Some(y)) => x == y,
            _ => a == b,
        },
    }
}

fn whole(value: &Value) -> Option<i64> {
    if value.as_str().is_some() { None } else { value.as_i64() }
}

fn fraction(value: &Value) -> Option<f64> {
    match value {
        Value::F32(number) => Some(f64::from(*number)),
        Value::F64(number) => Some(*number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn props(pairs: &[(&str, Value)]) -> Properties {
        Properties { headers: table(pairs), ..Properties::default() }
    }

    fn table(pairs: &[(&str, Value)]) -> Table {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect()
    }

    #[test]
    fn all_wants_every_argument_and_any_wants_one() {
        let headers = props(&[("a", Value::I32(1)), ("b", Value::String("x".into()))]);
        let both = [("a", Value::U8(1)), ("b", Value::String("x".into()))];
        assert!(matches(&table(&both), &headers));
        let one = [("a", Value::U8(1)), ("b", Value::String("y".into()))];
        assert!(!matches(&table(&one), &headers));
        let mut any = table(&one);
        any.push(("x-match".into(), Value::String("any".into())));
        assert!(matches(&any, &headers));
    }

    #[test]
    fn a_void_value_means_present() {
        let headers = props(&[("a", Value::I32(1))]);
        assert!(matches(&table(&[("a", Value::Null)]), &headers));
        assert!(!matches(&table(&[("b", Value::Null)]), &headers));
    }

    #[test]
    fn names_beginning_with_x_count_only_when_asked_for() {
        let headers = props(&[("a", Value::I32(1))]);
        let plain = table(&[("a", Value::I32(1)), ("x-b", Value::I32(2))]);
        assert!(matches(&plain, &headers));
        let mut with_x = plain;
        with_x.push(("x-match".into(), Value::String("all-with-x".into())));
        assert!(!matches(&with_x, &headers));
    }

    #[test]
    fn numbers_compare_by_value_whatever_their_type() {
        let headers = props(&[("a", Value::F64(1.0))]);
        assert!(matches(&table(&[("a", Value::I32(1))]), &headers));
        assert!(matches(&table(&[("a", Value::F32(1.0))]), &headers));
        assert!(!matches(&table(&[("a", Value::I32(2))]), &headers));
    }

    #[test]
    fn text_is_not_a_number() {
        let headers = props(&[("a", Value::String("1".into()))]);
        assert!(!matches(&table(&[("a", Value::I32(1))]), &headers));
    }

    #[test]
    fn headers_match_under_the_names_they_were_sent_with() {
        let mut sent = props(&[("cloudEvents_type", Value::String("t".into()))]);
        sent.group_id = Some("g".to_owned());
        for (name, value) in [("JMSXGroupID", "g"), ("cloudEvents:type", "t")] {
            let wanted = |value: &str| table(&[(name, Value::String(value.to_owned()))]);
            assert!(matches(&wanted(value), &sent), "{name}");
            assert!(!matches(&wanted("other"), &sent), "{name}");
        }
    }
}
