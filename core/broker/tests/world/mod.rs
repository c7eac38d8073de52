//! A broker with connections that are driven by hand. The only place of these tests that touches
//! the API.
#![allow(dead_code, reason = "each test file uses a part of the world")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use polymq_broker::{
    AcceptEverybody, Authenticator, BrokerHandle, Conversation, HashReply, LoginReply, LoginStep,
    Parts, PermissionRecord, Principal, UserRecord,
};
use polymq_contract::{
    Answer, BindExchange, BindQueue, Broker, Command, Connection, Consume, DeclareExchange,
    DeclareQueue, Delivery, DeliveryRange, DisconnectCause, Event, EventBatch, Login,
    OpenClientSession, OpenedClientSession, Outbox, Outcome, Peer, Publish, Refusal, RefusalKind,
    Secret, Settlement, Subscription, SubscriptionTarget, TlsPeer, Transport, Will,
};
use polymq_memory::MemoryStore;
use polymq_model::{
    ConsumerId, Formats, Limits, Message, NewMessage, Now, Properties, PublisherId, RequestId,
    Table, UserName, Value, VhostName,
    format::{Format, FormatId, PLAIN_FORMAT},
    message::Body,
    properties::Ident,
};
use polymq_store::{Capabilities, Committer, OwnerId, ShardId, Store, wait};

pub(crate) struct World {
    pub(crate) broker: BrokerHandle,
    pub(crate) store: Arc<MemoryStore>,
    started: Instant,
    now_ms: u64,
    wall_ahead_ms: i64,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub(crate) fn with_limits(limits: Limits) -> Self {
        Self::over(Arc::new(MemoryStore::new()), limits, 1_000_000, false)
    }

    /// A broker on a store that says what it can.
    pub(crate) fn on(capabilities: Capabilities) -> Self {
        let store = Arc::new(MemoryStore::posing_as(capabilities));
        Self::over(store, Limits::default(), 1_000_000, false)
    }

    fn over(store: Arc<MemoryStore>, limits: Limits, now_ms: u64, skips_damage: bool) -> Self {
        let dyn_store: Arc<dyn Store> = store.clone();
        let opened = wait(|reply| dyn_store.open(ShardId(0), OwnerId::default(), reply)).unwrap();
        let authenticator = Arc::new(AcceptTokens::default());
        let broker = BrokerHandle::new(Parts {
            committer: Committer::new(dyn_store.clone(), ShardId(0), &opened),
            formats: Formats::new([&TABLE_FORMAT]),
            limits: Arc::new(limits),
            authenticator: authenticator.clone(),
            entropy: Box::new(counting_entropy()),
            share_expiry_ms: 86_400_000,
            durability: polymq_store::Durability::Sync,
            skips_damage,
        });
        authenticator.0.set(broker.clone()).ok();
        let started = Instant::now();
        let world = Self { broker, store, started, now_ms, wall_ahead_ms: 0 };
        world.broker.recover(&opened, &dyn_store, world.now()).unwrap();
        let vhost = VhostName::new("/").unwrap();
        world.broker.create_vhost(vhost.clone());
        for user in ["guest", "other"] {
            let user = UserName::new(user).unwrap();
            let record = UserRecord {
                password_hash: String::new(),
                scram: String::new(),
                tags: Vec::new(),
                loopback_only: false,
            };
            world.broker.put_user(user.clone(), record, true);
            let all = PermissionRecord::all();
            world.broker.put_permission(vhost.clone(), user, all, true).unwrap();
        }
        world
    }

    /// Stops without a word, as a kill does, and starts again on what the store has.
    pub(crate) fn restart(self) -> Self {
        self.restart_with(Limits::default())
    }

    pub(crate) fn restart_with(self, limits: Limits) -> Self {
        self.broker.committer().kick();
        Self::over(self.store, limits, self.now_ms, false)
    }

