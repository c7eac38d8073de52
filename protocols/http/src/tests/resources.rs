//! Queues, exchanges, bindings, virtual hosts, users and policies over HTTP.

use polymq_broker::{PermissionRecord, UserRecord};
use polymq_model::{UserName, VhostName};
use serde_json::{Value, json};

use super::{Answer, Browser, World};
use crate::serve::Audience;

impl World {
    /// Adds a user with tags and all permissions in the usual virtual host.
    pub(super) fn tagged(&self, user: &str, tags: &[&str]) {
        let name = UserName::new(user).unwrap();
        let record = UserRecord {
            password_hash: String::new(),
            scram: String::new(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            loopback_only: false,
        };
        self.broker.put_user(name.clone(), record, false);
        let vhost = VhostName::new("/").unwrap();
        self.broker.put_permission(vhost, name, PermissionRecord::all(), false).unwrap();
    }
}

impl Browser {
    pub(super) async fn put(&mut self, path: &str, body: &Value) -> Answer {
        let json = [("Content-Type", "application/json")];
        self.ask(&format!("PUT {path}"), &json, body.to_string().as_bytes()).await
    }

    pub(super) async fn patch(&mut self, path: &str, body: &Value) -> Answer {
        let json = [("Content-Type", "application/json")];
        self.ask(&format!("PATCH {path}"), &json, body.to_string().as_bytes()).await
    }

