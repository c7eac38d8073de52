//! Publishing over HTTP.

use polymq_contract::Command;
use polymq_model::Table;
use polymq_store::Capabilities;
use serde_json::json;

use super::*;

const TO_Q: &str = "POST /api/v1/vhosts/~/queues/q/messages";

#[tokio::test]
async fn message_is_stored_and_its_login_is_kept() {
    let world = World::start(Audience::Users).await;
    world.declare("q", Table::new()).await;
    let mut client = world.client("u").await;
    for _ in 0..3 {
        let answer = client.ask(TO_Q, &[], b"hello").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["routed"], true);
    }
    assert_eq!(world.ready("q"), 3);
    let logins = world.broker.counters().protocol("http").read();
    assert!(logins.contains(&("logins", 2)), "one declares, one publishes: {logins:?}");
}

#[tokio::test]
async fn what_cannot_be_is_told() {
    let world = World::start(Audience::Users).await;
    world.declare("q", Table::new()).await;
    let mut client = world.client("u").await;
    let nowhere = "POST /api/v1/vhosts/~/exchanges/none/messages";
    let at_topic = "POST /api/v1/vhosts/~/exchanges/amq.topic/messages";
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], u16, &'a str);
    let planned = [("Mq-Headers", r#"{"x-schedule-cron":"* * * * *"}"#)];
    let expected: [Case<'_>; 10] = [
        (nowhere, &[], 404, "exchange_not_found"),
        ("POST /api/v1/vhosts/none/queues/q/messages", &[], 403, "permission_denied"),
        (&format!("{at_topic}?mandatory=true"), &[], 422, "unroutable"),
        (&format!("{at_topic}?mandatry=true"), &[], 400, "unknown_parameter"),
        (&format!("{at_topic}?confirm=soon"), &[], 400, "wrong_type"),
        (TO_Q, &[("Mq-Priority", "300")], 400, "bad_header"),
        (TO_Q, &[("Mq-Prioriti", "3")], 400, "bad_header"),
        (TO_Q, &[("Mq-User-Id", "other")], 400, "bad_message"),
        (TO_Q, &planned, 501, "not_available"),
        ("POST /api/v1/vhosts/%zz/queues/q/messages", &[], 400, "bad_path"),
    ];
    for (headers, key, at) in [
        ([("Mq-User-Id", "other")], "a", "mq-user-id"),
        ([("Mq-Correlation-Kind", "odd")], "a", "mq-correlation-kind"),
        ([("Mq-Headers", r#"{"x-delay":"soon"}"#)], "a", "mq-headers"),
        ([("Mq-Type", "t")], "%00", "routing_key"),
    ] {
        let line = format!("{at_topic}?routing_key={key}");
        let told = client.ask(&line, &headers, b"x").await.json();
        assert_eq!((&told["status"], &told["at"]), (&json!(400), &json!(at)), "{told}");
    }
    for (line, headers, status, code) in expected {
        let answer = client.ask(line, headers, b"x").await;
        assert_eq!((answer.status, &*answer.code()), (status, code), "{line}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    let unrouted = client.ask(at_topic, &[], b"x").await;
    assert_eq!((unrouted.status, unrouted.json()["routed"].clone()), (200, json!(false)));
    assert_eq!(world.ready("q"), 0);
}

#[tokio::test]
async fn nobody_publishes_without_a_login_or_a_permission() {
    let world = World::start(Audience::Users).await;
    let anonymous = format!("{TO_Q} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let answer = world.send(&anonymous).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(answer.contains("www-authenticate: Basic"), "{answer}");
    let denied = world.client("reader").await.ask(TO_Q, &[], b"x").await;
    assert_eq!((denied.status, &*denied.code()), (403, "permission_denied"));
    let stranger = world.client("stranger").await.ask(TO_Q, &[], b"x").await;
    assert_eq!((stranger.status, &*stranger.code()), (403, "permission_denied"));
}

#[tokio::test]
async fn body_is_counted_while_it_comes() {
    let world = World::start(Audience::Users).await;
    let mut client = world.client("u").await;
    let answer = client.ask(TO_Q, &[], &vec![0; 100_001]).await;
    assert_eq!((answer.status, &*answer.code()), (413, "message_too_large"));
}

#[tokio::test]
async fn full_queue_is_429_and_an_alarm_503() {
    let world = World::start(Audience::Users).await;
    let arguments = vec![
        ("x-max-length".to_owned(), polymq_model::Value::I64(1)),
        ("x-overflow".to_owned(), polymq_model::Value::String("reject-publish".to_owned())),
    ];
    world.declare("q", arguments).await;
    let mut client = world.client("u").await;
    assert_eq!(client.ask(TO_Q, &[], b"1").await.status, 200);
    let full = client.ask(TO_Q, &[], b"2").await;
    assert_eq!((full.status, &*full.code()), (429, "queue_full"));
    assert_eq!(full.header("retry-after"), Some("1"));
    world.broker.set_alarm(Some("no space"));
    let blocked = client.ask(TO_Q, &[], b"3").await;
    assert_eq!((blocked.status, &*blocked.code()), (503, "publishers_blocked"));
    world.broker.set_alarm(None);
}

#[tokio::test]
async fn many_messages_end_in_order_and_each_by_itself() {
    let world = World::start(Audience::Users).await;
    world.declare("q", Table::new()).await;
    let mut client = world.client("u").await;
    let path = "/api/v1/vhosts/~/messages:publish";
    let message = |exchange: &str, key: &str| {
        let payload = "x";
        json!({ "exchange": exchange, "routing_key": key, "payload": payload })
    };
    let batch = json!([message("", "q"), message("none", "q"), message("", "gone"), {
        "routing_key": "q", "payload": { "a": 1 }, "payload_encoding": "json",
        "properties": { "message_id": "m4", "headers": { "n": 5 } },
    }]);
    let answer = client.post(path, &batch).await.json();
    let words: Vec<_> =
        (0..4).map(|at| answer["results"][at]["outcome"].as_str().unwrap().to_owned()).collect();
    assert_eq!(words[1..3], ["refused", "unrouted"], "{answer}");
    assert_eq!(answer["results"][1]["error"]["code"], "exchange_not_found");
    assert_eq!(answer["results"][3]["id"], "m4");
    assert_eq!(world.ready("q"), 2);

    let bad = json!([message("", "q"), { "routing_key": "q", "payload": 1 }]);
    let told = client.post(path, &bad).await;
    assert_eq!((told.status, told.json()["at"].clone()), (400, json!("/1/payload")));
    assert_eq!(world.ready("q"), 2, "a batch that cannot be read publishes nothing");

    let one = r#"{"routing_key":"q","payload":"a"}"#;
    let lines = format!("{one}\n\n{one}\n");
    let ndjson = [("Content-Type", "application/x-ndjson")];
    let told = client.ask(&format!("POST {path}"), &ndjson, lines.as_bytes()).await.json();
    assert_eq!(told["results"].as_array().unwrap().len(), 2, "{told}");
    assert_eq!(world.ready("q"), 4);
    let packed = [ndjson[0], ("Content-Encoding", "gzip")];
    assert_eq!(client.ask(&format!("POST {path}"), &packed, lines.as_bytes()).await.status, 415);

    let atomic = json!([message("", "q"), message("none", "q")]);
    let told = client.post(&format!("{path}?atomic=true"), &atomic).await;
    assert_eq!((told.status, &*told.code()), (404, "exchange_not_found"));
    assert_eq!(world.ready("q"), 4, "an atomic batch with one refusal publishes nothing");
    let atomic = json!([message("", "q"), message("", "q")]);
    let told = client.post(&format!("{path}?atomic=true"), &atomic).await.json();
    assert_eq!(told["results"].as_array().unwrap().len(), 2, "{told}");
    assert_eq!(world.ready("q"), 6);
}

#[tokio::test]
async fn confirm_is_as_strong_as_asked_for() {
    let world = World::start(Audience::Users).await;
    world.declare("q", Table::new()).await;
    let mut client = world.client("u").await;
    let none = client.ask(&format!("{TO_Q}?confirm=none"), &[], b"x").await;
    assert_eq!((none.status, none.body.len()), (202, 0));
    let routed = client.ask(&format!("{TO_Q}?confirm=routed"), &[], b"x").await;
    assert_eq!((routed.status, routed.json()["routed"].clone()), (200, json!(true)));
    let transient = client.ask(TO_Q, &[("Mq-Persistent", "false")], b"x").await;
    assert_eq!(transient.json()["outcome"], "routed");
    let lost = "POST /api/v1/vhosts/~/exchanges/none/messages?confirm=none";
    assert_eq!(client.ask(lost, &[], b"x").await.status, 404);
    assert_eq!(world.ready("q"), 3);
}

/// Declares queues that get whatever `amq.fanout` gets.
async fn fan_out(world: &World, queues: &[&str], arguments: Table) {
    for queue in queues {
        world.declare(queue, arguments.clone()).await;
        let bind = |request| {
            Command::BindQueue(Box::new(polymq_contract::BindQueue {
                request,
                queue: (*queue).to_owned(),
                exchange: "amq.fanout".to_owned(),
                key: String::new(),
                arguments: Table::new(),
            }))
        };
        world.run(bind).await;
    }
}

#[tokio::test]
async fn answer_tells_how_many_queues_took_it() {
    let world = World::start(Audience::Users).await;
    let mut client = world.client("u").await;
    let line = "POST /api/v1/vhosts/~/exchanges/amq.fanout/messages";
    for (queues, word) in [(0, "unrouted"), (1, "routed"), (2, "routed")] {
        let names = ["q", "r"];
        fan_out(&world, &names[..queues], Table::new()).await;
        let told = client.ask(line, &[], b"x").await.json();
        let routed = queues > 0;
        assert_eq!(told, json!({ "outcome": word, "routed": routed, "queues": queues }));
    }
    let routed = format!("{line}?confirm=routed");
    let told = client.ask(&routed, &[("Mq-Message-Id", "m")], b"x").await.json();
    assert_eq!((&told["queues"], &told["id"]), (&json!(2), &json!("m")), "{told}");
    for atomic in ["", "?atomic=true"] {
        let path = format!("/api/v1/vhosts/~/messages:publish{atomic}");
        let batch = json!([{ "exchange": "amq.fanout", "payload": "x" }, { "routing_key": "q" }]);
        let told = client.post(&path, &batch).await.json();
        let queues = [0, 1].map(|at| told["results"][at]["queues"].as_u64());
        assert_eq!(queues, [Some(2), Some(1)], "{told}");
    }
}

#[tokio::test]
async fn what_one_queue_refuses_is_refused_whatever_the_others_do() {
    let world = World::start(Audience::Users).await;
    let arguments = vec![
        ("x-max-length".to_owned(), polymq_model::Value::I64(0)),
        ("x-overflow".to_owned(), polymq_model::Value::String("reject-publish".to_owned())),
    ];
    fan_out(&world, &["full"], arguments).await;
    fan_out(&world, &["free"], Table::new()).await;
    let line = "POST /api/v1/vhosts/~/exchanges/amq.fanout/messages?confirm=routed";
    let told = world.client("u").await.ask(line, &[], b"x").await;
    assert_eq!((told.status, &*told.code()), (429, "queue_full"));
}

#[tokio::test]
async fn delayed_publish_is_answered_with_its_schedule_id() {
    let world = World::start(Audience::Users).await;
    world.declare("q", Table::new()).await;
    let mut client = world.client("u").await;
    for confirm in ["stored", "routed"] {
        let line = format!("{TO_Q}?confirm={confirm}");
        let told = client.ask(&line, &[("Mq-Delay", "3600000")], b"x").await.json();
        assert_eq!((&told["routed"], &told["queues"]), (&json!(true), &Value::Null), "{told}");
        let id = told["schedule_id"].as_str().unwrap_or_else(|| panic!("{told}"));
        let one = format!("DELETE /api/v1/vhosts/~/scheduled/{id}");
        assert_eq!(client.ask(&one, &[], b"").await.status, 204);
    }
    assert_eq!(world.ready("q"), 0);
}

/// Whoever answers requests in the queue `q`.
struct Worker {
    client: Arc<client::Client>,
    requests: client::Deliveries,
}

impl Worker {
    async fn start(world: &World) -> Self {
        let peer = Arc::new(peer());
        let password = polymq_contract::Secret::new("x");
        let login = polymq_contract::Login::Password { user: "u".to_owned(), password };
        let vhost = Some("/".to_owned());
        let client = client::Client::connect(&world.broker, &peer, login, vhost, 1 << 20);
        let client = Arc::new(client.await.unwrap());
        let consume = |request, consumer| polymq_contract::Consume {
            request,
            consumer,
            queue: "q".to_owned(),
            no_ack: true,
            exclusive: false,
            prefetch: 0,
            group: 0,
            tag: String::new(),
            arguments: Table::new(),
        };
        let requests = client.consume(consume).await.unwrap();
        Self { client, requests }
    }

    /// Answers the next request with `pong`.
    async fn answer(&mut self) {
        let client::Next::Delivery(asked) = self.requests.next().await else { panic!("none") };
        let props = asked.message.properties();
        let Some(polymq_model::address::Address::Queue(to)) = &props.reply_to else {
            panic!("{props:?}")
        };
        let message = polymq_model::NewMessage {
            format: &HTTP,
            exchange: "",
            key: to,
            props: br#"{"correlation_id":"c1","content_type":"text/x-pong"}"#,
            body: polymq_model::Body::Slice(b"pong"),
            durable: false,
            priority: None,
            qos: 0,
            retain: false,
            deadline_ms: 0,
            arrived_ms: 0,
            extra_keys: Vec::new(),
        }
        .build(&mut Vec::new())
        .lowered(None);
        let outgoing = client::Outgoing { message, delay: None, mandatory: false };
        drop(self.client.publish([outgoing]).await);
    }
}

#[tokio::test]
async fn request_is_answered_with_what_any_client_replies() {
    let world = World::start(Audience::Users).await;
    world.declare("q", Table::new()).await;
    let mut client = world.client("u").await;
    let headers = [("Mq-Correlation-Id", "c1"), ("Content-Type", "text/plain")];
    client.send(&format!("{TO_Q}?reply=10s"), &headers, b"ping").await;
    Worker::start(&world).await.answer().await;

    let told = tokio::time::timeout(TIMEOUT, client.read()).await.unwrap();
    assert_eq!((told.status, &*told.body), (200, &b"pong"[..]));
    assert_eq!(told.header("mq-correlation-id"), Some("c1"));
    assert_eq!(told.header("content-type"), Some("text/x-pong"));
    let nobody = client.ask(&format!("{TO_Q}?reply=1ms"), &[], b"x").await;
    assert_eq!((nobody.status, &*nobody.code()), (504, "no_reply"));
}

#[tokio::test]
async fn request_waits_for_the_store_only_if_it_is_to_be_stored() {
    let capabilities = Capabilities { durable: true, ..MemoryStore::new().capabilities() };
    let store = Arc::new(MemoryStore::posing_as(capabilities));
    let world = World::start_on(Arc::clone(&store), Audience::Users, |_| ()).await;
    world.declare("q", Table::new()).await;
    let mut worker = Worker::start(&world).await;
    let mut client = world.client("u").await;
    store.faults().delay_replies(true);
    for confirm in ["routed", "none"] {
        client.send(&format!("{TO_Q}?reply=60s&confirm={confirm}"), &[], b"ping").await;
        worker.answer().await;
        let told = tokio::time::timeout(TIMEOUT, client.read()).await.unwrap();
        assert_eq!((told.status, &*told.body), (200, &b"pong"[..]), "{confirm}");
    }
    client.send(&format!("{TO_Q}?reply=60s"), &[], b"ping").await;
    worker.answer().await;
    store.release();
    let told = tokio::time::timeout(TIMEOUT, client.read()).await.unwrap();
    assert_eq!((told.status, &*told.body), (200, &b"pong"[..]));
    let nowhere = "POST /api/v1/vhosts/~/exchanges/amq.topic/messages?reply=60s&confirm=none";
    let told = client.ask(nowhere, &[], b"x").await;
    assert_eq!((told.status, &*told.code()), (422, "unroutable"));
}

#[tokio::test]
async fn conversion_is_explained_field_by_field() {
    let world = World::start(Audience::Users).await;
    let mut client = world.client("u").await;
    let path = "/api/v1/convert:explain";
    let message = json!({ "properties": { "priority": 7 }, "payload": "x" });
    let told = client.post(path, &json!({ "message": message, "to": ["mqtt5"] })).await.json();
    let expected = json!({
        "to": "mqtt5", "field": "priority", "outcome": "carried", "as": "x-mq-priority",
        "value": "7",
    });
    assert_eq!(told["lines"][1], expected, "{told}");
    let all = client.post(path, &json!({ "message": message })).await.json();
    assert!(all["lines"].as_array().unwrap().len() > 10);
    for (bad, at) in [
        (json!({ "message": message, "to": ["kafka"] }), "/to/0"),
        (
            json!({ "message": { "properties": { "delivery_mode": 9 } } }),
            "/message/properties/delivery_mode",
        ),
        (json!({ "message": { "payload": 1 } }), "/message/payload"),
        (json!({ "queued": { "queue": "q", "seq": "one" } }), "/queued/seq"),
        (json!({ "queued": { "queue": "", "seq": "1" } }), "/queued/queue"),
    ] {
        let told = client.post(path, &bad).await;
        assert_eq!((told.status, told.json()["at"].clone()), (400, json!(at)));
    }
}

#[tokio::test]
async fn conversion_of_a_message_that_lies_in_a_queue_is_explained() {
    let world = World::start(Audience::Users).await;
    world.declare("q", Vec::new()).await;
    let mut client = world.client("u").await;
    client.ask(TO_Q, &[("Mq-Priority", "7")], b"x").await;
    let listed = client.ask("GET /api/v1/vhosts/~/queues/q/messages", &[], b"").await.json();
    let seq = listed["items"][0]["seq"].as_str().unwrap().to_owned();
    let path = "/api/v1/convert:explain";
    let queued = json!({ "queue": "q", "seq": seq });
    let told = client.post(path, &json!({ "queued": queued, "to": ["mqtt311"] })).await.json();
    let lines = told["lines"].as_array().unwrap();
    let lost = lines.iter().find(|line| line["field"] == "priority").unwrap();
    assert_eq!((&lost["outcome"], &lost["why"]), (&json!("dropped"), &json!("no_place")), "{told}");
    assert_eq!(world.ready("q"), 1);
    let unknown = json!({ "queued": { "queue": "q", "seq": "99999" } });
    assert_eq!(client.post(path, &unknown).await.status, 404);
    for neither in [json!({}), json!({ "queued": queued, "message": { "payload": "x" } })] {
        assert_eq!(client.post(path, &neither).await.status, 400);
    }
}
