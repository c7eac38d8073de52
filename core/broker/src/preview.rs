//! What somebody may see and do, and what a change would come to, for whoever asks before.

use std::sync::Arc;

use polymq_contract::{DeclareExchange, DeclareQueue, Refusal};
use polymq_model::{ExchangeName, Message, Now, VhostName};

use crate::{
    BindingView, BrokerHandle, PolicyRecord,
    access::{Principal, Read, Write},
    declare::{bad_name, check_deletable, check_not_reserved},
    definitions::{self, kind},
    policies::Matching,
    publishing::TOPIC_EXCHANGE,
    queue::{QueueSettings, check_available},
    topology::{Binding, Destination, ExchangeSpec},
};

/// The names of what a policy matches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyMatches {
    /// Queues.
    pub queues: Vec<String>,
    /// Exchanges.
    pub exchanges: Vec<String>,
}

impl BrokerHandle {
    /// Whether somebody has any right to an object, which `kind` says what it is: a `queue` or an
    /// `exchange`.
    pub fn may_see(&self, who: &Principal, vhost: &VhostName, kind: &str, name: &str) -> bool {
        let vhost = self.0.vhost(vhost.as_str());
        vhost.is_ok_and(|vhost| self.0.permit_any(who, &vhost, kind, name).is_ok())
    }

    /// Whether a queue could be declared like this, if it were new.
    ///
    /// Errors: kind `Invalid`, kind `NotAvailable`.
    pub fn check_queue(&self, declare: &DeclareQueue) -> Result<(), Refusal> {
        polymq_model::QueueName::new(&declare.queue).map_err(bad_name)?;
        let arguments = declare.arguments.clone();
        let settings = QueueSettings {
            durable: declare.durable,
            ..QueueSettings::parse(arguments, self.0.durability)?
        };
        settings.check_type()
    }

    /// Whether an exchange could be declared like this, next to what is there.
    ///
    /// Errors: kind `Invalid`, kind `NotAvailable`; kind `Conflict` when it is there and differs.
    pub fn check_exchange(
        &self,
        vhost: &VhostName,
        declare: &DeclareExchange,
    ) -> Result<(), Refusal> {
        let vhost = self.0.vhost(vhost.as_str())?;
        let name = ExchangeName::new(&declare.exchange).map_err(bad_name)?;
        let spec = ExchangeSpec {
            durable: declare.durable,
            auto_delete: declare.auto_delete,
            internal: declare.internal,
            ..ExchangeSpec::parse(&declare.kind, declare.arguments.clone())?
        };
        let topology = vhost.topology.load();
        let existing = topology.exchange(name.as_str());
        match existing.map(|existing| existing.spec.difference(&spec)) {
            None => check_not_reserved("exchange", name.as_str()),
            Some(None) => Ok(()),
            Some(Some(difference)) => Err(difference.refuse("exchange", name.as_str(), &vhost)),
        }
    }

    /// Whether an exchange is one that can be deleted.
    ///
    /// Errors: kind `Reserved` for built-in ones.
    pub fn check_exchange_deletion(&self, vhost: &VhostName, name: &str) -> Result<(), Refusal> {
        check_deletable(vhost, name)
    }

    /// Whether somebody may make (`add`) or remove a binding, between objects that are there.
    /// Making one needs the topics that may come by it, as far as topic permissions bound them.
    ///
    /// Errors: kind `Denied`, kind `NotFound`; kind `Invalid` for a pattern that is none; kind
    /// `NotAvailable` for an argument that must not be ignored.
    pub fn check_binding_rights(
        &self,
        who: &Principal,
        binding: &BindingView,
        add: bool,
    ) -> Result<(), Refusal> {
        let vhost = self.0.vhost(binding.vhost.as_str())?;
        let (to, source) = (binding.destination.as_str(), binding.source.as_str());
        let kind = if binding.to_queue { "queue" } else { "exchange" };
        self.0.permit::<Write>(who, &vhost, kind, to)?;
        self.0.permit::<Read>(who, &vhost, "exchange", source)?;
        self.0.find_exchange(&vhost, source)?;
        let topology = vhost.topology.load();
        let destination = match binding.to_queue {
            true => {
                let queue = topology.queue(to).cloned();
                Destination::Queue(queue.ok_or_else(|| crate::declare::no_queue(&vhost, to))?)
            }
            false => {
                self.0.find_exchange(&vhost, to)?;
                Destination::Exchange(ExchangeName::new(to).map_err(bad_name)?)
            }
        };
        if !add {
            return Ok(());
        }
        check_available(&binding.arguments)?;
        let (key, arguments) = (binding.key.as_str().into(), Arc::clone(&binding.arguments));
        let wanted = Binding { destination, key, arguments };
        self.0.check_new_binding(who, (&vhost, &topology), source, &wanted, None)
    }

    /// The objects that a policy matches, whether or not another has a higher priority.
    ///
    /// Errors: kind `NotFound` for the virtual host; kind `Invalid` for a policy that is none.
    pub fn policy_matches(
        &self,
        vhost: &VhostName,
        (name, record): (&str, &PolicyRecord),
    ) -> Result<PolicyMatches, Refusal> {
        let vhost = self.0.vhost(vhost.as_str())?;
        let matching = Matching::of(name, record)?;
        let topology = vhost.topology.load_full();
        let queues = topology.queues.values();
        let queues = queues.filter(|q| matching.queue(q.name.as_str(), q.settings.is_quorum));
        let exchanges = topology.exchanges.values();
        let exchanges = exchanges.filter(|exchange| matching.exchange(exchange.name.as_str()));
        let mut found = PolicyMatches {
            queues: queues.map(|queue| queue.name.as_str().to_owned()).collect(),
            exchanges: exchanges.map(|exchange| exchange.name.as_str().to_owned()).collect(),
        };
        found.queues.sort();
        found.exchanges.sort();
        Ok(found)
    }

    /// Whether somebody may make a topic, in dot form, forget its last value.
    ///
    /// Errors: kind `Denied` without the right to write the topic.
    pub fn check_forget_retained(
        &self,
        who: &Principal,
        vhost: &VhostName,
        key: &str,
    ) -> Result<(), Refusal> {
        let vhost = self.0.vhost(vhost.as_str())?;
        self.0.check_may_publish(who, &vhost, TOPIC_EXCHANGE, std::iter::once(key))
    }

    /// Forgets the last value of a topic, in dot form.
    ///
    /// Errors: kind `NotFound`; kind `Denied` without the right to write the topics.
    pub fn forget_retained(
        &self,
        who: &Principal,
        vhost: &VhostName,
        key: &str,
        now: Now,
    ) -> Result<(), Refusal> {
        let vhost = self.0.vhost(vhost.as_str())?;
        self.0.check_may_publish(who, &vhost, TOPIC_EXCHANGE, std::iter::once(key))?;
        let mut retained = vhost.retained.lock();
        if !retained.forget(key, now.unix_ms) {
            let text = format!("no retained message '{key}' in vhost '{}'", vhost.name);
            return Err(Refusal::missing("message", key, text));
        }
        let key = definitions::key(&[kind::RETAINED, vhost.name.as_str(), key]);
        self.0.committer.append(|writer| writer.meta_delete(&key));
        Ok(())
    }

    /// A delayed message by its schedule id. Blocks while the store is read.
    ///
    /// Errors: kind `NotFound`; kind `StoreFailed`.
    pub fn scheduled_message(&self, vhost: &VhostName, id: u64) -> Result<Message, Refusal> {
        let vhost = self.0.vhost(vhost.as_str())?;
        self.0.find_scheduled(&vhost, id)
    }
}