    /// Starts again as a broker whose queues go on behind damaged messages.
    pub(crate) fn restart_skipping_damage(self) -> Self {
        self.broker.committer().kick();
        Self::over(self.store, Limits::default(), self.now_ms, true)
    }

    /// What the store has kept of definitions, as text. The broker cannot write afterwards.
    pub(crate) fn stored_definitions(&self) -> Vec<(String, String)> {
        let store: Arc<dyn Store> = self.store.clone();
        let opened = wait(|reply| store.open(ShardId(0), OwnerId::default(), reply)).unwrap();
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        opened.metas.iter().map(|(key, _, value)| (key.to_string(), text(value))).collect()
    }

    pub(crate) fn now(&self) -> Now {
        let unix_ms = self.now_ms.saturating_add_signed(self.wall_ahead_ms);
        Now { instant: self.started + Duration::from_millis(self.now_ms), unix_ms }
    }

    /// Has the wall clock jump by so many ms.
    pub(crate) fn jump(&mut self, ms: i64) {
        self.wall_ahead_ms += ms;
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.broker.tick(self.now());
    }

    pub(crate) fn connect(&self) -> Client {
        self.connect_as("guest")
    }

    pub(crate) fn connect_as(&self, user: &str) -> Client {
        self.try_connect_as(user).expect("the virtual host opens")
    }

    /// Connects, and opens the virtual host if that is granted.
    pub(crate) fn try_connect_as(&self, user: &str) -> Result<Client, Refusal> {
        self.try_connect_to(None, user)
    }

    /// Logs in without a connection, as HTTP does.
    pub(crate) fn log_in(&self, user: &str) -> Result<Principal, Refusal> {
        let login = Login::Password { user: user.to_owned(), password: Secret::new(b"x".to_vec()) };
        self.log_in_by(login)
    }

    pub(crate) fn log_in_by(&self, login: Login) -> Result<Principal, Refusal> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let reply = move |principal| sender.send(principal).unwrap();
        self.broker.log_in("http", login, &peer(None), reply);
        receiver.recv().unwrap()
    }

    /// Connects with an API token.
    pub(crate) fn connect_with_token(&self, token: &str) -> Result<Client, Refusal> {
        let password = Secret::new(token.as_bytes().to_vec());
        self.connect_by(None, Login::Password { user: String::new(), password }, None)
    }

    /// Connects with a client certificate that ends then.
    pub(crate) fn connect_with_certificate(
        &self,
        user: &str,
        until_ms: u64,
    ) -> Result<Client, Refusal> {
        let tls = TlsPeer { certificate_until_ms: Some(until_ms), ..TlsPeer::default() };
        self.connect_by(None, Login::Certificate { identity: user.to_owned() }, Some(tls))
    }

    /// Connects, and opens the virtual host of this name, or the usual one.
    pub(crate) fn try_connect_to(
        &self,
        vhost: Option<&str>,
        user: &str,
    ) -> Result<Client, Refusal> {
        let password = Secret::new(b"x".to_vec());
        self.connect_by(vhost, Login::Password { user: user.to_owned(), password }, None)
    }

    fn connect_by(
        &self,
        vhost: Option<&str>,
        login: Login,
        tls: Option<TlsPeer>,
    ) -> Result<Client, Refusal> {
        let outbox = Arc::new(Outbox::new(1024 * 1024));
        let connection = self.broker.connect("amqp", &peer(tls), &outbox).unwrap();
        let mut client =
            Client { connection, outbox, now: self.now(), next: 0, seen: EventBatch::default() };
        let mut login = Some(Box::new(login));
        client.try_ask(|request| Command::Authenticate {
            request,
            login: login.take().expect("it is asked once"),
        })?;
        let vhost = vhost.map(str::to_owned);
        client.try_ask(|request| Command::OpenVhost { request, vhost })?;
        Ok(client)
    }
}

fn peer(tls: Option<TlsPeer>) -> Arc<Peer> {
    Arc::new(Peer {
        address: None,
        local: None,
        is_loopback: true,
        tls: tls.map(Arc::new),
        offers_tls: false,
        account: None,
        transport: Transport::Stream,
        listener: "test".into(),
        vhost: VhostName::new("/").unwrap(),
    })
}

