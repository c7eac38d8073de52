//! The topic codec and the patterns over it.

use polymq_model::{
    Limits,
    topic::{
        AMQP_KEY_BYTES_MAX, Pattern, Trie, amqp_wire_key, dot_to_slash, levels, slash_to_dot,
        swap_separators, valid_key, valid_topic_filter, valid_topic_name,
    },
};

/// The plain implementations below try every way, so they see short patterns only.
const PLAIN_LEVELS_MAX: usize = 10;

/// Takes two texts with a line feed between them: a topic or key, and a filter or binding key.
pub fn topic(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (topic, pattern) = text.split_once('\n').unwrap_or((text, "#"));
    let limits = Limits::default();
    as_topic(topic, &limits);
    as_key(topic, &limits);
    if valid_topic_filter(pattern, &limits).is_ok() {
        by_filter(topic, pattern, &limits);
    }
    if valid_key(pattern, &limits).is_ok() {
        by_binding(topic, pattern, &limits);
    }
}

fn as_topic(topic: &str, limits: &Limits) {
    if valid_topic_name(topic, limits).is_err() {
        return;
    }
    let (mut key, mut back) = (String::new(), String::new());
    slash_to_dot(topic, &mut key);
    assert!(!key.is_empty() && dot_to_slash(&key, &mut back));
    assert_eq!(back, topic, "a topic changes on its way through the key {key:?}");
    assert_eq!(levels(&key).count(), topic.split('/').count(), "{key:?}");
    // A filter without wildcards matches its own topic, and no other.
    let pattern = Pattern::slash(topic).expect("a topic is a filter");
    assert!(pattern.is_literal() && pattern.matches(&key));
    assert!(!pattern.matches(&format!("{key}.x")) && !pattern.matches(&format!("x{key}")));
}

fn as_key(key: &str, limits: &Limits) {
    let wire = amqp_wire_key(key);
    assert!(wire.len() <= AMQP_KEY_BYTES_MAX);
    if valid_key(key, limits).is_err() {
        return;
    }
    let joined: Vec<_> = levels(key).collect();
    assert_eq!(joined.join("."), key);
    let (mut topic, mut back) = (String::new(), String::new());
    assert_eq!(dot_to_slash(key, &mut topic), !key.is_empty());
    assert!(!topic.contains(['+', '#']), "{topic:?} is no topic name");
    slash_to_dot(&topic, &mut back);
    assert_eq!(back, key, "a key changes on its way through the topic {topic:?}");
    let (mut swapped, mut again) = (String::new(), String::new());
    swap_separators(key, &mut swapped);
    swap_separators(&swapped, &mut again);
    assert_eq!(again, key);
}

fn by_filter(topic: &str, filter: &str, limits: &Limits) {
    let Ok(pattern) = Pattern::slash(filter) else { return };
    let mut stored = String::new();
    swap_separators(filter, &mut stored);
    let read_back = Pattern::stored(&stored, pattern.syntax()).expect("a filter that was valid");
    assert_eq!(read_back.levels(), pattern.levels());
    if valid_topic_name(topic, limits).is_err() {
        return;
    }
    let mut key = String::new();
    slash_to_dot(topic, &mut key);
    agrees(&pattern, &key);
    let (filter, topic): (Vec<_>, Vec<_>) =
        (filter.split('/').collect(), topic.split('/').collect());
    if filter.len().max(topic.len()) <= PLAIN_LEVELS_MAX {
        let expected = mqtt_matches(&filter, &topic);
        assert_eq!(pattern.matches(&key), expected, "{filter:?} and {topic:?}");
    }
}

fn by_binding(key: &str, binding: &str, limits: &Limits) {
    let Ok(pattern) = Pattern::dot(binding) else { return };
    if valid_key(key, limits).is_err() {
        return;
    }
    agrees(&pattern, key);
    let words = |text: &str| {
        let words: Vec<_> = if text.is_empty() { Vec::new() } else { text.split('.').collect() };
        words.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let (binding, key_words) = (words(binding), words(key));
    if binding.len().max(key_words.len()) <= PLAIN_LEVELS_MAX {
        let expected = amqp_matches(&binding, &key_words);
        assert_eq!(pattern.matches(key), expected, "{binding:?} and {key_words:?}");
    }
}

/// The trie and the pattern alone are of one mind.
fn agrees(pattern: &Pattern, key: &str) {
    let mut trie = Trie::new();
    let id = trie.insert(pattern, ());
    let mut found = 0;
    trie.for_each_match(key, |()| found += 1);
    assert_eq!(found == 1, pattern.matches(key), "{pattern:?} and {key:?}");
    assert!(trie.remove_entry(pattern, id).is_some() && trie.is_empty());
}

fn mqtt_matches(filter: &[&str], topic: &[&str]) -> bool {
    let is_wild = matches!(filter.first(), Some(&"+" | &"#"));
    if is_wild && topic.first().is_some_and(|level| level.starts_with('$')) {
        return false;
    }
    let mut topic = topic.iter();
    for level in filter {
        match *level {
            "#" => return true,
            "+" if topic.next().is_some() => {}
            literal if topic.next() == Some(&literal) && literal != "+" => {}
            _ => return false,
        }
    }
    topic.next().is_none()
}

fn amqp_matches(binding: &[String], key: &[String]) -> bool {
    match binding.split_first() {
        None => key.is_empty(),
        Some((word, rest)) if word == "#" => {
            (0..=key.len()).any(|skip| amqp_matches(rest, key.get(skip..).unwrap_or_default()))
        }
        Some((word, rest)) => key.split_first().is_some_and(|(first, after)| {
            (word == "*" || word == first) && amqp_matches(rest, after)
        }),
    }
}
