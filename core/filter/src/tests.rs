use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Default)]
struct Row {
    fields: HashMap<&'static str, Scalar<'static>>,
    body: Vec<u8>,
}

impl Fields for Row {
    fn field(&self, name: &str) -> Option<Scalar<'_>> {
        self.fields.get(name).cloned()
    }

    fn body(&self) -> Option<&[u8]> {
        Some(&self.body)
    }
}

fn row() -> Row {
    let fields = [
        ("n", Scalar::Int(5)),
        ("f", Scalar::Float(2.5)),
        ("t", Scalar::text("red_wine")),
        ("yes", Scalar::Bool(true)),
        ("no", Scalar::Bool(false)),
        ("since", Scalar::Time(1_000)),
        ("made_at", Scalar::text("1970-01-01T01:00:01.000+01:00")),
        ("x-tenant", Scalar::text("it's")),
    ];
    let body = br#"{"a":{"b":[7,"x"]},"big":1e3,"flag":false,"odd key":1}"#.to_vec();
    Row { fields: fields.into_iter().collect(), body }
}

fn selects(text: &str) -> bool {
    Filter::parse(text).expect(text).selects(&row(), 61_000)
}

#[test]
fn conditions_select_what_they_say() {
    for text in [
        "n = 5",
        "n <> 4 AND n != 4",
        "n > 4 AND n >= 5 AND n < 6 AND n <= 5",
        "n = 5.0 AND f = 2.5 AND f < n",
        "n * 2 + 1 = 11 AND (n + 1) * 2 = 12 AND n / 2 = 2 AND -n = -5",
        "n BETWEEN 5 AND 5 AND n NOT BETWEEN 6 AND 9",
        "t IN ('white', 'red_wine') AND t NOT IN ('blue')",
        "t LIKE 'red%' AND t LIKE '___\\_wine' ESCAPE '\\' AND t NOT LIKE 'wine%'",
        "nothing IS NULL AND n IS NOT NULL",
        "yes AND NOT no AND (yes OR nothing)",
        "\"x-tenant\" = 'it''s'",
        "json('$.a.b[0]') = 7 AND json('$.a.b[1]') = 'x' AND json('$.big') = 1000",
        "NOT json('$.flag') AND json('$[\"odd key\"]') = 1 AND json('$.a') IS NULL",
        "matches(t, '^red.wine$') AND NOT matches(t, 'white')",
        "age(since) = '1m' AND age(since) > '30s' AND '2m' > age(since)",
        "age(made_at) = '1m' AND age(made_at) < '2m'",
        "since = '1970-01-01T00:00:01Z' AND since < '1970-01-01T00:00:01.5Z' AND n=5",
        "'1969-12-31T00:00:00Z' < since AND since NOT BETWEEN 5 AND 6",
        "n=5 or nothing = 1",
    ] {
        assert!(selects(text), "{text}");
    }
}

#[test]
fn only_true_selects() {
    for text in [
        "nothing = 1",
        "NOT nothing = 1",
        "nothing <> 1",
        "nothing IN (1, 2)",
        "n NOT IN (1, NULL)",
        "nothing LIKE 'a%'",
        "nothing",
        "NULL",
        "n / 0 = 1",
        "t > 1",
        "t <> 1",
        "yes = 1",
        "t LIKE 'red'",
        "n AND yes",
        "age(t) > '1s'",
        "since > '5' OR since < 'never' OR since = '1970-13-01T00:00:01Z'",
        "json('$.none') = 1",
    ] {
        assert!(!selects(text), "{text}");
    }
}

#[test]
fn a_filter_names_its_fields() {
    let text = "a.b > 1 AND NOT (c LIKE 'x' OR age(d) < '1m') AND -e + f BETWEEN 1 AND g \
                AND h IN (1, 2) AND i IS NULL AND json('$.j') = 1 AND k";
    let fields = Filter::parse(text).unwrap().fields().join(" ");
    assert_eq!(fields, "a.b c d e f g h i k");
}

#[test]
fn mistakes_are_told_with_their_place() {
    for (text, at) in [
        ("", 0),
        ("n = ", 4),
        ("n = 5 6", 6),
        ("n ? 5", 2),
        ("t = 'open", 4),
        ("(n = 5", 6),
        ("n NOT 5", 6),
        ("t LIKE n", 7),
        ("t LIKE 'a' ESCAPE 'ab'", 18),
        ("t LIKE 'a!b' ESCAPE '!'", 7),
        ("nofunc(n)", 0),
        ("matches(t, '(')", 11),
        ("age(since) > 'soon'", 13),
        ("json('a.b') = 1", 6),
        ("json('$.a[x]') = 1", 9),
        ("5", 0),
        ("n = 5 AND", 9),
        ("1 + (n = 5) = 2", 4),
    ] {
        let bad = Filter::parse(text).expect_err(text);
        assert_eq!(bad.at, at, "{text}: {bad}");
    }
    let deep = format!("{}n = 5{}", "(".repeat(40), ")".repeat(40));
    assert!(Filter::parse(&deep).expect_err("too deep").what.contains("nests"));
    let long = "n = 5 OR ".repeat(1000);
    assert_eq!(Filter::parse(&long).expect_err("too long").at, FILTER_BYTES_MAX);
}

