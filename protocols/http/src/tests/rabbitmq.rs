//! The management API of RabbitMQ: who may ask for what, and answers as RabbitMQ gives them.

use polymq_broker::{PermissionRecord, UserRecord};
use serde_json::json;

use super::*;
use crate::rabbitmq::{Needs, ROUTES};

/// Users with their tags, beside `u`, who has none.
const USERS: [(&str, &[&str]); 6] = [
    ("admin", &["administrator"]),
    ("watcher", &["monitoring"]),
    ("maker", &["policymaker"]),
    ("manager", &["management"]),
    // A permission in no virtual host.
    ("outsider", &["management"]),
    ("nobody", &["own-tag"]),
];

impl World {
    pub(super) async fn managed() -> Self {
        let world = Self::start(Audience::Users).await;
        for (user, tags) in USERS {
            let name = UserName::new(user).unwrap();
            let record = UserRecord {
                password_hash: String::new(),
                scram: String::new(),
                tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
                loopback_only: false,
            };
            world.broker.put_user(name.clone(), record, false);
            if user != "outsider" {
                let (vhost, all) = (VhostName::new("/").unwrap(), PermissionRecord::all());
                world.broker.put_permission(vhost, name, all, false).unwrap();
            }
        }
        world
    }
}

impl Browser {
    pub(super) async fn api(&mut self, line: &str, body: &str) -> Answer {
        let (method, path) = line.split_once(' ').unwrap();
        let json = [("Content-Type", "application/json")];
        self.ask(&format!("{method} /api{path}"), &json, body.as_bytes()).await
    }

    pub(super) async fn look(&mut self, path: &str) -> Value {
        let answer = self.api(&format!("GET {path}"), "").await;
        assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }
}

impl Browser {
    /// Publishes a message to a queue as RabbitMQ's management does.
    async fn publish_by_api(&mut self, queue: &str) {
        let message = json!({
            "routing_key": queue, "properties": {}, "payload": "x", "payload_encoding": "string",
        });
        let line = "POST /exchanges/%2F/amq.default/publish";
        assert_eq!(self.api(line, &message.to_string()).await.json(), json!({ "routed": true }));
    }
}

fn is_allowed(needs: Needs, user: &str) -> bool {
    match needs {
        Needs::Nobody => true,
        Needs::Management => !matches!(user, "nobody" | "u"),
        Needs::Vhost => !matches!(user, "nobody" | "u" | "outsider"),
        Needs::Policymaker => matches!(user, "admin" | "maker"),
        Needs::Monitoring => matches!(user, "admin" | "watcher"),
        Needs::Administrator => user == "admin",
    }
}

