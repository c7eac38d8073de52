//! What an input has led to, in a few words: inputs that lead to something new are worth keeping.

use std::{
    cell::RefCell,
    collections::{BTreeSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

/// Longest text whose words are looked at.
const TEXT_BYTES_MAX: usize = 4096;

thread_local! {
    /// `None` while nobody wants to know.
    static SEEN: RefCell<Option<BTreeSet<u64>>> = const { RefCell::new(None) };
}

/// What `function` leads to.
pub fn of(function: impl FnOnce()) -> BTreeSet<u64> {
    SEEN.set(Some(BTreeSet::new()));
    function();
    SEEN.take().unwrap_or_default()
}

/// Notes the words of a text, apart from its numbers and all that is quoted, and how many of them
/// follow each other.
pub(crate) fn note(kind: &str, text: &[u8]) {
    SEEN.with_borrow_mut(|seen| {
        let Some(seen) = seen else { return };
        let text = &text[..text.len().min(TEXT_BYTES_MAX)];
        let words = text.split(|byte| !byte.is_ascii_alphabetic() && *byte != b'_');
        let mut last: &[u8] = b"";
        for word in words.filter(|word| (2..=24).contains(&word.len())) {
            seen.insert(hash_of((kind, last, word)));
            last = word;
        }
    });
}

/// Notes a value.
pub(crate) fn note_value(value: impl Hash) {
    SEEN.with_borrow_mut(|seen| seen.as_mut().map(|seen| seen.insert(hash_of(value))));
}

fn hash_of(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
