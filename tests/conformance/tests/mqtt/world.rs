//! One client connection, and a broker that answers as the test says.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use polymq_contract::{
    Answer, Broadcast, Command, Delivery, DisconnectCause, Effects, Event, EventBatch, InFlight,
    Login, Matched, OpenClientSession, OpenedClientSession, Peer, Protocol, ProtocolSession,
    Publish, PublishOutcome, Refusal, RefusalKind, Settlement, Subscription, Transport,
};
use polymq_model::{
    ConsumerId, Format, Limits, Message, NewMessage, Now, PublisherId, RequestId, Seq, UserName,
    VhostName, carry::Outcome, format::PLAIN_FORMAT, message::Body,
};
use polymq_mqtt::Mqtt;

/// A connection with its broker.
pub(crate) struct World {
    session: Box<dyn ProtocolSession>,
    pub(crate) mqtt: Mqtt,
    pub(crate) effects: Effects,
    input: BytesMut,
    pub(crate) now: Now,
    /// Commands that nobody has looked at.
    pub(crate) commands: Vec<Command>,
    /// What the next `OpenClientSession` is answered with.
    pub(crate) remembered: Remembered,
    /// Answer commands as a broker would that permits everything.
    pub(crate) obliging: bool,
    pub(crate) opened: Option<OpenClientSession>,
    /// Subscriptions of earlier connections are refused.
    pub(crate) refuses_resumed: Option<RefusalKind>,
}

