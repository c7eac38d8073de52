//! Which topics a user may write and read: rules over keys in dot form.

use std::sync::Arc;

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::topic::Pattern;

use super::{
    Action, TopicAction, Write,
    expression::{Expression, or_nothing},
    inclusion,
    records::{TopicPermissionRecord, TopicSyntax},
};

/// Patterns of one rule at most.
const PATTERNS_MAX: usize = 256;
/// Bytes of a rule that is made of patterns.
const PATTERNS_BYTES_MAX: usize = 65_536;
/// A regular expression that matches nothing.
const NOTHING: &str = r"[^\s\S]";

/// A compiled rule.
#[derive(Debug)]
pub(super) enum TopicRule {
    /// An expression, with its text for comparing it with filters.
    Regex(Expression, Box<str>),
    Patterns(Vec<Pattern>),
}

impl TopicRule {
    /// Errors: kind `Invalid`.
    fn compile(text: &str, syntax: TopicSyntax, names: &Names<'_>) -> Result<Self, Refusal> {
        if syntax == TopicSyntax::Regex {
            let text = names.fill(text, |name| match name {
                Some(name) if is_plain(name) => regex::escape(name),
                Some(_) | None => NOTHING.to_owned(),
            });
            return Self::of_regex(or_nothing(&text));
        }
        if text.len() > PATTERNS_BYTES_MAX || text.lines().count() > PATTERNS_MAX {
            let text = format!(
                "a topic permission has at most {PATTERNS_MAX} patterns and {PATTERNS_BYTES_MAX} \
                 bytes"
            );
            return Err(Refusal::new(RefusalKind::Invalid, text));
        }
        let mut patterns = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            // A name that cannot be one level of a topic is allowed nothing by this line.
            let mut is_void = false;
            let filled = names.fill(line, |name| match name {
                Some(name) if is_plain(name) && !name.contains('/') => match syntax {
                    TopicSyntax::Dot => name.replace('.', "/"),
                    TopicSyntax::Slash | TopicSyntax::Regex => name.to_owned(),
                },
                Some(_) | None => {
                    is_void = true;
                    String::from("-")
                }
            });
            let pattern = match syntax {
                TopicSyntax::Slash => Pattern::slash(&filled),
                TopicSyntax::Dot | TopicSyntax::Regex => Pattern::dot(&filled),
            };
            let pattern = pattern.map_err(|bad| {
                Refusal::new(RefusalKind::Invalid, format!("topic permission '{line}': {bad}"))
            })?;
            if !is_void {
                patterns.push(pattern);
            }
        }
        Ok(Self::Patterns(patterns))
    }

    /// A dot of the expression stands for a line end as well; otherwise `^a\..*$` would not take
    /// every topic below `a`, and no filter could lie inside it.
    ///
    /// Errors: kind `Invalid`.
    pub(super) fn of_regex(text: &str) -> Result<Self, Refusal> {
        let text = format!("(?s){text}");
        Ok(Self::Regex(Expression::compile(&text)?, text.into()))
    }

    /// Whether a topic is allowed.
    pub(super) fn allows(&self, key: &str) -> bool {
        match self {
            Self::Regex(expression, _) => expression.matches(key),
            Self::Patterns(patterns) => patterns.iter().any(|pattern| pattern.matches(key)),
        }
    }

    /// Whether every topic that `filter` matches is allowed. What cannot be decided is not allowed:
    /// a filter that only several patterns together allow, or an expression with look-around.
    pub(super) fn covers(&self, filter: &Pattern) -> bool {
        if filter.is_literal() {
            return self.allows(&literal_key(filter));
        }
        match self {
            Self::Regex(_, text) => inclusion::is_inside(filter, text),
            Self::Patterns(patterns) => patterns.iter().any(|pattern| pattern.covers(filter)),
        }
    }

    /// Whether every topic is allowed.
    pub(super) fn covers_all(&self) -> bool {
        Pattern::dot("#").is_ok_and(|all| self.covers(&all))
    }
}

