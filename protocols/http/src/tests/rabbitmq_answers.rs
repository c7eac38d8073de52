//! Answers below `/api` as RabbitMQ gives them: columns, samples, and numbers of queues.

use polymq_model::Value as Typed;
use serde_json::json;

use super::*;

impl Browser {
    async fn publish_with(&mut self, queue: &str, properties: Value) {
        let message = json!({
            "routing_key": queue, "properties": properties, "payload": "x",
            "payload_encoding": "string",
        });
        let line = "POST /exchanges/%2F/amq.default/publish";
        assert_eq!(self.api(line, &message.to_string()).await.json(), json!({ "routed": true }));
    }
}

#[tokio::test]
async fn the_timestamp_of_the_oldest_message_is_told() {
    let world = World::managed().await;
    world.declare("q", vec![("x-max-priority".to_owned(), Typed::U8(3))]).await;
    let mut browser = world.client("admin").await;
    let told = async |browser: &mut Browser| {
        let one = browser.look("/queues/%2F/q").await["head_message_timestamp"].clone();
        let all = browser.look("/queues").await[0]["head_message_timestamp"].clone();
        assert_eq!(one, all);
        one
    };
    assert_eq!(told(&mut browser).await, Value::Null);
    browser.publish_with("q", json!({ "timestamp": 1_700_000_000 })).await;
    browser.publish_with("q", json!({ "timestamp": 1_800_000_000 })).await;
    assert_eq!(told(&mut browser).await, 1_700_000_000);
    // What comes first is what is delivered first.
    browser.publish_with("q", json!({ "timestamp": 1_600_000_000, "priority": 2 })).await;
    assert_eq!(told(&mut browser).await, 1_600_000_000);
    browser.publish_with("q", json!({ "priority": 3 })).await;
    assert_eq!(told(&mut browser).await, Value::Null);
}

