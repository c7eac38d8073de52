//! Exchanges.

use std::sync::Arc;

use polymq_contract::{DeclareExchange, Refusal, RefusalKind};
use polymq_model::{ExchangeName, VhostName};
use polymq_store::ShardBatch;

use super::{bad_name, check_not_reserved};
use crate::{
    access::{Configure, Permit},
    core::Core,
    definitions::{self, StoredExchange, kind},
    topology::{DELAYED_TYPE, Destination, Exchange, ExchangeSpec, Topology},
    vhost::{Destinations, Vhost},
};

impl Core {
    /// Declares an exchange. Returns the batch to wait for, if something durable was made.
    ///
    /// Errors: `Conflict` when it exists and differs, `Reserved`, `Invalid`, `NotAvailable`.
    pub(crate) fn declare_exchange(
        &self,
        _permit: &Permit<Configure>,
        vhost: &Arc<Vhost>,
        declare: &DeclareExchange,
    ) -> Result<Option<ShardBatch>, Refusal> {
        let name = ExchangeName::new(&declare.exchange).map_err(bad_name)?;
        let spec = ExchangeSpec {
            durable: declare.durable,
            auto_delete: declare.auto_delete,
            internal: declare.internal,
            ..ExchangeSpec::parse(&declare.kind, declare.arguments.clone())?
        };
        if name.as_str().is_empty() {
            return Err(default_exchange());
        }
        vhost.edit(|topology, _| {
            if let Some(existing) = topology.exchange(name.as_str()) {
                return match existing.spec.difference(&spec) {
                    None => Ok(None),
                    Some(difference) => Err(difference.refuse("exchange", name.as_str(), vhost)),
                };
            }
            check_not_reserved("exchange", name.as_str())?;
            let stored = declare.durable.then(|| self.store_exchange(vhost, declare, &spec));
            let mut exchange = Exchange::new(name.clone(), spec);
            exchange.policy_alternate = vhost.policies.lock().alternate_of(name.as_str());
            topology.exchanges.insert(name.clone(), Arc::new(exchange));
            Ok(stored)
        })
    }

    /// Errors: kind `NotFound`, kind `Reserved` for the default exchange, which nobody declares.
    pub(crate) fn find_exchange(&self, vhost: &Vhost, name: &str) -> Result<(), Refusal> {
        if name.is_empty() {
            return Err(default_exchange());
        }
        if vhost.topology.load().exchange(name).is_some() {
            return Ok(());
        }
        Err(no_exchange(vhost, name))
    }

    /// Deletes an exchange; one that is missing counts as deleted.
    ///
    /// Errors: `Conflict` when it is in use and must not be, `Reserved` for built-in ones.
    pub(crate) fn delete_exchange(
        &self,
        _permit: &Permit<Configure>,
        vhost: &Arc<Vhost>,
        name: &str,
        if_unused: bool,
    ) -> Result<Option<ShardBatch>, Refusal> {
        check_deletable(&vhost.name, name)?;
        vhost.edit(|topology, destinations| {
            let Some(exchange) = topology.exchange(name).cloned() else { return Ok(None) };
            if if_unused && !exchange.bindings.is_empty() {
                let text = format!("exchange '{name}' in vhost '{}' in use", vhost.name);
                return Err(Refusal::new(RefusalKind::Conflict, text));
            }
            Ok(self.drop_exchange(vhost, topology, destinations, &exchange))
        })
    }

    /// Takes an exchange out of the topology, with all bindings from it and to it.
    pub(crate) fn drop_exchange(
        &self,
        vhost: &Vhost,
        topology: &mut Topology,
        destinations: &mut Destinations,
        exchange: &Exchange,
    ) -> Option<ShardBatch> {
        let mut batch = None;
        for binding in exchange.bindings.iter() {
            destinations.remove(&exchange.name, binding);
            batch = self.unstore_binding(vhost, topology, exchange, binding).or(batch);
        }
        topology.exchanges.remove(exchange.name.as_str());
        vhost.activity.add(&exchange.statistics.counters.read());
        if exchange.spec.durable {
            let key =
                definitions::key(&[kind::EXCHANGE, vhost.name.as_str(), exchange.name.as_str()]);
            batch = Some(self.committer.append(|writer| writer.meta_delete(&key)).0);
        }
        let own = Destination::Exchange(exchange.name.clone());
        self.drop_bindings_to(vhost, topology, destinations, &own).or(batch)
    }

    fn store_exchange(
        &self,
        vhost: &Vhost,
        declare: &DeclareExchange,
        spec: &ExchangeSpec,
    ) -> ShardBatch {
        let key = definitions::key(&[kind::EXCHANGE, vhost.name.as_str(), &declare.exchange]);
        let value = definitions::encode(&StoredExchange {
            kind: spec.kind,
            auto_delete: declare.auto_delete,
            internal: declare.internal,
            is_delayed: spec.is_delayed,
            arguments: declare.arguments.clone(),
        });
        self.committer.append(|writer| writer.meta_put(&key, &value)).0
    }

    /// Puts an exchange read from the store into the topology.
    ///
    /// Errors: kind `Invalid` when its arguments are none that could have been declared.
    pub(crate) fn restore_exchange(
        &self,
        vhost: &Vhost,
        name: ExchangeName,
        stored: StoredExchange,
    ) -> Result<(), Refusal> {
        let kind = if stored.is_delayed { DELAYED_TYPE } else { stored.kind.as_str() };
        let spec = ExchangeSpec {
            durable: true,
            auto_delete: stored.auto_delete,
            internal: stored.internal,
            ..ExchangeSpec::parse(kind, stored.arguments)?
        };
        vhost.edit(|topology, _| {
            let mut exchange = Exchange::new(name.clone(), spec);
            exchange.policy_alternate = vhost.policies.lock().alternate_of(name.as_str());
            topology.exchanges.insert(name, Arc::new(exchange));
            Ok(())
        })
    }
}

/// Errors: `Reserved` for built-in exchanges.
pub(crate) fn check_deletable(vhost: &VhostName, name: &str) -> Result<(), Refusal> {
    if name.is_empty() {
        return Err(default_exchange());
    }
    if name.starts_with("amq.") {
        let text = format!("deletion of system exchange '{name}' in vhost '{vhost}' not allowed");
        return Err(Refusal::new(RefusalKind::Reserved, text).about("exchange", name, None));
    }
    Ok(())
}

fn default_exchange() -> Refusal {
    Refusal::new(RefusalKind::Reserved, "operation not permitted on the default exchange")
}

pub(super) fn no_exchange(vhost: &Vhost, name: &str) -> Refusal {
    let text = format!("no exchange '{name}' in vhost '{}'", vhost.name);
    Refusal::missing("exchange", name, text)
}
