//! The broker's side of one connection: one line per command, each operation in the file of its
//! subject.

mod address;
mod client;
mod confirms;
mod consume;
mod failed;
mod inspect;
mod login;
mod parking;
mod publish;
mod rights;
mod routes;
mod topology;
mod traced;
mod transaction;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use polymq_contract::{
    Answer, Command, Connection, DisconnectCause, Event, OpenClientSession, Outbox, Peer, Refusal,
    RefusalKind,
};
use polymq_model::{ClientNumber, ConnectionId, ConsumerId, Now, PublisherId, RequestId};
use polymq_store::ShardBatch;

use crate::{
    chance::Chance,
    client_session::ClientSession,
    core::Core,
    counters::{SIZE_CLASSES, add, protocol_index},
    login::Conversation,
    queue::{Group, Queue},
    statistics::Activity,
    tenants::Seat,
    vhost::Vhost,
    view::ConnectionFacts,
};
use confirms::Ended;
use consume::{Get, Held};
use failed::Channels;
use login::Identity;
use parking::Parked;
use publish::Run;
use routes::RouteCache;

/// The broker's side of one connection.
pub(crate) struct BrokerConnection {
    core: Arc<Core>,
    id: ConnectionId,
    /// Tells "mine" for no-local: that of the client session, once there is one.
    number: ClientNumber,
    protocol: usize,
    peer: Arc<Peer>,
    outbox: Arc<Outbox>,
    identity: Arc<Identity>,
    conversation: Arc<Conversation>,
    vhost: Option<Arc<Vhost>>,
    /// What the connection counts for, from the opening of a virtual host to the end.
    seat: Option<Seat>,
    consumers: HashMap<ConsumerId, Held>,
    /// What others are shown of it.
    facts: Arc<ConnectionFacts>,
    /// The channel that the commands come from.
    speaking: Arc<Group>,
    exclusive: Vec<Arc<Queue>>,
    reply_names: Vec<String>,
    client: Option<Arc<ClientSession>>,
    opening: Option<Box<OpenClientSession>>,
    getting: Option<Box<Get>>,
    routes: RouteCache,
    /// The version of the rights that everything here was asked for under.
    rights: u64,
    chance: Chance,
    run: Run,
    /// Runs of the transaction that is being committed.
    laid_aside: Vec<Run>,
    channels: Channels,
    parked: Parked,
    ended: Vec<Ended>,
    /// Answers wait for this batch: those before them do.
    wait_for: Option<ShardBatch>,
    answered_up_to: Option<ShardBatch>,
    unconfirmed: Arc<AtomicUsize>,
    unconfirmed_new: usize,
    /// The latest batch that holds a publish of the call that is under way.
    appended: Option<ShardBatch>,
    publishes: bool,
    /// The client wants to hear where its publishes go.
    tells_places: bool,
    /// Limits of connections do not count it.
    is_visit: bool,
    tally: Tally,
    gone: bool,
}

/// Counts of one call of `execute`, added to the shared counters at its end.
#[derive(Default)]
struct Tally {
    received: u64,
    received_bytes: u64,
    sizes: [u32; SIZE_CLASSES],
    confirmed: u64,
    direct: u64,
    acknowledged: u64,
    returned: u64,
    rejected: u64,
    unrouted: u64,
    /// Those of them that went back to their publishers.
    bounced: u64,
    refused: u64,
    /// Publishes that ask for a confirm.
    asked: u64,
}

impl BrokerConnection {
    pub(crate) fn new(
        core: Arc<Core>,
        facts: Arc<ConnectionFacts>,
        protocol: &'static str,
        peer: Arc<Peer>,
        outbox: Arc<Outbox>,
    ) -> Self {
        let number = ClientNumber(core.next_client());
        let chance = Chance::new(core.chance.next());
        let rights = core.access.version();
        Self {
            core,
            id: facts.id,
            number,
            protocol: protocol_index(protocol),
            peer,
            outbox,
            identity: Arc::default(),
            conversation: Arc::default(),
            vhost: None,
            seat: None,
            consumers: HashMap::new(),
            speaking: facts.group(0),
            facts,
            exclusive: Vec::new(),
            reply_names: Vec::new(),
            client: None,
            opening: None,
            getting: None,
            routes: RouteCache::default(),
            rights,
            chance,
            run: Run::default(),
            laid_aside: Vec::new(),
            channels: Channels::default(),
            parked: Parked::default(),
            ended: Vec::new(),
            wait_for: None,
            answered_up_to: None,
            unconfirmed: Arc::default(),
            unconfirmed_new: 0,
            appended: None,
            publishes: false,
            tells_places: false,
            is_visit: false,
            tally: Tally::default(),
            gone: false,
        }
    }

