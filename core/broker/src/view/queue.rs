//! Queues and their consumers.

use std::sync::{Arc, atomic::Ordering};

use polymq_contract::{Arguments, Refusal};
use polymq_model::{ConnectionId, Message, QueueName, Table, VhostName};

use crate::{
    BrokerHandle, PolicyKind,
    queue::{Queue, QueueCounts},
    statistics::{Activity, Sample, Span},
    vhost::Vhost,
};

/// A queue at the moment somebody has asked for a list.
#[derive(Clone)]
pub struct QueueRef {
    vhost: Arc<Vhost>,
    queue: Arc<Queue>,
}

/// Everything about a queue.
#[derive(Debug, Clone)]
pub struct QueueDetails {
    /// Its virtual host.
    pub vhost: VhostName,
    /// Its name.
    pub name: QueueName,
    /// `classic` or `quorum`.
    pub kind: &'static str,
    /// It survives a restart.
    pub durable: bool,
    /// It goes with its last consumer.
    pub auto_delete: bool,
    /// It belongs to a client session, which makes and deletes it.
    pub of_session: bool,
    /// The connection it belongs to.
    pub owner: Option<ConnectionId>,
    /// What it was declared with.
    pub arguments: Table,
    /// The user who has declared it, where that is known.
    pub declared_by: Option<Arc<str>>,
    /// The policy that applies, and the operator policy.
    pub policies: (Option<String>, Option<String>),
    /// What these two policies say together.
    pub policy_definition: Table,
    /// What it holds.
    pub counts: QueueCounts,
    /// Nothing is delivered.
    pub paused: bool,
    /// The tag of the consumer that has the queue for itself.
    pub exclusive_consumer: Option<Arc<str>>,
    /// The tag of the only consumer that gets messages.
    pub single_active_consumer: Option<Arc<str>>,
    /// When a message last came, left or was settled, in ms since 1970; 0 for never.
    pub active_ms: u64,
    /// The timestamp of the message that comes next, when that is in memory and has one, in ms
    /// since 1970.
    pub head_timestamp_ms: Option<i64>,
    /// Dead letters of it that no queue took.
    pub dead_letter_unroutable: u64,
    /// What has happened here.
    pub activity: Activity,
    /// Samples of that, oldest first.
    pub recent: Vec<Sample>,
}

/// A consumer of a queue.
#[derive(Debug, Clone)]
pub struct ConsumerView {
    /// The virtual host of its queue.
    pub vhost: VhostName,
    /// Its queue.
    pub queue: QueueName,
    /// Its name.
    pub tag: Arc<str>,
    /// Its connection.
    pub connection: ConnectionId,
    /// Its channel.
    pub channel: u32,
    /// It gets messages; one of several single active consumers does.
    pub is_active: bool,
    /// One consumer of its queue gets messages at a time.
    pub single_active: bool,
    /// Deliveries are settled when sent.
    pub no_ack: bool,
    /// It has the queue for itself.
    pub exclusive: bool,
    /// Unsettled deliveries that it may have; 0 for no bound.
    pub prefetch: u32,
    /// Its priority.
    pub priority: i64,
    /// How long it may take for a delivery, in ms.
    pub timeout_ms: Option<u64>,
    /// Its unsettled deliveries.
    pub unsettled: usize,
    /// What it has been sent.
    pub delivered: u64,
    /// What it was started with.
    pub arguments: Arc<Arguments>,
}

/// A delivery that is not settled.
#[derive(Debug, Clone)]
pub struct UnackedView {
    /// Its place in the list: its consumer and its number there.
    pub place: (u64, u64),
    /// The position of the message.
    pub seq: u64,
    /// The name of its consumer; that of a get, or of a client who is away, is empty.
    pub tag: Arc<str>,
    /// The connection that holds it; 0 when its client is away.
    pub connection: ConnectionId,
    /// Its channel.
    pub channel: u32,
    /// Since when, in ms since 1970, to a tenth of a second; `None` where that is not known.
    pub since_ms: Option<u64>,
    /// How long it may take, in ms.
    pub timeout_ms: Option<u64>,
    /// Earlier deliveries that failed.
    pub failed: u16,
    /// All earlier deliveries.
    pub acquired: u16,
    /// Bytes of its body.
    pub payload_bytes: u64,
}

impl QueueRef {
    pub(super) fn new(vhost: Arc<Vhost>, queue: Arc<Queue>) -> Self {
        Self { vhost, queue }
    }

    /// Its virtual host.
    pub fn vhost(&self) -> &VhostName {
        &self.vhost.name
    }

    /// Its name.
    pub fn name(&self) -> &QueueName {
        &self.queue.name
    }

    /// What it holds.
    pub fn counts(&self) -> QueueCounts {
        self.queue.counts()
    }

    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// The connection it belongs to.
    pub fn owner(&self) -> Option<ConnectionId> {
        self.queue.settings.exclusive
    }

    /// What has happened here.
    pub fn activity(&self) -> Activity {
        self.queue.sample(0).activity
    }

