//! Definitions out, compared and in again.

use polymq_model::Value as Typed;
use serde_json::{Value, json};

use super::{Browser, World};
use crate::serve::Audience;

const HASH: &str = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR";

async fn world() -> (World, Browser) {
    let world = World::start(Audience::Users).await;
    world.tagged("root", &["administrator"]);
    let client = world.client("root").await;
    (world, client)
}

/// A broker with one thing of each kind.
async fn furnished() -> (World, Browser) {
    let (world, mut client) = world().await;
    for (path, body) in [
        ("/vhosts/v", json!({ "description": "d", "protected_from_deletion": true })),
        ("/vhosts/v/limits", json!({ "queues_max": 9 })),
        ("/users/ann/permissions/v", json!({ "configure": "a", "write": "b", "read": "c" })),
        ("/users/ann/limits", json!({ "connections_max": 3 })),
        ("/vhosts/~/policies/p", json!({ "pattern": "^q", "definition": { "max-length": 3 } })),
        ("/vhosts/~/exchanges/x", json!({ "type": "headers" })),
        ("/vhosts/~/queues/q", json!({ "arguments": { "x-max-length": 5 } })),
    ] {
        if path.starts_with("/users/ann/p") {
            let hashed = json!({ "users": [{ "name": "ann", "tags": [], "password_hash": HASH }] });
            let made = client.post("/api/v1/definitions:import", &hashed).await;
            assert_eq!(made.status, 200, "{}", made.json());
        }
        let made = client.put(&format!("/api/v1{path}"), &body).await;
        assert!(matches!(made.status, 200 | 201), "{path}: {}", made.json());
    }
    // A number as clients of AMQP write one.
    world
        .run(|request| {
            polymq_contract::Command::BindQueue(Box::new(polymq_contract::BindQueue {
                request,
                exchange: "x".to_owned(),
                queue: "q".to_owned(),
                key: String::new(),
                arguments: vec![("n".to_owned(), Typed::I32(7))],
            }))
        })
        .await;
    (world, client)
}

fn counts(told: &Value) -> (u64, u64, u64) {
    let count = |name: &str| told["counts"][name].as_u64().unwrap();
    (count("create"), count("change"), count("conflict"))
}

#[tokio::test]
async fn what_goes_out_comes_in_elsewhere_and_a_second_time_changes_nothing() {
    let (_one, mut client) = furnished().await;
    let document = client.fetch("/api/v1/definitions").await;
    let same = client.post("/api/v1/definitions:diff", &document).await.json();
    assert_eq!(counts(&same), (0, 0, 0), "{same:#}");

    let (_other, mut other) = world().await;
    let dry = other.post("/api/v1/definitions:import?dry_run=true", &document).await.json();
    assert!(dry["counts"]["create"].as_u64().unwrap() >= 7, "{dry:#}");
    assert_eq!(other.get("/api/v1/vhosts/v").await.status, 404, "a dry run changes nothing");
    let done = other.post("/api/v1/definitions:import", &document).await;
    assert_eq!(done.status, 200, "{}", done.json());
    let again = other.fetch("/api/v1/definitions").await;
    for part in [
        "vhosts",
        "users",
        "permissions",
        "topic_permissions",
        "policies",
        "parameters",
        "queues",
        "exchanges",
        "bindings",
        "global_parameters",
    ] {
        let list = |document: &Value| {
            let mut items: Vec<String> =
                document[part].as_array().unwrap().iter().map(Value::to_string).collect();
            items.sort();
            items
        };
        assert_eq!(list(&document), list(&again), "{part}");
    }
    let twice = other.post("/api/v1/definitions:import", &document).await.json();
    assert_eq!(counts(&twice), (0, 0, 0), "{twice:#}");
}

#[tokio::test]
async fn changes_and_conflicts_are_told_before_anything_happens() {
    let (_world, mut client) = furnished().await;
    let document = json!({
        "users": [{ "name": "ann", "tags": ["monitoring"], "password_hash": HASH }],
        "queues": [
            { "name": "q", "vhost": "/", "durable": true, "arguments": { "x-max-length": 6 } },
            { "name": "new", "vhost": "/", "durable": true },
        ],
    });
    let told = client.post("/api/v1/definitions:diff", &document).await.json();
    assert_eq!(counts(&told), (1, 1, 1), "{told:#}");
    let of = |change: &str| {
        let all = told["changes"].as_array().unwrap();
        all.iter().find(|one| one["change"] == change).unwrap()
    };
    assert_eq!(of("change")["after"], json!({ "tags": ["monitoring"] }));
    assert!(of("conflict")["detail"].as_str().unwrap().contains("x-max-length"), "{told:#}");
    assert!(!told.to_string().contains(HASH), "hashes are not told: {told:#}");
    let refused = client.post("/api/v1/definitions:import", &document).await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "arguments_differ"));
    assert_eq!(client.get("/api/v1/vhosts/~/queues/new").await.status, 404);
    let skipping = "/api/v1/definitions:import?on_conflict=skip";
    assert_eq!(client.post(skipping, &document).await.status, 200);
    let queue = client.fetch("/api/v1/vhosts/~/queues/q").await;
    assert_eq!(queue["arguments"], json!({ "x-max-length": 5 }));
    assert_eq!(client.get("/api/v1/vhosts/~/queues/new").await.status, 200);
}