    /// Executes what is no publish, and everything of a channel that has failed.
    fn run_command(&mut self, command: Command, now: Now) {
        if self.channels.is_void() {
            return self.pass_over(command, now);
        }
        match command {
            Command::Settle(settlement) => return self.settle(settlement, now),
            Command::EnterChannel { publisher: p, channel: c } => return self.enter_channel(p, c),
            _ => {}
        }
        // Everything else sees the world after the publishes before it.
        self.finish_run(now);
        match command {
            Command::Publish(_) | Command::Settle(_) | Command::EnterChannel { .. } => {}
            Command::LeaveChannel { publisher } => self.leave_channel(publisher),
            Command::Authenticate { request, login } => self.authenticate(request, *login),
            Command::OpenVhost { request, vhost } => self.open_vhost(request, vhost),
            Command::OpenChannel { .. }
            | Command::CloseChannel { .. }
            | Command::DescribeChannel { .. }
            | Command::Introduce(_) => self.present(command),
            Command::TellPlaces => self.tells_places = true,
            Command::Visit => self.is_visit = true,
            Command::DeclareExchange(declare) => self.declare_exchange(&declare),
            Command::DeleteExchange { request, exchange, if_unused } => {
                self.delete_exchange(request, &exchange, if_unused);
            }
            Command::BindExchange(bind) => self.bind_exchange(&bind, true),
            Command::UnbindExchange(bind) => self.bind_exchange(&bind, false),
            Command::DeclareQueue(declare) => self.declare_queue(*declare, now),
            Command::DeleteQueue { request, queue, if_unused, if_empty } => {
                self.delete_queue(request, &queue, if_unused, if_empty);
            }
            Command::PurgeQueue { request, queue } => self.purge_queue(request, &queue),
            Command::BindQueue(bind) => self.bind_queue(&bind, true),
            Command::UnbindQueue(bind) => self.bind_queue(&bind, false),
            Command::FindQueue { .. }
            | Command::ListQueues { .. }
            | Command::ListBindings { .. }
            | Command::PauseQueue { .. }
            | Command::Recall { .. }
            | Command::ListTopics { .. }
            | Command::ReadDocument { .. }
            | Command::WriteDocument { .. } => self.inspect(command, now),
            Command::Consume(consume) => self.consume(*consume, now),
            Command::Cancel { request, consumer } => self.cancel(request, consumer, now),
            Command::Release { consumers } => self.release(&consumers, now),
            Command::Get { request, queue, no_ack, consumer } => {
                self.get(request, &queue, no_ack, consumer, now);
            }
            Command::SetGroupPrefetch { group, prefetch } => {
                self.set_group_prefetch(group, prefetch, now);
            }
            Command::Commit(transaction) => self.commit(transaction, now),
            Command::OpenClientSession(open) => self.open_client_session(open, now),
            Command::Subscribe { request, subscription, resume } => {
                self.subscribe(request, &subscription, resume, now);
            }
            Command::Unsubscribe { request, filter } => self.unsubscribe(request, &filter, now),
            Command::ReleaseReceived { request, packet_id } => {
                self.release_received(request, packet_id);
            }
            Command::KeepInFlight { request, in_flight } => {
                self.keep_in_flight(request, &in_flight);
            }
            Command::ForgetInFlight { packet_id } => self.forget_in_flight(packet_id),
            Command::CloseClientSession { in_flight, will, expiry_secs } => {
                self.close_client_session(Some(in_flight), will, expiry_secs, now);
            }
        }
    }

    /// Answers a request, once `batch` is durable and everything before has been answered.
    fn answer(
        &mut self,
        request: RequestId,
        answer: Result<Answer, Refusal>,
        batch: Option<ShardBatch>,
    ) {
        if let Err(refusal) = &answer {
            self.core.counters.add_refusals(refusal.kind, 1);
        }
        let event = Event::Answered { request, answer: Box::new(answer) };
        let durable = self.core.committer.durable();
        let batch = batch.max(self.answered_up_to).filter(|batch| *batch > durable);
        self.answered_up_to = batch;
        let Some(batch) = batch else { return self.outbox.push(event) };
        self.wait_for = self.wait_for.max(Some(batch));
        let outbox = self.outbox.clone();
        self.core.committer.when_durable(batch, move |result| match result {
            Ok(()) => outbox.push(event),
            Err(error) => outbox.push(Event::Answered {
                request,
                answer: Box::new(Err(Refusal::new(
                    RefusalKind::StoreFailed,
                    format!("the store did not take it: {error}"),
                ))),
            }),
        });
    }

    fn open_host(&self) -> Result<Arc<Vhost>, Refusal> {
        self.vhost.clone().ok_or_else(not_open)
    }

