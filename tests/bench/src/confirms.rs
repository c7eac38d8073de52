//! Which publishes wait for their confirm, whatever order the confirms come in.

/// A bounded window of publishes, numbered from 1.
pub struct Confirms {
    window: u64,
    /// Highest number published.
    published: u64,
    /// Every number up to this one is confirmed.
    low: u64,
    /// How many above `low` are confirmed already.
    early: u64,
    /// Whether the number with this index, modulo the length, was confirmed early.
    ring: Vec<bool>,
}

impl Confirms {
    /// An empty window.
    pub fn new(window: u64) -> Self {
        let ring = vec![false; window.max(1).next_power_of_two() as usize];
        Self { window, published: 0, low: 0, early: 0, ring }
    }

    /// The bound.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// How many more may be published now.
    pub fn room(&self) -> u64 {
        self.window.saturating_sub(self.published - self.low)
    }

    /// How many wait for their confirm.
    pub fn outstanding(&self) -> u64 {
        self.published - self.low - self.early
    }

    /// Notes that `count` more were published.
    pub fn publish(&mut self, count: u64) {
        self.published += count;
    }

    /// Notes a confirm of one publish, or of it and all before it.
    pub fn confirm(&mut self, tag: u64, multiple: bool) {
        if tag <= self.low || tag > self.published {
            return;
        }
        if multiple {
            while self.low < tag {
                self.advance();
            }
        } else {
            let slot = self.slot(tag);
            self.early += u64::from(!self.ring[slot]);
            self.ring[slot] = true;
        }
        while self.early > 0 && self.ring[self.slot(self.low + 1)] {
            self.advance();
        }
    }

    /// Notes a confirm of the oldest publish, for protocols that answer in order.
    pub fn confirm_next(&mut self) {
        self.confirm(self.low + 1, false);
    }

    fn advance(&mut self) {
        self.low += 1;
        let slot = self.slot(self.low);
        self.early -= u64::from(self.ring[slot]);
        self.ring[slot] = false;
    }

    fn slot(&self, tag: u64) -> usize {
        tag as usize & (self.ring.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirms_in_any_order_are_counted_once() {
        let mut confirms = Confirms::new(8);
        confirms.publish(8);
        assert_eq!((confirms.room(), confirms.outstanding()), (0, 8));
        confirms.confirm(3, false);
        confirms.confirm(3, false);
        assert_eq!((confirms.room(), confirms.outstanding()), (0, 7));
        confirms.confirm(2, true);
        assert_eq!((confirms.room(), confirms.outstanding()), (3, 5));
        confirms.confirm(8, true);
        assert_eq!((confirms.room(), confirms.outstanding()), (8, 0));
        confirms.confirm(8, true);
        confirms.confirm(9, false);
        assert_eq!(confirms.outstanding(), 0);
    }

    #[test]
    fn confirms_in_order_reopen_the_window_one_by_one() {
        let mut confirms = Confirms::new(3);
        for _ in 0..10 {
            confirms.publish(3);
            for left in [2, 1, 0] {
                confirms.confirm_next();
                assert_eq!(confirms.outstanding(), left);
            }
        }
        assert_eq!(confirms.room(), 3);
    }
}
