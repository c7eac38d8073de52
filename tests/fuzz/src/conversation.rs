//! A session and a broker that answers everything, driven as the driver would.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use bytes::BytesMut;
use polymq_contract::{
    Answer, Command, Delivery, DisconnectCause, Effects, Event, EventBatch, ListedBinding,
    ListedQueue, Matched, OpenedClientSession, Outbox, Peer, Place, Protocol, ProtocolSession,
    Publish, PublishOutcome, Refusal, RefusalKind, SubscriptionTarget, Transport,
};
use polymq_model::{
    ConsumerId, Durability, Limits, Message, Now, RequestId, Seq, UserName, VhostName,
};

use crate::sight;

/// Output may exceed the input by what the server says unasked, and by its error texts.
const UNASKED_BYTES: usize = 8 * 1024;
/// Answers are at most this much longer than their requests.
const ANSWER_FACTOR: usize = 24;

/// One connection.
pub struct Conversation {
    session: Box<dyn ProtocolSession>,
    effects: Effects,
    input: BytesMut,
    now: Now,
    has_broker: bool,
    events: EventBatch,
    deliveries: u64,
    /// What other sessions, or this one to itself, have said.
    outbox: Arc<Outbox>,
    /// How much larger a message may be than what it came from.
    factor: usize,
    fed: usize,
    /// What the session wrote.
    pub output: Vec<u8>,
    /// What it ordered, as text that can be compared.
    pub orders: Vec<String>,
    /// What it published.
    pub published: Vec<Message>,
    /// Consumers and subscriptions it has opened.
    pub consumers: Vec<ConsumerId>,
}

impl Conversation {
    /// With a broker that answers.
    pub fn new(protocol: &dyn Protocol) -> Self {
        Self::with(protocol, true, Transport::Stream)
    }

    /// With a broker that says nothing.
    pub fn alone(protocol: &dyn Protocol) -> Self {
        Self::with(protocol, false, Transport::Stream)
    }

    /// Over messages of WebSocket.
    pub fn over_messages(protocol: &dyn Protocol, has_broker: bool) -> Self {
        Self::with(protocol, has_broker, Transport::Messages)
    }

    fn with(protocol: &dyn Protocol, has_broker: bool, transport: Transport) -> Self {
        static START: OnceLock<Instant> = OnceLock::new();
        let instant = *START.get_or_init(Instant::now);
        let now = Now { instant, unix_ms: 1_700_000_000_000 };
        let peer = Peer {
            address: None,
            local: None,
            is_loopback: true,
            tls: None,
            offers_tls: false,
            account: None,
            transport,
            listener: "fuzz".into(),
            vhost: VhostName::new("/").expect("a valid name"),
        };
        let outbox = Arc::new(Outbox::new(usize::MAX));
        let mut session = protocol.session(&Arc::new(peer), &Arc::new(Limits::default()), now);
        session.on_open(&outbox);
        // Markup that stands for one character is longer than that.
        let factor = if protocol.name() == "xmpp" { 12 } else { 2 };
        Self {
            outbox,
            factor,
            session,
            effects: Effects::default(),
            input: BytesMut::new(),
            now,
            has_broker,
            events: EventBatch::default(),
            deliveries: 0,
            fed: 0,
            output: Vec::new(),
            orders: Vec::new(),
            published: Vec::new(),
            consumers: Vec::new(),
        }
    }

