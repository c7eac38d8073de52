use std::{net::Ipv4Addr, time::Duration};

use polymq_broker::{AcceptEverybody, Parts};
use polymq_memory::MemoryStore;
use polymq_model::Formats;
use polymq_store::{Committer, OwnerId, ShardId, Store, wait};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;

struct World {
    phase: Arc<SharedPhase>,
    broker: BrokerHandle,
    port: u16,
}

fn broker() -> BrokerHandle {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let opened = wait(|reply| store.open(ShardId::default(), OwnerId::default(), reply)).unwrap();
    let committer = Committer::new(store, ShardId::default(), &opened);
    BrokerHandle::new(Parts {
        committer,
        formats: Formats::new([]),
        limits: Default::default(),
        authenticator: Arc::new(AcceptEverybody),
        entropy: Box::new(|bytes| bytes.fill(7)),
        share_expiry_ms: 0,
        durability: polymq_store::Durability::Sync,
        skips_damage: false,
    })
}

impl World {
    async fn start(audience: Audience) -> Self {
        let (broker, phase) = (broker(), Arc::new(SharedPhase::default()));
        phase.enter(Phase::Serving);
        let watched = Arc::new(Watched {
            name: "test".to_owned(),
            broker: broker.clone(),
            protocols: Vec::new(),
            driver: Arc::default(),
            phase: Arc::clone(&phase),
            facts: Box::new(|| Facts {
                recovered_percent: 42,
                store_live: Some((3, 400)),
                marks_reached: vec![("memory", false), ("disk", true)],
                store_sync_buckets: vec![(0.001, 1), (f64::INFINITY, 1)],
                ..Facts::default()
            }),
        });
        let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let port = socket.local_addr().unwrap().port();
        serve(vec![HttpListener { socket, audience }], &watched, "").unwrap();
        Self { phase, broker, port }
    }

    async fn send(&self, request: &str) -> String {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = socket.read_to_string(&mut answer);
        tokio::time::timeout(Duration::from_secs(20), read).await.unwrap().unwrap();
        answer
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

#[tokio::test]
async fn readiness_follows_phase_and_alarms() {
    let world = World::start(Audience::Loopback).await;
    assert_eq!(world.get("/health/ready").await.0, 200);
    assert_eq!(world.get("/health/live").await.0, 200);

    world.phase.enter(Phase::Recovering);
    let (status, body) = world.get("/health/startup").await;
    assert_eq!(status, 503);
    assert!(body.contains("\"recovering\":0.42"), "{body}");
    assert_eq!(world.get("/health/ready").await.0, 503);
    assert_eq!(world.get("/health/live").await.0, 200);

    world.phase.enter(Phase::Serving);
    world.broker.set_alarm(Some("no space"));
    let (status, body) = world.get("/health").await;
    assert_eq!(status, 503);
    assert!(body.contains("no space"), "{body}");
    world.broker.set_alarm(None);

    world.phase.enter(Phase::Draining);
    assert_eq!(world.get("/health/ready").await.0, 503);
    assert_eq!(world.get("/health/startup").await.0, 200);
}

#[tokio::test]
async fn metrics_are_text_that_prometheus_reads() {
    let world = World::start(Audience::Everybody).await;
    let (status, body) = world.get("/metrics").await;
    assert_eq!(status, 200);
    for line in body.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(series.starts_with("polymq_"), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    for name in [
        "polymq_build_info{version=",
        "polymq_messages_received_total{protocol=\"amqp\"} 0",
        "polymq_messages_dropped_total{reason=\"unroutable\"} 0",
        "polymq_queue_messages{state=\"ready\"} 0",
        "polymq_store_live_messages 3",
        "polymq_store_live_bytes 400",
        "polymq_store_batch_bytes_total 0",
        "polymq_watermark_reached{resource=\"memory\"} 0",
        "polymq_watermark_reached{resource=\"disk\"} 1",
        "polymq_store_sync_seconds_bucket{le=\"+Inf\"} 2",
        "polymq_auth_attempts_total{protocol=\"mqtt\",result=\"failed\"} 0",
    ] {
        assert!(body.contains(name), "{name} in {body}");
    }
}

#[tokio::test]
async fn each_metric_is_announced_once() {
    let world = World::start(Audience::Everybody).await;
    let (_, body) = world.get("/metrics").await;
    let mut names: Vec<_> = body.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[tokio::test]
async fn front_page_says_what_this_is_and_unknown_paths_are_not_found() {
    let world = World::start(Audience::Loopback).await;
    let (status, body) = world.get("/").await;
    assert_eq!(status, 200);
    assert!(body.contains("PolyMQ"), "{body}");
    assert_eq!(world.get("/nothing").await.0, 404);
    assert!(world.send("POST / HTTP/1.1\r\nHost: x\r\n\r\n").await.contains("405"));
}

#[tokio::test]
async fn oversized_head_is_refused() {
    let world = World::start(Audience::Loopback).await;
    let long = "a".repeat(17 * 1024);
    let answer = world.send(&format!("GET / HTTP/1.1\r\nX: {long}\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}
