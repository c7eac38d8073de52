//! From what the store has kept to a running broker.

use std::{collections::HashMap, sync::Arc};

use polymq_contract::{Matched, SubscriptionIds, SubscriptionTarget};
use polymq_model::{
    ClientNumber, ExchangeName, LogId, Message, QueueName, Seq, UserName, VhostName,
    topic::{Pattern, Syntax},
};
use polymq_store::{Opened, OpenedLog, ReadLimit, Store, StoreError, StoredMessage, wait};

use crate::{
    client_session::{ClientEndpoint, ClientSession, client_binding},
    core::Core,
    definitions::{
        self, StoredBinding, StoredClient, StoredLevel, StoredRetained, StoredSchedule,
        StoredSubscription, decode, kind,
    },
    policies::PolicyKind,
    queue::{Entry, Position, Queue},
    stored_message,
    vhost::Vhost,
};

/// Messages read from the store at a time.
pub(crate) const PAGE: ReadLimit = ReadLimit { messages_max: 4096, bytes_max: 8 * 1024 * 1024 };

/// The kinds of definitions in the order in which they come back: each needs those before it.
const ORDER: [&str; 24] = [
    kind::VHOST,
    kind::VHOST_LIMITS,
    kind::USER,
    kind::USER_LIMITS,
    kind::PERMISSION,
    kind::TOPIC_PERMISSION,
    kind::TOKEN,
    kind::BAN,
    kind::GLOBAL_PARAMETER,
    kind::POLICY,
    kind::OPERATOR_POLICY,
    kind::EXCHANGE,
    kind::QUEUE,
    kind::LEVEL,
    kind::PAUSED,
    kind::BINDING,
    kind::CLIENT,
    kind::SUBSCRIPTION,
    kind::RECEIVED,
    kind::IN_FLIGHT,
    kind::RETAINED,
    kind::DOCUMENT,
    kind::SCHEDULE,
    kind::JOB,
];

/// What recovery brought back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Queues.
    pub queues: usize,
    /// Messages in them.
    pub messages: u64,
    /// Definitions that could not be understood; each was logged.
    pub skipped: usize,
}

impl Core {
    /// Rebuilds everything from an opened store. Blocks; called before the broker serves.
    ///
    /// Errors: those of reading messages.
    pub(crate) fn recover(
        &self,
        opened: &Opened,
        store: &Arc<dyn Store>,
        now_ms: u64,
    ) -> Result<Recovered, StoreError> {
        self.set_clock(now_ms);
        let mut recovered = Recovered::default();
        for log in &opened.logs {
            self.reserve_log(log.id);
        }
        for wanted in ORDER {
            for (key, _, value) in &opened.metas {
                let parts = definitions::parts(key);
                if parts.first() != Some(&wanted) {
                    continue;
                }
                if let Err(reason) = self.restore_definition(&parts, value, now_ms) {
                    recovered.skipped += 1;
                    tracing::error!(event = "definition_skipped", key = ?parts, %reason);
                }
            }
        }
        let logs: HashMap<LogId, _> = opened.logs.iter().map(|log| (log.id, log)).collect();
        for vhost in self.all_vhosts() {
            let topology = vhost.topology.load_full();
            for queue in topology.queues.values() {
                recovered.queues += 1;
                for (level, log) in queue.logs() {
                    let Some(log) = logs.get(&log) else { continue };
                    recovered.messages += restore_messages(queue, level, log, store)?;
                }
                queue.touch(now_ms);
            }
            if let Some(log) = vhost.schedule.log().and_then(|log| logs.get(&log)) {
                self.restore_schedule(&vhost, log, store)?;
            }
            let sessions: Vec<_> = vhost.clients.lock().values().cloned().collect();
            for session in sessions {
                self.restore_in_flight(&vhost, &session, store)?;
                self.restore_restriction(&session);
            }
        }
        Ok(recovered)
    }

