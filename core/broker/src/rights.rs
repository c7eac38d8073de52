//! What lives by rights, and is asked for them again when they change: subscriptions and their
//! messages, consumers, logins.

use std::sync::{Arc, atomic::Ordering};

use polymq_contract::{CancelReason, Event, Refusal, RefusalKind, SubscriptionTarget};
use polymq_model::{
    Seq, UserName,
    topic::{Pattern, Syntax},
};

use crate::{
    access::{Access, Action, Permit, Principal, Read, TopicAction, TopicBounds, Topics, Write},
    client_session::{ClientSession, SESSION_QUEUE, SessionState},
    core::{ConnectionRecord, Core},
    definitions::Restricted,
    mailbox,
    queue::Queue,
    routing::check_publishable,
    topology::{Binding, Destination, ExchangeKind, Topology},
    vhost::Vhost,
};

/// Which topics a client session may be sent, by exchange; those that are not named are free.
#[derive(Debug)]
pub(crate) struct Reader(Vec<(Box<str>, TopicBounds)>);

impl Reader {
    pub(crate) fn may_have(&self, exchange: &str, key: &str) -> bool {
        let bounds = self.0.iter().find(|(name, _)| **name == *exchange);
        bounds.is_none_or(|(_, bounds)| bounds.allow::<Read>(Topics::Key(key)))
    }
}

impl Core {
    /// Asks for a permit. A mailbox is its user's own, unless the login is narrowed by a token.
    ///
    /// Errors: kind `Denied`.
    pub(crate) fn permit<A: Action>(
        &self,
        who: &Principal,
        vhost: &Vhost,
        kind: &str,
        name: &str,
    ) -> Result<Permit<A>, Refusal> {
        if kind == "queue" && who.grant.is_none() && mailbox::is_own(who, name) {
            return Ok(Access::own());
        }
        self.access.permit(who, &vhost.name, kind, name)
    }

    /// Asks whether somebody may see that an object exists: any right to it is enough.
    ///
    /// Errors: kind `Denied`, whether it exists or not.
    pub(crate) fn permit_any(
        &self,
        who: &Principal,
        vhost: &Vhost,
        kind: &str,
        name: &str,
    ) -> Result<(), Refusal> {
        use crate::access::Configure;
        self.permit::<Configure>(who, vhost, kind, name)
            .map(drop)
            .or_else(|_| self.permit::<Write>(who, vhost, kind, name).map(drop))
            .or_else(|_| self.permit::<Read>(who, vhost, kind, name).map(drop))
    }

