//! Patterns over the levels of a topic.

use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use super::text::{Levels, levels, slash_to_dot, swap_separators};

/// The most levels of any pattern, whatever the configured limit of topics is.
///
/// The trie descends by recursion, one call for each level of a pattern.
pub const PATTERN_LEVELS_MAX: usize = 1000;

/// The most `#` of a dot pattern; each multiplies the cost of a match by the levels of the key.
const MANY_MAX: usize = 2;

/// How the text of a pattern is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Syntax {
    /// AMQP, STOMP, XMPP, HTTP: the whole levels `*` and `#` are wildcards.
    Dot,
    /// MQTT: the whole level `+` and a last level `#` are wildcards, which hide topics that begin
    /// with `$`.
    Slash,
}

/// One level of a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Level {
    /// Exactly this level, in dot-form text.
    Literal(Arc<str>),
    /// Any one level.
    One,
    /// Any number of levels, also none.
    Many,
}

/// A pattern, ready to be matched. Cloning adds a reference.
///
/// In a run of wildcards every [`Level::One`] stands before a single [`Level::Many`], which matches
/// the same topics: `#.*.#` and `*.#` are equal. So a literal always follows a `Many` that is not
/// last.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    levels: Arc<[Level]>,
    syntax: Syntax,
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// An MQTT filter has at least one character.
    #[error("a topic filter must not be empty")]
    Empty,
    /// No pattern holds NUL.
    #[error("a topic filter must not hold a NUL character")]
    Nul,
    /// A `+` or `#` of MQTT beside other characters, or a `#` that is not last.
    #[error(
        "`+` must be a whole level, and `#` a whole and last one: `{0}` is not; \
         a literal one is written `%2B` or `%23`"
    )]
    Misplaced(String),
    /// More than two `#` in a dot pattern.
    #[error("a binding key has at most two `#`, this one has {0}")]
    TooManyMany(usize),
    /// More than [`PATTERN_LEVELS_MAX`] levels.
    #[error("a topic filter has at most 1000 levels, this one has {0}")]
    TooManyLevels(usize),
}

impl Pattern {
    /// Reads the binding key of a topic exchange.
    ///
    /// Errors: [`BadPattern`] when it holds NUL, more than two `#`, or too many levels.
    pub fn dot(key: &str) -> Result<Self, BadPattern> {
        check_size(key, '.')?;
        let read: Vec<Level> = levels(key)
            .map(|level| match level {
                "*" => Level::One,
                "#" => Level::Many,
                literal => Level::Literal(literal.into()),
            })
            .collect();
        let many = read.iter().filter(|level| **level == Level::Many).count();
        if many > MANY_MAX {
            return Err(BadPattern::TooManyMany(many));
        }
        Ok(Self { levels: normal(read), syntax: Syntax::Dot })
    }

    /// Reads an MQTT topic filter.
    ///
    /// Errors: [`BadPattern`] when it is empty, holds NUL, a wildcard in the wrong place, or too
    /// many levels.
    /// Specification: MQTT 5, section 4.7.1.
    pub fn slash(filter: &str) -> Result<Self, BadPattern> {
        if filter.is_empty() {
            return Err(BadPattern::Empty);
        }
        check_size(filter, '/')?;
        let mut read = Vec::new();
        for level in filter.split('/') {
            if read.last() == Some(&Level::Many) {
                return Err(BadPattern::Misplaced("#".to_owned()));
            }
            read.push(match level {
                "+" => Level::One,
                "#" => Level::Many,
                literal if literal.contains(['+', '#']) => {
                    return Err(BadPattern::Misplaced(literal.to_owned()));
                }
                literal => {
                    let mut text = String::new();
                    slash_to_dot(literal, &mut text);
                    Level::Literal(text.into())
                }
            });
        }
        Ok(Self { levels: normal(read), syntax: Syntax::Slash })
    }

    /// Reads the key of a stored binding. In slash syntax that is the filter with `.` and `/`
    /// exchanged.
    ///
    /// Errors: those of [`Pattern::dot`] and [`Pattern::slash`].
    pub fn stored(key: &str, syntax: Syntax) -> Result<Self, BadPattern> {
        match syntax {
            Syntax::Dot => Self::dot(key),
            Syntax::Slash => {
                let mut filter = String::new();
                swap_separators(key, &mut filter);
                Self::slash(&filter)
            }
        }
    }

    /// The levels, literals in dot-form text.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// The syntax the pattern was written in.
    pub fn syntax(&self) -> Syntax {
        self.syntax
    }

    /// True when a wildcard in first place does not match a level that begins with `$`.
    pub fn hides_dollar(&self) -> bool {
        self.syntax == Syntax::Slash
    }

    /// True when there is no wildcard: exactly one topic matches.
    pub fn is_literal(&self) -> bool {
        self.levels.iter().all(|level| matches!(level, Level::Literal(_)))
    }

    /// True when the pattern begins with a wildcard that does not see `$` topics and the empty key.
    pub(super) fn hides(&self) -> bool {
        self.hides_dollar() && !matches!(self.levels.first(), Some(Level::Literal(_)))
    }

