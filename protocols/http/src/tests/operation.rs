//! The configuration and the log over HTTP.

use std::sync::Arc;

use serde_json::{Map, json};

use super::World;
use crate::{ConfigChange, ConfigValue, Configuration, LiveLog, LogLine, Phase, serve::Audience};

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

#[tokio::test]
async fn configuration_is_shown_checked_and_reloaded_by_administrators() {
    let world = World::start(Audience::Loopback).await;
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
    let world = World::start(Audience::Loopback).await;
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