    /// The client sends bytes; the broker answers where the session waits for it.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.fed = self.fed.saturating_add(bytes.len());
        self.input.extend_from_slice(bytes);
        while self.effects.close.is_none() {
            if std::mem::take(&mut self.effects.waiting) && !self.hear() {
                self.effects.waiting = true;
                break;
            }
            // As the driver does: a session only ever sets it.
            self.effects.waiting = false;
            self.session.on_bytes(&mut self.input, self.now, &mut self.effects);
            self.collect();
            if !self.effects.waiting {
                break;
            }
        }
    }

    /// The broker says what it has kept back: confirms and deliveries.
    pub fn settle(&mut self) {
        while self.effects.close.is_none() && self.hear() {
            self.feed(&[]);
        }
    }

    /// Hands over the events; false when there are none.
    fn hear(&mut self) -> bool {
        self.outbox.take(&mut self.events);
        if self.events.is_empty() {
            return false;
        }
        while !self.events.is_empty() && self.effects.close.is_none() {
            let mut events = std::mem::take(&mut self.events);
            let before = events.len();
            self.session.on_events(&mut events, self.now, &mut self.effects);
            let has_moved = events.len() < before;
            let new = std::mem::replace(&mut self.events, events);
            assert!(has_moved, "a session with an empty output leaves no event");
            self.collect();
            let mut new = new;
            while let Some(event) = new.pop() {
                self.events.push(event);
            }
        }
        true
    }

    /// The broker delivers a message to every consumer.
    pub fn deliver(&mut self, message: &Message) {
        for at in 0..self.consumers.len() {
            let Some(consumer) = self.consumers.get(at).copied() else { break };
            self.delivery(consumer, message.clone());
        }
        self.settle();
    }

    fn delivery(&mut self, consumer: ConsumerId, message: Message) {
        self.deliveries += 1;
        let number = self.deliveries;
        self.events.push(Event::Delivered(Delivery {
            consumer,
            redelivered: number.is_multiple_of(3),
            acquired: 0,
            failed: 0,
            number,
            seq: Seq(number),
            matched: Matched { qos: 1, ..Matched::default() },
            message,
        }));
    }

    /// The connection breaks. Whatever came before, the session is bounded by what it was fed.
    pub fn end(&mut self) {
        self.session.on_timeout(self.now, &mut self.effects);
        self.session.on_disconnect(DisconnectCause::PeerGone, &mut self.effects);
        self.collect();
    }

    /// Fails when the session wrote or ordered more than its input accounts for.
    pub fn is_bounded(&self) {
        let allowed = self.fed.saturating_mul(ANSWER_FACTOR).saturating_add(UNASKED_BYTES);
        let (fed, wrote) = (self.fed, self.output.len());
        assert!(wrote <= allowed, "{wrote} bytes of output for {fed} bytes of input");
        let orders = self.orders.len();
        assert!(orders <= fed + 8, "{orders} commands for {fed} bytes of input");
        let bodies: usize = self.published.iter().map(Message::size).sum();
        let headers = self.published.len().saturating_mul(512);
        assert!(
            bodies <= fed.saturating_mul(self.factor) + headers,
            "{bodies} bytes in {fed} bytes"
        );
        assert!(self.input.len() <= fed, "more is left than was sent");
    }

    /// What the peer and the broker can see of the session.
    pub fn visible(&self) -> (&[u8], &[String], Option<&'static str>) {
        (&self.output, &self.orders, self.effects.close.as_ref().map(|close| close.cause))
    }

    /// True while the session has not asked for the end of its connection.
    pub fn is_open(&self) -> bool {
        self.effects.close.is_none()
    }

    fn collect(&mut self) {
        self.output.extend_from_slice(&self.effects.out.take_all());
        for command in std::mem::take(&mut self.effects.commands) {
            self.orders.push(format!("{command:?}"));
            if self.has_broker {
                self.oblige(command);
            }
        }
    }

    fn oblige(&mut self, command: Command) {
        match command {
            Command::Publish(publish) => self.publish(publish),
            Command::Authenticate { request, .. } => {
                let user = UserName::new("guest").expect("a valid name");
                let answer =
                    Answer::Authenticated { user, impersonator: false, server_final: Vec::new() };
                self.answer(request, answer);
            }
            Command::OpenVhost { request, .. } => self.answer(request, Answer::VhostOpened),
            Command::OpenChannel { request, .. } => self.answer(request, Answer::Done),
            Command::DeclareExchange(declare) => self.perhaps(declare.request, Answer::Done),
            Command::BindExchange(bind) | Command::UnbindExchange(bind) => {
                self.perhaps(bind.request, Answer::Done);
            }
            Command::BindQueue(bind) | Command::UnbindQueue(bind) => {
                self.perhaps(bind.request, Answer::Done);
            }
            Command::DeleteExchange { request, .. } | Command::Cancel { request, .. } => {
                self.perhaps(request, Answer::Done);
            }
            Command::DeclareQueue(declare) => self.declare(declare.request, &declare.queue),
            Command::DeleteQueue { request, .. } => {
                self.perhaps(request, Answer::QueueDeleted { messages: 3 });
            }
            Command::PurgeQueue { request, .. } => {
                self.perhaps(request, Answer::QueuePurged { messages: 4 });
            }
            Command::Consume(consume) => {
                self.consumers.push(consume.consumer);
                let reply_name = consume.queue.starts_with("amq.rabbitmq").then(|| "r".to_owned());
                self.answer(consume.request, Answer::Consuming { reply_name });
            }
            Command::Get { request, .. } => {
                self.answer(request, Answer::Got { delivery: None, remaining: 0 });
            }
            Command::Commit(commit) => self.perhaps(commit.request, Answer::Done),
            Command::FindQueue { .. }
            | Command::ListQueues { .. }
            | Command::ListBindings { .. }
            | Command::PauseQueue { .. }
            | Command::Recall { .. }
            | Command::ListTopics { .. }
            | Command::ReadDocument { .. }
            | Command::WriteDocument { .. } => self.oblige_inspection(command),
            Command::KeepInFlight { request, .. }
            | Command::ReleaseReceived { request: Some(request), .. } => {
                self.perhaps(request, Answer::Done);
            }
            Command::OpenClientSession(_)
            | Command::Subscribe { .. }
            | Command::Unsubscribe { .. } => self.oblige_client(command),
            Command::Settle(_)
            | Command::Release { .. }
            | Command::SetGroupPrefetch { .. }
            | Command::ReleaseReceived { .. }
            | Command::ForgetInFlight { .. }
            | Command::EnterChannel { .. }
            | Command::LeaveChannel { .. }
            | Command::CloseChannel { .. }
            | Command::Introduce(_)
            | Command::DescribeChannel { .. }
            | Command::TellPlaces
            | Command::Visit
            | Command::CloseClientSession { .. } => {}
        }
    }

    fn declare(&mut self, request: RequestId, name: &str) {
        let name = if name.is_empty() { "made" } else { name };
        match polymq_model::QueueName::new(name) {
            Ok(queue) => {
                let answer = Answer::QueueDeclared { queue, messages: 1, consumers: 2 };
                self.perhaps(request, answer);
            }
            Err(_) => self.refuse(request, Refusal::new(RefusalKind::Invalid, "no such name")),
        }
    }

    /// The requests of XMPP.
    fn oblige_inspection(&mut self, command: Command) {
        match command {
            Command::FindQueue { request, .. }
            | Command::PauseQueue { request, .. }
            | Command::WriteDocument { request: Some(request), .. } => {
                self.perhaps(request, Answer::Done);
            }
            Command::ListQueues { request, .. } => {
                let name = polymq_model::QueueName::new("Q & q").expect("a valid name");
                let queues = vec![ListedQueue { name, messages: 1, consumers: 2 }];
                self.perhaps(request, Answer::Queues { queues, total: 1 });
            }
            Command::ListBindings { request, .. } => {
                let (exchange, key) = ("amq.topic".to_owned(), "a.#".to_owned());
                self.perhaps(request, Answer::Bindings(vec![ListedBinding { exchange, key }]));
            }
            Command::Recall { request, .. } => {
                self.perhaps(request, Answer::Recalled(Vec::new()));
            }
            Command::ListTopics { request, among, .. } => {
                self.perhaps(request, Answer::Topics(among.unwrap_or_default()));
            }
            Command::ReadDocument { request, .. } => {
                let (version, text) = (1, String::new());
                self.perhaps(request, Answer::Document { version, text });
            }
            _ => {}
        }
    }

    /// The requests of MQTT.
    fn oblige_client(&mut self, command: Command) {
        match command {
            Command::OpenClientSession(open) => {
                let opened = OpenedClientSession {
                    client_id: open.client_id.unwrap_or_else(|| "made".to_owned()),
                    present: false,
                    subscriptions: Vec::new(),
                    in_flight: Vec::new(),
                    received: Vec::new(),
                    unsure_before: Seq(0),
                };
                self.answer(open.request, Answer::ClientSession(Box::new(opened)));
            }
            Command::Subscribe { request, subscription, .. } => {
                let consumer = match subscription.target {
                    SubscriptionTarget::Topic { .. } => ConsumerId(0),
                    SubscriptionTarget::Share { .. } | SubscriptionTarget::Queue { .. } => {
                        subscription.consumer
                    }
                };
                if !self.consumers.contains(&consumer) {
                    self.consumers.push(consumer);
                }
                self.answer(request, Answer::Subscribed { existed: false });
            }
            Command::Unsubscribe { request, .. } => {
                self.perhaps(request, Answer::Unsubscribed { existed: true });
            }
            _ => {}
        }
    }

    fn publish(&mut self, publish: Publish) {
        let Publish { publisher, number, mandatory, message, .. } = publish;
        self.published.push(message.clone());
        if mandatory {
            self.events.push(Event::Returned { publisher, message });
        }
        if number > 0 {
            // Only sessions that ask hear of it; the others must pass it over.
            let place = match number % 3 {
                0 => Place::Scheduled(number),
                _ => Place::Queues(2),
            };
            self.events.push(Event::Placed { publisher, first: number, last: number, place });
            let outcome = match number % 5 {
                0 => PublishOutcome::Refused(RefusalKind::Full),
                1 => PublishOutcome::Unrouted,
                _ => PublishOutcome::Routed(Durability::Sync),
            };
            self.events.push(Event::Confirmed { publisher, first: number, last: number, outcome });
        }
    }

    /// Most requests succeed; some do not, so that refusals are seen too.
    fn perhaps(&mut self, request: RequestId, answer: Answer) {
        if request.0 % 7 == 6 {
            self.refuse(request, Refusal::new(RefusalKind::NotFound, "it is not there"));
        } else {
            self.answer(request, answer);
        }
    }

    fn answer(&mut self, request: RequestId, answer: Answer) {
        self.events.push(Event::Answered { request, answer: Box::new(Ok(answer)) });
    }

    fn refuse(&mut self, request: RequestId, refusal: Refusal) {
        self.events.push(Event::Answered { request, answer: Box::new(Err(refusal)) });
    }
}

/// Feeds `bytes` in one piece to one conversation and in pieces to another, and compares.
pub fn in_pieces(mut make: impl FnMut() -> Conversation, bytes: &[u8]) -> Conversation {
    let mut whole = make();
    whole.feed(bytes);
    whole.settle();
    whole.is_bounded();
    let mut pieces = make();
    let mut rest = bytes;
    let mut state = bytes.iter().fold(17_u64, |hash, byte| {
        hash.wrapping_mul(0x0100_0000_01B3).wrapping_add(u64::from(*byte))
    });
    while !rest.is_empty() {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let most = if state >> 62 == 0 { 1 } else { 40 };
        let len = usize::try_from(state >> 33).unwrap_or(0) % most + 1;
        let (piece, after) = rest.split_at(len.min(rest.len()));
        pieces.feed(piece);
        rest = after;
    }
    pieces.settle();
    let (output, orders, close) = whole.visible();
    sight::note("output", output);
    orders.iter().for_each(|order| sight::note("order", order.as_bytes()));
    sight::note("close", close.unwrap_or("open").as_bytes());
    assert_eq!(whole.visible(), pieces.visible(), "pieces differ from the whole");
    pieces.end();
    whole
}
