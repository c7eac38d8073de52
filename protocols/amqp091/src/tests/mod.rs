//! Scripted conversations with real bytes on both sides and the broker played by the test.

mod codec;
mod confirms;
mod conversion;
mod deliveries;
mod errors;
mod handshake;
mod publishing;
mod topology;

use std::{sync::Arc, time::Duration, time::Instant};

use amq_protocol::protocol::{AMQPClass, basic, channel, connection, parse_class};
use bytes::{Bytes, BytesMut};
use polymq_contract::{
    Answer, Close, Command, Delivery, Effects, Event, EventBatch, Matched, Peer, Protocol,
    ProtocolSession, Publish, Refusal, RefusalKind, Transport,
};
use polymq_model::{
    Body, ConsumerId, Limits, Message, NewMessage, Now, RequestId, Seq, Table, UserName, Value,
    VhostName,
};

use crate::{
    AMQP091, Amqp091,
    codec::{
        cold, frame,
        props::Props,
        table::{put_entry, put_table},
    },
};

/// A frame that the server sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Sent {
    Method(u16, AMQPClass),
    Header { channel: u16, body_bytes: u64, props: Vec<u8> },
    Body(u16, Vec<u8>),
    Heartbeat,
}

/// One client, one session, and a broker that does what the test says.
pub(crate) struct World {
    session: Box<dyn ProtocolSession>,
    input: BytesMut,
    pub(crate) effects: Effects,
    pub(crate) now: Now,
    /// Bytes of the server that have not been read by the test.
    unread: BytesMut,
}

