//! What PolyMQ has to reach: as a ratio to a peer in the same run, or as a bound of its own.

use crate::peers::Peer;

/// The goal of a row in two steps: `first` before the core counts as done, `goal` later.
#[derive(Clone, Debug)]
pub enum Goal {
    /// Measured for information only.
    None,
    /// At least this many times the rate of the fastest of these peers, with at most this fraction
    /// of its CPU per message.
    Ratio {
        /// Whom to compare with.
        peers: &'static [Peer],
        /// Rate ratio, and divisor of CPU per message.
        first: (f64, Option<f64>),
        /// The same for the later step.
        goal: (f64, Option<f64>),
    },
    /// At least this share of the slower of two rows of PolyMQ itself.
    ShareOfOwn {
        /// Names of the rows.
        rows: [&'static str; 2],
        /// Share for the first step.
        first: f64,
        /// Share for the later step.
        goal: f64,
    },
    /// A p99 no worse than the best peer's, later half of it.
    Latency,
    /// At least so many messages per second.
    AtLeast {
        /// Bound for the first step.
        first: f64,
        /// Bound for the later step.
        goal: f64,
    },
    /// At most this, in the unit of the row.
    AtMost {
        /// Bound for the first step.
        first: f64,
        /// Bound for the later step.
        goal: f64,
    },
}

impl Goal {
    /// Rate and CPU against the fastest of some peers.
    pub fn ratio(peers: &'static [Peer], first: (f64, f64), goal: (f64, f64)) -> Self {
        Self::Ratio { peers, first: (first.0, Some(first.1)), goal: (goal.0, Some(goal.1)) }
    }

    /// Rate alone against the fastest of some peers.
    pub fn rate(peers: &'static [Peer], first: f64, goal: f64) -> Self {
        Self::Ratio { peers, first: (first, None), goal: (goal, None) }
    }
}

/// Medians that goals are judged by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Messages per second.
    pub rate: Option<f64>,
    /// Broker CPU microseconds per message.
    pub cpu_us: Option<f64>,
    /// 99th percentile of the delay in microseconds.
    pub p99_us: Option<f64>,
    /// Bytes or milliseconds of rows that measure one number.
    pub value: Option<f64>,
}

/// How PolyMQ stands in a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The comparison in words, such as `8.1 x, 1/15`.
    pub standing: String,
    /// Whether the first step is reached.
    pub first: bool,
    /// Whether the later step is reached.
    pub goal: bool,
}

/// Judges PolyMQ's figures; nothing when the figures to compare with are missing.
///
/// `peer` finds the figures of a peer in this row, `own` those of PolyMQ in another row.
pub fn judge(
    goal: &Goal,
    ours: Figures,
    peer: impl Fn(Peer) -> Option<Figures>,
    own: impl Fn(&str) -> Option<Figures>,
) -> Option<Verdict> {
    match goal {
        Goal::None => None,
        Goal::Ratio { peers, first, goal } => {
            let found = peers.iter().filter_map(|name| peer(*name));
            let by_rate = |figures: &Figures| figures.rate.unwrap_or_default();
            let theirs = found.max_by(|a, b| by_rate(a).total_cmp(&by_rate(b)))?;
            let rate = ours.rate? / theirs.rate?;
            let cpu = theirs.cpu_us? / ours.cpu_us?;
            let meets = |wanted: &(f64, Option<f64>)| {
                rate >= wanted.0 && wanted.1.is_none_or(|divisor| cpu >= divisor)
            };
            let standing = format!("{rate:.1} x, 1/{cpu:.1}");
            Some(Verdict { standing, first: meets(first), goal: meets(goal) })
        }
        Goal::ShareOfOwn { rows, first, goal } => {
            let slower = own(rows[0])?.rate?.min(own(rows[1])?.rate?);
            let share = ours.rate? / slower;
            let standing = format!("{:.0} % of the slower alone", share * 100.0);
            Some(Verdict { standing, first: share >= *first, goal: share >= *goal })
        }
        Goal::Latency => {
            let peers =
                [Peer::RabbitMq, Peer::ActiveMq, Peer::Mosquitto].into_iter().filter_map(&peer);
            let best = peers.filter_map(|figures| figures.p99_us).reduce(f64::min)?;
            let times = ours.p99_us? / best;
            let standing = format!("p99 {times:.2} x the best");
            Some(Verdict { standing, first: times <= 1.0, goal: times <= 0.5 })
        }
        Goal::AtLeast { first, goal } => {
            let rate = ours.rate?;
            let standing = format!("{:.2} of the bound", rate / first);
            Some(Verdict { standing, first: rate >= *first, goal: rate >= *goal })
        }
        Goal::AtMost { first, goal } => {
            let value = ours.value?;
            let standing = format!("{:.2} of the bound", value / first);
            Some(Verdict { standing, first: value <= *first, goal: value <= *goal })
        }
    }
}

