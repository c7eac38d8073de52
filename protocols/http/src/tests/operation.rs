//! The configuration and the log over HTTP.

use std::{net::Ipv4Addr, sync::Arc};

use serde_json::{Map, Value, json};

use super::World;
use crate::{
    Certificate, ConfigChange, ConfigRefusal, ConfigValue, Configuration, Listeners, LiveLog,
    LogLine, OpenPort, Phase, serve::Audience,
};

/// A configuration with one value, and a log of five lines of which two are forgotten.
pub(super) struct Sample;

impl Configuration for Sample {
    fn effective(&self) -> Vec<ConfigValue> {
        vec![ConfigValue {
            key: "logging.level".to_owned(),
            value: "\"info\"".to_owned(),
            origin: "polymq.toml:3".to_owned(),
            is_reloadable: true,
            waiting: None,
        }]
    }

    fn check(&self) -> Result<Vec<ConfigChange>, Vec<String>> {
        Err(vec!["polymq.toml:3:1: unknown key".to_owned()])
    }

    fn reload(&self) -> Result<Vec<ConfigChange>, Vec<String>> {
        Ok(vec![ConfigChange {
            key: "logging.level".to_owned(),
            from: "\"info\"".to_owned(),
            to: "\"debug\"".to_owned(),
            origin: "polymq.toml:3".to_owned(),
            is_applied: true,
        }])
    }

    fn change(
        &self,
        values: &[(String, Option<Value>)],
        _: bool,
    ) -> Result<Vec<ConfigChange>, ConfigRefusal> {
        let (key, value) = &values[0];
        if key != "logging.level" {
            let why = format!("`{key}` waits for a restart");
            return Err(ConfigRefusal::ReadOnly { why, lines: vec!["[server]".to_owned()] });
        }
        match value {
            Some(Value::String(level)) if level == "debug" => Ok(self.reload().unwrap_or_default()),
            _ => Err(ConfigRefusal::Invalid(vec!["`logging.level` is no level".to_owned()])),
        }
    }
}

impl Listeners for Sample {
    fn open(&self) -> Vec<OpenPort> {
        listeners()
    }

    fn stopped(&self) -> Vec<OpenPort> {
        Vec::new()
    }

    fn run(&self, name: &str, is_running: bool) -> Result<bool, String> {
        match name {
            "amqp" => Ok(!is_running),
            _ => Err("cannot listen on 127.0.0.1:5671".to_owned()),
        }
    }
}

impl LiveLog for Sample {
    fn after(&self, number: u64) -> Vec<Arc<LogLine>> {
        let line = |number| LogLine {
            number,
            at_ms: 1_700_000_000_000,
            level: if number == 4 { "warn" } else { "info" },
            target: "polymq_broker::queue".to_owned(),
            event: format!("event_{number}"),
            fields: Map::from_iter([("n".to_owned(), json!(number))]),
        };
        (3..=5).filter(|kept| *kept > number).map(|number| Arc::new(line(number))).collect()
    }
}

/// A listener with a certificate that ends in the year 2100, and one in clear text.
fn listeners() -> Vec<OpenPort> {
    let certificate = Certificate {
        name: "public".to_owned(),
        expires_unix_secs: 4_102_444_800,
        warning_secs: 30 * 86_400,
    };
    let port = |name: &str, port: u16, certificate: Option<Certificate>| OpenPort {
        protocol: "amqp".to_owned(),
        address: (Ipv4Addr::LOCALHOST, port).into(),
        name: name.to_owned(),
        has_tls: certificate.is_some(),
        certificate,
    };
    vec![port("amqp", 5672, None), port("amqps", 5671, Some(certificate))]
}

#[tokio::test]
async fn configuration_is_shown_checked_and_reloaded_by_administrators() {
    let world = World::start(Audience::Users).await;
    world.tagged("root", &["administrator"]);
    let mut client = world.client("root").await;
    let shown = client.fetch("/api/v1/config").await;
    assert_eq!(shown["items"][0]["origin"], "polymq.toml:3");
    let wrong = client.ask("POST /api/v1/config:check", &[], b"").await;
    assert_eq!((wrong.status, wrong.code().as_str()), (422, "config_invalid"));
    assert_eq!(wrong.json()["params"]["mistakes"], json!(["polymq.toml:3:1: unknown key"]));
    let done = client.ask("POST /api/v1/config:reload", &[], b"").await.json();
    assert_eq!(done["changes"][0]["needs_restart"], false);
    let audit = client.fetch("/api/v1/audit").await;
    assert_eq!(audit["items"][0]["action"], "config.reload");
}

#[tokio::test]
async fn the_log_is_followed_with_a_filter_and_gaps_are_told() {
    let world = World::start(Audience::Users).await;
    world.tagged("watcher", &["monitoring"]);
    let mut client = world.client("watcher").await;
    client.send("GET /api/v1/logs?level=warn", &[], b"").await;
    let (id, kind, line) = client.event().await;
    assert_eq!((id.as_str(), kind.as_str(), &line["event"]), ("4", "line", &json!("event_4")));
    let mut client = world.client("watcher").await;
    client.send("GET /api/v1/logs?event=event_5", &[("Last-Event-ID", "1")], b"").await;
    let (_, kind, gap) = client.event().await;
    assert_eq!((kind.as_str(), &gap["lost"]), ("gap", &json!(1)));
    assert_eq!(client.event().await.2["fields"], json!({ "n": 5 }));
    world.phase.enter(Phase::Draining);
    assert_eq!(client.event().await.1, "closing");
    let mut client = world.client("watcher").await;
    client.send("GET /api/v1/logs?follow=false", &[], b"").await;
    assert_eq!(client.event().await.1, "line");
    assert_eq!(client.event().await.1, "line");
    assert_eq!(client.event().await.1, "line");
    assert_eq!(client.event().await.1, "end");
    let mut plain = world.client("u").await;
    assert_eq!(plain.get("/api/v1/logs").await.status, 403);
}