    fn restore_definition(&self, parts: &[&str], value: &[u8], now_ms: u64) -> Result<(), String> {
        let [kind, rest @ ..] = parts else { return Err("the key is empty".to_owned()) };
        match (*kind, rest) {
            (kind::VHOST, [name]) => {
                let vhost = self.restore_vhost(VhostName::new(name).map_err(|e| e.to_string())?);
                *vhost.tenancy.record.write() = decode(value)?;
                Ok(())
            }
            (kind::VHOST_LIMITS, [name]) => {
                let vhost = self.vhost(name).map_err(|e| e.to_string())?;
                vhost.bound(decode(value)?, || ());
                Ok(())
            }
            (kind::USER_LIMITS, [name]) => {
                let name = UserName::new(name).map_err(|e| e.to_string())?;
                self.users.set_limits(name, decode(value)?);
                Ok(())
            }
            (kind::USER, [name]) => {
                let name = UserName::new(name).map_err(|e| e.to_string())?;
                self.access.put_user(name, decode(value)?);
                Ok(())
            }
            (kind::JOB, [_]) => {
                self.restore_job(decode(value)?, now_ms);
                Ok(())
            }
            (kind::DOCUMENT, [protocol, user, name]) => {
                let user = UserName::new(user).map_err(|e| e.to_string())?;
                let key = ((*protocol).to_owned(), user, (*name).to_owned());
                self.documents.lock().insert(key, decode(value)?);
                Ok(())
            }
            (kind::PERMISSION, [vhost, user]) => {
                let vhost = VhostName::new(vhost).map_err(|e| e.to_string())?;
                let user = UserName::new(user).map_err(|e| e.to_string())?;
                self.access.put_permission(vhost, user, decode(value)?).map_err(|e| e.to_string())
            }
            (kind::TOPIC_PERMISSION, [vhost, user, exchange]) => {
                let vhost = VhostName::new(vhost).map_err(|e| e.to_string())?;
                let user = UserName::new(user).map_err(|e| e.to_string())?;
                let put = self.access.put_topic_permission(vhost, user, exchange, decode(value)?);
                put.map_err(|e| e.to_string())
            }
            (kind::TOKEN, [id]) => {
                self.tokens.restore(id, decode(value)?).map_err(|e| e.to_string())
            }
            (kind::BAN, [id]) => {
                self.bans.restore(id, decode(value)?);
                Ok(())
            }
            (kind::GLOBAL_PARAMETER, [name]) => {
                self.parameters.restore(name, decode(value)?);
                Ok(())
            }
            (_, [vhost, rest @ ..]) => {
                let vhost = self.vhost(vhost).map_err(|e| e.to_string())?;
                self.restore_in_vhost(&vhost, kind, rest, value, now_ms)
            }
            (other, _) => Err(format!("unknown kind `{other}`")),
        }
    }

    fn restore_in_vhost(
        &self,
        vhost: &Arc<Vhost>,
        kind: &str,
        rest: &[&str],
        value: &[u8],
        now_ms: u64,
    ) -> Result<(), String> {
        match (kind, rest) {
            (kind::POLICY, [name]) => {
                let put = vhost.policies.lock().put(PolicyKind::User, name, decode(value)?);
                put.map_err(|e| e.to_string())
            }
            (kind::OPERATOR_POLICY, [name]) => {
                let put = vhost.policies.lock().put(PolicyKind::Operator, name, decode(value)?);
                put.map_err(|e| e.to_string())
            }
            (kind::EXCHANGE, [name]) => {
                let name = ExchangeName::new(name).map_err(|e| e.to_string())?;
                self.restore_exchange(vhost, name, decode(value)?).map_err(|e| e.to_string())
            }
            (kind::QUEUE, [name]) => {
                let name = QueueName::new(name).map_err(|e| e.to_string())?;
                let queue = self.restore_queue(vhost, name, decode(value)?);
                queue.map(drop).map_err(|e| e.to_string())
            }
            (kind::LEVEL | kind::PAUSED, [queue, of @ ..]) => {
                let topology = vhost.topology.load();
                restore_in_queue(topology.queue(queue).ok_or("its queue is not there")?, of, value)
            }
            (kind::BINDING, _) => {
                let stored: StoredBinding = decode(value)?;
                self.restore_binding(vhost, stored).map_err(|e| e.to_string())
            }
            (kind::CLIENT, [client_id]) => {
                self.restore_client(vhost, client_id, decode(value)?, now_ms)
            }
            (kind::SUBSCRIPTION, [client_id, _]) => {
                self.restore_subscription(vhost, client_id, decode(value)?)
            }
            (kind::RECEIVED, [client_id, packet_id]) => {
                let packet_id = packet_id.parse().map_err(|_| "bad packet id".to_owned())?;
                if let Some(session) = vhost.clients.lock().get(*client_id) {
                    session.state.lock().received.insert(packet_id);
                }
                Ok(())
            }
            (kind::IN_FLIGHT, [client_id, packet_id]) => {
                let packet_id = packet_id.parse().map_err(|_| "bad packet id".to_owned())?;
                let stored = decode(value)?;
                if let Some(session) = vhost.clients.lock().get(*client_id) {
                    session.state.lock().in_flight.restore(packet_id, stored);
                }
                Ok(())
            }
            (kind::SCHEDULE, []) => {
                let StoredSchedule { log } = decode(value)?;
                vhost.schedule.restore(LogId(log), Seq(1));
                Ok(())
            }
            (kind::RETAINED, _) => {
                let stored: StoredRetained = decode(value)?;
                let message = stored_message::from_definition(&stored.message, &self.formats)
                    .ok_or_else(|| "the message cannot be read".to_owned())?;
                vhost.retained.lock().put(&message, &stored.publisher);
                Ok(())
            }
            (other, _) => Err(format!("unknown kind `{other}`")),
        }
    }

