//! A server on a free port of loopback, and a client that keeps its connection.

mod attacks;
mod definitions;
mod document;
mod events;
mod holding;
mod limits;
mod messages;
mod operation;
mod pages;
mod publishing;
mod rabbitmq;
mod rabbitmq_answers;
mod rabbitmq_import;
mod rabbitmq_owners;
mod rabbitmq_tools;
mod receiving;
mod resources;
mod rights;
mod roles;
mod rules;
mod session;
mod subscribing;
mod tracing;

use std::{net::Ipv4Addr, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use polymq_broker::{AcceptEverybody, Parts, PermissionRecord, UserRecord};
use polymq_memory::MemoryStore;
use polymq_model::{Formats, Limits, UserName, VhostName};
use polymq_store::{Committer, OwnerId, ShardId, Store, wait};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::*;

const TIMEOUT: Duration = Duration::from_secs(60);

pub(super) struct World {
    pub(super) phase: Arc<SharedPhase>,
    pub(super) broker: BrokerHandle,
    pub(super) http: Http,
    pub(super) port: u16,
}

fn broker(store: Arc<dyn Store>) -> BrokerHandle {
    let opened = wait(|reply| store.open(ShardId::default(), OwnerId::default(), reply)).unwrap();
    let committer = Committer::new(store, ShardId::default(), &opened);
    let broker = BrokerHandle::new(Parts {
        committer,
        formats: Formats::new([&HTTP]),
        limits: Default::default(),
        authenticator: Arc::new(AcceptEverybody),
        entropy: Box::new(|bytes| bytes.fill(7)),
        share_expiry_ms: 0,
        durability: polymq_store::Durability::Sync,
        skips_damage: false,
    });
    let vhost = VhostName::new("/").unwrap();
    broker.create_vhost(vhost.clone());
    for (user, all, tags) in
        [("u", ".*", &[][..]), ("reader", "", &[]), ("watcher", "", &["monitoring"])]
    {
        let name = UserName::new(user).unwrap();
        broker.put_user(
            name.clone(),
            UserRecord {
                password_hash: String::new(),
                scram: String::new(),
                tags: tags.iter().map(|tag: &&str| (*tag).to_owned()).collect(),
                loopback_only: false,
            },
            false,
        );
        let permission = PermissionRecord {
            configure: all.to_owned(),
            write: all.to_owned(),
            read: ".*".to_owned(),
        };
        broker.put_permission(vhost.clone(), name, permission, false).unwrap();
    }
    broker
}

pub(super) fn settings() -> Settings {
    Settings {
        web_sockets: None,
        path_prefix: String::new(),
        cors_origins: vec!["https://app.example".to_owned()],
        connections_max: 64,
        login_idle: Duration::from_secs(600),
        limits: Arc::new(Limits { message_bytes_max: 100_000, ..Limits::default() }),
        entropy: Arc::new(|bytes| bytes.fill(7)),
    }
}

/// The header of a login.
pub(super) fn basic(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:x")))
}

impl World {
    pub(super) async fn start(audience: Audience) -> Self {
        Self::start_with(audience, |_| ()).await
    }

    /// The same with other settings.
    pub(super) async fn start_with(audience: Audience, change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_on(Arc::new(MemoryStore::new()), audience, change).await
    }

    /// The same on a store that the test holds.
    pub(super) async fn start_on(
        store: Arc<MemoryStore>,
        audience: Audience,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let (broker, phase) = (broker(store), Arc::new(SharedPhase::default()));
        phase.enter(Phase::Serving);
        let watched = Arc::new(Watched {
            listeners: Arc::new(operation::Sample),
            drain: Box::new(|| {}),
            name: "test".to_owned(),
            broker: broker.clone(),
            protocols: vec![Arc::new(Toy::default())],
            driver: Arc::default(),
            phase: Arc::clone(&phase),
            configuration: Arc::new(operation::Sample),
            log: Arc::new(operation::Sample),
            spans: None,
            facts: Box::new(|| Facts {
                recovered_percent: 42,
                uptime_secs: 60.0,
                store_live: Some((3, 400)),
                files_open: Some(20),
                files_max: Some(1024),
                memory_resident_bytes: Some(1 << 24),
                memory_high_bytes: Some(1 << 30),
                disk_free_bytes: Some(1 << 33),
                marks_reached: vec![("memory", false), ("disk", true)],
                store_sync_buckets: vec![(0.001, 1), (f64::INFINITY, 1)],
                ..Facts::default()
            }),
        });
        let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let port = socket.local_addr().unwrap().port();
        let mut settings = settings();
        change(&mut settings);
        let (name, vhost) = ("http".into(), VhostName::new("/").unwrap());
        let listener = HttpListener { name, socket, audience, tls: None, vhost };
        let http = Http::new(watched, settings);
        http.serve(listener).unwrap();
        Self { phase, broker, http, port }
    }

    /// What the pages of this server show.
    pub(super) fn watched(&self) -> Arc<Watched> {
        Arc::clone(&self.http.site().watched)
    }

    /// Sends bytes and reads until the server closes.
    pub(super) async fn send(&self, request: &str) -> String {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = socket.read_to_string(&mut answer);
        tokio::time::timeout(TIMEOUT, read).await.unwrap().unwrap();
        answer
    }

    pub(super) async fn get(&self, path: &str) -> (u16, String) {
        self.get_with(path, "").await
    }

    /// A page for whoever has the tag `monitoring`.
    pub(super) async fn watch(&self, path: &str) -> (u16, String) {
        self.get_with(path, &format!("Authorization: {}\r\n", basic("watcher"))).await
    }

    async fn get_with(&self, path: &str, headers: &str) -> (u16, String) {
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n");
        let answer = self.send(&head).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// A client who logs in as `user`.
    pub(super) async fn client(&self, user: &str) -> Browser {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.unwrap();
        let authorization = basic(user);
        Browser { socket: BufReader::new(socket), authorization }
    }

    /// Declares a queue.
    pub(super) async fn declare(&self, queue: &str, arguments: polymq_model::Table) {
        self.run(|request| {
            polymq_contract::Command::DeclareQueue(Box::new(polymq_contract::DeclareQueue {
                request,
                queue: queue.to_owned(),
                passive: false,
                durable: true,
                exclusive: false,
                auto_delete: false,
                arguments,
            }))
        })
        .await;
    }

    /// Runs a command as a client of the broker.
    pub(super) async fn run(
        &self,
        command: impl FnOnce(polymq_model::RequestId) -> polymq_contract::Command,
    ) -> polymq_contract::Answer {
        let peer = Arc::new(peer());
        let password = polymq_contract::Secret::new("x");
        let login = polymq_contract::Login::Password { user: "u".to_owned(), password };
        let vhost = Some("/".to_owned());
        let client = client::Client::connect(&self.broker, &peer, login, vhost, 1 << 20);
        client.await.unwrap().ask(command).await.unwrap()
    }

    pub(super) fn ready(&self, queue: &str) -> u64 {
        let queues = self.broker.queues();
        queues.iter().find(|view| view.name.as_str() == queue).map_or(0, |view| view.counts.ready)
    }
}

/// A protocol without sessions, whose addresses are those of queues behind `q:`.
#[derive(Default)]
struct Toy(polymq_contract::Counters);

impl Protocol for Toy {
    fn name(&self) -> &'static str {
        "toy"
    }

    fn recognise(&self, _: &[u8]) -> polymq_contract::Recognised {
        polymq_contract::Recognised::No
    }

    fn formats(&self) -> Vec<&'static polymq_model::Format> {
        Vec::new()
    }

    fn counters(&self) -> &polymq_contract::Counters {
        &self.0
    }

    fn destination(
        &self,
        address: &str,
        _: &Limits,
    ) -> Option<Result<polymq_contract::Destination, String>> {
        let queue = address.strip_prefix("q:").map(|queue| polymq_contract::Destination {
            key: queue.to_owned(),
            declares_queue: true,
            ..Default::default()
        });
        Some(queue.ok_or_else(|| format!("`{address}` is no address")))
    }

    fn session(
        &self,
        _: &Arc<polymq_contract::Peer>,
        _: &Arc<Limits>,
        _: polymq_model::Now,
    ) -> Box<dyn polymq_contract::ProtocolSession> {
        unreachable!("it recognises nobody")
    }
}

