//! What is done when the store leaves a write unanswered for long.

use std::time::Duration;

use crate::config::DiskSlow;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Silence {
    /// Answers come.
    #[default]
    None,
    /// Worth a line in the log.
    Long,
    /// Publishers wait.
    Degraded,
    /// Nobody can be served any more.
    Lost,
}

/// How bad it is that a write has not been answered for this time.
pub(crate) fn judge(marks: &DiskSlow, unanswered: Duration) -> Silence {
    match unanswered {
        time if time > marks.close => Silence::Lost,
        time if time > marks.degraded => Silence::Degraded,
        time if time > marks.warn => Silence::Long,
        _ => Silence::None,
    }
}

/// What health says about it.
pub(crate) fn problem(marks: &DiskSlow, unanswered: Duration) -> Option<String> {
    let text = || {
        format!(
            "the store has not answered a write for {} s (limits.disk_slow)",
            unanswered.as_secs()
        )
    };
    (judge(marks, unanswered) >= Silence::Degraded).then(text)
}

/// Tells the log when it becomes worse, and when it is over.
#[derive(Debug, Default)]
pub(crate) struct SilenceLog {
    told: Silence,
}

impl SilenceLog {
    pub(crate) fn note(&mut self, silence: Silence, unanswered: Duration) {
        let seconds = unanswered.as_secs();
        match silence {
            _ if silence == self.told => {}
            Silence::None => tracing::info!(event = "store_answers", "the store answers again"),
            Silence::Long | Silence::Degraded | Silence::Lost if silence > self.told => {
                tracing::warn!(event = "store_silent", seconds, "the store does not answer");
            }
            Silence::Long | Silence::Degraded | Silence::Lost => {}
        }
        self.told = silence;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_becomes_worse_with_its_length() {
        let secs = Duration::from_secs;
        let marks = DiskSlow { warn: secs(1), degraded: secs(30), close: secs(120) };
        let found: Vec<_> =
            [0, 1, 2, 30, 31, 120, 121].map(|time| judge(&marks, secs(time))).into();
        let (none, long) = (Silence::None, Silence::Long);
        let (degraded, lost) = (Silence::Degraded, Silence::Lost);
        assert_eq!(found, [none, none, long, long, degraded, degraded, lost]);
        assert_eq!(problem(&marks, secs(30)), None);
        assert!(problem(&marks, secs(31)).is_some_and(|text| text.contains("for 31 s")));
    }
}
