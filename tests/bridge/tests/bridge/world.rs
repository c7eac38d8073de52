//! A broker in memory, and connections without sockets. The only place that touches the API.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::BytesMut;
use polymq_amqp091::Amqp091;
use polymq_broker::{
    AcceptEverybody, BrokerHandle, Browse, Parts, PermissionRecord, Principal, UserRecord,
};
use polymq_contract::{
    Broker, Command, Connection, DisconnectCause, Effects, Event, EventBatch, Mechanisms, Offer,
    Outbox, Peer, Protocol, ProtocolSession, Transport,
};
use polymq_json::Json;
use polymq_memory::MemoryStore;
use polymq_model::{
    Formats, Limits, Message, Now, UserName, VhostName,
    carry::{Explained, Outcome},
};
use polymq_mqtt::Mqtt;
use polymq_stomp::Stomp;
use polymq_store::{Capabilities, Committer, Durability, OwnerId, ShardId, Store, wait};
use polymq_xmpp::{Settings, Xmpp};

/// Users that may do everything; none may speak for another.
pub(crate) const USERS: [&str; 3] = ["guest", "u1", "u2"];

/// The domain of XMPP users.
pub(crate) const DOMAIN: &str = "d";

/// When every world begins, in ms since 1970.
const BEGINNING_MS: u64 = 1_700_000_000_000;

/// Turns of one connection after which it is taken to be running in circles.
const TURNS_MAX: usize = 10_000;

#[derive(Clone)]
pub(crate) struct World(Rc<RefCell<State>>);

struct State {
    store: Arc<MemoryStore>,
    broker: BrokerHandle,
    amqp: Amqp091,
    mqtt: Mqtt,
    stomp: Stomp,
    xmpp: Xmpp,
    json: Json,
    limits: Arc<Limits>,
    started: Instant,
    now_ms: u64,
    /// Numbers of spans, while messages are traced.
    spans: Option<Arc<AtomicU64>>,
    links: Vec<Link>,
}

/// One connection: what the driver would hold, with buffers in place of the socket.
struct Link {
    session: Box<dyn ProtocolSession>,
    connection: Box<dyn Connection>,
    outbox: Arc<Outbox>,
    /// Sent by the client and not yet read.
    unread: BytesMut,
    input: BytesMut,
    batch: EventBatch,
    effects: Effects,
    resume: bool,
    spans: Option<Arc<AtomicU64>>,
    /// For the client.
    sent: BytesMut,
    is_open: bool,
}

#[derive(Clone, Copy)]
pub(crate) enum Speaks {
    Amqp,
    Mqtt,
    Stomp,
    Xmpp,
    Json,
}

impl World {
    pub(crate) fn new() -> Self {
        // What is told of durability is told of a store that has a disk.
        let batch_bytes_max = u64::from(u32::MAX);
        let capabilities = Capabilities { durable: true, weaker_classes: true, batch_bytes_max };
        let store = Arc::new(MemoryStore::posing_as(capabilities));
        Self(Rc::new(RefCell::new(State::over(store, BEGINNING_MS))))
    }

    /// Stops without a word, as a kill does, and starts again on what the store has. All
    /// connections are gone.
    pub(crate) fn restart(&self) {
        let state = &mut *self.0.borrow_mut();
        state.links.iter_mut().for_each(|link| link.is_open = false);
        state.broker.committer().kick();
        *state = State::over(state.store.clone(), state.now_ms);
    }

    /// From now on connections that are opened put their publishes and deliveries into spans of
    /// their own, as the server does between the sessions and the broker.
    pub(crate) fn trace(&self) {
        self.0.borrow_mut().spans = Some(Arc::new(AtomicU64::new(1)));
    }

