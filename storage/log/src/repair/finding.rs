//! What a repair has found, for people and for the report beside what it keeps.

use std::fmt;

/// Something that is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, in the directory of the store.
    pub file: String,
    /// The first byte that is not readable, and the one behind the last; equal when the file is
    /// missing.
    pub bytes: (u64, u64),
    /// What is wrong, and what that means.
    pub what: String,
    /// Messages that are gone, and positions at which some may be.
    pub lost: Vec<Lost>,
    /// The copy in `quarantine/`, once it is made.
    pub kept_as: Option<String>,
    pub(crate) keep: Keep,
    is_unknown: bool,
}

/// What of a file goes to `quarantine/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    Nothing,
    Range,
    File,
}

/// Positions of one log that are not readable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The log.
    pub log: u32,
    /// Its name.
    pub name: String,
    /// The first position.
    pub first: u64,
    /// The last position.
    pub last: u64,
    /// How many messages stood there that nobody had acknowledged; `None` when nobody knows.
    pub messages: Option<u64>,
}

impl Finding {
    /// True when nobody can tell what all was lost.
    pub fn is_unknown(&self) -> bool {
        self.is_unknown
    }

    /// Adds that nobody can tell what all was lost.
    pub(crate) fn unknown(self) -> Self {
        Self { is_unknown: true, ..self }
    }

    pub(crate) fn new(file: &str, bytes: (u64, u64), keep: Keep, what: impl Into<String>) -> Self {
        let (file, what) = (file.to_owned(), what.into());
        let (lost, kept_as, is_unknown) = (Vec::new(), None, false);
        Self { file, bytes, what, lost, kept_as, keep, is_unknown }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = self.bytes;
        match from == to {
            true => write!(f, "{}", self.file)?,
            false => write!(f, "{}, bytes {from} to {to}", self.file)?,
        }
        write!(f, ": {}", self.what)?;
        for lost in &self.lost {
            write!(f, "\n  {lost}")?;
        }
        match &self.kept_as {
            Some(kept) => write!(f, "\n  kept as {kept}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { log, first, last, .. } = self;
        write!(f, "log {log} `{}`, positions {first} to {last}: ", self.name.escape_debug())?;
        match self.messages {
            None => write!(f, "whatever was published there is lost"),
            Some(0) => write!(f, "nothing that anybody waited for"),
            Some(1) => write!(f, "1 message is lost"),
            Some(many) => write!(f, "{many} messages are lost"),
        }
    }
}
