//! Samples of the last minutes, and of the last day in growing steps.

use std::collections::VecDeque;

use super::Activity;

/// How often samples are taken, in ms.
pub(crate) const SAMPLE_EVERY_MS: u64 = 5_000;

/// The numbers of one object at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// When, in ms since 1970.
    pub at_ms: u64,
    /// What had happened by then.
    pub activity: Activity,
    /// Ready messages.
    pub ready: u64,
    /// Messages delivered and not settled.
    pub unsettled: u64,
    /// Bytes received from clients.
    pub bytes_in: u64,
    /// Bytes sent to clients.
    pub bytes_out: u64,
}

impl Sample {
    fn is_nothing(&self) -> bool {
        Self { at_ms: 0, ..*self } == Self::default()
    }

    fn has_same_numbers(&self, other: &Self) -> bool {
        Self { at_ms: 0, ..*self } == Self { at_ms: 0, ..*other }
    }
}

/// Which samples somebody wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// How far back, in ms.
    pub age_ms: u64,
    /// At which distance, in ms.
    pub step_ms: u64,
}

/// The last samples of an object. One that nothing happens to keeps at most one.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    samples: VecDeque<Sample>,
    /// When nothing had happened yet, in ms since 1970; such a sample takes no place.
    nothing_at_ms: u64,
}

impl Ring {
    /// Adds a sample and keeps at most `kept` of them.
    pub(crate) fn push(&mut self, sample: Sample, kept: usize) {
        let len = self.samples.len();
        match self.samples.back_mut() {
            None if sample.is_nothing() => {
                self.nothing_at_ms = sample.at_ms;
                return;
            }
            None if self.nothing_at_ms > 0 => {
                let nothing = Sample { at_ms: self.nothing_at_ms, ..Sample::default() };
                self.samples.push_back(nothing);
            }
            Some(last) if last.at_ms >= sample.at_ms => return,
            // Most objects do not move, and should cost nothing more than this.
            Some(last) if len == 1 && last.has_same_numbers(&sample) => {
                last.at_ms = sample.at_ms;
                return;
            }
            Some(_) | None => {}
        }
        self.samples.push_back(sample);
        while self.samples.len() > kept.max(2) {
            self.samples.pop_front();
        }
        let is_flat = self.samples.iter().all(|other| other.has_same_numbers(&sample));
        if is_flat {
            self.samples = VecDeque::from([sample]);
        }
    }