    /// Opens a connection that has sent nothing yet, and returns its number.
    pub(crate) fn open(&self, speaks: Speaks) -> usize {
        let state = &mut *self.0.borrow_mut();
        let outbox = Arc::new(Outbox::new(state.limits.outbox_bytes_max));
        let peer = Arc::new(Peer {
            address: None,
            local: None,
            is_loopback: true,
            tls: None,
            offers_tls: false,
            account: None,
            transport: match speaks {
                Speaks::Json => Transport::Messages,
                _ => Transport::Stream,
            },
            listener: "test".into(),
            vhost: VhostName::new("/").unwrap(),
        });
        let protocol: &dyn Protocol = match speaks {
            Speaks::Amqp => &state.amqp,
            Speaks::Mqtt => &state.mqtt,
            Speaks::Stomp => &state.stomp,
            Speaks::Xmpp => &state.xmpp,
            Speaks::Json => &state.json,
        };
        let mut session = protocol.session(&peer, &state.limits, state.now());
        session.on_open(&outbox);
        state.links.push(Link {
            session,
            connection: state.broker.connect(protocol.name(), &peer, &outbox).unwrap(),
            outbox,
            unread: BytesMut::new(),
            input: BytesMut::new(),
            batch: EventBatch::default(),
            effects: Effects::default(),
            resume: false,
            spans: state.spans.clone(),
            sent: BytesMut::new(),
            is_open: true,
        });
        state.links.len() - 1
    }

    /// The client sends bytes; everything that follows from them happens before this returns.
    pub(crate) fn send(&self, link: usize, bytes: &[u8]) {
        let state = &mut *self.0.borrow_mut();
        state.links[link].unread.extend_from_slice(bytes);
        state.run();
    }

    /// What the server has sent since the last call.
    pub(crate) fn receive(&self, link: usize) -> BytesMut {
        self.0.borrow_mut().links[link].sent.split()
    }

    pub(crate) fn is_open(&self, link: usize) -> bool {
        self.0.borrow().links[link].is_open
    }

    /// The client's socket breaks.
    pub(crate) fn cut(&self, link: usize) {
        let state = &mut *self.0.borrow_mut();
        let now = state.now();
        state.links[link].end(DisconnectCause::PeerGone, now);
        state.run();
    }

    /// Lets time pass.
    pub(crate) fn pass(&self, ms: u64) {
        let state = &mut *self.0.borrow_mut();
        state.now_ms += ms;
        state.broker.tick(state.now());
        state.run();
    }

    /// Gives every connection its turns, after something has happened behind their backs.
    pub(crate) fn settle(&self) {
        self.0.borrow_mut().run();
    }

    /// What administrates the broker.
    pub(crate) fn broker(&self) -> BrokerHandle {
        self.0.borrow().broker.clone()
    }

    /// A counter of the AMQP sessions.
    pub(crate) fn amqp_count(&self, name: &str) -> u64 {
        count(&self.0.borrow().amqp, name)
    }

    /// A counter of the MQTT sessions.
    pub(crate) fn mqtt_count(&self, name: &str) -> u64 {
        count(&self.0.borrow().mqtt, name)
    }

    /// A counter of the STOMP sessions.
    pub(crate) fn stomp_count(&self, name: &str) -> u64 {
        count(&self.0.borrow().stomp, name)
    }

    /// A counter of the XMPP sessions.
    pub(crate) fn xmpp_count(&self, name: &str) -> u64 {
        count(&self.0.borrow().xmpp, name)
    }

    /// Conversions from one form to another, by the names of the forms.
    pub(crate) fn conversions(&self, from: &str, to: &str) -> u64 {
        let state = self.0.borrow();
        let protocols: [&dyn Protocol; 4] = [&state.amqp, &state.mqtt, &state.stomp, &state.xmpp];
        let pairs = protocols.iter().flat_map(|protocol| protocol.counters().conversions.all());
        let pairs = pairs.filter(|pair| (pair.from, pair.to) == (from, to));
        pairs.map(|pair| pair.messages.value()).sum()
    }

