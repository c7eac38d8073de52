//! Rights of a connection, and asking for them again while it lives by them.

use std::sync::Arc;

use polymq_contract::{Event, Refusal};
use polymq_model::{ConsumerId, Message, Now};

use super::{BrokerConnection, consume::Held, not_open};
use crate::{
    access::{Action, Permit, Read, TopicAction, Topics, Write},
    client_session::SESSION_QUEUE,
    topology::{Binding, Topology},
    vhost::Vhost,
};

impl BrokerConnection {
    /// Asks for a permit, once somebody has logged in.
    pub(super) fn permit<A: Action>(
        &self,
        vhost: &Vhost,
        kind: &str,
        name: &str,
    ) -> Result<Permit<A>, Refusal> {
        let who = self.identity.principal().ok_or_else(not_open)?;
        self.core.permit(&who, vhost, kind, name)
    }

    /// Asks whether the user may see that an object exists.
    ///
    /// Errors: kind `Denied`, whether it exists or not.
    pub(super) fn permit_any(&self, vhost: &Vhost, kind: &str, name: &str) -> Result<(), Refusal> {
        let who = self.identity.principal().ok_or_else(not_open)?;
        self.core.permit_any(&who, vhost, kind, name)
    }

    /// Asks whether the client may publish to an exchange with this key.
    ///
    /// Errors: kind `Denied`.
    pub(super) fn check_may_publish(
        &self,
        vhost: &Vhost,
        exchange: &str,
        key: &str,
    ) -> Result<(), Refusal> {
        let who = self.identity.principal().ok_or_else(not_open)?;
        self.core.check_may_publish(&who, vhost, exchange, std::iter::once(key))
    }

    fn client_id(&self) -> Option<&str> {
        self.client.as_ref().map(|client| client.client_id.as_str())
    }

    /// Errors: kind `Denied` when some topic is out of bounds.
    pub(super) fn check_topics<A: TopicAction>(
        &self,
        vhost: &Vhost,
        exchange: &str,
        topics: Topics<'_>,
    ) -> Result<(), Refusal> {
        let who = self.identity.principal().ok_or_else(not_open)?;
        let asked = (exchange, topics);
        self.core.access.check_topics::<A>(&who, &vhost.name, asked, self.client_id())
    }

    /// Which topics of an exchange the user may read, asked once for many.
    pub(super) fn readable(
        &self,
        vhost: &Vhost,
        exchange: &str,
    ) -> Result<impl Fn(&str) -> bool, Refusal> {
        let who = self.identity.principal().ok_or_else(not_open)?;
        let client_id = self.client_id();
        let bounds = self.core.access.topic_bounds(&who, &vhost.name, exchange, client_id);
        Ok(move |topic: &str| {
            bounds.as_ref().is_none_or(|bounds| bounds.allow::<Read>(Topics::Key(topic)))
        })
    }

    /// Errors: kind `Denied` when the user may not write to a key of the message.
    pub(super) fn check_keys(&self, vhost: &Vhost, message: &Message) -> Result<(), Refusal> {
        let exchange = message.exchange();
        let extra = message.extra_keys().iter().map(|key| &**key);
        std::iter::once(message.key())
            .chain(extra)
            .try_for_each(|key| self.check_topics::<Write>(vhost, exchange, Topics::Key(key)))
    }

    /// Asks whether the user may have every topic that a binding takes, and send it on to the
    /// exchange that it leads to.
    ///
    /// Errors: kind `Denied`.
    pub(super) fn check_binding(
        &self,
        vhost: &Vhost,
        topology: &Topology,
        source: &str,
        binding: &Binding,
    ) -> Result<(), Refusal> {
        let who = self.identity.principal().ok_or_else(not_open)?;
        let (place, client_id) = ((vhost, topology), self.client_id());
        self.core.check_new_binding(&who, place, source, binding, client_id)
    }

    /// Asks for every right again by which something here lives, when rights have changed.
    pub(super) fn recheck(&mut self, now: Now) {
        let version = self.core.access.version();
        let is_renewed = self.identity.take_renewed();
        if std::mem::replace(&mut self.rights, version) == version && !is_renewed {
            return;
        }
        let (Some(vhost), Some(who)) = (self.vhost.clone(), self.identity.principal()) else {
            return;
        };
        let over = self.core.why_over(&who);
        if over.is_some() || !self.core.access.may_open(&vhost.name, &who) {
            let reason: Box<str> = match over {
                Some(reason) => reason.into(),
                None => format!("access to vhost '{}' refused for user '{}'", vhost.name, who.user)
                    .into(),
            };
            return self.outbox.push(Event::Closing { reason, shutdown: false });
        }
        let denied = |(consumer, held): (&ConsumerId, &Held)| {
            let lives = held.active && *consumer != SESSION_QUEUE;
            (lives && !self.may_go_on(&vhost, *consumer, held)).then_some(*consumer)
        };
        let denied: Vec<ConsumerId> = self.consumers.iter().filter_map(denied).collect();
        for consumer in denied {
            self.end_denied(&vhost, consumer, now);
        }
        self.recheck_own_queues(&vhost, now);
    }

    /// What this connection has bound to its exclusive queues is nobody else's. A consumer of a
    /// queue that has lost all its bindings has ended.
    fn recheck_own_queues(&mut self, vhost: &Arc<Vhost>, now: Now) {
        let Some(who) = self.identity.principal() else { return };
        for queue in self.exclusive.clone() {
            let (gone, left) = self.core.recheck_bindings(&who, vhost, &queue);
            if gone == 0 || left > 0 {
                continue;
            }
            let consumes =
                |(_, held): &(&ConsumerId, &Held)| held.active && Arc::ptr_eq(&held.queue, &queue);
            let consumers = self.consumers.iter().filter(consumes).map(|(consumer, _)| *consumer);
            for consumer in consumers.collect::<Vec<_>>() {
                self.end_denied(vhost, consumer, now);
            }
        }
    }

    /// Whether a consumer may have what its queue holds.
    fn may_go_on(&self, vhost: &Vhost, consumer: ConsumerId, held: &Held) -> bool {
        let Some(client) = &self.client else {
            return self.permit::<Read>(vhost, "queue", held.queue.name.as_str()).is_ok();
        };
        // Subscriptions live by the right that they were made with.
        let state = client.state.lock();
        let found = state.subscriptions.values().find(|known| known.consumer == consumer);
        let target = found.map(|subscription| subscription.target.clone());
        drop(state);
        let (Some(target), Some(who)) = (target, self.identity.principal()) else { return true };
        self.core.check_subscription(&who, vhost, &client.client_id, &target).is_ok()
    }

    /// Takes a consumer's deliveries back and tells it that it has ended.
    fn end_denied(&mut self, vhost: &Arc<Vhost>, consumer: ConsumerId, now: Now) {
        let Some(held) = self.consumers.get_mut(&consumer) else { return };
        held.active = false;
        let (queue, slot) = (held.queue.clone(), held.slot);
        let left = queue.deny(slot, now.unix_ms);
        if let Some(client) = self.client.clone() {
            let state = client.state.lock();
            let found = state.subscriptions.values().find(|known| known.consumer == consumer);
            let filter = found.map(|subscription| subscription.filter.clone());
            drop(state);
            if let Some(filter) = filter {
                self.core.forget_subscription(vhost, &client, &filter);
            }
        }
        self.delete_if_auto(&queue, left);
    }
}
