//! Bindings.

use std::sync::Arc;

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{ExchangeName, Table};
use polymq_store::ShardBatch;

use super::{bad_name, exchange::no_exchange};
use crate::{
    access::{Permit, Read, Write},
    core::Core,
    definitions::{self, StoredBinding, kind},
    queue::{Queue, check_available},
    topology::{Binding, CONTROL_EXCHANGE, Destination, Exchange, Topology},
    vhost::{Destinations, Vhost},
};

impl Core {
    /// Binds `destination` to the exchange `source`.
    ///
    /// Errors: `NotFound`, `Invalid`, `Reserved` for the default exchange, `NotAvailable` for the
    /// control exchange and for an argument that must not be ignored.
    pub(crate) fn bind(
        &self,
        _permits: &(Permit<Write>, Permit<Read>),
        vhost: &Arc<Vhost>,
        source: &str,
        binding: Binding,
    ) -> Result<Option<ShardBatch>, Refusal> {
        let source = check_source(source)?;
        check_control(&source, &binding.destination)?;
        check_available(&binding.arguments)?;
        vhost.edit(|topology, destinations| {
            let Some(exchange) = topology.exchange(source.as_str()) else {
                return Err(no_exchange(vhost, source.as_str()));
            };
            if let Destination::Exchange(other) = &binding.destination
                && topology.exchange(other.as_str()).is_none()
            {
                return Err(no_exchange(vhost, other.as_str()));
            }
            if exchange.bindings.get(&binding.identity()).is_some() {
                return Ok(None);
            }
            let mut changed = Exchange::clone(exchange);
            changed.bindings.insert(changed.spec.kind, binding.clone())?;
            changed.was_bound = true;
            destinations.add(&source, &binding);
            let batch = self.store_binding(vhost, topology, &changed, &binding);
            topology.exchanges.insert(source, Arc::new(changed));
            Ok(batch)
        })
    }

    /// Removes a binding; one that is missing counts as removed.
    ///
    /// Errors: `NotFound` when the exchange is missing, `Reserved` for the default exchange.
    pub(crate) fn unbind(
        &self,
        _permits: &(Permit<Write>, Permit<Read>),
        vhost: &Arc<Vhost>,
        source: &str,
        binding: &Binding,
    ) -> Result<Option<ShardBatch>, Refusal> {
        let source = check_source(source)?;
        vhost.edit(|topology, destinations| {
            if topology.exchange(source.as_str()).is_none() {
                return Ok(None);
            }
            let identity = binding.identity();
            Ok(self.drop_binding(vhost, topology, destinations, &source, &identity))
        })
    }

    /// Removes every binding that leads to a destination that goes away.
    pub(crate) fn remove_bindings_to(&self, vhost: &Arc<Vhost>, destination: &Destination) {
        let removed: Result<_, Refusal> = vhost.edit(|topology, destinations| {
            Ok(self.drop_bindings_to(vhost, topology, destinations, destination))
        });
        debug_assert!(removed.is_ok(), "removing bindings cannot be refused");
    }

    /// Removes the bindings to a queue that somebody may not have any more. Returns how many went,
    /// and how many are left.
    pub(crate) fn drop_denied_bindings(
        &self,
        vhost: &Arc<Vhost>,
        queue: &Arc<Queue>,
        is_denied: impl Fn(&Topology, &ExchangeName, &Binding) -> bool,
    ) -> (usize, usize) {
        let own = Destination::Queue(queue.clone());
        let dropped: Result<_, Refusal> = vhost.edit(|topology, destinations| {
            let all = destinations.bindings_to(&own);
            let denied = all.iter().filter(|(source, identity)| {
                let exchange = topology.exchange(source.as_str());
                let binding = exchange.and_then(|exchange| exchange.bindings.get(identity));
                binding.is_some_and(|binding| is_denied(topology, source, binding))
            });
            let denied: Vec<_> = denied.cloned().collect();
            for (source, identity) in &denied {
                self.drop_binding(vhost, topology, destinations, source, identity);
            }
            Ok((denied.len(), all.len() - denied.len()))
        });
        dropped.unwrap_or_default()
    }

    pub(super) fn drop_bindings_to(
        &self,
        vhost: &Vhost,
        topology: &mut Topology,
        destinations: &mut Destinations,
        destination: &Destination,
    ) -> Option<ShardBatch> {
        let mut batch = None;
        for (source, identity) in destinations.forget(destination) {
            batch = self.drop_binding(vhost, topology, destinations, &source, &identity).or(batch);
        }
        batch
    }

