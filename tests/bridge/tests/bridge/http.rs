//! Clients of HTTP. What HTTP itself adds is no part of a message, so here each line is one message
//! object: those of the client are published, and those of the server were received.

use std::{collections::BTreeMap, ops::Deref, sync::Arc};

use bytes::BytesMut;
use polymq_contract::{
    BindQueue, Command, Consume, DeclareQueue, DisconnectCause, Effects, Event, EventBatch, Login,
    Peer, Protocol, ProtocolSession, Publish, Recognised, Secret, Timeout,
};
use polymq_model::{
    Body, ConsumerId, Format, Limits, Now, PublisherId, RequestId,
    json_form::{HTTP, IncomingMessage, NewJsonMessage, Sender, Shown, Style},
};
use serde_json::{Value, json, value::RawValue};

use crate::world::{Speaks, World};

const USER: &str = "guest";
const BIND: &str = "BIND ";

/// Message objects as lines.
pub(crate) struct JsonLines;

struct Session {
    limits: Arc<Limits>,
}

impl Protocol for JsonLines {
    fn name(&self) -> &'static str {
        "http"
    }

    fn recognise(&self, _: &[u8]) -> Recognised {
        Recognised::No
    }

    fn formats(&self) -> Vec<&'static Format> {
        vec![&HTTP]
    }

    fn session(&self, _: &Arc<Peer>, limits: &Arc<Limits>, _: Now) -> Box<dyn ProtocolSession> {
        Box::new(Session { limits: Arc::clone(limits) })
    }
}

impl Session {
    fn publish(&self, line: &str, now: Now) -> Command {
        let message: IncomingMessage = serde_json::from_str(line).unwrap();
        let body = message.body().unwrap();
        let new = NewJsonMessage {
            exchange: message.exchange.as_deref().unwrap_or_default(),
            key: message.routing_key.as_deref().unwrap_or_default(),
            properties: message.properties,
            body: Body::Slice(&body),
            sender: Sender { user: USER, impersonator: false },
        };
        let (message, delay) = new.build(now.unix_ms, &self.limits, &mut Vec::new()).unwrap();
        let publisher = PublisherId(0);
        Command::Publish(Publish {
            publisher,
            number: 0,
            mandatory: false,
            received: None,
            delay,
            message,
        })
    }
}

/// Logs in, and listens to the topics that a pattern matches.
fn listen(pattern: &str) -> [Command; 5] {
    let queue = "http-listener".to_owned();
    let login = Login::Password { user: USER.to_owned(), password: Secret::new("x") };
    [
        Command::Authenticate { request: RequestId(1), login: Box::new(login) },
        Command::OpenVhost { request: RequestId(2), vhost: None },
        Command::DeclareQueue(Box::new(DeclareQueue {
            request: RequestId(3),
            queue: queue.clone(),
            passive: false,
            durable: false,
            exclusive: true,
            auto_delete: false,
            arguments: Vec::new(),
        })),
        Command::BindQueue(Box::new(BindQueue {
            request: RequestId(4),
            queue: queue.clone(),
            exchange: "amq.topic".to_owned(),
            key: pattern.to_owned(),
            arguments: Vec::new(),
        })),
        Command::Consume(Box::new(Consume {
            request: RequestId(5),
            consumer: ConsumerId(1),
            queue,
            no_ack: true,
            exclusive: false,
            prefetch: 0,
            group: 0,
            tag: String::new(),
            arguments: Vec::new(),
        })),
    ]
}

impl ProtocolSession for Session {
    fn on_bytes(&mut self, input: &mut BytesMut, now: Now, effects: &mut Effects) {
        let text = String::from_utf8(input.split().to_vec()).unwrap();
        for line in text.lines() {
            match line.strip_prefix(BIND) {
                Some(pattern) => effects.commands.extend(listen(pattern)),
                None => effects.commands.push(self.publish(line, now)),
            }
        }
        effects.logged_in = true;
    }

    fn on_events(&mut self, events: &mut EventBatch, now: Now, effects: &mut Effects) {
        while let Some(event) = events.pop() {
            match event {
                Event::Delivered(delivery) => {
                    let shown = Shown::new(&delivery.message, now.unix_ms, Style::Bare);
                    effects.out.buffer().extend_from_slice(shown.to_json().as_bytes());
                    effects.out.buffer().extend_from_slice(b"\n");
                }
                Event::Answered { answer, .. } => assert!(answer.is_ok(), "{answer:?}"),
                other => panic!("{other:?}"),
            }
        }
    }

    fn on_timeout(&mut self, _: Now, _: &mut Effects) {}

    fn next_timeout(&self) -> Option<Timeout> {
        None
    }

    fn on_disconnect(&mut self, _: DisconnectCause, _: &mut Effects) {}
}

/// A client that has logged in and listens.
pub(crate) struct Http {
    world: World,
    link: usize,
}

impl Http {
    pub(crate) fn listen(world: &World, pattern: &str) -> Self {
        let link = world.open(Speaks::Http);
        world.send(link, format!("{BIND}{pattern}\n").as_bytes());
        Self { world: world.clone(), link }
    }

    /// The connection, for lines of a test's own.
    pub(crate) fn link(&self) -> usize {
        self.link
    }

    pub(crate) fn publish(&self, key: &str, properties: &Value, payload: &str) {
        let message = json!({ "properties": properties, "payload": payload });
        self.send(&message.to_string(), key);
    }

    /// Sends what was received to another topic.
    pub(crate) fn republish(&self, message: &Seen, key: &str) {
        self.send(&message.text, key);
    }

    fn send(&self, message: &str, key: &str) {
        // All else stays as it stands, with the order of its fields.
        let mut message: BTreeMap<String, Box<RawValue>> = serde_json::from_str(message).unwrap();
        for (name, text) in [("exchange", "amq.topic"), ("routing_key", key)] {
            let text = RawValue::from_string(json!(text).to_string()).unwrap();
            message.insert(name.to_owned(), text);
        }
        let line = serde_json::to_string(&message).unwrap() + "\n";
        self.world.send(self.link, line.as_bytes());
    }

    /// The only message that has come.
    pub(crate) fn message(&self) -> Seen {
        let bytes = self.world.receive(self.link);
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let mut lines = text.lines();
        let message = lines.next().expect("a message");
        assert_eq!(lines.next(), None, "one message");
        Seen { text: message.to_owned(), value: serde_json::from_str(message).unwrap() }
    }
}

/// A message that was received.
pub(crate) struct Seen {
    text: String,
    value: Value,
}

impl Deref for Seen {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.value
    }
}