/// The one key that a filter without wildcards matches.
fn literal_key(filter: &Pattern) -> String {
    let literals = filter.levels().iter().map(|level| match level {
        polymq_model::topic::Level::Literal(text) => &**text,
        polymq_model::topic::Level::One | polymq_model::topic::Level::Many => "",
    });
    literals.collect::<Vec<_>>().join(".")
}

/// A name that could be taken for a pattern, or for the end of a line, stands for nothing.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains(['*', '#', '+']) && !name.contains(char::is_control)
}

/// What placeholders stand for.
pub(super) struct Names<'a> {
    pub(super) user: &'a str,
    pub(super) vhost: &'a str,
    pub(super) client_id: Option<&'a str>,
}

impl Names<'_> {
    /// Puts names into the places of a text. What stands there is never looked at again.
    fn fill(&self, text: &str, mut write: impl FnMut(Option<&str>) -> String) -> String {
        let places = [
            ("{username}", Some(self.user)),
            ("{vhost}", Some(self.vhost)),
            (CLIENT_ID, self.client_id),
        ];
        let (mut rest, mut out) = (text, String::with_capacity(text.len()));
        while let Some(at) = rest.find('{') {
            let (before, from) = rest.split_at(at);
            out.push_str(before);
            match places.iter().find_map(|(place, name)| Some((from.strip_prefix(place)?, name))) {
                Some((after, name)) => {
                    out.push_str(&write(*name));
                    rest = after;
                }
                None => {
                    out.push('{');
                    rest = &from[1..];
                }
            }
        }
        out.push_str(rest);
        out
    }
}

const CLIENT_ID: &str = "{client_id}";

/// Both rules of a topic permission.
#[derive(Debug)]
pub(crate) struct TopicRules {
    write: TopicRule,
    read: TopicRule,
}

impl TopicRules {
    pub(super) fn of<A: TopicAction>(&self) -> &TopicRule {
        if A::NAME == Write::NAME { &self.write } else { &self.read }
    }

    /// Errors: kind `Invalid`.
    pub(super) fn compile(
        record: &TopicPermissionRecord,
        names: &Names<'_>,
    ) -> Result<Self, Refusal> {
        Ok(Self {
            write: TopicRule::compile(&record.write, record.syntax, names)?,
            read: TopicRule::compile(&record.read, record.syntax, names)?,
        })
    }
}

/// A topic permission of a user on an exchange.
#[derive(Debug)]
pub(super) struct TopicPermission {
    pub(super) record: TopicPermissionRecord,
    /// The rules of whoever has no client id; they are those of everybody when the id is not named.
    rules: Arc<TopicRules>,
}

impl TopicPermission {
    /// Errors: kind `Invalid` when a rule is none.
    pub(super) fn compile(
        record: TopicPermissionRecord,
        user: &str,
        vhost: &str,
    ) -> Result<Self, Refusal> {
        // With a client id first, because a line that names one is not looked at without.
        TopicRules::compile(&record, &Names { user, vhost, client_id: Some("c") })?;
        let rules = TopicRules::compile(&record, &Names { user, vhost, client_id: None })?;
        Ok(Self { record, rules: Arc::new(rules) })
    }

    /// The rules for a client.
    pub(super) fn rules(
        &self,
        user: &str,
        vhost: &str,
        client_id: Option<&str>,
    ) -> Arc<TopicRules> {
        let record = &self.record;
        let is_named = record.write.contains(CLIENT_ID) || record.read.contains(CLIENT_ID);
        if client_id.is_none() || !is_named {
            return Arc::clone(&self.rules);
        }
        match TopicRules::compile(record, &Names { user, vhost, client_id }) {
            Ok(rules) => Arc::new(rules),
            // A long id may make an expression too long; then it stands for nothing.
            Err(_) => Arc::clone(&self.rules),
        }
    }
}

#[cfg(test)]
mod tests;
