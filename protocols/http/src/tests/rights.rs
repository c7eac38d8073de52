//! One address by every path of HTTP: the decision is the same, and it is the one that management
//! tells. The other protocols are compared in the tests of the bridge.

use polymq_broker::{
    Manager, PermissionQuestion, PermissionRecord, Principal, TopicPermissionRecord, TopicSyntax,
};
use serde_json::json;

use super::*;

/// Rules in every syntax. Each allows `ok`.
const RULES: [(&str, TopicSyntax); 4] = [
    ("a/#\nok", TopicSyntax::Slash),
    ("{username}.#\nok", TopicSyntax::Dot),
    (r"^(?!secret)", TopicSyntax::Regex),
    ("ok", TopicSyntax::Slash),
];

const KEYS: [&str; 4] = ["a", "a.b", "reader.x", "secret.a"];
const V: &str = "/api/v1/vhosts/~";

fn root() -> VhostName {
    VhostName::new("/").unwrap()
}

fn record(tags: &[&str]) -> UserRecord {
    UserRecord {
        password_hash: String::new(),
        scram: String::new(),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        loopback_only: false,
    }
}

fn manager(world: &World) -> Manager {
    world.broker.manage(&Principal::of_user(UserName::new("boss").unwrap()), "test")
}

/// A world in which `reader` may have every queue and exchange, and these topics of `amq.topic`.
async fn bounded(write: &str, read: &str, syntax: TopicSyntax) -> World {
    let world = World::start(Audience::Users).await;
    let reader = UserName::new("reader").unwrap();
    let boss = UserName::new("boss").unwrap();
    world.broker.put_user(boss, record(&["administrator"]), false);
    world.broker.put_user(reader.clone(), record(&["management"]), false);
    let all = || ".*".to_owned();
    let permission = PermissionRecord { configure: all(), write: all(), read: all() };
    manager(&world).put_permission(&root(), &reader, permission).unwrap();
    let topics = TopicPermissionRecord { write: write.into(), read: read.into(), syntax };
    manager(&world).put_topic_permission(&root(), &reader, "amq.topic", topics).unwrap();
    world
}

fn verdict(world: &World, action: &str, key: &str) -> bool {
    let asked = PermissionQuestion {
        user: UserName::new("reader").unwrap(),
        vhost: root(),
        action: action.to_owned(),
        object: "amq.topic".to_owned(),
        topic: Some(key.to_owned()),
        client_id: None,
    };
    manager(world).test_permission(&asked).unwrap().allowed
}

/// Binds a queue by the API of RabbitMQ; the status of the answer.
async fn bind(client: &mut Browser, queue: &str, key: &str) -> u16 {
    let path = format!("/api/bindings/%2F/e/amq.topic/q/{queue}");
    client.post(&path, &json!({ "routing_key": key, "arguments": {} })).await.status
}

