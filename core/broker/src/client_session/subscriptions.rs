//! Subscriptions of client sessions.

use std::sync::Arc;

use polymq_contract::{
    Broadcast, Matched, Refusal, RefusalKind, Subscription, SubscriptionIds, SubscriptionTarget,
};
use polymq_model::{
    Durability, ExchangeName, Message, Now, QueueName,
    topic::{Pattern, Syntax},
};
use polymq_store::ShardBatch;

use super::{ClientSession, SessionState, lifecycle::client_binding};
use crate::{
    access::{Permit, Read},
    core::Core,
    definitions::{self, kind},
    hash::fnv,
    queue::{Queue, QueueSettings, Room},
    topology::Exchange,
    vhost::Vhost,
};

/// What subscribing to a topic came to.
pub(crate) struct TopicSubscribed {
    pub(crate) existed: bool,
    /// Wait for this before answering.
    pub(crate) batch: Option<ShardBatch>,
    /// The session's queue was made just now and needs its consumer.
    pub(crate) new_queue: Option<Arc<Queue>>,
}

impl Core {
    /// Adds or replaces the subscription to a topic filter.
    ///
    /// Errors: kind `NotFound` for a missing exchange, `Invalid` for a filter that does not suit
    /// it, `Limit`.
    pub(crate) fn subscribe_topic(
        &self,
        _permit: &Permit<Read>,
        vhost: &Arc<Vhost>,
        session: &Arc<ClientSession>,
        subscription: &Subscription,
        (exchange, pattern): (&str, &str),
    ) -> Result<TopicSubscribed, Refusal> {
        let mut state = session.state.lock();
        let existed = state.subscriptions.contains_key(&subscription.filter);
        self.check_subscription_count(state.subscriptions.len(), existed)?;
        let mut new_queue = None;
        if subscription.qos > 0 && session.endpoint.queue().is_none() {
            let queue = self.new_session_queue(vhost, session, state.is_durable())?;
            session.endpoint.queue.store(Some(queue.clone()));
            new_queue = Some(queue);
        }
        let binding = client_binding(session, subscription, pattern);
        let before = state.subscriptions.insert(subscription.filter.clone(), subscription.clone());
        // Before routing finds the subscription.
        self.bound_session(vhost, session, &state);
        let bound = vhost.edit(|topology, destinations| {
            let source = ExchangeName::new(exchange)
                .map_err(|bad| Refusal::new(RefusalKind::Invalid, bad.to_string()))?;
            let Some(found) = topology.exchange(exchange) else {
                return Err(Refusal::new(
                    RefusalKind::NotFound,
                    format!("no exchange '{exchange}' in vhost '{}'", vhost.name),
                ));
            };
            let mut changed = Exchange::clone(found);
            changed.bindings.insert(changed.spec.kind, binding.clone())?;
            changed.was_bound = true;
            destinations.add(&source, &binding);
            topology.exchanges.insert(source, Arc::new(changed));
            Ok(())
        });
        if let Err(refusal) = bound {
            match before {
                Some(before) => state.subscriptions.insert(subscription.filter.clone(), before),
                None => state.subscriptions.remove(&subscription.filter),
            };
            return Err(refusal);
        }
        let batch = self.store_subscription(vhost, session, &state, subscription);
        Ok(TopicSubscribed { existed, batch, new_queue })
    }

    /// Adds a subscription whose messages come from a real queue.
    ///
    /// Errors: kind `Limit`.
    pub(crate) fn remember_subscription(
        &self,
        vhost: &Vhost,
        session: &ClientSession,
        subscription: &Subscription,
    ) -> Result<(bool, Option<ShardBatch>), Refusal> {
        let mut state = session.state.lock();
        let existed = state.subscriptions.contains_key(&subscription.filter);
        self.check_subscription_count(state.subscriptions.len(), existed)?;
        state.subscriptions.insert(subscription.filter.clone(), subscription.clone());
        Ok((existed, self.store_subscription(vhost, session, &state, subscription)))
    }

    /// Removes a subscription and its binding.
    pub(crate) fn forget_subscription(
        &self,
        vhost: &Arc<Vhost>,
        session: &Arc<ClientSession>,
        filter: &str,
    ) -> Option<(Subscription, Option<ShardBatch>)> {
        self.forget_subscription_of(vhost, session, &mut session.state.lock(), filter)
    }

    /// The same for a session that is locked.
    pub(crate) fn forget_subscription_of(
        &self,
        vhost: &Arc<Vhost>,
        session: &Arc<ClientSession>,
        state: &mut SessionState,
        filter: &str,
    ) -> Option<(Subscription, Option<ShardBatch>)> {
        let subscription = state.subscriptions.remove(filter)?;
        if let SubscriptionTarget::Topic { exchange, pattern } = &subscription.target {
            self.unbind_topic(vhost, session, &subscription, (exchange, pattern));
        }
        let batch = self.delete_stored_subscription(vhost, session, state, filter);
        Some((subscription, batch))
    }

    /// Errors: kind `Limit` when one more subscription would be too many.
    pub(crate) fn check_subscription_count(
        &self,
        count: usize,
        existed: bool,
    ) -> Result<(), Refusal> {
        let max = self.limits_now.load().subscriptions_max;
        if !existed && count >= max {
            let text = format!("a client has at most {max} subscriptions");
            return Err(Refusal::new(RefusalKind::Limit, text));
        }
        Ok(())
    }

