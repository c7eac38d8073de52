//! Client sessions: what MQTT remembers of a client beyond its connection. They live here and
//! outlive connections.

mod in_flight;
mod lifecycle;
mod stored;
mod subscriptions;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use polymq_contract::{Broadcast, Event, Matched, Outbox, Subscription, Will};
use polymq_model::{ClientNumber, ConnectionId, ConsumerId, Seq, UserName};

use crate::{
    access::Principal, definitions::Restricted, queue::Queue, rights::Reader, vhost::Vhost,
};
pub(crate) use in_flight::{InFlights, Parked};
pub(crate) use lifecycle::{Closing, Opened, client_binding};
pub(crate) use subscriptions::session_queue_name;

/// The consumer under which deliveries of the session's queue arrive.
pub(crate) const SESSION_QUEUE: ConsumerId = ConsumerId(0);
/// The consumer under which direct deliveries arrive.
pub(crate) const DIRECT: ConsumerId = ConsumerId(1);

/// The part of a client session that routing knows.
pub(crate) struct ClientEndpoint {
    pub(crate) number: ClientNumber,
    /// The connection, while there is one.
    outbox: ArcSwapOption<Outbox>,
    /// The session's queue, once a subscription asks for more than quality of service 0.
    queue: ArcSwapOption<Queue>,
    /// Which topics it may be sent, when there are bounds.
    reader: ArcSwapOption<Reader>,
}

impl ClientEndpoint {
    pub(crate) fn new(number: ClientNumber) -> Arc<Self> {
        Arc::new(Self {
            number,
            outbox: ArcSwapOption::empty(),
            queue: ArcSwapOption::empty(),
            reader: ArcSwapOption::empty(),
        })
    }

    pub(crate) fn queue(&self) -> Option<Arc<Queue>> {
        self.queue.load_full()
    }

    pub(crate) fn set_queue(&self, queue: Option<Arc<Queue>>) {
        self.queue.store(queue);
    }

    pub(crate) fn set_reader(&self, reader: Option<Arc<Reader>>) {
        self.reader.store(reader);
    }

    /// Whether the session's user may read a topic that a subscription takes.
    pub(crate) fn may_have(&self, exchange: &str, key: &str) -> bool {
        self.reader.load().as_ref().is_none_or(|reader| reader.may_have(exchange, key))
    }

    /// Hands over messages at most once. Returns how many were taken: all, or none when the client
    /// is away or slow.
    ///
    /// More than `bytes_max` waiting for the client means that it is too slow.
    pub(crate) fn send(&self, matched: &Matched, batch: &Arc<Broadcast>, bytes_max: usize) -> Sent {
        let outbox = self.outbox.load();
        let Some(outbox) = outbox.as_ref() else { return Sent::Away };
        if outbox.bytes() >= bytes_max {
            return Sent::Slow;
        }
        outbox.push(Event::Broadcast {
            consumer: DIRECT,
            matched: matched.clone(),
            batch: batch.clone(),
        });
        Sent::Taken
    }
}

impl std::fmt::Debug for ClientEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ClientEndpoint").field(&self.number).finish()
    }
}

/// What came of a direct delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    Taken,
    Slow,
    Away,
}

/// A client session.
pub(crate) struct ClientSession {
    pub(crate) client_id: String,
    pub(crate) owner: UserName,
    /// Who has opened it last; `None` after a restart.
    opener: ArcSwapOption<Principal>,
    pub(crate) endpoint: Arc<ClientEndpoint>,
    pub(crate) state: Mutex<SessionState>,
}

impl ClientSession {
    pub(crate) fn new(client_id: String, owner: UserName, endpoint: Arc<ClientEndpoint>) -> Self {
        let state = Mutex::default();
        Self { client_id, owner, opener: ArcSwapOption::empty(), endpoint, state }
    }

    /// Whose rights the session has.
    pub(crate) fn who(&self) -> Arc<Principal> {
        let owner = || Arc::new(Principal::of_user(self.owner.clone()));
        self.opener.load_full().unwrap_or_else(owner)
    }

    pub(super) fn opened_by(&self, who: &Arc<Principal>) {
        self.opener.store(Some(Arc::clone(who)));
    }

    /// Has the session looked at when its will or its end is due.
    pub(crate) fn schedule(self: &Arc<Self>, vhost: &Vhost) {
        let state = self.state.lock();
        self.schedule_state(vhost, &state);
    }

    pub(super) fn schedule_state(self: &Arc<Self>, vhost: &Vhost, state: &SessionState) {
        for at_ms in [state.will_at_ms, state.ends_at_ms].into_iter().filter(|at| *at != 0) {
            vhost.look_at(self, at_ms);
        }
    }
}

/// What changes in a client session.
#[derive(Default)]
pub(crate) struct SessionState {
    /// The connection that has it.
    pub(crate) connected: Option<(ConnectionId, Arc<Outbox>)>,
    /// A connection that waits for it; nudged when it is free.
    pub(crate) waiting: Option<(ConnectionId, Arc<Outbox>)>,
    /// Since when somebody waits, in wall ms.
    pub(crate) waiting_since_ms: u64,
    pub(crate) expiry_secs: u32,
    /// When it ends if nobody comes back; 0 while connected, or for never.
    pub(crate) ends_at_ms: u64,
    pub(crate) subscriptions: BTreeMap<String, Subscription>,
    pub(crate) in_flight: InFlights,
    /// By consumer: what shares keep for the client while it is away.
    pub(crate) parked: BTreeMap<ConsumerId, Parked>,
    /// A connection had it when the broker stopped.
    pub(crate) was_connected: bool,
    /// Positions of its queue below this may have been sent by that connection.
    pub(crate) unsure_before: Seq,
    /// What of its queue its user has lost the right to.
    pub(crate) restricted: Option<Restricted>,
    pub(crate) received: BTreeSet<u16>,
    pub(crate) will: Option<Will>,
    /// When the will is published; 0 for not scheduled.
    pub(crate) will_at_ms: u64,
    pub(crate) ended: bool,
    /// The version of the rights that the subscriptions were asked for under.
    pub(crate) rights: u64,
    /// The store has a record of the session, which goes when the session ends.
    pub(crate) stored: bool,
}

impl SessionState {
    /// Kept in the store: it outlives its connection.
    pub(crate) fn is_durable(&self) -> bool {
        self.expiry_secs > 0
    }
}