/// Accepts anybody under the name they give, and tokens that the broker has made.
#[derive(Default)]
struct AcceptTokens(std::sync::OnceLock<BrokerHandle>);

impl Authenticator for AcceptTokens {
    fn step(
        &self,
        conversation: &Arc<Conversation>,
        login: Login,
        peer: &Arc<Peer>,
        reply: LoginReply,
    ) {
        let token = match &login {
            Login::Password { user, password } if user.is_empty() => password,
            _ => return AcceptEverybody.step(conversation, login, peer, reply),
        };
        let found = self.0.get().and_then(|broker| broker.check_token(token.expose()));
        reply(match found {
            Some((user, grant)) => {
                Ok(LoginStep::Done { user, server_final: Vec::new(), grant: Some(grant) })
            }
            None => Err(Refusal::new(RefusalKind::LoginFailed, "a wrong token")),
        });
    }

    fn hash(&self, password: Secret, reply: HashReply) {
        AcceptEverybody.hash(password, reply);
    }
}

/// Messages with headers, which lie in the properties as JSON. `@id` is the message id.
pub(crate) static TABLE_FORMAT: Format =
    Format { id: FormatId(250), name: "table", decode: decode_table };

fn decode_table(message: &Message) -> Properties {
    let headers: Table = serde_json::from_slice(message.native_props()).unwrap();
    let id = polymq_model::value::find(&headers, "@id").and_then(Value::as_str);
    let id = id.map(|id| Ident::Text(id.to_owned()));
    Properties { id, headers, ..Properties::of_head(message) }
}

/// A message with headers.
pub(crate) fn with_headers(exchange: &str, key: &str, headers: &[(&str, Value)]) -> Message {
    let table: Table = headers.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
    let props = serde_json::to_vec(&table).unwrap().leak();
    NewMessage { format: &TABLE_FORMAT, props, ..message(exchange, key, "m") }
        .build(&mut Vec::new())
}

/// Every call gives other bytes, and every run the same.
fn counting_entropy() -> impl Fn(&mut [u8]) + Send + Sync {
    let count = std::sync::atomic::AtomicU64::new(1);
    move |bytes| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let spread = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        bytes.iter_mut().zip(spread.to_le_bytes()).for_each(|(byte, random)| *byte = random);
    }
}

pub(crate) struct Client {
    connection: Box<dyn Connection>,
    pub(crate) outbox: Arc<Outbox>,
    now: Now,
    next: u32,
    seen: EventBatch,
}

impl Client {
    pub(crate) fn send(&mut self, command: Command) {
        self.connection.execute(&mut vec![command], self.now);
    }

    pub(crate) fn may_read(&self) -> bool {
        self.connection.may_read()
    }

    pub(crate) fn send_all(&mut self, mut commands: Vec<Command>) {
        self.connection.execute(&mut commands, self.now);
    }

    pub(crate) fn at(&mut self, world: &World) -> &mut Self {
        self.now = world.now();
        self
    }

    /// Executes a request and returns its answer; events before it are dropped.
    pub(crate) fn try_ask(
        &mut self,
        command: impl FnOnce(RequestId) -> Command,
    ) -> Result<Answer, Refusal> {
        self.next += 1;
        let wanted = RequestId(self.next);
        self.send(command(wanted));
        self.answer_to(wanted).expect("every request is answered")
    }

    pub(crate) fn answer_to(&mut self, wanted: RequestId) -> Option<Result<Answer, Refusal>> {
        while let Some(event) = self.event() {
            if let Event::Answered { request, answer } = event
                && request == wanted
            {
                return Some(*answer);
            }
        }
        None
    }

    pub(crate) fn ask(&mut self, command: impl FnOnce(RequestId) -> Command) -> Answer {
        self.try_ask(command).expect("the request is granted")
    }

