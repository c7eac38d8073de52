use std::cell::Cell;

use super::*;
use crate::Limits;

fn to_dot(topic: &str) -> String {
    let mut out = String::new();
    slash_to_dot(topic, &mut out);
    out
}

fn to_slash(key: &str) -> Option<String> {
    let mut out = String::new();
    dot_to_slash(key, &mut out).then_some(out)
}

#[test]
fn the_two_forms_of_a_topic_are_those_of_the_manual() {
    for (dot, slash) in [
        ("sensors.kitchen", "sensors/kitchen"),
        ("a/b.c", "a.b/c"),
        ("spBv1/0.group.DDATA", "spBv1.0/group/DDATA"),
        (".a..b.", "/a//b/"),
        (".", "/"),
        ("a.*.b", "a/*/b"),
        ("a.+.#", "a/%2B/%23"),
        ("100%.a.%2B", "100%/a/%252B"),
        ("living room.é", "living room/é"),
        ("$SYS.x", "$SYS/x"),
    ] {
        assert_eq!(to_slash(dot).as_deref(), Some(slash), "{dot}");
        assert_eq!(to_dot(slash), dot, "{slash}");
    }
    assert_eq!(to_slash(""), None);
    assert!(valid_key("", &Limits::default()).is_ok());
}

#[test]
fn topics_over_a_limit_are_refused() {
    let limits = Limits { topic_bytes_max: 8, topic_levels_max: 3, ..Limits::default() };
    assert_eq!(valid_topic_name("", &limits), Err(BadTopic::Empty));
    assert_eq!(valid_topic_name("a\0", &limits), Err(BadTopic::Nul));
    assert_eq!(valid_topic_name("a/+", &limits), Err(BadTopic::Wildcard('+')));
    assert_eq!(valid_topic_name("a#", &limits), Err(BadTopic::Wildcard('#')));
    assert_eq!(valid_topic_name("123456789", &limits), Err(BadTopic::TooLong { bytes: 9, max: 8 }));
    let levels = Err(BadTopic::TooManyLevels { levels: 4, max: 3 });
    assert_eq!(valid_topic_name("///", &limits), levels);
    assert_eq!(valid_topic_filter("a/+/#/b", &limits), levels);
    assert_eq!(valid_key("...", &limits), levels);
    assert_eq!(valid_topic_name("a/b.c/d", &limits), Ok(()));
    assert_eq!(valid_key("///.", &limits), Ok(()));
}

#[test]
fn malformed_filters_are_refused() {
    for filter in ["", "a+", "+a/b", "a/#/b", "a#", "#/#", "a/+#", "\0"] {
        assert!(Pattern::slash(filter).is_err(), "{filter:?}");
    }
    for filter in ["+", "#", "/", "+/+", "a/#", "/+/#", "a.b/*", "a/%2B"] {
        assert!(Pattern::slash(filter).is_ok(), "{filter:?}");
    }
    assert_eq!(Pattern::dot("#.a.#.b.#"), Err(BadPattern::TooManyMany(3)));
    assert!(Pattern::dot("#.a.#").is_ok());
    assert_eq!(Pattern::dot("a.\0"), Err(BadPattern::Nul));
    assert_eq!(Pattern::dot(&".".repeat(1000)), Err(BadPattern::TooManyLevels(1001)));
}