    /// Nothing has happened to the object from its last sample until this moment. One that moves
    /// has a sample of every moment.
    pub(crate) fn rested_until(&mut self, at_ms: u64) {
        match self.samples.make_contiguous() {
            [] if self.nothing_at_ms > 0 => self.nothing_at_ms = self.nothing_at_ms.max(at_ms),
            [only] => only.at_ms = only.at_ms.max(at_ms),
            _ => {}
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// True when something happens to the object.
    pub(crate) fn is_moving(&self) -> bool {
        self.samples.len() > 1
    }

    /// As [`pick`](Self::pick), of an object whose last sample holds for later moments as well: one
    /// that rests until `at_ms`.
    pub(crate) fn pick_until(&self, span: Option<Span>, at_ms: u64) -> Vec<Sample> {
        let mut picked = self.pick(span);
        if let [only] = picked.as_mut_slice()
            && !self.is_moving()
        {
            only.at_ms = only.at_ms.max(at_ms);
        }
        picked
    }

    /// The samples of a span, oldest first; without one the last two.
    pub(crate) fn pick(&self, span: Option<Span>) -> Vec<Sample> {
        let Some(span) = span else {
            return self.samples.range(self.samples.len().saturating_sub(2)..).copied().collect();
        };
        let newest = self.samples.back().map_or(0, |sample| sample.at_ms);
        let oldest = newest.saturating_sub(span.age_ms);
        let mut picked: Vec<Sample> = Vec::new();
        for sample in self.samples.iter().rev().take_while(|sample| sample.at_ms >= oldest) {
            let is_due = picked.last().is_none_or(|last| {
                // Samples come a little late at times.
                sample.at_ms + span.step_ms <= last.at_ms + SAMPLE_EVERY_MS / 2
            });
            if is_due {
                picked.push(*sample);
            }
        }
        picked.reverse();
        picked
    }
}

/// Distance of samples in ms, and how many are kept.
const TIERS: [(u64, usize); 4] =
    [(SAMPLE_EVERY_MS, 121), (60_000, 61), (600_000, 49), (1_800_000, 48)];

/// Samples of the last day: every five seconds of ten minutes, every minute of an hour, and so on.
#[derive(Debug, Default)]
pub(crate) struct Tiers([Ring; TIERS.len()]);

impl Tiers {
    pub(crate) fn push(&mut self, sample: Sample) {
        for (ring, (every_ms, kept)) in self.0.iter_mut().zip(TIERS) {
            let last = ring.samples.back().map_or(0, |last| last.at_ms);
            if sample.at_ms + SAMPLE_EVERY_MS / 2 >= last.saturating_add(every_ms) {
                ring.push(sample, kept);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0.iter_mut().for_each(Ring::clear);
    }

    /// The samples of a span, oldest first; without one the last two.
    pub(crate) fn pick(&self, span: Option<Span>) -> Vec<Sample> {
        let reaches = |(every_ms, kept): (u64, usize)| every_ms.saturating_mul(kept as u64);
        let wanted = span.map_or(0, |span| span.age_ms);
        let at = TIERS.iter().position(|tier| reaches(*tier) >= wanted).unwrap_or(TIERS.len() - 1);
        self.0.get(at).map(|ring| ring.pick(span)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(second: u64, published: u64) -> Sample {
        let activity = Activity { published, ..Activity::default() };
        Sample { at_ms: 1_000_000 + second * 1000, activity, ..Sample::default() }
    }

    #[test]
    fn an_object_that_nothing_happens_to_keeps_one_sample() {
        let mut ring = Ring::default();
        ring.push(sample(0, 0), 10);
        assert!(ring.samples.is_empty());
        ring.push(sample(5, 7), 10);
        assert_eq!(ring.pick(None), [sample(0, 0), sample(5, 7)]);
        for second in 2..20 {
            ring.push(sample(second * 5, 7), 10);
        }
        assert_eq!(ring.samples.len(), 1);
        ring.push(sample(100, 8), 10);
        assert_eq!(ring.pick(None), [sample(95, 7), sample(100, 8)]);
        assert!(ring.is_moving());
    }

    #[test]
    fn an_object_at_rest_needs_no_samples_until_it_moves_again() {
        let (mut ring, mut looked_at_rarely) = (Ring::default(), Ring::default());
        for second in 0..100 {
            let now = sample(second * 5, if second < 98 { 7 } else { second });
            ring.push(now, 10);
            if second == 0 || second >= 98 {
                looked_at_rarely.rested_until(sample(second.saturating_sub(1) * 5, 0).at_ms);
                looked_at_rarely.push(now, 10);
            }
            let at_ms = now.at_ms;
            assert_eq!(looked_at_rarely.pick_until(None, at_ms), ring.pick(None), "{second}");
        }
        assert_eq!(ring.samples, looked_at_rarely.samples);
    }

    #[test]
    fn old_samples_go() {
        let mut ring = Ring::default();
        for second in 0..100 {
            ring.push(sample(second * 5, second + 1), 13);
        }
        assert_eq!(ring.samples.len(), 13);
    }

    #[test]
    fn a_span_is_picked_in_its_steps() {
        let mut ring = Ring::default();
        for second in 0..20 {
            ring.push(sample(second * 5, second + 1), 100);
        }
        let picked = ring.pick(Some(Span { age_ms: 30_000, step_ms: 10_000 }));
        let at: Vec<_> = picked.iter().map(|sample| (sample.at_ms - 1_000_000) / 1000).collect();
        assert_eq!(at, [65, 75, 85, 95]);
    }

    #[test]
    fn a_day_is_kept_in_growing_steps() {
        let mut tiers = Tiers::default();
        for second in (0..90_000).step_by(5) {
            tiers.push(sample(second, second + 1));
        }
        let count = |age_s: u64, step_s: u64| {
            tiers.pick(Some(Span { age_ms: age_s * 1000, step_ms: step_s * 1000 })).len()
        };
        assert_eq!(count(60, 5), 13);
        assert_eq!(count(600, 5), 121);
        assert_eq!(count(3600, 60), 61);
        assert_eq!(count(28_800, 600), 49);
        assert_eq!(count(84_600, 1800), 48);
    }
}
