//! The broker as the server sees it.

use std::sync::{Arc, atomic::Ordering};

use polymq_contract::{Broker, Connection, Outbox, Peer, Refusal, RefusalKind};
use polymq_model::{ConnectionId, Limits, Now, QueueName, VhostName};
use polymq_store::{Committer, Opened, ShardBatch, Store, StoreError};

use crate::{
    access::{Access, Principal},
    connection::BrokerConnection,
    core::{ConnectionRecord, Core, Parts},
    counters::{Counters, add},
    queue::QueueCounts,
    recover::Recovered,
    tick::STATISTICS_EVERY_MS,
    view::ConnectionFacts,
};

/// The broker. Cloning shares it.
#[derive(Clone)]
pub struct BrokerHandle(pub(crate) Arc<Core>);

/// A queue and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueView {
    /// Its virtual host.
    pub vhost: VhostName,
    /// Its name.
    pub name: QueueName,
    /// It survives a restart.
    pub durable: bool,
    /// What it holds.
    pub counts: QueueCounts,
    /// Nothing is delivered.
    pub paused: bool,
    /// Dead letters of it that no queue took, since the start.
    pub dead_letter_unroutable: u64,
    /// The policy that applies, and the operator policy.
    pub policies: (Option<String>, Option<String>),
}

impl BrokerHandle {
    /// A broker without anything in it.
    pub fn new(parts: Parts) -> Self {
        Self(Core::new(parts))
    }

    /// Rebuilds everything from an opened store. Blocks; call it before serving.
    ///
    /// Errors: those of reading messages.
    pub fn recover(
        &self,
        opened: &Opened,
        store: &Arc<dyn Store>,
        now: Now,
    ) -> Result<Recovered, StoreError> {
        self.0.recover(opened, store, now.unix_ms)
    }

    /// Creates a virtual host unless it exists.
    pub fn create_vhost(&self, name: VhostName) {
        self.0.create_vhost(name);
    }

    /// Gives every user a mailbox in this domain, made when it is needed. The first call counts.
    pub fn serve_mailboxes(&self, domain: &str) {
        self.0.mailbox_domain.get_or_init(|| domain.into());
    }

    /// Users and permissions.
    pub fn access(&self) -> &Access {
        &self.0.access
    }

    /// What is written to.
    pub fn committer(&self) -> &Arc<Committer> {
        &self.0.committer
    }

    /// Monotonic counters. Deliveries on connections that are open are in them as of the last call
    /// of [`connection_totals`](Self::connection_totals).
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// The last batch with anything in it, for callers that wait until it is durable.
    pub fn last_batch(&self) -> ShardBatch {
        self.0.committer.append(|_| ()).0
    }

    /// Does what is due with time. Call it about every 100 ms.
    pub fn tick(&self, now: Now) {
        self.0.tick(now);
    }

    /// Milliseconds between two calls of [`BrokerHandle::publish_statistics`].
    pub fn statistics_every_ms(&self) -> u64 {
        STATISTICS_EVERY_MS
    }

    /// Publishes the `$SYS` topics and forgets expired retained messages.
    pub fn publish_statistics(&self, uptime_secs: u64, version: &str, now: Now) {
        self.0.publish_statistics(uptime_secs, version, now);
        self.0.expire_retained(now);
    }

    /// Makes publishers wait, with a reason for them; `None` lets them go on.
    pub fn set_alarm(&self, reason: Option<&str>) {
        self.0.set_alarm(reason.map(Arc::from));
    }

    /// Other limits for connections, subscriptions, sessions, waiting publishes and consumers from
    /// now on. What is there already stays; another consumer timeout counts for what is out.
    pub fn set_limits(&self, limits: Arc<Limits>) {
        self.0.set_limits(limits);
    }

    /// The alarm that stands, if one does.
    pub fn alarm(&self) -> Option<Arc<str>> {
        self.0.alarm.read().clone()
    }

    /// Tells every connection that the server stops, and accepts no more.
    pub fn announce_stop(&self, reason: &str) {
        self.0.announce_stop(reason);
    }

    /// Who has logged in on a connection.
    pub fn principal(&self, connection: ConnectionId) -> Option<Principal> {
        let connections = self.0.connections.lock();
        connections.get(&connection)?.who.as_deref().cloned()
    }

