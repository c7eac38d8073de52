//! Targets for HTTP: what is read of a request beyond what HTTP itself says.

use polymq_contract::Login;
use polymq_http::strangers::{self, Receipts};
use polymq_model::Message;
use serde_json::{Map, Value};

use crate::{amqp::deliver_everywhere, sight};

/// The time of every case, in ms since 1970.
const NOW_MS: u64 = 1_700_000_000_000;

/// A name of HTTP and what stands behind its colon.
type Header<'a> = (&'a [u8], &'a [u8]);

/// Headers as lines, then an empty line and the body. What is a message can be delivered to
/// everybody; what it is shown with makes a message that is shown with the same.
pub fn headers(bytes: &[u8]) {
    let (lines, body) = head_and_body(bytes);
    let message = match strangers::message(lines, body, NOW_MS) {
        Ok(message) => message,
        Err(code) => return sight::note_value(code),
    };
    sight::note("properties", format!("{:?}", message.properties()).as_bytes());
    assert_eq!(message.body(), body);
    deliver_everywhere(std::slice::from_ref(&message));
    is_shown_the_same(&message);
    if let Some(event) = strangers::event(&message) {
        is_event(&event, &message);
    }
}

fn head_and_body(mut rest: &[u8]) -> (Vec<Header<'_>>, &[u8]) {
    let mut lines = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = (&rest[..end], &rest[end + 1..]);
        rest = after;
        if line.is_empty() {
            return (lines, rest);
        }
        if let Some(colon) = line.iter().position(|byte| *byte == b':') {
            lines.push((&line[..colon], line[colon + 1..].trim_ascii()));
        }
    }
    (lines, &[])
}

fn is_shown_the_same(message: &Message) {
    let (shown, dropped) = strangers::headers(message, NOW_MS);
    if dropped > 0 {
        return;
    }
    let again = shown.iter().map(|(name, value)| (name.as_bytes(), value.as_slice()));
    match strangers::message(again, message.body(), NOW_MS) {
        Ok(again) => assert_eq!(strangers::headers(&again, NOW_MS), (shown, 0)),
        // What was just within a limit may be beyond it as headers of HTTP.
        Err(code) => assert!(message.native_props().len() > 1024, "{code} of {shown:?}"),
    }
}

/// An event is one object, and says its version or is the body itself.
fn is_event(event: &[u8], message: &Message) {
    if event == message.body() {
        return;
    }
    let event: Map<String, Value> = serde_json::from_slice(event).expect("an event is an object");
    assert!(event.contains_key("specversion"), "{event:?}");
}

/// A batch of events: each is an object of it, and stays as it is in a message of its own.
pub fn events(bytes: &[u8]) {
    let events = match strangers::events(bytes) {
        Ok(events) => events,
        Err(code) => return sight::note_value(code),
    };
    sight::note_value(("events", events.len().checked_ilog2()));
    let whole: usize = events.iter().map(String::len).sum();
    assert!(whole <= bytes.len(), "events are part of what came");
    let structured: Header<'_> = (b"content-type", b"application/cloudevents+json");
    for event in events {
        let text = event.as_bytes();
        assert!(serde_json::from_str::<Map<String, Value>>(&event).is_ok() || is_odd(&event));
        sight::note("event", text);
        let message = strangers::message([structured], text, NOW_MS).expect("a plain message");
        assert_eq!(strangers::event(&message).as_deref(), Some(text));
    }
}

/// Text of JSON that is right but stands for no value, such as half a surrogate or 1e999.
fn is_odd(event: &str) -> bool {
    serde_json::from_str::<Map<String, Value>>(event).is_err_and(|error| !error.is_eof())
}

/// A user, a virtual host, a queue and a receipt, one a line: nothing but what was signed for them
/// is read.
pub fn receipt(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.splitn(4, '\n');
    let bearer = [(); 3].map(|()| lines.next().unwrap_or_default());
    let text = lines.next().unwrap_or_default();
    sight::note_value(("receipt", bearer.map(str::is_empty), text.len().min(60)));
    let receipts = Receipts::new(&[7; 32]);
    if let Some(lease) = receipts.read(text, bearer) {
        assert_eq!(receipts.sign(lease, bearer), text, "there is one receipt of a lease");
    }
    let mine = receipts.sign(1, bearer);
    assert_eq!(receipts.read(&mine, bearer), Some(1));
    let [user, vhost, queue] = bearer;
    let other = format!("{queue}x");
    assert_eq!(receipts.read(&mine, [user, vhost, &other]), None);
}

/// The value of `Authorization`: a login, or one of two codes.
pub fn authorization(bytes: &[u8]) {
    match strangers::authorization(bytes) {
        Some(Ok(Login::Password { user, password })) => {
            let classes = [user.len(), password.expose().len()].map(usize::checked_ilog2);
            sight::note_value(("login", classes));
            assert!(!user.contains(':'), "a name ends at the first colon");
            let read = user.len() + password.expose().len();
            assert!(read <= bytes.len(), "a login is part of what came");
        }
        Some(Ok(login)) => panic!("{login:?} is no login of a header"),
        Some(Err(code)) => {
            sight::note("refused", bytes);
            assert_eq!(code, "login_failed");
        }
        None => {}
    }
}
