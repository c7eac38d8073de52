//! A hash map whose clones share what they have in common.
//!
//! Snapshots of the broker's tables are clones: taking one costs a reference, and an update
//! afterwards copies the few branches on the way to its entry. Branches that nobody else holds are
//! changed in place.

use std::{
    borrow::Borrow,
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    slice,
    sync::Arc,
};

use smallvec::SmallVec;

#[cfg(test)]
mod tests;

/// Bits of the hash that choose a slot of one branch.
const BITS: u32 = 5;
/// Branches on the way to any entry, at most.
const DEPTH_MAX: usize = 13;

/// A persistent map. Cloning it costs one reference; keys and values should be cheap to clone.
///
/// The order of [`PersistentMap::iter`] is that of the hashes: sort before showing it, or before
/// anything that must replay depends on it. The default hasher is seeded at random, so that keys
/// may come from clients.
pub struct PersistentMap<K, V, S = RandomState> {
    root: Option<Arc<Branch<K, V>>>,
    len: usize,
    hasher: S,
}

#[derive(Clone)]
struct Branch<K, V> {
    /// A bit for each slot that is present.
    present: u32,
    slots: Vec<Slot<K, V>>,
}

#[derive(Clone)]
enum Slot<K, V> {
    Entry(u64, K, V),
    Branch(Arc<Branch<K, V>>),
    /// Entries with one and the same hash; only below the last bits of it.
    Collision(Arc<Vec<(K, V)>>),
}

impl<K, V, S: Default> PersistentMap<K, V, S> {
    /// An empty map.
    pub fn new() -> Self {
        Self { root: None, len: 0, hasher: S::default() }
    }
}

impl<K, V, S> PersistentMap<K, V, S> {
    /// The number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries, in no useful order. Allocates nothing.
    pub fn iter(&self) -> Iter<'_, K, V> {
        let mut stack = SmallVec::new();
        if let Some(root) = &self.root {
            stack.push(root.slots.iter());
        }
        Iter { stack, collision: [].iter() }
    }

    /// All keys, in no useful order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values, in no useful order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> PersistentMap<K, V, S> {
    /// The value under `key`.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let mut branch = self.root.as_ref()?;
        let hash = self.hasher.hash_one(key);
        let mut shift = 0;
        loop {
            match branch.slots.get(branch.place(hash, shift)?)? {
                Slot::Entry(other, found, value) => {
                    return (*other == hash && found.borrow() == key).then_some(value);
                }
                Slot::Branch(next) => branch = next,
                Slot::Collision(entries) => {
                    let found = entries.iter().find(|(found, _)| found.borrow() == key);
                    return found.map(|(_, value)| value);
                }
            }
            shift += BITS;
        }
    }

    /// True when there is a value under `key`.
    pub fn contains_key<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }
}

impl<K: Hash + Eq + Clone, V: Clone, S: BuildHasher> PersistentMap<K, V, S> {
    /// Puts `value` under `key` and returns what was there before.
    ///
    /// Cost: a few branches copied when they are shared with a clone.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let hash = self.hasher.hash_one(&key);
        let root = self.root.get_or_insert_with(|| Arc::new(Branch::empty()));
        let before = Arc::make_mut(root).insert(0, hash, key, value);
        if before.is_none() {
            self.len += 1;
        }
        before
    }

    /// Takes out the value under `key`. Copies nothing when there is none.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        if !self.contains_key(key) {
            return None;
        }
        let hash = self.hasher.hash_one(key);
        let root = self.root.as_mut()?;
        let removed = Arc::make_mut(root).remove(0, hash, key)?;
        self.len = self.len.saturating_sub(1);
        if self.len == 0 {
            self.root = None;
        }
        Some(removed)
    }

    /// The value under `key`, to be changed in this clone only. Copies nothing when there is none.
    pub fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        if !self.contains_key(key) {
            return None;
        }
        let hash = self.hasher.hash_one(key);
        let mut branch = Arc::make_mut(self.root.as_mut()?);
        let mut shift = 0;
        loop {
            let place = branch.place(hash, shift)?;
            match branch.slots.get_mut(place)? {
                Slot::Entry(_, _, value) => return Some(value),
                Slot::Branch(next) => branch = Arc::make_mut(next),
                Slot::Collision(entries) => {
                    let entries = Arc::make_mut(entries).iter_mut();
                    return entries
                        .map(|(found, value)| (&*found, value))
                        .find(|(found, _)| (*found).borrow() == key)
                        .map(|(_, value)| value);
                }
            }
            shift += BITS;
        }
    }
}

impl<K, V> Branch<K, V> {
    fn empty() -> Self {
        Self { present: 0, slots: Vec::new() }
    }

    fn bit(hash: u64, shift: u32) -> u32 {
        1 << ((hash >> shift) & 31)
    }

    /// Where in `slots` the slot of this hash would stand.
    fn rank(&self, bit: u32) -> usize {
        (self.present & (bit - 1)).count_ones() as usize
    }

