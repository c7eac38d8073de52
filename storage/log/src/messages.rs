//! The live messages of one log: parts that are closed, in ascending order and apart from each
//! other, and behind them what came since the write-ahead log began its present file.

use std::collections::VecDeque;

use polymq_store::{
    Seq,
    state::{Index, Messages},
};

use crate::{
    dead::Dead,
    part::{FilePart, Part, Source},
    place::Loc,
};

#[derive(Default)]
pub(crate) struct LogMessages {
    parts: VecDeque<Part>,
    tail: Index<Loc>,
}

/// Where a live message was found.
pub(crate) enum At<'a> {
    Part(&'a Part),
    Tail(&'a Index<Loc>),
}

impl LogMessages {
    /// Closes what the present file of the write-ahead log has brought.
    pub(crate) fn freeze(&mut self, wal: u32) {
        if self.tail.last().is_some()
            && let Some(part) = Part::frozen(wal, std::mem::take(&mut self.tail))
        {
            self.push(part);
        }
    }

    /// Takes little more room than needed: there may be very many logs.
    fn push(&mut self, part: Part) {
        if self.parts.len() == self.parts.capacity() {
            self.parts.reserve_exact(1 + self.parts.len() / 4);
        }
        self.parts.push_back(part);
    }

    /// True when there are messages behind the closed parts.
    pub(crate) fn has_tail(&self) -> bool {
        !self.tail.is_empty()
    }

    pub(crate) fn parts(&self) -> &VecDeque<Part> {
        &self.parts
    }

    pub(crate) fn parts_mut(&mut self) -> impl Iterator<Item = &mut Part> {
        self.parts.iter_mut()
    }

    /// The lowest live message from `from` on.
    pub(crate) fn next_live(&self, from: Seq) -> Option<(Seq, At<'_>)> {
        for part in self.parts.iter().skip(self.part_index(from.0)) {
            if let Some(seq) = part.dead.next_live(from.0) {
                return Some((Seq(seq), At::Part(part)));
            }
        }
        let (seq, _) = self.tail.from(from).next()?;
        Some((seq, At::Tail(&self.tail)))
    }

    /// The part that covers a position.
    pub(crate) fn part_at(&self, seq: Seq) -> Option<&Part> {
        self.parts.get(self.part_index(seq.0)).filter(|part| part.first() <= seq.0)
    }

    pub(crate) fn part_at_mut(&mut self, seq: Seq) -> Option<&mut Part> {
        let index = self.part_index(seq.0);
        self.parts.get_mut(index).filter(|part| part.first() <= seq.0)
    }

    /// Puts the parts from `first` to `last` into one, whose messages were copied to `to`.
    ///
    /// What was acknowledged meanwhile stays acknowledged; parts that are gone are dead. Without
    /// `to` nothing was alive when it was copied.
    pub(crate) fn replace(&mut self, first: u64, last: u64, to: Option<FilePart>) {
        let start = self.part_index(first);
        let end = self.parts.partition_point(|part| part.first() <= last);
        let old: Vec<Part> = self.parts.drain(start..end.max(start)).collect();
        let (Some(low), Some(high)) = (old.first().map(Part::first), old.last().map(Part::last))
        else {
            return;
        };
        let Some(file) = to else { return };
        let mut part = Part {
            dead: Dead::new(low, high),
            live_bytes: old.iter().map(|part| part.live_bytes).sum(),
            is_stale: old.iter().any(|part| part.is_stale),
            source: Source::File(file),
            hint: None,
        };
        let mut next = low;
        for old in &old {
            if let Some(before) = old.first().checked_sub(1).filter(|before| *before >= next) {
                part.dead.add(next, before);
            }
            old.dead.each_range(0, |from, to| {
                part.dead.add(from, to);
                true
            });
            next = old.last().saturating_add(1);
        }
        if let Source::File(FilePart { uniform: Some(_), .. }) = &part.source {
            part.is_stale = false;
            part.note_size();
        }
        if !part.is_empty() {
            self.parts.insert(start, part);
        }
        if self.parts.capacity() > 2 * self.parts.len() + 2 {
            self.parts.shrink_to(self.parts.len() + 1);
        }
    }

    /// The first part that ends at `seq` or later.
    fn part_index(&self, seq: u64) -> usize {
        match self.parts.front() {
            Some(front) if front.last() >= seq => 0,
            _ => self.parts.partition_point(|part| part.last() < seq),
        }
    }
}

impl Messages for LogMessages {
    type Place = Loc;

    fn insert(&mut self, seq: Seq, place: Loc) -> bool {
        if self.parts.back().is_some_and(|part| part.last() >= seq.0) {
            return self.contains(seq);
        }
        self.tail.insert(seq, place)
    }

    fn remove(&mut self, first: Seq, last: Seq) {
        self.tail.remove(first, last);
        let start = self.part_index(first.0);
        let mut is_any_empty = false;
        for part in self.parts.range_mut(start..) {
            if part.first() > last.0 {
                break;
            }
            part.remove(first.0, last.0);
            is_any_empty |= part.is_empty();
        }
        if is_any_empty {
            self.parts.retain(|part| !part.is_empty());
        }
    }

    fn contains(&self, seq: Seq) -> bool {
        match self.part_at(seq) {
            Some(part) => !part.dead.contains(seq.0),
            None => self.tail.contains(seq),
        }
    }

    fn first(&self) -> Option<Seq> {
        self.next_live(Seq(0)).map(|(seq, _)| seq)
    }

    fn count(&self) -> u64 {
        let parts: u64 = self.parts.iter().map(|part| part.dead.live_count()).sum();
        parts + self.tail.count()
    }

    fn bytes(&self) -> u64 {
        let parts: u64 = self.parts.iter().map(|part| part.live_bytes).sum();
        parts + self.tail.bytes()
    }

    fn gaps(&self, from: Seq, until: Seq) -> Vec<(Seq, Seq)> {
        let mut gaps: Vec<(Seq, Seq)> = Vec::new();
        let mut add = |first: u64, last: u64| {
            let first = first.max(from.0);
            let Some(last) = until.0.checked_sub(1).map(|end| end.min(last)) else { return };
            match gaps.last_mut() {
                _ if first > last => {}
                Some((_, end)) if end.0.saturating_add(1) >= first => end.0 = end.0.max(last),
                _ => gaps.push((Seq(first), Seq(last))),
            }
        };
        let mut next = from.0;
        for part in &self.parts {
            if let Some(before) = part.first().checked_sub(1) {
                add(next, before);
            }
            part.dead.each_range(from.0, |first, last| {
                add(first, last);
                first < until.0
            });
            next = next.max(part.last().saturating_add(1));
        }
        for (first, last) in self.tail.gaps(Seq(next), until.max(Seq(next))) {
            add(first.0, last.0);
        }
        gaps
    }

    fn restore(&mut self, first: Seq, last: Seq, description: &[u8]) -> bool {
        if self.parts.back().is_some_and(|part| part.last() >= first.0) {
            return false;
        }
        match Part::restored(first.0, last.0, description) {
            Some(part) => {
                self.push(part);
                true
            }
            None => false,
        }
    }
}
