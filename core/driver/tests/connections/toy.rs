//! A protocol of lines, a broker that answers them, and a client that speaks them.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use polymq_contract::{
    Answer, Broker, Command, Connection, Counters, Delivery, DisconnectCause, Effects, Event,
    EventBatch, Matched, Outbox, Peer, Protocol, ProtocolSession, Recognised, Refusal, RefusalKind,
    Timeout, Transport,
};
use polymq_driver::{Bind, Driver, Listener, ListenerSpec, Tls};
use polymq_model::{
    ConnectionId, ConsumerId, Format, Limits, Message, NewMessage, Now, RequestId, Seq, VhostName,
    format::PLAIN_FORMAT, message::Body,
};
use tokio::{
    io::{
        AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf, ReadHalf,
        WriteHalf,
    },
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

/// Bytes of each streamed message.
pub(crate) const STREAMED_BYTES: usize = 1000;

/// Clients of this protocol start with `mark`, or with whatever they like when it is the only one.
pub(crate) struct LineProtocol {
    pub(crate) mark: &'static str,
}

impl Protocol for LineProtocol {
    fn name(&self) -> &'static str {
        self.mark
    }

    fn recognise(&self, first: &[u8]) -> Recognised {
        let common = first.len().min(self.mark.len());
        match (first[..common] == self.mark.as_bytes()[..common], common == self.mark.len()) {
            (true, true) => Recognised::Yes,
            (true, false) => Recognised::Unsure,
            (false, _) => Recognised::No,
        }
    }

    fn formats(&self) -> Vec<&'static Format> {
        Vec::new()
    }

    fn counters(&self) -> &Counters {
        static COUNTERS: LazyLock<Counters> = LazyLock::new(Counters::default);
        &COUNTERS
    }

    fn session(&self, peer: &Arc<Peer>, limits: &Arc<Limits>, _: Now) -> Box<dyn ProtocolSession> {
        Box::new(LineSession {
            mark: self.mark,
            peer: Arc::clone(peer),
            output_bytes_max: limits.output_bytes_max,
            awaiting: None,
            next_request: 0,
            alarm: None,
            survives: false,
        })
    }
}

struct LineSession {
    mark: &'static str,
    peer: Arc<Peer>,
    output_bytes_max: usize,
    awaiting: Option<RequestId>,
    next_request: u32,
    alarm: Option<Instant>,
    survives: bool,
}

impl LineSession {
    fn on_line(&mut self, line: &str, now: Now, effects: &mut Effects) {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "hello" => {
                effects.logged_in = true;
                say(effects, "welcome");
            }
            "mark" => say(effects, self.mark),
            "user" => {
                let tls = self.peer.tls.as_ref();
                say(effects, tls.and_then(|tls| tls.certificate_user.as_deref()).unwrap_or("-"));
            }
            "say" => say(effects, rest),
            "length" => say(effects, &rest.len().to_string()),
            "ask" => {
                self.next_request += 1;
                let request = RequestId(self.next_request);
                self.awaiting = Some(request);
                effects.commands.push(Command::PurgeQueue { request, queue: rest.to_owned() });
            }
            "stream" => effects.commands.push(Command::SetGroupPrefetch {
                group: 0,
                prefetch: rest.parse().expect("a number"),
            }),
            "alarm" => {
                let after = Duration::from_millis(rest.parse().expect("a number"));
                self.alarm = Some(now.instant + after);
            }
            "tls" => {
                say(effects, "go");
                effects.start_tls = true;
            }
            "resumable" => {
                effects.resumable = Some(rest.into());
                self.survives = true;
                say(effects, "kept");
            }
            "resume" => effects.resume = Some(rest.into()),
            "boom" => panic!("the toy session was told to panic"),
            "bye" => {
                say(effects, "bye");
                effects.close_after_flush("client", "");
            }
            other => say(effects, &format!("unknown {other}")),
        }
    }
}

fn say(effects: &mut Effects, text: &str) {
    effects.out.buffer().extend_from_slice(text.as_bytes());
    effects.out.buffer().extend_from_slice(b"\n");
}

