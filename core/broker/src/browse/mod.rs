//! Reading queues without changing them: what an administrator sees, and what jobs choose from.
//!
//! Everything here blocks while the store is read, so it runs on threads that may.

mod fields;
mod reader;

use std::sync::Arc;

use polymq_contract::Refusal;
use polymq_filter::Filter;
use polymq_model::{Message, Now, Seq, VhostName};

use crate::{
    BrokerHandle, QueueRef,
    access::{Principal, Read},
    core::Core,
    queue::{MessageState, Peeked, Position, Queue},
};
pub use fields::MessageFields;
pub(crate) use reader::Reader;

/// Messages returned by one call at most.
pub const BROWSE_MESSAGES_MAX: usize = 1000;

/// Where looking begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrowseFrom {
    /// At the message that comes next.
    Head,
    /// So that the last message of the queue is the last that is returned.
    Tail,
    /// At this position, or the next that is there.
    Seq(u64),
    /// At the first message of each priority level that came at this time or later, in ms since
    /// 1970. Exact where messages stand in the order in which they came.
    Time(u64),
}

/// What to look at.
#[derive(Debug, Clone)]
pub struct Browse {
    /// Where to begin.
    pub from: BrowseFrom,
    /// Only what comes behind this position of an earlier answer.
    pub after: Option<u64>,
    /// Only messages for which this is true.
    pub filter: Option<Filter>,
    /// The most messages to return; at most [`BROWSE_MESSAGES_MAX`].
    pub limit: usize,
    /// The most messages to look at.
    pub scan_max: u64,
    /// Deliveries that consumers have not settled are looked at, too.
    pub unacked: bool,
}

impl Default for Browse {
    fn default() -> Self {
        let (from, after, filter) = (BrowseFrom::Head, None, None);
        Self { from, after, filter, limit: 100, scan_max: 100_000, unacked: true }
    }
}

/// A message of a queue as an administrator sees it.
#[derive(Debug, Clone)]
pub struct BrowsedMessage {
    /// Its position, which never changes: the priority level in the first byte, and the place.
    pub seq: u64,
    /// Where it is.
    pub state: MessageState,
    /// Failed deliveries.
    pub failed: u16,
    /// All earlier deliveries.
    pub acquired: u16,
    /// When it expires here, in ms since 1970; 0 for never.
    pub expires_ms: u64,
    /// The message.
    pub message: Message,
}

impl From<Peeked> for BrowsedMessage {
    fn from(Peeked { entry, state }: Peeked) -> Self {
        Self {
            seq: entry.at.number().0,
            state,
            failed: entry.failed,
            acquired: entry.acquired,
            expires_ms: entry.deadline_ms,
            message: entry.message,
        }
    }
}

/// Messages that were looked at.
#[derive(Debug, Clone, Default)]
pub struct Browsed {
    /// The messages, in the order in which they would be delivered if all were ready.
    pub messages: Vec<BrowsedMessage>,
    /// What to give as [`Browse::after`] to go on; `None` at the end.
    pub next: Option<u64>,
    /// How many messages were looked at.
    pub scanned: u64,
    /// Messages that the store could not read.
    pub unreadable: u64,
}

impl BrokerHandle {
    /// Looks at messages of a queue. Nothing about them changes. Blocks while the store is read.
    ///
    /// Errors: kind `NotFound`; kind `Denied` without the right to read the queue; kind
    /// `StoreFailed`.
    pub fn browse(
        &self,
        who: &Principal,
        vhost: &VhostName,
        queue: &str,
        browse: &Browse,
        now: Now,
    ) -> Result<Browsed, Refusal> {
        let queue = self.0.readable_queue(who, vhost, queue)?;
        self.0.browse_queue(&queue, browse, now)
    }

