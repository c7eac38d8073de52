//! Exchanges, bindings and queues of a virtual host, as an immutable snapshot that is replaced
//! whole.

mod bindings;
mod choice;
mod exchange;
mod headers;

use std::sync::Arc;

use polymq_model::{ExchangeName, QueueName, persistent::PersistentMap};

use crate::{chance::Chance, queue::Queue, statistics::ExchangeStatistics};
pub(crate) use bindings::{Binding, Destination, Seen, SubscriptionOptions};
pub(crate) use exchange::{DELAYED_TYPE, Exchange, ExchangeKind, ExchangeSpec, alternate};
pub(crate) use headers::unmet_header;

/// The exchange that orders to the broker will be published to.
///
/// It takes neither publishes nor bindings before it has functions: an order that is not carried
/// out must not look as if it were.
pub(crate) const CONTROL_EXCHANGE: &str = "amq.control";

/// Where copies of traced messages will be published to, by the broker only.
const TRACE_EXCHANGE: &str = "amq.rabbitmq.trace";

/// Exchanges every virtual host has.
pub(crate) const BUILT_IN: [(&str, ExchangeKind); 7] = [
    ("amq.direct", ExchangeKind::Direct),
    ("amq.fanout", ExchangeKind::Fanout),
    ("amq.topic", ExchangeKind::Topic),
    ("amq.headers", ExchangeKind::Headers),
    ("amq.match", ExchangeKind::Headers),
    (TRACE_EXCHANGE, ExchangeKind::Topic),
    (CONTROL_EXCHANGE, ExchangeKind::Direct),
];

/// Everything routing reads. Cloning shares all parts.
#[derive(Clone, Default)]
pub(crate) struct Topology {
    /// Grows with every change; routes cached under another version are made again.
    pub(crate) version: u64,
    pub(crate) exchanges: PersistentMap<ExchangeName, Arc<Exchange>>,
    pub(crate) queues: PersistentMap<QueueName, Arc<Queue>>,
    /// Grows with every queue that comes or goes; lists of another number are made again.
    pub(crate) queue_changes: u64,
    /// The queues that came or went by the change that is being made.
    pub(crate) changed_queues: Vec<QueueName>,
    /// Chooses for messages that come from no connection.
    pub(crate) chance: Arc<Chance>,
    /// Of the exchange without a name.
    pub(crate) default_exchange: Arc<ExchangeStatistics>,
    /// The largest body that clients may publish, whatever its route. Here, because routes that
    /// know it are made again when it changes.
    pub(crate) body_bytes_max: Option<u64>,
    /// Queues of type quorum.
    pub(crate) quorum_queues: u64,
}

impl Topology {
    /// A topology with the built-in exchanges.
    pub(crate) fn new(seed: u64) -> Self {
        let mut topology = Self { chance: Arc::new(Chance::new(seed)), ..Self::default() };
        for (name, kind) in BUILT_IN {
            let Ok(name) = ExchangeName::new(name) else { continue };
            let internal = name.as_str() == TRACE_EXCHANGE;
            let spec = ExchangeSpec { kind, durable: true, internal, ..ExchangeSpec::default() };
            topology.exchanges.insert(name.clone(), Arc::new(Exchange::new(name, spec)));
        }
        topology
    }

    pub(crate) fn exchange(&self, name: &str) -> Option<&Arc<Exchange>> {
        self.exchanges.get(name)
    }

    /// What is counted of an exchange.
    pub(crate) fn statistics_of(&self, exchange: &str) -> Option<Arc<ExchangeStatistics>> {
        match exchange {
            "" => Some(self.default_exchange.clone()),
            name => self.exchange(name).map(|exchange| exchange.statistics.clone()),
        }
    }

    pub(crate) fn queue(&self, name: &str) -> Option<&Arc<Queue>> {
        self.queues.get(name)
    }

    pub(crate) fn add_queue(&mut self, queue: Arc<Queue>) {
        self.changed_queues.push(queue.name.clone());
        self.quorum_queues += u64::from(queue.settings.is_quorum);
        self.queues.insert(queue.name.clone(), queue);
        self.queue_changes += 1;
    }

    pub(crate) fn remove_queue(&mut self, name: &QueueName) {
        self.changed_queues.push(name.clone());
        if let Some(queue) = self.queues.get(name.as_str()) {
            self.quorum_queues -= u64::from(queue.settings.is_quorum);
        }
        self.queues.remove(name.as_str());
        self.queue_changes += 1;
    }
}
