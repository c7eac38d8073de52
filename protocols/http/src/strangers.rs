//! What reads the bytes of strangers, by itself: for tests that try all kinds of them. Nothing here
//! is part of a request.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use polymq_contract::Login;
use polymq_model::{
    Body, Limits, Message,
    json_form::{NewJsonMessage, Sender},
};

use crate::{
    events, identity,
    leases::{Bearer, Signer},
    raw,
};

/// The login that the header `Authorization` shows; `None` for bytes that no header can hold.
///
/// Errors: the code of the problem.
pub fn authorization(value: &[u8]) -> Option<Result<Login, &'static str>> {
    let value = HeaderValue::from_bytes(value).ok()?;
    Some(identity::login(Some(&value)).map_err(|problem| problem.code()))
}

/// The message of a publish by `guest`, who may send in the name of others. Headers that HTTP
/// cannot hold are passed over.
///
/// Errors: the code of the problem, or of what the message breaks.
pub fn message<'a>(
    headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    body: &[u8],
    now_ms: u64,
) -> Result<Message, &'static str> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            map.append(name, value);
        }
    }
    let properties = raw::properties(&map).map_err(|problem| problem.code())?;
    let body = Body::Slice(body);
    let sender = Sender { user: "guest", impersonator: true };
    let new = NewJsonMessage { exchange: "amq.topic", key: "a.b", properties, body, sender };
    let built = new.build(now_ms, &Limits::default(), &mut Vec::new());
    built.map(|(message, _)| message).map_err(|_| "bad_message")
}

/// The headers that a message is shown with, and how many properties fit into none.
pub fn headers(message: &Message, now_ms: u64) -> (Vec<(String, Vec<u8>)>, usize) {
    let (mut map, mut dropped) = (HeaderMap::new(), 0);
    raw::headers(message, now_ms, &mut map, &mut |_| dropped += 1);
    let shown = map.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
    (shown.collect(), dropped)
}

/// The events of a batch, each as it stands there.
///
/// Errors: the code of the problem.
pub fn events(batch: &[u8]) -> Result<Vec<String>, &'static str> {
    let events = events::split(batch).map_err(|problem| problem.code())?;
    Ok(events.iter().map(|event| event.get().to_owned()).collect())
}

/// A message as an event in structured mode, if it is one.
pub fn event(message: &Message) -> Option<Vec<u8>> {
    events::wrapped(message)
}

/// Signs and reads receipts.
pub struct Receipts(Signer);

impl Receipts {
    /// With this key.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Signer::new(key))
    }

    /// The receipt of a lease for a user, a virtual host and a queue.
    pub fn sign(&self, lease: u64, bearer: [&str; 3]) -> String {
        self.0.sign(lease, of(bearer))
    }

    /// The lease of a receipt, if it is one of theirs.
    pub fn read(&self, receipt: &str, bearer: [&str; 3]) -> Option<u64> {
        self.0.read(receipt, of(bearer))
    }
}

fn of([user, vhost, queue]: [&str; 3]) -> Bearer<'_> {
    Bearer { user, vhost, queue }
}
