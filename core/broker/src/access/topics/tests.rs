use proptest::prelude::*;

use super::*;

fn names(client_id: Option<&str>) -> Names<'_> {
    Names { user: "ann", vhost: "v", client_id }
}

fn rule(text: &str, syntax: TopicSyntax) -> TopicRule {
    TopicRule::compile(text, syntax, &names(Some("c1"))).unwrap()
}

fn regex_rule(text: &str) -> TopicRule {
    rule(text, TopicSyntax::Regex)
}

fn dot(filter: &str) -> Pattern {
    Pattern::dot(filter).unwrap()
}

fn slash(filter: &str) -> Pattern {
    Pattern::slash(filter).unwrap()
}

#[test]
fn a_filter_inside_an_expression_is_covered_and_one_that_sticks_out_is_not() {
    let rule = regex_rule(r"^sensors\..*");
    for inside in ["sensors.#", "sensors.*", "sensors.a.b", "sensors.*.temp"] {
        // `sensors.#` also takes the topic `sensors`.
        assert_eq!(rule.covers(&dot(inside)), inside != "sensors.#", "{inside}");
    }
    let rule = regex_rule(r"^sensors(\..*)?$");
    assert!(rule.covers(&dot("sensors.#")) && rule.covers(&slash("sensors/#")));
    for outside in ["#", "*.temp", "sensor.#", "sensors2.#", "*", "sensors.#.x.#.y"] {
        let is_inside = outside.starts_with("sensors.");
        assert_eq!(rule.covers(&dot(outside)), is_inside, "{outside}");
    }
}

#[test]
fn an_expression_that_allows_everything_covers_everything() {
    for (text, is_all) in [(".*", true), ("", false), ("^.*$", true), ("(?-s)^.*$", false)] {
        assert_eq!(regex_rule(text).covers_all(), is_all, "{text}");
        assert_eq!(regex_rule(text).covers(&slash("+/#")), is_all, "{text}");
    }
}

#[test]
fn an_expression_that_leaves_out_one_character_does_not_cover_a_wildcard() {
    assert!(!regex_rule(r"^a\.[^x]*$").covers(&dot("a.*")));
    assert!(regex_rule(r"(?s)^a\.[^.]*$").covers(&dot("a.*")));
    assert!(regex_rule(r"^a\.\p{Any}*$").covers(&dot("a.*")));
    assert!(!regex_rule(r"^a\.\p{ASCII}*$").covers(&dot("a.*")));
    assert!(regex_rule(r"^a\..*$").covers(&dot("a.*")));
}

#[test]
fn a_wildcard_of_mqtt_does_not_see_topics_of_the_system() {
    let rule = regex_rule(r"^(?s:[^$].*)$");
    assert!(rule.covers(&slash("#")) && rule.covers(&slash("+")));
    assert!(!rule.covers(&dot("#")) && !rule.covers(&dot("*")));
    assert!(!rule.covers(&slash("$SYS/#")));
}

#[test]
fn look_around_cannot_be_compared_with_wildcards_but_with_topics() {
    let rule = regex_rule(r"^(?!secret\.)");
    assert!(!rule.covers(&dot("public.*")) && rule.covers(&dot("public.a")));
    assert!(!rule.covers(&dot("secret.a")));
}

#[test]
fn patterns_are_written_one_a_line_in_the_syntax_of_either_world() {
    for (text, syntax) in
        [("1000.#\npublic.*", TopicSyntax::Dot), ("1000/#\npublic/+", TopicSyntax::Slash)]
    {
        let rule = rule(text, syntax);
        assert!(rule.allows("1000") && rule.allows("1000.a.b") && rule.allows("public.x"));
        assert!(!rule.allows("public") && !rule.allows("1001.a") && !rule.allows(""));
        assert!(rule.covers(&slash("1000/+/temp")) && !rule.covers(&slash("+/x")));
    }
    assert!(!rule("", TopicSyntax::Slash).allows(""));
}

#[test]
fn a_pattern_that_is_none_is_refused() {
    for bad in ["a/#/b", "a+/b"] {
        let refused = TopicRule::compile(bad, TopicSyntax::Slash, &names(None)).unwrap_err();
        assert_eq!(refused.kind, RefusalKind::Invalid, "{bad}");
    }
    let many = "a\n".repeat(PATTERNS_MAX + 1);
    assert!(TopicRule::compile(&many, TopicSyntax::Dot, &names(None)).is_err());
}

#[test]
fn placeholders_are_literal_for_every_character_of_ascii() {
    for byte in 0..=127_u8 {
        let id = format!("a{}b", char::from(byte));
        let names = Names { user: "u", vhost: "v", client_id: Some(&id) };
        let regex = TopicRule::compile(r"^{client_id}\.x$", TopicSyntax::Regex, &names).unwrap();
        let own = format!("{id}.x");
        let is_plain = !matches!(byte, b'*' | b'#' | b'+') && !byte.is_ascii_control();
        assert_eq!(regex.allows(&own), is_plain, "{id:?}");
        for other in 0..=127_u8 {
            let other = char::from(other);
            if other != char::from(byte) {
                assert!(!regex.allows(&format!("a{other}b.x")), "{id:?} {other:?}");
            }
        }
        let pattern = TopicRule::compile("{client_id}/x", TopicSyntax::Slash, &names);
        // `%` alone is plain, and control characters end lines or are refused.
        let Ok(pattern) = pattern else { continue };
        let mut key = String::new();
        polymq_model::topic::slash_to_dot(&own.replace(".x", "/x"), &mut key);
        assert_eq!(pattern.allows(&key), is_plain && byte != b'/', "{id:?} {key}");
        assert!(!pattern.allows("aab.x") || byte == b'a');
    }
}

