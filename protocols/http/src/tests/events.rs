//! Following topics by server-sent events.

use serde_json::json;

use super::World;
use crate::{Phase, serve::Audience};

#[tokio::test]
async fn a_snapshot_is_followed_by_what_changes() {
    let world = World::start(Audience::Users).await;
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
    let world = World::start(Audience::Users).await;
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
    let world = World::start(Audience::Users).await;
    world.tagged("watcher", &["monitoring"]);
    let mut client = world.client("watcher").await;
    let back = [("Last-Event-ID", "7-9")];
    client.send("GET /api/v1/events?topics=log,listeners", &back, b"").await;
    let (_, kind, data) = client.event().await;
    assert_eq!((kind.as_str(), &data["last_event_id"]), ("gap", &json!("7-9")));
    let (_, kind, data) = client.event().await;
    assert_eq!(data["reset"], true, "whoever comes back too late is told everything again");
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
    let world = World::start(Audience::Users).await;
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

/// Reads events up to one of a kind and topic; its id and data.
async fn until(reader: &mut super::Browser, wanted: &str) -> (String, serde_json::Value) {
    loop {
        let (id, kind, data) = reader.event().await;
        if kind == wanted {
            return (id, data);
        }
    }
}

#[tokio::test]
async fn whoever_comes_back_within_a_minute_misses_nothing() {
    let world = World::start(Audience::Users).await;
    world.declare("q", Vec::new()).await;
    let mut publisher = world.client("u").await;
    let publish = "POST /api/v1/vhosts/~/queues/q/messages";
    let follow = "GET /api/v1/events?topics=queue/~/q";
    let mut reader = world.client("u").await;
    reader.send(follow, &[], b"").await;
    let (snapshot, _) = until(&mut reader, "snapshot").await;
    publisher.ask(publish, &[], b"m").await;
    let (delta, data) = until(&mut reader, "delta").await;
    assert_eq!(data["changed"]["q"]["messages"]["ready"], 1);

    // The first reader has not gone: its connection may be dead without anybody knowing it.
    let mut again = world.client("u").await;
    again.send(follow, &[("Last-Event-ID", &snapshot)], b"").await;
    let (id, data) = until(&mut again, "delta").await;
    assert_eq!((&id, &data["changed"]["q"]["messages"]["ready"]), (&delta, &json!(1)));
    loop {
        // The first one is told nothing more.
        let line = reader.line().await;
        assert!(!line.starts_with("event"), "{line}");
        if line == "0" {
            break;
        }
    }

    drop(again);
    publisher.ask(publish, &[], b"m").await;
    let mut third = world.client("u").await;
    third.send(follow, &[("Last-Event-ID", &delta)], b"").await;
    let (id, kind, data) = third.event().await;
    assert_eq!(kind, "delta", "no snapshot: {data}");
    assert_eq!(data["changed"]["q"]["messages"]["ready"], 2);
    let number = |id: &str| id.rsplit_once('-').unwrap().1.parse::<u64>().unwrap();
    assert_eq!(number(&id), number(&delta) + 1);

    let mut other = world.client("reader").await;
    other.send(follow, &[("Last-Event-ID", &delta)], b"").await;
    let (_, kind, _) = other.event().await;
    assert_eq!(kind, "gap", "a stream is of one user");
    let (_, kind, data) = other.event().await;
    assert_eq!((kind.as_str(), &data["reset"]), ("snapshot", &json!(true)));
}
