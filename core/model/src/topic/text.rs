//! The two texts of a topic.
//!
//! An MQTT topic name may hold neither `+` nor `#`, so the slash form writes them `%2B` and `%23`.
//! A text that already looks like such an escape (`%`, any number of `25`, then `2B` or `23`) gets
//! one more `25`. Every other `%` is plain.

use crate::limits::Limits;

/// Why a text is not a topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTopic {
    /// An MQTT topic has at least one character.
    #[error("a topic must not be empty")]
    Empty,
    /// No topic of any protocol holds NUL.
    #[error("a topic must not hold a NUL character")]
    Nul,
    /// `+` and `#` belong into filters; a publisher writes `%2B` and `%23`.
    #[error("a topic name must not hold `{0}`; a literal one is written as a `%` escape")]
    Wildcard(char),
    /// Longer than the limit.
    #[error("a topic has at most {max} bytes, this one has {bytes}")]
    TooLong {
        /// Bytes of the topic.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// More levels than the limit.
    #[error("a topic has at most {max} levels, this one has {levels}")]
    TooManyLevels {
        /// Levels of the topic.
        levels: usize,
        /// The limit.
        max: usize,
    },
}

/// The levels of a key in dot form, from the first; made by [`levels`].
#[derive(Debug, Clone, Copy)]
pub struct Levels<'a>(Option<&'a str>);

/// The levels of a key in dot form, each as it stands in the key. The empty key has none.
pub fn levels(key: &str) -> Levels<'_> {
    Levels((!key.is_empty()).then_some(key))
}

impl<'a> Iterator for Levels<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.0?;
        // Levels are short, so a plain loop beats the general search of `split_once`.
        let Some(at) = rest.bytes().position(|b| b == b'.') else {
            self.0 = None;
            return Some(rest);
        };
        let (level, tail) = rest.split_at(at);
        self.0 = tail.strip_prefix('.');
        Some(level)
    }
}

/// Appends the dot form of an MQTT topic name to `out`.
///
/// Cost: one pass, at memory speed for topics without `%`.
pub fn slash_to_dot(topic: &str, out: &mut String) {
    if !holds_any(topic, [b'%'; 3]) {
        swap_separators(topic, out);
        return;
    }
    out.reserve(topic.len());
    let mut rest = topic;
    while let Some((special, tail)) = copy_plain(&mut rest, b"/.%", out) {
        rest = tail;
        match special {
            '/' => out.push('.'),
            '.' => out.push('/'),
            _ => match escape_after(tail) {
                Some((0, literal)) => {
                    out.push(literal);
                    rest = tail.get(2..).unwrap_or_default();
                }
                Some(_) => {
                    out.push('%');
                    rest = tail.get(2..).unwrap_or_default();
                }
                None => out.push('%'),
            },
        }
    }
}

/// Appends the MQTT topic name of a key in dot form to `out`; false, appending nothing, for the
/// empty key.
pub fn dot_to_slash(key: &str, out: &mut String) -> bool {
    if key.is_empty() {
        return false;
    }
    if !holds_any(key, [b'%', b'+', b'#']) {
        swap_separators(key, out);
        return true;
    }
    out.reserve(key.len());
    let mut rest = key;
    while let Some((special, tail)) = copy_plain(&mut rest, b"/.%+#", out) {
        rest = tail;
        match special {
            '/' => out.push('.'),
            '.' => out.push('/'),
            '+' => out.push_str("%2B"),
            '#' => out.push_str("%23"),
            _ if escape_after(tail).is_some() => out.push_str("%25"),
            _ => out.push('%'),
        }
    }
    true
}

/// Appends `text` with `.` and `/` exchanged: an MQTT filter to the key of its binding, and back.
pub fn swap_separators(text: &str, out: &mut String) {
    let mut bytes = std::mem::take(out).into_bytes();
    bytes.extend(text.bytes().map(|byte| match byte {
        b'/' => b'.',
        b'.' => b'/',
        other => other,
    }));
    // One ASCII character instead of another keeps a text valid.
    *out = String::from_utf8(bytes).unwrap_or_default();
}

/// Looks at every byte without stopping early, which the compiler turns into wide comparisons.
fn holds_any(text: &str, [a, b, c]: [u8; 3]) -> bool {
    text.bytes().fold(false, |found, byte| found | (byte == a) | (byte == b) | (byte == c))
}

/// Checks the topic of an MQTT PUBLISH.
///
/// Errors: [`BadTopic`] when it is empty, holds NUL, `+` or `#`, or is over a limit.
/// Specification: MQTT 5, sections 3.3.2.1 and 4.7.3.
pub fn valid_topic_name(topic: &str, limits: &Limits) -> Result<(), BadTopic> {
    if topic.is_empty() {
        return Err(BadTopic::Empty);
    }
    if let Some(wildcard) = topic.chars().find(|c| matches!(c, '+' | '#')) {
        return Err(BadTopic::Wildcard(wildcard));
    }
    bounded(topic, b'/', limits)
}

/// Checks the size of an MQTT topic filter; [`super::Pattern::slash`] checks its wildcards.
///
/// Errors: [`BadTopic`] when it is empty, holds NUL, or is over a limit.
pub fn valid_topic_filter(filter: &str, limits: &Limits) -> Result<(), BadTopic> {
    if filter.is_empty() {
        return Err(BadTopic::Empty);
    }
    bounded(filter, b'/', limits)
}

/// Checks a routing key in dot form. The empty key is valid.
///
/// Errors: [`BadTopic`] when it holds NUL or is over a limit.
pub fn valid_key(key: &str, limits: &Limits) -> Result<(), BadTopic> {
    bounded(key, b'.', limits)
}

fn bounded(text: &str, separator: u8, limits: &Limits) -> Result<(), BadTopic> {
    let (bytes, max) = (text.len(), limits.topic_bytes_max);
    if bytes > max {
        return Err(BadTopic::TooLong { bytes, max });
    }
    let (mut levels, mut nul) = (1_usize, false);
    for byte in text.bytes() {
        levels = levels.saturating_add(usize::from(byte == separator));
        nul |= byte == 0;
    }
    if nul {
        return Err(BadTopic::Nul);
    }
    let max = limits.topic_levels_max;
    if levels > max {
        return Err(BadTopic::TooManyLevels { levels, max });
    }
    Ok(())
}

/// Copies the text before the first of `specials`, and returns that character and the text after
/// it.
fn copy_plain<'a>(
    rest: &mut &'a str,
    specials: &[u8],
    out: &mut String,
) -> Option<(char, &'a str)> {
    let Some(at) = rest.bytes().position(|b| specials.contains(&b)) else {
        out.push_str(rest);
        return None;
    };
    let (plain, tail) = rest.split_at(at);
    out.push_str(plain);
    let mut chars = tail.chars();
    chars.next().map(|special| (special, chars.as_str()))
}

/// Reads what follows a `%`: the number of `25` before `2B` or `23`, and the character these stand
/// for.
fn escape_after(text: &str) -> Option<(usize, char)> {
    let mut rest = text;
    let mut times = 0;
    while let Some(tail) = rest.strip_prefix("25") {
        rest = tail;
        times += 1;
    }
    if rest.starts_with("2B") {
        Some((times, '+'))
    } else if rest.starts_with("23") {
        Some((times, '#'))
    } else {
        None
    }
}
