//! A virtual host: one topology, its client sessions, its retained messages.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Weak, atomic::AtomicU64},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use polymq_contract::Outbox;
use polymq_model::{ClientNumber, ConsumerId, ExchangeName, VhostName};

use crate::{
    client_session::ClientSession,
    policies::Policies,
    queue::Queue,
    retained::Retained,
    schedule::Schedule,
    statistics::{ActivityCounters, PastTraffic, QueueSums, Tiers},
    tenants::Tenancy,
    topology::{Binding, Destination, Topology},
    view::QueueNames,
};

/// Where answers to a direct reply-to name go.
#[derive(Debug, Clone)]
pub(crate) struct ReplyTarget {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) consumer: ConsumerId,
}

/// A virtual host.
pub(crate) struct Vhost {
    pub(crate) name: VhostName,
    pub(crate) topology: ArcSwap<Topology>,
    edit: Mutex<Destinations>,
    pub(crate) policies: Mutex<Policies>,
    pub(crate) retained: Mutex<Retained>,
    pub(crate) clients: Mutex<HashMap<String, Arc<ClientSession>>>,
    /// Client sessions by the wall time in ms at which something of theirs may be due.
    pub(crate) due_clients: Mutex<BTreeMap<(u64, ClientNumber), Arc<ClientSession>>>,
    /// Queues by the wall time in ms at which something of theirs may be due, and their address.
    due_queues: Mutex<BTreeMap<(u64, usize), Weak<Queue>>>,
    pub(crate) replies: Mutex<HashMap<String, ReplyTarget>>,
    pub(crate) tenancy: Tenancy,
    pub(crate) schedule: Schedule,
    /// What is counted for no exchange and no queue, and what was counted for those that have gone.
    pub(crate) activity: ActivityCounters,
    pub(crate) past_traffic: PastTraffic,
    pub(crate) history: Mutex<Tiers>,
    /// When samples of its queues were last taken, in ms since 1970.
    pub(crate) sampled_ms: AtomicU64,
    pub(crate) queue_names: QueueNames,
    pub(crate) queue_sums: QueueSums,
}

/// Which bindings lead to a destination, so that a deletion finds them without a search.
#[derive(Default)]
pub(crate) struct Destinations(HashMap<String, HashSet<(ExchangeName, Box<str>)>>);

impl Destinations {
    fn name_of(destination: &Destination) -> String {
        match destination {
            Destination::Queue(queue) => format!("q{}", queue.name),
            Destination::Exchange(exchange) => format!("e{exchange}"),
            Destination::Client(endpoint, _) => format!("c{}", endpoint.number),
        }
    }

    pub(crate) fn add(&mut self, source: &ExchangeName, binding: &Binding) {
        let bindings = self.0.entry(Self::name_of(&binding.destination)).or_default();
        bindings.insert((source.clone(), binding.identity()));
    }

    pub(crate) fn remove(&mut self, source: &ExchangeName, binding: &Binding) {
        let name = Self::name_of(&binding.destination);
        if let Some(bindings) = self.0.get_mut(&name) {
            bindings.remove(&(source.clone(), binding.identity()));
            if bindings.is_empty() {
                self.0.remove(&name);
            }
        }
    }

    /// The bindings that lead to a destination: their source and identity.
    pub(crate) fn bindings_to(&self, destination: &Destination) -> Vec<(ExchangeName, Box<str>)> {
        self.0.get(&Self::name_of(destination)).into_iter().flatten().cloned().collect()
    }

    /// Forgets a destination; returns the bindings that led to it.
    pub(crate) fn forget(&mut self, destination: &Destination) -> Vec<(ExchangeName, Box<str>)> {
        let mut bindings: Vec<_> =
            self.0.remove(&Self::name_of(destination)).into_iter().flatten().collect();
        bindings.sort();
        bindings
    }
}

impl Vhost {
    pub(crate) fn new(name: VhostName, seed: u64) -> Self {
        Self {
            name,
            topology: ArcSwap::from_pointee(Topology::new(seed)),
            edit: Mutex::default(),
            policies: Mutex::default(),
            retained: Mutex::default(),
            clients: Mutex::default(),
            due_clients: Mutex::default(),
            due_queues: Mutex::default(),
            replies: Mutex::default(),
            tenancy: Tenancy::default(),
            schedule: Schedule::default(),
            activity: ActivityCounters::default(),
            past_traffic: PastTraffic::default(),
            history: Mutex::default(),
            sampled_ms: AtomicU64::new(0),
            queue_names: QueueNames::default(),
            queue_sums: QueueSums::default(),
        }
    }

    /// Has the client session looked at when `at_ms` has come.
    pub(crate) fn look_at(&self, session: &Arc<ClientSession>, at_ms: u64) {
        let key = (at_ms, session.endpoint.number);
        self.due_clients.lock().insert(key, session.clone());
    }

    /// The client sessions that are due, each once.
    pub(crate) fn take_due_clients(&self, now_ms: u64) -> Vec<Arc<ClientSession>> {
        let mut due = self.due_clients.lock();
        let later = due.split_off(&(now_ms.saturating_add(1), ClientNumber(0)));
        std::mem::replace(&mut *due, later).into_values().collect()
    }

    /// Has the queue looked at when `at_ms` has come.
    pub(crate) fn look_at_queue(&self, queue: &Arc<Queue>, at_ms: u64) {
        let key = (at_ms, Arc::as_ptr(queue).addr());
        self.due_queues.lock().insert(key, Arc::downgrade(queue));
    }

    /// The queues that are due.
    pub(crate) fn take_due_queues(&self, now_ms: u64) -> Vec<Arc<Queue>> {
        let mut due = self.due_queues.lock();
        let later = due.split_off(&(now_ms.saturating_add(1), 0));
        let due = std::mem::replace(&mut *due, later);
        due.into_values().filter_map(|queue| queue.upgrade()).collect()
    }

    /// The bindings that lead to a destination: their source and identity, in no order.
    pub(crate) fn bindings_to(&self, destination: &Destination) -> Vec<(ExchangeName, Box<str>)> {
        self.edit.lock().bindings_to(destination)
    }

    /// Changes the topology: `change` works on a copy, which replaces the snapshot when it
    /// succeeds.
    ///
    /// Errors: those of `change`; the topology is then as before.
    pub(crate) fn edit<R, E>(
        &self,
        change: impl FnOnce(&mut Topology, &mut Destinations) -> Result<R, E>,
    ) -> Result<R, E> {
        let mut destinations = self.edit.lock();
        let mut topology = Topology::clone(&self.topology.load());
        let result = change(&mut topology, &mut destinations)?;
        topology.version += 1;
        let changed_queues = std::mem::take(&mut topology.changed_queues);
        self.topology.store(Arc::new(topology));
        self.queue_names.note(changed_queues);
        Ok(result)
    }
}