    /// Asks whether somebody may publish to an exchange with all of these keys.
    ///
    /// Errors: kind `Denied`; those of an exchange to which nobody publishes.
    pub(crate) fn check_may_publish<'k>(
        &self,
        who: &Principal,
        vhost: &Vhost,
        exchange: &str,
        mut keys: impl Iterator<Item = &'k str>,
    ) -> Result<(), Refusal> {
        self.permit::<Write>(who, vhost, "exchange", exchange)?;
        keys.try_for_each(|key| {
            let asked = (exchange, Topics::Key(key));
            self.access.check_topics::<Write>(who, &vhost.name, asked, None)
        })?;
        check_publishable(vhost, &vhost.topology.load(), exchange)
    }

    /// Asks whether somebody may have what a subscription brings.
    ///
    /// Errors: kind `Denied`; kind `Invalid` for a pattern that is none.
    pub(crate) fn check_subscription(
        &self,
        who: &Principal,
        vhost: &Vhost,
        client_id: &str,
        target: &SubscriptionTarget,
    ) -> Result<(), Refusal> {
        match target {
            SubscriptionTarget::Queue { queue } => {
                self.permit::<Read>(who, vhost, "queue", queue).map(drop)
            }
            SubscriptionTarget::Topic { exchange, pattern }
            | SubscriptionTarget::Share { exchange, pattern, .. } => {
                self.permit::<Read>(who, vhost, "exchange", exchange)?;
                let pattern = Pattern::stored(pattern, Syntax::Slash)
                    .map_err(|bad| Refusal::new(RefusalKind::Invalid, bad.to_string()))?;
                let asked = (exchange.as_str(), Topics::Filter(&pattern));
                self.access.check_topics::<Read>(who, &vhost.name, asked, Some(client_id))
            }
        }
    }

    /// Asks whether somebody may do `A` with every topic that a binding of `source` takes.
    ///
    /// Errors: kind `Denied`; kind `Invalid` for a pattern that is none.
    pub(crate) fn check_binding<A: TopicAction>(
        &self,
        who: &Principal,
        (vhost, topology): (&Vhost, &Topology),
        (source, bounded): (&str, &str),
        binding: &Binding,
        client_id: Option<&str>,
    ) -> Result<(), Refusal> {
        let Some(source) = topology.exchange(source) else { return Ok(()) };
        let pattern = match source.spec.kind {
            ExchangeKind::Topic => Some(binding.pattern()?),
            _ => None,
        };
        let topics = match (&pattern, source.spec.kind) {
            (Some(pattern), _) => Topics::Filter(pattern),
            (None, ExchangeKind::Direct) => Topics::Key(&binding.key),
            (None, _) => Topics::All,
        };
        self.access.check_topics::<A>(who, &vhost.name, (bounded, topics), client_id)
    }

    /// Asks whether somebody may make a binding, as far as topics decide that.
    ///
    /// Errors: kind `Denied`; kind `Invalid` for a pattern that is none.
    pub(crate) fn check_new_binding(
        &self,
        who: &Principal,
        place: (&Vhost, &Topology),
        source: &str,
        binding: &Binding,
        client_id: Option<&str>,
    ) -> Result<(), Refusal> {
        self.check_binding::<Read>(who, place, (source, source), binding, client_id)?;
        match &binding.destination {
            Destination::Exchange(to) => {
                let bounded = (source, to.as_str());
                self.check_binding::<Write>(who, place, bounded, binding, client_id)
            }
            _ => Ok(()),
        }
    }

    /// Removes the bindings of a queue that is somebody's own, where its owner may not read what
    /// comes by them any more. Returns how many went, and how many are left.
    pub(crate) fn recheck_bindings(
        &self,
        who: &Principal,
        vhost: &Arc<Vhost>,
        queue: &Arc<Queue>,
    ) -> (usize, usize) {
        self.drop_denied_bindings(vhost, queue, |topology, source, binding| {
            let source = source.as_str();
            self.permit::<Read>(who, vhost, "exchange", source)
                .and_then(|_| {
                    let (place, bounded) = ((&**vhost, topology), (source, source));
                    self.check_binding::<Read>(who, place, bounded, binding, None)
                })
                .is_err()
        })
    }

    /// The rights of a user have changed: whatever lives by them asks again.
    pub(crate) fn rights_changed(&self, user: &UserName) {
        let owner = Principal::of_user(user.clone());
        for vhost in self.all_vhosts() {
            let topology = vhost.topology.load_full();
            let is_own = |queue: &&Arc<Queue>| mailbox::is_own(&owner, queue.name.as_str());
            for queue in topology.queues.values().filter(is_own) {
                self.recheck_bindings(&owner, &vhost, queue);
            }
            let of_user = |session: &&Arc<ClientSession>| session.owner == *user;
            let sessions: Vec<_> = vhost.clients.lock().values().filter(of_user).cloned().collect();
            for session in sessions {
                let mut state = session.state.lock();
                self.recheck_session(&vhost, &session, &mut state);
            }
        }
        for record in self.connections.lock().values() {
            if record.user.as_ref() == Some(user) {
                record.outbox.nudge();
            }
        }
    }

    /// Has every connection look at its login and its rights again.
    pub(crate) fn nudge_all(&self) {
        self.access.touch();
        for record in self.connections.lock().values().filter(|record| record.user.is_some()) {
            record.outbox.nudge();
        }
    }

    /// Ends the connections that `is_meant` picks.
    pub(crate) fn close_where(&self, reason: &str, is_meant: impl Fn(&ConnectionRecord) -> bool) {
        let mut connections = self.connections.lock();
        for record in connections.values_mut().filter(|record| is_meant(record)) {
            self.send_away(record, reason);
        }
    }

    /// Ends the connections of a user.
    pub(crate) fn close_user(&self, user: &UserName, reason: &str) {
        self.close_where(reason, |record| record.user.as_ref() == Some(user));
    }

    /// Ends the connections whose login is over.
    pub(crate) fn end_logins(&self, now_ms: u64) {
        let mut ends = self.ends.lock();
        if ends.first().is_none_or(|(at_ms, _)| *at_ms > now_ms) {
            return;
        }
        let later = ends.split_off(&(now_ms.saturating_add(1), polymq_model::ConnectionId(0)));
        let over = std::mem::replace(&mut *ends, later);
        drop(ends);
        let mut connections = self.connections.lock();
        for (_, id) in &over {
            if let Some(record) = connections.get_mut(id) {
                let why = record.who.as_deref().and_then(|who| self.why_over(who));
                self.send_away(record, why.unwrap_or("the login has ended"));
            }
        }
    }

    /// Removes the subscriptions that their user may not have any more. Those with a queue of their
    /// own are left to the connection, while there is one.
    pub(crate) fn recheck_session(
        &self,
        vhost: &Arc<Vhost>,
        session: &Arc<ClientSession>,
        state: &mut SessionState,
    ) {
        let who = session.who();
        let version = self.access.version();
        if state.rights == version && who.grant.is_none() {
            return;
        }
        // What a token bounds is asked for again at each opening.
        state.rights = if who.grant.is_some() { u64::MAX } else { version };
        let is_connected = state.connected.is_some();
        let denied: Vec<(String, bool)> = state
            .subscriptions
            .values()
            .map(|subscription| {
                let is_topic = matches!(subscription.target, SubscriptionTarget::Topic { .. });
                (subscription, is_topic)
            })
            .filter(|(_, is_topic)| *is_topic || !is_connected)
            .filter(|(subscription, _)| {
                let target = &subscription.target;
                self.check_subscription(&who, vhost, &session.client_id, target).is_err()
            })
            .map(|(subscription, is_topic)| (subscription.filter.clone(), is_topic))
            .collect();
        for (filter, _) in &denied {
            self.forget_subscription_of(vhost, session, state, filter);
        }
        self.bound_session(vhost, session, state);
        if !denied.iter().any(|(_, is_topic)| *is_topic) {
            return;
        }
        if let Some(queue) = session.endpoint.queue() {
            let topics = topics_of(state);
            let before = queue.restrict(patterns_of(&topics));
            state.restricted = Some(Restricted { before: before.0, topics });
            self.store_client_session(vhost, session, state);
        }
        if let Some((_, outbox)) = &state.connected {
            let (consumer, reason) = (SESSION_QUEUE, CancelReason::Denied);
            outbox.push(Event::ConsumerCancelled { consumer, reason });
        }
    }

    /// Whether a session is more than a token may have: its user has subscribed in it without one,
    /// and what the token may not read would be lost.
    pub(crate) fn is_beyond(
        &self,
        vhost: &Vhost,
        session: &ClientSession,
        state: &SessionState,
        who: &Principal,
    ) -> bool {
        if who.grant.is_none() || session.who().grant.is_some() {
            return false;
        }
        let user = Principal::of_user(who.user.clone());
        state.subscriptions.values().any(|subscription| {
            let may = |who| {
                let target = &subscription.target;
                self.check_subscription(who, vhost, &session.client_id, target).is_ok()
            };
            may(&user) && !may(who)
        })
    }

    /// Keeps what a session may not have any more from it after a restart, too.
    pub(crate) fn restore_restriction(&self, session: &ClientSession) {
        let state = session.state.lock();
        if let (Some(restricted), Some(queue)) = (&state.restricted, session.endpoint.queue()) {
            queue.restrict_again(Seq(restricted.before), patterns_of(&restricted.topics));
        }
    }

    /// Has routing look at the topics of each delivery where that can make a difference.
    pub(crate) fn bound_session(
        &self,
        vhost: &Vhost,
        session: &ClientSession,
        state: &SessionState,
    ) {
        let who = session.who();
        let mut bounds: Vec<(Box<str>, TopicBounds)> = Vec::new();
        for subscription in state.subscriptions.values() {
            if let SubscriptionTarget::Topic { exchange, .. } = &subscription.target {
                self.bound_exchange(vhost, (session, &who), exchange, &mut bounds);
            }
        }
        session.endpoint.set_reader((!bounds.is_empty()).then(|| Arc::new(Reader(bounds))));
    }

    fn bound_exchange(
        &self,
        vhost: &Vhost,
        (session, who): (&ClientSession, &Principal),
        exchange: &str,
        bounds: &mut Vec<(Box<str>, TopicBounds)>,
    ) {
        if bounds.iter().any(|(known, _)| **known == *exchange) {
            return;
        }
        let client_id = Some(session.client_id.as_str());
        if let Some(found) = self.access.topic_bounds(who, &vhost.name, exchange, client_id) {
            bounds.push((exchange.into(), found));
        }
    }

    /// Counts deliveries that a route leaves out because of rights.
    pub(crate) fn note_denied(&self, denied: u64) {
        if denied > 0 {
            self.counters.total.dropped_permission.fetch_add(denied, Ordering::Relaxed);
        }
    }
}

/// The patterns that a session still subscribes to, as they are stored.
fn topics_of(state: &SessionState) -> Vec<String> {
    let topic = |target: &SubscriptionTarget| match target {
        SubscriptionTarget::Topic { pattern, .. } => Some(pattern.clone()),
        SubscriptionTarget::Share { .. } | SubscriptionTarget::Queue { .. } => None,
    };
    state.subscriptions.values().filter_map(|known| topic(&known.target)).collect()
}

fn patterns_of(topics: &[String]) -> Vec<Pattern> {
    let pattern = |topic: &String| Pattern::stored(topic, Syntax::Slash).ok();
    topics.iter().filter_map(pattern).collect()
}