#[tokio::test]
async fn values_of_the_configuration_are_written_or_their_lines_are_told() {
    let world = World::start(Audience::Users).await;
    world.tagged("root", &["administrator"]);
    let mut client = world.client("root").await;
    let path = "/api/v1/config";
    let debug = json!({ "values": { "logging.level": "debug" } });
    let dry = client.patch(&format!("{path}?dry_run=true"), &debug).await;
    assert_eq!((dry.status, &dry.json()["dry_run"]), (200, &json!(true)));
    let done = client.patch(path, &debug).await.json();
    assert_eq!((&done["dry_run"], &done["changes"][0]["to"]), (&json!(false), &json!("\"debug\"")));
    let audit = client.fetch("/api/v1/audit").await;
    assert_eq!(audit["items"].as_array().unwrap().len(), 1);
    assert_eq!(audit["items"][0]["action"], "config.change");
    let wrong = client.patch(path, &json!({ "values": { "logging.level": null } })).await;
    assert_eq!((wrong.status, wrong.code().as_str()), (422, "config_invalid"));
    let fixed = client.patch(path, &json!({ "values": { "server.name": "x" } })).await;
    assert_eq!((fixed.status, fixed.code().as_str()), (409, "config_read_only"));
    assert_eq!(fixed.json()["params"]["lines"], json!(["[server]"]));
    assert_eq!(client.patch(path, &json!({ "values": {} })).await.status, 400);
    let mut plain = world.client("u").await;
    assert_eq!(plain.patch(path, &debug).await.status, 403);
}

#[tokio::test]
async fn listeners_are_shown_stopped_and_started_by_administrators() {
    let world = World::start(Audience::Users).await;
    world.tagged("root", &["administrator"]);
    world.tagged("watcher", &["monitoring"]);
    let mut client = world.client("root").await;
    let all = client.fetch("/api/v1/listeners").await;
    assert_eq!((&all["total"]["value"], &all["items"][0]["running"]), (&json!(2), &json!(true)));
    let one = client.fetch("/api/v1/listeners/amqps").await;
    assert_eq!((&one["running"], &one["ports"][0]["tls"]), (&json!(true), &json!(true)));
    assert_eq!(client.get("/api/v1/listeners/none").await.code(), "listener_not_found");
    let stop = json!({ "running": false });
    let dry = client.put("/api/v1/listeners/amqp?dry_run=true", &stop).await;
    assert_eq!(dry.json()["changes"], true);
    assert_eq!(client.put("/api/v1/listeners/amqp", &stop).await.status, 200);
    let failed = client.put("/api/v1/listeners/amqps", &json!({ "running": true })).await;
    assert_eq!((failed.status, failed.code().as_str()), (409, "listener_failed"));
    let mut watcher = world.client("watcher").await;
    assert_eq!(watcher.put("/api/v1/listeners/amqp", &stop).await.status, 403);
    let audit = client.fetch("/api/v1/audit").await;
    let actions: Vec<_> =
        audit["items"].as_array().unwrap().iter().map(|entry| entry["action"].clone()).collect();
    assert_eq!(actions, ["listener.stop"]);
}

#[tokio::test]
async fn there_is_one_member_of_the_cluster_and_no_plugin() {
    let world = World::start(Audience::Users).await;
    world.tagged("watcher", &["monitoring"]);
    let mut client = world.client("watcher").await;
    let cluster = client.get("/api/v1/cluster").await.json();
    assert_eq!((&cluster["name"], &cluster["this"]), (&json!("test"), &json!("test")));
    let members = cluster["members"].as_array().unwrap();
    assert_eq!((members.len(), &members[0]["state"]), (1, &json!("owner")));
    let plugins = client.get("/api/v1/plugins").await.json();
    assert_eq!((&plugins["items"], &plugins["next"]), (&json!([]), &Value::Null));
    client.send("GET /api/v1/events?topics=cluster", &[], b"").await;
    let (_, kind, data) = client.event().await;
    assert_eq!((kind.as_str(), &data["rows"]["test"]["state"]), ("snapshot", &json!("owner")));
}

#[tokio::test]
async fn the_store_names_the_queues_that_take_most() {
    let world = World::start(Audience::Users).await;
    world.tagged("watcher", &["monitoring"]);
    let mut client = world.client("u").await;
    for (queue, bytes) in [("small", 10), ("none", 0), ("large", 1000)] {
        world.declare(queue, Vec::new()).await;
        if bytes > 0 {
            let publish = format!("POST /api/v1/vhosts/~/queues/{queue}/messages");
            client.ask(&publish, &[], &vec![b'x'; bytes]).await;
        }
    }
    let mut watcher = world.client("watcher").await;
    let storage = watcher.get("/api/v1/storage").await.json();
    let largest = json!([
        { "vhost": "/", "name": "large", "bytes": 1000 },
        { "vhost": "/", "name": "small", "bytes": 10 },
    ]);
    assert_eq!(storage["largest_queues"], largest);
    assert_eq!(storage["disk"]["low_in_seconds"], Value::Null, "nobody has asked for long enough");
}