/// What the broker remembers of a client.
#[derive(Default)]
pub(crate) struct Remembered {
    pub(crate) present: bool,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) in_flight: Vec<InFlight>,
    pub(crate) received: Vec<u16>,
    pub(crate) unsure_before: Seq,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub(crate) fn with_limits(limits: Limits) -> Self {
        Self::with_peer(limits, None)
    }

    pub(crate) fn with_peer(limits: Limits, tls: Option<Arc<polymq_contract::TlsPeer>>) -> Self {
        Self::speaking(Mqtt::default(), limits, tls)
    }

    pub(crate) fn speaking(
        mqtt: Mqtt,
        limits: Limits,
        tls: Option<Arc<polymq_contract::TlsPeer>>,
    ) -> Self {
        static START: OnceLock<Instant> = OnceLock::new();
        let instant = *START.get_or_init(Instant::now);
        let now = Now { instant, unix_ms: 1_700_000_000_000 };
        let peer = Peer {
            address: None,
            local: None,
            is_loopback: true,
            tls,
            offers_tls: false,
            account: None,
            transport: Transport::Stream,
            listener: "test".into(),
            vhost: VhostName::new("/").unwrap(),
        };
        let session = mqtt.session(&Arc::new(peer), &Arc::new(limits), now);
        Self {
            session,
            mqtt,
            effects: Effects::default(),
            input: BytesMut::new(),
            now,
            commands: Vec::new(),
            remembered: Remembered::default(),
            obliging: true,
            opened: None,
            refuses_resumed: None,
        }
    }

    /// A client of MQTT 3.1.1 that is connected.
    pub(crate) fn v4() -> Self {
        let mut world = Self::new();
        world.send(&connect_4("c"));
        assert_eq!(world.sent(), [0x20, 2, 0, 0]);
        world.commands.clear();
        world
    }

    /// A client of MQTT 5 that is connected.
    pub(crate) fn v5() -> Self {
        Self::v5_with(&[])
    }

    /// A client of MQTT 5 that is connected with these properties.
    pub(crate) fn v5_with(properties: &[u8]) -> Self {
        let mut world = Self::new();
        world.connect_5(properties);
        world
    }

    pub(crate) fn connect_5(&mut self, properties: &[u8]) {
        self.send(&connect_5("c", properties));
        let connack = self.sent();
        assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:x?}");
        self.commands.clear();
    }

    pub(crate) fn session(&mut self) -> &mut dyn ProtocolSession {
        &mut *self.session
    }

    /// The client sends bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.turn(EventBatch::default(), !self.effects.waiting);
    }

    /// The broker says something.
    pub(crate) fn event(&mut self, event: Event) {
        let mut events = EventBatch::default();
        events.push(event);
        self.turn(events, false);
    }

    /// What the driver does until nothing moves: input that was left is handed over again after
    /// events, when the session had asked to wait.
    fn turn(&mut self, mut events: EventBatch, mut has_bytes: bool) {
        loop {
            if !events.is_empty() {
                self.session.on_events(&mut events, self.now, &mut self.effects);
                has_bytes |= self.effects.waiting;
            }
            self.execute(&mut events);
            if std::mem::take(&mut has_bytes) && self.effects.close.is_none() {
                self.effects.waiting = false;
                self.session.on_bytes(&mut self.input, self.now, &mut self.effects);
            }
            self.execute(&mut events);
            if events.is_empty() {
                return;
            }
        }
    }

    fn execute(&mut self, events: &mut EventBatch) {
        let commands = std::mem::take(&mut self.effects.commands);
        for command in commands {
            if let (Some(kind), Command::Subscribe { request, resume: true, .. }) =
                (self.refuses_resumed, &command)
            {
                events.push(answered(*request, Err(Refusal::new(kind, "no"))));
            } else if self.obliging
                && let Some((request, answer)) = self.oblige(&command)
            {
                events.push(answered(request, Ok(answer)));
            }
            if let Command::OpenClientSession(open) = command {
                self.opened = Some(*open);
            } else {
                self.commands.push(command);
            }
        }
    }

    fn oblige(&mut self, command: &Command) -> Option<(RequestId, Answer)> {
        Some(match command {
            Command::Authenticate { request, login } => {
                let user = match &**login {
                    Login::Password { user, .. } => user.as_str(),
                    _ => "anonymous",
                };
                let user = UserName::new(user).unwrap();
                let (impersonator, server_final) = (false, Vec::new());
                (*request, Answer::Authenticated { user, impersonator, server_final })
            }
            Command::OpenVhost { request, .. } => (*request, Answer::VhostOpened),
            Command::OpenClientSession(open) => {
                let remembered = std::mem::take(&mut self.remembered);
                let opened = OpenedClientSession {
                    client_id: open.client_id.clone().unwrap_or_else(|| "made".to_owned()),
                    present: remembered.present,
                    subscriptions: remembered.subscriptions,
                    in_flight: remembered.in_flight,
                    received: remembered.received,
                    unsure_before: remembered.unsure_before,
                };
                (open.request, Answer::ClientSession(Box::new(opened)))
            }
            Command::KeepInFlight { request, .. }
            | Command::ReleaseReceived { request: Some(request), .. } => (*request, Answer::Done),
            Command::Subscribe { request, .. } => (*request, Answer::Subscribed { existed: false }),
            Command::Unsubscribe { request, .. } => {
                (*request, Answer::Unsubscribed { existed: true })
            }
            _ => return None,
        })
    }

    /// Bytes that have been written since the last look.
    pub(crate) fn sent(&mut self) -> Vec<u8> {
        self.effects.out.take_all().to_vec()
    }

    /// Commands since the last look.
    pub(crate) fn commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    /// The publishes since the last look; nothing else was commanded.
    pub(crate) fn publishes(&mut self) -> Vec<Publish> {
        let only = |command| match command {
            Command::Publish(publish) => publish,
            other => panic!("not a publish: {other:?}"),
        };
        self.commands().into_iter().map(only).collect()
    }

    /// The settlements since the last look; nothing else was commanded.
    pub(crate) fn settlements(&mut self) -> Vec<Settlement> {
        let only = |command| match command {
            Command::Settle(settlement) => settlement,
            other => panic!("not a settlement: {other:?}"),
        };
        self.commands().into_iter().map(only).collect()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.effects.close.is_some()
    }

    /// The connection ended with nothing to read but this DISCONNECT.
    #[track_caller]
    pub(crate) fn expect_disconnect(&mut self, reason: u8) {
        let sent = self.sent();
        assert!(self.is_closed(), "still open; sent {sent:x?}");
        assert_eq!(sent.first(), Some(&0xE0), "sent {sent:x?}");
        assert_eq!(sent.get(2).copied().unwrap_or(0), reason, "{:?}", self.effects.close);
    }

    /// The connection ended without a word.
    #[track_caller]
    pub(crate) fn expect_close(&mut self) {
        assert!(self.sent().is_empty());
        assert!(self.is_closed(), "still open");
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.unix_ms += u64::try_from(time.as_millis()).unwrap();
        if self.session.next_timeout().is_some_and(|timeout| timeout.at <= self.now.instant) {
            self.session.on_timeout(self.now, &mut self.effects);
        }
    }

    pub(crate) fn has_timeout(&self) -> bool {
        self.session.next_timeout().is_some()
    }

    /// The socket breaks; what the session still wants.
    pub(crate) fn drop_connection(&mut self) -> Vec<Command> {
        self.commands.clear();
        self.session.on_disconnect(DisconnectCause::PeerGone, &mut self.effects);
        std::mem::take(&mut self.effects.commands)
    }

    pub(crate) fn confirm(&mut self, first: u64, last: u64, outcome: PublishOutcome) {
        self.event(Event::Confirmed { publisher: PublisherId(0), first, last, outcome });
    }

    pub(crate) fn answer(&mut self, request: RequestId, answer: Result<Answer, Refusal>) {
        self.event(answered(request, answer));
    }

    pub(crate) fn refuse(&mut self, request: RequestId, kind: RefusalKind) {
        self.answer(request, Err(Refusal::new(kind, "no")));
    }

    pub(crate) fn deliver(&mut self, delivery: Delivery) {
        self.event(Event::Delivered(delivery));
    }

    pub(crate) fn broadcast(&mut self, matched: Matched, messages: Vec<Message>) {
        let batch = Arc::new(Broadcast::new(messages));
        self.event(Event::Broadcast { consumer: ConsumerId(1), matched, batch });
    }

    /// A counter, or how many fields were dropped for the reason of this name.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let counters = self.mqtt.counters();
        if let Some(why) = Outcome::ALL.into_iter().find(|outcome| outcome.label() == name) {
            return counters.conversions.dropped(why);
        }
        counters.read().into_iter().find(|(found, _)| *found == name).unwrap().1
    }
}

