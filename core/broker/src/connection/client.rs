//! Client sessions and subscriptions, as MQTT asks for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use polymq_contract::{
    Answer, CancelReason, Event, InFlight, OpenClientSession, Outcome, Refusal, RefusalKind,
    Subscription, SubscriptionTarget,
};
use polymq_model::{ConsumerId, Message, Now, QueueName, RequestId, Table, Value};

use super::{
    BrokerConnection,
    consume::{Held, Manner},
    topology::add_default_type,
};
use crate::{
    access::{Configure, Read, Write},
    client_session::{ClientSession, Closing, Opened, Parked, SESSION_QUEUE},
    declare::{bad_name, check_not_reserved},
    queue::{ConsumerSpec, Queue, QueueSettings},
    routing::{Bounds, Route, Target, check_size},
    topology::{Binding, Destination},
    vhost::Vhost,
};

impl BrokerConnection {
    pub(super) fn open_client_session(&mut self, mut open: Box<OpenClientSession>, now: Now) {
        let request = open.request;
        let (vhost, who) = match (self.vhost.clone(), self.identity.principal()) {
            (Some(vhost), Some(who)) => (vhost, who),
            _ => {
                let refusal = Refusal::new(RefusalKind::Denied, "nobody has logged in");
                return self.answer(request, Err(refusal), None);
            }
        };
        if open.client_id.as_deref().unwrap_or_default().is_empty() {
            open.client_id = Some(self.core.random_name("auto-"));
        }
        self.group(0).set_limit(u32::from(open.receive_max));
        let me = (self.id, self.outbox.clone());
        let opened = check_will(&vhost, &open)
            .and_then(|()| self.core.open_client_session(&vhost, &who, me, &open, now));
        match opened {
            Ok(Opened::Later) => self.opening = Some(open),
            Ok(Opened::Now(session)) => {
                self.number = session.endpoint.number;
                let queue = session.endpoint.queue();
                self.client = Some(session);
                let parked =
                    self.client.as_ref().map(|c| std::mem::take(&mut c.state.lock().parked));
                self.unpark_consumers(parked.unwrap_or_default());
                if let Some(queue) = queue {
                    self.attach_session_queue(queue, now);
                }
            }
            Err(refusal) => self.answer(request, Err(refusal), None),
        }
    }

    fn attach_session_queue(&mut self, queue: Arc<Queue>, now: Now) {
        if self.consumers.contains_key(&SESSION_QUEUE) {
            return;
        }
        let spec = self.subscriber_spec(SESSION_QUEUE);
        self.attach(queue, spec, None, now);
    }

    fn subscriber_spec(&mut self, consumer: ConsumerId) -> ConsumerSpec {
        ConsumerSpec {
            consumer,
            outbox: self.outbox.clone(),
            no_ack: false,
            exclusive: false,
            prefetch: 0,
            group: self.group(0),
            priority: 0,
            timeout_ms: None,
            address: None,
            tag: self.client.as_ref().map_or("", |client| client.client_id.as_str()).into(),
            arguments: Arc::default(),
        }
    }

    /// Leaves the client session. Without `in_flight` it keeps what it knows of the client's
    /// deliveries.
    pub(super) fn close_client_session(
        &mut self,
        in_flight: Option<Vec<InFlight>>,
        will: bool,
        expiry_secs: Option<u32>,
        now: Now,
    ) {
        let (Some(client), Some(vhost)) = (self.client.take(), self.vhost.clone()) else { return };
        let parked = self.park_consumers(in_flight.as_deref().unwrap_or_default(), now);
        let consumers: Vec<_> = self.consumers.keys().copied().collect();
        self.release_as(&consumers, Outcome::Returned, now);
        let closing = Closing { in_flight, parked, will, expiry_secs };
        self.core.close_client_session(&vhost, &client, self.id, closing, now);
    }

