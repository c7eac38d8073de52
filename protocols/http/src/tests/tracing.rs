//! Messages are followed on their way.

use polymq_model::Value as Typed;
use serde_json::{Value, json};

use super::{Browser, World};
use crate::serve::Audience;

const QUEUE: &str = "/api/v1/vhosts/~/queues/q";

async fn world() -> (World, Browser) {
    let world = World::start(Audience::Users).await;
    world.tagged("watcher", &["monitoring"]);
    let client = world.client("watcher").await;
    let dead = vec![
        ("x-dead-letter-exchange".to_owned(), Typed::String(String::new())),
        ("x-dead-letter-routing-key".to_owned(), Typed::String("dead".to_owned())),
    ];
    world.declare("q", dead).await;
    world.declare("dead", Vec::new()).await;
    (world, client)
}

async fn start(client: &mut Browser, spec: &Value) -> String {
    let started = client.post("/api/v1/traces", spec).await;
    assert_eq!(started.status, 201, "{}", started.json());
    let location = started.header("location").unwrap().to_owned();
    assert_eq!(client.fetch(&location).await["state"], "running");
    location
}

impl World {
    /// A stream of the events of a trace.
    async fn follow(&self, trace: &str) -> Browser {
        let mut reader = self.client("watcher").await;
        reader.send(&format!("GET {trace}/events"), &[], b"").await;
        reader
    }
}

impl Browser {
    async fn steps(&mut self, count: usize) -> Vec<Value> {
        let mut steps = Vec::new();
        for _ in 0..count {
            let (_, kind, step) = self.event().await;
            assert_eq!(kind, "step", "{step}");
            steps.push(step);
        }
        steps
    }
}

