//! Times in buckets that are a few percent wide.

/// Buckets for each doubling.
const STEPS: u64 = 32;

/// How often which time was seen.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

fn bucket(nanos: u64) -> usize {
    let exponent = u64::from((nanos | STEPS).ilog2()) - u64::from(STEPS.ilog2());
    usize::try_from(exponent * STEPS + (nanos >> exponent)).unwrap_or(usize::MAX)
}

/// The largest time of a bucket.
fn upper(bucket: u64) -> u64 {
    let exponent = (bucket / STEPS).saturating_sub(1);
    (bucket - exponent * STEPS + 1).checked_shl(exponent as u32).unwrap_or(u64::MAX) - 1
}

impl Histogram {
    pub(super) fn note(&mut self, nanos: u64) {
        let bucket = bucket(nanos);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        self.counts.iter_mut().zip(&other.counts).for_each(|(own, count)| *own += count);
        self.total += other.total;
    }

    /// The time that this share of all stays below, in milliseconds; `None` when nothing was seen.
    pub(super) fn quantile_ms(&self, share: f64) -> Option<f64> {
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let reached = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some((upper(reached as u64) as f64 / 1e4).round() / 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_within_a_few_percent() {
        let mut times = Histogram::default();
        (1..=1000_u64).for_each(|ms| times.note(ms * 1_000_000));
        for (share, expected) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = times.quantile_ms(share).unwrap();
            assert!((expected..expected * 1.04).contains(&found), "{share}: {found}");
        }
        let mut both = Histogram::default();
        assert_eq!(both.quantile_ms(0.5), None);
        both.add(&times);
        assert_eq!(both.quantile_ms(0.5), times.quantile_ms(0.5));
    }
}