    /// Has the queues of shares keep what the client has begun to receive at quality of service 2
    /// [MQTT-4.8.2-4].
    fn park_consumers(&mut self, in_flight: &[InFlight], now: Now) -> BTreeMap<ConsumerId, Parked> {
        let shares: Vec<_> = self.consumers.iter().filter(|(_, held)| held.parks).collect();
        let consumers: Vec<_> = shares.into_iter().map(|(consumer, _)| *consumer).collect();
        let mut all_parked = BTreeMap::new();
        for consumer in consumers {
            let is_begun = |f: &&InFlight| f.consumer == consumer && f.qos == 2 && !f.released;
            let begun: BTreeSet<_> = in_flight.iter().filter(is_begun).map(|f| f.seq).collect();
            if begun.is_empty() {
                continue;
            }
            let Some(held) = self.consumers.remove(&consumer) else { continue };
            let (stays, _) = held.queue.park(held.slot, &begun, now.unix_ms);
            if stays {
                all_parked.insert(consumer, Parked { queue: held.queue, slot: held.slot });
            }
        }
        all_parked
    }

    /// Sends the client what shares have kept for it.
    fn unpark_consumers(&mut self, parked: BTreeMap<ConsumerId, Parked>) {
        for (consumer, Parked { queue, slot }) in parked {
            let spec = self.subscriber_spec(consumer);
            let group = spec.group.clone();
            if queue.unpark(slot, spec) {
                let held = Held { queue, slot, group, active: false, parks: true };
                self.consumers.insert(consumer, held);
            }
        }
    }

    pub(super) fn keep_in_flight(&mut self, request: RequestId, in_flight: &[InFlight]) {
        let batch = match (&self.vhost, &self.client) {
            (Some(vhost), Some(client)) => self.core.keep_in_flight(vhost, client, in_flight),
            _ => return self.answer(request, Err(no_session()), None),
        };
        self.answer(request, Ok(Answer::Done), batch);
    }

    pub(super) fn forget_in_flight(&mut self, packet_id: u16) {
        if let (Some(vhost), Some(client)) = (&self.vhost, &self.client) {
            self.core.forget_in_flight(vhost, client, packet_id);
        }
    }

    pub(super) fn subscribe(
        &mut self,
        request: RequestId,
        subscription: &Subscription,
        resume: bool,
        now: Now,
    ) {
        let done = match &subscription.target {
            SubscriptionTarget::Topic { exchange, pattern } => {
                self.subscribe_topic(request, subscription, (exchange, pattern), resume, now)
            }
            SubscriptionTarget::Share { queue, exchange, pattern } => {
                self.subscribe_share(request, subscription, queue, (exchange, pattern), now)
            }
            SubscriptionTarget::Queue { queue } => {
                self.subscribe_queue(request, subscription, queue, now)
            }
        };
        if let Err(refusal) = done {
            self.answer(request, Err(refusal), None);
        }
    }

    fn subscribe_topic(
        &mut self,
        request: RequestId,
        subscription: &Subscription,
        (exchange, pattern): (&str, &str),
        resume: bool,
        now: Now,
    ) -> Result<(), Refusal> {
        let vhost = self.open_host()?;
        let client = self.client.clone().ok_or_else(no_session)?;
        let permit = self.permit::<Read>(&vhost, "exchange", exchange)?;
        self.check_filter(&vhost, &client, subscription)?;
        let done = self.core.subscribe_topic(
            &permit,
            &vhost,
            &client,
            subscription,
            (exchange, pattern),
        )?;
        let existed = done.existed;
        self.answer(request, Ok(Answer::Subscribed { existed }), done.batch);
        if let Some(queue) = done.new_queue {
            self.attach_session_queue(queue, now);
        }
        let wanted = match subscription.retain_handling {
            0 => true,
            1 => !existed,
            _ => false,
        };
        if wanted && !resume && exchange == crate::publishing::TOPIC_EXCHANGE {
            self.core.send_retained(&vhost, &client, subscription, pattern, now);
        }
        Ok(())
    }

