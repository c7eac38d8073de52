//! Queues: a pure machine of messages and consumers behind one short lock.

mod addressed;
mod arguments;
mod arriving;
mod consumer;
mod consumers;
mod departing;
mod dispatch;
mod durable;
mod held;
mod lane;
mod life;
mod paging;
mod parked;
mod peek;
mod position;
mod refusals;
mod reserve;
mod restriction;
mod retry;
mod rules;
mod serve;
mod settings;
mod settling;
mod state;
mod tail;
mod take_out;
#[cfg(test)]
pub(crate) mod tests;
mod timing;
mod traced;
mod unsettled;
mod window;

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use arc_swap::ArcSwapOption;
use parking_lot::{Mutex, MutexGuard};
use polymq_contract::{Delivery, Matched, Outbox, Refusal};
use polymq_model::{ConnectionId, ConsumerId, LogId, Message, QueueName};
use polymq_store::{Committer, Durability};

pub(crate) use arguments::invalid;
pub(crate) use arriving::{HeldTail, Pushed};
pub(crate) use consumer::{ConsumerSpec, Group};
pub(crate) use departing::Departing;
pub(crate) use held::Held;
pub(crate) use paging::Home;
use paging::ReadFailure;
pub use peek::MessageState;
pub(crate) use peek::Peeked;
pub(crate) use position::Position;
pub(crate) use reserve::{Reserved, Room};
pub(crate) use rules::{DeadLetterTo, Defaults, Rules, Wishes, check_available};
pub(crate) use settings::QueueSettings;
use state::State;
pub(crate) use timing::Looked;
pub(crate) use window::WindowBudget;

use crate::statistics::{Counted, Ring};

/// A message in a queue.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Where it stands.
    pub(crate) at: Position,
    /// The earlier of the message's own deadline and that of the queue, in ms since 1970; 0 for
    /// none.
    pub(crate) deadline_ms: u64,
    pub(crate) acquired: u16,
    pub(crate) failed: u16,
    pub(crate) matched: Matched,
    pub(crate) message: Message,
}

impl Entry {
    /// A message that has no place yet, and no deadline here.
    fn new(message: &Message, matched: &Matched) -> Self {
        Self {
            at: Position::default(),
            deadline_ms: 0,
            acquired: 0,
            failed: 0,
            matched: matched.clone(),
            message: message.clone(),
        }
    }

    /// Has the message live no longer than this, in ms since 1970.
    fn bring_deadline_forward(&mut self, latest_ms: u64) {
        if self.deadline_ms == 0 || self.deadline_ms > latest_ms {
            self.deadline_ms = latest_ms;
        }
    }
}

/// What a get came to.
pub(crate) enum Got {
    /// The message with its slot, if there is one, and how many remain.
    Now(Option<Box<(Delivery, Option<usize>)>>, u64),
    /// Ask again after a nudge.
    Later,
    /// The store cannot read the next message now.
    Unreadable,
}

/// What cancelling a consumer came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cancelled {
    pub(crate) has_unsettled: bool,
    pub(crate) consumers_left: usize,
}

/// A consumer that a deletion has ended.
pub(crate) struct Ended {
    pub(crate) consumer: ConsumerId,
    pub(crate) outbox: Arc<Outbox>,
}

/// Numbers of a queue, for people and for `queue.declare-ok`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Messages that wait for a consumer.
    pub ready: u64,
    /// Messages delivered and not settled.
    pub unsettled: u64,
    /// Messages that came back and are held for later, and dead letters that nobody has taken.
    pub delayed: u64,
    /// Consumers.
    pub consumers: u32,
    /// Bytes of the bodies of ready messages.
    pub bytes: u64,
    /// Ready messages in memory; the others are on the disk alone.
    pub in_memory: u64,
    /// Bytes of the bodies of messages delivered and not settled.
    pub unsettled_bytes: u64,
}

/// No bound of the size of messages.
const ANY_SIZE: u64 = u64::MAX;

fn bytes_or_any(max: Option<u64>) -> u64 {
    max.unwrap_or(ANY_SIZE)
}

