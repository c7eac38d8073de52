//! Messages that differ: `{{…}}` in a text is something else in each of them.

use std::hash::{BuildHasher, RandomState};

use crate::{
    failure::Failure,
    time::{now_ms, rfc3339},
};

/// Characters of one `{{text N}}`.
const TEXT_MAX: u64 = 1 << 20;
const SIGNS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// A text that is read once and filled for each message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Plain(String),
    /// The number of the message, from 1.
    Number,
    /// Now, in RFC 3339.
    Time,
    /// Now, in milliseconds since 1970.
    UnixMs,
    /// A random UUID (RFC 9562, version 4).
    Uuid,
    /// A random whole number, both ends included.
    Random(u64, u64),
    /// So many random letters and digits.
    Text(u64),
}

impl Template {
    /// Reads a text.
    ///
    /// Errors: a place that is none.
    pub(crate) fn read(text: &str) -> Result<Self, Failure> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            // `\{{` is `{{`.
            if let Some(before) = before.strip_suffix('\\') {
                plain.push_str(before);
                plain.push_str("{{");
                rest = after;
                continue;
            }
            plain.push_str(before);
            let open = || Failure::Usage("`{{` without `}}`; `\\{{` is the text itself".to_owned());
            let (place, after) = after.split_once("}}").ok_or_else(open)?;
            if !plain.is_empty() {
                parts.push(Part::Plain(std::mem::take(&mut plain)));
            }
            parts.push(Part::read(place)?);
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Plain(plain));
        }
        Ok(Self(parts))
    }

    /// The text of message `number`.
    pub(crate) fn filled(&self, number: u64) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Plain(plain) => text.push_str(plain),
                Part::Number => text.push_str(&number.to_string()),
                Part::Time => text.push_str(&rfc3339(now_ms())),
                Part::UnixMs => text.push_str(&now_ms().to_string()),
                Part::Uuid => text.push_str(&uuid()),
                Part::Random(low, high) => text.push_str(&between(*low, *high).to_string()),
                Part::Text(length) => text.extend((0..*length).map(|_| sign())),
            }
        }
        text
    }
}

impl Part {
    fn read(place: &str) -> Result<Self, Failure> {
        let words: Vec<&str> = place.split_whitespace().collect();
        let number = |word: &str| word.parse::<u64>().ok();
        let part = match words.as_slice() {
            ["n"] => Some(Self::Number),
            ["time"] => Some(Self::Time),
            ["unix_ms"] => Some(Self::UnixMs),
            ["uuid"] => Some(Self::Uuid),
            ["random", low, high] => match (number(low), number(high)) {
                (Some(low), Some(high)) if low <= high => Some(Self::Random(low, high)),
                _ => None,
            },
            ["text", length] => number(length).filter(|n| *n <= TEXT_MAX).map(Self::Text),
            _ => None,
        };
        part.ok_or_else(|| {
            Failure::Usage(format!(
                "`{{{{{place}}}}}` is none of {{{{n}}}}, {{{{time}}}}, {{{{unix_ms}}}}, \
                 {{{{uuid}}}}, {{{{random 1 100}}}}, {{{{text 20}}}}"
            ))
        })
    }
}

/// 64 bits that nobody needs to be unable to guess: the keys of a hasher come from the system.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

fn between(low: u64, high: u64) -> u64 {
    let span = u128::from(high - low) + 1;
    // The widest span is that of the numbers themselves, so that this always fits.
    low + u64::try_from(u128::from(random()) % span).unwrap_or_default()
}

fn sign() -> char {
    let place = usize::try_from(between(0, 35)).unwrap_or_default();
    char::from(SIGNS[place])
}

fn uuid() -> String {
    let (high, low) = (random() & !0xf000 | 0x4000, random() & (u64::MAX >> 2) | 1 << 63);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str, number: u64) -> String {
        Template::read(text).unwrap().filled(number)
    }

    #[test]
    fn places_are_filled_for_each_message() {
        assert_eq!(filled("{\"id\":{{n}},\"a\":{\"b\":1}}", 7), "{\"id\":7,\"a\":{\"b\":1}}");
        assert_eq!(filled("{{ n }}/{{random 5 5}}", 2), "2/5");
        assert_eq!(filled("a \\{{n}} b", 1), "a {{n}} b");
        assert_eq!(filled("plain }}", 1), "plain }}");
        assert_eq!(filled("", 1), "");
        assert_eq!(filled("{{text 30}}", 1).len(), 30);
        assert!(filled("{{time}}", 1).ends_with('Z'));
        let uuid = filled("{{uuid}}", 1);
        assert_eq!((uuid.len(), &uuid[14..15]), (36, "4"));
        assert!(matches!(&uuid[19..20], "8" | "9" | "a" | "b"), "{uuid}");
        assert_ne!(uuid, filled("{{uuid}}", 1));
        let all: Vec<u64> = (0..500).map(|_| between(3, 6)).collect();
        assert!((3..=6).all(|number| all.contains(&number)), "{all:?}");
        assert!(all.iter().all(|number| (3..=6).contains(number)), "{all:?}");
        between(0, u64::MAX);
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for bad in ["{{", "{{x}}", "{{}}", "{{random 2 1}}", "{{random 1}}", "{{text 9999999}}"] {
            assert!(Template::read(bad).is_err(), "{bad}");
        }
    }
}
