//! Opening, taking over, leaving and ending a client session.

use std::{collections::BTreeMap, sync::Arc};

use polymq_contract::{
    Answer, Event, InFlight, OpenClientSession, OpenedClientSession, Outbox, Refusal, RefusalKind,
    Subscription,
};
use polymq_model::{ClientNumber, ConnectionId, ConsumerId, Now, Seq};

use super::{ClientEndpoint, ClientSession, Parked, SessionState};
use crate::{
    access::Principal,
    core::Core,
    topology::{Binding, Destination},
    vhost::Vhost,
};

/// How long a connection that is taken over may keep the newcomer waiting.
pub(crate) const TAKEOVER_MS_MAX: u64 = 2_000;

/// What opening came to.
pub(crate) enum Opened {
    /// It is this connection's now, and its outbox holds the answer.
    Now(Arc<ClientSession>),
    /// Another connection has to leave it first; the outbox is nudged when to try again.
    Later,
}

/// How a connection leaves its client session.
pub(crate) struct Closing {
    pub(crate) in_flight: Option<Vec<InFlight>>,
    pub(crate) parked: BTreeMap<ConsumerId, Parked>,
    pub(crate) will: bool,
    pub(crate) expiry_secs: Option<u32>,
}

impl Core {
    /// Opens the client session for a connection.
    ///
    /// Errors: kind `Denied` when the session belongs to another user.
    pub(crate) fn open_client_session(
        &self,
        vhost: &Arc<Vhost>,
        who: &Arc<Principal>,
        connection: (ConnectionId, Arc<Outbox>),
        open: &OpenClientSession,
        now: Now,
    ) -> Result<Opened, Refusal> {
        let client_id = open.client_id.clone().unwrap_or_default();
        self.bans.check_client_id(&client_id, self.clock_ms())?;
        let session = vhost
            .clients
            .lock()
            .entry(client_id.clone())
            .or_insert_with(|| self.new_client_session(client_id, who))
            .clone();
        let mut state = session.state.lock();
        if state.ended {
            drop(state);
            return self.open_client_session(vhost, who, connection, open, now);
        }
        self.check_owner(vhost, &session, &state, who)?;
        if let Some((other, outbox)) = state.connected.clone()
            && other != connection.0
        {
            outbox.push(Event::TakenOver);
            if let Some((_, earlier)) = state.waiting.replace(connection) {
                earlier.push(Event::TakenOver);
            } else {
                state.waiting_since_ms = now.unix_ms;
                vhost.look_at(&session, now.unix_ms + TAKEOVER_MS_MAX);
            }
            return Ok(Opened::Later);
        }
        let present = !open.clean_start && state.is_durable();
        // MQTT 5, 3.1.3.2.2: a clean start ends the session, and a will that waits is due with the
        // end.
        let is_due = !present && state.will_at_ms != 0;
        let due_will = state.will.take().filter(|_| is_due);
        session.opened_by(who);
        match present {
            true => self.recheck_session(vhost, &session, &mut state),
            false => self.wipe(vhost, &session, &mut state),
        }
        state.waiting = None;
        state.connected = Some(connection.clone());
        state.expiry_secs = open.expiry_secs;
        state.ends_at_ms = 0;
        state.will = open.will.clone();
        state.will_at_ms = 0;
        let answer = answer_of(&session, &state, present);
        self.store_client_session(vhost, &session, &mut state);
        // The answer comes before any delivery, so it is in the outbox before routing sees the
        // connection.
        connection.1.push(Event::Answered { request: open.request, answer: Box::new(Ok(answer)) });
        session.endpoint.outbox.store(Some(connection.1));
        drop(state);
        if let Some(will) = due_will {
            self.publish_will(vhost, &session, will.message, now);
        }
        Ok(Opened::Now(session))
    }

    /// Errors: kind `Denied` when the session is somebody else's, or more than a token may have.
    fn check_owner(
        &self,
        vhost: &Vhost,
        session: &ClientSession,
        state: &SessionState,
        who: &Principal,
    ) -> Result<(), Refusal> {
        let id = &session.client_id;
        let text = if session.owner != who.user {
            format!("client id '{id}' belongs to another user")
        } else if self.is_beyond(vhost, session, state, who) {
            format!("the token may not read what client id '{id}' subscribes to")
        } else {
            return Ok(());
        };
        Err(Refusal::new(RefusalKind::Denied, text))
    }

    fn new_client_session(&self, client_id: String, who: &Principal) -> Arc<ClientSession> {
        let endpoint = ClientEndpoint::new(ClientNumber(self.next_client()));
        Arc::new(ClientSession::new(client_id, who.user.clone(), endpoint))
    }

