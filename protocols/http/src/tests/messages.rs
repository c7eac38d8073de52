//! Looking at messages, moving them, and asking where they would go.

use serde_json::{Value as Json, json};

use polymq_model::{Table, Value};

use super::{Answer, Browser, World};
use crate::serve::Audience;

const QUEUE: &str = "/api/v1/vhosts/~/queues/q";

async fn world() -> (World, Browser) {
    let world = World::start(Audience::Users).await;
    world.declare("q", Table::new()).await;
    let client = world.client("u").await;
    (world, client)
}

impl Browser {
    pub(super) async fn get(&mut self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), &[], b"").await
    }

    pub(super) async fn fetch(&mut self, path: &str) -> Json {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    async fn publish(&mut self, queue: &str, body: &str) {
        let path = format!("POST /api/v1/vhosts/~/queues/{queue}/messages");
        let answer = self.ask(&path, &[("Mq-Type", "test")], body.as_bytes()).await;
        assert_eq!(answer.status, 200);
    }
}

async fn filled(count: usize) -> (World, Browser) {
    let (world, mut client) = world().await;
    for number in 0..count {
        client.publish("q", &format!("{{\"n\":{number}}}")).await;
    }
    (world, client)
}

fn payloads(page: &Json) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|m| m["payload"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn messages_are_seen_page_by_page_and_stay() {
    let (world, mut client) = filled(5).await;
    let page = client.fetch(&format!("{QUEUE}/messages?limit=2")).await;
    assert_eq!(payloads(&page), ["{\"n\":0}", "{\"n\":1}"]);
    let first = &page["items"][0];
    assert_eq!((&first["state"], &first["properties"]["type"]), (&json!("ready"), &json!("test")));
    let next = page["next"].as_str().unwrap();
    let page = client.fetch(&format!("{QUEUE}/messages?limit=9&after={next}")).await;
    assert_eq!((payloads(&page).len(), &page["next"]), (3, &Json::Null));
    let tail = client.fetch(&format!("{QUEUE}/messages?from=tail&limit=1&payload=none")).await;
    assert_eq!(tail["items"][0]["payload_bytes"], 7);
    assert_eq!(tail["items"][0].get("payload"), None);
    let some = format!("{QUEUE}/messages?filter=json('$.n')%20%3E%203");
    assert_eq!(payloads(&client.fetch(&some).await), ["{\"n\":4}"]);
    assert_eq!(world.ready("q"), 5);
}

#[tokio::test]
async fn one_message_shows_everything_and_its_payload_is_an_attachment() {
    let (_world, mut client) = filled(1).await;
    let page = client.fetch(&format!("{QUEUE}/messages")).await;
    let seq = page["items"][0]["seq"].as_str().unwrap();
    let one = client.fetch(&format!("{QUEUE}/messages/{seq}")).await;
    assert_eq!(one["native"]["protocol"], "http");
    assert_eq!(one["truncated"], false);
    let raw = client.get(&format!("{QUEUE}/messages/{seq}/payload")).await;
    assert_eq!(raw.body, b"{\"n\":0}");
    assert!(raw.header("content-disposition").unwrap().starts_with("attachment"));
    let gone = client.get(&format!("{QUEUE}/messages/999")).await;
    assert_eq!((gone.status, gone.code().as_str()), (404, "message_not_found"));
}

#[tokio::test]
async fn types_of_headers_may_be_left_out() {
    let (_world, mut client) = filled(0).await;
    let properties = json!({ "headers": { "small": 1 }, "header_types": { "/small": "u8" } });
    let message = json!([{ "routing_key": "q", "payload": "m", "properties": properties }]);
    let path = "/api/v1/vhosts/~/messages:publish";
    assert_eq!(client.post(path, &message).await.status, 200);
    let typed = client.fetch(&format!("{QUEUE}/messages")).await;
    assert_eq!(typed["items"][0]["properties"]["header_types"]["/small"], "u8");
    let plain = client.fetch(&format!("{QUEUE}/messages?types=plain")).await;
    assert_eq!(plain["items"][0]["properties"].get("header_types"), None);
}

#[tokio::test]
async fn mistakes_are_told_with_their_place() {
    let (_world, mut client) = filled(1).await;
    for (query, code) in [
        ("filter=n%20%3D", "bad_filter"),
        ("from=middle", "wrong_type"),
        ("after=x", "bad_cursor"),
        ("payload=some", "wrong_type"),
        ("fliter=n", "unknown_parameter"),
    ] {
        let answer = client.get(&format!("{QUEUE}/messages?{query}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{query}");
    }
    let answer = client.get("/api/v1/vhosts/~/queues/none/messages").await;
    assert_eq!(answer.code(), "queue_not_found");
}

#[tokio::test]
async fn a_search_streams_hits_and_says_why_it_ends() {
    let (_world, mut client) = filled(10).await;
    let body = json!({ "filter": "json('$.n') >= 7" }).to_string();
    let line = format!("POST {QUEUE}/messages:search");
    client.send(&line, &[("Content-Type", "application/json")], body.as_bytes()).await;
    let mut lines = Vec::new();
    loop {
        let line = client.line().await;
        // The lines stand between the sizes of chunks.
        if line.starts_with('{') {
            let line: Json = serde_json::from_str(&line).unwrap();
            let is_end = line.get("end").is_some();
            lines.push(line);
            if is_end {
                break;
            }
        }
    }
    let hits = lines.iter().filter(|line| line.get("hit").is_some()).count();
    assert_eq!(hits, 3);
    assert_eq!(lines.last().unwrap()["end"], "end_of_queue");
}

#[tokio::test]
async fn messages_move_in_a_job_that_can_be_waited_for() {
    let (world, mut client) = filled(6).await;
    world.declare("to", Table::new()).await;
    let some = json!({ "select": { "filter": "json('$.n') < 4" }, "to": { "queue": "to" } });
    let would = client.post(&format!("{QUEUE}/messages:move?dry_run=true"), &some).await.json();
    assert_eq!((&would["count"], &would["exact"]), (&json!(4), &json!(true)));
    assert_eq!(world.ready("to"), 0);
    let moved = client.post(&format!("{QUEUE}/messages:move?wait=20s"), &some).await;
    assert_eq!(moved.status, 200);
    let job = moved.json();
    assert_eq!((&job["state"], &job["result"]["done"]), (&json!("done"), &json!(4)));
    assert_eq!((world.ready("q"), world.ready("to")), (2, 4));
    let id = job["id"].as_str().unwrap();
    assert_eq!(moved.header("location"), Some(format!("/api/v1/jobs/{id}").as_str()));
    assert_eq!(client.fetch(&format!("/api/v1/jobs/{id}")).await["kind"], "move");
    assert_eq!(client.fetch("/api/v1/jobs?filter=kind%3D'move'").await["total"]["value"], 1);
    // Others do not see it.
    let mut other = world.client("reader").await;
    assert_eq!(other.get(&format!("/api/v1/jobs/{id}")).await.status, 404);
    assert_eq!(other.fetch("/api/v1/jobs").await["total"]["value"], 0);
    let ended = client.ask(&format!("DELETE /api/v1/jobs/{id}"), &[], b"").await;
    assert_eq!(ended.status, 204);
    assert_eq!(client.get(&format!("/api/v1/jobs/{id}")).await.status, 404);
}

#[tokio::test]
async fn what_is_removed_is_counted_first_when_somebody_expects_a_number() {
    let (world, mut client) = filled(3).await;
    let purge = format!("POST {QUEUE}/messages:purge");
    let wrong = client.ask(&format!("{purge}?expect=2"), &[], b"").await;
    assert_eq!((wrong.status, wrong.code().as_str()), (409, "count_changed"));
    assert_eq!(wrong.json()["params"]["found"], 3);
    let done = client.ask(&format!("{purge}?expect=3&wait=20s"), &[], b"").await;
    assert_eq!((done.status, world.ready("q")), (200, 0));
}

#[tokio::test]
async fn work_that_makes_no_sense_or_is_not_allowed_is_refused() {
    let (world, mut client) = filled(1).await;
    for (path, body, code) in [
        ("move", json!({}), "invalid_argument"),
        ("move", json!({ "to": { "queue": "a", "exchange": "b" } }), "invalid_argument"),
        ("delete", json!({ "to": { "queue": "a" } }), "invalid_argument"),
        ("retry", json!({ "via": "air" }), "invalid_argument"),
        ("move", json!({ "to": { "queue": "none" } }), "queue_not_found"),
        ("delete", json!({ "select": { "seqs": ["x"] } }), "wrong_type"),
        ("delete", json!({ "select": { "filter": "(" } }), "bad_filter"),
        ("delete", json!({ "selcet": {} }), "unknown_field"),
    ] {
        let answer = client.post(&format!("{QUEUE}/messages:{path}"), &body).await;
        assert_eq!(answer.code(), code, "{path} {body}");
    }
    let mut reader = world.client("reader").await;
    world.declare("to", Table::new()).await;
    let body = json!({ "to": { "queue": "to" } });
    let answer = reader.post(&format!("{QUEUE}/messages:move"), &body).await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "permission_denied"));
    assert_eq!(world.ready("q"), 1);
}

