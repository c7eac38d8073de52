//! Exchanges and bindings.

use std::sync::Arc;

use polymq_contract::Refusal;
use polymq_model::{Table, VhostName};

use crate::{
    BrokerHandle,
    core::Core,
    statistics::{Activity, ExchangeStatistics, Sample, Span},
    topology::{Binding, Destination, Exchange},
    vhost::Vhost,
};

/// An exchange.
#[derive(Debug, Clone)]
pub struct ExchangeView {
    /// Its virtual host.
    pub vhost: VhostName,
    /// Its name; empty for the default exchange.
    pub name: String,
    /// Its type.
    pub kind: &'static str,
    /// It survives a restart.
    pub durable: bool,
    /// It goes with its last binding.
    pub auto_delete: bool,
    /// Clients may not publish to it.
    pub internal: bool,
    /// What it was declared with.
    pub arguments: Table,
    /// The policy that applies.
    pub policy: Option<String>,
    /// What has happened here.
    pub activity: Activity,
    /// Samples of that, oldest first.
    pub recent: Vec<Sample>,
}

/// A binding.
#[derive(Debug, Clone, PartialEq)]
pub struct BindingView {
    /// Its virtual host.
    pub vhost: VhostName,
    /// The exchange that messages come from; empty for the default exchange.
    pub source: String,
    /// The name of what they go to.
    pub destination: String,
    /// They go to a queue, or else to an exchange.
    pub to_queue: bool,
    /// The binding key.
    pub key: String,
    /// Arguments.
    pub arguments: Arc<Table>,
}

impl BrokerHandle {
    /// The exchanges of a virtual host, or of all, the default exchanges among them, by virtual
    /// host and name, with samples of a span.
    ///
    /// Errors: kind `NotFound` when the virtual host is missing.
    pub fn exchanges(
        &self,
        vhost: Option<&str>,
        span: Option<Span>,
    ) -> Result<Vec<ExchangeView>, Refusal> {
        let mut views = Vec::new();
        for vhost in self.0.vhosts_named(vhost)? {
            let topology = vhost.topology.load_full();
            views.push(default_view(&vhost, &topology.default_exchange, span));
            let exchanges = topology.exchanges.values();
            views.extend(exchanges.map(|exchange| view_of(&vhost, exchange, span)));
        }
        views.sort_by(|a, b| (&a.vhost, &a.name).cmp(&(&b.vhost, &b.name)));
        Ok(views)
    }

    /// One exchange, with samples of a span.
    ///
    /// Errors: kind `NotFound`.
    pub fn exchange(
        &self,
        vhost: &str,
        name: &str,
        span: Option<Span>,
    ) -> Result<ExchangeView, Refusal> {
        let vhost = self.0.vhost(vhost)?;
        let topology = vhost.topology.load();
        if name.is_empty() {
            return Ok(default_view(&vhost, &topology.default_exchange, span));
        }
        let exchange = topology.exchange(name).ok_or_else(|| {
            let text = format!("no exchange '{name}' in vhost '{}'", vhost.name);
            Refusal::missing("exchange", name, text)
        })?;
        Ok(view_of(&vhost, exchange, span))
    }

    /// The bindings of a virtual host, or of all, those of the default exchanges and of clients'
    /// subscriptions with a queue among them, in no order.
    ///
    /// Errors: kind `NotFound` when the virtual host is missing.
    pub fn bindings(&self, vhost: Option<&str>) -> Result<Vec<BindingView>, Refusal> {
        let mut views = Vec::new();
        for vhost in self.0.vhosts_named(vhost)? {
            let topology = vhost.topology.load_full();
            for exchange in topology.exchanges.values() {
                let bindings = exchange.bindings.iter();
                let source = exchange.name.as_str();
                views.extend(bindings.filter_map(|binding| binding_view(&vhost, source, binding)));
            }
            views.extend(topology.queues.values().map(|queue| BindingView {
                vhost: vhost.name.clone(),
                source: String::new(),
                destination: queue.name.as_str().to_owned(),
                to_queue: true,
                key: queue.name.as_str().to_owned(),
                arguments: Arc::default(),
            }));
        }
        Ok(views)
    }

    /// The bindings that lead from an exchange; those of the default exchange are the queues.
    ///
    /// Errors: kind `NotFound`.
    pub fn bindings_from(&self, vhost: &str, source: &str) -> Result<Vec<BindingView>, Refusal> {
        if source.is_empty() {
            let all = self.bindings(Some(vhost))?;
            return Ok(all.into_iter().filter(|binding| binding.source.is_empty()).collect());
        }
        let vhost = self.0.vhost(vhost)?;
        let topology = vhost.topology.load();
        let exchange = topology.exchange(source).ok_or_else(|| {
            let text = format!("no exchange '{source}' in vhost '{}'", vhost.name);
            Refusal::missing("exchange", source, text)
        })?;
        let bindings = exchange.bindings.iter();
        Ok(bindings.filter_map(|binding| binding_view(&vhost, source, binding)).collect())
    }
}

impl Core {
    /// The virtual host of that name, or all, by name.
    ///
    /// Errors: kind `NotFound`.
    pub(crate) fn vhosts_named(&self, name: Option<&str>) -> Result<Vec<Arc<Vhost>>, Refusal> {
        match name {
            Some(name) => Ok(vec![self.vhost(name)?]),
            None => {
                let mut vhosts = self.all_vhosts();
                vhosts.retain(|vhost| !vhost.tenancy.is_leaving());
                vhosts.sort_by(|a, b| a.name.cmp(&b.name));
                Ok(vhosts)
            }
        }
    }
}

fn view_of(vhost: &Vhost, exchange: &Exchange, span: Option<Span>) -> ExchangeView {
    let spec = &exchange.spec;
    ExchangeView {
        vhost: vhost.name.clone(),
        name: exchange.name.as_str().to_owned(),
        kind: spec.type_name(),
        durable: spec.durable,
        auto_delete: spec.auto_delete,
        internal: spec.internal,
        arguments: spec.arguments.clone(),
        policy: vhost.policies.lock().policy_of_exchange(exchange.name.as_str()),
        activity: exchange.statistics.counters.read(),
        recent: exchange.statistics.history.lock().pick(span),
    }
}

fn default_view(
    vhost: &Vhost,
    statistics: &ExchangeStatistics,
    span: Option<Span>,
) -> ExchangeView {
    ExchangeView {
        vhost: vhost.name.clone(),
        name: String::new(),
        kind: "direct",
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: Table::new(),
        policy: None,
        activity: statistics.counters.read(),
        recent: statistics.history.lock().pick(span),
    }
}

/// `None` for a subscription that has no queue.
fn binding_view(vhost: &Vhost, source: &str, binding: &Binding) -> Option<BindingView> {
    let (to_queue, destination) = match &binding.destination {
        Destination::Queue(queue) => (true, queue.name.as_str().to_owned()),
        Destination::Exchange(name) => (false, name.as_str().to_owned()),
        Destination::Client(endpoint, _) => (true, endpoint.queue()?.name.as_str().to_owned()),
    };
    Some(BindingView {
        vhost: vhost.name.clone(),
        source: source.to_owned(),
        destination,
        to_queue,
        key: binding.key.as_ref().to_owned(),
        arguments: binding.arguments.clone(),
    })
}
