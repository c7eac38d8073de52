//! Measures routing: `cargo run --release -p polymq-broker --example routing_speed`.
//!
//! A publish whose route is not cached is compared with one whose route is; the difference is the
//! search in the topology, with the permission and the entry of the cache. In a release build it
//! fails when that takes 2 µs or more among 100,000 topic bindings.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement for people")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use polymq_broker::{AcceptEverybody, BrokerHandle, Parts, PermissionRecord};
use polymq_contract::{
    BindQueue, Broker, Command, Connection, DeclareExchange, DeclareQueue, Login, Outbox, Peer,
    Publish, Secret, Transport,
};
use polymq_memory::MemoryStore;
use polymq_model::{
    Formats, Limits, Message, NewMessage, Now, PublisherId, RequestId, UserName, VhostName,
    format::PLAIN_FORMAT, message::Body,
};
use polymq_store::{Committer, Durability, OwnerId, ShardId, Store, wait};

const REQUEST: RequestId = RequestId(1);
/// What finding a route of three among 100,000 topic bindings may take.
const ROUTING_MAX: Duration = Duration::from_micros(2);
/// Times that it is measured; the best counts, because others use the machine too.
const ROUNDS: usize = 5;
/// Commands handed in together, as a large read brings them.
const TOGETHER: usize = 64;

fn main() {
    let mut client = Client::new();
    topic(&mut client);
    for count in [10, 100, 1000] {
        chosen(&mut client, "x-consistent-hash", count);
    }
    for count in [10, 1000] {
        fanout(&mut client, count);
    }
}

/// 99,900 bindings, of which each key matches three.
fn topic(client: &mut Client) {
    client.exchange("t", "topic");
    for queue in ["exact", "wild", "many"] {
        client.queue(queue);
    }
    let started = Instant::now();
    let places = || (0..300).flat_map(|site| (0..166).map(move |device| (site, device)));
    for (site, device) in places() {
        client.bind("t", "exact", &format!("site.{site}.device.{device}.temperature"));
        client.bind("t", "wild", &format!("site.{site}.device.{device}.*"));
    }
    (0..300).for_each(|site| client.bind("t", "many", &format!("site.{site}.#")));
    println!("topic: 99,900 bindings made in {:?}", started.elapsed());
    let keys: Vec<_> =
        places().map(|(site, device)| format!("site.{site}.device.{device}.temperature")).collect();
    let same = client.publish("t", std::iter::repeat_n(&*keys[0], keys.len()));
    let mut routing = Duration::MAX;
    for _ in 0..ROUNDS {
        let new = client.publish("t", keys.iter().map(String::as_str));
        let few = keys.iter().take(64).cycle().take(keys.len());
        let cached = client.publish("t", few.map(String::as_str));
        routing = routing.min(new.saturating_sub(cached));
        println!(
            "topic, three queues: {new:?} a new key, {cached:?} a cached one, {same:?} the same"
        );
    }
    println!("topic: {routing:?} for a route");
    assert!(cfg!(debug_assertions) || routing < ROUTING_MAX, "{ROUTING_MAX:?} is too much");
}

fn chosen(client: &mut Client, kind: &str, count: usize) {
    let name = format!("{kind}-{count}");
    client.exchange(&name, kind);
    for at in 0..count {
        client.queue(&format!("{kind}-{at}"));
        client.bind(&name, &format!("{kind}-{at}"), "1");
    }
    let keys: Vec<_> = (0..50_000).map(|key| format!("key-{key}")).collect();
    let new = client.publish(&name, keys.iter().map(String::as_str));
    println!("{kind} of {count}: {new:?} a new key");
}

fn fanout(client: &mut Client, count: usize) {
    let name = format!("f-{count}");
    client.exchange(&name, "fanout");
    for at in 0..count {
        client.queue(&format!("f-{at}"));
        client.bind(&name, &format!("f-{at}"), "");
    }
    let keys: Vec<_> = (0..20_000 / count).map(|key| format!("key-{key}")).collect();
    let new = client.publish(&name, keys.iter().map(String::as_str));
    let same = client.publish(&name, std::iter::repeat_n("key", keys.len()));
    println!("fanout to {count}: {new:?} a new key, {same:?} the same");
}

struct Client {
    connection: Box<dyn Connection>,
    outbox: Arc<Outbox>,
    started: Instant,
}