#[tokio::test]
async fn dead_letters_are_grouped_and_go_back() {
    let (world, mut client) = world().await;
    let text = |text: &str| Value::String(text.to_owned());
    let arguments = vec![
        ("x-dead-letter-exchange".to_owned(), text("")),
        ("x-dead-letter-routing-key".to_owned(), text("q")),
        ("x-max-length".to_owned(), Value::I32(1)),
    ];
    world.declare("origin", arguments).await;
    for body in ["a", "b", "c"] {
        client.publish("origin", body).await;
    }
    let groups = client.fetch("/api/v1/vhosts/~/dead-letters").await;
    let group = &groups["items"][0];
    assert_eq!((&group["origin"], &group["reason"]), (&json!("origin"), &json!("maxlen")));
    assert_eq!((&group["count"], &groups["total"]["exact"]), (&json!(2), &json!(true)));
    let filter = group["filter"].as_str().unwrap();
    let retry = json!({ "select": { "filter": filter, "limit": 1 } });
    let job = client.post(&format!("{QUEUE}/messages:retry?wait=20s"), &retry).await.json();
    assert_eq!(job["result"]["done"], 1);
    // What came back pushed out another.
    let page = client.fetch("/api/v1/vhosts/~/queues/origin/messages").await;
    assert_eq!(payloads(&page), ["a"]);
    let page = client.fetch(&format!("{QUEUE}/messages")).await;
    assert_eq!(payloads(&page), ["b", "c"]);
    assert_eq!(page["items"][1]["death"][0]["reason"], "maxlen");
}

