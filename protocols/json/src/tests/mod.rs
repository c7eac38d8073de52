//! Conversations; the broker is played by the test.

mod messages;
mod subscriptions;

use std::{sync::Arc, time::Instant};

use bytes::{BufMut, BytesMut};
use polymq_contract::{
    Answer, Command, Effects, Event, EventBatch, Login, MessageKind, ProtocolSession,
    PublishOutcome, Refusal, RefusalKind, WebMessages, web_message::put_head,
};
use polymq_model::{Limits, Now, RequestId, UserName};
use serde_json::{Value, json};

use crate::session::Session;

/// A session, and everything that it has asked for.
struct World {
    session: Session,
    effects: Effects,
    input: BytesMut,
    now: Now,
}

impl World {
    fn new() -> Self {
        let limits = Limits { message_bytes_max: 20_000, ..Limits::default() };
        let session = Session::new("test".into(), Arc::default(), Arc::new(limits));
        let now = Now { instant: Instant::now(), unix_ms: 1000 };
        Self { session, effects: Effects::default(), input: BytesMut::new(), now }
    }

    /// A session of the user `u`.
    fn open() -> Self {
        let mut world = Self::new();
        assert!(world.say(&json!({"op":"connect","id":1,"user":"u","password":"p"})).is_empty());
        let request = world.request();
        assert!(world.answer(request, authenticated()).is_empty());
        let request = world.request();
        let said = world.answer(request, Ok(Answer::VhostOpened));
        assert_eq!((&said[0]["op"], &said[0]["re"]), (&json!("connected"), &json!(1)));
        assert!(world.effects.logged_in);
        assert!(matches!(world.commands()[..], [Command::TellPlaces]));
        world
    }

    fn say(&mut self, op: &Value) -> Vec<Value> {
        self.say_text(&op.to_string())
    }

    fn say_text(&mut self, text: &str) -> Vec<Value> {
        put_head(MessageKind::Text, text.len(), &mut self.input);
        self.input.extend_from_slice(text.as_bytes());
        self.turn()
    }

    /// Sends JSON with a body behind it.
    fn say_binary(&mut self, op: &Value, body: &[u8]) -> Vec<Value> {
        let json = op.to_string();
        put_head(MessageKind::Binary, 4 + json.len() + body.len(), &mut self.input);
        self.input.put_u32(u32::try_from(json.len()).unwrap());
        self.input.extend_from_slice(json.as_bytes());
        self.input.extend_from_slice(body);
        self.turn()
    }

    fn turn(&mut self) -> Vec<Value> {
        self.effects.waiting = false;
        self.session.on_bytes(&mut self.input, self.now, &mut self.effects);
        let texts = self.messages();
        texts.iter().map(|text| serde_json::from_slice(text).expect("JSON")).collect()
    }

    /// What was said, message by message.
    fn messages(&mut self) -> Vec<Vec<u8>> {
        let mut said = BytesMut::from(&self.effects.out.take_all()[..]);
        let (mut messages, mut all) = (WebMessages::default(), Vec::new());
        while let Some(message) = messages.next(&mut said, 1 << 20).expect("small") {
            all.push(message.payload.to_vec());
        }
        assert!(said.is_empty());
        all
    }

    fn hand(&mut self, event: Event) {
        let mut batch = EventBatch::default();
        batch.push(event);
        self.session.on_events(&mut batch, self.now, &mut self.effects);
    }

    fn event(&mut self, event: Event) -> Vec<Value> {
        self.hand(event);
        self.turn()
    }

    fn answer(&mut self, request: RequestId, answer: Result<Answer, Refusal>) -> Vec<Value> {
        self.event(Event::Answered { request, answer: Box::new(answer) })
    }

    fn commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.effects.commands)
    }

    /// The request of the last command, which is the only one that has one.
    fn request(&mut self) -> RequestId {
        self.commands().pop().and_then(|command| command.request()).expect("a request")
    }

    fn is_closed_by(&self, cause: &str) -> bool {
        self.effects.close.as_ref().is_some_and(|close| close.cause == cause)
    }
}

fn authenticated() -> Result<Answer, Refusal> {
    let (impersonator, server_final) = (false, Vec::new());
    Ok(Answer::Authenticated { user: UserName::new("u").unwrap(), impersonator, server_final })
}

fn refused(kind: RefusalKind) -> Result<Answer, Refusal> {
    Err(Refusal::new(kind, "no"))
}