fn answered(request: RequestId, answer: Result<Answer, Refusal>) -> Event {
    Event::Answered { request, answer: Box::new(answer) }
}

/// A packet with a body shorter than 16,384 bytes.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap();
    let mut out = vec![first];
    if len < 128 {
        out.push(len as u8);
    } else {
        out.extend([(len & 0x7F) as u8 | 0x80, (len >> 7) as u8]);
    }
    out.extend(body);
    out
}

/// A string behind its length.
pub(crate) fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

/// Properties behind their length.
pub(crate) fn props(properties: &[u8]) -> Vec<u8> {
    [&[u8::try_from(properties.len()).unwrap()][..], properties].concat()
}

/// A user property.
pub(crate) fn user(name: &str, value: &str) -> Vec<u8> {
    [vec![0x26], text(name), text(value)].concat()
}

/// CONNECT of MQTT 3.1.1 with a clean session and a keep alive of a minute.
pub(crate) fn connect_4(client_id: &str) -> Vec<u8> {
    packet(0x10, &[text("MQTT"), vec![4, 2, 0, 60], text(client_id)].concat())
}

/// CONNECT of MQTT 5 with a clean start and a keep alive of a minute.
pub(crate) fn connect_5(client_id: &str, properties: &[u8]) -> Vec<u8> {
    let body = [text("MQTT"), vec![5, 2, 0, 60], props(properties), text(client_id)].concat();
    packet(0x10, &body)
}

/// PUBLISH of MQTT 3.1.1.
pub(crate) fn publish_4(flags: u8, topic: &str, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = text(topic);
    if flags & 6 != 0 {
        body.extend(packet_id.to_be_bytes());
    }
    body.extend(payload);
    packet(0x30 | flags, &body)
}

/// PUBLISH of MQTT 5.
pub(crate) fn publish_5(
    flags: u8,
    topic: &str,
    packet_id: u16,
    properties: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let mut body = text(topic);
    if flags & 6 != 0 {
        body.extend(packet_id.to_be_bytes());
    }
    body.extend(props(properties));
    body.extend(payload);
    packet(0x30 | flags, &body)
}

/// SUBSCRIBE of MQTT 3.1.1.
pub(crate) fn subscribe_4(packet_id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    for (filter, options) in filters {
        body.extend(text(filter));
        body.push(*options);
    }
    packet(0x82, &body)
}

/// SUBSCRIBE of MQTT 5.
pub(crate) fn subscribe_5(packet_id: u16, properties: &[u8], filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    body.extend(props(properties));
    for (filter, options) in filters {
        body.extend(text(filter));
        body.push(*options);
    }
    packet(0x82, &body)
}

/// A message on `amq.topic`, made by the broker.
pub(crate) fn message(key: &str, qos: u8, payload: &[u8]) -> Message {
    native(&PLAIN_FORMAT, "amq.topic", key, qos, &[], payload)
}

pub(crate) fn native(
    format: &'static Format,
    exchange: &str,
    key: &str,
    qos: u8,
    props: &[u8],
    payload: &[u8],
) -> Message {
    with_deadline(format, exchange, key, qos, props, payload, 0)
}

pub(crate) fn with_deadline(
    format: &'static Format,
    exchange: &str,
    key: &str,
    qos: u8,
    props: &[u8],
    payload: &[u8],
    deadline_ms: u64,
) -> Message {
    NewMessage {
        format,
        exchange,
        key,
        props,
        body: Body::Slice(payload),
        durable: qos > 0,
        priority: None,
        qos,
        retain: false,
        deadline_ms,
        arrived_ms: 1,
        extra_keys: Vec::new(),
    }
    .build(&mut Vec::new())
}

/// A delivery to a subscription of quality of service 2.
pub(crate) fn delivery(consumer: u32, number: u64, message: Message) -> Delivery {
    Delivery {
        consumer: ConsumerId(consumer),
        redelivered: false,
        acquired: 0,
        failed: 0,
        number,
        seq: Seq(100 + number),
        matched: Matched { qos: 2, ..Matched::default() },
        message,
    }
}

/// A client of MQTT 3.1 that is connected.
pub(crate) fn v31() -> World {
    let mut world = World::new();
    world.send(&packet(0x10, &[text("MQIsdp"), vec![3, 2, 0, 0], text("c")].concat()));
    assert_eq!(world.sent(), [0x20, 2, 0, 0]);
    world.commands.clear();
    world
}
