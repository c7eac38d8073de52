//! Connections and their channels.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use parking_lot::Mutex;
use polymq_contract::{Event, Introduction, Outbox, Peer, TrafficCounts};
use polymq_model::{ConnectionId, PublisherId, UserName, VhostName};

use crate::{
    BrokerHandle,
    core::{ConnectionRecord, Core},
    counters::add,
    queue::Group,
    statistics::{Activity, Ring, Sample, Span},
};

/// How long a connection that was told to go may take, in ms.
const LEAVE_MS: u64 = 10_000;

/// What a connection lets others see.
#[derive(Debug)]
pub(crate) struct ConnectionFacts {
    pub(crate) id: ConnectionId,
    protocol: &'static str,
    outbox: Arc<Outbox>,
    connected_ms: u64,
    peer: Mutex<Arc<Peer>>,
    introduction: Mutex<Arc<Introduction>>,
    /// Of what happens on no channel.
    own: Arc<Group>,
    channels: Mutex<Channels>,
    history: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Channels {
    open: BTreeMap<u32, Arc<Group>>,
    /// What happened on those that have closed.
    closed: Activity,
    /// Deliveries that the counters of the protocol know.
    collected: u64,
}

impl ConnectionFacts {
    pub(crate) fn new(
        id: ConnectionId,
        protocol: &'static str,
        peer: Arc<Peer>,
        outbox: Arc<Outbox>,
        connected_ms: u64,
    ) -> Self {
        Self {
            id,
            protocol,
            outbox,
            connected_ms,
            peer: Mutex::new(peer),
            introduction: Mutex::default(),
            own: Arc::new(Group::new(id, protocol, 0)),
            channels: Mutex::default(),
            history: Mutex::default(),
        }
    }

    pub(crate) fn set_peer(&self, peer: Arc<Peer>) {
        *self.peer.lock() = peer;
    }

    /// Protocol and version as people call them; empty when nobody has said.
    pub(crate) fn introduced_as(&self) -> &'static str {
        self.introduction.lock().protocol
    }

    /// The client id, where the protocol has one.
    pub(crate) fn client_id(&self) -> String {
        self.introduction.lock().client_id.clone()
    }

    pub(crate) fn introduce(&self, introduction: Introduction) {
        *self.introduction.lock() = Arc::new(introduction);
    }

    /// The group of a channel, made when it is new.
    pub(crate) fn group(&self, channel: u32) -> Arc<Group> {
        if channel == 0 {
            return self.own.clone();
        }
        let mut channels = self.channels.lock();
        let group = channels.open.entry(channel);
        group.or_insert_with(|| Arc::new(Group::new(self.id, self.protocol, channel))).clone()
    }

    /// A channel begins, with nothing of an earlier one of the same number.
    pub(crate) fn open_channel(&self, channel: u32) {
        self.close_channel(channel);
        self.group(channel);
    }

    /// False when it was not open.
    pub(crate) fn close_channel(&self, channel: u32) -> bool {
        let mut channels = self.channels.lock();
        let Some(group) = channels.open.remove(&channel) else { return false };
        channels.closed += group.activity.read();
        true
    }

    /// How many channels are open; none where a protocol has none.
    pub(crate) fn channels_open(&self) -> usize {
        if self.has_channels() { self.channels.lock().open.len() } else { 0 }
    }

    fn has_channels(&self) -> bool {
        self.introduction.lock().channels_max > 0
    }

    /// Confirms are on their way to these publishers.
    pub(crate) fn told_confirms(&self, told: impl Iterator<Item = (PublisherId, u64)>) {
        let is_of = |group: &Group, publisher: PublisherId| {
            group.publisher.load(Ordering::Relaxed) == publisher.0
        };
        let channels = self.channels.lock();
        for (publisher, count) in told {
            let group = channels.open.values().find(|group| is_of(group, publisher));
            add(&group.unwrap_or(&self.own).activity.confirmed, count);
        }
    }

    /// What happens on all channels, those that have closed included.
    fn activity(&self) -> Activity {
        let channels = self.channels.lock();
        let mut sum = channels.closed;
        sum += self.own.activity.read();
        channels.open.values().for_each(|group| sum += group.activity.read());
        sum
    }

    fn sample(&self, at_ms: u64) -> Sample {
        let TrafficCounts { bytes_in, bytes_out, .. } = self.outbox.traffic().counts();
        Sample { at_ms, activity: self.activity(), bytes_in, bytes_out, ..Sample::default() }
    }

    /// Takes samples of the connection and its channels; returns how many of them move.
    pub(crate) fn take_sample(&self, at_ms: u64, kept: usize) -> u64 {
        let mut history = self.history.lock();
        history.push(self.sample(at_ms), kept);
        let mut moving = u64::from(history.is_moving());
        drop(history);
        let groups: Vec<_> = self.channels.lock().open.values().cloned().collect();
        for group in groups.iter().chain([&self.own]) {
            let mut history = group.history.lock();
            let activity = group.activity.read();
            history.push(Sample { at_ms, activity, ..Sample::default() }, kept);
            moving += u64::from(history.is_moving());
        }
        moving
    }