#[test]
fn a_login_takes_a_password_or_a_token() {
    for (connect, user, password) in [
        (json!({"op":"connect","user":"u","password":"p"}), "u", "p"),
        (json!({"op":"connect","token":"t"}), "", "t"),
    ] {
        let mut world = World::new();
        world.say(&connect);
        assert!(world.effects.waiting, "nothing is read while the login is checked");
        let Some(Command::Authenticate { login, .. }) = world.commands().pop() else {
            panic!("a login")
        };
        let Login::Password { user: found, password: secret } = *login else {
            panic!("a password")
        };
        assert_eq!((found.as_str(), secret.expose()), (user, password.as_bytes()));
    }
    let mut world = World::new();
    world.say(&json!({"op":"connect","vhost":"v"}));
    let Some(Command::Authenticate { login, request }) = world.commands().pop() else {
        panic!("a login")
    };
    assert_eq!(*login, Login::Anonymous);
    world.answer(request, authenticated());
    let Some(Command::OpenVhost { vhost, .. }) = world.commands().pop() else { panic!("a vhost") };
    assert_eq!(vhost.as_deref(), Some("v"));
}

#[test]
fn who_may_not_enter_is_told_and_cut() {
    let mut world = World::new();
    world.say(&json!({"op":"connect","id":"c","user":"u"}));
    let request = world.request();
    let said = world.answer(request, refused(RefusalKind::LoginFailed));
    assert_eq!(said, [json!({"op":"error","re":"c","code":"login_failed","text":"no"})]);
    assert!(world.is_closed_by("login_refused"));
    let mut world = World::new();
    let said = world.say(&json!({"op":"subscribe","id":1,"sub":"s","queue":"q"}));
    assert_eq!(said[0]["code"], "login_required");
    assert!(world.is_closed_by("login_refused"));
}

#[test]
fn what_is_wrong_is_told_and_ends_nothing() {
    let mut world = World::open();
    for (text, code) in [
        (r#"{"op":"dance","id":7}"#, "bad_op"),
        (r#"{"op":"ping","id":7,"more":1}"#, "bad_field"),
        (r#"{"op":"connect","id":7}"#, "connected"),
        (r#"{"op":"credit","id":7,"sub":"s","add":1}"#, "unknown_sub"),
        (r#"{"op":"settle","id":7,"sub":"s","tags":[1],"outcome":"ack"}"#, "unknown_sub"),
        (r#"{"op":"settle","id":7,"sub":"s","tags":[-1],"outcome":"ack"}"#, "bad_field"),
        (r#"{"op":"subscribe","id":7,"sub":"","queue":"q"}"#, "bad_field"),
        (r#"{"op":"subscribe","id":7,"sub":"s","queue":"q","pattern":"p"}"#, "bad_field"),
        (r#"{"op":"subscribe","id":7,"sub":"s","queue":"q","credit":0}"#, "bad_field"),
        (r#"{"op":"publish","id":7,"message":{"routing_key":"q"}}"#, "bad_field"),
        (r#"{"op":"publish","id":7,"message":{"exchange":"","payload":5}}"#, "bad_field"),
    ] {
        let said = world.say_text(text);
        assert_eq!((&said[0]["op"], &said[0]["code"]), (&json!("error"), &json!(code)), "{text}");
        assert_eq!(said[0]["re"], 7, "{text}");
        assert!(world.effects.close.is_none(), "{text}");
    }
    let long = json!({"op":"ping","id":"x".repeat(256)});
    assert_eq!(world.say(&long)[0]["code"], "bad_id");
    assert_eq!(world.say(&json!({"op":"ping","id":"p"})), [json!({"op":"pong","re":"p"})]);
}

#[test]
fn what_is_no_json_ends_the_connection() {
    for text in [
        r#"{"op":"#,
        "",
        "x",
        r#"{"op":"ping"} {"#,
        "[]",
        r#"{"id":7}"#,
        r#"{"op":"ping","id":{}}"#,
    ] {
        let mut world = World::open();
        assert_eq!(world.say_text(text)[0]["code"], "bad_json", "{text}");
        assert!(world.is_closed_by("protocol_error"), "{text}");
    }
    let mut world = World::open();
    let said = world.say_text(&" ".repeat(200_000));
    assert_eq!(said[0]["code"], "too_large");
    assert!(world.is_closed_by("message_too_long"));
    let mut world = World::new();
    world.say_text(&" ".repeat(9000));
    assert!(world.is_closed_by("message_too_long"), "a stranger may send less");
}

#[test]
fn what_the_broker_says_unasked_is_told() {
    let mut world = World::open();
    let said = world.event(Event::Blocked { reason: "the disk is full".into() });
    assert_eq!(said, [json!({"op":"blocked","reason":"the disk is full"})]);
    assert_eq!(world.event(Event::Unblocked), [json!({"op":"unblocked"})]);
    let said = world.event(Event::Closing { reason: "bye".into(), shutdown: true });
    assert_eq!(said, [json!({"op":"closing","reason":"bye"})]);
    assert!(world.is_closed_by("shutdown"));
}