pub(crate) fn peer() -> Peer {
    Peer {
        address: None,
        local: None,
        is_loopback: true,
        tls: None,
        offers_tls: false,
        account: None,
        transport: Transport::Stream,
        listener: "amqp".into(),
        vhost: VhostName::new("/").unwrap(),
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(peer(), Limits::default())
    }

    pub(crate) fn with(peer: Peer, limits: Limits) -> Self {
        let now = Now { instant: Instant::now(), unix_ms: 1_700_000_000_000 };
        let session = Amqp091::default().session(&Arc::new(peer), &Arc::new(limits), now);
        Self {
            session,
            input: BytesMut::new(),
            effects: Effects::default(),
            now,
            unread: BytesMut::new(),
        }
    }

    /// Begins again as a connection of this protocol.
    pub(crate) fn replace(&mut self, amqp: &Amqp091) {
        self.replace_for(amqp, peer());
    }

    pub(crate) fn replace_for(&mut self, amqp: &Amqp091, peer: Peer) {
        self.session = amqp.session(&Arc::new(peer), &Arc::default(), self.now);
    }

    /// A connection on which channel 1 is open.
    pub(crate) fn open() -> Self {
        let mut world = Self::new();
        world.log_in(&["consumer_cancel_notify", "connection.blocked"]);
        world.open_channel(1);
        world
    }

    pub(crate) fn open_with(limits: Limits) -> Self {
        let mut world = Self::with(peer(), limits);
        world.log_in(&[]);
        world.open_channel(1);
        world
    }

    pub(crate) fn log_in(&mut self, capabilities: &[&str]) {
        self.bytes(b"AMQP\x00\x00\x09\x01");
        self.method();
        self.start_ok("PLAIN", b"\x00guest\x00guest", capabilities);
        let request = self.request();
        self.answer(request, authenticated("guest"));
        self.method();
        self.tune_ok(2047, 131_072, 60);
        self.connection_open("/");
        let request = self.request();
        self.answer(request, Ok(Answer::VhostOpened));
        assert!(self.effects.logged_in);
        self.method();
    }

    pub(crate) fn start_ok(&mut self, mechanism: &str, response: &[u8], capabilities: &[&str]) {
        let has = capabilities.iter().map(|name| ((*name).to_owned(), Value::Bool(true))).collect();
        let properties: Table = vec![("capabilities".to_owned(), Value::Map(has))];
        let mut payload = vec![0, 10, 0, 11];
        put_table(&mut payload, &properties);
        payload.push(u8::try_from(mechanism.len()).unwrap());
        payload.extend_from_slice(mechanism.as_bytes());
        payload.extend_from_slice(&u32::try_from(response.len()).unwrap().to_be_bytes());
        payload.extend_from_slice(response);
        payload.extend_from_slice(b"\x05en_US");
        self.raw_method(0, &payload);
    }

    pub(crate) fn tune_ok(&mut self, channel_max: u16, frame_max: u32, heartbeat: u16) {
        let ok = connection::TuneOk { channel_max, frame_max, heartbeat };
        self.send(0, AMQPClass::Connection(connection::AMQPMethod::TuneOk(ok)));
    }

    pub(crate) fn connection_open(&mut self, vhost: &str) {
        let open = connection::Open { virtual_host: vhost.into() };
        self.send(0, AMQPClass::Connection(connection::AMQPMethod::Open(open)));
    }

    pub(crate) fn open_channel(&mut self, number: u16) {
        self.ask_for_channel(number);
        self.done();
        let expected = AMQPClass::Channel(channel::AMQPMethod::OpenOk(channel::OpenOk {}));
        assert_eq!(self.method(), (number, expected));
    }

    pub(crate) fn ask_for_channel(&mut self, number: u16) {
        self.send(number, AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})));
    }

    /// The client writes bytes.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        if !self.effects.waiting {
            self.read();
        }
    }

    /// The driver hands in what there is.
    fn read(&mut self) {
        self.effects.waiting = false;
        self.session.on_bytes(&mut self.input, self.now, &mut self.effects);
        self.unread.extend_from_slice(&self.effects.out.take_all());
    }

    pub(crate) fn raw_method(&mut self, channel: u16, payload: &[u8]) {
        let mut out = BytesMut::new();
        frame::put(&mut out, frame::METHOD, channel, payload);
        self.bytes(&out);
    }

    pub(crate) fn send(&mut self, channel: u16, class: AMQPClass) {
        let mut out = BytesMut::new();
        cold::put(&mut out, channel, &class);
        self.bytes(&out);
    }

    pub(crate) fn basic(&mut self, channel: u16, method: basic::AMQPMethod) {
        self.send(channel, AMQPClass::Basic(method));
    }

    /// The broker tells events; the driver then calls again with what input was left.
    pub(crate) fn events(&mut self, events: Vec<Event>) {
        let mut batch = EventBatch::default();
        events.into_iter().for_each(|event| batch.push(event));
        while !batch.is_empty() {
            self.session.on_events(&mut batch, self.now, &mut self.effects);
            self.unread.extend_from_slice(&self.effects.out.take_all());
        }
        if std::mem::take(&mut self.effects.waiting) {
            self.read();
        }
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.events(vec![event]);
    }

    pub(crate) fn answer(&mut self, request: RequestId, answer: Result<Answer, Refusal>) {
        assert!(self.effects.waiting, "no answer is awaited");
        self.event(Event::Answered { request, answer: Box::new(answer) });
    }

    /// Answers the request of the only command that waits.
    pub(crate) fn done(&mut self) {
        let request = self.request();
        self.answer(request, Ok(Answer::Done));
    }

    pub(crate) fn refuse(&mut self, kind: RefusalKind) {
        let request = self.request();
        self.answer(request, Err(Refusal::new(kind, "no")));
    }

    pub(crate) fn commands(&mut self) -> Vec<Command> {
        let is_news = |command: &Command| {
            !matches!(
                command,
                Command::EnterChannel { .. }
                    | Command::LeaveChannel { .. }
                    | Command::CloseChannel { .. }
                    | Command::Introduce(_)
                    | Command::DescribeChannel { .. }
            )
        };
        let commands = std::mem::take(&mut self.effects.commands);
        commands.into_iter().filter(is_news).collect()
    }

    /// The only command.
    pub(crate) fn command(&mut self) -> Command {
        let mut commands = self.commands();
        assert_eq!(commands.len(), 1, "one command expected: {commands:?}");
        commands.remove(0)
    }

    pub(crate) fn published(&mut self) -> Publish {
        match self.command() {
            Command::Publish(publish) => publish,
            other => panic!("publish expected, not {other:?}"),
        }
    }

    /// The request number of the only command.
    pub(crate) fn request(&mut self) -> RequestId {
        match self.command() {
            Command::Authenticate { request, .. }
            | Command::OpenVhost { request, .. }
            | Command::OpenChannel { request, .. }
            | Command::DeleteExchange { request, .. }
            | Command::DeleteQueue { request, .. }
            | Command::PurgeQueue { request, .. }
            | Command::Cancel { request, .. }
            | Command::Get { request, .. } => request,
            Command::DeclareExchange(declare) => declare.request,
            Command::BindExchange(bind) | Command::UnbindExchange(bind) => bind.request,
            Command::DeclareQueue(declare) => declare.request,
            Command::BindQueue(bind) | Command::UnbindQueue(bind) => bind.request,
            Command::Consume(consume) => consume.request,
            Command::Commit(commit) => commit.request,
            other => panic!("a request expected, not {other:?}"),
        }
    }

    /// The next frame from the server.
    pub(crate) fn next(&mut self) -> Option<Sent> {
        let frame = frame::split(&self.unread, usize::MAX).unwrap()?;
        let size = frame.size();
        let sent = match frame.kind {
            frame::METHOD => {
                let (rest, class) = parse_class(frame.payload).unwrap();
                assert!(rest.is_empty());
                Sent::Method(frame.channel, class)
            }
            frame::HEADER => {
                let header = crate::codec::hot::content_header(frame.payload).unwrap();
                Sent::Header {
                    channel: frame.channel,
                    body_bytes: header.body_bytes,
                    props: header.props.to_vec(),
                }
            }
            frame::BODY => Sent::Body(frame.channel, frame.payload.to_vec()),
            _ => Sent::Heartbeat,
        };
        let _ = self.unread.split_to(size);
        Some(sent)
    }

    pub(crate) fn all(&mut self) -> Vec<Sent> {
        std::iter::from_fn(|| self.next()).collect()
    }

    pub(crate) fn method(&mut self) -> (u16, AMQPClass) {
        match self.next() {
            Some(Sent::Method(channel, class)) => (channel, class),
            other => panic!("a method expected, not {other:?}"),
        }
    }

    pub(crate) fn basic_method(&mut self) -> basic::AMQPMethod {
        match self.method() {
            (_, AMQPClass::Basic(method)) => method,
            other => panic!("a method of basic expected, not {other:?}"),
        }
    }

    /// Method, properties and body of a delivery, get-ok or return.
    pub(crate) fn content(&mut self) -> (basic::AMQPMethod, Vec<u8>, Vec<u8>) {
        let method = self.basic_method();
        let Some(Sent::Header { body_bytes, props, .. }) = self.next() else {
            panic!("a content header expected")
        };
        let mut body = Vec::new();
        while (body.len() as u64) < body_bytes {
            let Some(Sent::Body(_, part)) = self.next() else { panic!("a body expected") };
            body.extend(part);
        }
        (method, props, body)
    }

    pub(crate) fn expect_nothing(&mut self) {
        assert_eq!(self.all(), vec![]);
    }

    /// The server closes channel 1 with this code, class and method.
    #[track_caller]
    pub(crate) fn expect_channel_close(&mut self, code: u16, method: (u16, u16)) -> String {
        let (number, class) = self.method();
        let AMQPClass::Channel(channel::AMQPMethod::Close(close)) = class else {
            panic!("channel.close expected, not {class:?}")
        };
        assert_eq!(
            (number, close.reply_code, close.class_id, close.method_id),
            (1, code, method.0, method.1)
        );
        close.reply_text.as_str().to_owned()
    }

    #[track_caller]
    pub(crate) fn expect_connection_close(&mut self, code: u16, method: (u16, u16)) -> String {
        let (number, class) = self.method();
        let AMQPClass::Connection(connection::AMQPMethod::Close(close)) = class else {
            panic!("connection.close expected, not {class:?}")
        };
        assert_eq!(
            (number, close.reply_code, close.class_id, close.method_id),
            (0, code, method.0, method.1)
        );
        close.reply_text.as_str().to_owned()
    }

    pub(crate) fn closed(&self) -> Option<&Close> {
        self.effects.close.as_ref()
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.unix_ms += u64::try_from(time.as_millis()).unwrap();
        self.session.on_timeout(self.now, &mut self.effects);
        self.unread.extend_from_slice(&self.effects.out.take_all());
    }

    pub(crate) fn next_timeout(&self) -> Option<polymq_contract::Timeout> {
        self.session.next_timeout()
    }

    /// Starts a consumer on channel 1 and returns its number.
    pub(crate) fn consume(&mut self, tag: &str, no_ack: bool) -> ConsumerId {
        self.basic(
            1,
            basic::AMQPMethod::Consume(basic::Consume {
                queue: "q".into(),
                consumer_tag: tag.into(),
                no_local: false,
                no_ack,
                exclusive: false,
                nowait: false,
                arguments: Default::default(),
            }),
        );
        let Command::Consume(consume) = self.command() else { panic!("consume expected") };
        self.answer(consume.request, Ok(Answer::Consuming { reply_name: None }));
        let ok = basic::ConsumeOk { consumer_tag: consume.tag.as_str().into() };
        assert_eq!(self.basic_method(), basic::AMQPMethod::ConsumeOk(ok));
        consume.consumer
    }

    /// Delivers `count` plain messages, numbered from `first`.
    pub(crate) fn deliver(&mut self, consumer: ConsumerId, first: u64, count: u64) {
        let events = (first..first + count).map(|n| Event::Delivered(delivery(consumer, n)));
        self.events(events.collect());
        self.all();
    }
}