#[tokio::test]
async fn columns_are_picked_of_every_answer_and_inside_lists() {
    let world = World::managed().await;
    world.declare("q", Vec::new()).await;
    let mut browser = world.client("admin").await;
    assert_eq!(browser.look("/whoami?columns=name").await, json!({ "name": "admin" }));
    let definitions = browser.look("/definitions?columns=queues.name,nope").await;
    assert_eq!(definitions, json!({ "queues": [{ "name": "q" }] }));
    let overview = browser.look("/overview?columns=exchange_types.name,node").await;
    assert_eq!(overview["exchange_types"][0], json!({ "name": "direct" }));
    assert_eq!(overview.as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn lengths_and_rates_have_samples_of_their_own() {
    let world = World::managed().await;
    world.declare("q", Vec::new()).await;
    let mut browser = world.client("admin").await;
    browser.look("/overview").await;
    let begin = clock::now().unix_ms;
    for second in (5..=120).step_by(5) {
        browser.publish_with("q", json!({})).await;
        let unix_ms = begin + second * 1000;
        world.broker.take_samples(polymq_model::Now { unix_ms, ..clock::now() });
    }
    let query = "msg_rates_age=60&msg_rates_incr=5&lengths_age=60&lengths_incr=20";
    for (path, lengths) in
        [("/queues/%2F/q", ""), ("/overview", "queue_totals"), ("/vhosts/%2F", "")]
    {
        let shown = browser.look(&format!("{path}?{query}")).await;
        let of_lengths = if lengths.is_empty() { &shown } else { &shown[lengths] };
        let count = |details: &Value| details["samples"].as_array().unwrap().len();
        let counts = (
            count(&of_lengths["messages_details"]),
            count(&shown["message_stats"]["publish_details"]),
        );
        assert_eq!(counts, (4, 13), "{path}");
        let alone = browser.look(&format!("{path}?lengths_age=60&lengths_incr=20")).await;
        assert!(alone["message_stats"]["publish_details"].get("samples").is_none(), "{path}");
    }
    for path in ["/queues/%2F/q", "/queues", "/overview", "/vhosts", "/nodes"] {
        let answer = browser.api(&format!("GET {path}?lengths_age=600&lengths_incr=1"), "").await;
        assert_eq!(answer.status, 400, "{path}");
        assert_eq!(answer.json()["reason"], "Invalid range parameters: age 600, incr 1");
    }
}

#[tokio::test]
async fn one_topic_permission_has_a_path() {
    let world = World::managed().await;
    let mut browser = world.client("admin").await;
    let permission = json!({ "exchange": "amq.topic", "write": "a", "read": "b" });
    let path = "/topic-permissions/%2F/manager/amq.topic";
    assert_eq!(browser.api(&format!("PUT {path}"), &permission.to_string()).await.status, 201);
    let found = browser.look(path).await;
    assert_eq!((&found[0]["exchange"], found.as_array().unwrap().len()), (&json!("amq.topic"), 1));
    assert_eq!(browser.api("GET /topic-permissions/%2F/manager/amq.fanout", "").await.status, 404);
    assert_eq!(browser.api(&format!("DELETE {path}"), "").await.status, 204);
    assert_eq!(browser.api(&format!("GET {path}"), "").await.status, 404);
}

#[tokio::test]
async fn what_is_not_there_yet_answers_as_if_it_had_nothing() {
    let world = World::managed().await;
    let mut browser = world.client("admin").await;
    for path in [
        "/stream/publishers/%2F/q",
        "/stream/%2F/q/tracking",
        "/stream/connections/%2F/c/publishers",
        "/stream/connections/%2F/c/consumers",
        "/federation-links/%2F/state/down",
    ] {
        assert_eq!(browser.look(path).await, json!([]), "{path}");
    }
    for (line, status) in [
        ("PUT /stream/super-streams/%2F/s", 400),
        ("DELETE /shovels/vhost/%2F/s", 404),
        ("DELETE /federation-links/vhost/%2F/1/test/restart", 404),
    ] {
        assert_eq!(browser.api(line, "{}").await.status, status, "{line}");
    }
}

#[tokio::test]
async fn of_consumers_of_which_one_is_active_one_counts() {
    let world = World::managed().await;
    let mut browser = world.client("admin").await;
    let body = r#"{"arguments":{"x-single-active-consumer":true}}"#;
    assert_eq!(browser.api("PUT /queues/%2F/sac", body).await.status, 201);
    world.declare("plain", Vec::new()).await;
    let (peer, vhost) = (Arc::new(peer()), Some("/".to_owned()));
    let login = polymq_contract::Login::Password {
        user: "u".to_owned(),
        password: polymq_contract::Secret::new("x"),
    };
    let client = client::Client::connect(&world.broker, &peer, login, vhost, 1 << 20).await;
    let client = Arc::new(client.unwrap());
    let mut consumers = Vec::new();
    for queue in ["sac", "sac", "plain", "plain"] {
        let consume = client.consume(|request, consumer| polymq_contract::Consume {
            request,
            consumer,
            queue: queue.to_owned(),
            no_ack: false,
            exclusive: false,
            prefetch: 0,
            group: 0,
            tag: format!("c{}", consumer.0),
            arguments: Vec::new(),
        });
        consumers.push(consume.await.unwrap());
    }
    let sac = browser.look("/queues/%2F/sac").await;
    assert_eq!((&sac["consumers"], &sac["active_consumers"]), (&json!(2), &json!(1)));
    let mut states: Vec<_> = sac["consumer_details"]
        .as_array()
        .unwrap()
        .iter()
        .map(|consumer| consumer["activity_status"].as_str().unwrap().to_owned())
        .collect();
    states.sort();
    assert_eq!(states, ["single_active", "waiting"]);
    let plain = browser.look("/queues/%2F/plain").await;
    assert_eq!(plain["active_consumers"], 2);
    assert_eq!(plain["consumer_details"][1]["activity_status"], "up");
}

#[tokio::test]
async fn a_message_is_shown_with_what_was_said_of_it() {
    let world = World::managed().await;
    world.declare("q", Vec::new()).await;
    let mut browser = world.client("admin").await;
    browser.publish_with("q", json!({ "priority": 0 })).await;
    browser.publish_with("q", json!({ "delivery_mode": 2 })).await;
    let get = |count: i64| {
        json!({ "count": count, "ackmode": "reject_requeue_true", "encoding": "auto" }).to_string()
    };
    let line = "POST /queues/%2F/q/get";
    for count in [0, -1] {
        assert_eq!(browser.api(line, &get(count)).await.json(), json!([]));
    }
    let got = browser.api(line, &get(20_000)).await.json();
    assert_eq!(got[0]["properties"], json!({ "priority": 0 }));
    assert_eq!(got[1]["properties"], json!({ "delivery_mode": 2 }));
    let again = browser.api(line, &get(1)).await.json();
    let counted = json!({ "priority": 0, "headers": { "x-delivery-count": 1 } });
    assert_eq!(again[0]["properties"], counted);
}

#[tokio::test]
async fn an_alarm_is_told_at_once_to_whoever_publishes() {
    let world = World::managed().await;
    world.declare("q", Vec::new()).await;
    let mut browser = world.client("admin").await;
    world.broker.set_alarm(Some("no space"));
    let message =
        r#"{"routing_key":"q","properties":{},"payload":"x","payload_encoding":"string"}"#;
    let line = "POST /exchanges/%2F/amq.default/publish";
    let answer = browser.api(line, message).await;
    assert_eq!((answer.status, &answer.json()["error"]), (503, &json!("service_unavailable")));
    assert!(answer.json()["reason"].as_str().unwrap().contains("no space"));
    world.broker.set_alarm(None);
    assert_eq!(browser.api(line, message).await.json(), json!({ "routed": true }));
}

#[tokio::test]
async fn listeners_have_the_names_of_rabbitmq() {
    let world = World::managed().await;
    let mut browser = world.client("admin").await;
    let overview = browser.look("/overview").await;
    let listeners = overview["listeners"].as_array().unwrap();
    assert!(listeners.iter().any(|one| one["protocol"] == "amqp/ssl"), "{listeners:?}");
    assert_eq!(browser.api("GET /healthchecks/node/nope", "").await.status, 404);
    assert_eq!(browser.look("/healthchecks/node/test").await["status"], "ok");
}

#[tokio::test]
async fn impossible_pages_and_arguments_are_told_as_what_they_are() {
    let world = World::managed().await;
    let mut browser = world.client("admin").await;
    for (query, error) in [
        ("page=0", "invalid_pagination_parameters"),
        ("page=-1", "invalid_pagination_parameters"),
        ("page=1&page_size=501", "invalid_pagination_parameters"),
        ("page=x", "bad_request"),
        ("page=99", "page_out_of_range"),
    ] {
        let answer = browser.api(&format!("GET /queues?{query}"), "").await;
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!(error)), "{query}");
    }
    for (value, shown) in [("1.5", "'1.5'"), ("null", "'null'"), ("[1,{}]", "'[1, {}]'")] {
        let body = format!(r#"{{"arguments":{{"x-max-length":{value}}}}}"#);
        let reason = browser.api("PUT /queues/%2F/q", &body).await.json()["reason"].to_string();
        assert!(reason.contains(shown), "{reason}");
    }
}

#[tokio::test]
async fn a_queue_is_idle_since_the_start_or_its_last_message() {
    let world = World::managed().await;
    for queue in ["idle", "busy"] {
        world.declare(queue, Vec::new()).await;
    }
    let mut browser = world.client("admin").await;
    browser.publish_with("busy", json!({})).await;
    assert_eq!(browser.look("/queues/%2F/busy").await["idle_since"], Value::Null);
    assert!(browser.look("/queues/%2F/idle").await["idle_since"].is_string());
}

#[tokio::test]
async fn a_node_tells_its_files_and_forgets_what_it_is_asked_to() {
    let world = World::managed().await;
    world.declare("q", Vec::new()).await;
    let mut browser = world.client("admin").await;
    assert_eq!(browser.look("/nodes/test").await["config_files"], json!(["polymq.toml"]));
    let logins = |told: &Value| {
        let told = told.as_array().unwrap().iter().find(|one| one["protocol"] == "http").unwrap();
        told["auth_attempts"].as_u64().unwrap()
    };
    assert!(logins(&browser.look("/auth/attempts/test").await) > 0);
    assert_eq!(browser.api("DELETE /auth/attempts/test", "").await.status, 204);
    assert_eq!(logins(&browser.look("/auth/attempts/test").await), 0);
    browser.look("/queues/%2F/q").await;
    browser.publish_with("q", json!({})).await;
    let later = clock::now().unix_ms + 5_000;
    world.broker.take_samples(polymq_model::Now { unix_ms: later, ..clock::now() });
    let path = "/queues/%2F/q?lengths_age=60&lengths_incr=5";
    let samples = |queue: &Value| queue["messages_details"]["samples"].as_array().unwrap().len();
    assert_eq!(samples(&browser.look(path).await), 2);
    assert_eq!(browser.api("DELETE /reset/nope", "").await.status, 404);
    assert_eq!(browser.api("DELETE /reset", "").await.status, 204);
    assert!(samples(&browser.look(path).await) < 2);
}