    /// Everything about it, with samples of a span.
    pub fn details(&self, span: Option<Span>) -> QueueDetails {
        let (queue, settings) = (&self.queue, &self.queue.settings);
        let seen = queue.seen();
        QueueDetails {
            vhost: self.vhost.name.clone(),
            name: queue.name.clone(),
            kind: if settings.is_quorum { "quorum" } else { "classic" },
            durable: settings.durable,
            auto_delete: settings.auto_delete,
            of_session: settings.of_client,
            owner: settings.exclusive,
            arguments: queue.with_declared(|declared| declared.arguments.clone()),
            declared_by: settings.declared_by.clone(),
            policy_definition: self.policy_definition(&seen.policies),
            policies: seen.policies,
            counts: seen.counts,
            paused: seen.paused,
            exclusive_consumer: seen.exclusive_consumer,
            single_active_consumer: seen.single_active_consumer,
            active_ms: seen.active_ms,
            head_timestamp_ms: seen.head.and_then(|head| head.properties().timestamp_ms),
            dead_letter_unroutable: queue.dead_letter_unroutable.load(Ordering::Relaxed),
            activity: seen.activity,
            recent: self.recent(span),
        }
    }

    /// Samples of a span, oldest first.
    pub fn recent(&self, span: Option<Span>) -> Vec<Sample> {
        let at_ms = self.vhost.sampled_ms.load(Ordering::Relaxed);
        self.queue.history.lock().pick_until(span, at_ms)
    }

    fn policy_definition(&self, (user, operator): &(Option<String>, Option<String>)) -> Table {
        if user.is_none() && operator.is_none() {
            return Table::new();
        }
        let policies = self.vhost.policies.lock();
        let of = |kind, name: &Option<String>| {
            name.as_deref().and_then(|name| policies.definition(kind, name)).unwrap_or_default()
        };
        let mut definition = of(PolicyKind::User, user);
        for (key, value) in of(PolicyKind::Operator, operator) {
            definition.retain(|(known, _)| *known != key);
            definition.push((key, value));
        }
        definition
    }

    /// Its consumers, in the order in which they have come.
    pub fn consumers(&self) -> Vec<ConsumerView> {
        self.queue.consumers(&self.vhost.name)
    }

    /// The user who has declared it, where that is known.
    pub fn declared_by(&self) -> Option<&str> {
        self.queue.settings.declared_by.as_deref()
    }

    /// Deliveries that are not settled, by consumer and the oldest of each first, behind the place
    /// of one; at most `max`.
    ///
    /// Cost: proportional to `max` and the consumers.
    pub fn unacked(&self, after: Option<(u64, u64)>, max: usize) -> Vec<UnackedView> {
        self.queue.unacked(after, max)
    }
}

/// What is read of a queue under its lock.
pub(crate) struct Seen {
    pub(crate) counts: QueueCounts,
    pub(crate) paused: bool,
    pub(crate) policies: (Option<String>, Option<String>),
    pub(crate) exclusive_consumer: Option<Arc<str>>,
    pub(crate) single_active_consumer: Option<Arc<str>>,
    pub(crate) active_ms: u64,
    pub(crate) head: Option<Message>,
    pub(crate) activity: Activity,
}

impl BrokerHandle {
    /// The numbers of a virtual host, and samples of them.
    ///
    /// Errors: kind `NotFound`.
    pub fn vhost_totals<const N: usize>(
        &self,
        vhost: &str,
        spans: [Option<Span>; N],
    ) -> Result<(Sample, [Vec<Sample>; N]), Refusal> {
        let vhost = self.0.vhost(vhost)?;
        let now = self.0.vhost_sample(&vhost);
        let history = vhost.history.lock();
        Ok((now, spans.map(|span| history.pick(span))))
    }

    /// The queues of a virtual host, or of all, in no order.
    ///
    /// Errors: kind `NotFound` when the virtual host is missing.
    pub fn queue_refs(&self, vhost: Option<&str>) -> Result<Vec<QueueRef>, Refusal> {
        let mut refs = Vec::new();
        for vhost in self.0.vhosts_named(vhost)? {
            let topology = vhost.topology.load_full();
            let queues = topology.queues.values().cloned();
            refs.extend(queues.map(|queue| QueueRef { vhost: vhost.clone(), queue }));
        }
        Ok(refs)
    }

    /// One queue.
    ///
    /// Errors: kind `NotFound`.
    pub fn queue_ref(&self, vhost: &str, queue: &str) -> Result<QueueRef, Refusal> {
        let vhost = self.0.vhost(vhost)?;
        let found = vhost.topology.load().queue(queue).cloned();
        let queue = found.ok_or_else(|| {
            let text = format!("no queue '{queue}' in vhost '{}'", vhost.name);
            Refusal::missing("queue", queue, text)
        })?;
        Ok(QueueRef { vhost, queue })
    }

    /// The consumers of a virtual host, or of all. Looks at every queue.
    ///
    /// Errors: kind `NotFound` when the virtual host is missing.
    pub fn consumers(&self, vhost: Option<&str>) -> Result<Vec<ConsumerView>, Refusal> {
        let refs = self.queue_refs(vhost)?;
        Ok(refs.iter().flat_map(QueueRef::consumers).collect())
    }
}