    pub(super) async fn delete(&mut self, path: &str) -> Answer {
        self.ask(&format!("DELETE {path}"), &[], b"").await
    }
}

async fn world() -> (World, Browser) {
    let world = World::start(Audience::Users).await;
    world.tagged("root", &["administrator"]);
    let client = world.client("root").await;
    (world, client)
}

#[tokio::test]
async fn a_queue_is_declared_seen_paused_and_deleted() {
    let (world, mut client) = world().await;
    let path = "/api/v1/vhosts/~/queues/orders";
    let spec = json!({ "arguments": { "x-max-length": 5 } });
    let dry = client.put(&format!("{path}?dry_run=true"), &spec).await;
    assert_eq!(dry.json(), json!({ "dry_run": true, "would_create": true }));
    assert_eq!(client.get(path).await.code(), "queue_not_found");
    let made = client.put(path, &spec).await;
    assert_eq!(made.status, 201, "{}", made.json());
    let tag = made.header("etag").unwrap().to_owned();
    assert_eq!(client.put(path, &spec).await.status, 200);
    let queue = client.get(path).await;
    assert_eq!(queue.header("etag"), Some(tag.as_str()));
    let queue = queue.json();
    assert_eq!(queue["arguments"], json!({ "x-max-length": 5 }));
    assert_eq!((&queue["state"], &queue["messages"]["ready"]), (&json!("running"), &json!(0)));

    let other = json!({ "durable": false, "arguments": { "x-max-length": 6 } });
    let differs = client.put(path, &other).await;
    assert_eq!((differs.status, differs.code().as_str()), (409, "arguments_differ"));
    let names: Vec<_> = differs.json()["params"]["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|difference| difference["name"].clone())
        .collect();
    assert_eq!(names, ["durable", "x-max-length"]);

    let pause = format!("{path}/pause");
    assert_eq!(client.ask(&format!("PUT {pause}"), &[], b"").await.status, 204);
    assert_eq!(client.fetch(path).await["state"], "paused");
    assert_eq!(client.delete(&pause).await.status, 204);
    assert_eq!(client.fetch(path).await["state"], "running");

    world.run_publish("orders").await;
    assert_eq!(client.delete(&format!("{path}?if_empty=true")).await.code(), "not_empty");
    let stale = [("If-Match", "\"other\"")];
    let stale = client.ask(&format!("DELETE {path}"), &stale, b"").await;
    assert_eq!((stale.status, stale.code().as_str()), (412, "etag_mismatch"));
    let current = [("If-Match", tag.as_str())];
    assert_eq!(client.ask(&format!("DELETE {path}"), &current, b"").await.status, 204);
    assert_eq!(client.delete(path).await.status, 404);
}

impl World {
    async fn run_publish(&self, queue: &str) {
        let mut client = self.client("u").await;
        let line = format!("POST /api/v1/vhosts/~/queues/{queue}/messages");
        assert_eq!(client.ask(&line, &[], b"m").await.status, 200);
    }
}

#[tokio::test]
async fn a_consumer_that_is_not_there_cannot_be_ended() {
    let (_world, mut client) = world().await;
    client.put("/api/v1/vhosts/~/queues/q", &json!({})).await;
    for tail in ["7/0/tag", "x/0/tag", "7/y/tag"] {
        let path = format!("/api/v1/vhosts/~/queues/q/consumers/{tail}");
        assert_eq!(client.delete(&path).await.code(), "consumer_not_found", "{tail}");
    }
    let path = "/api/v1/vhosts/~/queues/none/consumers/7/0/tag";
    assert_eq!(client.delete(path).await.code(), "queue_not_found");
}

#[tokio::test]
async fn a_password_is_not_empty_and_can_be_taken_away() {
    let (_world, mut client) = world().await;
    let path = "/api/v1/users/ann";
    for query in ["", "?dry_run=true"] {
        let empty = client.put(&format!("{path}{query}"), &json!({ "password": "" })).await;
        assert_eq!((empty.status, empty.code().as_str()), (400, "invalid_argument"));
        assert_eq!(empty.json()["at"], "/password");
    }
    let old = client.put("/api/users/ann", &json!({ "password": "", "tags": "" })).await;
    assert_eq!((old.status, client.get(path).await.status), (400, 404));
    let hash = json!({ "password_hash": "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR" });
    assert_eq!(client.put(path, &hash).await.json()["has_password"], true);
    assert_eq!(client.put(path, &json!({ "tags": [] })).await.json()["has_password"], true);
    let none = client.put(path, &json!({ "password": null })).await;
    assert_eq!(none.json()["has_password"], false);
}

#[tokio::test]
async fn wrong_declarations_are_told() {
    let (_world, mut client) = world().await;
    let path = "/api/v1/vhosts/~/queues/q";
    for (body, status, code) in [
        (json!({ "arguments": { "x-max-length": -1 } }), 400, "invalid_argument"),
        (json!({ "arguments": [1] }), 400, "wrong_type"),
        (json!({ "durabel": true }), 400, "unknown_field"),
        (json!({ "arguments": { "x-queue-type": "stream" } }), 501, "not_available"),
    ] {
        for query in ["", "?dry_run=true"] {
            let answer = client.put(&format!("{path}{query}"), &body).await;
            assert_eq!((answer.status, answer.code().as_str()), (status, code), "{body}{query}");
        }
    }
    let if_new = [("If-None-Match", "*"), ("Content-Type", "application/json")];
    let line = format!("PUT {path}");
    assert_eq!(client.ask(&line, &if_new, b"{}").await.status, 201);
    assert_eq!(client.ask(&line, &if_new, b"{}").await.status, 412);
    let reserved = client.put("/api/v1/vhosts/~/queues/amq.mine", &json!({})).await;
    assert_eq!((reserved.status, reserved.code().as_str()), (403, "name_reserved"));
}

#[tokio::test]
async fn lists_have_pages_filters_orders_and_fields() {
    let (world, mut client) = world().await;
    for number in 0..7 {
        world.declare(&format!("q{number}"), Vec::new()).await;
    }
    world.run_publish("q3").await;
    let list = "/api/v1/vhosts/~/queues";
    let mut names = Vec::new();
    let mut next = String::new();
    loop {
        let page = client.fetch(&format!("{list}?limit=3&fields=name{next}")).await;
        assert_eq!(page["total"], json!({ "value": 7, "exact": true }));
        for item in page["items"].as_array().unwrap() {
            assert_eq!(item.as_object().unwrap().len(), 1);
            names.push(item["name"].as_str().unwrap().to_owned());
        }
        match page["next"].as_str() {
            Some(cursor) => next = format!("&after={cursor}"),
            None => break,
        }
    }
    assert_eq!(names, ["q0", "q1", "q2", "q3", "q4", "q5", "q6"]);
    let some = client.fetch(&format!("{list}?filter=messages.ready%20%3E%200")).await;
    assert_eq!((&some["total"]["value"], &some["items"][0]["name"]), (&json!(1), &json!("q3")));
    let sorted = client.fetch(&format!("{list}?sort=-messages.ready&limit=2&fields=name")).await;
    assert_eq!((&sorted["items"][0]["name"], &sorted["order"]), (&json!("q3"), &json!("live")));
    let cursor = sorted["next"].as_str().unwrap();
    let after = format!("{list}?sort=-messages.ready&limit=9&fields=name&after={cursor}");
    assert_eq!(client.fetch(&after).await["items"].as_array().unwrap().len(), 5);
    assert_eq!(client.get(&format!("{list}?filter=(")).await.code(), "bad_filter");
    assert_eq!(client.get(&format!("{list}?after=x")).await.code(), "bad_cursor");
}

#[tokio::test]
async fn exchanges_and_bindings_come_and_go() {
    let (_world, mut client) = world().await;
    let path = "/api/v1/vhosts/~/exchanges/events";
    let spec = json!({ "type": "topic" });
    assert_eq!(client.put(path, &spec).await.status, 201);
    let differs = client.put(path, &json!({ "type": "fanout" })).await;
    assert_eq!((differs.status, differs.code().as_str()), (409, "arguments_differ"));
    client.put("/api/v1/vhosts/~/queues/q", &json!({})).await;
    let bindings = "/api/v1/vhosts/~/bindings";
    let body = json!({ "source": "events", "destination": "q", "routing_key": "a.#" });
    let dry = client.post(&format!("{bindings}?dry_run=true"), &body).await;
    assert_eq!(dry.json()["would_create"], true);
    let bound = client.post(bindings, &body).await;
    assert_eq!(bound.status, 201, "{}", bound.json());
    let location = bound.header("location").unwrap().to_owned();
    assert_eq!(client.post(bindings, &body).await.status, 200);
    assert_eq!(client.fetch(&location).await["routing_key"], "a.#");
    let of_queue = client.fetch("/api/v1/vhosts/~/queues/q/bindings").await;
    // The default exchange leads to every queue.
    assert_eq!(of_queue["total"]["value"], 2);
    assert_eq!(client.delete(&format!("{path}?if_unused=true")).await.code(), "in_use");
    assert_eq!(client.delete(&location).await.status, 204);
    assert_eq!(client.delete(&location).await.code(), "binding_not_found");
    assert_eq!(client.delete(path).await.status, 204);
    assert_eq!(client.get(path).await.code(), "exchange_not_found");
    let built_in = client.fetch("/api/v1/vhosts/~/exchanges?fields=name").await;
    assert_eq!(built_in["items"][0]["name"], "amq.default");
}

#[tokio::test]
async fn virtual_hosts_are_protected_bounded_and_deleted() {
    let (_world, mut client) = world().await;
    let path = "/api/v1/vhosts/shop";
    let spec = json!({ "description": "d", "protected_from_deletion": true });
    assert_eq!(client.put(path, &spec).await.status, 201);
    assert_eq!(client.delete(path).await.code(), "protected");
    // What is not said stays.
    let free = json!({ "protected_from_deletion": false });
    assert_eq!(client.put(path, &free).await.status, 200);
    assert_eq!(client.fetch(path).await["description"], "d");
    let limits = format!("{path}/limits");
    assert_eq!(client.put(&limits, &json!({ "queues_max": 3 })).await.status, 200);
    assert_eq!(client.fetch(&limits).await["queues_max"], 3);
    assert_eq!(client.delete(&limits).await.status, 204);
    assert_eq!(client.fetch("/api/v1/vhosts").await["total"]["value"], 2);
    assert_eq!(client.delete(path).await.status, 204);
    assert_eq!(client.get(path).await.status, 404);
}

#[tokio::test]
async fn users_permissions_and_tokens() {
    let (world, mut client) = world().await;
    let made = client.put("/api/v1/users/ann", &json!({ "tags": ["management"] })).await;
    assert_eq!(made.status, 201, "{}", made.json());
    assert_eq!(made.json()["has_password"], false);
    let permission = "/api/v1/users/ann/permissions/~";
    let body = json!({ "configure": "", "write": "", "read": "^logs" });
    assert_eq!(client.put(permission, &body).await.status, 201);
    assert_eq!(client.fetch(permission).await["read"], "^logs");
    let bad = json!({ "configure": "(", "write": "", "read": "" });
    assert_eq!(client.put(permission, &bad).await.code(), "invalid_argument");
    let test = "/api/v1/vhosts/~/permissions:test";
    let asked = json!({ "user": "ann", "action": "read", "object": "logs.eu" });
    assert_eq!(client.post(test, &asked).await.json()["allowed"], true);
    let asked = json!({ "user": "ann", "action": "write", "object": "logs.eu" });
    let answer = client.post(test, &asked).await.json();
    assert_eq!(answer["allowed"], false);
    assert!(answer["rule"].as_str().unwrap().contains("write"), "{answer}");

    // A list shows what somebody has a right to.
    world.declare("logs.eu", Vec::new()).await;
    world.declare("orders", Vec::new()).await;
    let mut ann = world.client("ann").await;
    let queues = ann.fetch("/api/v1/vhosts/~/queues").await;
    assert_eq!(
        (&queues["total"]["value"], &queues["items"][0]["name"]),
        (&json!(1), &json!("logs.eu"))
    );
    assert_eq!(ann.get("/api/v1/vhosts/~/queues/orders").await.code(), "queue_not_found");

    let tokens = "/api/v1/users/ann/tokens";
    let made = ann.post(tokens, &json!({ "name": "t", "scopes": ["read:*/*"] })).await;
    assert_eq!((made.status, made.header("cache-control")), (201, Some("no-store")));
    let token = made.json();
    assert!(token["token"].as_str().unwrap().starts_with("pmq_"));
    let listed = client.fetch(tokens).await;
    assert_eq!(listed["items"][0]["id"], token["id"]);
    assert_eq!(listed["items"][0].get("token"), None);
    let one = format!("{tokens}/{}", token["id"].as_str().unwrap());
    assert_eq!(client.delete(&one).await.status, 204);

    let gone = client.delete("/api/v1/users/ann").await;
    assert_eq!(gone.status, 204);
    assert_eq!(client.get("/api/v1/users/ann").await.code(), "user_not_found");
    assert_eq!(client.delete("/api/v1/users/root").await.code(), "in_use");
}

#[tokio::test]
async fn policies_name_what_they_match() {
    let (world, mut client) = world().await;
    world.declare("short.a", Vec::new()).await;
    world.declare("long.b", Vec::new()).await;
    let path = "/api/v1/vhosts/~/policies/short";
    let spec = json!({
        "pattern": "^short", "apply_to": "queues", "definition": { "max-length": 3 },
    });
    let dry = client.put(&format!("{path}?dry_run=true"), &spec).await.json();
    assert_eq!(dry["matches"]["queues"], json!(["short.a"]));
    assert_eq!(client.get(path).await.code(), "policy_not_found");
    assert_eq!(client.put(path, &spec).await.status, 201);
    let shown = client.fetch(path).await;
    assert_eq!((&shown["matches"]["queue_count"], &shown["priority"]), (&json!(1), &json!(0)));
    let queue = client.fetch("/api/v1/vhosts/~/queues/short.a").await;
    assert_eq!(queue["policy"], "short");
    let wrong = json!({ "pattern": "(", "definition": { "speed": 1 } });
    assert_eq!(client.put(path, &wrong).await.code(), "invalid_argument");
    assert_eq!(client.delete(path).await.status, 204);
}

#[tokio::test]
async fn connections_are_listed_and_closed_and_bans_keep_out() {
    let (world, mut client) = world().await;
    let mut other = world.client("u").await;
    other.fetch("/api/v1/jobs").await;
    let list = "/api/v1/connections?filter=user%3D'u'";
    let found = client.fetch(list).await;
    let id = found["items"][0]["id"].as_str().unwrap();
    assert_eq!(found["items"][0]["protocol"], "http");
    let closed = client.delete(&format!("/api/v1/connections/{id}?reason=bye")).await;
    assert_eq!(closed.status, 204);
    let ban = json!({ "user": "u", "reason": "r" });
    assert_eq!(client.put("/api/v1/bans/one", &ban).await.status, 201);
    let mut third = world.client("u").await;
    assert_eq!(third.get("/api/v1/jobs").await.code(), "banned");
    assert_eq!(client.delete("/api/v1/bans/one").await.status, 204);
    assert_eq!(third.get("/api/v1/jobs").await.status, 200);
    let two = json!({ "user": "u", "client_id": "c" });
    assert_eq!(client.put("/api/v1/bans/two", &two).await.code(), "invalid_argument");
}

#[tokio::test]
async fn arguments_of_a_queue_change_while_it_is_there() {
    let (world, mut client) = world().await;
    let path = "/api/v1/vhosts/~/queues/orders";
    let spec = json!({ "arguments": { "x-max-length": 2, "x-max-priority": 3 } });
    assert_eq!(client.put(path, &spec).await.status, 201);
    let patch = async |client: &mut Browser, query: &str, arguments: &Value| {
        let json = [("Content-Type", "application/json")];
        let body = json!({ "arguments": arguments }).to_string();
        client.ask(&format!("PATCH {path}{query}"), &json, body.as_bytes()).await
    };
    let new = json!({ "x-max-length": 1, "x-message-ttl": 60000 });
    let dry = patch(&mut client, "?dry_run=true", &new).await.json();
    assert_eq!(dry["after"]["x-max-length"], 1);
    for _ in 0..2 {
        world.run_publish("orders").await;
    }
    assert_eq!(world.ready("orders"), 2, "a dry run changes nothing");
    let changed = patch(&mut client, "", &new).await;
    assert_eq!(changed.status, 200, "{}", changed.json());
    assert_eq!(world.ready("orders"), 1, "what holds now holds for what waits");
    let all = json!({ "x-max-length": 1, "x-message-ttl": 60000, "x-max-priority": 3 });
    assert_eq!(client.fetch(path).await["arguments"], all);
    assert_eq!(client.put(path, &json!({ "arguments": all })).await.status, 200);
    assert_eq!(client.put(path, &spec).await.code(), "arguments_differ");
    let removed = patch(&mut client, "", &json!({ "x-max-length": null })).await.json();
    assert_eq!(removed["arguments"].get("x-max-length"), None);
    world.run_publish("orders").await;
    assert_eq!(world.ready("orders"), 2);
    let fixed = patch(&mut client, "", &json!({ "x-max-priority": 9, "x-expires": 1000 })).await;
    assert_eq!(fixed.status, 409);
    assert!(fixed.json()["detail"].as_str().unwrap().contains("x-max-priority"));
    let wrong = patch(&mut client, "", &json!({ "x-max-length": -1 })).await;
    assert_eq!(wrong.code(), "invalid_argument");
    let audit = client.fetch("/api/v1/audit").await;
    let actions: Vec<_> =
        audit["items"].as_array().unwrap().iter().map(|entry| entry["action"].clone()).collect();
    assert_eq!(actions, ["queue.declare", "queue.change", "queue.change"]);
}