pub(crate) fn authenticated(user: &str) -> Result<Answer, Refusal> {
    Ok(Answer::Authenticated {
        user: UserName::new(user).unwrap(),
        impersonator: false,
        server_final: Vec::new(),
    })
}

/// Bytes of a property list.
pub(crate) fn props(props: &Props<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    props.put(&mut out);
    out
}

/// The content of a headers table.
pub(crate) fn headers(table: &[(&str, Value)]) -> Vec<u8> {
    let mut out = Vec::new();
    table.iter().for_each(|(name, value)| put_entry(&mut out, name, value));
    out
}

/// Frames of a publish on a channel.
pub(crate) fn publish_frames(
    channel: u16,
    (exchange, key): (&str, &str),
    mandatory: bool,
    props: &[u8],
    bodies: &[&[u8]],
) -> Vec<u8> {
    let mut out = BytesMut::new();
    let mut payload = vec![0, 60, 0, 40, 0, 0];
    frame::put_short(&mut payload, exchange);
    frame::put_short(&mut payload, key);
    payload.push(u8::from(mandatory));
    frame::put(&mut out, frame::METHOD, channel, &payload);
    let size = bodies.iter().map(|body| body.len()).sum();
    put_content_header(&mut out, channel, size, props);
    bodies.iter().for_each(|body| frame::put(&mut out, frame::BODY, channel, body));
    out.to_vec()
}

pub(crate) fn put_content_header(
    out: &mut BytesMut,
    channel: u16,
    body_bytes: usize,
    props: &[u8],
) {
    let mut payload = vec![0, 60, 0, 0];
    payload.extend_from_slice(&u64::try_from(body_bytes).unwrap().to_be_bytes());
    payload.extend_from_slice(props);
    frame::put(out, frame::HEADER, channel, &payload);
}

pub(crate) fn message(props: &[u8], body: &[u8]) -> Message {
    NewMessage {
        format: &AMQP091,
        exchange: "amq.topic",
        key: "a.b",
        props,
        body: Body::Shared(Bytes::copy_from_slice(body)),
        durable: false,
        priority: None,
        qos: 0,
        retain: false,
        deadline_ms: 0,
        arrived_ms: 0,
        extra_keys: Vec::new(),
    }
    .build(&mut Vec::new())
}

pub(crate) fn delivery(consumer: ConsumerId, number: u64) -> Delivery {
    Delivery {
        consumer,
        redelivered: false,
        acquired: 0,
        failed: 0,
        number,
        seq: Seq(number),
        matched: Matched::default(),
        message: message(&[0, 0], b"hello"),
    }
}