    pub(crate) fn forget_samples(&self) {
        self.history.lock().clear();
        self.own.history.lock().clear();
        self.channels.lock().open.values().for_each(|group| group.history.lock().clear());
    }

    /// Reads what totals are made of, and takes the deliveries that the counters of the protocol
    /// do not know yet.
    fn count(&self) -> Counted {
        let has_channels = self.has_channels();
        let mut channels = self.channels.lock();
        let mut delivered = channels.closed.delivered_in_any_way();
        let mut publishers = 0;
        for group in channels.open.values().chain([&self.own]) {
            let activity = group.activity.read();
            delivered += activity.delivered_in_any_way();
            publishers += usize::from(activity.published > 0);
        }
        let uncollected = delivered.saturating_sub(channels.collected);
        channels.collected += uncollected;
        match has_channels {
            true => Counted { uncollected, channels: channels.open.len(), publishers },
            false => Counted { uncollected, channels: 1, publishers: publishers.min(1) },
        }
    }
}

/// What a connection adds to totals.
pub(crate) struct Counted {
    uncollected: u64,
    channels: usize,
    publishers: usize,
}

/// Open connections of known protocols, added up.
#[derive(Debug, Clone, Default)]
pub struct ConnectionTotals {
    /// How many there are of each protocol, by its name.
    pub by_protocol: Vec<(&'static str, usize)>,
    /// Their channels; a connection of a protocol without channels has one.
    pub channels: usize,
    /// Channels that have published.
    pub publishers: usize,
}

impl ConnectionTotals {
    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.by_protocol.iter().map(|(_, count)| count).sum()
    }
}

/// A connection at the moment somebody has asked for a list.
#[derive(Debug, Clone)]
pub struct ConnectionRef {
    /// Its number, which no other connection gets while the process lives.
    pub id: ConnectionId,
    /// Who has logged in.
    pub user: Option<UserName>,
    /// The virtual host that it has opened.
    pub vhost: Option<VhostName>,
    /// Its publishes wait.
    pub is_blocked: bool,
    facts: Arc<ConnectionFacts>,
}

/// A channel of a connection; a connection of a protocol without channels shows one.
#[derive(Debug, Clone)]
pub struct ChannelView {
    /// Its number.
    pub number: u32,
    /// Unsettled deliveries that one consumer may have, as the last one asked for; 0 for no bound.
    pub prefetch: u32,
    /// Unsettled deliveries that all consumers together may have; 0 for no bound.
    pub group_prefetch: u32,
    /// Unsettled deliveries.
    pub unsettled: u32,
    /// Publishes whose confirms have not been told.
    pub unconfirmed: u64,
    /// Its publishes are confirmed.
    pub is_confirming: bool,
    /// It has transactions.
    pub is_transactional: bool,
    /// Publishes that wait for a commit.
    pub uncommitted_publishes: usize,
    /// Deliveries that wait for a commit to be settled.
    pub uncommitted_settlements: usize,
    /// What has happened on it.
    pub activity: Activity,
    /// Samples of that, oldest first.
    pub recent: Vec<Sample>,
}

impl ConnectionRef {
    /// As people call it: `127.0.0.1:50000 -> 127.0.0.1:5672`.
    pub fn name(&self) -> String {
        let peer = self.facts.peer.lock();
        match (peer.address, peer.local) {
            (Some(peer), Some(local)) => format!("{peer} -> {local}"),
            (Some(peer), None) => format!("{peer} -> {}", self.facts.protocol),
            (None, _) => format!("local {} -> {}", self.id, self.facts.protocol),
        }
    }

    /// The short name of its protocol, as in the configuration.
    pub fn protocol(&self) -> &'static str {
        self.facts.protocol
    }

    /// The other end.
    pub fn peer(&self) -> Arc<Peer> {
        self.facts.peer.lock().clone()
    }

    /// What its session has said about the client.
    pub fn introduction(&self) -> Arc<Introduction> {
        self.facts.introduction.lock().clone()
    }

    /// When it came, in ms since 1970, to a tenth of a second.
    pub fn connected_ms(&self) -> u64 {
        self.facts.connected_ms
    }

    /// What has gone over its socket.
    pub fn traffic(&self) -> TrafficCounts {
        self.facts.outbox.traffic().counts()
    }

    /// Bytes that wait to be sent.
    pub fn waiting_bytes(&self) -> usize {
        self.facts.outbox.bytes()
    }

    /// What has happened on all its channels.
    pub fn activity(&self) -> Activity {
        self.facts.activity()
    }

    /// Samples of bytes and messages, oldest first.
    pub fn recent(&self, span: Option<Span>) -> Vec<Sample> {
        self.facts.history.lock().pick(span)
    }

    /// How many channels it has open.
    pub fn channel_count(&self) -> usize {
        if self.facts.has_channels() { self.facts.channels_open() } else { 1 }
    }

    /// Its channels, by number.
    pub fn channels(&self, span: Option<Span>) -> Vec<ChannelView> {
        let groups: Vec<_> = self.facts.channels.lock().open.values().cloned().collect();
        if self.facts.has_channels() {
            return groups.iter().map(|group| view_of(group, span)).collect();
        }
        // Without channels the groups only bound deliveries.
        let mut whole = view_of(&self.facts.own, span);
        whole.number = 1;
        for group in &groups {
            let part = view_of(group, None);
            whole.unsettled += part.unsettled;
            whole.unconfirmed += part.unconfirmed;
            whole.activity += part.activity;
        }
        vec![whole]
    }

    /// The number under which the channel of a consumer is shown.
    pub fn channel_number(&self, channel: u32) -> u32 {
        if self.facts.has_channels() { channel } else { 1 }
    }
}