/// A path of a route about things that are not there, in the virtual host that is.
fn path_of(pattern: &str) -> String {
    let parts = pattern.split('/').map(|part| match part {
        ":vhost" => "%2F",
        ":user" => "somebody",
        part if part.starts_with(':') => "missing",
        part => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

// Attack A14: every route with every role.
#[tokio::test]
async fn every_route_answers_the_roles_that_it_says_and_no_other() {
    let world = World::managed().await;
    for (user, _) in USERS.into_iter().chain([("u", &[][..])]) {
        let mut browser = world.client(user).await;
        for route in ROUTES {
            // One's own limits and connections are everybody's to see.
            let is_own = route.path.contains("username/") || route.path == "user-limits/:user";
            // Whoever has no permission in a virtual host may see in it only what monitors see.
            if is_own || route.path.starts_with("vhosts/:vhost") && route.method != "GET" {
                continue;
            }
            let line = format!("{} /{}", route.method, path_of(route.path));
            let status = browser.api(&line, "{}").await.status;
            if route.path == "livelog" {
                // Its answer has no end.
                browser = world.client(user).await;
            }
            let is_in = status != 401;
            let expected = is_allowed(route.needs, user);
            assert_eq!(is_in, expected, "{} {} as {user}: {status}", route.method, route.path);
            assert!(status < 500 || status == 503, "{} {}: {status}", route.method, route.path);
        }
    }
}

#[test]
fn what_concerns_users_and_everything_needs_an_administrator() {
    for route in ROUTES {
        let first = route.path.split('/').next().unwrap();
        let is_sensitive = matches!(
            first,
            "users" | "permissions" | "topic-permissions" | "definitions" | "all-configuration"
        );
        let is_change = route.method != "GET"
            && matches!(first, "vhosts" | "vhost-limits" | "user-limits" | "operator-policies");
        // Queues are shown as in every list of them: to who may see their virtual host.
        if (is_sensitive && route.path != "users/:user/queues") || is_change {
            assert_eq!(route.needs, Needs::Administrator, "{}", route.path);
        }
    }
}

/// Requests of an administrator, in order, with the statuses and errors that RabbitMQ 3.10 has
/// given to the same.
const RECORDED: [(&str, &str, u16, &str); 62] = [
    ("GET /nope", "", 404, "Object Not Found"),
    ("GET /queues/%2F/nope", "", 404, "Object Not Found"),
    ("GET /queues/nope", "", 404, "Object Not Found"),
    ("PUT /queues/%2F/q1", r#"{"durable":true}"#, 201, ""),
    ("PUT /queues/%2F/q1", r#"{"durable":"true"}"#, 204, ""),
    (
        "PUT /queues/%2F/q1",
        r#"{"durable":false}"#,
        400,
        "inequivalent arg 'durable' for queue 'q1'",
    ),
    ("PUT /queues/%2F/q2", "nojson", 400, "not_json"),
    ("PUT /queues/nope/q2", "{}", 404, "vhost_not_found"),
    ("PUT /queues/%2F/amq.x", "{}", 401, "not_authorised"),
    ("GET /queues?page=9&page_size=10", "", 400, "page_out_of_range"),
    ("GET /queues?page=x", "", 400, "Pagination parameters are invalid"),
    ("PUT /exchanges/%2F/x1", r#"{"type":"topic"}"#, 201, ""),
    ("PUT /exchanges/%2F/x1", r#"{"type":"topic"}"#, 204, ""),
    ("PUT /exchanges/%2F/x1", r#"{"type":"fanout"}"#, 400, "inequivalent arg 'type'"),
    ("PUT /exchanges/%2F/x2", r#"{"type":"nope"}"#, 400, "unknown exchange type 'nope'"),
    ("GET /exchanges/%2F/amq.default", "", 200, ""),
    ("GET /exchanges/%2F/nope", "", 404, "Object Not Found"),
    ("POST /bindings/%2F/e/x1/q/q1", r#"{"routing_key":"a.b","arguments":{}}"#, 201, ""),
    ("POST /bindings/%2F/e/x1/q/q1", "{}", 201, ""),
    ("POST /bindings/%2F/e/x1/q/nope", "{}", 404, "no queue 'nope' in vhost '/'"),
    ("POST /bindings/%2F/e/nope/q/q1", "{}", 404, "no exchange 'nope' in vhost '/'"),
    ("GET /bindings/%2F/e/x1/q/q1/a.b", "", 200, ""),
    ("GET /bindings/%2F/e/x1/q/q1/nope", "", 404, "Object Not Found"),
    ("DELETE /bindings/%2F/e/x1/q/q1/a.b", "", 204, ""),
    ("DELETE /bindings/%2F/e/x1/q/q1/a.b", "", 404, "Object Not Found"),
    ("POST /queues/%2F/q1/get", "{}", 400, "[{key_missing,ackmode},{key_missing,count}"),
    ("POST /queues/%2F/q1/actions", r#"{"action":"nope"}"#, 400, "unknown"),
    ("DELETE /queues/%2F/nope", "", 404, "Object Not Found"),
    ("DELETE /exchanges/%2F/nope", "", 404, "Object Not Found"),
    ("DELETE /queues/%2F/nope/contents", "", 404, "Object Not Found"),
    ("PUT /vhosts/v1", "", 201, ""),
    ("PUT /vhosts/v1", r#"{"description":"d","tags":"a,b"}"#, 204, ""),
    ("GET /vhosts/nope", "", 404, "Object Not Found"),
    ("PUT /users/u1", r#"{"password":"p","tags":"management"}"#, 201, ""),
    ("PUT /users/u1", r#"{"password":"p","tags":["management"]}"#, 204, ""),
    ("PUT /users/u3", r#"{"password":"p"}"#, 400, "tags_not_present"),
    ("GET /users/nope", "", 404, "Object Not Found"),
    ("PUT /permissions/v1/u1", r#"{"configure":".*","write":".*","read":".*"}"#, 201, ""),
    ("PUT /permissions/v1/u1", r#"{"configure":".*","write":".*","read":".*"}"#, 204, ""),
    ("PUT /permissions/v1/nope", r#"{"configure":"","write":"","read":""}"#, 400, "vhost_or_user"),
    ("PUT /permissions/nope/u1", r#"{"configure":"","write":"","read":""}"#, 400, "vhost_or_user"),
    ("PUT /permissions/v1/u1", r#"{"configure":".*"}"#, 400, "[{key_missing,write}"),
    // Whoever makes a virtual host may use it.
    ("GET /permissions/v1/admin", "", 200, ""),
    ("PUT /topic-permissions/v1/u1", r#"{"exchange":"amq.topic","write":"","read":""}"#, 201, ""),
    ("PUT /policies/%2F/p1", r#"{"pattern":"^q","definition":{"max-length":5}}"#, 201, ""),
    ("PUT /policies/%2F/p1", r#"{"pattern":"^q"}"#, 400, "[{key_missing,definition}]"),
    (
        "PUT /policies/%2F/p2",
        r#"{"pattern":"(","definition":{"max-length":5}}"#,
        400,
        "bad_request",
    ),
    ("GET /policies/%2F/nope", "", 404, "Object Not Found"),
    ("PUT /parameters/shovel/%2F/s1", r#"{"value":{}}"#, 400, "component shovel not found"),
    ("PUT /global-parameters/g1", r#"{"value":{"a":1}}"#, 201, ""),
    ("PUT /vhost-limits/v1/max-queues", r#"{"value":"5"}"#, 204, ""),
    ("PUT /vhost-limits/v1/nope", r#"{"value":5}"#, 400, "Unrecognised terms"),
    ("PUT /user-limits/u1/max-channels", r#"{"value":5}"#, 204, ""),
    ("PUT /cluster-name", r#"{"name":"c1"}"#, 204, ""),
    ("POST /users/bulk-delete", r#"{"users":["u3"]}"#, 400, "no_such_user"),
    ("POST /queues/%2F", "{}", 405, "method_not_allowed"),
    ("OPTIONS /queues", "", 200, ""),
    ("GET /definitions/nope", "", 400, "vhost_not_found"),
    ("DELETE /users/u1", "", 204, ""),
    ("DELETE /vhosts/v1", "", 204, ""),
    ("DELETE /vhosts/nope", "", 404, "Object Not Found"),
    ("GET /connections/nope", "", 404, "Object Not Found"),
];

#[tokio::test]
async fn statuses_are_those_that_rabbitmq_has_given() {
    let world = World::managed().await;
    let mut browser = world.client("admin").await;
    for (line, body, status, text) in RECORDED {
        let answer = browser.api(line, body).await;
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, status, "{line} {body}: {said}");
        assert!(said.contains(text), "{line} {body}: {said}");
        if status >= 400 {
            let fields: Vec<_> = answer.json().as_object().unwrap().keys().cloned().collect();
            assert_eq!(fields, ["error", "reason"], "{line}");
        }
    }
}

#[tokio::test]
async fn logins_that_fail_are_told_in_rabbitmqs_words() {
    let world = World::managed().await;
    let answer = world.get("/api/overview").await;
    assert_eq!(answer, (401, r#"{"error":"not_authorized","reason":"Login failed"}"#.to_owned()));
    assert_eq!(world.get("/api/version").await.0, 200);
}

#[tokio::test]
async fn messages_go_in_and_out_as_they_are() {
    let world = World::managed().await;
    let mut browser = world.client("admin").await;
    browser.api("PUT /queues/%2F/q", "{}").await;
    let publish = json!({
        "routing_key": "q",
        "properties": {
            "delivery_mode": "2", "priority": 3, "correlation_id": "c", "reply_to": "answers",
            "expiration": "60000", "headers": { "a": 1, "b": "c" },
        },
        "payload": "héllo",
        "payload_encoding": "string",
    });
    let answer = browser.api("POST /exchanges/%2F/amq.default/publish", &publish.to_string()).await;
    assert_eq!(answer.json(), json!({ "routed": true }));
    let lost = publish.to_string().replace("\"q\"", "\"nobody\"");
    let answer = browser.api("POST /exchanges/%2F/amq.default/publish", &lost).await;
    assert_eq!(answer.json(), json!({ "routed": false }));

    let get = |mode: &str| format!(r#"{{"count":5,"ackmode":"{mode}","encoding":"auto"}}"#);
    let first = browser.api("POST /queues/%2F/q/get", &get("ack_requeue_true")).await.json();
    let message = &first[0];
    assert_eq!(message["payload"], "héllo");
    assert_eq!((&message["payload_bytes"], &message["redelivered"]), (&json!(6), &json!(false)));
    let properties = &message["properties"];
    assert_eq!(properties["headers"], json!({ "a": 1, "b": "c" }));
    assert_eq!((&properties["delivery_mode"], &properties["priority"]), (&json!(2), &json!(3)));
    assert_eq!(properties["reply_to"], "answers");
    assert!(properties["expiration"].is_string(), "{properties}");
    assert_eq!(world.ready("q"), 1);

    let second = browser.api("POST /queues/%2F/q/get", &get("ack_requeue_false")).await.json();
    assert_eq!(second[0]["redelivered"], true);
    assert_eq!(world.ready("q"), 0);
    let empty = browser.api("POST /queues/%2F/q/get", &get("ack_requeue_false")).await.json();
    assert_eq!(empty, json!([]));
}

#[tokio::test]
async fn lists_are_paged_sorted_filtered_and_cut_to_columns() {
    let world = World::managed().await;
    for queue in ["b-1", "a-2", "A-3", "c+d"] {
        world.declare(queue, Vec::new()).await;
    }
    let mut browser = world.client("admin").await;
    let all = browser.look("/queues/?columns=name&sort=name&sort_reverse=true").await;
    let names: Vec<_> = all.as_array().unwrap().iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names, ["c+d", "b-1", "a-2", "A-3"]);
    let page = browser.look("/queues/%2F?page=2&page_size=1&name=^A&use_regex=true").await;
    let counts = ["total_count", "filtered_count", "item_count", "page", "page_size", "page_count"];
    assert_eq!(counts.map(|name| page[name].as_u64().unwrap()), [4, 2, 1, 2, 1, 2]);
    assert_eq!(page["items"][0]["name"], "a-2");
    let nested = "/queues?columns=name,message_stats.publish_details.rate&page=1&page_size=1";
    let expected =
        json!({ "name": "A-3", "message_stats": { "publish_details": { "rate": 0.0 } } });
    assert_eq!(browser.look(nested).await["items"][0], expected);
    let bare = browser.look("/queues/%2F/b-1?disable_stats=true").await;
    assert!(bare.get("messages").is_none(), "{bare}");
    // A plus in a path is one, or else a space.
    assert_eq!(browser.look("/queues/%2F/c+d").await["name"], "c+d");
    world.declare("e f", Vec::new()).await;
    assert_eq!(browser.look("/queues/%2F/e+f").await["name"], "e f");
}

#[tokio::test]
async fn users_see_only_what_is_in_their_virtual_hosts() {
    let world = World::managed().await;
    world.declare("q", Vec::new()).await;
    let count = |list: Value| list.as_array().unwrap().len();
    let mut outsider = world.client("outsider").await;
    for list in ["/queues", "/exchanges", "/bindings", "/vhosts", "/policies", "/connections"] {
        assert_eq!(count(outsider.look(list).await), 0, "{list}");
    }
    world.client("manager").await.publish_by_api("q").await;
    let overview = outsider.look("/overview").await;
    assert_eq!(overview["object_totals"]["queues"], 0);
    assert_eq!(overview["queue_totals"]["messages"], 0);
    assert_eq!(overview["message_stats"]["publish"], 0);
    let mut manager = world.client("manager").await;
    assert_eq!(count(manager.look("/queues").await), 1);
    assert_eq!(manager.look("/overview").await["queue_totals"]["messages"], 1);
    assert_eq!(count(manager.look("/vhosts").await), 1);
}

// `reader` may read everything in the virtual host, and configure and write nothing.
#[tokio::test]
async fn permissions_are_those_of_every_other_protocol() {
    let world = World::managed().await;
    let name = UserName::new("reader").unwrap();
    let before = world.broker.access().user("reader").unwrap();
    let record = UserRecord { tags: vec!["management".to_owned()], ..UserRecord::clone(&before) };
    world.broker.put_user(name, record, false);
    world.declare("q", Vec::new()).await;
    let mut browser = world.client("reader").await;
    let publish =
        r#"{"routing_key":"q","properties":{},"payload":"x","payload_encoding":"string"}"#;
    for (line, body, status) in [
        ("PUT /queues/%2F/new", "{}", 401),
        ("DELETE /queues/%2F/q", "", 401),
        ("PUT /exchanges/%2F/x", "{}", 401),
        ("POST /bindings/%2F/e/amq.topic/q/q", "{}", 401),
        ("POST /exchanges/%2F/amq.default/publish", publish, 401),
        ("PUT /queues/%2F/q/pause", "", 401),
        ("DELETE /queues/%2F/q/contents", "", 204),
        ("GET /queues/%2F/q", "", 200),
    ] {
        assert_eq!(browser.api(line, body).await.status, status, "{line}");
    }
}

/// Has a message published and consumed rates.
async fn sampled(world: &World, browser: &mut Browser) {
    let publish =
        r#"{"routing_key":"q","properties":{},"payload":"x","payload_encoding":"string"}"#;
    browser.look("/queues/%2F/q").await;
    for _ in 0..10 {
        browser.api("POST /exchanges/%2F/amq.default/publish", publish).await;
    }
    let now = clock::now();
    let later = polymq_model::Now { unix_ms: now.unix_ms + 5_000, ..now };
    world.broker.take_samples(later);
}

// KEDA's scaler (pkg/scalers/rabbitmq_scaler.go) by one queue and by a pattern.
#[tokio::test]
async fn keda_reads_lengths_and_rates() {
    let world = World::managed().await;
    world.declare("q", Vec::new()).await;
    let mut browser = world.client("watcher").await;
    let mut admin = world.client("admin").await;
    sampled(&world, &mut admin).await;
    let one = browser.look("/queues/%2F/q").await;
    assert_eq!((&one["messages"], &one["messages_unacknowledged"]), (&json!(10), &json!(0)));
    assert_eq!(one["message_stats"]["publish"], 10);
    let rate = one["message_stats"]["publish_details"]["rate"].as_f64().unwrap();
    assert!((1.9..=2.1).contains(&rate), "{rate}");
    assert_eq!(one["message_stats"]["deliver_get_details"]["rate"], 0.0);
    let many = browser
        .look("/queues/%2F?page=1&use_regex=true&pagination=false&name=%5Eq&page_size=100")
        .await;
    assert_eq!((&many["page_count"], &many["items"][0]["messages"]), (&json!(1), &json!(10)));
}

// Telegraf's plugins/inputs/rabbitmq: what it takes to be there.
#[tokio::test]
async fn telegraf_and_datadog_find_their_numbers() {
    let world = World::managed().await;
    world.declare("q", Vec::new()).await;
    let mut browser = world.client("watcher").await;
    let overview = browser.look("/overview").await;
    for total in ["messages", "messages_ready", "messages_unacknowledged"] {
        assert!(overview["queue_totals"][total].is_u64(), "{total}");
    }
    for total in ["channels", "connections", "consumers", "exchanges", "queues"] {
        assert!(overview["object_totals"][total].is_u64(), "{total}");
    }
    let rates = [
        "ack",
        "confirm",
        "deliver",
        "deliver_get",
        "publish",
        "redeliver",
        "drop_unroutable",
        "return_unroutable",
    ];
    for rate in rates {
        let details = &overview["message_stats"][format!("{rate}_details")]["rate"];
        assert!(overview["message_stats"][rate].is_u64() && details.is_f64(), "{rate}");
    }
    let node = &browser.look("/nodes").await[0];
    for number in [
        "disk_free",
        "disk_free_limit",
        "fd_total",
        "fd_used",
        "mem_limit",
        "mem_used",
        "proc_total",
        "proc_used",
        "run_queue",
        "sockets_total",
        "sockets_used",
        "uptime",
    ] {
        assert!(node[number].is_u64(), "{number}");
    }
    assert!(node["running"].is_boolean() && node["os_pid"].is_string());
    let exchange = &browser.look("/exchanges").await[0]["message_stats"];
    assert!(exchange["publish_in"].is_u64() && exchange["publish_out_details"]["rate"].is_f64());
    let queue = &browser.look("/queues").await[0];
    for number in ["memory", "consumers", "message_bytes", "messages_ready", "messages_ram"] {
        assert!(queue[number].is_u64(), "{number}");
    }
    let memory = browser.look("/nodes/test/memory").await;
    assert!(memory["memory"]["total"]["rss"].is_u64());
}

#[tokio::test]
async fn samples_are_shown_when_they_are_asked_for() {
    let world = World::managed().await;
    world.declare("q", Vec::new()).await;
    let mut browser = world.client("admin").await;
    sampled(&world, &mut browser).await;
    let path = "/queues/%2F/q?lengths_age=60&lengths_incr=5&msg_rates_age=60&msg_rates_incr=5";
    let queue = browser.look(path).await;
    let samples = queue["messages_details"]["samples"].as_array().unwrap();
    assert_eq!(samples[0]["sample"], 10);
    assert!(samples[0]["timestamp"].as_u64() > samples[samples.len() - 1]["timestamp"].as_u64());
    assert!(queue["message_stats"]["publish_details"]["avg_rate"].is_f64());
}

/// A user with a hash of RabbitMQ.
const HASHED: &str = r#"{"tags":"management",
    "password_hash":"kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"}"#;

#[tokio::test]
async fn definitions_go_out_and_in_again() {
    let world = World::managed().await;
    let mut browser = world.client("admin").await;
    for (line, body) in [
        ("PUT /vhosts/v", r#"{"description":"d","tags":["t"]}"#),
        ("PUT /vhost-limits/v/max-queues", r#"{"value":9}"#),
        ("PUT /vhost-limits/v/retained-max-bytes", r#"{"value":10}"#),
        ("PUT /vhost-limits/v/retained-max-count", r#"{"value":11}"#),
        ("PUT /vhost-limits/v/max-message-size", r#"{"value":12}"#),
        ("PUT /queues/v/q", r#"{"arguments":{"x-max-length":5}}"#),
        ("PUT /exchanges/v/x", r#"{"type":"topic"}"#),
        ("POST /bindings/v/e/x/q/q", r##"{"routing_key":"a.#"}"##),
        ("PUT /policies/v/p", r#"{"pattern":"^q","definition":{"max-length":3}}"#),
        ("PUT /operator-policies/v/o", r#"{"pattern":"^q","definition":{"max-length":4}}"#),
        ("PUT /users/ann", HASHED),
        ("PUT /permissions/v/ann", r#"{"configure":"a","write":"b","read":"c"}"#),
        ("PUT /topic-permissions/v/ann", r#"{"exchange":"x","write":"d","read":"e"}"#),
        ("PUT /global-parameters/g", r#"{"value":[1]}"#),
    ] {
        let status = browser.api(line, body).await.status;
        assert!(matches!(status, 201 | 204), "{line}: {status}");
    }
    let definitions = browser.look("/definitions").await;

    let other = World::managed().await;
    let mut browser = other.client("admin").await;
    let imported = browser.api("POST /definitions", &definitions.to_string()).await;
    assert_eq!(imported.status, 204, "{}", String::from_utf8_lossy(&imported.body));
    let again = browser.look("/definitions").await;
    for part in [
        "vhosts",
        "queues",
        "exchanges",
        "bindings",
        "policies",
        "parameters",
        "permissions",
        "topic_permissions",
        "global_parameters",
        "users",
    ] {
        assert_eq!(again[part], definitions[part], "{part}");
    }
}

#[tokio::test]
async fn an_import_with_something_wrong_changes_nothing() {
    let world = World::managed().await;
    let mut browser = world.client("admin").await;
    let definitions = json!({
        "vhosts": [{ "name": "v" }],
        "queues": [{ "name": "q", "vhost": "v" }],
        "policies": [{ "name": "p", "vhost": "v", "pattern": "(", "definition": { "expires": 1 } }],
        "bindings": [{ "source": "x", "vhost": "v", "destination": "q",
                       "destination_type": "queue" }],
    });
    let answer = browser.api("POST /definitions", &definitions.to_string()).await;
    assert_eq!(answer.status, 400);
    let reason = answer.json()["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("policy 'p' in vhost 'v'"), "{reason}");
    assert!(reason.contains("binding from 'x' to 'q'"), "{reason}");
    assert_eq!(browser.api("GET /vhosts/v", "").await.status, 404);
}

#[tokio::test]
async fn definitions_come_as_a_form_as_well() {
    let world = World::managed().await;
    let mut browser = world.client("admin").await;
    let body = "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"d.json\"\r\n\
                Content-Type: application/json\r\n\r\n\
                {\"queues\":[{\"name\":\"q\",\"vhost\":\"/\"}]}\r\n--B--\r\n";
    let form = [("Content-Type", "multipart/form-data; boundary=B")];
    let answer = browser.ask("POST /api/definitions", &form, body.as_bytes()).await;
    assert_eq!(answer.status, 204, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(browser.look("/queues/%2F/q").await["name"], "q");
}

#[tokio::test]
async fn a_page_of_very_many_queues_is_made_of_the_queues_of_the_page() {
    let world = World::managed().await;
    let queues =
        (0..20_000).map(|n| json!({ "name": format!("q{n:05}"), "vhost": "/", "durable": false }));
    let definitions = json!({ "queues": queues.collect::<Vec<_>>() });
    let mut browser = world.client("admin").await;
    assert_eq!(browser.api("POST /definitions", &definitions.to_string()).await.status, 204);
    let begin = std::time::Instant::now();
    let page = browser.look("/queues?page=100&page_size=100&sort=name").await;
    let took = begin.elapsed();
    assert_eq!(
        (&page["total_count"], &page["items"][0]["name"]),
        (&json!(20_000), &json!("q09900"))
    );
    let last = browser.look("/queues?page=1&page_size=1&sort=name&sort_reverse=true").await;
    assert_eq!(last["items"][0]["name"], "q19999");
    browser.publish_by_api("q00777").await;
    for column in ["messages_ready", "message_stats.publish_details.rate"] {
        let path = format!("/queues?page=1&page_size=2&sort={column}&sort_reverse=true");
        let page = browser.look(&path).await;
        if column == "messages_ready" {
            assert_eq!(page["items"][0]["name"], "q00777");
        }
        assert_eq!(page["item_count"], 2);
    }
    // Without optimisation and on a busy machine; writing all queues takes many times as long.
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[tokio::test]
async fn a_virtual_host_is_gone_once_its_deletion_is_answered() {
    let world = World::managed().await;
    let mut browser = world.client("admin").await;
    for _ in 0..2 {
        assert_eq!(browser.api("PUT /vhosts/v", "").await.status, 201);
        assert_eq!(browser.api("PUT /queues/v/q", "{}").await.status, 201);
        assert_eq!(browser.api("DELETE /vhosts/v", "").await.status, 204);
    }
}

#[tokio::test]
async fn a_method_that_a_path_lacks_is_told_with_those_that_it_has() {
    let world = World::managed().await;
    let mut admin = world.client("admin").await;
    let answer = admin.api("PATCH /queues/%2F/q", "{}").await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("allow"), Some("HEAD, GET, PUT, DELETE, OPTIONS"));
    let body = answer.json();
    assert_eq!(body["error"], "method_not_allowed");
    assert!(body["reason"].as_str().unwrap().contains("PATCH"), "{body}");
    let ours = admin.ask("PATCH /api/v1/vhosts/~/queues", &[], b"").await;
    assert_eq!((ours.status, ours.code().as_str()), (405, "method_not_allowed"));
    assert_eq!(ours.header("allow"), Some("GET,HEAD"));
}

#[tokio::test]
async fn the_log_is_sent_as_lavinmq_sends_it() {
    let world = World::managed().await;
    let mut watcher = world.client("watcher").await;
    watcher.send("GET /api/livelog", &[], b"").await;
    assert_eq!(watcher.head().await, 200);
    let mut lines = Vec::new();
    while lines.len() < 2 {
        let line = watcher.line().await;
        if line.starts_with("id: ") || line.starts_with("data: ") {
            lines.push(line);
        }
    }
    let data = r#"data: ["info","polymq_broker::queue","event_3 n=3"]"#;
    assert_eq!(lines, ["id: 1700000000000", data]);
}