    /// A connection leaves its client session. Does nothing when the session is no longer its own.
    pub(crate) fn close_client_session(
        &self,
        vhost: &Arc<Vhost>,
        session: &Arc<ClientSession>,
        connection: ConnectionId,
        closing: Closing,
        now: Now,
    ) {
        let mut state = session.state.lock();
        if state.connected.as_ref().is_none_or(|(id, _)| *id != connection) {
            return;
        }
        state.connected = None;
        session.endpoint.outbox.store(None);
        state.parked = closing.parked;
        if let Some(in_flight) = closing.in_flight {
            self.replace_in_flight(vhost, session, &mut state, &in_flight);
        }
        if let Some(expiry_secs) = closing.expiry_secs {
            state.expiry_secs = expiry_secs;
        }
        let expires_ms = u64::from(state.expiry_secs) * 1000;
        let will = closing.will.then(|| state.will.clone()).flatten();
        if !closing.will {
            state.will = None;
        }
        let mut publish = None;
        if let Some(will) = will {
            // MQTT 5, 3.1.3.2.2: the will is published when its delay has passed or the session
            // ends.
            let delay_ms = (u64::from(will.delay_secs) * 1000).min(expires_ms);
            if delay_ms == 0 {
                state.will = None;
                publish = Some(will.message);
            } else {
                state.will_at_ms = now.unix_ms + delay_ms;
            }
        }
        state.ends_at_ms = match state.expiry_secs {
            0 | u32::MAX => 0,
            _ => now.unix_ms + expires_ms,
        };
        let waiting = state.waiting.take();
        if state.expiry_secs == 0 {
            self.end_client_session(vhost, session, &mut state);
        } else {
            self.store_client_session(vhost, session, &mut state);
            session.schedule_state(vhost, &state);
        }
        drop(state);
        if let Some((_, outbox)) = waiting {
            outbox.nudge();
        }
        if let Some(message) = publish {
            self.publish_will(vhost, session, message, now);
        }
    }

    /// Ends the session: nothing of it is left.
    pub(crate) fn end_client_session(
        &self,
        vhost: &Arc<Vhost>,
        session: &Arc<ClientSession>,
        state: &mut SessionState,
    ) {
        self.wipe(vhost, session, state);
        state.ended = true;
        let mut clients = vhost.clients.lock();
        if clients.get(&session.client_id).is_some_and(|kept| Arc::ptr_eq(kept, session)) {
            clients.remove(&session.client_id);
        }
    }

    /// Forgets subscriptions, queue and packet ids.
    fn wipe(&self, vhost: &Arc<Vhost>, session: &Arc<ClientSession>, state: &mut SessionState) {
        self.forget_received(vhost, session, state);
        self.forget_in_flights(vhost, session, state);
        self.delete_stored_client_session(vhost, session, state);
        if !state.subscriptions.is_empty() {
            state.subscriptions.clear();
            let options = crate::topology::SubscriptionOptions {
                qos: 0,
                no_local: false,
                retain_as_published: false,
                id: None,
            };
            let own = Destination::Client(session.endpoint.clone(), options);
            self.remove_bindings_to(vhost, &own);
        }
        if let Some(queue) = session.endpoint.queue.swap(None) {
            self.remove_queue(vhost, &queue, false, false).ok();
        }
        state.unsure_before = Seq(0);
    }

    /// Publishes the wills and ends the sessions whose time has come, and frees sessions from stuck
    /// connections.
    pub(crate) fn tick_client_sessions(&self, vhost: &Arc<Vhost>, now: Now) {
        for session in vhost.take_due_clients(now.unix_ms) {
            let mut state = session.state.lock();
            let mut will = None;
            let ends = state.ends_at_ms != 0 && state.ends_at_ms <= now.unix_ms;
            if state.will_at_ms != 0 && (state.will_at_ms <= now.unix_ms || ends) {
                state.will_at_ms = 0;
                will = state.will.take().map(|will| will.message);
            }
            if ends && state.connected.is_none() {
                self.end_client_session(vhost, &session, &mut state);
            } else if will.is_some() {
                self.store_client_session(vhost, &session, &mut state);
            }
            if state.waiting.is_some()
                && state.waiting_since_ms + TAKEOVER_MS_MAX <= now.unix_ms
                && let Some((_, outbox)) = &state.connected
            {
                outbox.evict();
            }
            drop(state);
            if let Some(message) = will {
                self.publish_will(vhost, &session, message, now);
            }
        }
    }
}

fn answer_of(session: &ClientSession, state: &SessionState, present: bool) -> Answer {
    Answer::ClientSession(Box::new(OpenedClientSession {
        client_id: session.client_id.clone(),
        present,
        subscriptions: state.subscriptions.values().cloned().collect(),
        in_flight: state.in_flight.in_order(),
        received: state.received.iter().copied().collect(),
        unsure_before: state.unsure_before,
    }))
}

/// The binding of a topic subscription.
pub(crate) fn client_binding(
    session: &ClientSession,
    subscription: &Subscription,
    pattern: &str,
) -> Binding {
    let options = crate::topology::SubscriptionOptions {
        qos: subscription.qos,
        no_local: subscription.no_local,
        retain_as_published: subscription.retain_as_published,
        id: subscription.id,
    };
    Binding {
        destination: Destination::Client(session.endpoint.clone(), options),
        key: pattern.into(),
        arguments: Arc::new(vec![(
            "x-topic-syntax".to_owned(),
            polymq_model::Value::String("mqtt".to_owned()),
        )]),
    }
}