impl ProtocolSession for LineSession {
    fn on_bytes(&mut self, input: &mut BytesMut, now: Now, effects: &mut Effects) {
        let changes = |effects: &Effects| effects.start_tls || effects.resume.is_some();
        while self.awaiting.is_none() && effects.close.is_none() && !changes(effects) {
            let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
                break;
            };
            let line = input.split_to(end + 1);
            self.on_line(std::str::from_utf8(&line[..end]).expect("text"), now, effects);
        }
        effects.waiting = self.awaiting.is_some() || changes(effects);
    }

    fn on_events(&mut self, events: &mut EventBatch, _: Now, effects: &mut Effects) {
        while effects.out.len() < self.output_bytes_max {
            let Some(event) = events.pop() else {
                break;
            };
            match event {
                Event::Answered { request, answer } => {
                    assert_eq!(self.awaiting.take(), Some(request));
                    match *answer {
                        Ok(Answer::QueuePurged { messages }) => {
                            say(effects, &format!("answer {messages}"));
                        }
                        other => panic!("unexpected {other:?}"),
                    }
                }
                Event::Delivered(delivery) => {
                    effects.out.buffer().extend_from_slice(delivery.message.body());
                }
                Event::Blocked { reason } => say(effects, &reason),
                Event::Unblocked => say(effects, "unblocked"),
                Event::Closing { reason, .. } => {
                    say(effects, &reason);
                    effects.close_after_flush("closing", "");
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    fn on_timeout(&mut self, _: Now, effects: &mut Effects) {
        self.alarm = None;
        say(effects, "ring");
    }

    fn next_timeout(&self) -> Option<Timeout> {
        self.alarm.map(|at| Timeout { at, reason: "alarm" })
    }

    fn on_secured(&mut self, peer: &Arc<Peer>) {
        self.peer = Arc::clone(peer);
    }

    fn on_socket_lost(&mut self, _: Now) -> bool {
        self.survives
    }

    fn on_socket_gained(&mut self, _: Now, effects: &mut Effects) {
        say(effects, "back");
    }

    fn on_resume_failed(&mut self, _: Now, effects: &mut Effects) {
        say(effects, "gone");
    }

    fn on_disconnect(&mut self, _: DisconnectCause, effects: &mut Effects) {
        let request = RequestId(0);
        effects.commands.push(Command::PurgeQueue { request, queue: "farewell".to_owned() });
    }
}

/// What the toy broker has seen.
#[derive(Debug)]
pub(crate) enum Seen {
    Connected(Arc<Outbox>),
    Asked(String),
    Stalled,
    Room,
    Disconnected(DisconnectCause),
}

/// Answers questions but those called `later`; panics at `panic`; streams messages.
pub(crate) struct ToyBroker {
    seen: UnboundedSender<Seen>,
    pub(crate) may_read: Arc<AtomicBool>,
    pub(crate) refuses: AtomicBool,
}

impl Broker for ToyBroker {
    fn connect(
        &self,
        _: &'static str,
        _: &Arc<Peer>,
        outbox: &Arc<Outbox>,
    ) -> Result<Box<dyn Connection>, Refusal> {
        if self.refuses.load(Ordering::SeqCst) {
            return Err(Refusal::new(RefusalKind::Limit, "too many connections"));
        }
        let _ = self.seen.send(Seen::Connected(Arc::clone(outbox)));
        Ok(Box::new(ToyConnection {
            seen: self.seen.clone(),
            outbox: Arc::clone(outbox),
            may_read: Arc::clone(&self.may_read),
            number: 0,
            last: 0,
        }))
    }
}

struct ToyConnection {
    seen: UnboundedSender<Seen>,
    outbox: Arc<Outbox>,
    may_read: Arc<AtomicBool>,
    number: u64,
    last: u64,
}

impl ToyConnection {
    fn stream(&mut self) {
        while self.number < self.last {
            if !self.outbox.has_room() && !self.outbox.note_stalled() {
                let _ = self.seen.send(Seen::Stalled);
                return;
            }
            self.number += 1;
            self.outbox.push(Event::Delivered(delivery(self.number)));
        }
    }
}

impl Connection for ToyConnection {
    fn id(&self) -> ConnectionId {
        ConnectionId(0)
    }

    fn execute(&mut self, commands: &mut Vec<Command>, _: Now) {
        for command in commands.drain(..) {
            match command {
                Command::PurgeQueue { request, queue } => {
                    assert_ne!(queue, "panic", "the toy broker was told to panic");
                    if queue != "later" {
                        self.outbox.push(answer(request, queue.len() as u64));
                    }
                    let _ = self.seen.send(Seen::Asked(queue));
                }
                Command::SetGroupPrefetch { prefetch, .. } => {
                    self.last += u64::from(prefetch);
                    self.stream();
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    fn may_read(&self) -> bool {
        self.may_read.load(Ordering::SeqCst)
    }

    fn on_room(&mut self, _: Now) {
        let _ = self.seen.send(Seen::Room);
        self.stream();
    }

    fn secured(&mut self, peer: &Arc<Peer>) {
        assert!(peer.tls.is_some());
    }

    fn disconnect(&mut self, cause: DisconnectCause, _: Now) {
        let _ = self.seen.send(Seen::Disconnected(cause));
    }
}

pub(crate) fn answer(request: RequestId, messages: u64) -> Event {
    Event::Answered { request, answer: Box::new(Ok(Answer::QueuePurged { messages })) }
}

/// The streamed message number `number`: its number, dots, and a line end.
pub(crate) fn streamed(number: u64) -> String {
    format!("{number:.<width$}\n", width = STREAMED_BYTES - 1)
}

fn delivery(number: u64) -> Delivery {
    let body = streamed(number);
    let message: Message = NewMessage {
        format: &PLAIN_FORMAT,
        exchange: "",
        key: "q",
        props: &[],
        body: Body::Slice(body.as_bytes()),
        durable: false,
        priority: None,
        qos: 0,
        retain: false,
        deadline_ms: 0,
        arrived_ms: 0,
        extra_keys: Vec::new(),
    }
    .build(&mut Vec::new());
    Delivery {
        consumer: ConsumerId(1),
        redelivered: false,
        acquired: 0,
        failed: 0,
        number,
        seq: Seq(number),
        matched: Matched::default(),
        message,
    }
}

/// A driver of a toy broker.
pub(crate) struct House {
    pub(crate) driver: Driver,
    pub(crate) broker: Arc<ToyBroker>,
    pub(crate) seen: UnboundedReceiver<Seen>,
}

impl House {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        let (sender, seen) = unbounded_channel();
        let broker = Arc::new(ToyBroker {
            seen: sender,
            may_read: Arc::new(AtomicBool::new(true)),
            refuses: AtomicBool::new(false),
        });
        let driver = Driver::new(Arc::<ToyBroker>::clone(&broker), Arc::new(limits));
        Self { driver, broker, seen }
    }

    /// A client at the other end of a pipe that holds `pipe_bytes` in each direction.
    pub(crate) fn client(&self, pipe_bytes: usize) -> Client<tokio::io::DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(pipe_bytes);
        self.driver.adopt(theirs, protocols(), peer());
        Client::new(ours)
    }

    /// A client that has logged in, and its outbox.
    pub(crate) async fn guest(
        &mut self,
        pipe_bytes: usize,
    ) -> (Client<tokio::io::DuplexStream>, Arc<Outbox>) {
        let mut client = self.client(pipe_bytes);
        client.log_in().await;
        let outbox = self.connected().await;
        (client, outbox)
    }

    pub(crate) async fn connected(&mut self) -> Arc<Outbox> {
        match self.next().await {
            Seen::Connected(outbox) => outbox,
            other => panic!("unexpected {other:?}"),
        }
    }

    pub(crate) async fn disconnected(&mut self) -> DisconnectCause {
        loop {
            if let Seen::Disconnected(cause) = self.next().await {
                return cause;
            }
        }
    }

    pub(crate) async fn next(&mut self) -> Seen {
        self.seen.recv().await.expect("the broker lives")
    }

    pub(crate) fn closed_by(&self, cause: &str) -> u64 {
        self.driver.counters().values().closed_by(cause)
    }
}

pub(crate) fn protocols() -> Vec<Arc<dyn Protocol>> {
    vec![Arc::new(LineProtocol { mark: "line" })]
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
        listener: "toy".into(),
        vhost: VhostName::new("/").expect("a name"),
    }
}

pub(crate) fn listener(bind: Bind, tls: Option<Arc<Tls>>) -> Listener {
    listener_with(bind, tls, None)
}

pub(crate) fn listener_with(
    bind: Bind,
    tls: Option<Arc<Tls>>,
    start_tls: Option<Arc<Tls>>,
) -> Listener {
    Listener::bind(ListenerSpec {
        name: "toy".into(),
        protocols: protocols(),
        is_shared: false,
        bind,
        tls,
        start_tls,
        vhost: VhostName::new("/").expect("a name"),
    })
    .expect("an address")
}

pub(crate) fn any_port() -> Bind {
    Bind::Tcp(([127, 0, 0, 1], 0).into())
}

/// A stream that counts what is written to it, write by write.
pub(crate) struct CountedWrites<S> {
    pub(crate) stream: S,
    pub(crate) writes: Arc<AtomicUsize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for CountedWrites<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CountedWrites<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Speaks lines.
pub(crate) struct Client<S> {
    pub(crate) reader: BufReader<ReadHalf<S>>,
    pub(crate) writer: WriteHalf<S>,
}

impl<S: AsyncRead + AsyncWrite> Client<S> {
    pub(crate) fn new(socket: S) -> Self {
        let (reader, writer) = tokio::io::split(socket);
        Self { reader: BufReader::new(reader), writer }
    }

    pub(crate) async fn log_in(&mut self) {
        self.send("hello\n").await;
        self.expect("welcome").await;
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.writer.write_all(text.as_bytes()).await.expect("an open connection");
        self.writer.flush().await.expect("an open connection");
    }

    /// The next line, without its end; `None` at the end of the stream.
    pub(crate) async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end_matches('\n').to_owned()),
        }
    }

    pub(crate) async fn expect(&mut self, line: &str) {
        assert_eq!(self.line().await.as_deref(), Some(line));
    }

    pub(crate) async fn expect_end(&mut self) {
        assert_eq!(self.line().await, None);
    }
}
