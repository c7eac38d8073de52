//! What holds for all of `/api/v1`: lists, mistakes, dry runs, and the codes of errors.

use serde_json::{Value, json};

use super::{Answer, Browser, World};
use crate::serve::Audience;

const V: &str = "/api/v1/vhosts/~";

async fn world() -> (World, Browser) {
    let world = World::start(Audience::Users).await;
    world.tagged("root", &["administrator"]);
    let client = world.client("root").await;
    (world, client)
}

fn told(answer: &Answer) -> (u16, String, Value) {
    (answer.status, answer.code(), answer.json()["at"].clone())
}

#[tokio::test]
async fn an_age_selects_rows_of_lists() {
    let (world, mut client) = world().await;
    world.declare("q", Vec::new()).await;
    client.ask(&format!("POST {V}/queues/q/messages:purge?expect=any"), &[], b"").await;
    for (condition, count) in [("%3C%20'5h'", 1), ("%3E%20'5h'", 0)] {
        let list = format!("/api/v1/jobs?filter=age(created_at)%20{condition}");
        assert_eq!(client.fetch(&list).await["total"]["value"], count, "{list}");
    }
}

#[tokio::test]
async fn columns_limits_and_cursors_that_do_not_exist_are_told() {
    let (world, mut client) = world().await;
    world.declare("a", Vec::new()).await;
    world.declare("b", Vec::new()).await;
    let list = format!("{V}/queues");
    for (query, code, at) in [
        ("sort=nope", "unknown_field", "sort"),
        ("sort=name,-durable", "unknown_field", "sort"),
        ("fields=nope", "unknown_field", "fields"),
        ("fields=", "unknown_field", "fields"),
        ("filter=nam%20%3D%20'a'", "unknown_field", "filter"),
        ("limit=0", "out_of_range", "limit"),
        ("limit=1001", "out_of_range", "limit"),
    ] {
        let answer = client.get(&format!("{list}?{query}")).await;
        assert_eq!(told(&answer), (400, code.to_owned(), json!(at)), "{query}");
    }
    let near = client.get(&format!("{list}?filter=nam%20%3D%20'a'")).await.json();
    assert_eq!(near["params"]["nearest"], "name");
    // Below a column every row has what it has.
    let free = format!("{list}?filter=arguments.x%20%3D%201&sort=arguments.y&fields=arguments.z");
    assert_eq!(client.fetch(&free).await["total"]["value"], 0);
    let next = client.fetch(&format!("{list}?limit=1")).await["next"].clone();
    let next = next.as_str().unwrap();
    assert_eq!(client.fetch(&format!("{list}?after={next}")).await["items"][0]["name"], "b");
    for other in [format!("{list}?sort=-name&after={next}"), format!("/api/v1/users?after={next}")]
    {
        assert_eq!(client.get(&other).await.code(), "bad_cursor", "{other}");
    }
}

#[tokio::test]
async fn all_mistakes_of_a_request_are_told_together() {
    let (_world, mut client) = world().await;
    let path = format!("{V}/queues/q");
    let wrong = json!({ "durable": 1, "auto_delete": "x", "nope": 1 });
    let answer = client.put(&path, &wrong).await;
    assert_eq!(told(&answer), (400, "wrong_type".to_owned(), json!("/auto_delete")));
    let errors = answer.json()["errors"].clone();
    let places: Vec<_> = errors.as_array().unwrap().iter().map(|one| one["at"].clone()).collect();
    assert_eq!(places, ["/auto_delete", "/durable", "/nope"]);
    let query = client.get(&format!("{V}/queues?limit=x&nope=1")).await.json();
    assert_eq!(
        (&query["errors"][0]["at"], &query["errors"][1]["at"]),
        (&json!("limit"), &json!("nope"))
    );
    for list in [json!([true, false, {}]), json!([])] {
        let answer = client.put(&path, &list).await;
        assert_eq!(told(&answer), (400, "wrong_type".to_owned(), json!("")));
        assert!(!answer.json()["detail"].to_string().contains("QueueSpec"));
    }
    assert_eq!(client.get(&path).await.status, 404);
}

#[tokio::test]
async fn messages_are_deleted_by_number_by_name_or_on_purpose() {
    let (world, mut client) = world().await;
    world.declare("q", Vec::new()).await;
    let publish = format!("POST {V}/queues/q/messages");
    for _ in 0..3 {
        assert_eq!(client.ask(&publish, &[], b"m").await.status, 200);
    }
    let delete = format!("{V}/queues/q/messages:delete?wait=20s");
    let purge = format!("POST {V}/queues/q/messages:purge?wait=20s");
    for body in [json!({}), json!({ "select": { "filter": "TRUE" } })] {
        let answer = client.post(&delete, &body).await;
        assert_eq!(told(&answer), (400, "expect_needed".to_owned(), json!("expect")), "{body}");
        assert_eq!(answer.json()["params"]["found"], 3);
    }
    assert_eq!(client.ask(&purge, &[], b"").await.code(), "expect_needed");
    assert_eq!(world.ready("q"), 3);
    let page = client.fetch(&format!("{V}/queues/q/messages")).await;
    let named = json!({ "select": { "seqs": [page["items"][0]["seq"]] } });
    assert_eq!(client.post(&delete, &named).await.status, 200);
    assert_eq!(world.ready("q"), 2);
    let one = json!({ "select": { "limit": 1 } });
    assert_eq!(client.post(&format!("{delete}&expect=1"), &one).await.status, 200);
    assert_eq!(client.ask(&format!("{purge}&expect=some"), &[], b"").await.code(), "wrong_type");
    assert_eq!(client.ask(&format!("{purge}&expect=any"), &[], b"").await.status, 200);
    assert_eq!(world.ready("q"), 0);
}