/// What a way to write is called, its request, its headers, its body.
type Way = (&'static str, String, Vec<(&'static str, &'static str)>, Vec<u8>);

/// Every way to write a topic.
fn writes(key: &str) -> Vec<Way> {
    let raw = format!("POST {V}/exchanges/amq.topic/messages?routing_key={key}");
    let message = json!({ "exchange": "amq.topic", "routing_key": key, "payload": "m" });
    let list = json!([message]).to_string().into_bytes();
    let line = format!("{message}\n").into_bytes();
    let kind = vec![("Content-Type", "application/json")];
    let address = format!("amq.address%3A%2Fexchanges%2Famq.topic%2F{key}");
    let rabbit = json!({
        "routing_key": key, "properties": {}, "payload": "m", "payload_encoding": "string",
    });
    vec![
        ("raw", raw.clone(), vec![], b"m".to_vec()),
        ("retained", raw.clone(), vec![("Mq-Retain", "true")], b"m".to_vec()),
        ("unconfirmed", format!("{raw}&confirm=none"), vec![], b"m".to_vec()),
        ("batch", format!("POST {V}/messages:publish"), kind.clone(), list.clone()),
        (
            "lines",
            format!("POST {V}/messages:publish"),
            vec![("Content-Type", "application/x-ndjson")],
            line,
        ),
        ("atomic", format!("POST {V}/messages:publish?atomic=true"), kind.clone(), list),
        (
            "address",
            format!("POST {V}/exchanges/amq.default/messages?routing_key={address}"),
            vec![],
            b"m".to_vec(),
        ),
        (
            "as RabbitMQ",
            "POST /api/exchanges/%2F/amq.topic/publish".to_owned(),
            kind,
            rabbit.to_string().into_bytes(),
        ),
    ]
}

#[tokio::test]
async fn a_topic_is_written_by_every_path_or_by_none() {
    for (rule, syntax) in RULES {
        for key in KEYS {
            let world = bounded(rule, "", syntax).await;
            world.declare("watch", Vec::new()).await;
            let mut maker = world.client("u").await;
            let bound =
                json!({ "source": "amq.topic", "destination": "watch", "routing_key": "#" });
            assert_eq!(maker.post(&format!("{V}/bindings"), &bound).await.status, 201);
            let mut writer = world.client("reader").await;
            let told = verdict(&world, "write", key);
            for (way, line, headers, body) in writes(key) {
                let before = world.ready("watch");
                let answer = writer.ask(&line, &headers, &body).await;
                // What is not confirmed may be on its way when the answer is there.
                let again = writer.ask(&format!("GET {V}/queues/watch"), &[], b"").await;
                assert_eq!(again.status, 200);
                let arrived = world.ready("watch") - before;
                let text = String::from_utf8_lossy(&answer.body).into_owned();
                assert_eq!(arrived == 1, told, "{way}, {rule} {key}: {} {text}", answer.status);
                let is_refused =
                    answer.status == 403 || answer.status == 401 || text.contains("denied");
                assert!(
                    told || way == "unconfirmed" || is_refused,
                    "{way}: {} {text}",
                    answer.status
                );
            }
        }
    }
}

#[tokio::test]
async fn a_topic_is_read_by_every_path_or_by_none() {
    for (rule, syntax) in RULES {
        for key in KEYS {
            let write = if syntax == TopicSyntax::Regex { ".*" } else { "#" };
            let world = bounded(write, rule, syntax).await;
            let told = verdict(&world, "read", key);
            let mut maker = world.client("u").await;
            let publish = format!("POST {V}/exchanges/amq.topic/messages?routing_key={key}");
            maker.ask(&publish, &[("Mq-Retain", "true")], b"kept").await;
            let mut decisions = Vec::new();
            let mut reader = world.client("reader").await;

            for (way, queue) in [("bound by us", "mine"), ("bound as by RabbitMQ", "other")] {
                world.declare(queue, Vec::new()).await;
                let status = match queue {
                    "mine" => {
                        let source = "amq.topic";
                        let asked =
                            json!({ "source": source, "destination": queue, "routing_key": key });
                        reader.post(&format!("{V}/bindings"), &asked).await.status
                    }
                    _ => bind(&mut reader, queue, key).await,
                };
                assert!([201, 403, 401].contains(&status), "{way}: {status}");
                maker.ask(&publish, &[], b"m").await;
                let receive = format!("{V}/queues/{queue}/messages:receive");
                let got = reader.post(&receive, &json!({ "max": 1 })).await.status == 200;
                decisions.push((way, got));
            }

            let kept = reader.ask(&format!("GET {V}/retained/{key}"), &[], b"").await.status;
            assert!([200, 403].contains(&kept), "{kept}");
            decisions.push(("the last value", kept == 200));

            let mut live = world.client("reader").await;
            let line = format!("GET {V}/subscribe?exchange=amq.topic&pattern={key}");
            live.send(&line, &[], b"").await;
            let status = live.head().await;
            assert!([200, 403].contains(&status), "{status}");
            if status == 200 {
                maker.ask(&publish, &[], b"live").await;
                assert_eq!(live.event().await.2["payload"], "live");
            }
            decisions.push(("events", status == 200));
            assert!(
                decisions.iter().all(|(_, is)| *is == told),
                "{rule} {key} {told}: {decisions:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_dry_run_is_refused_as_what_it_stands_for() {
    let world = bounded("a/#", "#", TopicSyntax::Slash).await;
    let mut maker = world.client("u").await;
    let mut writer = world.client("reader").await;
    for (key, status) in [("a.x", 204), ("secret.x", 403)] {
        let publish = format!("POST {V}/exchanges/amq.topic/messages?routing_key={key}");
        maker.ask(&publish, &[("Mq-Retain", "true")], b"kept").await;
        let path = format!("DELETE {V}/retained/{key}");
        let dry = writer.ask(&format!("{path}?dry_run=true"), &[], b"").await.status;
        assert_eq!(dry, if status == 204 { 200 } else { status }, "{key}");
        assert_eq!(writer.ask(&path, &[], b"").await.status, status, "{key}");
    }
}

/// A queue that one may not read gives nothing away, by whichever path.
#[tokio::test]
async fn a_queue_that_may_not_be_read_is_read_by_no_path() {
    let world = bounded("#", "#", TopicSyntax::Slash).await;
    world.declare("q", Vec::new()).await;
    let mut maker = world.client("u").await;
    maker.ask(&format!("POST {V}/queues/q/messages"), &[], b"secret").await;
    let nothing = || "^$".to_owned();
    let permission =
        PermissionRecord { configure: nothing(), write: ".*".to_owned(), read: nothing() };
    let reader = UserName::new("reader").unwrap();
    manager(&world).put_permission(&root(), &reader, permission).unwrap();
    let mut client = world.client("reader").await;
    let json = [("Content-Type", "application/json")];
    let get = json!({ "count": 1, "ackmode": "ack_requeue_true", "encoding": "auto" }).to_string();
    let filter = json!({ "filter": "TRUE" }).to_string();
    let elsewhere = json!({ "to": { "queue": "mine" } }).to_string();
    let explain = json!({ "queued": { "queue": "q", "seq": "1" } }).to_string();
    for (line, body) in [
        (format!("POST {V}/queues/q/messages:receive"), "{\"max\":1}"),
        (format!("GET {V}/subscribe?queue=q&ack=auto"), ""),
        (format!("GET {V}/queues/q/messages"), ""),
        (format!("GET {V}/queues/q/messages/1"), ""),
        (format!("GET {V}/queues/q/messages/1/payload"), ""),
        (format!("POST {V}/queues/q/messages:search"), &filter),
        (format!("POST {V}/queues/q/messages:move"), &elsewhere),
        (format!("POST {V}/queues/q/messages:copy"), &elsewhere),
        (format!("POST {V}/queues/q/messages:delete"), "{}"),
        (format!("POST {V}/queues/q/messages:purge"), ""),
        ("POST /api/v1/convert:explain".to_owned(), &explain),
        ("POST /api/queues/%2F/q/get".to_owned(), &get),
        ("DELETE /api/queues/%2F/q/contents".to_owned(), ""),
    ] {
        let headers = if body.is_empty() { &[][..] } else { &json[..] };
        let answer = client.ask(&line, headers, body.as_bytes()).await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!([401, 403].contains(&answer.status), "{line}: {} {text}", answer.status);
        assert!(!text.contains("secret"), "{line}: {text}");
    }
    assert_eq!(world.ready("q"), 1);
}

#[tokio::test]
async fn a_delayed_message_is_seen_read_and_changed_by_whoever_may_send_and_read_it() {
    let world = bounded("mine.#\nours.#", "ours.#", TopicSyntax::Dot).await;
    world
        .broker
        .put_permission(root(), UserName::new("boss").unwrap(), PermissionRecord::all(), false)
        .unwrap();
    let (mut boss, mut reader) = (world.client("boss").await, world.client("reader").await);
    let mut ids = Vec::new();
    for key in ["mine.a", "ours.a", "secret.a"] {
        let line = format!("POST {V}/exchanges/amq.topic/messages?routing_key={key}");
        let told = boss.ask(&line, &[("Mq-Delay", "3600000")], b"planted").await.json();
        ids.push(told["schedule_id"].as_str().unwrap().to_owned());
    }
    let list = format!("{V}/scheduled");
    let keys = |page: &Value| {
        let items = page["items"].as_array().unwrap();
        let one = |item: &Value| (item["routing_key"].clone(), item.get("payload").is_some());
        items.iter().map(one).collect::<Vec<_>>()
    };
    let seen = reader.fetch(&list).await;
    assert_eq!(keys(&seen), [(json!("mine.a"), false), (json!("ours.a"), true)]);
    assert_eq!(keys(&boss.fetch(&list).await).len(), 3);
    for (id, status) in ids.iter().zip([404, 204, 404]) {
        let line = format!("DELETE {list}/{id}");
        assert_eq!(reader.ask(&line, &[], b"").await.status, status);
    }
    let line = format!("DELETE {list}/{}", ids[2]);
    assert_eq!(boss.ask(&line, &[], b"").await.status, 204);
}
