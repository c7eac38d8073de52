//! Deliveries of one subscription that the client has not settled.

use std::collections::VecDeque;

/// Settled entries are swept out once there are this many, and more of them than of others.
const SETTLED_SWEPT_AT: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Entry {
    number: u64,
    is_settled: bool,
}

/// Numbers of unsettled deliveries, ascending. Memory follows those that are unsettled.
#[derive(Debug, Default)]
pub(crate) struct Unsettled {
    entries: VecDeque<Entry>,
    settled: usize,
}

impl Unsettled {
    /// A delivery goes out; numbers only grow.
    pub(crate) fn push(&mut self, number: u64) {
        self.entries.push_back(Entry { number, is_settled: false });
    }

    /// Takes a delivery; false when it is not unsettled.
    pub(crate) fn take(&mut self, number: u64) -> bool {
        let Some(at) = self.find(number) else { return false };
        let Some(entry) = self.entries.get_mut(at) else { return false };
        entry.is_settled = true;
        self.settled += 1;
        while self.entries.pop_front_if(|entry| entry.is_settled).is_some() {
            self.settled -= 1;
        }
        if self.settled > SETTLED_SWEPT_AT && self.settled > self.entries.len() / 2 {
            self.entries.retain(|entry| !entry.is_settled);
            self.settled = 0;
        }
        true
    }

    /// Takes everything up to a delivery, which must be unsettled itself, and calls `each` with the
    /// numbers in order; false when it is not.
    pub(crate) fn take_up_to(&mut self, number: u64, mut each: impl FnMut(u64)) -> bool {
        let Some(at) = self.find(number) else { return false };
        for entry in self.entries.drain(..=at) {
            match entry.is_settled {
                true => self.settled -= 1,
                false => each(entry.number),
            }
        }
        true
    }

    /// Puts deliveries back whose settling was undone.
    pub(crate) fn restore(&mut self, numbers: impl IntoIterator<Item = u64>) {
        self.entries.retain(|entry| !entry.is_settled);
        self.settled = 0;
        let back = numbers.into_iter().map(|number| Entry { number, is_settled: false });
        self.entries.extend(back);
        self.entries.make_contiguous().sort_unstable_by_key(|entry| entry.number);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Mostly the distance from the first.
    fn find(&self, number: u64) -> Option<usize> {
        let first = self.entries.front()?.number;
        let guess = usize::try_from(number.checked_sub(first)?).ok()?;
        let is_it = |at: usize| self.entries.get(at).is_some_and(|entry| entry.number == number);
        let at = match is_it(guess) {
            true => guess,
            false => self.entries.binary_search_by_key(&number, |entry| entry.number).ok()?,
        };
        self.entries.get(at).is_some_and(|entry| !entry.is_settled).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(numbers: std::ops::RangeInclusive<u64>) -> Unsettled {
        let mut unsettled = Unsettled::default();
        numbers.for_each(|number| unsettled.push(number));
        unsettled
    }

    #[test]
    fn each_delivery_is_taken_once() {
        let mut unsettled = of(1..=5);
        assert!(unsettled.take(3));
        assert!(!unsettled.take(3));
        let mut taken = Vec::new();
        assert!(unsettled.take_up_to(4, |number| taken.push(number)));
        assert_eq!(taken, [1, 2, 4]);
        assert!(!unsettled.take_up_to(4, |_| {}));
        assert!(!unsettled.take(6));
        assert!(unsettled.take(5));
        assert!(unsettled.is_empty());
    }

    #[test]
    fn what_comes_back_stands_in_its_place() {
        let mut unsettled = of(1..=4);
        assert!(unsettled.take(2) && unsettled.take(3));
        unsettled.restore([3, 2]);
        let mut taken = Vec::new();
        assert!(unsettled.take_up_to(4, |number| taken.push(number)));
        assert_eq!(taken, [1, 2, 3, 4]);
    }

    #[test]
    fn one_delivery_that_stays_does_not_keep_the_others() {
        let mut unsettled = of(1..=1);
        for number in 2..=100_000 {
            unsettled.push(number);
            assert!(unsettled.take(number));
        }
        assert!(unsettled.entries.len() <= 2 * SETTLED_SWEPT_AT + 2);
        assert!(unsettled.take(1));
    }
}
