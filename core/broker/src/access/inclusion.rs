//! Whether a topic filter lies wholly inside a regular expression: both are run side by side as
//! automata, over every text that the filter matches.

use std::collections::HashSet;

use polymq_model::topic::{Level, Pattern};
use regex_automata::{
    Anchored,
    hybrid::{
        LazyStateID,
        dfa::{Cache, DFA},
    },
    util::start,
};

/// Memory that each automaton may take, in bytes.
const AUTOMATON_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Pairs of states that are looked at, which bounds the work to a few milliseconds.
const PAIRS_MAX: usize = 8_000;

/// True when every key that `filter` matches is matched somewhere by `expression`. False as well
/// when that would take too long to find out, or cannot be found out because the expression has
/// look-around.
pub(super) fn is_inside(filter: &Pattern, expression: &str) -> bool {
    let walk = || {
        let outer = Automaton::new(expression, Anchored::No)?;
        let inner = Automaton::new(&text_of(filter), Anchored::Yes)?;
        Walk::new(inner, outer).run(filter.matches(""))
    };
    walk().unwrap_or(false)
}

/// A filter as a regular expression on keys that have a dot behind each level.
fn text_of(filter: &Pattern) -> String {
    let mut text = String::from("^");
    // A wildcard in first place does not see levels that begin with `$`.
    let mut hides = filter.hides_dollar();
    for level in filter.levels() {
        let one = if hides { r"(?:[^.$][^.]*)?\." } else { r"[^.]*\." };
        match level {
            Level::Literal(literal) => {
                text.push_str(&regex::escape(literal));
                text.push_str(r"\.");
            }
            Level::One => text.push_str(one),
            Level::Many if hides => {
                text.push_str(one);
                text.push_str(r"(?:[^.]*\.)*");
            }
            Level::Many => text.push_str(r"(?:[^.]*\.)*"),
        }
        hides = false;
    }
    text.push('$');
    text
}

struct Automaton {
    dfa: DFA,
    cache: Cache,
    start: LazyStateID,
}

impl Automaton {
    fn new(expression: &str, anchored: Anchored) -> Option<Self> {
        // An automaton that forgets states would walk in circles; it gives up instead.
        let config = DFA::config()
            .cache_capacity(AUTOMATON_BYTES_MAX)
            .minimum_cache_clear_count(Some(0))
            .skip_cache_capacity_check(true);
        let dfa = DFA::builder().configure(config).build(expression).ok()?;
        let mut cache = dfa.create_cache();
        let from = start::Config::new().anchored(anchored);
        let start = dfa.start_state(&mut cache, &from).ok()?;
        Some(Self { dfa, cache, start })
    }

    fn step(&mut self, at: LazyStateID, byte: u8) -> Option<LazyStateID> {
        let next = self.dfa.next_state(&mut self.cache, at, byte).ok()?;
        (!next.is_quit()).then_some(next)
    }

    fn accepts_end(&mut self, at: LazyStateID) -> Option<bool> {
        let end = self.dfa.next_eoi_state(&mut self.cache, at).ok()?;
        (!end.is_quit()).then_some(end.is_match())
    }
}

/// Both automata, and the pairs of states that have been reached. `None` for the outer one means
/// that it has found its match.
struct Walk {
    inner: Automaton,
    outer: Automaton,
    /// One byte of each kind that some automaton tells from others.
    bytes: Vec<u8>,
    seen: HashSet<(LazyStateID, Option<LazyStateID>)>,
    next: Vec<(LazyStateID, Option<LazyStateID>)>,
}

impl Walk {
    fn new(inner: Automaton, outer: Automaton) -> Self {
        let (ours, theirs) = (inner.dfa.byte_classes(), outer.dfa.byte_classes());
        let mut kinds = HashSet::new();
        let bytes = (0..=u8::MAX).filter(|byte| kinds.insert((ours.get(*byte), theirs.get(*byte))));
        let bytes = bytes.collect();
        Self { inner, outer, bytes, seen: HashSet::new(), next: Vec::new() }
    }

    /// `None` when it cannot be decided.
    fn run(mut self, takes_nothing: bool) -> Option<bool> {
        let (inner, outer) = (self.inner.start, self.outer.start);
        if takes_nothing && !self.outer.accepts_end(outer)? {
            return Some(false);
        }
        self.reach(inner, Some(outer));
        while let Some((inner, outer)) = self.next.pop() {
            if self.seen.len() > PAIRS_MAX {
                return None;
            }
            for at in 0..self.bytes.len() {
                let Some(byte) = self.bytes.get(at).copied() else { break };
                let inner = self.inner.step(inner, byte)?;
                if inner.is_dead() {
                    continue;
                }
                let outer = match outer {
                    None => None,
                    Some(at) => {
                        let next = self.outer.step(at, byte)?;
                        // A match shows one byte late.
                        (!next.is_match()).then_some(next)
                    }
                };
                if self.is_key(inner)? && !self.is_matched(outer)? {
                    return Some(false);
                }
                self.reach(inner, outer);
            }
        }
        Some(true)
    }

    fn reach(&mut self, inner: LazyStateID, outer: Option<LazyStateID>) {
        if self.seen.insert((inner, outer)) {
            self.next.push((inner, outer));
        }
    }

    /// Whether what has been read is a key of the filter: the filter then takes one dot more.
    fn is_key(&mut self, at: LazyStateID) -> Option<bool> {
        let dotted = self.inner.step(at, b'.')?;
        if dotted.is_dead() { Some(false) } else { self.inner.accepts_end(dotted) }
    }

    fn is_matched(&mut self, at: Option<LazyStateID>) -> Option<bool> {
        match at {
            None => Some(true),
            Some(at) if at.is_dead() => Some(false),
            Some(at) => self.outer.accepts_end(at),
        }
    }
}