    fn restore_vhost(&self, name: VhostName) -> Arc<Vhost> {
        let mut vhosts = self.vhosts.write();
        let made = || Arc::new(Vhost::new(name.clone(), self.chance.next()));
        vhosts.entry(name.clone()).or_insert_with(made).clone()
    }

    fn restore_client(
        &self,
        vhost: &Arc<Vhost>,
        client_id: &str,
        stored: StoredClient,
        now_ms: u64,
    ) -> Result<(), String> {
        let owner = UserName::new(&stored.owner).map_err(|e| e.to_string())?;
        let endpoint = ClientEndpoint::new(ClientNumber(self.next_client()));
        let name =
            crate::client_session::session_queue_name(client_id).map_err(|e| e.to_string())?;
        let queue = vhost.topology.load().queue(name.as_str()).cloned();
        endpoint.set_queue(queue.filter(|queue| queue.settings.of_client));
        let session = ClientSession::new(client_id.to_owned(), owner, endpoint);
        *session.state.lock() = self.restored_client_state(stored, now_ms);
        let session = Arc::new(session);
        session.schedule(vhost);
        vhost.clients.lock().insert(client_id.to_owned(), session);
        Ok(())
    }

    fn restore_subscription(
        &self,
        vhost: &Arc<Vhost>,
        client_id: &str,
        stored: StoredSubscription,
    ) -> Result<(), String> {
        let session = vhost.clients.lock().get(client_id).cloned();
        let session = session.ok_or("its client session is not there")?;
        let subscription = stored.into_subscription();
        if let SubscriptionTarget::Topic { exchange, pattern } = &subscription.target {
            let binding = client_binding(&session, &subscription, pattern);
            self.restore_client_binding(vhost, exchange, binding).map_err(|e| e.to_string())?;
        }
        let filter = subscription.filter.clone();
        let mut state = session.state.lock();
        state.subscriptions.insert(filter, subscription);
        self.bound_session(vhost, &session, &state);
        Ok(())
    }

    /// The entries of stored messages of a queue; those that cannot be understood are left out.
    pub(crate) fn entries_of(&self, queue: &Queue, messages: Vec<StoredMessage>) -> Vec<Entry> {
        let entry =
            |stored| self.entry_of(queue, stored, |message| self.matched_again(queue, message));
        messages.into_iter().filter_map(entry).collect()
    }

