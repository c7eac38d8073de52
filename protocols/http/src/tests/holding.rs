//! Who holds which message, who has declared a queue, and ending somebody's consumer.

use serde_json::{Value, json};

use super::World;
use crate::serve::Audience;

async fn leased(world: &World, count: usize) -> super::Browser {
    world.declare("q", Vec::new()).await;
    let mut client = world.client("u").await;
    for number in 0..count {
        let body = format!("m{number}");
        client.ask("POST /api/v1/vhosts/~/queues/q/messages", &[], body.as_bytes()).await;
    }
    let asked = json!({ "max": count, "lease": "5m" });
    let taken = client.post("/api/v1/vhosts/~/queues/q/messages:receive", &asked).await;
    assert_eq!(taken.json()["messages"].as_array().unwrap().len(), count);
    client
}

#[tokio::test]
async fn messages_that_are_held_are_told_with_their_holder() {
    let world = World::start(Audience::Users).await;
    let mut client = leased(&world, 5).await;
    let path = "/api/v1/vhosts/~/queues/q/unacked";
    let page = client.get(&format!("{path}?limit=3")).await.json();
    assert_eq!(page["total"], json!({ "value": 5, "exact": true }));
    let next = page["next"].as_str().unwrap();
    let rest = client.get(&format!("{path}?limit=3&after={next}")).await.json();
    assert_eq!(rest["next"], Value::Null);
    let mut rows = page["items"].as_array().unwrap().clone();
    rows.extend(rest["items"].as_array().unwrap().iter().cloned());
    let seqs: Vec<_> = rows.iter().map(|row| row["seq"].as_str().unwrap().to_owned()).collect();
    let mut sorted = seqs.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!((sorted.len(), &sorted), (5, &seqs), "the oldest first, each once");
    for row in &rows {
        assert_eq!((&row["user"], &row["protocol"]), (&json!("u"), &json!("http")), "{row:#}");
        assert!(row["delivered_at"].is_string() && row["held_ms"].is_u64(), "{row:#}");
        assert_eq!((&row["payload_bytes"], &row["redelivered"]), (&json!(2), &json!(false)));
        // Who holds a message is no part of it.
        assert!(row.get("payload").is_none() && row.get("routing_key").is_none());
        let message =
            format!("/api/v1/vhosts/~/queues/q/messages/{}", row["seq"].as_str().unwrap());
        assert_eq!(client.get(&message).await.json()["state"], "unacked");
    }
    assert_eq!(client.get(&format!("{path}?after=x")).await.code(), "bad_cursor");
    assert_eq!(client.get("/api/v1/vhosts/~/queues/none/unacked").await.status, 404);
}

#[tokio::test]
async fn tools_of_lavinmq_are_told_as_well() {
    let world = World::managed().await;
    let mut client = leased(&world, 3).await;
    let mut watcher = world.client("watcher").await;
    let rows = watcher.look("/queues/%2F/q/unacked").await;
    assert_eq!(rows.as_array().unwrap().len(), 3);
    assert_eq!(rows[0]["unacked_for_seconds"], 0);
    assert_eq!(rows[0]["channel_details"]["user"], "u");
    assert_eq!(rows[0]["channel_name"], rows[0]["channel_details"]["name"]);
    let page = watcher.look("/queues/%2F/q/unacked?page=1&page_size=2").await;
    assert_eq!((&page["total_count"], &page["item_count"]), (&json!(3), &json!(2)));
    let seq = rows[2]["position"].as_str().unwrap();
    let message = client.get(&format!("/api/v1/vhosts/~/queues/q/messages/{seq}")).await.json();
    assert_eq!(message["payload"], "m2");
}

#[tokio::test]
async fn whoever_has_declared_a_queue_is_known() {
    let world = World::managed().await;
    world.declare("mine", Vec::new()).await;
    let mut maker = world.client("maker").await;
    assert_eq!(maker.api("PUT /queues/%2F/theirs", "{}").await.status, 201);
    let names = |rows: Value| -> Vec<String> {
        let rows = rows.as_array().unwrap().clone();
        rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(maker.look("/users/maker/queues").await), ["theirs"]);
    assert_eq!(names(maker.look("/users/u/queues?columns=name").await), ["mine"]);
    assert!(names(maker.look("/users/nobody-at-all/queues").await).is_empty());
    let mut outsider = world.client("outsider").await;
    assert!(names(outsider.look("/users/u/queues").await).is_empty(), "not in this virtual host");
    let queue = maker.get("/api/v1/vhosts/~/queues/theirs").await.json();
    assert_eq!(queue["declared_by"], "maker");
}

#[tokio::test]
async fn a_consumer_is_ended_by_the_name_of_its_connection() {
    let world = World::managed().await;
    world.declare("q", Vec::new()).await;
    let mut reader = world.client("u").await;
    reader.send("GET /api/v1/vhosts/~/subscribe?queue=q&ack=auto", &[], b"").await;
    assert_eq!(reader.head().await, 200);
    let mut admin = world.client("admin").await;
    let consumers = admin.look("/consumers/%2F").await;
    let channel = &consumers[0]["channel_details"];
    let encoded = |text: &Value| -> String {
        text.as_str().unwrap().bytes().map(|byte| format!("%{byte:02X}")).collect()
    };
    let name = encoded(&channel["connection_name"]);
    let (number, tag) = (&channel["number"], encoded(&consumers[0]["consumer_tag"]));
    let line = format!("DELETE /consumers/%2F/{name}/{number}/{tag}");
    let mut manager = world.client("manager").await;
    let refused = manager.api(&line, "").await;
    assert_eq!(refused.status, 401, "{line}");
    assert_eq!(refused.json()["error"], "not_authorised");
    assert_eq!(admin.api(&line, "").await.status, 204);
    let (_, kind, data) = reader.event().await;
    assert_eq!(
        (kind.as_str(), &data["reason"]),
        ("cancelled", &json!("an administrator ended it"))
    );
    assert_eq!(admin.api(&line, "").await.status, 404);
}