fn peer() -> polymq_contract::Peer {
    polymq_contract::Peer {
        address: None,
        local: None,
        is_loopback: true,
        tls: None,
        offers_tls: false,
        account: None,
        transport: polymq_contract::Transport::Stream,
        listener: "test".into(),
        vhost: VhostName::new("/").unwrap(),
    }
}

/// A client on one connection.
pub(super) struct Browser {
    socket: BufReader<TcpStream>,
    authorization: String,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(super) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Browser {
    pub(super) async fn ask(
        &mut self,
        line: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.send(line, headers, body).await;
        tokio::time::timeout(TIMEOUT, self.read()).await.unwrap()
    }

    pub(super) async fn post(&mut self, path: &str, body: &Value) -> Answer {
        let json = [("Content-Type", "application/json")];
        self.ask(&format!("POST {path}"), &json, body.to_string().as_bytes()).await
    }

    pub(super) async fn send(&mut self, line: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("{line} HTTP/1.1\r\nHost: x\r\n");
        let own = [("Authorization", self.authorization.as_str())];
        let own = own.iter().filter(|(_, value)| !value.is_empty());
        for (name, value) in own.chain(headers) {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        let whole = [head.as_bytes(), body].concat();
        self.socket.get_mut().write_all(&whole).await.unwrap();
    }

    pub(super) async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.socket.read_line(&mut line);
        tokio::time::timeout(TIMEOUT, read).await.unwrap().unwrap();
        line.trim_end().to_owned()
    }

    /// Reads an answer that has no end, up to its body.
    pub(super) async fn head(&mut self) -> u16 {
        let status = self.line().await;
        while !self.line().await.is_empty() {}
        status.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// The next event of a stream: its id, name and data. Comments and others are passed over.
    pub(super) async fn event(&mut self) -> (String, String, Value) {
        let (mut id, mut name, mut data) = (String::new(), String::new(), Value::Null);
        loop {
            let line = self.line().await;
            match line.split_once(": ") {
                Some(("id", text)) => id = text.to_owned(),
                Some(("event", text)) => name = text.to_owned(),
                Some(("data", text)) => data = serde_json::from_str(text).unwrap(),
                _ if line.is_empty() && !name.is_empty() => return (id, name, data),
                // Sizes of chunks, and what is no event.
                _ => {}
            }
        }
    }

    pub(super) async fn read(&mut self) -> Answer {
        let status = self.line().await;
        let status = status.split(' ').nth(1).unwrap_or_else(|| panic!("{status}"));
        let status = status.parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line().await;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.push((name.to_owned(), value.to_owned()));
        }
        let mut answer = Answer { status, headers, body: Vec::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        answer.body.resize(length, 0);
        self.socket.read_exact(&mut answer.body).await.unwrap();
        answer
    }
}
