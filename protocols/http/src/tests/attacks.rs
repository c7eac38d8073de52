//! Case A14: what a web page, a user of another virtual host and odd names get from the API.

use std::time::Instant;

use serde_json::{Value, json};

use super::*;

/// Every route of the document with its method, filled in for a virtual host. Streams of events are
/// left out, as they do not end.
fn routes(vhost: &str) -> Vec<(String, String)> {
    let document = v1::api().document();
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if operation["responses"].to_string().contains("text/event-stream") {
                continue;
            }
            let parts = path.split('/').map(|part| match part {
                "{vhost}" => vhost,
                "{seq}" | "{id}" => "1",
                "{queue}" => "q",
                "{exchange}" | "{name}" => "amq.topic",
                part if part.starts_with('{') => "none",
                part => part,
            });
            let path = parts.collect::<Vec<_>>().join("/");
            all.push((method.to_uppercase(), path));
        }
    }
    assert!(all.len() > 60, "{}", all.len());
    all
}

/// Everything that is defined, as text.
async fn state(client: &mut Browser) -> Value {
    let mut state = Vec::new();
    for list in [
        "vhosts/~/queues?fields=name,arguments",
        "vhosts/~/exchanges?fields=name,arguments",
        "vhosts/~/bindings?fields=id",
        "vhosts/~/policies?fields=name",
        "vhosts/~/topics",
        "users?fields=name",
        "bans?fields=id",
        "vhosts?fields=name",
    ] {
        state.push(client.fetch(&format!("/api/v1/{list}")).await);
    }
    json!(state)
}

#[tokio::test]
async fn a_page_of_another_host_writes_nothing() {
    let world = World::start(Audience::Users).await;
    world.tagged("root", &["administrator"]);
    let mut client = world.client("root").await;
    let headers = [("Origin", "https://evil.example"), ("Content-Type", "application/json")];
    for (method, path) in routes("~") {
        if method == "GET" {
            continue;
        }
        let answer = client.ask(&format!("{method} {path}"), &headers, b"{}").await;
        assert_eq!((answer.status, &*answer.code()), (403, "origin_denied"), "{method} {path}");
    }
}

#[tokio::test]
async fn reading_changes_nothing() {
    let world = World::start(Audience::Users).await;
    world.tagged("root", &["administrator"]);
    world.declare("q", Vec::new()).await;
    let mut client = world.client("root").await;
    client.ask("POST /api/v1/vhosts/~/queues/q/messages", &[], b"x").await;
    let before = state(&mut client).await;
    for (method, path) in routes("~") {
        if method != "GET" {
            continue;
        }
        let status = client.ask(&format!("GET {path}"), &[], b"").await.status;
        assert!(status < 500, "{path}: {status}");
    }
    assert_eq!(state(&mut client).await, before);
    assert_eq!(world.ready("q"), 1);
}

#[tokio::test]
async fn another_virtual_host_shows_and_takes_nothing() {
    let world = World::start(Audience::Users).await;
    world.broker.create_vhost(VhostName::new("other").unwrap());
    world.tagged("maker", &["management", "policymaker"]);
    let json = [("Content-Type", "application/json")];
    for (method, path) in routes("other") {
        if !path.contains("/vhosts/other") {
            continue;
        }
        let mut client = world.client("maker").await;
        client.send(&format!("{method} {path}"), &json, b"{}").await;
        let status = client.head().await;
        assert!([400, 403, 404].contains(&status), "{method} {path}: {status}");
    }
    let mut client = world.client("maker").await;
    for path in ["/api/queues/other", "/api/exchanges/other", "/api/definitions/other"] {
        let status = client.ask(&format!("GET {path}"), &[], b"").await.status;
        assert!([401, 404].contains(&status), "{path}: {status}");
    }
}

#[tokio::test]
async fn names_do_not_leave_their_place() {
    let world = World::start(Audience::Users).await;
    world.tagged("root", &["administrator"]);
    let mut client = world.client("root").await;
    for (path, status) in [
        ("/api/v1/vhosts/~/queues/..%2F..%2F..%2Fusers", 404),
        ("/api/v1/vhosts/~/queues/..", 404),
        ("/api/v1/vhosts/..%2Fusers/queues", 404),
        ("/api/v1/vhosts/~/queues/%2e%2e/%2e%2e/users", 404),
        ("/api/v1/../api/users", 404),
        ("/api/v1/vhosts/~/queues/a%00b", 400),
        ("/api/v1/vhosts/~/queues/%ff", 400),
        ("/api/v1/vhosts/~/queues/%zz", 400),
        ("/api/queues/%2F/..%2F..%2Fusers", 404),
        ("/api/queues/..%2F..%2Fusers", 404),
        ("//api/v1/users", 404),
    ] {
        let answer = client.ask(&format!("GET {path}"), &[], b"").await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, status, "{path}: {text}");
        assert!(!text.contains("\"tags\""), "{path}: {text}");
    }
}

#[tokio::test]
async fn an_expression_costs_no_more_than_it_may() {
    let world = World::start(Audience::Users).await;
    world.tagged("root", &["administrator"]);
    let long = "a".repeat(200);
    world.declare(&long, Vec::new()).await;
    let mut client = world.client("root").await;
    let begun = Instant::now();
    let bad = "(a*)*(a%2B)%2Bb$";
    for path in [
        format!("/api/v1/vhosts/~/queues?filter=matches(name,'{bad}')"),
        format!("/api/queues?page=1&use_regex=true&name={bad}"),
    ] {
        let answer = client.ask(&format!("GET {path}"), &[], b"").await;
        assert!([200, 400].contains(&answer.status), "{path}: {}", answer.status);
    }
    for path in [
        format!("/api/v1/vhosts/~/queues?filter=matches(name,'{}')", "a".repeat(2100)),
        format!("/api/queues?page=1&use_regex=true&name={}", "a".repeat(2100)),
    ] {
        let answer = client.ask(&format!("GET {path}"), &[], b"").await;
        assert_eq!(answer.status, 400, "{path}");
    }
    assert!(begun.elapsed() < Duration::from_secs(20));
}
