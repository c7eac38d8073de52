//! Receiving: from a queue, or what is published while it is published.

use std::{
    io::Write,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{
    api::{Call, segment},
    arguments::Subscribe,
    decode::decoded,
    destination::Destination,
    failure::Failure,
    output::{Format, Rows},
    resource::{Session, say},
    sse::Events,
};

/// How long one call waits for messages.
const WAIT_SECS: u64 = 20;
/// Messages taken with one call: what is shown late would only grow old here.
const MESSAGES_PER_CALL: u64 = 100;
/// How often a queue is looked at of which nothing is taken.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What is done with a message, and whether it worked.
pub(crate) type Take<'t> = &'t mut dyn FnMut(&Value) -> Result<(), Failure>;

/// How messages of a queue are taken.
pub(crate) struct Taking {
    /// As many at most.
    pub(crate) count: Option<u64>,
    /// Seconds of silence after which nothing more is waited for.
    pub(crate) wait: Option<u64>,
    /// Messages of one call.
    pub(crate) at_once: u64,
    /// How long they are leased.
    pub(crate) lease: &'static str,
    /// They go back to the queue afterwards.
    pub(crate) gives_back: bool,
}

pub(crate) fn subscribe(session: &Session, wanted: &Subscribe) -> Result<(), Failure> {
    session.output.check_end(wanted.count.is_some() || wanted.wait.is_some())?;
    let mut rows = session.output.stream(&["routing_key", "payload"]);
    let take: Take<'_> = &mut |message| show(session, wanted, &mut rows, message);
    let taken = match (&wanted.destination, &wanted.since) {
        (Destination::Queue(name), Some(since)) => replay(session, (name, since), wanted, take),
        (Destination::Exchange(..), Some(_)) => {
            let text = "an exchange keeps nothing: --since reads a queue";
            Err(Failure::Usage(text.to_owned()))
        }
        (Destination::Queue(name), None) => {
            let how = Taking {
                count: wanted.count,
                wait: wanted.wait,
                at_once: MESSAGES_PER_CALL,
                lease: "30s",
                gives_back: wanted.no_ack,
            };
            take_from(session, name, &how, take)
        }
        (Destination::Exchange(exchange, pattern), None) => {
            follow(session, (exchange, pattern), wanted.count, take)
        }
    };
    taken?;
    Ok(rows.end()?)
}

/// Takes messages of a queue, and acknowledges each once `take` has done with it. The first that
/// `take` fails with goes back to the queue, with those behind it.
pub(crate) fn take_from(
    session: &Session,
    queue: &str,
    how: &Taking,
    take: Take<'_>,
) -> Result<(), Failure> {
    let queue = session.api.in_vhost(&format!("queues/{}", segment(queue)));
    let mut left = how.count.unwrap_or(u64::MAX);
    let mut silent_secs = 0;
    while left > 0 {
        let wait = how.wait.map_or(WAIT_SECS, |wait| WAIT_SECS.min(wait - silent_secs));
        let max = left.min(how.at_once);
        let body = json!({ "max": max, "wait": format!("{wait}s"), "lease": how.lease });
        let path = format!("{queue}/messages:receive");
        let answer = session.api.call(&Call::new("POST", &path).json(&body))?;
        let messages =
            answer.get("messages").and_then(Value::as_array).cloned().unwrap_or_default();
        silent_secs = if messages.is_empty() { silent_secs + wait } else { 0 };
        if messages.is_empty() && how.wait.is_some_and(|wait| silent_secs >= wait) {
            return Ok(());
        }
        let mut taken = Ok(());
        let (mut done, mut rest) = (Vec::new(), Vec::new());
        for message in &messages {
            if taken.is_ok() {
                taken = take(message);
            }
            let receipts = if taken.is_ok() { &mut done } else { &mut rest };
            receipts.extend(message.get("receipt").cloned());
        }
        left -= u64::try_from(done.len()).unwrap_or(left).min(left);
        settle(session, &queue, &done, how.gives_back)?;
        let given_back = settle(session, &queue, &rest, true);
        taken?;
        given_back?;
    }
    Ok(())
}

fn settle(
    session: &Session,
    queue: &str,
    receipts: &[Value],
    gives_back: bool,
) -> Result<(), Failure> {
    if receipts.is_empty() {
        return Ok(());
    }
    let (path, body) = if gives_back {
        (format!("{queue}/leases:nack"), json!({ "receipts": receipts, "requeue": true }))
    } else {
        (format!("{queue}/leases:ack"), json!({ "receipts": receipts }))
    };
    session.api.call(&Call::new("POST", &path).json(&body)).map(drop)
}

/// Shows what lies in a queue since a time, and what comes, until nothing comes any more. What
/// somebody takes between two looks is not seen.
fn replay(
    session: &Session,
    (queue, since): (&str, &str),
    wanted: &Subscribe,
    take: Take<'_>,
) -> Result<(), Failure> {
    let path = session.api.in_vhost(&format!("queues/{}/messages", segment(queue)));
    let mut from = format!("time:{since}");
    let mut left = wanted.count.unwrap_or(u64::MAX);
    let mut moved = Instant::now();
    while left > 0 {
        let limit = left.min(MESSAGES_PER_CALL).to_string();
        let query = [("from", from.clone()), ("limit", limit), ("payload", "full".to_owned())];
        let page = session.api.call(&Call::new("GET", &path).query(&query))?;
        let messages = page.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        for message in &messages {
            take(message)?;
            left -= 1;
        }
        let last = messages.last().and_then(|last| last.get("seq")?.as_str()?.parse::<u64>().ok());
        if let Some(last) = last {
            (from, moved) = (format!("seq:{}", last.saturating_add(1)), Instant::now());
        } else if wanted.wait.is_some_and(|secs| moved.elapsed() >= Duration::from_secs(secs)) {
            return Ok(());
        } else {
            thread::sleep(LOOK_EVERY);
        }
    }
    Ok(())
}

/// Takes what is published while it is published.
pub(crate) fn follow(
    session: &Session,
    (exchange, pattern): (&str, &str),
    count: Option<u64>,
    take: Take<'_>,
) -> Result<(), Failure> {
    let path = session.api.in_vhost("subscribe");
    let query = [("exchange", exchange.to_owned()), ("pattern", pattern.to_owned())];
    let stream = session.api.stream(&Call::new("GET", &path).query(&query))?;
    let mut left = count.unwrap_or(u64::MAX);
    for event in Events::new(stream) {
        let event = event.context("the stream broke off")?;
        match event.name.as_str() {
            "message" => {
                let message = serde_json::from_str(&event.data).context("a message is no JSON")?;
                take(&message)?;
                left -= 1;
                if left == 0 {
                    return Ok(());
                }
            }
            "closing" => return Err(Failure::Partly("the broker stops".to_owned())),
            "cancelled" => {
                let text = format!("the subscription was cancelled: {}", event.data);
                return Err(Failure::Partly(text));
            }
            "gap" => say(&format!("some messages are missing: {}", event.data))?,
            _ => {}
        }
    }
    Err(Failure::Partly("the stream has ended".to_owned()))
}

fn show(
    session: &Session,
    wanted: &Subscribe,
    rows: &mut Rows<'_>,
    message: &Value,
) -> Result<(), Failure> {
    if session.output.format != Format::Table {
        return Ok(rows.push(message)?);
    }
    let body = payload(message);
    let mut out = std::io::stdout().lock();
    if wanted.raw {
        out.write_all(&body)?;
    } else {
        let key = message.get("routing_key").and_then(Value::as_str).unwrap_or_default();
        let key = key.escape_debug();
        writeln!(out, "{key}  {}", decoded(wanted.decode, &body))?;
    }
    Ok(out.flush()?)
}

/// The bytes of a message's body.
pub(crate) fn payload(message: &Value) -> Vec<u8> {
    let payload = message.get("payload").unwrap_or(&Value::Null);
    let encoding = message.get("payload_encoding").and_then(Value::as_str);
    match (encoding, payload) {
        (Some("base64"), Value::String(text)) => BASE64_STANDARD.decode(text).unwrap_or_default(),
        (Some("json"), value) => value.to_string().into_bytes(),
        (_, Value::String(text)) => text.clone().into_bytes(),
        (_, Value::Null) => Vec::new(),
        (_, other) => other.to_string().into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_decoded_from_every_encoding() {
        let text = json!({ "payload": "a", "payload_encoding": "string" });
        let bytes = json!({ "payload": "AP8=", "payload_encoding": "base64" });
        let value = json!({ "payload": { "a": 1 }, "payload_encoding": "json" });
        assert_eq!(payload(&text), b"a");
        assert_eq!(payload(&bytes), [0, 255]);
        assert_eq!(payload(&value), b"{\"a\":1}");
    }
}