#[test]
fn patterns_match_what_the_manual_says() {
    for (pattern, key, expected) in [
        (Pattern::slash("a/#"), "a", true),
        (Pattern::slash("a/#"), "a.b.c", true),
        (Pattern::slash("a/#"), "ab", false),
        (Pattern::slash("a/+"), "a", false),
        (Pattern::slash("a/+"), "a.", true),
        (Pattern::slash("a/*/b"), "a.*.b", true),
        (Pattern::slash("a/*/b"), "a.x.b", false),
        (Pattern::slash("a.b/c"), "a/b.c", true),
        (Pattern::slash("a/%2B"), "a.+", true),
        (Pattern::slash("a/%252B"), "a.%2B", true),
        (Pattern::slash("#"), "", false),
        (Pattern::slash("#"), "$SYS.x", false),
        (Pattern::slash("+/x"), "$SYS.x", false),
        (Pattern::slash("$SYS/#"), "$SYS.x", true),
        (Pattern::slash("a/+"), "a.$SYS", true),
        (Pattern::dot("#"), "", true),
        (Pattern::dot("#"), "$SYS.x", true),
        (Pattern::dot(""), "", true),
        (Pattern::dot(""), "a", false),
        (Pattern::dot("*"), "", false),
        (Pattern::dot("#.*.#"), "", false),
        (Pattern::dot("#.*.#"), "a", true),
        (Pattern::dot("a.#.b.#.c"), "a.b.x.b.c", true),
        (Pattern::dot("a.#.b.#.c"), "a.x.c", false),
        (Pattern::dot("a.+"), "a.+", true),
        (Pattern::dot("a.+"), "a.b", false),
    ] {
        let pattern = pattern.unwrap();
        assert_eq!(pattern.matches(key), expected, "{pattern:?} {key:?}");
    }
}

#[test]
fn a_stored_filter_is_the_filter_with_its_separators_exchanged() {
    let stored = Pattern::stored("a.+.*", Syntax::Slash).unwrap();
    assert_eq!(stored, Pattern::slash("a/+/*").unwrap());
    assert!(stored.matches("a.x.*") && !stored.matches("a.x.y"));
    assert!(stored.hides_dollar() && !stored.is_literal());
}

#[test]
fn one_filter_covers_another_when_no_topic_escapes_it() {
    let slash = |filter: &str| Pattern::slash(filter).unwrap();
    let dot = |key: &str| Pattern::dot(key).unwrap();
    for (outer, inner, expected) in [
        (slash("1000/#"), slash("1000/a/+"), true),
        (slash("1000/#"), slash("1000"), true),
        (slash("1000/#"), slash("#"), false),
        (slash("1000/#"), dot("1000.#"), true),
        (slash("+/a"), slash("b/a"), true),
        (slash("#"), dot("#"), false),
        (slash("#"), dot("$SYS.x"), false),
        (slash("#"), dot("a.#"), true),
        (dot("#"), slash("#"), true),
        (dot("*.#"), slash("#"), true),
        (dot("*.#"), dot("#"), false),
        (dot("*.#"), dot("#.a"), true),
        (dot("#.a.#"), dot("a.#"), true),
        (dot("#.a.#"), dot("#.b.a"), true),
        (dot("#.a.#"), dot("*.#"), false),
        (dot("a.*"), dot("*.a"), false),
    ] {
        assert_eq!(outer.covers(&inner), expected, "{outer:?} {inner:?}");
    }
}

#[test]
fn long_keys_are_shortened_to_distinct_texts() {
    assert_eq!(amqp_wire_key(&"a".repeat(255)), "a".repeat(255));
    let mut seen = std::collections::HashSet::new();
    for length in 256..600 {
        for last in ["x", "é", "𝄞", "."] {
            for first in ["a", "é", "𝄞"] {
                let key = format!("{}{last}", first.repeat(length));
                let wire = amqp_wire_key(&key).into_owned();
                assert!(wire.len() <= 255 && wire.len() > 250);
                let (kept, digits) = wire.rsplit_once('~').unwrap();
                assert!(key.starts_with(kept) && digits.len() == 8);
                assert!(seen.insert(wire));
            }
        }
    }
    // CRC-32C, as its published check value says.
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, b"123456789");
    assert_eq!(crc, 0xe306_9283);
}

thread_local! {
    static VISITS: Cell<usize> = const { Cell::new(0) };
}

/// A node of a trie is visited.
pub(super) fn count_visit() {
    VISITS.set(VISITS.get() + 1);
}