/// A queue. Shared by the routing snapshot, connections and client sessions.
pub(crate) struct Queue {
    /// Its name.
    pub(crate) name: QueueName,
    pub(crate) settings: QueueSettings,
    /// What somebody has made of it since.
    changed: ArcSwapOption<QueueSettings>,
    pub(crate) log: LogId,
    /// True when the queue survives a restart: it is durable and not exclusive.
    stored: bool,
    /// True when its persistent messages survive, too.
    keeps: bool,
    committer: Arc<Committer>,
    /// Who changes it locks it by [`lock`](Self::lock).
    state: Mutex<State>,
    me: Weak<Self>,
    pub(crate) counted: Counted,
    /// When the queue is looked at next, in ms since 1970; the maximum for never.
    scheduled_ms: AtomicU64,
    home: Home,
    read_failure: ReadFailure,
    /// Dead letters that no queue took.
    pub(crate) dead_letter_unroutable: AtomicU64,
    /// The largest body that may be published here; the maximum for any.
    message_bytes_max: AtomicU64,
    /// Samples of what has happened here, while somebody wants them.
    pub(crate) history: Mutex<Ring>,
    /// Queues back into which dead letters of this one would have come, and that was logged.
    told_cycles: Mutex<Vec<QueueName>>,
    /// A job takes messages out.
    moving: AtomicBool,
}

impl Queue {
    pub(crate) fn new(
        name: QueueName,
        settings: QueueSettings,
        log: LogId,
        stored: bool,
        committer: Arc<Committer>,
        home: Home,
    ) -> Arc<Self> {
        let keeps = stored && settings.durability != Durability::Memory;
        let state = State::new(home.budget.window(), &settings, log);
        let settings_bytes_max = settings.rules.message_bytes_max;
        Arc::new_cyclic(|me| Self {
            name,
            settings,
            changed: ArcSwapOption::empty(),
            log,
            stored,
            keeps,
            committer,
            state: Mutex::new(state),
            me: me.clone(),
            counted: Counted::default(),
            scheduled_ms: AtomicU64::new(u64::MAX),
            home,
            read_failure: ReadFailure::default(),
            message_bytes_max: AtomicU64::new(bytes_or_any(settings_bytes_max)),
            dead_letter_unroutable: AtomicU64::new(0),
            history: Mutex::default(),
            told_cycles: Mutex::default(),
            moving: AtomicBool::new(false),
        })
    }

    /// Locks what the queue holds, to change it.
    fn lock(&self) -> MutexGuard<'_, State> {
        let state = self.state.lock();
        if self.counted.is_news()
            && let Some(vhost) = self.home.vhost()
        {
            vhost.queue_sums.note(&self.me);
        }
        state
    }

    /// What every change ends with: records for the store, dead letters, the time of the next look
    /// when something here is due by itself, and the next page when it is wanted.
    fn finish(self: &Arc<Self>, state: MutexGuard<'_, State>, now_ms: u64) {
        let is_page_wanted = state.page_wanted().is_some();
        self.finish_but_fill(state, now_ms);
        if is_page_wanted {
            self.fill(now_ms);
        }
    }

    fn finish_but_fill(self: &Arc<Self>, mut state: MutexGuard<'_, State>, now_ms: u64) {
        self.settle_records(&mut state);
        self.report(&mut state);
        let due_ms = state.next_due_ms(now_ms, self.scheduled_ms.load(Ordering::Relaxed));
        let has_departing = !state.departing.is_empty();
        let dropped = std::mem::take(&mut state.dropped);
        drop(state);
        self.report_dropped(&dropped);
        if let Some(due_ms) = due_ms {
            self.schedule(due_ms);
        }
        if has_departing {
            self.publish_dead_letters(now_ms);
        }
    }

    /// The largest body that may be published here, in bytes.
    pub(crate) fn message_bytes_max(&self) -> Option<u64> {
        Some(self.message_bytes_max.load(Ordering::Relaxed)).filter(|max| *max != ANY_SIZE)
    }

    /// Errors: kind `Locked` when the queue belongs to another connection.
    pub(crate) fn check_owner(&self, connection: ConnectionId) -> Result<(), Refusal> {
        match self.settings.exclusive {
            Some(owner) if owner != connection => Err(self.locked()),
            Some(_) | None => Ok(()),
        }
    }

    /// Errors: kind `Locked` when the queue is exclusive and is not meant to be, or the other way
    /// round.
    pub(crate) fn check_exclusivity(&self, wanted: bool) -> Result<(), Refusal> {
        if self.settings.exclusive.is_some() == wanted { Ok(()) } else { Err(self.locked()) }
    }

    /// How well the queue keeps messages that ask for no less.
    pub(crate) fn durability(&self) -> Durability {
        if self.keeps { self.settings.durability } else { Durability::Memory }
    }

    /// True when the queue survives a restart.
    pub(crate) fn is_stored(&self) -> bool {
        self.stored
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("name", &self.name).finish_non_exhaustive()
    }
}