    /// True when there is a virtual host of this name.
    pub fn has_vhost(&self, vhost: &str) -> bool {
        self.0.vhost(vhost).is_ok()
    }

    /// True when the virtual host is there and has the exchange.
    pub fn has_exchange(&self, vhost: &str, exchange: &str) -> bool {
        let vhost = self.0.vhost(vhost).ok();
        vhost.is_some_and(|vhost| vhost.topology.load().exchange(exchange).is_some())
    }

    /// All queues, by virtual host and name.
    pub fn queues(&self) -> Vec<QueueView> {
        let mut views = Vec::new();
        for vhost in self.0.all_vhosts() {
            let topology = vhost.topology.load_full();
            views.extend(topology.queues.values().map(|queue| QueueView {
                vhost: vhost.name.clone(),
                name: queue.name.clone(),
                durable: queue.settings.durable,
                counts: queue.counts(),
                paused: queue.is_paused(),
                dead_letter_unroutable: queue.dead_letter_unroutable.load(Ordering::Relaxed),
                policies: queue.rules().policies,
            }));
        }
        views.sort_by(|a, b| (&a.vhost, &a.name).cmp(&(&b.vhost, &b.name)));
        views
    }

    /// Delayed messages, over all virtual hosts.
    pub fn delayed_count(&self) -> usize {
        self.0.all_vhosts().iter().map(|vhost| vhost.schedule.len()).sum()
    }

    /// Client sessions and retained messages, over all virtual hosts.
    pub fn session_counts(&self) -> (usize, usize) {
        self.0.all_vhosts().iter().fold((0, 0), |(sessions, retained), vhost| {
            (sessions + vhost.clients.lock().len(), retained + vhost.retained.lock().len())
        })
    }
}

impl BrokerHandle {
    /// As [`Broker::connect`], for somebody who has logged in before by
    /// [`log_in`](Self::log_in). Whether it may still be let in is asked again.
    ///
    /// Errors: those of connecting; kind `LoginFailed` for one who is banned, and for a token that
    /// is over.
    pub fn connect_as(
        &self,
        protocol: &'static str,
        peer: &Arc<Peer>,
        outbox: &Arc<Outbox>,
        who: &Principal,
    ) -> Result<Box<dyn Connection>, Refusal> {
        if let Some(reason) = self.0.why_over(who) {
            return Err(Refusal::new(RefusalKind::LoginFailed, reason));
        }
        let who = self.0.admit(who.user.clone(), who.grant.clone(), peer)?;
        let connection = self.open(protocol, peer, outbox)?;
        connection.become_known(who)?;
        Ok(Box::new(connection))
    }

    fn open(
        &self,
        protocol: &'static str,
        peer: &Arc<Peer>,
        outbox: &Arc<Outbox>,
    ) -> Result<BrokerConnection, Refusal> {
        self.0.check_connection_count()?;
        if let Some(address) = peer.address {
            self.0.bans.check_address(address.ip(), self.0.clock_ms())?;
        }
        let id = self.0.next_connection();
        let facts = Arc::new(ConnectionFacts::new(
            id,
            protocol,
            peer.clone(),
            outbox.clone(),
            self.0.clock_ms(),
        ));
        let record = ConnectionRecord {
            protocol,
            outbox: outbox.clone(),
            peer: peer.clone(),
            user: None,
            who: None,
            vhost: None,
            publishes: false,
            is_blocked: false,
            has_parked: false,
            leaves_by_ms: None,
            facts: facts.clone(),
        };
        self.0.connections.lock().insert(id, record);
        add(&self.0.counters.protocol(protocol).connections_opened, 1);
        let core = self.0.clone();
        Ok(BrokerConnection::new(core, facts, protocol, peer.clone(), outbox.clone()))
    }
}

impl Broker for BrokerHandle {
    fn connect(
        &self,
        protocol: &'static str,
        peer: &Arc<Peer>,
        outbox: &Arc<Outbox>,
    ) -> Result<Box<dyn Connection>, Refusal> {
        Ok(Box::new(self.open(protocol, peer, outbox)?))
    }
}