    /// The time, in ms since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        self.0.borrow().now_ms
    }

    /// How well the store was to keep the latest batch.
    pub(crate) fn last_wanted(&self) -> Option<Durability> {
        self.0.borrow().store.faults().last_wanted()
    }

    /// What XMPP tells of a message, now.
    pub(crate) fn explained_for_xmpp(&self, message: &Message) -> Vec<Explained> {
        let state = self.0.borrow();
        state.xmpp.explain(message, state.now_ms).expect("XMPP tells by itself")
    }

    /// The only message of a queue.
    pub(crate) fn queued(&self, queue: &str) -> Message {
        let state = self.0.borrow();
        let who = Principal::of_user(UserName::new("guest").unwrap());
        let vhost = VhostName::new("/").unwrap();
        let found = state.broker.browse(&who, &vhost, queue, &Browse::default(), state.now());
        let mut messages = found.unwrap().messages;
        assert_eq!(messages.len(), 1, "{queue}");
        messages.remove(0).message
    }

    /// Ready messages of a queue; `None` when there is no such queue.
    pub(crate) fn ready(&self, queue: &str) -> Option<u64> {
        let views = self.0.borrow().broker.queues();
        let view = views.into_iter().find(|view| view.name.as_str() == queue)?;
        Some(view.counts.ready)
    }
}

/// A counter of a protocol, or how many fields were dropped for the reason of this name.
fn count(protocol: &dyn Protocol, name: &str) -> u64 {
    let counters = protocol.counters();
    if let Some(why) = Outcome::ALL.iter().find(|outcome| outcome.label() == name) {
        return counters.conversions.dropped(*why);
    }
    let all = counters.read();
    all.iter().find(|(known, _)| *known == name).expect("the counter is known").1
}

/// Puts a message of a trace into a span of its own.
fn in_span(spans: Option<&Arc<AtomicU64>>, message: &mut Message) {
    let Some(spans) = spans else { return };
    if let Some(context) = message.trace_context() {
        let span = spans.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        *message = message.in_span(&context, span);
    }
}

fn xmpp_settings() -> Settings {
    let random = AtomicU64::new(1);
    Settings {
        domain: DOMAIN.to_owned(),
        stanza_bytes_max: 1024 * 1024,
        resume_timeout: Duration::from_secs(300),
        ping_after: Duration::ZERO,
        offer: Offer::new(Mechanisms {
            plain: true,
            plain_in_clear: polymq_contract::PasswordsInClear::Anywhere,
            scram_sha_1: false,
            scram_sha_256: false,
            external: false,
        }),
        entropy: Box::new(move |bytes: &mut [u8]| {
            let number = random.fetch_add(1, Ordering::Relaxed).to_le_bytes();
            bytes.iter_mut().zip(number).for_each(|(byte, random)| *byte = random);
        }),
    }
}

impl State {
    fn over(store: Arc<MemoryStore>, now_ms: u64) -> Self {
        let dyn_store: Arc<dyn Store> = store.clone();
        let opened = wait(|reply| store.open(ShardId(0), OwnerId::default(), reply)).unwrap();
        let (amqp, mqtt, stomp) = (Amqp091::default(), Mqtt::default(), Stomp::default());
        let (xmpp, json) = (Xmpp::new(xmpp_settings()), Json::new("test"));
        let limits = Arc::new(Limits::default());
        let random = AtomicU64::new(1);
        let broker = BrokerHandle::new(Parts {
            committer: Committer::new(dyn_store.clone(), ShardId(0), &opened),
            formats: Formats::new(
                [amqp.formats(), mqtt.formats(), stomp.formats(), xmpp.formats(), json.formats()]
                    .concat(),
            ),
            limits: limits.clone(),
            authenticator: Arc::new(AcceptEverybody),
            entropy: Box::new(move |bytes: &mut [u8]| {
                let number = random.fetch_add(1, Ordering::Relaxed).to_le_bytes();
                bytes.iter_mut().zip(number).for_each(|(byte, random)| *byte = random);
            }),
            share_expiry_ms: 86_400_000,
            durability: Durability::Sync,
            skips_damage: false,
        });
        let started = Instant::now();
        let (links, spans) = (Vec::new(), None);
        broker.serve_mailboxes(DOMAIN);
        let state = Self {
            store,
            broker,
            amqp,
            mqtt,
            stomp,
            xmpp,
            json,
            limits,
            started,
            now_ms,
            spans,
            links,
        };
        state.broker.recover(&opened, &dyn_store, state.now()).unwrap();
        let vhost = VhostName::new("/").unwrap();
        state.broker.create_vhost(vhost.clone());
        for user in USERS {
            let user = UserName::new(user).unwrap();
            let record = UserRecord {
                password_hash: String::new(),
                scram: String::new(),
                tags: Vec::new(),
                loopback_only: false,
            };
            state.broker.put_user(user.clone(), record, true);
            let all = PermissionRecord::all();
            state.broker.put_permission(vhost.clone(), user, all, true).unwrap();
        }
        state
    }