    /// The entry of a stored message.
    pub(crate) fn entry_of(
        &self,
        queue: &Queue,
        stored: StoredMessage,
        matched: impl FnOnce(&Message) -> Matched,
    ) -> Option<Entry> {
        let StoredMessage { log, seq, expiry_ms, props, body, hold, .. } = stored;
        let Some(message) = stored_message::read(&props, body, expiry_ms, &self.formats) else {
            tracing::error!(event = "message_skipped", log = log.0, seq = seq.0);
            return None;
        };
        let narrow = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
        // A client that has been sent a message gets it again, expired or not.
        let is_spared = queue.settings.of_client && hold.is_some();
        Some(Entry {
            at: Position::new(level_of(queue, log), seq),
            deadline_ms: if is_spared { 0 } else { expiry_ms },
            acquired: hold.map_or(0, |hold| narrow(hold.acquired_count)),
            failed: hold.map_or(0, |hold| narrow(hold.delivery_count)),
            matched: matched(&message),
            message,
        })
    }

    /// What the subscriptions of a client session say about a message of its queue that was stored
    /// before the restart.
    fn matched_again(&self, queue: &Queue, message: &Message) -> Matched {
        let mut matched = Matched { qos: 2, ..Matched::default() };
        if !queue.settings.of_client {
            return matched;
        }
        let Some(session) = self.session_of_queue(queue) else { return matched };
        let state = session.state.lock();
        let mut ids = Vec::new();
        matched.qos = 0;
        for subscription in state.subscriptions.values() {
            let SubscriptionTarget::Topic { exchange, pattern } = &subscription.target else {
                continue;
            };
            let hit = exchange == message.exchange()
                && Pattern::stored(pattern, Syntax::Slash).is_ok_and(|p| p.matches(message.key()));
            if hit {
                matched.qos = matched.qos.max(subscription.qos);
                matched.retain_as_published |= subscription.retain_as_published;
                ids.extend(subscription.id);
            }
        }
        matched.qos = matched.qos.max(1);
        matched.ids = match ids.as_slice() {
            [] => SubscriptionIds::None,
            [id] => SubscriptionIds::One(*id),
            many => SubscriptionIds::Many(many.into()),
        };
        matched
    }

    fn session_of_queue(&self, queue: &Queue) -> Option<Arc<ClientSession>> {
        for vhost in self.all_vhosts() {
            let clients = vhost.clients.lock();
            let found = clients.values().find(|session| {
                session.endpoint.queue().is_some_and(|own| std::ptr::eq(&*own, queue))
            });
            if let Some(session) = found {
                return Some(session.clone());
            }
        }
        None
    }
}

/// Puts the log of a priority level, or with no level the fact that it is paused, into a queue.
fn restore_in_queue(queue: &Queue, of: &[&str], value: &[u8]) -> Result<(), String> {
    let Some(level) = of.first() else {
        queue.restore_pause();
        return Ok(());
    };
    let level = level.parse().map_err(|_| "bad level".to_owned())?;
    let StoredLevel { log } = decode(value)?;
    queue.restore_level(level, LogId(log));
    Ok(())
}

fn restore_messages(
    queue: &Arc<Queue>,
    level: u8,
    log: &OpenedLog,
    store: &Arc<dyn Store>,
) -> Result<u64, StoreError> {
    let mut bytes = log.live_bytes;
    if queue.rules().bytes_max.is_some() {
        // The limit counts bodies, and the store counts properties too.
        bytes = body_bytes(log.id, store)?;
    }
    queue.restore(level, log, bytes);
    Ok(log.live_count)
}

/// The bytes of the bodies in a log, by reading them all.
fn body_bytes(log: LogId, store: &Arc<dyn Store>) -> Result<u64, StoreError> {
    let (mut from, mut bytes) = (Seq(0), 0);
    loop {
        let page = match wait(|reply| store.read(log, from, PAGE, reply)) {
            Ok(page) => page,
            // The queue finds out when it comes there.
            Err(StoreError::Unreadable { last, .. }) if last.0 < u64::MAX => {
                from = Seq(last.0 + 1);
                continue;
            }
            Err(error) => return Err(error),
        };
        bytes += page.messages.iter().map(|message| message.body.len() as u64).sum::<u64>();
        match page.next {
            Some(next) => from = next,
            None => return Ok(bytes),
        }
    }
}

fn level_of(queue: &Queue, log: LogId) -> u8 {
    if log == queue.log {
        return 0;
    }
    queue.logs().into_iter().find(|(_, own)| *own == log).map_or(0, |(level, _)| level)
}