    /// Removes the binding of a topic subscription.
    pub(crate) fn unbind_topic(
        &self,
        vhost: &Arc<Vhost>,
        session: &Arc<ClientSession>,
        subscription: &Subscription,
        (exchange, pattern): (&str, &str),
    ) {
        let binding = client_binding(session, subscription, pattern);
        let removed: Result<(), Refusal> = vhost.edit(|topology, destinations| {
            let Some(found) = topology.exchange(exchange) else { return Ok(()) };
            let mut changed = Exchange::clone(found);
            changed.bindings.remove(&binding.identity());
            let source = changed.name.clone();
            destinations.remove(&source, &binding);
            topology.exchanges.insert(source, Arc::new(changed));
            Ok(())
        });
        debug_assert!(removed.is_ok(), "removing a binding cannot be refused");
    }

    fn new_session_queue(
        &self,
        vhost: &Arc<Vhost>,
        session: &Arc<ClientSession>,
        durable: bool,
    ) -> Result<Arc<Queue>, Refusal> {
        let name = session_queue_name(&session.client_id)
            .map_err(|bad| Refusal::new(RefusalKind::Invalid, bad.to_string()))?;
        let mut settings =
            QueueSettings::of_client(durable, &self.limits_now.load(), self.durability);
        settings.declared_by = Some(session.owner.as_str().into());
        let (queue, _) = self.create_queue(vhost, name, settings)?;
        Ok(queue)
    }

    /// The retained messages a new subscription gets, split into those for the queue and those sent
    /// at most once.
    pub(crate) fn send_retained(
        &self,
        vhost: &Arc<Vhost>,
        session: &Arc<ClientSession>,
        subscription: &Subscription,
        pattern: &str,
        now: Now,
    ) {
        let Ok(pattern) = Pattern::stored(pattern, Syntax::Slash) else { return };
        let own = subscription.no_local.then_some(session.client_id.as_str());
        let mut messages = vhost.retained.lock().matching(&pattern, own, now.unix_ms);
        let found = messages.len();
        messages.retain(|message| session.endpoint.may_have(message.exchange(), message.key()));
        self.note_denied((found - messages.len()) as u64);
        let matched = Matched {
            qos: subscription.qos,
            retain_as_published: subscription.retain_as_published,
            retained: true,
            ids: subscription.id.map_or(SubscriptionIds::None, SubscriptionIds::One),
        };
        let queue = session.endpoint.queue().filter(|_| subscription.qos > 0);
        let (kept, direct): (Vec<Message>, Vec<Message>) = messages
            .into_iter()
            .partition(|message| queue.is_some() && (message.qos() > 0 || message.is_durable()));
        if let Some(queue) = queue
            && !kept.is_empty()
        {
            let mut refs = vec![None; kept.len()];
            queue.push(&kept, &matched, &mut refs, Room::Free, now.unix_ms);
        }
        if !direct.is_empty() {
            let bytes_max = self.limits.direct_bytes_max;
            session.endpoint.send(&matched, &Arc::new(Broadcast::new(direct)), bytes_max);
        }
    }

    /// Remembers the packet ids of received messages of quality of service 2, so well.
    pub(crate) fn remember_received(
        &self,
        vhost: &Vhost,
        session: &ClientSession,
        packet_ids: &[u16],
        durability: Durability,
    ) -> Option<ShardBatch> {
        let mut state = session.state.lock();
        state.received.extend(packet_ids);
        state.stored.then(|| {
            let write = |writer: &mut polymq_store::BatchWriter<'_>| {
                for packet_id in packet_ids {
                    writer.meta_put(&received_key(vhost, session, *packet_id), &[]);
                }
            };
            self.committer.append_as(durability, write).0
        })
    }

    /// The client has released a packet id.
    pub(crate) fn release_received(
        &self,
        vhost: &Vhost,
        session: &ClientSession,
        packet_id: u16,
    ) -> Option<ShardBatch> {
        let mut state = session.state.lock();
        let is_stored = state.received.remove(&packet_id) && state.stored;
        is_stored.then(|| {
            let key = received_key(vhost, session, packet_id);
            self.committer.append(|writer| writer.meta_delete(&key)).0
        })
    }

    pub(super) fn forget_received(
        &self,
        vhost: &Vhost,
        session: &ClientSession,
        state: &mut SessionState,
    ) {
        let received = std::mem::take(&mut state.received);
        if received.is_empty() || !state.stored {
            return;
        }
        self.committer.append(|writer| {
            for packet_id in received {
                writer.meta_delete(&received_key(vhost, session, packet_id));
            }
        });
    }
}

fn received_key(vhost: &Vhost, session: &ClientSession, packet_id: u16) -> String {
    let number = packet_id.to_string();
    definitions::key(&[kind::RECEIVED, vhost.name.as_str(), &session.client_id, &number])
}

/// The queue of a client session, named as RabbitMQ names it, so that its policies still match.
pub(crate) fn session_queue_name(client_id: &str) -> Result<QueueName, polymq_model::BadName> {
    let plain = format!("mqtt-subscription-{client_id}qos1");
    if plain.len() <= polymq_model::names::NAME_BYTES_MAX {
        return QueueName::new(plain);
    }
    // A long id is told from others by two independent hashes of all its bytes.
    let seeds = [0_u8, 1].map(|seed| {
        let mut bytes = vec![seed];
        bytes.extend_from_slice(client_id.as_bytes());
        fnv(&bytes)
    });
    QueueName::new(format!("mqtt-subscription-hash-{:016x}{:016x}qos1", seeds[0], seeds[1]))
}