    fn now(&self) -> Now {
        let passed = Duration::from_millis(self.now_ms - BEGINNING_MS);
        Now { instant: self.started + passed, unix_ms: self.now_ms }
    }

    /// Gives every connection its turns until nothing moves any more.
    fn run(&mut self) {
        let now = self.now();
        for _ in 0..TURNS_MAX {
            let mut moved = false;
            for link in &mut self.links {
                moved |= link.is_open && link.turn(now);
            }
            if !moved {
                return;
            }
        }
        panic!("the connections do not come to rest");
    }
}

impl Link {
    /// True when something moved.
    fn turn(&mut self, now: Now) -> bool {
        if self.outbox.is_evicted() {
            self.end(DisconnectCause::Timeout, now);
            return true;
        }
        let mut moved = self.outbox.take_nudge();
        if moved {
            self.connection.on_room(now);
        }
        moved |= self.take_events(now);
        let may_read = !self.effects.waiting && self.connection.may_read();
        if self.resume || (may_read && !self.unread.is_empty()) {
            if may_read {
                self.input.unsplit(self.unread.split());
            }
            self.resume = false;
            self.effects.waiting = false;
            self.session.on_bytes(&mut self.input, now, &mut self.effects);
            self.execute(now);
            moved = true;
        }
        if self.session.next_timeout().is_some_and(|timeout| timeout.at <= now.instant) {
            self.session.on_timeout(now, &mut self.effects);
            self.execute(now);
            moved = true;
        }
        self.sent.extend_from_slice(&self.effects.out.take_all());
        if self.effects.close.take().is_some() {
            self.end(DisconnectCause::Session, now);
            moved = true;
        }
        moved
    }

    fn take_events(&mut self, now: Now) -> bool {
        if self.batch.is_empty() {
            self.outbox.take(&mut self.batch);
        }
        let before = self.batch.len();
        if before == 0 {
            return false;
        }
        let spans = self.spans.as_ref();
        for event in self.batch.iter_mut() {
            if let Event::Delivered(delivery) = event {
                in_span(spans, &mut delivery.message);
            }
        }
        self.session.on_events(&mut self.batch, now, &mut self.effects);
        let room = self.outbox.release(&mut self.batch);
        self.execute(now);
        if room {
            self.connection.on_room(now);
        }
        self.resume |= self.effects.waiting;
        true
    }

    fn execute(&mut self, now: Now) {
        for command in &mut self.effects.commands {
            if let Command::Publish(publish) = command {
                in_span(self.spans.as_ref(), &mut publish.message);
            }
        }
        if !self.effects.commands.is_empty() {
            self.connection.execute(&mut self.effects.commands, now);
        }
    }

    fn end(&mut self, cause: DisconnectCause, now: Now) {
        if !std::mem::replace(&mut self.is_open, false) {
            return;
        }
        self.session.on_disconnect(cause, &mut self.effects);
        self.execute(now);
        self.outbox.close();
        self.connection.disconnect(cause, now);
    }
}
