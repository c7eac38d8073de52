//! The trie that finds the patterns a topic matches.

use std::{
    hash::{BuildHasher, Hasher},
    sync::Arc,
};

use super::{
    pattern::{Level, Pattern},
    text::{Levels, levels},
};
use crate::persistent::PersistentMap;

/// Values of one pattern that are kept in a plain list.
const FEW_MAX: usize = 16;

/// Names one entry of a [`Trie`]; never reused by the trie and its clones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(u64);

/// Patterns, each with any number of values. Cloning it costs a few references, and clones share
/// their nodes.
///
/// Values should be cheap to clone, because an update copies the nodes it shares with a clone.
#[derive(Debug, Clone)]
pub struct Trie<T> {
    /// Patterns that see every topic.
    open: Arc<Node<T>>,
    /// Patterns that begin with a wildcard of MQTT, which sees neither `$` topics nor the empty
    /// key.
    hiding: Arc<Node<T>>,
    next: u64,
    len: usize,
}

#[derive(Debug, Clone)]
struct Node<T> {
    literals: PersistentMap<Arc<str>, Arc<Self>>,
    one: Option<Arc<Self>>,
    /// The node after a `Many`. It has values and literals only, see [`Pattern`].
    many: Option<Arc<Self>>,
    /// In the node after the second `Many` of its patterns: the levels between the two.
    between: Option<Arc<[Level]>>,
    values: Values<T>,
}

#[derive(Debug, Clone)]
enum Values<T> {
    Few(Vec<(EntryId, T)>),
    Lots(PersistentMap<EntryId, T, InOrder>),
}

/// Where the first `Many` of a pattern began, and how many levels it takes.
#[derive(Clone, Copy)]
struct Span<'k> {
    start: Levels<'k>,
    taken: usize,
}

impl<T> Trie<T> {
    /// An empty trie.
    pub fn new() -> Self {
        let empty = Arc::new(Node::new(None));
        Self { open: Arc::clone(&empty), hiding: empty, next: 0, len: 0 }
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Calls `each` once for every entry whose pattern matches the topic with this key in dot form.
    ///
    /// Cost: the levels of the key, times the wildcards beside them. Allocates nothing.
    pub fn for_each_match(&self, key: &str, mut each: impl FnMut(&T)) {
        self.open.visit(levels(key), None, &mut each);
        if !key.is_empty() && !key.starts_with('$') {
            self.hiding.visit(levels(key), None, &mut each);
        }
    }

    fn root(&self, pattern: &Pattern) -> &Arc<Node<T>> {
        if pattern.hides() { &self.hiding } else { &self.open }
    }

    fn root_mut(&mut self, pattern: &Pattern) -> &mut Arc<Node<T>> {
        if pattern.hides() { &mut self.hiding } else { &mut self.open }
    }
}

impl<T: Clone> Trie<T> {
    /// Adds an entry; one pattern may have many, also equal ones. The id serves
    /// [`Trie::remove_entry`].
    ///
    /// Cost: the nodes on the way of the pattern are copied when a clone shares them.
    pub fn insert(&mut self, pattern: &Pattern, value: T) -> EntryId {
        let id = EntryId(self.next);
        self.next = self.next.wrapping_add(1);
        if Node::insert(self.root_mut(pattern), pattern.levels(), id, value).is_some() {
            self.len = self.len.saturating_add(1);
        }
        id
    }

    /// Takes out an entry of `pattern` whose value `is_it`.
    ///
    /// A dot and a slash pattern with the same levels share their entries (`a.*` and `a/+`):
    /// `is_it` tells them apart.
    ///
    /// Cost: proportional to the entries of this pattern; [`Trie::remove_entry`] is faster where
    /// these are many.
    pub fn remove(&mut self, pattern: &Pattern, mut is_it: impl FnMut(&T) -> bool) -> Option<T> {
        let node = self.root(pattern).find(pattern.levels())?;
        let id = node.values.find(|_, value| is_it(value))?;
        self.remove_entry(pattern, id)
    }

