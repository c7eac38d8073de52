//! Exchanges, bindings and queues of a virtual host, as an immutable snapshot that is replaced
//! whole.

mod bindings;
mod exchange;
mod headers;

use std::sync::Arc;

use polymq_model::{ExchangeName, QueueName, persistent::PersistentMap};

use crate::queue::Queue;
pub(crate) use bindings::{Binding, Destination, SubscriptionOptions};
pub(crate) use exchange::{Exchange, ExchangeKind, ExchangeSpec};

/// Exchanges every virtual host has.
pub(crate) const BUILT_IN: [(&str, ExchangeKind); 6] = [
    ("amq.direct", ExchangeKind::Direct),
    ("amq.fanout", ExchangeKind::Fanout),
    ("amq.topic", ExchangeKind::Topic),
    ("amq.headers", ExchangeKind::Headers),
    ("amq.match", ExchangeKind::Headers),
    ("amq.rabbitmq.trace", ExchangeKind::Topic),
];

/// Everything routing reads. Cloning shares all parts.
#[derive(Clone, Default)]
pub(crate) struct Topology {
    /// Grows with every change; routes cached under another version are made again.
    pub(crate) version: u64,
    pub(crate) exchanges: PersistentMap<ExchangeName, Arc<Exchange>>,
    pub(crate) queues: PersistentMap<QueueName, Arc<Queue>>,
}

impl Topology {
    /// A topology with the built-in exchanges.
    pub(crate) fn new() -> Self {
        let mut topology = Self::default();
        for (name, kind) in BUILT_IN {
            let Ok(name) = ExchangeName::new(name) else { continue };
            let spec = ExchangeSpec { kind, durable: true, ..ExchangeSpec::default() };
            topology.exchanges.insert(name.clone(), Arc::new(Exchange::new(name, spec)));
        }
        topology
    }

    pub(crate) fn exchange(&self, name: &str) -> Option<&Arc<Exchange>> {
        self.exchanges.get(name)
    }

    pub(crate) fn queue(&self, name: &str) -> Option<&Arc<Queue>> {
        self.queues.get(name)
    }
}