    /// The message at a position, wherever it is. Blocks while the store is read.
    ///
    /// Errors: as of [`browse`](Self::browse); kind `NotFound` when it is there no more.
    pub fn browse_one(
        &self,
        who: &Principal,
        vhost: &VhostName,
        queue: &str,
        seq: u64,
        now: Now,
    ) -> Result<BrowsedMessage, Refusal> {
        let from = BrowseFrom::Seq(seq);
        let browse = Browse { from, limit: 1, ..Browse::default() };
        let found = self.browse(who, vhost, queue, &browse, now)?;
        let found = found.messages.into_iter().find(|message| message.seq == seq);
        found.ok_or_else(|| {
            let text = format!("no message {seq} in queue '{queue}' in vhost '{vhost}'");
            Refusal::missing("message", seq.to_string(), text)
        })
    }
}

impl BrokerHandle {
    /// The timestamp of the message that comes next, wherever that is, in ms since 1970; `None`
    /// when there is none, or it has none. Blocks while the store is read.
    pub fn head_timestamp_ms(&self, queue: &QueueRef, now: Now) -> Option<i64> {
        let browse = Browse { unacked: false, ..Browse::default() };
        let browsed = self.0.browse_queue(queue.queue(), &browse, now).ok()?;
        let head = browsed.messages.iter().find(|browsed| browsed.state == MessageState::Ready)?;
        head.message.properties().timestamp_ms
    }
}

impl Core {
    /// A queue whose messages somebody wants to see.
    ///
    /// Errors: kind `NotFound`, kind `Denied`.
    pub(crate) fn readable_queue(
        &self,
        who: &Principal,
        vhost: &VhostName,
        queue: &str,
    ) -> Result<Arc<Queue>, Refusal> {
        let vhost = self.vhost(vhost.as_str())?;
        self.permit::<Read>(who, &vhost, "queue", queue)?;
        let found = vhost.topology.load().queue(queue).cloned();
        found.ok_or_else(|| crate::declare::no_queue(&vhost, queue))
    }

    fn browse_queue(
        &self,
        queue: &Arc<Queue>,
        browse: &Browse,
        now: Now,
    ) -> Result<Browsed, Refusal> {
        let limit = browse.limit.clamp(1, BROWSE_MESSAGES_MAX);
        let reader = Reader::new(self, queue, browse.unacked, now.unix_ms);
        if browse.from == BrowseFrom::Tail {
            return reader.tail(limit, browse.after, browse.filter.as_ref());
        }
        let mut browsed = Browsed::default();
        let after = browse.after.map(|after| Position::named(Seq(after)));
        let mut last = None;
        for (level, end) in queue.levels() {
            let mut from = match browse.from {
                BrowseFrom::Head | BrowseFrom::Tail => Seq(0),
                BrowseFrom::Seq(seq) => {
                    let start = Position::named(Seq(seq));
                    match level.cmp(&start.level()) {
                        std::cmp::Ordering::Greater => continue,
                        std::cmp::Ordering::Equal => start.seq(),
                        std::cmp::Ordering::Less => Seq(0),
                    }
                }
                BrowseFrom::Time(at_ms) => reader.first_at(level, end, at_ms)?,
            };
            if let Some(after) = after {
                match level.cmp(&after.level()) {
                    std::cmp::Ordering::Greater => continue,
                    std::cmp::Ordering::Equal => from = from.max(after.seq().next()),
                    std::cmp::Ordering::Less => {}
                }
            }
            let mut next = Some(from);
            while let Some(from) = next {
                let part = reader.read(level, from, limit)?;
                browsed.unreadable += part.unreadable;
                next = part.next;
                for peeked in part.peeked {
                    if browsed.messages.len() >= limit || browsed.scanned >= browse.scan_max {
                        browsed.next = last;
                        return Ok(browsed);
                    }
                    browsed.scanned += 1;
                    last = Some(peeked.entry.at.number().0);
                    if reader.is_wanted(&peeked, browse.filter.as_ref()) {
                        browsed.messages.push(peeked.into());
                    }
                }
            }
        }
        Ok(browsed)
    }
}
