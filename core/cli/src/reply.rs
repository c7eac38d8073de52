//! Answering requests.

use std::{
    io::Write,
    process::{Command, Stdio},
    thread,
};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::{
    api::Call,
    arguments::Reply,
    destination::Destination,
    failure::Failure,
    messages::payload_of,
    receiving::{Taking, follow, payload, take_from},
    resource::{Session, say},
};

/// A routing key of the default exchange that begins so leads to the address behind it.
const ADDRESS_KEY_PREFIX: &str = "amq.address:";
/// How long one answer may take before somebody else is given the request.
const LEASE: &str = "10m";

/// Answers requests one by one. A request that cannot be answered goes back to its queue, and ends
/// this.
pub(crate) fn reply(session: &Session, wanted: &Reply) -> Result<(), Failure> {
    let take: &mut dyn FnMut(&Value) -> _ = &mut |request| answer(session, wanted, request);
    match &wanted.destination {
        Destination::Queue(name) => {
            let (count, wait) = (wanted.count, wanted.wait);
            let how = Taking { count, wait, at_once: 1, lease: LEASE, gives_back: false };
            take_from(session, name, &how, take)
        }
        Destination::Exchange(exchange, pattern) => {
            follow(session, (exchange, pattern), wanted.count, take)
        }
    }
}

fn answer(session: &Session, wanted: &Reply, request: &Value) -> Result<(), Failure> {
    let property = |name: &str| request.pointer(&format!("/properties/{name}"));
    let Some(key) = property("reply_to").and_then(Value::as_str).and_then(key_of) else {
        return say("a message says nowhere where an answer could go, and gets none");
    };
    let body = match (&wanted.exec, &wanted.body) {
        (Some(command), _) => output_of(command, request)?,
        (None, text) => text.clone().unwrap_or_default().into_bytes(),
    };
    let mut message = payload_of(&body);
    message["exchange"] = json!("");
    message["routing_key"] = json!(key);
    // Nobody waits for an answer any more after a restart.
    message["properties"] = json!({ "delivery_mode": 1 });
    if let Some(kind) = &wanted.content_type {
        message["properties"]["content_type"] = json!(kind);
    }
    for name in ["correlation_id", "correlation_kind"] {
        if let Some(value) = property(name) {
            message["properties"][name] = value.clone();
        }
    }
    let path = session.api.in_vhost("messages:publish");
    let told = session.api.call(&Call::new("POST", &path).json(&json!([message])))?;
    match told.pointer("/results/0/outcome").and_then(Value::as_str) {
        Some("unrouted") => say("nobody waits for the answer any more"),
        Some("refused") => {
            let why = told.pointer("/results/0/error").cloned().unwrap_or_default();
            Err(Failure::Partly(format!("the answer is refused: {why}")))
        }
        _ => Ok(()),
    }
}

/// The routing key of the default exchange that leads to an address; `None` for what only the
/// application understands.
fn key_of(address: &str) -> Option<String> {
    match address.strip_prefix("/queues/") {
        Some(name) => decoded(name),
        None if address.starts_with('/') => Some(format!("{ADDRESS_KEY_PREFIX}{address}")),
        None => None,
    }
}

/// A text without its percent-encoding.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = behind;
            continue;
        }
        let digits = std::str::from_utf8(behind.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &behind[2..];
    }
    String::from_utf8(bytes).ok()
}

/// What a command of the shell prints when it is given the body of a request.
///
/// Errors: it cannot be run, or says that it has failed.
fn output_of(command: &str, request: &Value) -> Result<Vec<u8>, Failure> {
    let text = |name: &str| request.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut child = Command::new("sh")
        .args(["-c", command])
        .env("POLYMQ_EXCHANGE", text("exchange"))
        .env("POLYMQ_ROUTING_KEY", text("routing_key"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("sh")?;
    let body = payload(request);
    let input = child.stdin.take();
    // Beside reading, so that a command that prints before it has read all of it cannot hang.
    let writer = thread::spawn(move || input.map(|mut input| input.write_all(&body)));
    let output = child.wait_with_output().context("sh")?;
    // A command need not read its input.
    let _ = writer.join();
    if !output.status.success() {
        let text = format!("`{command}` has failed ({}): the request goes back", output.status);
        return Err(Failure::Partly(text));
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_becomes_a_key_of_the_default_exchange() {
        assert_eq!(key_of("/queues/a%2Fb"), Some("a/b".to_owned()));
        let exchange = "/exchanges/amq.topic/a.b";
        assert_eq!(key_of(exchange), Some(format!("amq.address:{exchange}")));
        assert_eq!(key_of("only the application knows"), None);
        assert_eq!(key_of("/queues/a%2"), None);
    }

    #[test]
    fn a_command_reads_the_request_and_prints_the_answer() {
        let request = json!({ "payload": "abc", "routing_key": "k" });
        assert_eq!(output_of("tr a-z A-Z; printf $POLYMQ_ROUTING_KEY", &request).unwrap(), b"ABCk");
        assert!(matches!(output_of("exit 3", &request), Err(Failure::Partly(_))));
        let large = json!({ "payload": "x".repeat(1 << 20) });
        assert_eq!(output_of("cat", &large).unwrap().len(), 1 << 20);
        assert_eq!(output_of("printf y", &large).unwrap(), b"y");
    }
}