impl Client {
    fn new() -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let opened = wait(|reply| store.open(ShardId(0), OwnerId::default(), reply)).unwrap();
        let broker = BrokerHandle::new(Parts {
            committer: Committer::new(store, ShardId(0), &opened),
            formats: Formats::new([]),
            limits: Arc::new(Limits::default()),
            authenticator: Arc::new(AcceptEverybody),
            entropy: Box::new(|bytes| bytes.fill(7)),
            share_expiry_ms: 0,
            durability: Durability::Sync,
            skips_damage: false,
        });
        let vhost = VhostName::new("/").unwrap();
        broker.create_vhost(vhost.clone());
        let user = UserName::new("guest").unwrap();
        broker.put_permission(vhost.clone(), user, PermissionRecord::all(), false).unwrap();
        let outbox = Arc::new(Outbox::new(1024 * 1024));
        let peer = Arc::new(Peer {
            address: None,
            local: None,
            is_loopback: true,
            tls: None,
            offers_tls: false,
            account: None,
            transport: Transport::Stream,
            listener: "example".into(),
            vhost,
        });
        let connection = broker.connect("amqp", &peer, &outbox).unwrap();
        let mut client = Self { connection, outbox, started: Instant::now() };
        let login = Login::Password { user: "guest".into(), password: Secret::new(Vec::new()) };
        client.send(Command::Authenticate { request: REQUEST, login: Box::new(login) });
        client.send(Command::OpenVhost { request: REQUEST, vhost: None });
        client
    }

    fn send(&mut self, command: Command) {
        self.send_all(&mut vec![command]);
    }

    fn send_all(&mut self, commands: &mut Vec<Command>) {
        let now = Now { instant: self.started, unix_ms: 1 };
        self.connection.execute(commands, now);
        let mut events = polymq_contract::EventBatch::default();
        self.outbox.take(&mut events);
        while events.pop().is_some() {}
        self.outbox.release(&mut events);
    }

    fn exchange(&mut self, name: &str, kind: &str) {
        self.send(Command::DeclareExchange(Box::new(DeclareExchange {
            request: REQUEST,
            exchange: name.to_owned(),
            kind: kind.to_owned(),
            passive: false,
            durable: false,
            auto_delete: false,
            internal: false,
            arguments: Vec::new(),
        })));
    }

    /// A queue that drops at once what comes, so that memory does not count.
    fn queue(&mut self, name: &str) {
        self.send(Command::DeclareQueue(Box::new(DeclareQueue {
            request: REQUEST,
            queue: name.to_owned(),
            passive: false,
            durable: false,
            exclusive: false,
            auto_delete: false,
            arguments: vec![("x-max-length".to_owned(), polymq_model::Value::I32(1))],
        })));
    }

    fn bind(&mut self, exchange: &str, queue: &str, key: &str) {
        self.send(Command::BindQueue(Box::new(BindQueue {
            request: REQUEST,
            queue: queue.to_owned(),
            exchange: exchange.to_owned(),
            key: key.to_owned(),
            arguments: Vec::new(),
        })));
    }

    /// Publishes one message for each key; the time for each, as the median of the batches, so that
    /// what else the machine does counts little.
    fn publish<'k>(&mut self, exchange: &str, keys: impl Iterator<Item = &'k str>) -> Duration {
        let messages: Vec<_> = keys.map(|key| message(exchange, key)).collect();
        let mut commands: Vec<Command> = messages.into_iter().map(publish).collect();
        let mut spent = Vec::new();
        while !commands.is_empty() {
            let mut some = commands.split_off(commands.len().saturating_sub(TOGETHER));
            let (count, started) = (u32::try_from(some.len()).unwrap(), Instant::now());
            self.send_all(&mut some);
            spent.push(started.elapsed() / count);
        }
        spent.sort_unstable();
        spent.get(spent.len() / 2).copied().unwrap_or_default()
    }
}

fn publish(message: Message) -> Command {
    let publisher = PublisherId(1);
    Command::Publish(Publish {
        publisher,
        number: 0,
        mandatory: false,
        received: None,
        delay: None,
        message,
    })
}

fn message(exchange: &str, key: &str) -> Message {
    NewMessage {
        format: &PLAIN_FORMAT,
        exchange,
        key,
        props: &[],
        body: Body::Slice(b"a reading"),
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