/// The nodes that are visited and the entries that are found for a key.
fn effort(trie: &Trie<String>, key: &str) -> (usize, usize) {
    let before = VISITS.get();
    let mut found = 0;
    trie.for_each_match(key, |_| found += 1);
    (VISITS.get() - before, found)
}

#[test]
fn a_search_takes_as_many_steps_among_100000_patterns_as_among_a_few() {
    let fill = |sites: usize, devices: usize| {
        let mut trie = Trie::new();
        let mut add = |text: String| trie.insert(&Pattern::dot(&text).unwrap(), text);
        for site in 0..sites {
            add(format!("site.{site}.#"));
            for device in 0..devices {
                add(format!("site.{site}.device.{device}.temperature"));
                add(format!("site.{site}.device.{device}.*"));
            }
        }
        trie
    };
    let (few, many) = (fill(1, 1), fill(300, 167));
    assert!(many.len() > 100_000);
    let wanted = effort(&few, "site.0.device.0.temperature");
    // A node for each level and the root, one for the star, and the root of MQTT's patterns.
    assert_eq!(wanted, (8, 3));
    assert_eq!(effort(&many, "site.299.device.166.temperature"), wanted);
    assert_eq!(effort(&many, "site.299.device.none.temperature").0, 5);
}

mod properties {
    use std::collections::HashMap;

    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    /// Text rich in everything that could be mistaken for something else.
    fn nasty() -> impl Strategy<Value = String> {
        "([./*#+%25B3$ aé€𝄞]|%2B|%23|%252B|%25){0,14}"
    }

    fn level() -> impl Strategy<Value = String> {
        "([.*#+%25B3$ aé]|%2B|%23|%25){0,6}"
    }

    /// Short keys of few levels, so that patterns do match.
    fn small_key() -> impl Strategy<Value = String> {
        vec(select(vec!["a", "b", "", "$s", "+", "*"]), 0..6).prop_map(|levels| levels.join("."))
    }

    fn small_dot() -> impl Strategy<Value = String> {
        vec(select(vec!["a", "b", "", "$s", "*", "*", "#"]), 0..6)
            .prop_map(|levels| levels.join("."))
            .prop_filter("two at most", |key| Pattern::dot(key).is_ok())
    }

    fn small_slash() -> impl Strategy<Value = String> {
        (vec(select(vec!["a", "b", "", "$s", "+", "+", "*"]), 0..5), any::<bool>())
            .prop_map(|(mut levels, many)| {
                levels.extend(many.then_some("#"));
                levels.join("/")
            })
            .prop_filter("not empty", |filter| !filter.is_empty())
    }

    fn small_pattern() -> impl Strategy<Value = Pattern> {
        prop_oneof![
            small_dot().prop_map(|key| Pattern::dot(&key).unwrap()),
            small_slash().prop_map(|filter| Pattern::slash(&filter).unwrap()),
        ]
    }

    /// AMQP topic matching, as plainly as it can be said.
    fn amqp_matches(pattern: &[&str], key: &[&str]) -> bool {
        match pattern.split_first() {
            None => key.is_empty(),
            Some((&"#", rest)) => (0..=key.len()).any(|n| amqp_matches(rest, &key[n..])),
            Some((&"*", rest)) => !key.is_empty() && amqp_matches(rest, &key[1..]),
            Some((word, rest)) => key.first() == Some(word) && amqp_matches(rest, &key[1..]),
        }
    }

    /// MQTT 5, section 4.7, on filters without escapes.
    fn mqtt_matches(filter: &[&str], topic: &[&str]) -> bool {
        match filter.split_first() {
            None => topic.is_empty(),
            Some((&"#", _)) => true,
            Some((&"+", rest)) => !topic.is_empty() && mqtt_matches(rest, &topic[1..]),
            Some((word, rest)) => topic.first() == Some(word) && mqtt_matches(rest, &topic[1..]),
        }
    }