#[test]
fn whole_numbers_and_fractions_compare_exactly() {
    let big = Row {
        fields: [("big", Scalar::Int(9_007_199_254_740_993))].into_iter().collect(),
        body: Vec::new(),
    };
    let is = |text: &str| Filter::parse(text).expect(text).selects(&big, 0);
    assert!(is("big > 9007199254740992.0") && !is("big = 9007199254740992.0"));
    assert!(is("big < 1e300") && is("big > -1e300"));
}

#[test]
fn durations_are_read_and_written() {
    for (text, ms) in [("5m", 300_000), ("1h30m", 5_400_000), ("250ms", 250), ("0s", 0)] {
        assert_eq!(duration_from_text(text), Some(ms), "{text}");
    }
    for text in ["", "5", "m", "5x", "-5s", "99999999999999999999d"] {
        assert_eq!(duration_from_text(text), None, "{text}");
    }
    for ms in [0, 1, 250, 1000, 60_000, 90_000, 86_400_000] {
        assert_eq!(duration_from_text(&duration_to_text(ms)), Some(ms));
    }
}

/// A condition, and what it is by the tables of three-valued logic.
fn logic() -> impl Strategy<Value = (String, Option<bool>)> {
    let leaf = prop_oneof![
        Just(("yes".to_owned(), Some(true))),
        Just(("no".to_owned(), Some(false))),
        Just(("nothing".to_owned(), None)),
        Just(("n = 5".to_owned(), Some(true))),
        Just(("n > nothing".to_owned(), None)),
    ];
    leaf.prop_recursive(6, 48, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|(text, truth)| (format!("NOT ({text})"), truth.map(|t| !t))),
            (inner.clone(), inner.clone()).prop_map(|((a, x), (b, y))| {
                let both = match (x, y) {
                    (Some(false), _) | (_, Some(false)) => Some(false),
                    (Some(true), Some(true)) => Some(true),
                    _ => None,
                };
                (format!("({a} AND {b})"), both)
            }),
            (inner.clone(), inner).prop_map(|((a, x), (b, y))| {
                let either = match (x, y) {
                    (Some(true), _) | (_, Some(true)) => Some(true),
                    (Some(false), Some(false)) => Some(false),
                    _ => None,
                };
                (format!("({a} OR {b})"), either)
            }),
        ]
    })
}

proptest! {
    #[test]
    fn logic_follows_its_tables((text, truth) in logic()) {
        let filter = Filter::parse(&text).expect(&text);
        prop_assert_eq!(filter.selects(&row(), 0), truth == Some(true));
        let negated = Filter::parse(&format!("NOT ({text})")).expect(&text);
        prop_assert_eq!(negated.selects(&row(), 0), truth == Some(false));
    }

    #[test]
    fn any_text_is_read_or_refused_at_a_place_inside(text in "\\PC{0,60}") {
        match Filter::parse(&text) {
            Ok(filter) => { filter.selects(&row(), 0); }
            Err(bad) => prop_assert!(bad.at <= text.len()),
        }
    }

    #[test]
    fn like_is_what_it_says(text in "[ab%_]{0,6}", pattern in "[ab%_]{0,5}") {
        let fields = [("t", Scalar::Text(text.clone().into()))].into_iter().collect();
        let row = Row { fields, body: Vec::new() };
        let filter = Filter::parse(&format!("t LIKE '{pattern}'")).expect("a pattern");
        prop_assert_eq!(filter.selects(&row, 0), like(text.as_bytes(), pattern.as_bytes()));
    }

    #[test]
    fn numbers_keep_their_order(a in any::<i64>(), b in any::<i64>()) {
        let fields = [("a", Scalar::Int(a)), ("b", Scalar::Float(b as f64))].into_iter().collect();
        let row = Row { fields, body: Vec::new() };
        let is = |text: &str| Filter::parse(text).expect(text).selects(&row, 0);
        let one = [is("a < b"), is("a = b"), is("a > b")];
        prop_assert_eq!(one.into_iter().filter(|is| *is).count(), 1);
        prop_assert_eq!(is("a >= b"), !is("a < b"));
    }
}

/// The plain implementation.
fn like(text: &[u8], pattern: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, rest) => rest.is_none(),
        (Some((b'%', more)), rest) => {
            like(text, more) || rest.is_some_and(|(_, rest)| like(rest, pattern))
        }
        (Some((b'_', more)), Some((_, rest))) => like(rest, more),
        (Some((sign, more)), Some((first, rest))) => sign == first && like(rest, more),
        (Some(_), None) => false,
    }
}