#[test]
fn a_rule_that_names_a_client_allows_others_what_it_does_not_name_it_for() {
    let text = "common/#\nof/{client_id}/#";
    for id in [None, Some("a/b"), Some("+"), Some("#")] {
        let rule = TopicRule::compile(text, TopicSyntax::Slash, &names(id)).unwrap();
        assert!(rule.allows("common.x") && !rule.allows("of.a.x") && !rule.allows("of.+.x"));
    }
    let text = r"^(common|of\.{client_id})\..*$";
    for id in [None, Some("+"), Some("*")] {
        let rule = TopicRule::compile(text, TopicSyntax::Regex, &names(id)).unwrap();
        assert!(rule.allows("common.x") && !rule.allows("of.a.x") && !rule.allows("of.*.x"));
    }
}

#[test]
fn what_a_name_holds_is_not_filled_again() {
    let names = Names { user: "{vhost}", vhost: "v", client_id: None };
    let rule = TopicRule::compile("^{username}$", TopicSyntax::Regex, &names).unwrap();
    assert!(rule.allows("{vhost}") && !rule.allows("v"));
}

#[test]
fn an_id_that_is_dots_stays_one_level() {
    let names = Names { user: "ann.smith", vhost: "v", client_id: None };
    let rule = TopicRule::compile("of.{username}.#", TopicSyntax::Dot, &names).unwrap();
    assert!(rule.allows("of.ann/smith.x") && !rule.allows("of.ann.smith.x"));
}

/// A pattern of a small alphabet, in dot syntax.
fn pattern() -> impl Strategy<Value = String> {
    let level = prop_oneof![
        3 => Just("a"), 3 => Just("b"), 1 => Just(""), 1 => Just("$s"),
        2 => Just("*"), 1 => Just("#"),
    ];
    prop::collection::vec(level, 1..5)
        .prop_map(|levels| levels.join("."))
        .prop_filter("at most two", |text| text.matches('#').count() <= 2)
}

/// An expression of a small alphabet.
fn expression() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just(r"a"),
        Just(r"b"),
        Just(r"\."),
        Just(r"\."),
        Just(r"[^.]*"),
        Just(r"(?s:.*)"),
        Just(r"(a|b)"),
        Just(r"(\.a)*"),
        Just(r"\$?"),
        Just(r"b?"),
    ];
    let pieces = prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat());
    (any::<bool>(), pieces, any::<bool>()).prop_map(|(from, pieces, to)| {
        format!("{}{pieces}{}", if from { "^" } else { "" }, if to { "$" } else { "" })
    })
}

/// Every key of up to three levels of a small alphabet.
fn keys() -> Vec<String> {
    keys_of(&["", "a", "b", "ab", "$s", "x"])
}

fn keys_of(levels: &[&str]) -> Vec<String> {
    let mut keys = vec![String::new()];
    for first in levels {
        keys.push((*first).to_owned());
        for second in levels {
            keys.push(format!("{first}.{second}"));
            keys.extend(levels.iter().map(|third| format!("{first}.{second}.{third}")));
        }
    }
    keys
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_topic_of_a_covered_filter_is_allowed_by_the_expression(
        filter in pattern(), text in expression(), is_mqtt in any::<bool>(),
    ) {
        let rule = regex_rule(&text);
        let filter = match is_mqtt {
            true => Pattern::slash(&filter.replace('.', "/").replace('*', "+")),
            false => Pattern::dot(&filter),
        };
        let Ok(filter) = filter else { return Ok(()) };
        let topics: Vec<_> = keys().into_iter().filter(|key| filter.matches(key)).collect();
        let outside = topics.iter().find(|key| !rule.allows(key));
        if rule.covers(&filter) {
            prop_assert_eq!(outside, None, "{:?} {}", filter, text);
        } else if outside.is_none() {
            // The alphabet above is a sample; what is refused must have a reason in a larger one.
            let more = keys_of(&["", "a", "b", "$s", "ab", "ba", "aa", "bb", "\n", "é", "$"]);
            let reason = more.iter().find(|key| filter.matches(key) && !rule.allows(key));
            prop_assert!(reason.is_some() || filter.levels().len() > 2, "{:?} {}", filter, text);
        }
    }

    #[test]
    fn a_filter_is_covered_by_an_expression_as_it_is_by_the_pattern_that_it_was_made_of(
        filter in pattern(), outer in pattern(),
    ) {
        let as_regex = |level: &str| match level {
            "*" => "[^.]*".to_owned(),
            literal => regex::escape(literal),
        };
        prop_assume!(!outer.contains('#') && outer != "*" && !outer.is_empty());
        let text: Vec<_> = outer.split('.').map(as_regex).collect();
        let rule = regex_rule(&format!("^{}$", text.join(r"\.")));
        let (inner, outer) = (dot(&filter), dot(&outer));
        prop_assert_eq!(rule.covers(&inner), outer.covers(&inner), "{:?} {:?}", inner, outer);
    }

    #[test]
    fn every_topic_of_a_covered_filter_is_allowed_by_the_patterns(
        filter in pattern(), outer in prop::collection::vec(pattern(), 1..4),
    ) {
        let rule = rule(&outer.join("\n"), TopicSyntax::Dot);
        let filter = dot(&filter);
        if rule.covers(&filter) {
            let outside = keys().into_iter().find(|key| filter.matches(key) && !rule.allows(key));
            prop_assert_eq!(outside, None);
        }
    }
}