    fn words(key: &str) -> Vec<&str> {
        if key.is_empty() { Vec::new() } else { key.split('.').collect() }
    }

    proptest! {
        #![proptest_config(crate::test_config(1000))]

        #[test]
        fn levels_join_to_the_key_and_are_never_one_empty_level(key in nasty()) {
            let read: Vec<_> = levels(&key).collect();
            prop_assert_eq!(read.join("."), key.clone());
            prop_assert_ne!(read, vec![""]);
        }

        #[test]
        fn a_key_survives_its_slash_form(key in nasty()) {
            match to_slash(&key) {
                None => prop_assert!(key.is_empty()),
                Some(topic) => {
                    prop_assert!(!topic.contains(['+', '#']));
                    prop_assert_eq!(to_dot(&topic), key);
                }
            }
        }

        #[test]
        fn a_topic_name_survives_its_dot_form(topic in nasty()) {
            prop_assume!(valid_topic_name(&topic, &Limits::default()).is_ok());
            prop_assert_eq!(to_slash(&to_dot(&topic)), Some(topic));
        }

        #[test]
        fn the_list_of_levels_is_the_same_in_both_forms(topic in vec(level(), 1..5)) {
            prop_assume!(topic != [""]);
            let key = topic.iter().map(|level| level.replace('.', "/")).collect::<Vec<_>>();
            let key = key.join(".");
            let slash = to_slash(&key).unwrap();
            prop_assert_eq!(slash.split('/').count(), topic.len());
            for (text, level) in slash.split('/').zip(&topic) {
                prop_assert_eq!(&to_dot(text).replace('/', "."), level);
            }
        }

        #[test]
        fn distinct_keys_have_distinct_topics(one in nasty(), other in nasty()) {
            prop_assert_eq!(one == other, to_slash(&one) == to_slash(&other));
        }

        #[test]
        fn a_pattern_of_literals_matches_exactly_one_topic(key in nasty(), other in nasty()) {
            let Some(topic) = to_slash(&key) else { return Ok(()) };
            let pattern = Pattern::slash(&topic).unwrap();
            prop_assert!(pattern.is_literal());
            prop_assert!(pattern.matches(&key));
            prop_assert_eq!(pattern.matches(&other), other == key);
        }

        #[test]
        fn a_filter_survives_being_stored(filter in nasty()) {
            let mut key = String::new();
            swap_separators(&filter, &mut key);
            let stored = Pattern::stored(&key, Syntax::Slash);
            prop_assert_eq!(stored, Pattern::slash(&filter));
        }

        #[test]
        fn dot_patterns_agree_with_a_plain_matcher(pattern in small_dot(), key in small_key()) {
            let expected = amqp_matches(&words(&pattern), &words(&key));
            prop_assert_eq!(Pattern::dot(&pattern).unwrap().matches(&key), expected);
        }

        #[test]
        fn slash_patterns_agree_with_a_plain_matcher(filter in small_slash(), key in small_key()) {
            let hidden = key.is_empty() || key.starts_with('$') && filter.starts_with(['+', '#']);
            let split: Vec<_> = filter.split('/').collect();
            let expected = !hidden && mqtt_matches(&split, &words(&key));
            prop_assert_eq!(Pattern::slash(&filter).unwrap().matches(&key), expected);
        }

        #[test]
        fn a_covered_pattern_matches_nothing_else(
            outer in small_pattern(), inner in small_pattern(), keys in vec(small_key(), 40),
        ) {
            if outer.covers(&inner) {
                for key in keys {
                    prop_assert!(!inner.matches(&key) || outer.matches(&key), "{}", key);
                }
            }
            prop_assert!(outer.covers(&outer));
        }

        #[test]
        fn a_pattern_that_is_not_covered_has_a_topic_outside(
            outer in small_pattern(), inner in small_pattern(),
        ) {
            // The text of one empty level does not exist; `covers` does not know, and errs to the
            // safe side.
            let begins_empty = inner.levels().first() == Some(&Level::Literal("".into()));
            if outer.covers(&inner) || begins_empty && inner.levels().len() == 2 {
                return Ok(());
            }
            // Every wildcard becomes levels that no literal equals, each `Many` also none and
            // several.
            let mut keys = vec![Vec::new()];
            for level in inner.levels() {
                let texts: Vec<Vec<&str>> = match level {
                    Level::Literal(text) => vec![vec![&**text]],
                    Level::One => vec![vec!["zz"], vec!["$zz"]],
                    Level::Many => (0..8).flat_map(|n| {
                        let mut hidden = vec!["zz"; n];
                        hidden.insert(0, "$zz");
                        [vec!["zz"; n], hidden]
                    }).collect(),
                };
                keys = keys.iter().flat_map(|key: &Vec<&str>| texts.iter().map(move |text| {
                    key.iter().chain(text).copied().collect::<Vec<_>>()
                })).collect();
                if keys.len() > 20_000 {
                    return Ok(());
                }
            }
            let escapes = keys.iter().map(|key| key.join("."))
                .any(|key| inner.matches(&key) && !outer.matches(&key));
            prop_assert!(escapes, "{:?} {:?}", outer, inner);
        }

        #[test]
        fn the_trie_finds_what_the_patterns_say(
            patterns in vec(small_pattern(), 0..60),
            removed in vec(any::<prop::sample::Index>(), 0..30),
            keys in vec(small_key(), 10),
        ) {
            let mut trie = Trie::new();
            let mut model: HashMap<usize, (Pattern, EntryId)> = HashMap::new();
            for (value, pattern) in patterns.iter().enumerate() {
                let id = trie.insert(pattern, value);
                model.insert(value, (pattern.clone(), id));
            }
            let before = (trie.clone(), model.clone());
            for (turn, index) in removed.iter().enumerate().filter(|_| !patterns.is_empty()) {
                let value = index.index(patterns.len());
                let (pattern, id) = &before.1[&value];
                let expected = model.remove(&value).map(|_| value);
                let found = if turn % 2 == 0 {
                    trie.remove(pattern, |found| *found == value)
                } else {
                    trie.remove_entry(pattern, *id)
                };
                prop_assert_eq!(found, expected);
            }
            for (trie, model) in [(&trie, &model), (&before.0, &before.1)] {
                prop_assert_eq!(trie.len(), model.len());
                for key in &keys {
                    let mut found = Vec::new();
                    trie.for_each_match(key, |value| found.push(*value));
                    found.sort_unstable();
                    let mut expected: Vec<_> = model.iter()
                        .filter(|(_, (pattern, _))| pattern.matches(key))
                        .map(|(value, _)| *value)
                        .collect();
                    expected.sort_unstable();
                    prop_assert_eq!(found, expected, "{}", key);
                }
            }
        }
    }

    #[test]
    fn many_values_of_one_pattern_come_and_go() {
        let pattern = Pattern::slash("all/#").unwrap();
        let mut trie = Trie::new();
        let ids: Vec<_> = (0..500).map(|value| trie.insert(&pattern, value)).collect();
        let snapshot = trie.clone();
        for (value, id) in ids.iter().enumerate().filter(|(value, _)| value % 3 != 0) {
            assert_eq!(trie.remove_entry(&pattern, *id), Some(value));
            assert_eq!(trie.remove_entry(&pattern, *id), None);
        }
        let sum = |trie: &Trie<usize>| {
            let (mut count, mut sum) = (0, 0);
            trie.for_each_match("all.x", |value| {
                count += 1;
                sum += value;
            });
            (count, sum)
        };
        assert_eq!(sum(&snapshot), (500, (0..500).sum()));
        assert_eq!(sum(&trie), (167, (0..500).step_by(3).sum()));
    }
}