fn view_of(group: &Group, span: Option<Span>) -> ChannelView {
    let (group_prefetch, unsettled) = group.usage();
    let asked = group.confirms_asked.load(Ordering::Relaxed);
    let activity = group.activity.read();
    ChannelView {
        number: group.channel,
        prefetch: group.prefetch.load(Ordering::Relaxed),
        group_prefetch,
        unsettled,
        unconfirmed: asked.saturating_sub(activity.confirmed),
        is_confirming: asked > 0 || group.is_confirming.load(Ordering::Relaxed),
        is_transactional: group.is_transactional.load(Ordering::Relaxed),
        uncommitted_publishes: group.uncommitted.0.load(Ordering::Relaxed),
        uncommitted_settlements: group.uncommitted.1.load(Ordering::Relaxed),
        activity,
        recent: group.history.lock().pick(span),
    }
}

impl BrokerHandle {
    /// Adds up the open connections. The counters of protocols know their deliveries up to now.
    pub fn connection_totals(&self) -> ConnectionTotals {
        let mut totals = ConnectionTotals::default();
        for facts in self.0.connection_facts() {
            let counted = self.0.collect_deliveries_of(&facts);
            totals.channels += counted.channels;
            totals.publishers += counted.publishers;
            let by_protocol = &mut totals.by_protocol;
            match by_protocol.iter_mut().find(|(name, _)| *name == facts.protocol) {
                Some((_, count)) => *count += 1,
                None => by_protocol.push((facts.protocol, 1)),
            }
        }
        totals.by_protocol.sort_unstable();
        totals
    }

    /// All connections whose protocol is known, in no order.
    pub fn connection_refs(&self) -> Vec<ConnectionRef> {
        let connections = self.0.connections.lock();
        let refs = connections.iter().map(|(id, record)| ConnectionRef {
            id: *id,
            user: record.user.clone(),
            vhost: record.vhost.clone(),
            is_blocked: record.is_blocked,
            facts: record.facts.clone(),
        });
        refs.collect()
    }

    /// One connection.
    pub fn connection_ref(&self, id: ConnectionId) -> Option<ConnectionRef> {
        let connections = self.0.connections.lock();
        let record = connections.get(&id)?;
        Some(ConnectionRef {
            id,
            user: record.user.clone(),
            vhost: record.vhost.clone(),
            is_blocked: record.is_blocked,
            facts: record.facts.clone(),
        })
    }
}

impl Core {
    pub(crate) fn connection_facts(&self) -> Vec<Arc<ConnectionFacts>> {
        self.connections.lock().values().map(|record| record.facts.clone()).collect()
    }

    /// Tells a connection to go. False when there is no such connection.
    pub(crate) fn close_connection(&self, id: ConnectionId, reason: &str) -> bool {
        let mut connections = self.connections.lock();
        let Some(record) = connections.get_mut(&id) else { return false };
        self.send_away(record, reason);
        true
    }

    /// Tells a connection to go, once.
    pub(crate) fn send_away(&self, record: &mut ConnectionRecord, reason: &str) {
        if record.leaves_by_ms.is_none() {
            record.leaves_by_ms = Some(self.clock_ms().saturating_add(LEAVE_MS));
            self.leaving.fetch_add(1, Ordering::Relaxed);
            record.outbox.push(Event::Closing { reason: reason.into(), shutdown: false });
        }
    }

    /// Cuts the connections that were told to go and have not.
    pub(crate) fn cut_connections(&self, now_ms: u64) {
        if self.leaving.load(Ordering::Relaxed) == 0 {
            return;
        }
        let connections = self.connections.lock();
        let leaving =
            connections.values().filter_map(|record| Some((record, record.leaves_by_ms?)));
        let mut left = 0;
        for (record, by_ms) in leaving {
            left += 1;
            if by_ms <= now_ms {
                record.outbox.evict();
            }
        }
        // Under the lock under which it grows.
        self.leaving.store(left, Ordering::Relaxed);
    }

    /// Has the counters of the protocol know what queues have delivered to a connection.
    pub(crate) fn collect_deliveries_of(&self, facts: &ConnectionFacts) -> Counted {
        let counted = facts.count();
        let counters = self.counters.protocol(facts.protocol);
        add(&counters.messages_delivered, counted.uncollected);
        counted
    }
}