    fn subscribe_share(
        &mut self,
        request: RequestId,
        subscription: &Subscription,
        queue: &str,
        (exchange, pattern): (&str, &str),
        now: Now,
    ) -> Result<(), Refusal> {
        let vhost = self.open_host()?;
        let client = self.client.clone().ok_or_else(no_session)?;
        let manner = Manner::parse(&subscription.arguments)?;
        let permits = (
            crate::access::Access::own::<Write>(),
            self.permit::<Read>(&vhost, "exchange", exchange)?,
        );
        self.check_filter(&vhost, &client, subscription)?;
        let name = QueueName::new(queue).map_err(bad_name)?;
        let existing = vhost.topology.load().queue(queue).cloned();
        let queue = match existing {
            Some(queue) => queue,
            None => {
                // What the client says stands behind and wins.
                let expiry_ms = i64::try_from(self.core.share_expiry_ms).unwrap_or(i64::MAX);
                let mut arguments = vec![("x-expires".to_owned(), Value::I64(expiry_ms))];
                arguments.extend_from_slice(&subscription.arguments);
                let settings = self.lasting_queue(&vhost, queue, arguments)?;
                self.core.create_queue(&vhost, name, settings)?.0
            }
        };
        let binding = Binding {
            destination: Destination::Queue(queue.clone()),
            key: pattern.into(),
            arguments: Arc::new(vec![(
                "x-topic-syntax".to_owned(),
                Value::String("mqtt".to_owned()),
            )]),
        };
        self.core.bind(&permits, &vhost, exchange, binding)?;
        self.subscribe_to(request, subscription, (&vhost, &client), (queue, manner), now)?;
        if let Some(held) = self.consumers.get_mut(&subscription.consumer) {
            held.parks = true;
        }
        Ok(())
    }

    /// Errors: kind `Denied` when the filter goes beyond what the user may read.
    fn check_filter(
        &self,
        vhost: &Vhost,
        client: &ClientSession,
        subscription: &Subscription,
    ) -> Result<(), Refusal> {
        let who = self.identity.principal().ok_or_else(no_session)?;
        self.core.check_subscription(&who, vhost, &client.client_id, &subscription.target)
    }

    fn subscribe_queue(
        &mut self,
        request: RequestId,
        subscription: &Subscription,
        name: &str,
        now: Now,
    ) -> Result<(), Refusal> {
        let vhost = self.open_host()?;
        let client = self.client.clone().ok_or_else(no_session)?;
        let manner = Manner::parse(&subscription.arguments)?;
        self.permit::<Read>(&vhost, "queue", name)?;
        let queue = match self.core.find_queue(&vhost, name, self.id) {
            Ok(queue) => queue,
            Err(missing) if missing.kind == RefusalKind::NotFound => {
                self.permit::<Configure>(&vhost, "queue", name)?;
                check_not_reserved("queue", name)?;
                let settings = self.lasting_queue(&vhost, name, subscription.arguments.clone())?;
                let name = QueueName::new(name).map_err(bad_name)?;
                self.core.create_queue(&vhost, name, settings)?.0
            }
            Err(refusal) => return Err(refusal),
        };
        self.subscribe_to(request, subscription, (&vhost, &client), (queue, manner), now)
    }

    /// What a queue begins with that is made for a subscription.
    ///
    /// Errors: those of its arguments, kind `Denied`.
    fn lasting_queue(
        &self,
        vhost: &Vhost,
        name: &str,
        mut arguments: Table,
    ) -> Result<QueueSettings, Refusal> {
        add_default_type(vhost, name, true, &mut arguments);
        let mut settings = QueueSettings::parse(arguments, self.core.durability)?;
        settings.durable = true;
        settings.declared_by = self.client.as_ref().map(|client| client.owner.as_str().into());
        self.check_dead_letters(vhost, name, &settings)?;
        Ok(settings)
    }