#[tokio::test]
async fn codes_say_what_is_missing_and_params_which() {
    let (world, mut client) = world().await;
    world.declare("q", Vec::new()).await;
    let all = json!({ "configure": "", "write": "", "read": "" });
    let answer = client.put("/api/v1/users/root/permissions/nov", &all).await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "vhost_not_found"));
    assert_eq!(answer.json()["params"], json!({ "object": "vhost", "name": "nov" }));
    client.put("/api/v1/users/ann", &json!({})).await;
    let answer = client.get("/api/v1/users/ann/permissions/~").await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "permission_not_found"));
    let answer = client.get("/api/v1/users/nobody").await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "user_not_found"));
    let bindings = format!("{V}/bindings");
    let answer = client.post(&bindings, &json!({ "source": "nope", "destination": "q" })).await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "exchange_not_found"));
    assert_eq!(answer.json()["params"]["name"], "nope");
    let missing = json!({ "source": "amq.topic", "destination": "nope" });
    assert_eq!(client.post(&bindings, &missing).await.code(), "queue_not_found");
    assert_eq!(client.get("/api/v1/traces/9/events").await.code(), "trace_not_found");
    let mut reader = world.client("reader").await;
    let denied = reader.delete(&format!("{V}/queues/q")).await;
    assert_eq!((denied.status, denied.code().as_str()), (403, "permission_denied"));
    let params = json!({ "object": "queue", "name": "q", "right": "configure" });
    assert_eq!(denied.json()["params"], params);
    let long = "k".repeat(65_536);
    for (path, body) in [
        (bindings, json!({ "source": "amq.topic", "destination": "q", "routing_key": long })),
        (
            format!("{V}/messages:publish"),
            json!([{ "exchange": "amq.topic", "routing_key": long, "payload": "" }]),
        ),
        (
            "/api/bindings/%2F/e/amq.topic/q/q".to_owned(),
            json!({ "routing_key": long, "arguments": {} }),
        ),
    ] {
        assert_eq!(client.post(&path, &body).await.status, 400, "{path}");
    }
}

#[tokio::test]
async fn an_exchange_that_differs_tells_every_difference() {
    let (_world, mut client) = world().await;
    let path = format!("{V}/exchanges/x");
    client.put(&path, &json!({ "type": "topic" })).await;
    let other =
        json!({ "type": "direct", "durable": false, "arguments": { "alternate-exchange": "y" } });
    for query in ["", "?dry_run=true"] {
        let answer = client.put(&format!("{path}{query}"), &other).await;
        assert_eq!((answer.status, answer.code().as_str()), (409, "arguments_differ"));
        let differences = answer.json()["params"]["differences"].clone();
        let names: Vec<_> =
            differences.as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
        assert_eq!(names, ["durable", "type", "alternate-exchange"]);
    }
    for query in ["", "?dry_run=true"] {
        let path = format!("{V}/exchanges/amq.mine{query}");
        assert_eq!(client.put(&path, &json!({ "type": "direct" })).await.code(), "name_reserved");
    }
}

#[tokio::test]
async fn dry_runs_change_nothing() {
    let (_world, mut client) = world().await;
    let tokens = "/api/v1/users/root/tokens";
    let dry = client.post(&format!("{tokens}?dry_run=true"), &json!({})).await.json();
    assert_eq!((&dry["dry_run"], &dry["id"]), (&json!(true), &Value::Null));
    let wrong = json!({ "scopes": ["nonsense"] });
    assert_eq!(client.post(&format!("{tokens}?dry_run=true"), &wrong).await.status, 400);
    assert_eq!(client.fetch(tokens).await["total"]["value"], 0);
    let traces = "/api/v1/traces";
    let spec = json!({ "vhost": "/", "routing_key": "k" });
    let dry = client.post(&format!("{traces}?dry_run=true"), &spec).await.json();
    assert_eq!(dry["would_create"], true);
    let wrong = json!({ "vhost": "/", "rate": 0 });
    assert_eq!(client.post(&format!("{traces}?dry_run=true"), &wrong).await.status, 400);
    assert_eq!(client.fetch(traces).await["total"]["value"], 0);
    let id = client.post(traces, &spec).await.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(client.delete(&format!("{traces}/{id}?dry_run=true")).await.status, 200);
    assert_eq!(client.fetch(&format!("{traces}/{id}")).await["state"], "running");
    let drain = client.ask("POST /api/v1/server:drain?dry_run=true", &[], b"").await;
    assert_eq!((drain.status, drain.json()["dry_run"].clone()), (200, json!(true)));
    assert_eq!(client.fetch("/api/v1/server").await["phase"], "serving");
    // What it would read is checked, and is wrong.
    let reload = client.ask("POST /api/v1/config:reload?dry_run=true", &[], b"").await;
    assert_eq!(reload.code(), "config_invalid");
    let tags = json!({ "tags": [""] });
    assert_eq!(client.put("/api/v1/users/ann?dry_run=true", &tags).await.status, 400);
}

