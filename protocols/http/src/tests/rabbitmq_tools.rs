//! Requests of tools that are not run here, as they make them, and what they read of the answers.

use serde_json::json;

use super::*;

impl Browser {
    /// Makes requests of the form `METHOD path` with a body, and looks at the statuses.
    async fn conversation(&mut self, lines: &[(&str, &str, u16)]) {
        for (line, body, status) in lines {
            let answer = self.api(line, body).await;
            let text = String::from_utf8_lossy(&answer.body);
            assert_eq!(answer.status, *status, "{line} {body}: {text}");
        }
    }
}

/// As Terraform creates and changes resources.
async fn create(browser: &mut Browser) {
    let shovel = r#"{"component":"shovel","vhost":"app","name":"s","value":{"src-uri":"amqp://"}}"#;
    browser
        .conversation(&[
            ("PUT /vhosts/app", r#"{"description":"d","default_queue_type":"quorum"}"#, 201),
            ("PUT /vhosts/app", r#"{"description":"e","default_queue_type":"quorum"}"#, 204),
            ("PUT /vhost-limits/app/max-connections", r#"{"value":100}"#, 204),
            ("PUT /users/tf", r#"{"password":"x","tags":"management,monitoring"}"#, 201),
            ("PUT /users/tf", r#"{"tags":"management"}"#, 204),
            ("PUT /permissions/app/tf", r#"{"configure":".*","write":".*","read":""}"#, 201),
            (
                "PUT /topic-permissions/app/tf",
                r#"{"exchange":"events","write":"^a","read":".*"}"#,
                201,
            ),
            // Whoever makes a virtual host may use it.
            ("PUT /permissions/app/admin", r#"{"configure":".*","write":".*","read":".*"}"#, 204),
            (
                "PUT /exchanges/app/events",
                r#"{"type":"topic","durable":true,"auto_delete":false}"#,
                201,
            ),
            (
                "PUT /queues/app/tasks",
                r#"{"durable":true,"auto_delete":false,"arguments":{"x-message-ttl":5000}}"#,
                201,
            ),
            (
                "PUT /policies/app/p",
                r#"{"vhost":"app","name":"p","pattern":".*","apply-to":"all","priority":0,
                    "definition":{"max-length":10}}"#,
                201,
            ),
            (
                "PUT /operator-policies/app/o",
                r#"{"vhost":"app","name":"o","pattern":".*","apply-to":"queues","priority":0,
                    "definition":{"expires":3600000}}"#,
                201,
            ),
            // As RabbitMQ without the plugin.
            ("PUT /parameters/shovel/app/s", shovel, 400),
            ("GET /parameters/shovel/app/s", "", 404),
        ])
        .await;
}

/// What `Location` ends with, unescaped as every part of a URL is.
fn located(made: &Answer) -> String {
    let last = made.header("location").unwrap().rsplit('/').next().unwrap();
    percent_decoded(last)
}

fn percent_decoded(part: &str) -> String {
    let plain = part.replace('+', "%2B");
    let mut pairs = form_urlencoded::parse(plain.as_bytes());
    pairs.next().map_or_else(String::new, |(text, _)| text.into_owned())
}

/// Binds, and finds the binding by the key that `Location` ends with.
async fn bind(browser: &mut Browser) -> String {
    let binding = json!({
        "source": "events", "vhost": "app", "destination": "tasks", "destination_type": "queue",
        "routing_key": "a.#", "arguments": { "n": 1 }, "properties_key": "",
    });
    let line = "POST /bindings/app/e/events/q/tasks";
    let made = browser.api(line, &binding.to_string()).await;
    assert_eq!(made.status, 201);
    let key = located(&made);
    let all = browser.look("/bindings/app").await;
    let row = all.as_array().unwrap().iter().find(|row| row["source"] == "events").unwrap();
    assert_eq!(row["properties_key"], key);
    assert_eq!((&row["routing_key"], &row["arguments"]), (&json!("a.#"), &json!({ "n": 1 })));
    key
}

/// Reads every resource back, as a plan does.
async fn read(browser: &mut Browser) {
    let vhost = browser.look("/vhosts/app").await;
    assert_eq!(
        (&vhost["description"], &vhost["default_queue_type"]),
        (&json!("e"), &json!("quorum"))
    );
    assert_eq!(
        browser.look("/vhost-limits/app").await[0]["value"],
        json!({ "max-connections": 100 })
    );
    assert_eq!(browser.look("/users/tf").await["tags"], json!(["management"]));
    let permission = browser.look("/permissions/app/tf").await;
    assert_eq!((&permission["configure"], &permission["read"]), (&json!(".*"), &json!("")));
    let topics = browser.look("/topic-permissions/app/tf").await;
    assert_eq!((&topics[0]["exchange"], &topics[0]["write"]), (&json!("events"), &json!("^a")));
    let queue = browser.look("/queues/app/tasks").await;
    assert_eq!(
        (&queue["durable"], &queue["arguments"]["x-message-ttl"]),
        (&json!(true), &json!(5000))
    );
    let policy = browser.look("/policies/app/p").await;
    assert_eq!(
        (&policy["apply-to"], &policy["definition"]),
        (&json!("all"), &json!({ "max-length": 10 }))
    );
}

/// A DELETE of what is gone counts as done there.
async fn destroy(browser: &mut Browser, key: &str) {
    // The key is a part of a path, in which its percent signs are escaped again.
    let unbind = format!("DELETE /bindings/app/e/events/q/tasks/{}", key.replace('%', "%25"));
    browser
        .conversation(&[
            (&unbind, "", 204),
            ("DELETE /operator-policies/app/o", "", 204),
            ("DELETE /policies/app/p", "", 204),
            ("DELETE /queues/app/tasks", "", 204),
            ("DELETE /queues/app/tasks", "", 404),
            ("DELETE /exchanges/app/events", "", 204),
            ("DELETE /topic-permissions/app/tf", "", 204),
            ("DELETE /permissions/app/tf", "", 204),
            ("DELETE /users/tf", "", 204),
            ("DELETE /vhost-limits/app/max-connections", "", 204),
            ("DELETE /vhosts/app", "", 204),
            ("GET /vhosts/app", "", 404),
        ])
        .await;
}

// The provider looks for the key of `Location` in the list; what it does not find, it makes again.
#[tokio::test]
async fn whatever_the_key_a_new_binding_is_found_by_its_location() {
    let world = World::managed().await;
    let mut browser = world.client("admin").await;
    assert_eq!(browser.api("PUT /queues/%2F/q%2F1", "{}").await.status, 201);
    let path = "/bindings/%2F/e/amq.topic/q/q%2F1";
    let keys = ["", "a", "a.#", "*.x", "a b", "a/b", "a:b@c", "a~b", "ü", "a%23", "a+b", "~"];
    for (key, arguments) in keys.iter().flat_map(|key| [(key, json!({})), (key, json!({ "n": 1 }))])
    {
        let binding = json!({ "routing_key": key, "arguments": arguments });
        let made = browser.api(&format!("POST {path}"), &binding.to_string()).await;
        let key = located(&made);
        let all = browser.look(path).await;
        let is_listed = all.as_array().unwrap().iter().any(|row| row["properties_key"] == key);
        assert!(is_listed, "{binding}: {key} in {all}");
        // The header goes into a path as it is.
        let last = made.header("location").unwrap().rsplit('/').next().unwrap().to_owned();
        let found = browser.look(&format!("{path}/{last}")).await;
        assert_eq!(found["routing_key"], binding["routing_key"]);
        assert_eq!(browser.api(&format!("DELETE {path}/{last}"), "").await.status, 204);
    }
}

// cyrilgdn/rabbitmq with rabbit-hole, in the order of the dependencies.
#[tokio::test]
async fn terraform_makes_reads_and_destroys_what_it_describes() {
    let world = World::managed().await;
    let mut browser = world.client("admin").await;
    assert!(browser.look("/overview").await["rabbitmq_version"].is_string());
    create(&mut browser).await;
    let key = bind(&mut browser).await;
    read(&mut browser).await;
    destroy(&mut browser, &key).await;
}

#[tokio::test]
async fn replicas_of_a_queue_are_this_node_and_no_other() {
    let world = World::managed().await;
    let mut browser = world.client("admin").await;
    let here = r#"{"node":"test"}"#;
    browser
        .conversation(&[
            ("PUT /queues/%2F/c", "{}", 201),
            ("PUT /queues/%2F/q", r#"{"arguments":{"x-queue-type":"quorum"}}"#, 201),
            ("GET /queues/quorum/%2F/c/status", "", 503),
            ("GET /queues/quorum/%2F/none/status", "", 404),
            ("POST /queues/quorum/%2F/q/replicas/add", here, 204),
            ("POST /queues/quorum/%2F/q/replicas/add", r#"{"node":"other"}"#, 503),
            ("POST /queues/quorum/%2F/q/replicas/add", "{}", 400),
            ("POST /queues/quorum/%2F/c/replicas/add", here, 503),
            ("DELETE /queues/quorum/%2F/q/replicas/delete", here, 503),
            ("DELETE /queues/quorum/%2F/q/replicas/delete", r#"{"node":"other"}"#, 202),
            (
                "POST /queues/quorum/replicas/on/test/grow",
                r#"{"vhost_pattern":".*","queue_pattern":".*","strategy":"all"}"#,
                204,
            ),
            ("DELETE /queues/quorum/replicas/on/test/shrink", "", 202),
            ("DELETE /queues/quorum/replicas/on/other/shrink", "", 404),
        ])
        .await;
    let status = browser.look("/queues/quorum/%2F/q/status").await;
    assert_eq!(
        (&status[0]["Node Name"], &status[0]["Raft State"]),
        (&json!("test"), &json!("leader"))
    );
}

#[tokio::test]
async fn a_node_tells_what_has_come_and_gone_and_what_it_takes() {
    let world = World::managed().await;
    world.declare("q", Vec::new()).await;
    let mut browser = world.client("watcher").await;
    let node = browser.look("/nodes/test?node_stats_age=60&node_stats_incr=5").await;
    assert_eq!((&node["fd_used"], &node["fd_total"]), (&json!(20), &json!(1024)));
    assert_eq!(node["queue_created"], 1);
    assert_eq!(node["mem_used_details"]["samples"][0]["sample"], 1 << 24);
    assert!(node["io_sync_avg_time"].is_f64() && node["mem_used_details"]["avg"].is_f64());
    let churn = &browser.look("/overview").await["churn_rates"];
    assert_eq!((&churn["queue_created"], &churn["queue_deleted"]), (&json!(1), &json!(0)));
    assert!(churn["channel_created_details"]["rate"].is_f64());
    let vhost = browser.look("/vhosts").await[0].clone();
    assert!(vhost["recv_oct"].is_u64() && vhost["send_oct_details"]["rate"].is_f64(), "{vhost}");
    let mut admin = world.client("admin").await;
    let told = admin.api("GET /config/effective", "").await;
    assert_eq!(
        (told.status, told.header("content-type")),
        (200, Some("text/plain; charset=utf-8"))
    );
}

#[tokio::test]
async fn what_tools_change_is_written_down() {
    let world = World::managed().await;
    let mut browser = world.client("admin").await;
    browser
        .conversation(&[
            ("PUT /queues/%2F/q", r#"{"arguments":{"x-max-length":5}}"#, 201),
            // The same again changes nothing.
            ("PUT /queues/%2F/q", r#"{"arguments":{"x-max-length":5}}"#, 204),
            ("PUT /exchanges/%2F/x", r#"{"type":"topic"}"#, 201),
            ("POST /bindings/%2F/e/x/q/q", r#"{"routing_key":"a"}"#, 201),
            ("PUT /queues/%2F/q/pause", "", 204),
            ("PUT /queues/%2F/q/resume", "", 204),
            ("DELETE /bindings/%2F/e/x/q/q/a", "", 204),
            ("DELETE /queues/%2F/q/contents", "", 204),
            ("DELETE /queues/%2F/q", "", 204),
            ("DELETE /exchanges/%2F/x", "", 204),
            ("DELETE /exchanges/%2F/x", "", 404),
            ("PUT /vhosts/v", "", 201),
        ])
        .await;
    let audit = browser.fetch("/api/v1/audit").await;
    let entries = audit["items"].as_array().unwrap();
    let told: Vec<_> = entries
        .iter()
        .map(|entry| (entry["action"].as_str().unwrap(), entry["object"].as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ("queue.declare", "/vhosts///queues/q"),
            ("exchange.declare", "/vhosts///exchanges/x"),
            ("binding.add", "/vhosts///bindings/e/x/q/q"),
            ("queue.pause", "/vhosts///queues/q"),
            ("queue.resume", "/vhosts///queues/q"),
            ("binding.remove", "/vhosts///bindings/e/x/q/q"),
            ("queue.purge", "/vhosts///queues/q"),
            ("queue.delete", "/vhosts///queues/q"),
            ("exchange.delete", "/vhosts///exchanges/x"),
            ("vhost.put", "/vhosts/v"),
            // Whoever makes a virtual host may use it.
            ("permission.put", "/permissions/v/admin"),
        ]
    );
    assert_eq!(entries[0]["after"]["arguments"], json!({ "x-max-length": 5 }));
    assert_eq!(
        (&entries[0]["user"], &entries[5]["before"]["routing_key"]),
        (&json!("admin"), &json!("a"))
    );
}

#[tokio::test]
async fn certificates_are_asked_about_in_the_units_of_rabbitmq() {
    let world = World::managed().await;
    let mut browser = world.client("admin").await;
    let check = |path: &str| format!("GET /health/checks/certificate-expiration/{path}");
    for (path, status) in [("1/weeks", 200), ("3/months", 200), ("100/years", 503)] {
        assert_eq!(browser.api(&check(path), "").await.status, status, "{path}");
    }
    for (path, reason) in [
        ("x/days", "Invalid expiration value."),
        ("-1/days", "Invalid expiration value."),
        ("1/fortnights", "Time unit not recognised. Supported units: days, weeks, months, years."),
    ] {
        let answer = browser.api(&check(path), "").await;
        assert_eq!((answer.status, &answer.json()["reason"]), (400, &json!(reason)), "{path}");
    }
}

#[tokio::test]
async fn what_consumers_hold_is_told_of_a_queue() {
    let world = World::managed().await;
    let mut browser = world.client("admin").await;
    browser.conversation(&[("PUT /queues/%2F/q", "{}", 201)]).await;
    browser.ask("POST /api/v1/vhosts/~/queues/q/messages", &[], b"hello").await;
    let lease = json!({ "wait": "5s" });
    let leased = browser.post("/api/v1/vhosts/~/queues/q/messages:receive", &lease).await;
    assert_eq!(leased.status, 200);
    let queue = browser.look("/queues/%2F/q").await;
    for (number, bytes) in
        [("message_bytes", 5), ("message_bytes_ready", 0), ("message_bytes_unacknowledged", 5)]
    {
        assert_eq!(queue[number], bytes, "{number}");
    }
    assert!(queue["deliveries"].is_array(), "{queue:#}");
}
