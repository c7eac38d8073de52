//! Publishing and asking.

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
    arguments::{Content, Publish, Request},
    destination::Destination,
    failure::Failure,
    output::Format,
    resource::{Session, headers, say},
    template::Template,
};

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

/// The properties of a message as headers of HTTP.
fn properties(content: &Content, own: &[String], body: &[u8]) -> Result<Named, Failure> {
    let mut named = Vec::new();
    let mut put = |name, value: Option<String>| named.extend(value.map(|value| (name, value)));
    let kind = content.content_type.clone();
    let text = || std::str::from_utf8(body).is_ok().then(|| "text/plain".to_owned());
    put("content-type", kind.or_else(text).or_else(|| Some("application/octet-stream".to_owned())));
    put("mq-priority", content.priority.map(|priority| priority.to_string()));
    put("mq-expiration", content.expiration.map(|ms| ms.to_string()));
    put("mq-delay", content.delay.map(|ms| ms.to_string()));
    put("mq-persistent", content.transient.then(|| "false".to_owned()));
    put("mq-retain", content.retain.then(|| "true".to_owned()));
    let own = headers(own)?;
    put("mq-headers", (!own.is_empty()).then(|| ascii(&Value::Object(own))));
    Ok(named)
}

/// The bytes that an argument means: text, a file, standard input.
pub(crate) fn body_of(text: &str) -> Result<Vec<u8>, Failure> {
    match text.strip_prefix('@') {
        Some(file) => Ok(std::fs::read(file).with_context(|| file.to_owned())?),
        None if text == "-" => {
            let mut body = Vec::new();
            std::io::stdin().read_to_end(&mut body)?;
            Ok(body)
        }
        None => Ok(text.as_bytes().to_vec()),
    }
}

/// A body as the API's message objects have it.
pub(crate) fn payload_of(body: &[u8]) -> Value {
    match std::str::from_utf8(body) {
        Ok(text) => json!({ "payload": text, "payload_encoding": "string" }),
        Err(_) => {
            json!({ "payload": BASE64_STANDARD.encode(body), "payload_encoding": "base64" })
        }
    }
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

/// A message on its way, and what is asked for with it.
struct Outgoing {
    path: String,
    query: Named,
    headers: Named,
    body: Vec<u8>,
}

impl Outgoing {
    fn new(
        session: &Session,
        to: &Destination,
        (content, own): (&Content, &[String]),
        body: Vec<u8>,
    ) -> Result<Self, Failure> {
        let (path, query) = place(session, to);
        let headers = properties(content, own, &body)?;
        Ok(Self { path, query, headers, body })
    }

    fn call(&self) -> Call<'_> {
        Call {
            headers: &self.headers,
            body: api::Content::Bytes(&self.body),
            ..Call::new("POST", &self.path).query(&self.query)
        }
    }
}

/// What makes messages that differ.
struct Templates {
    exchange: Option<String>,
    /// The routing key, or the queue.
    key: Template,
    headers: Vec<Template>,
    body: Template,
}

impl Templates {
    /// Errors: a place that is none, or a body that is no text.
    fn read(wanted: &Publish, body: &[u8]) -> Result<Self, Failure> {
        let is_bytes = |_| Failure::Usage("--template needs a body of text".to_owned());
        let (exchange, key) = match &wanted.destination {
            Destination::Queue(name) => (None, name),
            Destination::Exchange(exchange, key) => (Some(exchange.clone()), key),
        };
        let headers = wanted.content.headers.iter().map(|header| Template::read(header));
        Ok(Self {
            exchange,
            key: Template::read(key)?,
            headers: headers.collect::<Result<_, _>>()?,
            body: Template::read(std::str::from_utf8(body).map_err(is_bytes)?)?,
        })
    }

    fn filled(&self, session: &Session, wanted: &Publish, n: u64) -> Result<Outgoing, Failure> {
        let key = self.key.filled(n);
        let to = match &self.exchange {
            Some(exchange) => Destination::Exchange(exchange.clone(), key),
            None => Destination::Queue(key),
        };
        let own: Vec<String> = self.headers.iter().map(|header| header.filled(n)).collect();
        Outgoing::new(session, &to, (&wanted.content, &own), self.body.filled(n).into_bytes())
    }
}

pub(crate) fn publish(session: &Session, wanted: &Publish) -> Result<(), Failure> {
    let body = body_of(&wanted.content.body)?;
    let templates = wanted.template.then(|| Templates::read(wanted, &body)).transpose()?;
    let own = wanted.content.headers.as_slice();
    let mut next = Outgoing::new(session, &wanted.destination, (&wanted.content, own), body)?;
    let mut asked: Named =
        wanted.confirm.clone().map(|level| ("confirm", level)).into_iter().collect();
    if wanted.mandatory {
        asked.push(("mandatory", "true".to_owned()));
    }
    next.query.extend(asked.clone());
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
        if let Some(templates) = &templates {
            next = templates.filled(session, wanted, sent + 1)?;
            next.query.extend(asked.clone());
        }
        last = session.api.call(&next.call()).map_err(|failure| match failure {
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
    let (content, body) = (&wanted.content, body_of(&wanted.content.body)?);
    let own = content.headers.as_slice();
    let mut asked = Outgoing::new(session, &wanted.destination, (content, own), body)?;
    asked.query.push(("reply", format!("{}s", wanted.timeout)));
    let mut reply = Vec::new();
    let read = session.api.stream(&asked.call())?.read_to_end(&mut reply);
    read.context("the reply broke off")?;
    let mut out = std::io::stdout().lock();
    out.write_all(&reply)?;
    out.write_all(if reply.ends_with(b"\n") { b"" } else { b"\n" })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_http_are_ascii() {
        assert_eq!(ascii(&json!({ "a": "é😀" })), "{\"a\":\"\\u00e9\\ud83d\\ude00\"}");
    }
}
