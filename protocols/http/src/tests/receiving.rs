//! Receiving with leases over HTTP.

use polymq_model::Table;
use serde_json::json;

use super::*;

const Q: &str = "/api/v1/vhosts/~/queues/q";

async fn world(messages: usize) -> (World, Browser) {
    let world = World::start(Audience::Users).await;
    world.declare("q", Table::new()).await;
    let mut client = world.client("u").await;
    for number in 1..=messages {
        let headers = [("Mq-Message-Id", &*format!("m{number}")), ("Mq-Headers", r#"{"n":1}"#)];
        let answer = client.ask(&format!("POST {Q}/messages"), &headers, b"body").await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    (world, client)
}

fn receipts(answer: &Answer) -> Vec<String> {
    let messages = answer.json()["messages"].as_array().unwrap().clone();
    messages.iter().map(|one| one["receipt"].as_str().unwrap().to_owned()).collect()
}

/// Asks until the queue has so many ready messages.
async fn until_ready(world: &World, count: u64) {
    let all = async {
        while world.ready("q") != count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, all).await.unwrap();
}

#[tokio::test]
async fn leased_message_is_acknowledged_once() {
    let (world, mut client) = world(3).await;
    let got = client.post(&format!("{Q}/messages:receive"), &json!({ "max": 2 })).await;
    assert_eq!(got.status, 200);
    let first = &got.json()["messages"][0];
    assert_eq!(first["properties"]["message_id"], "m1", "{first}");
    assert_eq!(first["properties"]["headers"], json!({ "n": 1 }));
    assert_eq!((&first["payload"], &first["payload_encoding"]), (&json!("body"), &json!("string")));
    assert_eq!(world.ready("q"), 1);
    let receipts = json!({ "receipts": receipts(&got) });
    let told = client.post(&format!("{Q}/leases:ack?confirm=stored"), &receipts).await.json();
    assert_eq!(told, json!({ "results": [{ "outcome": "ok" }, { "outcome": "ok" }] }));
    let again = client.post(&format!("{Q}/leases:ack"), &receipts).await.json();
    assert_eq!(again["results"][0]["outcome"], "expired");
    let counts = world.broker.queues();
    assert_eq!(counts[0].counts.unsettled, 0);
}

#[tokio::test]
async fn receipt_is_of_no_use_to_others() {
    let (world, mut client) = world(1).await;
    let got = client.post(&format!("{Q}/messages:receive"), &json!({})).await;
    let receipts = json!({ "receipts": receipts(&got) });
    let mut other = world.client("reader").await;
    let told = other.post(&format!("{Q}/leases:ack"), &receipts).await.json();
    assert_eq!(told["results"][0]["outcome"], "unknown");
    let path = "/api/v1/vhosts/~/queues/other/leases:ack";
    let told = client.post(path, &receipts).await.json();
    assert_eq!(told["results"][0]["outcome"], "unknown");
}

#[tokio::test]
async fn lease_outlives_its_connection_and_its_end_gives_the_message_back() {
    let (world, mut client) = world(1).await;
    let asked = json!({ "lease": "1s" });
    let got = client.post(&format!("{Q}/messages:receive"), &asked).await;
    let receipts = json!({ "receipts": receipts(&got) });
    drop(client);
    let mut client = world.client("u").await;
    let longer = json!({ "receipts": receipts["receipts"], "lease": "2s" });
    let told = client.post(&format!("{Q}/leases:extend"), &longer).await.json();
    assert_eq!(told["results"][0]["outcome"], "ok");
    assert_eq!(world.ready("q"), 0);
    until_ready(&world, 1).await;
    let told = client.post(&format!("{Q}/leases:ack"), &receipts).await.json();
    assert_eq!(told["results"][0]["outcome"], "expired");
    let receipt = receipts["receipts"][0].as_str().unwrap();
    let gone = client.ask(&format!("DELETE {Q}/leases/{receipt}"), &[], b"").await;
    assert_eq!((gone.status, &*gone.code()), (410, "receipt_expired"));
    let unknown = client.ask(&format!("DELETE {Q}/leases/x"), &[], b"").await;
    assert_eq!((unknown.status, &*unknown.code()), (404, "receipt_not_found"));
    let again = client.post(&format!("{Q}/messages:receive"), &json!({})).await.json();
    let message = &again["messages"][0];
    assert_eq!((&message["redelivered"], &message["delivery_count"]), (&json!(true), &json!(1)));
}

#[tokio::test]
async fn message_that_was_not_done_goes_back_or_dies() {
    let (world, mut client) = world(2).await;
    let got = client.post(&format!("{Q}/messages:receive"), &json!({ "max": 2 })).await;
    let receipts = receipts(&got);
    let back = json!({ "receipts": [receipts[0]], "reason": "busy" });
    let told = client.post(&format!("{Q}/leases:nack"), &back).await.json();
    assert_eq!(told["results"][0]["outcome"], "ok");
    assert_eq!(world.ready("q"), 1);
    let dead = json!({ "receipts": [receipts[1]], "requeue": false });
    client.post(&format!("{Q}/leases:nack"), &dead).await;
    assert_eq!(world.ready("q"), 1);
    assert_eq!(world.broker.queues()[0].counts.unsettled, 0);
}

#[tokio::test]
async fn whoever_goes_away_while_waiting_takes_nothing() {
    let (world, mut client) = world(0).await;
    let wait = json!({ "wait": "60s" }).to_string();
    let json = [("Content-Type", "application/json")];
    client.send(&format!("POST {Q}/messages:receive"), &json, wait.as_bytes()).await;
    let consumers = |count: u32| {
        let world = &world;
        async move {
            while world.broker.queues()[0].counts.consumers != count {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(TIMEOUT, consumers(1)).await.unwrap();
    drop(client);
    tokio::time::timeout(TIMEOUT, consumers(0)).await.unwrap();
    let mut client = world.client("u").await;
    client.ask(&format!("POST {Q}/messages"), &[], b"late").await;
    assert_eq!(world.ready("q"), 1);
}

#[tokio::test]
async fn waiting_ends_with_the_first_message_or_with_nothing() {
    let (world, mut client) = world(0).await;
    let none = client.post(&format!("{Q}/messages:receive"), &json!({})).await;
    assert_eq!((none.status, none.body.len()), (204, 0));
    let wait = json!({ "wait": "20s", "max": 5 }).to_string();
    let json = [("Content-Type", "application/json"), ("Accept", "application/json")];
    client.send(&format!("POST {Q}/messages:receive"), &json, wait.as_bytes()).await;
    let mut other = world.client("u").await;
    other.ask(&format!("POST {Q}/messages"), &[], b"now").await;
    let got = tokio::time::timeout(TIMEOUT, client.read()).await.unwrap();
    assert_eq!(got.json()["messages"][0]["payload"], "now");
}

#[tokio::test]
async fn body_comes_raw_to_whoever_wants_it_so() {
    let (_world, mut client) = world(1).await;
    let json = [("Content-Type", "application/json"), ("Accept", "application/octet-stream")];
    let got = client.ask(&format!("POST {Q}/messages:receive"), &json, b"{}").await;
    assert_eq!((got.status, &*got.body), (200, &b"body"[..]));
    assert_eq!(got.header("mq-message-id"), Some("m1"));
    assert_eq!(got.header("mq-headers"), Some(r#"{"n":1}"#));
    let receipt = got.header("polymq-receipt").unwrap().to_owned();
    let told = client.ask(&format!("DELETE {Q}/leases/{receipt}"), &[], b"").await;
    assert_eq!(told.status, 204);
}

#[tokio::test]
async fn headers_hold_what_they_can_and_the_rest_is_counted() {
    let (world, mut client) = world(0).await;
    let properties = json!({
        "app_id": "a\u{1}b",
        "type": "t",
        "headers": { "h": "x\u{7f}\\y", "line": "1\n2", "tracestate": "k=\u{7f}" },
    });
    let message = json!({ "routing_key": "q", "properties": properties, "payload": "body" });
    let told = client.post("/api/v1/vhosts/~/messages:publish", &json!([message])).await;
    assert_eq!(told.status, 200, "{told:?}");
    let raw = [("Content-Type", "application/json"), ("Accept", "application/octet-stream")];
    let got = client.ask(&format!("POST {Q}/messages:receive"), &raw, b"{}").await;
    assert_eq!((got.status, &*got.body), (200, &b"body"[..]));
    assert_eq!((got.header("mq-type"), got.header("mq-app-id")), (Some("t"), None));
    let headers = got.header("mq-headers").unwrap_or_default();
    assert!(headers.contains("\\u007f") && !headers.contains('\u{7f}'), "{headers}");
    let headers: Value = serde_json::from_str(headers).unwrap();
    assert_eq!(headers, properties["headers"]);
    let page = world.watch("/metrics").await.1;
    let lost = r#"{from="http",to="http",field="app_id",outcome="no_place"} 1"#;
    assert!(page.contains(&format!("polymq_conversion_fields_total{lost}")), "{page}");
}

#[tokio::test]
async fn event_comes_in_binary_mode_and_leaves_as_it_is_wanted() {
    let (_world, mut client) = world(0).await;
    let event = [
        ("ce-specversion", "1.0"),
        ("ce-id", "e%201"),
        ("ce-source", "/s"),
        ("ce-type", "t.x"),
        ("Content-Type", "application/json"),
    ];
    let to_q = format!("POST {Q}/messages");
    assert_eq!(client.ask(&to_q, &event, br#"{"a":1}"#).await.status, 200);
    let wrapped =
        [("Content-Type", "application/json"), ("Accept", "application/cloudevents+json")];
    let path = format!("POST {Q}/messages:receive");
    let got = client.ask(&path, &wrapped, b"{}").await;
    assert_eq!(got.header("content-type"), Some("application/cloudevents+json"));
    let expected = json!({
        "specversion": "1.0", "id": "e 1", "source": "/s", "type": "t.x",
        "datacontenttype": "application/json", "data": { "a": 1 },
    });
    assert_eq!(got.json(), expected);

    let batch = [("Content-Type", "application/cloudevents-batch+json")];
    let events = json!([expected, expected]).to_string();
    let told = client.ask(&to_q, &batch, events.as_bytes()).await.json();
    assert_eq!(told["results"].as_array().unwrap().len(), 2, "{told}");
    let reply = format!("{to_q}?reply=1s");
    let told = client.ask(&reply, &batch, events.as_bytes()).await;
    assert_eq!((told.status, &*told.code()), (400, "wrong_parameters"));
    let nowhere = "POST /api/v1/vhosts/~/exchanges/amq.topic/messages?mandatory=true";
    let told = client.ask(nowhere, &batch, events.as_bytes()).await.json();
    assert_eq!(told["results"][1]["error"]["code"], "unroutable", "{told}");
    let packed = [batch[0], ("Content-Encoding", "gzip")];
    assert_eq!(client.ask(&to_q, &packed, events.as_bytes()).await.status, 415);
    let binary = [("Content-Type", "application/json"), ("Accept", "application/octet-stream")];
    client.ask(&to_q, &event, br#"{"a":1}"#).await;
    client.ask(&path, &binary, b"{}").await;
    client.ask(&path, &binary, b"{}").await;
    let got = client.ask(&path, &binary, b"{}").await;
    assert_eq!(got.header("ce-id"), Some("e%201"), "{got:?}");
    assert_eq!(got.header("ce-source"), Some("/s"));
    assert_eq!(got.json(), json!({ "a": 1 }));
}

#[tokio::test]
async fn what_is_asked_for_must_be_in_range() {
    let (_world, mut client) = world(0).await;
    for (body, code, at) in [
        (json!({ "max": 0 }), "out_of_range", "/max"),
        (json!({ "max": 1001 }), "out_of_range", "/max"),
        (json!({ "wait": "61s" }), "out_of_range", "/wait"),
        (json!({ "wait": "soon" }), "wrong_type", "/wait"),
        (json!({ "lease": "500ms" }), "out_of_range", "/lease"),
        (json!({ "lease": 5 }), "wrong_type", "/lease"),
        (json!({ "leese": "5s" }), "unknown_field", "/leese"),
    ] {
        let told = client.post(&format!("{Q}/messages:receive"), &body).await;
        assert_eq!((told.status, &*told.code()), (400, code), "{body}");
        assert_eq!(told.json()["at"], at, "{body}");
    }
    let missing = "/api/v1/vhosts/~/queues/none/messages:receive";
    assert_eq!(client.post(missing, &json!({})).await.code(), "queue_not_found");
    let text = client.ask(&format!("POST {Q}/messages:receive"), &[], b"{}").await;
    assert_eq!((text.status, &*text.code()), (415, "unsupported_media_type"));
}