    /// Does what a nudge asks for, as the connection's task does when it wakes up.
    pub(crate) fn wake(&mut self) -> &mut Self {
        if self.outbox.take_nudge() {
            self.connection.on_room(self.now);
        }
        self
    }

    pub(crate) fn event(&mut self) -> Option<Event> {
        if self.seen.is_empty() {
            self.outbox.take(&mut self.seen);
        }
        let event = self.seen.pop();
        if self.outbox.release(&mut self.seen) || self.outbox.take_nudge() {
            self.connection.on_room(self.now);
        }
        event
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.event()).collect()
    }

    /// Deliveries that have arrived, as (consumer, number, body).
    pub(crate) fn deliveries(&mut self) -> Vec<Delivery> {
        self.events()
            .into_iter()
            .flat_map(|event| match event {
                Event::Delivered(delivery) => vec![delivery],
                Event::Broadcast { consumer, matched, batch } => batch
                    .messages()
                    .iter()
                    .map(|message| Delivery {
                        consumer,
                        redelivered: false,
                        acquired: 0,
                        failed: 0,
                        number: 0,
                        seq: polymq_model::Seq(0),
                        matched: matched.clone(),
                        message: message.clone(),
                    })
                    .collect(),
                _ => Vec::new(),
            })
            .collect()
    }

    pub(crate) fn bodies(&mut self) -> Vec<String> {
        self.deliveries().iter().map(|d| body_of(&d.message)).collect()
    }

    pub(crate) fn exchange(&mut self, name: &str, kind: &str) {
        self.ask(|request| declare_exchange(request, name, kind));
    }

    pub(crate) fn queue(&mut self, name: &str) {
        self.queue_with(name, &[]);
    }

    pub(crate) fn queue_with(&mut self, name: &str, arguments: &[(&str, Value)]) {
        self.ask(|request| declare_queue(request, name, arguments));
    }

    pub(crate) fn bind(&mut self, exchange: &str, queue: &str, key: &str) {
        self.ask(|request| {
            Command::BindQueue(Box::new(BindQueue {
                request,
                queue: queue.to_owned(),
                exchange: exchange.to_owned(),
                key: key.to_owned(),
                arguments: Vec::new(),
            }))
        });
    }

    pub(crate) fn bind_exchange(&mut self, source: &str, destination: &str, key: &str) {
        self.ask(|request| {
            Command::BindExchange(Box::new(BindExchange {
                request,
                destination: destination.to_owned(),
                source: source.to_owned(),
                key: key.to_owned(),
                arguments: Vec::new(),
            }))
        });
    }

    pub(crate) fn consume(&mut self, queue: &str, consumer: u32, prefetch: u32) {
        let consume = consume_of(queue, consumer, prefetch);
        self.try_ask(|request| Command::Consume(Box::new(Consume { request, ..consume })))
            .expect("consuming is granted");
    }

    pub(crate) fn publish(&mut self, exchange: &str, key: &str, body: &str) {
        self.send(publish(exchange, key, body, 0));
    }

    pub(crate) fn settle(&mut self, consumer: u32, first: u64, last: u64, outcome: Outcome) {
        self.send(Command::Settle(Settlement {
            consumer: ConsumerId(consumer),
            deliveries: DeliveryRange { first, last },
            outcome,
            note: None,
        }));
    }

    pub(crate) fn get(&mut self, queue: &str) -> Option<String> {
        self.next += 1000;
        let consumer = ConsumerId(self.next);
        let queue = queue.to_owned();
        let answer = self.ask(|request| Command::Get { request, queue, no_ack: true, consumer });
        match answer {
            Answer::Got { delivery, .. } => delivery.map(|d| body_of(&d.message)),
            other => panic!("unexpected {other:?}"),
        }
    }

    pub(crate) fn open(&mut self, open: OpenClientSession) -> Box<OpenedClientSession> {
        let mut open = Some(Box::new(open));
        let answer = self.ask(|request| {
            let mut open = open.take().unwrap();
            open.request = request;
            Command::OpenClientSession(open)
        });
        match answer {
            Answer::ClientSession(opened) => opened,
            other => panic!("unexpected {other:?}"),
        }
    }

    pub(crate) fn subscribe(&mut self, filter: &str, qos: u8) {
        let subscription = topic_subscription(filter, qos);
        self.subscribe_with(subscription);
    }

    pub(crate) fn subscribe_with(&mut self, subscription: Subscription) {
        self.next += 1;
        let request = RequestId(self.next);
        self.send(Command::Subscribe {
            request,
            subscription: Box::new(subscription),
            resume: false,
        });
    }

    pub(crate) fn disconnect(mut self) {
        self.connection.disconnect(DisconnectCause::PeerGone, self.now);
    }
}

