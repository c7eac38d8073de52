//! Deliveries of one consumer that wait to be settled.

use std::collections::{BTreeMap, VecDeque};

use super::Entry;

/// The window is compacted when it is longer than this and mostly empty.
const WINDOW_MIN: usize = 1024;

/// Unsettled deliveries by number. Numbers count from 1 without gaps, so the usual settle is an
/// index away.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    /// Number of the first place of `window`.
    first: u64,
    window: VecDeque<Option<Entry>>,
    /// Old deliveries that others have overtaken; they would keep the window long.
    stragglers: BTreeMap<u64, Entry>,
    live: usize,
}

impl Unsettled {
    /// Deliveries that wait.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// All of them, in no order that means anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.stragglers.values().chain(self.window.iter().flatten())
    }

    /// Those numbered `number` and above, in order, with their numbers.
    pub(super) fn from(&self, number: u64) -> impl Iterator<Item = (u64, &Entry)> {
        let stragglers = self.stragglers.range(number..).map(|(number, entry)| (*number, entry));
        let skipped = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let skipped = skipped.min(self.window.len());
        let window = (self.first + skipped as u64..).zip(self.window.range(skipped..));
        stragglers.chain(window.filter_map(|(number, place)| Some((number, place.as_ref()?))))
    }

    /// The number of the oldest.
    pub(super) fn first(&self) -> Option<u64> {
        let straggler = self.stragglers.first_key_value().map(|(number, _)| *number);
        let in_window = self.window.front().is_some_and(Option::is_some).then_some(self.first);
        straggler.or(in_window)
    }

    /// Keeps the delivery `number`, which follows the one before.
    pub(super) fn push(&mut self, number: u64, entry: Entry) {
        if self.window.is_empty() {
            self.first = number;
        }
        self.window.push_back(Some(entry));
        self.live += 1;
    }

    /// Takes every delivery numbered `first` to `last` that still waits, in order.
    pub(super) fn take(&mut self, first: u64, last: u64, mut each: impl FnMut(Entry)) {
        if !self.stragglers.is_empty() {
            let numbers: Vec<u64> = self.stragglers.range(first..=last).map(|(n, _)| *n).collect();
            for number in numbers {
                if let Some(entry) = self.stragglers.remove(&number) {
                    self.live -= 1;
                    each(entry);
                }
            }
        }
        let end = self.first + self.window.len() as u64;
        let from = first.max(self.first);
        let to = last.saturating_add(1).min(end);
        if from == self.first {
            // The usual case: from the oldest on.
            for place in (from..to).map_while(|_| self.window.pop_front()) {
                self.first += 1;
                if let Some(entry) = place {
                    self.live -= 1;
                    each(entry);
                }
            }
        }
        for number in self.first.max(from)..to {
            let Ok(index) = usize::try_from(number - self.first) else { break };
            if let Some(entry) = self.window.get_mut(index).and_then(Option::take) {
                self.live -= 1;
                each(entry);
            }
        }
        while let Some(None) = self.window.front() {
            self.window.pop_front();
            self.first += 1;
        }
        self.compact();
    }

    fn compact(&mut self) {
        if self.window.len() < WINDOW_MIN || self.live.saturating_mul(2) > self.window.len() {
            return;
        }
        let first = self.first;
        for (index, place) in self.window.drain(..).enumerate() {
            if let Some(entry) = place {
                self.stragglers.insert(first + index as u64, entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::tests::entry;

    #[test]
    fn deliveries_are_taken_once_and_in_order() {
        let mut unsettled = Unsettled::default();
        for number in 1..=10 {
            unsettled.push(number, entry(number));
        }
        let mut taken = Vec::new();
        unsettled.take(3, 5, |e| taken.push(e.at.seq().0));
        unsettled.take(1, 6, |e| taken.push(e.at.seq().0));
        unsettled.take(1, 6, |e| taken.push(e.at.seq().0));
        assert_eq!(taken, [3, 4, 5, 1, 2, 6]);
        assert_eq!(unsettled.len(), 4);
    }

    #[test]
    fn those_from_a_number_on_are_found_wherever_they_are() {
        let mut unsettled = Unsettled::default();
        for number in 1..=3000 {
            unsettled.push(number, entry(number));
        }
        unsettled.take(10, 2990, drop);
        let from = |number| unsettled.from(number).map(|(n, _)| n).collect::<Vec<_>>();
        assert_eq!(from(0).len(), 19);
        assert_eq!(from(8)[..3], [8, 9, 2991]);
        assert_eq!(from(2999), [2999, 3000]);
        assert!(from(3001).is_empty());
    }

    #[test]
    fn one_delivery_that_is_never_settled_does_not_keep_the_window_long() {
        let mut unsettled = Unsettled::default();
        unsettled.push(1, entry(1));
        for number in 2..=1_000_000 {
            unsettled.push(number, entry(number));
            unsettled.take(number, number, drop);
        }
        assert!(unsettled.window.len() <= WINDOW_MIN);
        assert_eq!(unsettled.len(), 1);
        let mut taken = Vec::new();
        unsettled.take(0, u64::MAX, |e| taken.push(e.at.seq().0));
        assert_eq!(taken, [1]);
    }
}