fn names(steps: &[Value]) -> Vec<&str> {
    steps.iter().map(|step| step["event"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_message_is_followed_from_its_publisher_to_its_end() {
    let (world, mut client) = world().await;
    let mut publisher = world.client("u").await;
    // The route is known before the trace begins.
    publisher.ask(&format!("POST {QUEUE}/messages"), &[], b"before").await;
    publisher.post(&format!("{QUEUE}/messages:receive"), &json!({ "max": 1 })).await;
    let trace = start(&mut client, &json!({ "vhost": "~", "queue": "q" })).await;
    let mut reader = world.follow(&trace).await;
    publisher.ask(&format!("POST {QUEUE}/messages"), &[], b"body").await;
    let steps = reader.steps(3).await;
    assert_eq!(names(&steps), ["received", "routed", "queued"]);
    assert_eq!((&steps[0]["protocol"], &steps[0]["user"]), (&json!("http"), &json!("u")));
    assert_eq!((&steps[1]["queues"], &steps[2]["queue"]), (&json!("q"), &json!("q")));
    assert!(!steps[0].to_string().contains("body"), "bodies are not shown: {steps:?}");
    let receive = json!({ "max": 1, "wait": "5s" });
    let got = publisher.post(&format!("{QUEUE}/messages:receive"), &receive).await.json();
    let receipt = got["messages"][0]["receipt"].clone();
    let nack = json!({ "receipts": [receipt], "requeue": false, "reason": "no good" });
    publisher.post(&format!("{QUEUE}/leases:nack"), &nack).await;
    let steps = reader.steps(3).await;
    assert_eq!(names(&steps), ["delivered", "dead_lettered", "queued"]);
    assert_eq!((&steps[0]["protocol"], &steps[1]["queues"]), (&json!("http"), &json!("dead")));
    assert_eq!(steps[2]["queue"], "dead");
    let dead = "/api/v1/vhosts/~/queues/dead";
    let got = publisher.post(&format!("{dead}/messages:receive"), &receive).await.json();
    let ack = json!({ "receipts": [got["messages"][0]["receipt"]] });
    publisher.post(&format!("{dead}/leases:ack"), &ack).await;
    assert_eq!(names(&reader.steps(2).await), ["delivered", "acknowledged"]);
    assert_eq!(client.fetch(&trace).await["messages"], 1);
    assert_eq!(client.delete(&trace).await.status, 204);
    assert_eq!(reader.event().await.1, "end");
    assert_eq!(client.fetch(&trace).await["ended"], "stopped");
    assert_eq!(client.delete(&trace).await.status, 204);
    assert_eq!(client.get(&trace).await.code(), "trace_not_found");
}

#[tokio::test]
async fn a_filter_a_rate_and_a_limit_bound_a_trace() {
    let (world, mut client) = world().await;
    let spec = json!({
        "vhost": "/", "exchange": "amq.topic", "routing_key": "a.*", "rate": 2, "payload": true,
    });
    let trace = start(&mut client, &spec).await;
    let mut publisher = world.client("u").await;
    let to =
        |key: &str| format!("POST /api/v1/vhosts/~/exchanges/amq.topic/messages?routing_key={key}");
    publisher.ask(&to("b.1"), &[], b"other").await;
    for _ in 0..5 {
        publisher.ask(&to("a.1"), &[], b"mine").await;
    }
    let view = client.fetch(&trace).await;
    let (messages, skipped) = (view["messages"].as_u64(), view["skipped"].as_u64());
    assert_eq!(messages.zip(skipped).map(|(a, b)| a + b), Some(5), "{view}");
    let mut reader = world.follow(&trace).await;
    let steps = reader.steps(3).await;
    assert_eq!(names(&steps), ["received", "routed", "dropped"]);
    assert_eq!(steps[2]["detail"], "unroutable");
    assert!(steps[0].get("payload").is_none(), "nobody has it, so that nobody may read it");
    let once = json!({ "vhost": "/", "queue": "q", "limit": 1, "payload": true });
    let once = start(&mut client, &once).await;
    for _ in 0..2 {
        publisher.ask(&format!("POST {QUEUE}/messages"), &[], b"secret?").await;
    }
    let view = client.fetch(&once).await;
    assert_eq!((&view["messages"], &view["ended"]), (&json!(1), &json!("messages")));
    let steps = world.follow(&once).await.steps(1).await;
    assert_eq!(steps[0]["payload"], "secret?");
}

#[tokio::test]
async fn traces_need_rights_and_are_three_at_most() {
    let (world, mut client) = world().await;
    let spec = json!({ "vhost": "/" });
    let mut plain = world.client("u").await;
    assert_eq!(plain.post("/api/v1/traces", &spec).await.status, 403);
    let unknown = client.post("/api/v1/traces", &json!({ "vhost": "none" })).await;
    assert_eq!((unknown.status, unknown.code().as_str()), (404, "vhost_not_found"));
    for wrong in [json!({ "vhost": "/", "rate": 0 }), json!({ "vhost": "/", "duration": "1h" })] {
        assert_eq!(client.post("/api/v1/traces", &wrong).await.code(), "invalid_argument");
    }
    for _ in 0..3 {
        start(&mut client, &spec).await;
    }
    let fourth = client.post("/api/v1/traces", &spec).await;
    assert_eq!((fourth.status, fourth.code().as_str()), (429, "limit_reached"));
    // Time ends them, and routes and queues forget them.
    let much_later =
        polymq_model::Now { unix_ms: crate::clock::now().unix_ms + 700_000, ..crate::clock::now() };
    world.broker.tick(much_later);
    let list = client.fetch("/api/v1/traces").await;
    assert_eq!(list["items"][0]["ended"], "duration");
    start(&mut client, &spec).await;
    world.tagged("other", &["monitoring"]);
    let mut other = world.client("other").await;
    let list = client.fetch("/api/v1/traces").await;
    let id = list["items"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(other.get(&format!("/api/v1/traces/{id}/events")).await.status, 403);
    assert_eq!(other.delete(&format!("/api/v1/traces/{id}")).await.status, 403);
}

#[tokio::test]
async fn refused_publishes_are_followed_as_well() {
    let (world, mut client) = world().await;
    let trace = start(&mut client, &json!({ "vhost": "/", "user": "reader" })).await;
    let mut reader = world.client("reader").await;
    let refused = reader.ask(&format!("POST {QUEUE}/messages"), &[], b"m").await;
    assert_eq!(refused.status, 403);
    let steps = world.follow(&trace).await.steps(2).await;
    assert_eq!(names(&steps), ["received", "refused"]);
    assert!(steps[1]["detail"].as_str().unwrap().contains("refused"), "{steps:?}");
}

#[tokio::test]
async fn explaining_a_route_tells_what_readers_of_a_queue_will_get() {
    let (world, mut client) = world().await;
    let mut reader = world.client("u").await;
    reader.send("GET /api/v1/vhosts/~/subscribe?queue=q&ack=auto", &[], b"").await;
    assert_eq!(reader.head().await, 200);
    let asked = json!({ "message": { "exchange": "", "routing_key": "q", "payload": "x" } });
    let told = client.post("/api/v1/vhosts/~/routing:explain", &asked).await.json();
    let queue = told["steps"].as_array().unwrap().iter().find(|step| step["kind"] == "queue");
    let conversion = &queue.unwrap()["children"][0];
    assert_eq!(
        (&conversion["kind"], &conversion["object"], &conversion["outcome"]),
        (&json!("conversion"), &json!("http"), &json!("kept")),
        "{told:#}"
    );
}
