//! Server-sent events.

use polymq_model::Table;

use super::*;

const V: &str = "/api/v1/vhosts/~";

async fn publish(client: &mut Browser, key: &str, body: &str) {
    let path = format!("POST {V}/exchanges/amq.topic/messages?routing_key={key}");
    let answer = client.ask(&path, &[], body.as_bytes()).await;
    assert_eq!(answer.json()["routed"], true, "{answer:?}");
}

async fn open(world: &World, query: &str, headers: &[(&str, &str)]) -> Browser {
    let mut reader = world.client("u").await;
    reader.send(&format!("GET {V}/subscribe?{query}"), headers, b"").await;
    assert_eq!(reader.head().await, 200);
    reader
}

#[tokio::test]
async fn pattern_is_read_live() {
    let world = World::start(Audience::Users).await;
    let mut client = world.client("u").await;
    let mut reader = open(&world, "exchange=amq.topic&pattern=sensors.*.temp", &[]).await;
    publish(&mut client, "sensors.7.temp", "21").await;
    publish(&mut client, "sensors.8.temp", "22").await;
    let (id, name, data) = reader.event().await;
    assert_eq!((&*name, data["payload"].as_str()), ("message", Some("21")));
    assert_eq!(data["routing_key"], "sensors.7.temp");
    assert!(id.ends_with("-1"), "{id}");
    assert_eq!(reader.event().await.2["payload"], "22");
    drop(reader);
    let gone = async {
        while !world.broker.queues().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, gone).await.unwrap();
}

#[tokio::test]
async fn reader_with_a_name_goes_on_where_it_was() {
    let world = World::start(Audience::Users).await;
    let mut client = world.client("u").await;
    let query = "exchange=amq.topic&pattern=a.%23&name=dash&keep=5m";
    let mut reader = open(&world, query, &[]).await;
    for number in 1..=3 {
        publish(&mut client, "a.b", &number.to_string()).await;
    }
    let (seen, _, data) = reader.event().await;
    assert_eq!(data["payload"], "1");
    // The reader is lost with two messages on the way, and one comes while it is away.
    drop(reader);
    publish(&mut client, "a.b", "4").await;
    let mut reader = open(&world, query, &[("Last-Event-ID", &seen)]).await;
    for expected in ["2", "3", "4"] {
        let (_, name, data) = reader.event().await;
        assert_eq!((&*name, data["payload"].as_str()), ("message", Some(expected)));
    }
    // A second reader takes the place of the first, and gets what it has not seen.
    let mut second = open(&world, query, &[("Last-Event-ID", &seen)]).await;
    assert_eq!(second.event().await.2["payload"], "2");
    assert_eq!(reader.event().await.1, "closing");
}

#[tokio::test]
async fn what_was_lost_is_told() {
    let world = World::start(Audience::Users).await;
    let mut client = world.client("u").await;
    let query = "exchange=amq.topic&pattern=a&name=dash";
    let mut reader = open(&world, query, &[]).await;
    publish(&mut client, "a", "first").await;
    let (seen, ..) = reader.event().await;
    drop(reader);
    let batch: Vec<_> = (0..900)
        .map(|_| serde_json::json!({ "exchange": "amq.topic", "routing_key": "a" }))
        .collect();
    for _ in 0..2 {
        client.post(&format!("{V}/messages:publish"), &batch.clone().into()).await;
    }
    let mut reader = open(&world, query, &[("Last-Event-ID", &seen)]).await;
    let (_, name, data) = reader.event().await;
    assert_eq!((&*name, &data["lost"]), ("gap", &serde_json::json!(800)));
}

#[tokio::test]
async fn queue_is_read_and_acknowledged() {
    let world = World::start(Audience::Users).await;
    world.declare("q", Table::new()).await;
    let mut client = world.client("u").await;
    for body in ["1", "2"] {
        client.ask(&format!("POST {V}/queues/q/messages"), &[], body.as_bytes()).await;
    }
    let mut reader = open(&world, "queue=q&ack=auto", &[]).await;
    assert_eq!(reader.event().await.2["payload"], "1");
    assert_eq!(reader.event().await.2["payload"], "2");
    let settled = async {
        while world.broker.queues()[0].counts.unsettled > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, settled).await.unwrap();
    world.broker.announce_stop("the server stops");
    let (_, name, data) = reader.event().await;
    assert_eq!((&*name, data["reason"].as_str()), ("closing", Some("the server stops")));
}

#[tokio::test]
async fn deletion_of_the_queue_cancels_the_subscription() {
    let world = World::start(Audience::Users).await;
    world.declare("q", Table::new()).await;
    let mut reader = open(&world, "queue=q&ack=auto", &[]).await;
    let mut client = world.client("u").await;
    let deleted = client.ask(&format!("DELETE {V}/queues/q"), &[], b"").await;
    assert_eq!(deleted.status, 204, "{deleted:?}");
    let (_, name, data) = reader.event().await;
    let said = (&*name, data["reason"].as_str());
    assert_eq!(said, ("cancelled", Some("the queue was deleted")));
}

#[tokio::test]
async fn pattern_of_a_fanout_exchange_may_be_empty() {
    let world = World::start(Audience::Users).await;
    let mut client = world.client("u").await;
    let mut reader = open(&world, "exchange=amq.fanout&pattern=", &[]).await;
    let path = format!("POST {V}/exchanges/amq.fanout/messages?routing_key=k");
    client.ask(&path, &[], b"1").await;
    assert_eq!(reader.event().await.2["payload"], "1");
}

#[tokio::test]
async fn subscription_that_cannot_be_is_refused() {
    let world = World::start(Audience::Users).await;
    world.declare("q", Table::new()).await;
    let mut client = world.client("u").await;
    for (query, headers, status, code) in [
        ("queue=q", &[][..], 400, "wrong_parameters"),
        ("queue=q&ack=auto&exchange=amq.topic", &[], 400, "wrong_parameters"),
        ("", &[], 400, "wrong_parameters"),
        ("exchange=amq.topic", &[], 400, "wrong_parameters"),
        ("queue=none&ack=auto", &[], 404, "queue_not_found"),
        ("exchange=none&pattern=a", &[], 404, "exchange_not_found"),
        ("exchange=amq.topic&pattern=a&keep=5m", &[], 400, "wrong_parameters"),
        ("exchange=amq.topic&pattern=a&name=x&keep=25h", &[], 400, "out_of_range"),
        ("queue=q&ack=auto", &[("Last-Event-ID", "x")], 400, "bad_header"),
        ("queue=q&ack=auto", &[("Origin", "https://evil.example")], 403, "origin_denied"),
    ] {
        let answer = client.ask(&format!("GET {V}/subscribe?{query}"), headers, b"").await;
        assert_eq!((answer.status, &*answer.code()), (status, code), "{query}");
    }
}