#[tokio::test]
async fn dry_runs_refuse_what_would_be_refused() {
    let (_world, mut client) = world().await;
    client.put("/api/v1/users/ann", &json!({})).await;
    let wrong = json!({ "configure": "(", "write": "", "read": "" });
    let topic = json!({ "write": "(", "read": "" });
    let banned = json!({ "user": "root" });
    let here = json!({ "address": "127.0.0.1" });
    let past = json!({ "user": "ann", "until": "1970-01-01T00:00:00Z" });
    for (path, body, code) in [
        ("/api/v1/users/ann/permissions/~", &wrong, "invalid_argument"),
        ("/api/v1/users/ann/topic-permissions/~/amq.topic", &topic, "invalid_argument"),
        ("/api/v1/bans/b", &banned, "invalid_argument"),
        ("/api/v1/bans/b", &here, "invalid_argument"),
        ("/api/v1/bans/b", &past, "invalid_argument"),
    ] {
        for query in ["", "?dry_run=true"] {
            let answer = client.put(&format!("{path}{query}"), body).await;
            assert_eq!(answer.code(), code, "{path}{query} {body}");
        }
    }
    for query in ["", "?dry_run=true"] {
        let answer = client.delete(&format!("{V}/exchanges/amq.topic{query}")).await;
        assert_eq!(answer.code(), "name_reserved", "{query}");
    }
    let policy = json!({ "pattern": "(", "definition": {} });
    let answer = client.put(&format!("{V}/policies/mine?dry_run=true"), &policy).await;
    assert!(answer.json()["detail"].to_string().contains("mine"), "{}", answer.json());
}

#[tokio::test]
async fn a_path_prefix_is_in_what_is_told() {
    let world = World::start_with(Audience::Users, |settings| {
        settings.path_prefix = "/mq".to_owned();
    });
    let world = world.await;
    world.tagged("root", &["administrator"]);
    world.declare("q", Vec::new()).await;
    let mut client = world.client("root").await;
    let document = client.fetch("/mq/api/v1/openapi.json").await;
    assert_eq!(document["servers"], json!([{ "url": "/mq" }]));
    let binding = json!({ "source": "amq.topic", "destination": "q" });
    let bound = client.post("/mq/api/v1/vhosts/~/bindings", &binding).await;
    let location = bound.header("location").unwrap().to_owned();
    assert_eq!(client.get(&location).await.status, 200, "{location}");
}

#[tokio::test]
async fn a_protocol_without_its_version_is_all_of_them() {
    let (_world, mut client) = world().await;
    let path = "/api/v1/convert:explain";
    let message = json!({ "payload": "m", "properties": { "message_id": "1" } });
    for (to, is_there) in [
        ("mqtt", &["mqtt311", "mqtt5"][..]),
        ("stomp", &["stomp10", "stomp11", "stomp12"]),
        ("amqp", &["amqp091"]),
        ("mqtt5", &["mqtt5"]),
    ] {
        let asked = json!({ "message": message, "to": [to] });
        let lines = client.post(path, &asked).await.json()["lines"].clone();
        let mut names: Vec<_> = lines.as_array().unwrap().iter().map(|line| &line["to"]).collect();
        names.dedup();
        assert_eq!(names, is_there, "{to}");
    }
    let answer = client.post(path, &json!({ "message": message, "to": ["mqt"] })).await;
    assert_eq!(told(&answer), (400, "wrong_type".to_owned(), json!("/to/0")));
    assert_eq!(answer.json()["params"]["known"][0], "amqp091");
}

#[tokio::test]
async fn definitions_with_mistakes_are_refused_with_all_of_them() {
    let (_world, mut client) = world().await;
    let wrong = json!({
        "quues": [],
        "queues": [{ "name": "x", "vhost": "/", "durabel": true }, { "vhost": "/" }, 5],
    });
    let answer = client.post("/api/v1/definitions:import", &wrong).await;
    let errors = answer.json()["errors"].clone();
    let told = |one: &Value| (one["code"].clone(), one["at"].clone());
    let told: Vec<_> = errors.as_array().unwrap().iter().map(told).collect();
    let expected = [
        ("unknown_field", "/queues/0/durabel"),
        ("wrong_type", "/queues/1/name"),
        ("wrong_type", "/queues/2"),
        ("unknown_field", "/quues"),
    ];
    assert_eq!(told, expected.map(|(code, at)| (json!(code), json!(at))));
    assert_eq!(client.get(&format!("{V}/queues/x")).await.status, 404);
}
