//! Messages in JSON: the code of the error, which names the request; the connection goes on. What
//! HTTP answers beside that, and management, is tested where HTTP is.

use polymq_model::delay::DelayHeaders;
use serde_json::{Value, json};

use super::{
    There, exclusive_consumer, exclusive_queue, full_queue, hash_exchange, internal_exchange,
    names, nothing, queue_of_small_messages,
};
use crate::{amqp::Amqp, http::Http, limits::limit_vhost, world::World};

fn with(there: There) -> World {
    let world = World::new();
    there(&mut Amqp::connect(&world));
    world
}

/// The only answer to an operation.
fn answer(world: &World, op: &Value) -> Value {
    let client = Http::connect_as(world, "guest");
    let mut told = client.ask(op);
    assert_eq!(told.len(), 1, "{told:?}");
    let pong = client.ask(&json!({ "op": "ping", "id": 2 }));
    assert_eq!(pong, [json!({ "op": "pong", "re": 2 })], "the connection goes on");
    told.remove(0)
}

/// Code and text of the error that an operation with the id 1 ends in, and the field that is
/// wrong.
fn refused(world: &World, op: &Value) -> (String, String, String) {
    let told = answer(world, op);
    assert_eq!((&told["op"], &told["re"]), (&json!("error"), &json!(1)), "{told}");
    let text = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
    (text("code"), text("text"), text("at"))
}

fn consume(queue: &str) -> Value {
    json!({ "op": "subscribe", "id": 1, "sub": "s", "queue": queue })
}

fn follow(exchange: &str, pattern: &str) -> Value {
    json!({ "op": "subscribe", "id": 1, "sub": "s", "exchange": exchange, "pattern": pattern })
}

/// The body has 4 bytes.
fn publish(exchange: &str, key: &str, properties: &Value) -> Value {
    let message = json!({
        "exchange": exchange, "routing_key": key, "properties": properties, "payload": "four"
    });
    json!({ "op": "publish", "id": 1, "message": message })
}

#[test]
fn what_cannot_be_is_refused() {
    let send = |exchange: &str, key: &str| publish(exchange, key, &json!({}));
    let rows: [(There, Value, &str, &[&str]); 12] = [
        (exclusive_queue, consume("q"), "locked", &["'q'"]),
        (exclusive_consumer, consume("q"), "denied", &["'q'"]),
        (nothing, consume("missing"), "not_found", &["'missing'", "'/'"]),
        (nothing, follow("missing", "k"), "not_found", &["'missing'", "'/'"]),
        (nothing, follow("", "k"), "reserved", &["default exchange"]),
        (hash_exchange, follow("hash", "heavy"), "invalid", &["'heavy'", "1 to 10000"]),
        (nothing, follow("amq.topic", "#.a.#.b.#"), "invalid", &[]),
        (nothing, follow("amq.control", "k"), "not_available", &["'amq.control'"]),
        (internal_exchange, send("inside", "k"), "reserved", &["'inside'", "'/'"]),
        (nothing, send("missing", "k"), "not_found", &["'missing'", "'/'"]),
        (nothing, send("amq.control", "k"), "not_available", &["'amq.control'"]),
        (queue_of_small_messages, send("", "q"), "too_large", &["x-max-message-size 3", "4"]),
    ];
    for (there, op, wanted, parts) in rows {
        let (code, text, _) = refused(&with(there), &op);
        assert_eq!(code, wanted, "{op}: {text}");
        names(&text, parts);
    }
}

#[test]
fn wrong_fields_of_a_message_are_named() {
    for (properties, at) in [
        (json!({ "headers": { "x-delay": "soon" } }), "/properties/headers"),
        (json!({ "headers": { "CC": "q" } }), "/properties/headers"),
        (json!({ "headers": { "BCC": [1] } }), "/properties/headers"),
        (json!({ "user_id": "u1" }), "/properties/user_id"),
        (json!({ "delivery_mode": 3 }), "/properties/delivery_mode"),
        (json!({ "expires_at": "soon" }), "/properties/expires_at"),
        (json!({ "expiration": "soon" }), ""),
        (json!({ "expiration": -1 }), ""),
        (json!({ "priority": 256 }), ""),
        (json!({ "delay": "soon" }), ""),
    ] {
        let (code, text, found) = refused(&World::new(), &publish("amq.topic", "t", &properties));
        assert_eq!((code.as_str(), found.as_str()), ("bad_field", at), "{properties}: {text}");
    }
}

#[test]
fn headers_of_features_that_are_not_there_yet_are_told_as_that() {
    for later in DelayHeaders::LATER {
        let mut headers = json!({});
        headers[later] = json!("1");
        let properties = json!({ "headers": headers });
        let (code, text, at) = refused(&World::new(), &publish("amq.topic", "t", &properties));
        assert_eq!((code.as_str(), at.as_str()), ("not_available", "/properties/headers"));
        names(&text, &[later, "not available yet"]);
    }
}

#[test]
fn a_full_queue_is_told_in_the_confirm() {
    let told = answer(&with(full_queue), &publish("", "q", &json!({})));
    let wanted =
        json!({ "op": "confirm", "re": 1, "outcome": "refused", "routed": false, "code": "full" });
    assert_eq!(told, wanted);
}

#[test]
fn a_queue_too_many_is_over_the_limit() {
    let world = with(|client| client.declare("first"));
    limit_vhost(&world, None, Some(1));
    let (code, text, _) = refused(&world, &follow("amq.topic", "t"));
    assert_eq!(code, "limit", "{text}");
    names(&text, &["queue limit (1)", "'/'"]);
}

#[test]
fn what_is_not_there_to_be_settled_is_refused() {
    let settle = json!({ "op": "settle", "id": 1, "sub": "s", "tags": [7], "outcome": "ack" });
    assert_eq!(refused(&World::new(), &settle).0, "unknown_sub");
    let world = World::new();
    let client = Http::listen(&world, "t");
    let told = client.ask(&settle);
    assert_eq!((&told[0]["code"], &told[0]["tags"]), (&json!("unknown_tag"), &json!([7])));
}

#[test]
fn a_body_over_the_limit_is_too_large() {
    let payload = "x".repeat(17 * 1024 * 1024);
    let message = json!({ "exchange": "amq.topic", "routing_key": "t", "payload": payload });
    let op = json!({ "op": "publish", "id": 1, "message": message });
    let (code, text, at) = refused(&World::new(), &op);
    assert_eq!((code.as_str(), at.as_str()), ("message_too_large", "/payload"));
    names(&text, &["16777216", "17825792"]);
}
