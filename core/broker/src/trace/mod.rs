//! Live traces: what happens to some of the messages, step by step, while somebody wants to know.
//!
//! A route knows the traces that its messages may belong to, and a queue the positions of messages
//! that are followed. Both are decided where they are made anyway, so that a broker without a trace
//! asks nobody on the way of a message.

mod begin;
mod follow;
mod manage;
mod record;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use parking_lot::Mutex;
use polymq_model::{UserName, VhostName};

use crate::core::Core;
pub(crate) use begin::{Begun, Publisher};
pub(crate) use follow::{Marked, Marks, Tracked};
pub(crate) use record::{Mark, Trace};
pub use record::{TraceEvent, TraceView};

/// Traces at a time.
const RUNNING_MAX: usize = 3;
/// Traces that are over and can still be read.
const OVER_MAX: usize = 3;

/// Which messages a trace follows; what is `None` does not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceFilter {
    /// The virtual host.
    pub vhost: VhostName,
    /// The exchange that they are published to; empty for the one without a name.
    pub exchange: Option<String>,
    /// The routing key; `*` stands for any text.
    pub routing_key: Option<String>,
    /// A queue that they are routed to.
    pub queue: Option<String>,
    /// Who publishes them.
    pub user: Option<UserName>,
    /// The client id of the publisher, where its protocol has one.
    pub client_id: Option<String>,
    /// The protocol of the publisher, as in [`PROTOCOLS`](crate::PROTOCOLS).
    pub protocol: Option<String>,
}

/// What a trace is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTrace {
    /// Which messages.
    pub filter: TraceFilter,
    /// The most messages a second; others are counted and not followed.
    pub rate: u32,
    /// It ends after so many messages.
    pub messages_max: u64,
    /// It ends after this time, in ms.
    pub duration_ms: u64,
    /// The beginning of bodies is shown, of messages in queues that its user may read.
    pub payload: bool,
}

/// All traces.
#[derive(Default)]
pub(crate) struct Traces {
    /// Looked at only where a route is made.
    is_on: AtomicBool,
    last_id: AtomicU64,
    all: Mutex<Vec<Arc<Trace>>>,
}

impl Traces {
    /// True while there is a trace.
    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// The running traces that messages of this publisher and place may belong to.
    pub(crate) fn matching(
        &self,
        publisher: &Publisher<'_>,
        (exchange, key): (&str, &str),
        queues: &[&str],
    ) -> Vec<Arc<Trace>> {
        let all = self.all.lock();
        let is_match = |trace: &&Arc<Trace>| {
            !trace.is_over() && trace.new.filter.takes(publisher, exchange, key, queues)
        };
        all.iter().filter(is_match).cloned().collect()
    }

    /// Ends what has lasted long enough. Returns those that have ended since the last call.
    pub(crate) fn end_due(&self, now_ms: u64) -> Vec<Arc<Trace>> {
        if !self.is_on() {
            return Vec::new();
        }
        let all = self.all.lock();
        for trace in all.iter().filter(|trace| trace.ends_ms <= now_ms) {
            trace.end("duration");
        }
        self.is_on.store(all.iter().any(|trace| !trace.is_over()), Ordering::Relaxed);
        all.iter().filter(|trace| trace.is_left_behind()).cloned().collect()
    }
}

impl TraceFilter {
    fn takes(&self, publisher: &Publisher<'_>, exchange: &str, key: &str, queues: &[&str]) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        self.vhost == *publisher.vhost
            && is(&self.exchange, exchange)
            && self.routing_key.as_deref().is_none_or(|pattern| glob(pattern, key))
            && self.user.as_ref().is_none_or(|user| Some(user) == publisher.user)
            && is(&self.client_id, publisher.client_id)
            && is(&self.protocol, publisher.protocol)
            && self.queue.as_deref().is_none_or(|queue| queues.contains(&queue))
    }
}

/// Whether a text is as a pattern says, in which `*` stands for any text.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let Some((last, middle)) =
        parts.collect::<Vec<_>>().split_last().map(|(last, middle)| (*last, middle.to_vec()))
    else {
        return rest.is_empty();
    };
    // The earliest place of each part leaves the most room for those behind it.
    middle.iter().all(|part| match rest.split_once(part) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    }) && rest.ends_with(last)
}

impl Core {
    /// Has queues let go of what belongs to traces that are over.
    pub(crate) fn tick_traces(&self, now_ms: u64) {
        for trace in self.traces.end_due(now_ms) {
            self.forget_trace(&trace);
        }
    }

    /// Routes that were looked up meanwhile know of a trace, and queues follow its messages.
    fn forget_trace(&self, trace: &Trace) {
        let Ok(vhost) = self.vhost(trace.new.filter.vhost.as_str()) else { return };
        let touched: Result<(), std::convert::Infallible> = vhost.edit(|_, _| Ok(()));
        touched.ok();
        for queue in vhost.topology.load_full().queues.values() {
            queue.forget_traces();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, text, is_match) in [
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("a.*", "a.b.c", true),
            ("*.c", "a.b.c", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "ac", false),
            ("*", "", true),
            ("ab*bc", "abc", false),
        ] {
            assert_eq!(glob(pattern, text), is_match, "{pattern} {text}");
        }
    }
}
