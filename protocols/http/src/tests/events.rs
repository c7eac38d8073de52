//! Following topics by server-sent events.

use serde_json::json;

use super::World;
use crate::{Phase, serve::Audience};

#[tokio::test]
async fn a_snapshot_is_followed_by_what_changes() {
    let world = World::start(Audience::Loopback).await;
    world.declare("q", Vec::new()).await;
    let mut client = world.client("u").await;
    client.send("GET /api/v1/events?topics=queue/~/q,jobs", &[], b"").await;
    let (_, kind, data) = client.event().await;
    assert_eq!((kind.as_str(), &data["topic"]), ("snapshot", &json!("queue/~/q")));
    assert_eq!(data["rows"]["q"]["messages"]["ready"], 0);
    let (_, kind, data) = client.event().await;
    assert_eq!((kind.as_str(), &data["rows"]), ("snapshot", &json!({})));
    let mut publisher = world.client("u").await;
    publisher.ask("POST /api/v1/vhosts/~/queues/q/messages", &[], b"m").await;
    let (_, kind, data) = client.event().await;
    assert_eq!(kind, "delta");
    assert_eq!(data["changed"]["q"]["messages"]["ready"], 1);
    assert_eq!(data["changed"]["q"].get("name"), None);
    world.phase.enter(Phase::Draining);
    loop {
        let (_, kind, data) = client.event().await;
        if kind == "closing" {
            assert_eq!(data["reason"], "the server stops");
            break;
        }
    }
}

#[tokio::test]
async fn topics_need_what_they_need_one_by_one_and_streams_are_counted() {
    let world = World::start(Audience::Loopback).await;
    world.tagged("watcher", &["monitoring"]);
    let mut plain = world.client("reader").await;
    for (topics, status) in [
        ("overview", 403),
        ("queue/other/q", 403),
        ("nothing", 400),
        ("", 400),
        (&"jobs,".repeat(21), 400),
    ] {
        let answer = plain.get(&format!("/api/v1/events?topics={topics}")).await;
        assert_eq!(answer.status, status, "{topics}");
    }
    let mut streams = Vec::new();
    for _ in 0..8 {
        let mut client = world.client("watcher").await;
        client.send("GET /api/v1/events?topics=overview,storage,alarms", &[], b"").await;
        client.event().await;
        streams.push(client);
    }
    let mut ninth = world.client("watcher").await;
    let answer = ninth.get("/api/v1/events?topics=jobs").await;
    assert_eq!((answer.status, answer.code().as_str()), (429, "too_many_streams"));
}

#[tokio::test]
async fn the_log_and_the_listeners_are_topics_as_well() {
    let world = World::start(Audience::Loopback).await;
    world.tagged("watcher", &["monitoring"]);
    let mut client = world.client("watcher").await;
    let back = [("Last-Event-ID", "7-9")];
    client.send("GET /api/v1/events?topics=log,listeners", &back, b"").await;
    let (_, kind, data) = client.event().await;
    assert_eq!(data["reset"], true, "whoever comes back is told everything again");
    assert_eq!((kind.as_str(), &data["topic"]), ("snapshot", &json!("log")));
    let rows = data["rows"].as_object().unwrap();
    let events: Vec<_> = rows.values().map(|line| line["event"].clone()).collect();
    assert_eq!(events, ["event_3", "event_4", "event_5"]);
    let (_, kind, data) = client.event().await;
    assert_eq!((kind.as_str(), &data["topic"]), ("snapshot", &json!("listeners")));
    assert_eq!(data["rows"]["127.0.0.1:5672"]["running"], true);
    let mut plain = world.client("reader").await;
    for topic in ["log", "listeners", "trace/1"] {
        let answer = plain.get(&format!("/api/v1/events?topics={topic}")).await;
        assert!(matches!(answer.status, 403 | 404), "{topic}: {}", answer.status);
    }
}

#[tokio::test]
async fn a_trace_is_a_topic_whose_rows_only_come() {
    let world = World::start(Audience::Loopback).await;
    world.tagged("watcher", &["monitoring"]);
    world.declare("q", Vec::new()).await;
    let mut client = world.client("u").await;
    world.tagged("u", &["monitoring"]);
    let made = client.post("/api/v1/traces", &json!({ "vhost": "/", "queue": "q" })).await;
    assert_eq!(made.status, 201, "{}", made.json());
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let mut reader = world.client("u").await;
    reader.send(&format!("GET /api/v1/events?topics=trace/{id}"), &[], b"").await;
    let (_, kind, data) = reader.event().await;
    assert_eq!((kind.as_str(), &data["rows"]), ("snapshot", &json!({})));
    client.ask("POST /api/v1/vhosts/~/queues/q/messages", &[], b"m").await;
    let (_, kind, data) = reader.event().await;
    assert_eq!((kind.as_str(), &data["gone"]), ("delta", &json!([])));
    let rows = data["changed"].as_object().unwrap();
    assert!(rows.values().any(|step| step["event"] == "received"), "{data:#}");
}
