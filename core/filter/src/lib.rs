//! Conditions on messages and on rows of lists: SQL conditional expressions with three-valued
//! logic, and the functions `json`, `matches` and `age`.
//!
//! It does not read messages, does no I/O and has no clock: the fields and the time are handed in.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod duration;
mod eval;
mod lex;
mod parse;
mod path;
mod scalar;
#[cfg(test)]
mod tests;
mod tree;

pub use duration::{duration_from_text, duration_to_text};
pub use scalar::Scalar;

/// Longest text of a filter, in bytes.
pub const FILTER_BYTES_MAX: usize = 4096;
/// Longest regular expression in a filter, in characters.
pub const PATTERN_CHARS_MAX: usize = 1024;
/// Brackets, `NOT` and signs nest at most so deep.
pub const DEPTH_MAX: usize = 32;
/// Longest body that is read as JSON, in bytes.
pub const JSON_BYTES_MAX: usize = 1024 * 1024;

/// What a filter looks at.
pub trait Fields {
    /// The field of this name; `None` when there is none.
    fn field(&self, name: &str) -> Option<Scalar<'_>>;

    /// The body, for `json('$.…')`; `None` where there is none.
    fn body(&self) -> Option<&[u8]> {
        None
    }
}

/// Why a text is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} (at byte {at})")]
pub struct BadFilter {
    /// Where, in bytes from the beginning.
    pub at: usize,
    /// A lower-case sentence.
    pub what: String,
}

impl BadFilter {
    fn new(at: usize, what: impl Into<String>) -> Self {
        Self { at, what: what.into() }
    }
}

/// A condition. Cloning copies the tree.
#[derive(Debug, Clone)]
pub struct Filter {
    text: Box<str>,
    root: tree::Condition,
}

impl Filter {
    /// Reads a condition.
    ///
    /// Errors: [`BadFilter`] with the place of the first mistake.
    pub fn parse(text: &str) -> Result<Self, BadFilter> {
        Ok(Self { text: text.into(), root: parse::parse(text)? })
    }

    /// True when the condition is true of `fields`; `now_ms` is the time in ms since 1970.
    pub fn selects(&self, fields: &dyn Fields, now_ms: u64) -> bool {
        eval::truth(&self.root, &eval::Context::new(fields, now_ms)) == Some(true)
    }

    /// The names of the fields it looks at, in the order of the text.
    pub fn fields(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.root.name_fields(&mut names);
        names
    }

    /// The text it was read from.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}
