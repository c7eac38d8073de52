//! What events can be about, and who may follow it.

use polymq_broker::Role;
use polymq_model::VhostName;

use super::caller::Caller;
use crate::problem::Problem;

/// What somebody follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Topic {
    Overview,
    Connections,
    Queues(VhostName),
    Queue(VhostName, String),
    Storage,
    Alarms,
    Listeners,
    Cluster,
    Jobs,
    Job(u64),
    Log,
    Trace(u64),
}

impl Topic {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let vhost = |name: &str| VhostName::new(if name == "~" { "/" } else { name }).ok();
        let mut parts = text.splitn(3, '/');
        Some(match (parts.next()?, parts.next(), parts.next()) {
            ("overview", None, None) => Self::Overview,
            ("connections", None, None) => Self::Connections,
            ("storage", None, None) => Self::Storage,
            ("alarms", None, None) => Self::Alarms,
            ("listeners", None, None) => Self::Listeners,
            ("cluster", None, None) => Self::Cluster,
            ("log", None, None) => Self::Log,
            ("trace", Some(id), None) => Self::Trace(id.parse().ok()?),
            ("jobs", None, None) => Self::Jobs,
            ("job", Some(id), None) => Self::Job(id.parse().ok()?),
            ("queues", Some(name), None) => Self::Queues(vhost(name)?),
            ("queue", Some(name), Some(queue)) => Self::Queue(vhost(name)?, queue.to_owned()),
            _ => return None,
        })
    }

    /// Errors: the caller may not follow it.
    pub(super) fn check(&self, caller: &Caller) -> Result<(), Problem> {
        match self {
            Self::Overview
            | Self::Storage
            | Self::Alarms
            | Self::Listeners
            | Self::Cluster
            | Self::Log => caller.needs(Role::Monitoring),
            Self::Trace(id) => {
                let found = caller.broker().manage(&caller.who, "").trace(*id);
                found.map(drop).map_err(|refusal| Problem::refused(&refusal, "trace"))
            }
            Self::Queues(vhost) => {
                let manager = caller.broker().manage(&caller.who, "");
                let may =
                    caller.broker().access().may_open(vhost, &caller.who) || manager.may_see(vhost);
                if may { Ok(()) } else { caller.needs(Role::Monitoring) }
            }
            Self::Queue(vhost, queue) => match caller.sees(vhost, "queue", queue) {
                true => Ok(()),
                false => caller.needs(Role::Monitoring),
            },
            Self::Connections | Self::Jobs | Self::Job(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read() {
        let root = || VhostName::new("/").unwrap();
        assert_eq!(Topic::parse("queues/~"), Some(Topic::Queues(root())));
        let slashes = Topic::Queue(root(), "a/b".to_owned());
        assert_eq!(Topic::parse("queue/~/a/b"), Some(slashes));
        assert_eq!(Topic::parse("job/7"), Some(Topic::Job(7)));
        assert_eq!(Topic::parse("trace/3"), Some(Topic::Trace(3)));
        for bad in ["", "queues", "job/x", "overview/x", "queue/~"] {
            assert_eq!(Topic::parse(bad), None, "{bad}");
        }
    }
}