    /// Where in `slots` the slot of this hash stands, when it is present.
    fn place(&self, hash: u64, shift: u32) -> Option<usize> {
        let bit = Self::bit(hash, shift);
        (self.present & bit != 0).then(|| self.rank(bit))
    }
}

impl<K: Eq + Clone, V: Clone> Branch<K, V> {
    fn insert(&mut self, shift: u32, hash: u64, key: K, value: V) -> Option<V> {
        let bit = Self::bit(hash, shift);
        let rank = self.rank(bit);
        if self.present & bit == 0 {
            self.present |= bit;
            self.slots.insert(rank, Slot::Entry(hash, key, value));
            return None;
        }
        let slot = self.slots.get_mut(rank)?;
        if matches!(slot, Slot::Entry(_, found, _) if *found != key) {
            slot.push_down(shift + BITS);
        }
        match slot {
            Slot::Entry(_, _, present) => Some(std::mem::replace(present, value)),
            Slot::Branch(next) => Arc::make_mut(next).insert(shift + BITS, hash, key, value),
            Slot::Collision(entries) => {
                let entries = Arc::make_mut(entries);
                if let Some((_, present)) = entries.iter_mut().find(|(found, _)| *found == key) {
                    return Some(std::mem::replace(present, value));
                }
                entries.push((key, value));
                None
            }
        }
    }

    fn remove<Q: Eq + ?Sized>(&mut self, shift: u32, hash: u64, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let place = self.place(hash, shift)?;
        let slot = self.slots.get_mut(place)?;
        let removed = match slot {
            Slot::Entry(..) => {
                self.present &= !Self::bit(hash, shift);
                let Slot::Entry(_, _, value) = self.slots.remove(place) else { return None };
                return Some(value);
            }
            Slot::Branch(next) => Arc::make_mut(next).remove(shift + BITS, hash, key),
            Slot::Collision(entries) => {
                let entries = Arc::make_mut(entries);
                let at = entries.iter().position(|(found, _)| found.borrow() == key)?;
                Some(entries.swap_remove(at).1)
            }
        };
        slot.pull_up(hash);
        removed
    }
}

impl<K: Clone, V: Clone> Slot<K, V> {
    /// Makes room for a second entry where this slot holds one.
    fn push_down(&mut self, shift: u32) {
        let last = shift >= u64::BITS;
        let room = if last {
            Self::Collision(Arc::default())
        } else {
            Self::Branch(Arc::new(Branch::empty()))
        };
        let old = std::mem::replace(self, room);
        let Self::Entry(hash, key, value) = old else { return };
        match self {
            Self::Collision(entries) => Arc::make_mut(entries).push((key, value)),
            Self::Branch(branch) => {
                let branch = Arc::make_mut(branch);
                branch.present = Branch::<K, V>::bit(hash, shift);
                branch.slots.push(Self::Entry(hash, key, value));
            }
            Self::Entry(..) => {}
        }
    }

    /// Replaces a branch or collision that is left with a single entry by that entry.
    fn pull_up(&mut self, hash: u64) {
        let only = match self {
            Self::Branch(branch) => match branch.slots.as_slice() {
                [only @ Self::Entry(..)] => Some(only.clone()),
                _ => None,
            },
            Self::Collision(entries) => match entries.as_slice() {
                [(key, value)] => Some(Self::Entry(hash, key.clone(), value.clone())),
                _ => None,
            },
            Self::Entry(..) => None,
        };
        if let Some(only) = only {
            *self = only;
        }
    }
}

/// Iterator over a [`PersistentMap`].
pub struct Iter<'a, K, V> {
    stack: SmallVec<[slice::Iter<'a, Slot<K, V>>; DEPTH_MAX]>,
    collision: slice::Iter<'a, (K, V)>,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        if let Some((key, value)) = self.collision.next() {
            return Some((key, value));
        }
        loop {
            match self.stack.last_mut()?.next() {
                Some(Slot::Entry(_, key, value)) => return Some((key, value)),
                Some(Slot::Branch(branch)) => self.stack.push(branch.slots.iter()),
                Some(Slot::Collision(entries)) => {
                    self.collision = entries.iter();
                    if let Some((key, value)) = self.collision.next() {
                        return Some((key, value));
                    }
                }
                None => {
                    self.stack.pop();
                }
            }
        }
    }
}

impl<K, V, S: Clone> Clone for PersistentMap<K, V, S> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone(), len: self.len, hasher: self.hasher.clone() }
    }
}

impl<K, V, S: Default> Default for PersistentMap<K, V, S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: fmt::Debug, V: fmt::Debug, S> fmt::Debug for PersistentMap<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'a, K, V, S> IntoIterator for &'a PersistentMap<K, V, S> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}

impl<K: Hash + Eq + Clone, V: Clone, S: BuildHasher + Default> FromIterator<(K, V)>
    for PersistentMap<K, V, S>
{
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::new();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}
