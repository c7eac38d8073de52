//! Clients of JSON. What HTTP itself adds is no part of a message, so the message objects of both
//! go over WebSocket here (`polymq.json.v1`).

use std::{collections::BTreeMap, ops::Deref};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::BytesMut;
use polymq_contract::{MessageKind, WebMessages, web_message::put_head};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json, value::RawValue};

use crate::world::{Speaks, World};

/// A client that has logged in and listens.
pub(crate) struct Http {
    world: World,
    link: usize,
}

/// What a server says, with messages as they stand there.
#[derive(Deserialize)]
struct Said {
    op: String,
    message: Option<Box<RawValue>>,
}

impl Http {
    pub(crate) fn listen(world: &World, pattern: &str) -> Self {
        let http = Self::connect_as(world, "guest");
        http.subscribe(pattern);
        assert_eq!(http.ops(), ["subscribed"]);
        http
    }

    /// A client that listens to nothing.
    pub(crate) fn connect_as(world: &World, user: &str) -> Self {
        let link = world.open(Speaks::Json);
        let http = Self { world: world.clone(), link };
        http.say(&json!({ "op": "connect", "user": user, "password": "x" }).to_string());
        assert_eq!(http.ops(), ["connected"]);
        http
    }

    /// Asks to hear of topics.
    pub(crate) fn subscribe(&self, pattern: &str) {
        let exchange = "amq.topic";
        let subscribe = json!({
            "op": "subscribe", "sub": "s", "exchange": exchange, "pattern": pattern, "ack": "auto"
        });
        self.say(&subscribe.to_string());
    }

    /// The words of what has been said since the last look.
    pub(crate) fn ops(&self) -> Vec<String> {
        self.said().into_iter().map(|said: Said| said.op).collect()
    }

    pub(crate) fn publish(&self, key: &str, properties: &Value, payload: &str) {
        let message = json!({ "properties": properties, "payload": payload });
        self.send(&message.to_string(), "amq.topic", key);
    }

    /// Sends a body of any bytes.
    pub(crate) fn publish_bytes(&self, key: &str, properties: &Value, payload: &[u8]) {
        let payload = BASE64_STANDARD.encode(payload);
        let message = json!({
            "properties": properties, "payload": payload, "payload_encoding": "base64"
        });
        self.send(&message.to_string(), "amq.topic", key);
    }

    /// Sends a message to a queue.
    pub(crate) fn publish_to_queue(&self, queue: &str, properties: &Value, payload: &str) {
        let message = json!({ "properties": properties, "payload": payload });
        self.send(&message.to_string(), "", queue);
    }

    /// Sends what was received to another topic.
    pub(crate) fn republish(&self, message: &Seen, key: &str) {
        self.send(&message.text, "amq.topic", key);
    }

    /// Sends what was received to a queue.
    pub(crate) fn republish_to_queue(&self, message: &Seen, queue: &str) {
        self.send(&message.text, "", queue);
    }

    fn send(&self, message: &str, exchange: &str, key: &str) {
        // All else stays as it stands, with the order of its fields.
        let mut message: BTreeMap<String, Box<RawValue>> = serde_json::from_str(message).unwrap();
        for (name, text) in [("exchange", exchange), ("routing_key", key)] {
            let text = RawValue::from_string(json!(text).to_string()).unwrap();
            message.insert(name.to_owned(), text);
        }
        let message = serde_json::to_string(&message).unwrap();
        self.say(&format!(r#"{{"op":"publish","message":{message}}}"#));
    }

    fn say(&self, op: &str) {
        let mut bytes = BytesMut::new();
        put_head(MessageKind::Text, op.len(), &mut bytes);
        bytes.extend_from_slice(op.as_bytes());
        self.world.send(self.link, &bytes);
    }

    /// Asks for something, and returns what is said to that.
    pub(crate) fn ask(&self, op: &Value) -> Vec<Value> {
        self.say(&op.to_string());
        self.heard()
    }

    /// All that has been said since the last look.
    pub(crate) fn heard(&self) -> Vec<Value> {
        self.said()
    }

    fn said<T: DeserializeOwned>(&self) -> Vec<T> {
        let mut bytes = self.world.receive(self.link);
        let (mut messages, mut said) = (WebMessages::default(), Vec::new());
        while let Some(message) = messages.next(&mut bytes, usize::MAX).unwrap() {
            said.push(serde_json::from_slice(&message.payload).unwrap());
        }
        said
    }

    /// The bodies of all messages that have come, and nothing else has.
    pub(crate) fn payloads(&self) -> Vec<Vec<u8>> {
        let deliveries = self.heard().into_iter().inspect(|said| assert_eq!(said["op"], "deliver"));
        let payload = |said: Value| {
            let text = said["message"]["payload"].as_str().unwrap().to_owned();
            match said["message"]["payload_encoding"].as_str() {
                Some("base64") => BASE64_STANDARD.decode(text).unwrap(),
                _ => text.into_bytes(),
            }
        };
        deliveries.map(payload).collect()
    }

    /// The only message that has come.
    pub(crate) fn message(&self) -> Seen {
        let mut said: Vec<Said> = self.said();
        let delivery = said.pop().expect("a message");
        assert!(said.is_empty(), "one message");
        let text = delivery.message.expect("a message").get().to_owned();
        Seen { value: serde_json::from_str(&text).unwrap(), text }
    }
}

/// A message that was received.
pub(crate) struct Seen {
    text: String,
    value: Value,
}

impl Seen {
    /// The body, however it is written.
    pub(crate) fn body(&self) -> Vec<u8> {
        let payload = self.value["payload"].as_str().expect("a text");
        match self.value["payload_encoding"].as_str() {
            Some("base64") => BASE64_STANDARD.decode(payload).unwrap(),
            _ => payload.as_bytes().to_vec(),
        }
    }
}

impl Deref for Seen {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.value
    }
}
