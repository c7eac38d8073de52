//! Conversations: real bytes of a client on one side, a broker played by the test on the other.

mod connecting;
mod delivering;
mod publishing;
mod subscribing;
mod transactions;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use polymq_contract::{
    Answer, Command, Consume, DeclareQueue, Delivery, Effects, Event, EventBatch, Login, Matched,
    Peer, Protocol, ProtocolSession, Publish, PublishOutcome, Refusal, RefusalKind, Transaction,
    Transport,
};
use polymq_model::{
    ConsumerId, Durability, Limits, Message, NewMessage, Now, PublisherId, QueueName, Seq,
    UserName, VhostName, message::Body,
};

use crate::{Settings, Stomp, convert::STOMP};

/// When every conversation begins, in ms since 1970.
const BEGINNING_MS: u64 = 1_700_000_000_000;

/// A frame of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    command: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Said {
    /// The header as it stands on the wire.
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

struct World {
    session: Box<dyn ProtocolSession>,
    effects: Effects,
    input: BytesMut,
    now: Now,
    /// What the session ordered, those answered by the world too.
    orders: Vec<Command>,
    /// Refusals to come, by the name of the command.
    refusals: Vec<(&'static str, RefusalKind)>,
    /// Publishes are confirmed when the test says so.
    holds_confirms: bool,
    /// Commits are answered when the test says so.
    holds_commits: bool,
    events: EventBatch,
}

impl World {
    fn new() -> Self {
        Self::with(Settings::default(), Limits::default())
    }

    fn with(settings: Settings, limits: Limits) -> Self {
        let peer = Peer {
            account: None,
            offers_tls: false,
            address: None,
            local: None,
            is_loopback: true,
            tls: None,
            transport: Transport::Stream,
            listener: "test".into(),
            vhost: VhostName::new("/").unwrap(),
        };
        let now = Now { instant: Instant::now(), unix_ms: BEGINNING_MS };
        Self {
            session: Stomp::new(settings).session(&Arc::new(peer), &Arc::new(limits), now),
            effects: Effects::default(),
            input: BytesMut::new(),
            now,
            orders: Vec::new(),
            refusals: Vec::new(),
            holds_confirms: false,
            holds_commits: false,
            events: EventBatch::default(),
        }
    }

    /// A client that is connected with this version.
    fn connected(version: &str) -> Self {
        Self::new().connect(version)
    }

    fn connect(mut self, version: &str) -> Self {
        self.send(&format!(
            "CONNECT\naccept-version:{version}\nhost:/\nlogin:guest\npasscode:guest\n\n\0"
        ));
        let connected = self.one();
        assert_eq!(connected.command, "CONNECTED", "{connected:?}");
        assert!(matches!(self.orders.pop(), Some(Command::EnterChannel { .. })));
        self.orders.clear();
        self
    }

    fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes());
    }

    fn send_bytes(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.turn();
    }

    /// What the driver does until nothing moves.
    fn turn(&mut self) {
        loop {
            if self.effects.close.is_some() {
                return;
            }
            self.effects.waiting = false;
            self.session.on_bytes(&mut self.input, self.now, &mut self.effects);
            self.obey();
            if self.events.is_empty() {
                return;
            }
            let mut events = std::mem::take(&mut self.events);
            self.session.on_events(&mut events, self.now, &mut self.effects);
            self.obey();
        }
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
        let mut events = std::mem::take(&mut self.events);
        self.session.on_events(&mut events, self.now, &mut self.effects);
        self.obey();
        self.turn();
    }

    fn obey(&mut self) {
        for command in std::mem::take(&mut self.effects.commands) {
            self.oblige(&command);
            self.orders.push(command);
        }
    }

    fn oblige(&mut self, command: &Command) {
        let (name, answer) = match command {
            Command::Authenticate { .. } => ("authenticate", authenticated()),
            Command::OpenVhost { .. } => ("open", Answer::VhostOpened),
            Command::DeclareQueue(declare) => {
                let name = if declare.queue.is_empty() { "amq.gen-1" } else { &declare.queue };
                let queue = QueueName::new(name).unwrap();
                ("declare", Answer::QueueDeclared { queue, messages: 0, consumers: 0 })
            }
            Command::FindQueue { .. } => ("find", Answer::Done),
            Command::BindQueue(_) => ("bind", Answer::Done),
            Command::Consume(_) => ("consume", Answer::Consuming { reply_name: None }),
            Command::Cancel { .. } => ("cancel", Answer::Done),
            Command::DeleteQueue { .. } => ("delete", Answer::QueueDeleted { messages: 0 }),
            Command::Commit(_) if !self.holds_commits => ("commit", Answer::Done),
            Command::Publish(publish) if publish.number > 0 && !self.holds_confirms => {
                let event = confirmed(publish.number, PublishOutcome::Routed(Durability::Sync));
                return self.events.push(event);
            }
            _ => return,
        };
        let Some(request) = command.request() else { return };
        let refusal = self.refusals.iter().position(|(refused, _)| *refused == name);
        let answer = match refusal {
            Some(at) => {
                let (_, kind) = self.refusals.remove(at);
                Err(Refusal::new(kind, format!("no {name}")))
            }
            None => Ok(answer),
        };
        self.events.push(Event::Answered { request, answer: Box::new(answer) });
    }

    fn refuse(&mut self, command: &'static str, kind: RefusalKind) {
        self.refusals.push((command, kind));
    }

    /// Everything the server has said.
    fn said(&mut self) -> Vec<Said> {
        let bytes = self.effects.out.take_all();
        let mut rest: &[u8] = &bytes;
        let mut frames = Vec::new();
        loop {
            while let [b'\n', tail @ ..] = rest {
                rest = tail;
            }
            if rest.is_empty() {
                return frames;
            }
            frames.push(take_frame(&mut rest));
        }
    }

    fn one(&mut self) -> Said {
        let mut said = self.said();
        assert_eq!(said.len(), 1, "{said:?}");
        said.remove(0)
    }

    /// The one ERROR, behind which the connection ends.
    fn error(&mut self) -> Said {
        let error = self.said().pop().expect("a frame");
        assert_eq!(error.command, "ERROR", "{error:?}");
        assert!(self.effects.close.is_some());
        error
    }

    fn receipts(&mut self) -> Vec<String> {
        let id = |said: Said| {
            assert_eq!(said.command, "RECEIPT", "{said:?}");
            said.get("receipt-id").unwrap().to_owned()
        };
        self.said().into_iter().map(id).collect()
    }

    fn publishes(&mut self) -> Vec<Publish> {
        let orders = std::mem::take(&mut self.orders);
        orders
            .into_iter()
            .filter_map(|order| match order {
                Command::Publish(publish) => Some(publish),
                _ => None,
            })
            .collect()
    }

    fn published(&mut self) -> Publish {
        let mut publishes = self.publishes();
        assert_eq!(publishes.len(), 1, "{publishes:?}");
        publishes.remove(0)
    }

    fn declares(&mut self) -> Vec<DeclareQueue> {
        let orders = std::mem::take(&mut self.orders);
        orders
            .into_iter()
            .filter_map(|order| match order {
                Command::DeclareQueue(declare) => Some(*declare),
                _ => None,
            })
            .collect()
    }

    fn consume(&self) -> Consume {
        let found = self.orders.iter().rev().find_map(|order| match order {
            Command::Consume(consume) => Some((**consume).clone()),
            _ => None,
        });
        found.expect("a consumer")
    }

    fn commit(&mut self) -> Transaction {
        let at = self.orders.iter().rposition(|order| matches!(order, Command::Commit(_)));
        match self.orders.remove(at.expect("a commit")) {
            Command::Commit(commit) => *commit,
            _ => unreachable!(),
        }
    }

    fn deliver(&mut self, consumer: ConsumerId, number: u64, message: Message) {
        self.event(Event::Delivered(delivery(consumer, number, message)));
    }

    fn pass(&mut self, ms: u64) {
        self.now.instant += Duration::from_millis(ms);
        self.now.unix_ms += ms;
        let due = self.session.next_timeout().is_some_and(|t| t.at <= self.now.instant);
        if due {
            self.session.on_timeout(self.now, &mut self.effects);
            self.obey();
        }
    }

    fn is_closed(&self) -> bool {
        self.effects.close.is_some()
    }
}

fn take_frame(rest: &mut &[u8]) -> Said {
    let mut line = || {
        let end = rest.iter().position(|byte| *byte == b'\n').expect("an end of line");
        let text = String::from_utf8(rest[..end].to_vec()).unwrap();
        *rest = &rest[end + 1..];
        text
    };
    let command = line();
    let mut headers = Vec::new();
    loop {
        let text = line();
        if text.is_empty() {
            break;
        }
        let (name, value) = text.split_once(':').expect("a header");
        headers.push((name.to_owned(), value.to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = match length {
        Some((_, value)) => value.parse().unwrap(),
        None => rest.iter().position(|byte| *byte == 0).unwrap(),
    };
    let body = rest[..length].to_vec();
    assert_eq!(rest[length], 0);
    *rest = &rest[length + 1..];
    Said { command, headers, body }
}

fn authenticated() -> Answer {
    let user = UserName::new("guest").unwrap();
    Answer::Authenticated { user, impersonator: false, server_final: Vec::new() }
}

fn confirmed(number: u64, outcome: PublishOutcome) -> Event {
    let (first, last) = (number, number);
    Event::Confirmed { publisher: PublisherId(0), first, last, outcome }
}

fn delivery(consumer: ConsumerId, number: u64, message: Message) -> Delivery {
    Delivery {
        consumer,
        redelivered: false,
        acquired: 0,
        failed: 0,
        number,
        seq: Seq(number),
        matched: Matched::default(),
        message,
    }
}

/// A message that came over STOMP with these kept lines.
fn message(exchange: &str, key: &str, lines: &str, body: &[u8]) -> Message {
    NewMessage {
        format: &STOMP,
        exchange,
        key,
        props: lines.as_bytes(),
        body: Body::Slice(body),
        durable: false,
        priority: None,
        qos: 0,
        retain: false,
        deadline_ms: 0,
        arrived_ms: BEGINNING_MS,
        extra_keys: Vec::new(),
    }
    .build(&mut Vec::new())
}
