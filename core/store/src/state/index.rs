//! The live messages of one log, by position.

use std::collections::VecDeque;

use crate::Seq;

/// Below this many removed entries the index is not compacted.
const DEAD_MIN: usize = 64;

/// Positions in ascending order, each with a place. Removed ones stay as gaps until they reach
/// the front or outnumber the live ones.
#[derive(Debug, Clone)]
pub(super) struct Index<V> {
    entries: VecDeque<(Seq, Option<V>)>,
    live: usize,
}

impl<V> Default for Index<V> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), live: 0 }
    }
}

impl<V> Index<V> {
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// The lowest live position.
    pub(super) fn first(&self) -> Option<Seq> {
        self.entries.front().map(|(seq, _)| *seq)
    }

    /// Adds `place` at `seq`; returns it when the position is live already.
    pub(super) fn insert(&mut self, seq: Seq, place: V) -> Option<V> {
        let behind_all = self.entries.back().is_none_or(|(last, _)| *last < seq);
        if behind_all {
            self.entries.push_back((seq, Some(place)));
            self.live += 1;
            return None;
        }
        match self.entries.binary_search_by_key(&seq, |(at, _)| *at) {
            Ok(at) if self.entries[at].1.is_some() => return Some(place),
            Ok(at) => self.entries[at].1 = Some(place),
            Err(at) => self.entries.insert(at, (seq, Some(place))),
        }
        self.live += 1;
        None
    }

    /// Removes every live position from `first` to `last`, both included.
    pub(super) fn remove(&mut self, first: Seq, last: Seq, mut removed: impl FnMut(Seq, V)) {
        let start = self.start_of(first);
        for (seq, place) in self.entries.range_mut(start..) {
            if *seq > last {
                break;
            }
            if let Some(place) = place.take() {
                self.live -= 1;
                removed(*seq, place);
            }
        }
        self.tidy();
    }

    pub(super) fn at(&self, seq: Seq) -> Option<&V> {
        let at = self.entries.binary_search_by_key(&seq, |(at, _)| *at).ok()?;
        self.entries.get(at)?.1.as_ref()
    }

    pub(super) fn at_mut(&mut self, seq: Seq) -> Option<&mut V> {
        let at = self.entries.binary_search_by_key(&seq, |(at, _)| *at).ok()?;
        self.entries.get_mut(at)?.1.as_mut()
    }

    /// The live positions from `first` upwards.
    pub(super) fn from(&self, first: Seq) -> impl Iterator<Item = (Seq, &V)> {
        let start = self.start_of(first);
        self.entries.range(start..).filter_map(|(seq, place)| Some((*seq, place.as_ref()?)))
    }

    fn start_of(&self, first: Seq) -> usize {
        match self.entries.front() {
            Some((front, _)) if *front >= first => 0,
            _ => self.entries.partition_point(|(seq, _)| *seq < first),
        }
    }

    fn tidy(&mut self) {
        while self.entries.front().is_some_and(|(_, place)| place.is_none()) {
            self.entries.pop_front();
        }
        let dead = self.entries.len() - self.live;
        if dead > DEAD_MIN && dead > self.live {
            self.entries.retain(|(_, place)| place.is_some());
        }
        if self.entries.capacity() > DEAD_MIN * 4 && self.entries.capacity() / 4 > self.live {
            self.entries.shrink_to(self.entries.len().saturating_mul(2));
        }
    }
}