pub(crate) fn consume_of(queue: &str, consumer: u32, prefetch: u32) -> Consume {
    Consume {
        request: RequestId(1_000_000),
        consumer: ConsumerId(consumer),
        queue: queue.to_owned(),
        no_ack: false,
        exclusive: false,
        prefetch,
        group: 1,
        tag: String::new(),
        arguments: Vec::new(),
    }
}

pub(crate) fn topic_subscription(filter: &str, qos: u8) -> Subscription {
    let mut pattern = String::new();
    polymq_model::topic::swap_separators(filter, &mut pattern);
    Subscription {
        filter: filter.to_owned(),
        target: SubscriptionTarget::Topic { exchange: "amq.topic".to_owned(), pattern },
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
        id: None,
        consumer: ConsumerId(0),
        arguments: Vec::new(),
    }
}

pub(crate) fn session(client_id: &str, clean_start: bool, expiry_secs: u32) -> OpenClientSession {
    OpenClientSession {
        request: RequestId(0),
        client_id: Some(client_id.to_owned()),
        clean_start,
        expiry_secs,
        receive_max: 100,
        will: None,
    }
}

pub(crate) fn will(message: Message, delay_secs: u32) -> Option<Will> {
    Some(Will { message, delay_secs })
}

pub(crate) fn declare_exchange(request: RequestId, name: &str, kind: &str) -> Command {
    Command::DeclareExchange(Box::new(DeclareExchange {
        request,
        exchange: name.to_owned(),
        kind: kind.to_owned(),
        passive: false,
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: Vec::new(),
    }))
}

pub(crate) fn declare_queue(
    request: RequestId,
    name: &str,
    arguments: &[(&str, Value)],
) -> Command {
    let arguments: Table = arguments.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
    Command::DeclareQueue(Box::new(DeclareQueue {
        request,
        queue: name.to_owned(),
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        arguments,
    }))
}

pub(crate) fn message(exchange: &str, key: &str, body: &str) -> NewMessage<'static> {
    NewMessage {
        format: &PLAIN_FORMAT,
        exchange: Box::leak(exchange.to_owned().into_boxed_str()),
        key: Box::leak(key.to_owned().into_boxed_str()),
        props: &[],
        body: Body::Slice(Box::leak(body.to_owned().into_boxed_str()).as_bytes()),
        durable: true,
        priority: None,
        qos: 1,
        retain: false,
        deadline_ms: 0,
        arrived_ms: 0,
        extra_keys: Vec::new(),
    }
}

pub(crate) fn publish(exchange: &str, key: &str, body: &str, number: u64) -> Command {
    publish_of(message(exchange, key, body).build(&mut Vec::new()), number)
}

pub(crate) fn publish_of(message: Message, number: u64) -> Command {
    Command::Publish(Publish {
        publisher: PublisherId(1),
        number,
        mandatory: false,
        received: None,
        delay: None,
        message,
    })
}

pub(crate) fn body_of(message: &Message) -> String {
    String::from_utf8(message.body().to_vec()).unwrap()
}

pub(crate) fn kind_of(answer: Result<Answer, Refusal>) -> RefusalKind {
    answer.expect_err("a refusal is expected").kind
}