    /// Takes out the entry that [`Trie::insert`] gave this id under this pattern. Copies nothing
    /// when there is none.
    pub fn remove_entry(&mut self, pattern: &Pattern, id: EntryId) -> Option<T> {
        let node = self.root(pattern).find(pattern.levels())?;
        if !node.values.contains(id) {
            return None;
        }
        let removed = Node::remove(self.root_mut(pattern), pattern.levels(), id)?;
        self.len = self.len.saturating_sub(1);
        Some(removed)
    }
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Node<T> {
    fn new(between: Option<Arc<[Level]>>) -> Self {
        Self {
            literals: PersistentMap::new(),
            one: None,
            many: None,
            between,
            values: Values::Few(Vec::new()),
        }
    }

    fn is_unused(&self) -> bool {
        self.literals.is_empty()
            && self.one.is_none()
            && self.many.is_none()
            && self.values.is_empty()
    }

    fn visit<F: FnMut(&T)>(&self, rest: Levels<'_>, span: Option<Span<'_>>, each: &mut F) {
        #[cfg(test)]
        super::tests::count_visit();
        if let Some(many) = &self.many
            && !many.is_reached_earlier(span)
        {
            many.values.for_each(each);
            many.visit_every_tail(rest, each);
        }
        let mut tail = rest;
        let Some(level) = tail.next() else {
            self.values.for_each(each);
            return;
        };
        if let Some(child) = self.literals.get(level) {
            child.visit(tail, span, each);
        }
        if let Some(child) = &self.one {
            child.visit(tail, span, each);
        }
    }

    /// Visits the levels after a `Many` for every number of levels that it can take.
    fn visit_every_tail<F: FnMut(&T)>(&self, start: Levels<'_>, each: &mut F) {
        if self.literals.is_empty() {
            return;
        }
        let mut tail = start;
        let mut taken = 0;
        while let Some(level) = tail.next() {
            if let Some(child) = self.literals.get(level) {
                child.visit(tail, Some(Span { start, taken }), each);
            }
            taken += 1;
        }
    }

    /// True when this node after a second `Many` was visited while the first one took fewer levels.
    ///
    /// That visit saw everything a later one could, so each value is reported once and no list of
    /// visits is needed.
    fn is_reached_earlier(&self, span: Option<Span<'_>>) -> bool {
        let (Some(between), Some(span)) = (&self.between, span) else { return false };
        let mut start = span.start;
        for _ in 0..span.taken {
            let mut at = start;
            let fits = between.iter().all(|level| match (level, at.next()) {
                (Level::Literal(literal), Some(text)) => **literal == *text,
                (Level::One | Level::Many, Some(_)) => true,
                (_, None) => false,
            });
            if fits {
                return true;
            }
            start.next();
        }
        false
    }

    fn find(&self, pattern: &[Level]) -> Option<&Self> {
        let mut node = self;
        for level in pattern {
            node = match level {
                Level::Literal(text) => node.literals.get(text)?,
                Level::One => node.one.as_ref()?,
                Level::Many => node.many.as_ref()?,
            };
        }
        Some(node)
    }
}

impl<T: Clone> Node<T> {
    fn insert(root: &mut Arc<Self>, pattern: &[Level], id: EntryId, value: T) -> Option<()> {
        let mut node = Arc::make_mut(root);
        let mut first_many = None;
        for (index, level) in pattern.iter().enumerate() {
            let child = match level {
                Level::Literal(text) => {
                    if !node.literals.contains_key(text) {
                        node.literals.insert(Arc::clone(text), Arc::new(Self::new(None)));
                    }
                    node.literals.get_mut(text)?
                }
                Level::One => node.one.get_or_insert_with(|| Arc::new(Self::new(None))),
                Level::Many => {
                    let between = first_many.and_then(|first| pattern.get(first..index));
                    first_many = first_many.or(Some(index + 1));
                    let between = between.map(Arc::from);
                    node.many.get_or_insert_with(|| Arc::new(Self::new(between)))
                }
            };
            node = Arc::make_mut(child);
        }
        node.values.insert(id, value);
        Some(())
    }

    fn remove(node: &mut Arc<Self>, pattern: &[Level], id: EntryId) -> Option<T> {
        let node = Arc::make_mut(node);
        let Some((level, rest)) = pattern.split_first() else { return node.values.remove(id) };
        match level {
            Level::Literal(text) => {
                let child = node.literals.get_mut(text)?;
                let removed = Self::remove(child, rest, id);
                if child.is_unused() {
                    node.literals.remove(text);
                }
                removed
            }
            Level::One => Self::remove_in(&mut node.one, rest, id),
            Level::Many => Self::remove_in(&mut node.many, rest, id),
        }
    }

    fn remove_in(slot: &mut Option<Arc<Self>>, pattern: &[Level], id: EntryId) -> Option<T> {
        let child = slot.as_mut()?;
        let removed = Self::remove(child, pattern, id);
        if child.is_unused() {
            *slot = None;
        }
        removed
    }
}

impl<T> Values<T> {
    fn is_empty(&self) -> bool {
        match self {
            Self::Few(list) => list.is_empty(),
            Self::Lots(map) => map.is_empty(),
        }
    }

    fn for_each(&self, each: &mut impl FnMut(&T)) {
        match self {
            Self::Few(list) => list.iter().for_each(|(_, value)| each(value)),
            Self::Lots(map) => map.values().for_each(each),
        }
    }

    fn find(&self, mut is_it: impl FnMut(EntryId, &T) -> bool) -> Option<EntryId> {
        match self {
            Self::Few(list) => list.iter().find(|(id, value)| is_it(*id, value)).map(|(id, _)| *id),
            Self::Lots(map) => map.iter().find(|(id, value)| is_it(**id, value)).map(|(id, _)| *id),
        }
    }

    fn contains(&self, wanted: EntryId) -> bool {
        match self {
            Self::Few(list) => list.iter().any(|(id, _)| *id == wanted),
            Self::Lots(map) => map.contains_key(&wanted),
        }
    }
}

impl<T: Clone> Values<T> {
    fn insert(&mut self, id: EntryId, value: T) {
        match self {
            Self::Few(list) if list.len() < FEW_MAX => list.push((id, value)),
            Self::Few(list) => {
                let mut map: PersistentMap<_, _, _> = list.drain(..).collect();
                map.insert(id, value);
                *self = Self::Lots(map);
            }
            Self::Lots(map) => {
                map.insert(id, value);
            }
        }
    }

    fn remove(&mut self, wanted: EntryId) -> Option<T> {
        match self {
            Self::Few(list) => {
                let at = list.iter().position(|(id, _)| *id == wanted)?;
                Some(list.remove(at).1)
            }
            Self::Lots(map) => map.remove(&wanted),
        }
    }
}

/// Hashes an [`EntryId`] to itself: the trie counts them, so they are spread already and no client
/// chooses them.
///
/// It also makes the order of the values the same in every run.
#[derive(Debug, Clone, Copy, Default)]
struct InOrder;

/// The hasher of [`InOrder`].
#[derive(Debug, Default)]
struct Identity(u64);

impl BuildHasher for InOrder {
    type Hasher = Identity;

    fn build_hasher(&self) -> Identity {
        Identity::default()
    }
}

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}