#[tokio::test]
async fn the_router_says_where_a_message_would_go() {
    let (world, mut client) = world().await;
    let path = "/api/v1/vhosts/~/routing:explain";
    let there = json!({ "message": { "routing_key": "q", "payload": "x" } });
    let answer = client.post(path, &there).await.json();
    assert_eq!((&answer["routed"], &answer["queues"]), (&json!(true), &json!(["q"])));
    let kinds: Vec<_> =
        answer["steps"].as_array().unwrap().iter().map(|step| step["kind"].clone()).collect();
    assert_eq!(kinds, ["permission", "exchange", "queue"]);
    let nowhere = json!({ "message": { "routing_key": "new" } });
    assert_eq!(client.post(path, &nowhere).await.json()["routed"], false);
    // The protocol of the address says where it leads, and that it makes the queue.
    let made = json!({ "address": { "protocol": "toy", "text": "q:new" }, "message": {} });
    let answer = client.post(path, &made).await.json();
    assert_eq!(answer["steps"][0]["reason"]["params"]["routing_key"], "new");
    assert_eq!((&answer["steps"][2]["outcome"], &answer["routed"]), (&json!("made"), &json!(true)));
    for (protocol, text, at) in [("toy", "x", "text"), ("none", "q:q", "protocol")] {
        let asked = json!({ "address": { "protocol": protocol, "text": text }, "message": {} });
        let told = client.post(path, &asked).await.json();
        assert_eq!((&told["status"], &told["at"]), (&json!(400), &json!(format!("/address/{at}"))));
    }
    let other = json!({ "user": "reader", "message": { "routing_key": "q" } });
    assert_eq!(client.post(path, &other).await.code(), "permission_denied");
    assert_eq!(world.ready("q"), 0);
}