    /// Takes one binding out; an auto-delete exchange goes with its last.
    fn drop_binding(
        &self,
        vhost: &Vhost,
        topology: &mut Topology,
        destinations: &mut Destinations,
        source: &ExchangeName,
        identity: &str,
    ) -> Option<ShardBatch> {
        let exchange = topology.exchange(source.as_str())?;
        let mut changed = Exchange::clone(exchange);
        let binding = changed.bindings.remove(identity)?;
        destinations.remove(source, &binding);
        let batch = self.unstore_binding(vhost, topology, &changed, &binding);
        let is_over = changed.spec.auto_delete && changed.was_bound && changed.bindings.is_empty();
        topology.exchanges.insert(source.clone(), Arc::new(changed.clone()));
        if is_over {
            return self.drop_exchange(vhost, topology, destinations, &changed).or(batch);
        }
        batch
    }

    /// Bindings between durable things are durable; those of client sessions are stored with their
    /// session.
    fn store_binding(
        &self,
        vhost: &Vhost,
        topology: &Topology,
        source: &Exchange,
        binding: &Binding,
    ) -> Option<ShardBatch> {
        let (to_queue, destination) = stored_destination(topology, source, binding)?;
        let key = binding_key(vhost, source, binding);
        let value = definitions::encode(&StoredBinding {
            source: source.name.as_str().to_owned(),
            to_queue,
            destination,
            key: binding.key.as_ref().to_owned(),
            arguments: Table::clone(&binding.arguments),
        });
        Some(self.committer.append(|writer| writer.meta_put(&key, &value)).0)
    }

    pub(super) fn unstore_binding(
        &self,
        vhost: &Vhost,
        topology: &Topology,
        source: &Exchange,
        binding: &Binding,
    ) -> Option<ShardBatch> {
        stored_destination(topology, source, binding)?;
        let key = binding_key(vhost, source, binding);
        Some(self.committer.append(|writer| writer.meta_delete(&key)).0)
    }

    /// Puts a binding read from the store into the topology.
    ///
    /// Errors: why it cannot be there, as a refusal.
    pub(crate) fn restore_binding(
        &self,
        vhost: &Arc<Vhost>,
        stored: StoredBinding,
    ) -> Result<(), Refusal> {
        let destination = if stored.to_queue {
            let topology = vhost.topology.load();
            let queue = topology.queue(&stored.destination).ok_or_else(|| {
                Refusal::new(RefusalKind::NotFound, format!("no queue '{}'", stored.destination))
            })?;
            Destination::Queue(queue.clone())
        } else {
            Destination::Exchange(ExchangeName::new(&stored.destination).map_err(bad_name)?)
        };
        let binding = Binding {
            destination,
            key: stored.key.as_str().into(),
            arguments: Arc::new(stored.arguments),
        };
        self.restore_client_binding(vhost, &stored.source, binding)
    }

    /// Puts a binding into the topology without writing it.
    ///
    /// Errors: why it cannot be there, as a refusal.
    pub(crate) fn restore_client_binding(
        &self,
        vhost: &Arc<Vhost>,
        source: &str,
        binding: Binding,
    ) -> Result<(), Refusal> {
        let source = ExchangeName::new(source).map_err(bad_name)?;
        vhost.edit(|topology, destinations| {
            let Some(exchange) = topology.exchange(source.as_str()) else {
                return Err(no_exchange(vhost, source.as_str()));
            };
            let mut changed = Exchange::clone(exchange);
            changed.bindings.insert(changed.spec.kind, binding.clone())?;
            changed.was_bound = true;
            destinations.add(&source, &binding);
            topology.exchanges.insert(source, Arc::new(changed));
            Ok(())
        })
    }
}

/// Errors: kind `Reserved` for the default exchange, whose bindings are the queues themselves.
pub(crate) fn check_source(source: &str) -> Result<ExchangeName, Refusal> {
    if source.is_empty() {
        let text = "operation not permitted on the default exchange";
        return Err(Refusal::new(RefusalKind::Reserved, text));
    }
    ExchangeName::new(source).map_err(bad_name)
}

fn check_control(source: &ExchangeName, destination: &Destination) -> Result<(), Refusal> {
    let leads_there =
        matches!(destination, Destination::Exchange(name) if name.as_str() == CONTROL_EXCHANGE);
    if !leads_there && source.as_str() != CONTROL_EXCHANGE {
        return Ok(());
    }
    let text = format!("binding exchange '{CONTROL_EXCHANGE}' is not available yet");
    Err(Refusal::new(RefusalKind::NotAvailable, text))
}

fn stored_destination(
    topology: &Topology,
    source: &Exchange,
    binding: &Binding,
) -> Option<(bool, String)> {
    if !source.spec.durable {
        return None;
    }
    match &binding.destination {
        Destination::Queue(queue) => {
            queue.is_stored().then(|| (true, queue.name.as_str().to_owned()))
        }
        Destination::Exchange(name) => topology
            .exchange(name.as_str())
            .is_none_or(|exchange| exchange.spec.durable)
            .then(|| (false, name.as_str().to_owned())),
        Destination::Client(..) => None,
    }
}

fn binding_key(vhost: &Vhost, source: &Exchange, binding: &Binding) -> String {
    let identity = binding.identity();
    definitions::key(&[kind::BINDING, vhost.name.as_str(), source.name.as_str(), &identity])
}