/// The two steps of a goal in words; `amount` writes a number in the unit of the row.
pub fn describe(goal: &Goal, amount: impl Fn(f64) -> String) -> (String, String) {
    let ratio = |peers: &[Peer], wanted: &(f64, Option<f64>)| {
        let names: Vec<_> = peers.iter().map(|peer| peer.title()).collect();
        let names = names.join(" or ");
        match wanted.1 {
            Some(divisor) => format!("{} x {names}, 1/{divisor}", wanted.0),
            None => format!("{} x {names}", wanted.0),
        }
    };
    match goal {
        Goal::None => (String::new(), String::new()),
        Goal::Ratio { peers, first, goal } => (ratio(peers, first), ratio(peers, goal)),
        Goal::ShareOfOwn { first, goal, .. } => {
            (format!("{:.0} %", first * 100.0), format!("{:.0} %", goal * 100.0))
        }
        Goal::Latency => ("best peer".into(), "half of it".into()),
        Goal::AtLeast { first, goal } => (format!("{first:.0} / s"), format!("{goal:.0} / s")),
        Goal::AtMost { first, goal } => {
            (format!("up to {}", amount(*first)), format!("up to {}", amount(*goal)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(rate: f64, cpu_us: f64) -> Figures {
        Figures { rate: Some(rate), cpu_us: Some(cpu_us), ..Figures::default() }
    }

    #[test]
    fn ratio_needs_both_rate_and_cpu() {
        let goal = Goal::ratio(&[Peer::RabbitMq], (8.0, 16.0), (15.0, 30.0));
        let peer = |_| Some(figures(100.0, 16.0));
        let met = judge(&goal, figures(900.0, 1.0), peer, |_| None).unwrap();
        assert!(met.first && !met.goal);
        assert_eq!(met.standing, "9.0 x, 1/16.0");
        assert!(!judge(&goal, figures(900.0, 1.1), peer, |_| None).unwrap().first);
        assert_eq!(judge(&goal, figures(900.0, 1.0), |_| None, |_| None), None);
    }

    #[test]
    fn bridges_are_judged_by_the_slower_of_our_own_rows() {
        let goal = Goal::ShareOfOwn { rows: ["a", "b"], first: 0.8, goal: 0.95 };
        let own = |name: &str| Some(figures(if name == "a" { 100.0 } else { 200.0 }, 1.0));
        let verdict = judge(&goal, figures(90.0, 1.0), |_| None, own).unwrap();
        assert!(verdict.first && !verdict.goal);
    }

    #[test]
    fn latency_is_judged_by_the_best_peer() {
        let p99 = |value| Figures { p99_us: Some(value), ..Figures::default() };
        let peer = |peer| Some(p99(if peer == Peer::Mosquitto { 100.0 } else { 300.0 }));
        assert!(judge(&Goal::Latency, p99(50.0), peer, |_| None).unwrap().goal);
        assert!(!judge(&Goal::Latency, p99(101.0), peer, |_| None).unwrap().first);
    }
}