#[tokio::test]
async fn delayed_messages_are_listed_moved_and_cancelled() {
    let (_world, mut client) = world().await;
    for delay in ["3600000", "7200000"] {
        let line = format!("POST {QUEUE}/messages");
        let answer = client.ask(&line, &[("Mq-Delay", delay)], b"later").await;
        assert_eq!(answer.status, 200);
    }
    let list = "/api/v1/vhosts/~/scheduled";
    let page = client.fetch(list).await;
    let ids: Vec<String> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(page["items"][0]["properties"]["delay"], 3_600_000);
    let body = json!({ "due_at": "2099-01-01T00:00:00Z" }).to_string();
    let json_type = [("Content-Type", "application/json")];
    let moved = client.ask(&format!("PATCH {list}/{}", ids[0]), &json_type, body.as_bytes()).await;
    assert_eq!(moved.status, 200);
    let page = client.fetch(&format!("{list}?limit=1")).await;
    assert_eq!(page["items"][0]["id"], json!(ids[1]));
    let next = page["next"].as_str().unwrap();
    let page = client.fetch(&format!("{list}?after={next}")).await;
    assert_eq!(page["items"][0]["due_at"], "2099-01-01T00:00:00.000Z");
    for id in &ids {
        let cancelled = client.ask(&format!("DELETE {list}/{id}"), &[], b"").await;
        assert_eq!(cancelled.status, 204);
    }
    assert_eq!(client.ask(&format!("DELETE {list}/{}", ids[0]), &[], b"").await.status, 404);
    assert_eq!(client.fetch(list).await["total"]["value"], 0);
}

#[tokio::test]
async fn the_tree_of_topics_is_walked_level_by_level() {
    let (_world, mut client) = world().await;
    for key in ["site.a.temp", "site.a.door", "site.b.temp", "other"] {
        let line = format!("POST /api/v1/vhosts/~/exchanges/amq.topic/messages?routing_key={key}");
        client.ask(&line, &[("Mq-Retain", "true")], key.as_bytes()).await;
    }
    let top = client.fetch("/api/v1/vhosts/~/topics").await;
    assert_eq!(top["total"]["value"], 2);
    let sites = client.fetch("/api/v1/vhosts/~/topics?prefix=site").await;
    let a = &sites["items"][0];
    assert_eq!(
        (&a["topic"], &a["below"], &a["has_value"]),
        (&json!("site.a"), &json!(2), &json!(false))
    );
    let one = "/api/v1/vhosts/~/retained/site.a.temp";
    assert_eq!(client.fetch(one).await["payload"], "site.a.temp");
    assert_eq!(client.ask(&format!("DELETE {one}"), &[], b"").await.status, 204);
    assert_eq!(client.get(one).await.status, 404);
}

#[tokio::test]
async fn one_message_is_edited_while_it_moves() {
    let (world, mut client) = filled(2).await;
    world.declare("other", Vec::new()).await;
    let page = client.fetch(&format!("{QUEUE}/messages")).await;
    let seq = page["items"][0]["seq"].clone();
    let all = json!({ "to": { "queue": "other" }, "edit": { "payload": "x" } });
    let refused = client.post(&format!("{QUEUE}/messages:move?wait=10s"), &all).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_argument"));
    let work = json!({
        "select": { "seqs": [seq] },
        "to": { "queue": "other" },
        "edit": {
            "routing_key": "fixed",
            "properties": { "expiration": 60000, "headers": { "why": "typo" } },
            "payload": { "n": "right" },
            "payload_encoding": "json",
        },
    });
    let done = client.post(&format!("{QUEUE}/messages:move?wait=10s"), &work).await;
    assert_eq!(done.json()["progress"]["done"], 1, "{:#}", done.json());
    let moved = client.fetch("/api/v1/vhosts/~/queues/other/messages?payload=full").await;
    let moved = &moved["items"][0];
    assert_eq!(moved["payload"], "{\"n\":\"right\"}");
    assert_eq!(moved["routing_key"], "fixed");
    let headers = &moved["properties"]["headers"];
    assert_eq!((&headers["why"], &headers["x-edited-from"]), (&json!("typo"), &seq));
    assert!(moved["expires_at"].is_string(), "{moved:#}");
    assert_eq!(world.ready("q"), 1);
    let wrong = json!({
        "select": { "seqs": [client.fetch(&format!("{QUEUE}/messages")).await["items"][0]["seq"]] },
        "to": { "queue": "other" }, "edit": { "properties": { "priority": "high" } },
    });
    let refused = client.post(&format!("{QUEUE}/messages:move?wait=10s"), &wrong).await;
    assert_eq!(refused.status, 400, "{}", refused.json());
    assert_eq!(world.ready("q"), 1);
}