    /// Consumes from a real queue for a subscription, and remembers it in the client session.
    fn subscribe_to(
        &mut self,
        request: RequestId,
        subscription: &Subscription,
        (vhost, client): (&Arc<Vhost>, &Arc<ClientSession>),
        (queue, manner): (Arc<Queue>, Manner),
        now: Now,
    ) -> Result<(), Refusal> {
        queue.check_shareable()?;
        let (existed, batch) = self.core.remember_subscription(vhost, client, subscription)?;
        self.answer(request, Ok(Answer::Subscribed { existed }), batch);
        if let Some(held) = self.consumers.get_mut(&subscription.consumer)
            && Arc::ptr_eq(&held.queue, &queue)
        {
            if !std::mem::replace(&mut held.active, true) {
                queue.reactivate(held.slot, now.unix_ms);
            }
            return Ok(());
        }
        let consumer = subscription.consumer;
        let (priority, timeout_ms) = (manner.priority, manner.timeout_ms);
        let arguments = Arc::new(subscription.arguments.clone());
        let spec =
            ConsumerSpec { priority, timeout_ms, arguments, ..self.subscriber_spec(consumer) };
        self.attach(queue, spec, None, now);
        if !self.consumers.contains_key(&consumer) {
            // The queue has gone, or become somebody's alone, at this very moment.
            let reason = CancelReason::QueueDeleted;
            self.outbox.push(Event::ConsumerCancelled { consumer, reason });
        }
        Ok(())
    }

    pub(super) fn unsubscribe(&mut self, request: RequestId, filter: &str, now: Now) {
        let (Some(vhost), Some(client)) = (self.vhost.clone(), self.client.clone()) else {
            return self.answer(request, Err(no_session()), None);
        };
        let Some((subscription, batch)) = self.core.forget_subscription(&vhost, &client, filter)
        else {
            return self.answer(request, Ok(Answer::Unsubscribed { existed: false }), None);
        };
        if matches!(
            subscription.target,
            SubscriptionTarget::Share { .. } | SubscriptionTarget::Queue { .. }
        ) {
            self.end_consumer(subscription.consumer, now);
        }
        self.answer(request, Ok(Answer::Unsubscribed { existed: true }), batch);
    }

    /// Stops deliveries to a subscriber; those that have begun are its own until it settles them
    /// [MQTT-3.10.4-3].
    fn end_consumer(&mut self, consumer: ConsumerId, now: Now) {
        let Some(held) = self.consumers.get_mut(&consumer) else { return };
        held.active = false;
        let (queue, slot) = (held.queue.clone(), held.slot);
        if !queue.cancel(slot, now.unix_ms).has_unsettled {
            self.consumers.remove(&consumer);
        }
    }

    pub(super) fn release_received(&mut self, request: Option<RequestId>, packet_id: u16) {
        let batch = match (&self.vhost, &self.client) {
            (Some(vhost), Some(client)) => self.core.release_received(vhost, client, packet_id),
            _ => None,
        };
        if let Some(request) = request {
            self.answer(request, Ok(Answer::Done), batch);
        }
    }

    /// The route of a key on the default exchange that somebody who waits for a direct reply was
    /// given.
    pub(super) fn reply_route(&self, vhost: &Vhost, message: &Message) -> Option<Route> {
        let target = vhost.replies.lock().get(message.key())?.clone();
        let targets = [Target::Reply(target)].into_iter().collect();
        Some(Route { targets, ..Route::default() })
    }
}

/// Errors: kind `TooLarge` for a will that could not be published now.
fn check_will(vhost: &Vhost, open: &OpenClientSession) -> Result<(), Refusal> {
    let Some(will) = &open.will else { return Ok(()) };
    let max = vhost.topology.load().body_bytes_max;
    check_size(&will.message, max.map(|max| (max, Bounds::Vhost)))
}

fn no_session() -> Refusal {
    Refusal::new(RefusalKind::Conflict, "no client session is open on this connection")
}