#[tokio::test]
async fn a_document_that_is_wrong_changes_nothing_and_everything_wrong_is_told() {
    let (_world, mut client) = world().await;
    let document = json!({
        "queues": [
            { "name": "good", "vhost": "/", "durable": true },
            { "name": "bad", "vhost": "/", "durable": true, "arguments": { "x-max-length": -1 } },
        ],
        "bindings": [{
            "source": "none", "vhost": "/", "destination": "good", "destination_type": "queue",
        }],
    });
    let refused = client.post("/api/v1/definitions:import", &document).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_definitions"));
    assert_eq!(refused.json()["params"]["wrong"].as_array().unwrap().len(), 2);
    assert_eq!(client.get("/api/v1/vhosts/~/queues/good").await.status, 404);
}

#[tokio::test]
async fn replacing_takes_away_what_a_list_does_not_name_and_nothing_of_other_lists() {
    let (_world, mut client) = furnished().await;
    let path = "/api/v1/definitions:import?mode=replace";
    let document = json!({
        "queues": [{ "name": "new", "vhost": "/", "durable": true }],
        "bindings": [],
    });
    let dry = client.post(&format!("{path}&dry_run=true"), &document).await.json();
    assert_eq!((counts(&dry), &dry["counts"]["delete"]), ((1, 0, 0), &json!(2)), "{dry:#}");
    let unsure = client.post(path, &document).await;
    assert_eq!((unsure.status, unsure.code().as_str()), (409, "count_changed"));
    assert_eq!(client.get("/api/v1/vhosts/~/queues/q").await.status, 200, "nothing has happened");
    let done = client.post(&format!("{path}&expect=2"), &document).await;
    assert_eq!(done.status, 200, "{}", done.json());
    assert_eq!(client.get("/api/v1/vhosts/~/queues/q").await.status, 404);
    assert_eq!(client.get("/api/v1/vhosts/~/queues/new").await.status, 200);
    for stays in ["/vhosts/~/exchanges/x", "/vhosts/v", "/users/ann", "/vhosts/~/policies/p"] {
        assert_eq!(client.get(&format!("/api/v1{stays}")).await.status, 200, "{stays}");
    }
    // What went out comes back whole, and then nothing is surplus.
    let all = client.fetch("/api/v1/definitions").await;
    let same = client.post("/api/v1/definitions:diff?mode=replace", &all).await.json();
    assert_eq!((counts(&same), &same["counts"]["delete"]), ((0, 0, 0), &json!(0)), "{same:#}");
}

#[tokio::test]
async fn replacing_keeps_whoever_asks_and_what_is_protected() {
    let (_world, mut client) = furnished().await;
    let document = json!({ "users": [], "vhosts": [{ "name": "/" }] });
    let path = "/api/v1/definitions:import?mode=replace&expect=9";
    let refused = client.post(path, &document).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_definitions"));
    let wrong = refused.json()["params"]["wrong"].to_string();
    assert!(wrong.contains("user 'root'") && wrong.contains("vhost 'v'"), "{wrong}");
    assert_eq!(client.get("/api/v1/users/ann").await.status, 200);
}

#[tokio::test]
async fn a_document_for_a_rabbitmq_has_nothing_that_it_refuses() {
    let (_world, mut client) = furnished().await;
    let user = json!({ "password": "a long secret" });
    assert_eq!(client.put("/api/v1/users/bob", &user).await.status, 201);
    let rule = json!({ "write": "a/+", "read": "#", "syntax": "slash" });
    let put = client.put("/api/v1/users/bob/topic-permissions/~/x", &rule).await;
    assert!(matches!(put.status, 200 | 201), "{}", put.json());
    for (path, body) in [
        (
            "/vhosts/~/operator-policies/some",
            json!({ "pattern": "^q", "definition": { "max-length": 3, "overflow": "drop-head" } }),
        ),
        (
            "/vhosts/~/operator-policies/none",
            json!({ "pattern": "^q", "definition": { "dead-letter-exchange": "x" } }),
        ),
        (
            "/vhosts/~/policies/ours",
            json!({ "pattern": "^q", "definition": { "expires": 60000, "max-message-size": 9 } }),
        ),
        ("/vhosts/~/limits", json!({ "queues_max": 9, "message_bytes_max": 1000 })),
    ] {
        let made = client.put(&format!("/api/v1{path}"), &body).await;
        assert!(matches!(made.status, 200 | 201), "{path}: {}", made.json());
    }
    let document = client.fetch("/api/v1/definitions?format=rabbitmq").await;
    let kept = document.to_string();
    for ours in ["overflow", "dead-letter-exchange", "max-message-size"] {
        assert!(document["warnings"].to_string().contains(ours), "{ours}: {document:#}");
        assert!(!kept.contains(&format!("\"{ours}\":")), "{ours}: {document:#}");
    }
    for theirs in [r#"{"max-length":3}"#, r#"{"expires":60000}"#, r#"{"max-queues":9}"#] {
        assert!(kept.contains(theirs), "{theirs}: {document:#}");
    }
    assert!(!kept.contains(r#""name":"none""#), "{document:#}");
    let users = document["users"].as_array().unwrap();
    let hash_of = |name: &str| {
        let user = users.iter().find(|user| user["name"] == name).unwrap();
        user["password_hash"].as_str().unwrap().to_owned()
    };
    assert_eq!(hash_of("ann"), HASH);
    assert!(!document.to_string().contains("argon2"), "{document:#}");
    assert_eq!(document["topic_permissions"], json!([]));
    assert!(document["warnings"].to_string().contains("topic permission"), "{document:#}");
    let ours = client.fetch("/api/v1/definitions?format=polymq").await;
    assert_eq!(ours["topic_permissions"][0]["syntax"], "slash");
}
