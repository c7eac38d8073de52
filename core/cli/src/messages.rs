//! Publishing, receiving and asking.

use std::{
    io::{Read, Write},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{
    api::{self, Call, segment},
    arguments::{Content, Decode, Publish, Request, Subscribe},
    destination::Destination,
    failure::Failure,
    output::Format,
    resource::{Session, headers, say},
    sse::Events,
};

/// How long one call waits for messages.
const WAIT_SECS: u64 = 20;
/// Messages taken with one call: what is shown late would only grow old here.
const MESSAGES_PER_CALL: u64 = 100;

/// Names and values of a query, or of headers.
type Named = Vec<(&'static str, String)>;

/// The path that takes messages for a destination, and the query that names the key.
fn place(session: &Session, to: &Destination) -> (String, Named) {
    match to {
        Destination::Queue(name) => {
            (session.api.in_vhost(&format!("queues/{}/messages", segment(name))), Vec::new())
        }
        Destination::Exchange(name, key) => {
            let name = if name.is_empty() { "amq.default" } else { name };
            let path = session.api.in_vhost(&format!("exchanges/{}/messages", segment(name)));
            (path, vec![("routing_key", key.clone())])
        }
    }
}

/// The body of a message and its properties as headers of HTTP.
fn content(content: &Content) -> Result<(Vec<u8>, Named), Failure> {
    let body = match content.body.strip_prefix('@') {
        Some(file) => std::fs::read(file).with_context(|| file.to_owned())?,
        None if content.body == "-" => {
            let mut body = Vec::new();
            std::io::stdin().read_to_end(&mut body)?;
            body
        }
        None => content.body.clone().into_bytes(),
    };
    let mut named = Vec::new();
    let mut put = |name, value: Option<String>| named.extend(value.map(|value| (name, value)));
    let kind = content.content_type.clone();
    let text = || std::str::from_utf8(&body).is_ok().then(|| "text/plain".to_owned());
    put("content-type", kind.or_else(text).or_else(|| Some("application/octet-stream".to_owned())));
    put("mq-priority", content.priority.map(|priority| priority.to_string()));
    put("mq-expiration", content.expiration.map(|ms| ms.to_string()));
    put("mq-delay", content.delay.map(|ms| ms.to_string()));
    put("mq-persistent", content.transient.then(|| "false".to_owned()));
    put("mq-retain", content.retain.then(|| "true".to_owned()));
    let own = headers(&content.headers)?;
    put("mq-headers", (!own.is_empty()).then(|| ascii(&Value::Object(own))));
    Ok((body, named))
}

/// JSON in ASCII, as a header of HTTP may hold it.
fn ascii(value: &Value) -> String {
    let mut escaped = String::new();
    for character in value.to_string().chars() {
        if character.is_ascii() {
            escaped.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            escaped.push_str(&format!("\\u{unit:04x}"));
        }
    }
    escaped
}

pub(crate) fn publish(session: &Session, wanted: &Publish) -> Result<(), Failure> {
    let (path, mut query) = place(session, &wanted.destination);
    query.extend(wanted.confirm.clone().map(|level| ("confirm", level)));
    if wanted.mandatory {
        query.push(("mandatory", "true".to_owned()));
    }
    let (body, headers) = content(&wanted.content)?;
    let call = Call {
        headers: &headers,
        body: api::Content::Bytes(&body),
        ..Call::new("POST", &path).query(&query)
    };
    let every = match wanted.rate {
        Some(rate) if rate > 0.0 => Some(Duration::from_secs_f64(1.0 / rate)),
        Some(_) => return Err(Failure::Usage("--rate is more than 0".to_owned())),
        None => None,
    };
    let (mut due, mut last, mut unrouted) = (Instant::now(), Value::Null, 0);
    for sent in 0..wanted.count {
        if let Some(every) = every.filter(|_| sent > 0) {
            due += every;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        last = session.api.call(&call).map_err(|failure| match failure {
            failure if sent == 0 => failure,
            failure => Failure::Partly(format!("{sent} of {} sent: {failure}", wanted.count)),
        })?;
        unrouted += u64::from(last.get("routed") == Some(&json!(false)));
    }
    if unrouted > 0 {
        say(&format!("{unrouted} went nowhere: no queue is bound for that key"))?;
    }
    if wanted.count == 1 && session.output.format != Format::Table {
        session.output.document(&last)?;
    }
    Ok(())
}

pub(crate) fn request(session: &Session, wanted: &Request) -> Result<(), Failure> {
    let (path, mut query) = place(session, &wanted.destination);
    query.push(("reply", format!("{}s", wanted.timeout)));
    let (body, headers) = content(&wanted.content)?;
    let call = Call {
        headers: &headers,
        body: api::Content::Bytes(&body),
        ..Call::new("POST", &path).query(&query)
    };
    let mut reply = Vec::new();
    let read = session.api.stream(&call)?.read_to_end(&mut reply);
    read.context("the reply broke off")?;
    let mut out = std::io::stdout().lock();
    out.write_all(&reply)?;
    out.write_all(if reply.ends_with(b"\n") { b"" } else { b"\n" })?;
    Ok(())
}

pub(crate) fn subscribe(session: &Session, wanted: &Subscribe) -> Result<(), Failure> {
    match &wanted.destination {
        Destination::Queue(name) => receive(session, wanted, name),
        Destination::Exchange(exchange, pattern) => follow(session, wanted, exchange, pattern),
    }
}

/// Takes messages of a queue, and acknowledges each once it is shown.
fn receive(session: &Session, wanted: &Subscribe, queue: &str) -> Result<(), Failure> {
    let queue = session.api.in_vhost(&format!("queues/{}", segment(queue)));
    let mut left = wanted.count.unwrap_or(u64::MAX);
    while left > 0 {
        let wait = wanted.wait.unwrap_or(WAIT_SECS).min(WAIT_SECS);
        let body = json!({ "max": left.min(MESSAGES_PER_CALL), "wait": format!("{wait}s") });
        let path = format!("{queue}/messages:receive");
        let answer = session.api.call(&Call::new("POST", &path).json(&body))?;
        let messages =
            answer.get("messages").and_then(Value::as_array).cloned().unwrap_or_default();
        if messages.is_empty() && wanted.wait.is_some() {
            return Ok(());
        }
        let mut receipts = Vec::new();
        let mut shown = Ok(());
        for message in &messages {
            shown = show(session, wanted, message);
            if shown.is_err() {
                break;
            }
            receipts.extend(message.get("receipt").cloned());
        }
        left -= u64::try_from(receipts.len()).unwrap_or(left).min(left);
        settle(session, wanted, &queue, &receipts)?;
        shown?;
    }
    Ok(())
}

fn settle(
    session: &Session,
    wanted: &Subscribe,
    queue: &str,
    receipts: &[Value],
) -> Result<(), Failure> {
    if receipts.is_empty() {
        return Ok(());
    }
    let (path, body) = if wanted.no_ack {
        (format!("{queue}/leases:nack"), json!({ "receipts": receipts, "requeue": true }))
    } else {
        (format!("{queue}/leases:ack"), json!({ "receipts": receipts }))
    };
    session.api.call(&Call::new("POST", &path).json(&body)).map(drop)
}

/// Shows what is published while it is published.
fn follow(
    session: &Session,
    wanted: &Subscribe,
    exchange: &str,
    pattern: &str,
) -> Result<(), Failure> {
    let path = session.api.in_vhost("subscribe");
    let query = [("exchange", exchange.to_owned()), ("pattern", pattern.to_owned())];
    let stream = session.api.stream(&Call::new("GET", &path).query(&query))?;
    let mut left = wanted.count.unwrap_or(u64::MAX);
    for event in Events::new(stream) {
        let event = event.context("the stream broke off")?;
        match event.name.as_str() {
            "message" => {
                let message = serde_json::from_str(&event.data).context("a message is no JSON")?;
                show(session, wanted, &message)?;
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

fn show(session: &Session, wanted: &Subscribe, message: &Value) -> Result<(), Failure> {
    if session.output.format != Format::Table {
        return Ok(session.output.row(message, &["routing_key", "payload"])?);
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

fn decoded(how: Decode, body: &[u8]) -> String {
    let hex = || body.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    // A terminal would obey what strangers send.
    let safe = |text: &str| {
        let is_plain = |c: char| !c.is_control() || c == '\n' || c == '\t';
        if text.chars().all(is_plain) { text.to_owned() } else { text.escape_debug().to_string() }
    };
    match how {
        Decode::Hex => hex(),
        Decode::Text => safe(&String::from_utf8_lossy(body)),
        Decode::Json => match serde_json::from_slice::<Value>(body) {
            Ok(value) => format!("{value:#}"),
            Err(_) => safe(&String::from_utf8_lossy(body)),
        },
        Decode::Auto => std::str::from_utf8(body).map_or_else(|_| hex(), safe),
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

    #[test]
    fn bodies_are_shown_without_harm() {
        assert_eq!(decoded(Decode::Auto, "é\n".as_bytes()), "é\n");
        assert_eq!(decoded(Decode::Auto, &[0xff, 1]), "ff01");
        assert_eq!(decoded(Decode::Auto, b"\x1b[2J"), "\\u{1b}[2J");
        assert_eq!(decoded(Decode::Json, b"{\"a\":1}"), "{\n  \"a\": 1\n}");
    }

    #[test]
    fn headers_of_http_are_ascii() {
        assert_eq!(ascii(&json!({ "a": "é😀" })), "{\"a\":\"\\u00e9\\ud83d\\ude00\"}");
    }
}