    /// What every turn ends with: publishes are handed over, and confirms are told or waited for.
    fn finish_execution(&mut self, now: Now) {
        self.finish_run(now);
        self.settle_confirms();
        if self.wait_for.take().is_some() {
            self.core.committer.kick();
        }
        self.add_tally();
    }

    fn enter_channel(&mut self, publisher: PublisherId, channel: u32) {
        if self.speaking.channel != channel {
            self.add_tally();
            self.speaking = self.facts.group(channel);
        }
        self.speaking.publisher.store(publisher.0, Ordering::Relaxed);
        self.channels.enter(publisher);
    }

    fn leave_channel(&mut self, channel: PublisherId) {
        self.channels.leave(channel);
        self.outlive_channel(channel);
    }

    fn add_tally(&mut self) {
        let tally = std::mem::take(&mut self.tally);
        let counters = self.core.counters.at(self.protocol);
        add(&counters.messages_received, tally.received);
        add(&counters.bytes_received, tally.received_bytes);
        if tally.received > 0 {
            self.core.counters.add_sizes(&tally.sizes);
            add(&self.core.counters.total.publishes_to_confirm, tally.asked);
        }
        add(&counters.messages_confirmed, tally.confirmed);
        add(&counters.messages_delivered, tally.direct);
        add(&counters.messages_acknowledged, tally.acknowledged);
        add(&counters.messages_returned, tally.returned);
        add(&counters.messages_rejected, tally.rejected);
        add(&counters.messages_unrouted, tally.unrouted);
        add(&counters.publishes_refused, tally.refused);
        add(&self.core.counters.total.delivered_direct, tally.direct);
        add(&self.speaking.confirms_asked, tally.asked);
        let activity = Activity {
            confirmed: tally.confirmed,
            returned: tally.bounced,
            dropped: tally.unrouted - tally.bounced,
            ..Activity::default()
        };
        if let Some(vhost) = &self.vhost {
            vhost.activity.add(&activity);
        }
        // The channel's confirms count when they are told.
        self.speaking.activity.add(&Activity {
            published: tally.received,
            confirmed: 0,
            ..activity
        });
    }
}

fn not_open() -> Refusal {
    Refusal::new(RefusalKind::Denied, "no virtual host is open on this connection")
}

impl Connection for BrokerConnection {
    fn id(&self) -> ConnectionId {
        self.id
    }

    fn execute(&mut self, commands: &mut Vec<Command>, now: Now) {
        for command in commands.drain(..) {
            match command {
                Command::Publish(publish) if !self.channels.is_void() => self.publish(publish, now),
                command => self.run_command(command, now),
            }
        }
        self.finish_execution(now);
    }

    fn may_read(&self) -> bool {
        let unconfirmed = self.unconfirmed.load(Ordering::SeqCst);
        unconfirmed < self.core.limits.unconfirmed_bytes_max && !self.parked.is_full(&self.core)
    }

    fn on_room(&mut self, now: Now) {
        if let Some(open) = self.opening.take() {
            self.open_client_session(open, now);
        }
        self.recheck(now);
        self.get_again(now);
        self.dispatch_all(now);
        self.unpark(now);
    }

    fn secured(&mut self, peer: &Arc<Peer>) {
        self.facts.set_peer(peer.clone());
        self.peer = Arc::clone(peer);
    }

    fn disconnect(&mut self, cause: DisconnectCause, now: Now) {
        if std::mem::replace(&mut self.gone, true) {
            return;
        }
        self.finish_run(now);
        self.drop_parked_publishes();
        tracing::debug!(event = "disconnected", connection = self.id.0, cause = cause.as_str());
        self.close_client_session(None, true, None, now);
        let consumers: Vec<_> = self.consumers.keys().copied().collect();
        self.release(&consumers, now);
        if let Some(vhost) = self.vhost.clone() {
            let mut replies = vhost.replies.lock();
            for name in self.reply_names.drain(..) {
                replies.remove(&name);
            }
            drop(replies);
            for queue in std::mem::take(&mut self.exclusive) {
                self.core.remove_queue(&vhost, &queue, false, false).ok();
            }
        }
        self.seat = None;
        let who = self.identity.principal();
        if let Some(at_ms) = who.and_then(|who| who.until_ms()) {
            self.core.ends.lock().remove(&(at_ms, self.id));
        }
        self.add_tally();
        if let Some(vhost) = &self.vhost {
            let traffic = self.outbox.traffic().counts();
            vhost.past_traffic.add(traffic.bytes_in, traffic.bytes_out);
        }
        self.core.connections.lock().remove(&self.id);
        let left_open = self.facts.channels_open() as u64;
        add(&self.core.counters.total.channels_closed, left_open);
        self.core.collect_deliveries_of(&self.facts);
        add(&self.core.counters.at(self.protocol).connections_closed, 1);
    }
}