    /// True when the topic with this key in dot form matches.
    ///
    /// Cost: proportional to the levels of the key, times those of the pattern when it holds a
    /// [`Level::Many`].
    pub fn matches(&self, key: &str) -> bool {
        if self.hides() && (key.is_empty() || key.starts_with('$')) {
            return false;
        }
        let mut pattern: &[Level] = &self.levels;
        let mut rest = levels(key);
        // Where to go on when the levels after the latest `Many` do not fit: it takes one level
        // more.
        let mut retry: Option<(&[Level], Levels<'_>)> = None;
        loop {
            let before = rest;
            let fits = match (pattern.split_first(), rest.next()) {
                (None, None) => return true,
                (Some((Level::Many, after)), _) => {
                    pattern = after;
                    rest = before;
                    retry = Some((after, before));
                    continue;
                }
                (Some((Level::One, after)), Some(_)) => {
                    pattern = after;
                    true
                }
                (Some((Level::Literal(literal), after)), Some(level)) if **literal == *level => {
                    pattern = after;
                    true
                }
                (None, Some(_)) | (Some(_), _) => false,
            };
            if fits {
                continue;
            }
            let Some((after, from)) = &mut retry else { return false };
            if from.next().is_none() {
                return false;
            }
            (pattern, rest) = (after, *from);
        }
    }

    /// True when every topic that `other` matches is matched by this pattern too.
    ///
    /// The answer is exact but for `/#`, which is taken to match the topic of one empty level,
    /// which does not exist.
    pub fn covers(&self, other: &Self) -> bool {
        if self.hides() {
            let is_seen = match other.levels.first() {
                Some(Level::Literal(text)) => !text.starts_with('$'),
                Some(Level::One | Level::Many) | None => other.hides(),
            };
            if !is_seen {
                return false;
            }
        }
        let mut start: Positions = smallvec![false; self.levels.len() + 1];
        if let Some(first) = start.first_mut() {
            *first = true;
        }
        self.skip_many(&mut start);
        self.includes(start, &other.levels, other.hides())
    }

    /// True when from the positions `at` every text of `other` leads to the end of this pattern.
    ///
    /// A wildcard of `other` is followed as a level that no literal equals, the hardest one to
    /// match. With `nonempty` the text without levels does not count.
    fn includes(&self, mut at: Positions, other: &[Level], mut nonempty: bool) -> bool {
        for (index, level) in other.iter().enumerate() {
            match level {
                Level::Literal(text) => at = self.step(&at, Some(text)),
                Level::One => at = self.step(&at, None),
                Level::Many => {
                    let rest = other.get(index + 1..).unwrap_or_default();
                    // After as many levels as this pattern has, one more changes nothing.
                    for _ in 0..=self.levels.len() {
                        if !self.includes(at.clone(), rest, nonempty) {
                            return false;
                        }
                        at = self.step(&at, None);
                        nonempty = false;
                    }
                    return self.includes(at, rest, nonempty);
                }
            }
            nonempty = false;
        }
        nonempty || at.last() == Some(&true)
    }

    /// The positions after one level: this text, or one that no literal equals.
    fn step(&self, at: &Positions, text: Option<&str>) -> Positions {
        let mut next: Positions = smallvec![false; at.len()];
        for (index, level) in self.levels.iter().enumerate() {
            if at.get(index) != Some(&true) {
                continue;
            }
            let target = match level {
                Level::Many => index,
                Level::One => index + 1,
                Level::Literal(literal) if Some(&**literal) == text => index + 1,
                Level::Literal(_) => continue,
            };
            if let Some(reached) = next.get_mut(target) {
                *reached = true;
            }
        }
        self.skip_many(&mut next);
        next
    }

    /// Adds the positions reached when a [`Level::Many`] takes no level.
    fn skip_many(&self, at: &mut Positions) {
        for (index, level) in self.levels.iter().enumerate() {
            if *level == Level::Many
                && at.get(index) == Some(&true)
                && let Some(after) = at.get_mut(index + 1)
            {
                *after = true;
            }
        }
    }
}

/// For each position in a pattern, from before the first level to after the last: can it be
/// reached?
type Positions = SmallVec<[bool; 32]>;

fn check_size(text: &str, separator: char) -> Result<(), BadPattern> {
    if text.contains('\0') {
        return Err(BadPattern::Nul);
    }
    let count = text.matches(separator).count().saturating_add(1);
    if count > PATTERN_LEVELS_MAX { Err(BadPattern::TooManyLevels(count)) } else { Ok(()) }
}

/// Moves every `One` of a run of wildcards before a single `Many`.
fn normal(read: Vec<Level>) -> Arc<[Level]> {
    let mut out = Vec::with_capacity(read.len());
    let mut many = false;
    for level in read {
        match level {
            Level::Many => many = true,
            Level::One => out.push(Level::One),
            Level::Literal(text) => {
                if std::mem::take(&mut many) {
                    out.push(Level::Many);
                }
                out.push(Level::Literal(text));
            }
        }
    }
    if many {
        out.push(Level::Many);
    }
    out.into()
}
