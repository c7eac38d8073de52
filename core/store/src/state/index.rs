//! The live messages of one log, by position.

use std::collections::VecDeque;

use super::{Messages, Place};
use crate::Seq;

/// Below this many removed entries the index is not compacted.
const DEAD_MIN: usize = 64;

/// Positions in ascending order, each with a place. Removed ones stay as gaps until they reach
/// the front or outnumber the live ones.
#[derive(Debug, Clone)]
pub struct Index<V> {
    entries: VecDeque<(Seq, Option<V>)>,
    live: usize,
    bytes: u64,
}

impl<V> Default for Index<V> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), live: 0, bytes: 0 }
    }
}

impl<V: Place> Index<V> {
    /// True when nothing lives.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// The highest position that is remembered; whether it lives is another question.
    pub fn last(&self) -> Option<Seq> {
        self.entries.back().map(|(seq, _)| *seq)
    }

    /// The place of one live message.
    pub fn at(&self, seq: Seq) -> Option<&V> {
        let at = self.entries.binary_search_by_key(&seq, |(at, _)| *at).ok()?;
        self.entries.get(at)?.1.as_ref()
    }

    /// The live positions from `first` upwards.
    pub fn from(&self, first: Seq) -> impl Iterator<Item = (Seq, &V)> {
        let start = self.start_of(first);
        self.entries.range(start..).filter_map(|(seq, place)| Some((*seq, place.as_ref()?)))
    }

    /// Gives memory back that is kept for messages to come.
    pub fn shrink(&mut self) {
        self.entries.retain(|(_, place)| place.is_some());
        self.entries.shrink_to_fit();
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

impl<V: Place> Messages for Index<V> {
    type Place = V;

    fn insert(&mut self, seq: Seq, place: V) -> bool {
        let bytes = place.content_bytes();
        let behind_all = self.entries.back().is_none_or(|(last, _)| *last < seq);
        if behind_all {
            self.entries.push_back((seq, Some(place)));
        } else {
            match self.entries.binary_search_by_key(&seq, |(at, _)| *at) {
                Ok(at) if self.entries[at].1.is_some() => return true,
                Ok(at) => self.entries[at].1 = Some(place),
                Err(at) => self.entries.insert(at, (seq, Some(place))),
            }
        }
        self.live += 1;
        self.bytes += bytes;
        true
    }

    fn remove(&mut self, first: Seq, last: Seq) {
        let start = self.start_of(first);
        for (seq, place) in self.entries.range_mut(start..) {
            if *seq > last {
                break;
            }
            if let Some(place) = place.take() {
                self.live -= 1;
                self.bytes -= place.content_bytes();
            }
        }
        self.tidy();
    }

    fn contains(&self, seq: Seq) -> bool {
        self.at(seq).is_some()
    }

    fn first(&self) -> Option<Seq> {
        self.from(Seq(0)).next().map(|(seq, _)| seq)
    }

    fn count(&self) -> u64 {
        self.live as u64
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn gaps(&self, from: Seq, until: Seq) -> Vec<(Seq, Seq)> {
        let (mut gaps, mut next) = (Vec::new(), from);
        let live = self.from(from).map(|(seq, _)| seq);
        for seq in live.take_while(|seq| *seq < until).chain([until]) {
            if let Some(last) = seq.0.checked_sub(1).filter(|last| *last >= next.0) {
                gaps.push((next, Seq(last)));
            }
            next = Seq(seq.0.saturating_add(1));
        }
        gaps
    }

    fn restore(&mut self, _first: Seq, _last: Seq, _description: &[u8]) -> bool {
        false
    }
}
