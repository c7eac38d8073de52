//! Checks for whoever watches the server. What is well is 200, what is not is 503 with a reason.

use axum::http::StatusCode;
use polymq_model::carry::rfc3339_from_ms;
use serde_json::{Value, json};

use super::{
    call::Call,
    nodes::check_name,
    wire::{self, Failure, Outcome},
};
use crate::{OpenPort, Phase, clock};

fn well() -> Outcome {
    wire::ok(&json!({ "status": "ok" }))
}

fn failed(mut why: Value) -> Outcome {
    why["status"] = json!("failed");
    wire::ok_with(StatusCode::SERVICE_UNAVAILABLE, &why)
}

/// What cannot be wrong on a server that is alone.
pub(super) fn always(_: &Call) -> Outcome {
    well()
}

/// What is a question of clusters.
pub(super) fn single(_: &Call) -> Outcome {
    wire::ok(&json!({ "status": "ok", "reason": "single node cluster" }))
}

/// `GET /aliveness-test/:vhost`
pub(super) fn alive(_: &Call) -> Outcome {
    well()
}

/// No alarm stands.
pub(super) fn alarms(call: &Call) -> Outcome {
    let Some(reason) = call.broker().alarm() else { return well() };
    let node = &call.site.watched.name;
    let reached = (call.site.watched.facts)().marks_reached;
    let reached = reached.into_iter().filter(|(_, is)| *is);
    let mut alarms: Vec<Value> =
        reached.map(|(resource, _)| json!({ "node": node, "resource": resource })).collect();
    if alarms.is_empty() {
        alarms.push(json!({ "node": node, "resource": "store" }));
    }
    failed(json!({ "reason": format!("an alarm is in effect: {reason}"), "alarms": alarms }))
}

/// `GET /healthchecks/node/:node`
pub(super) fn alarms_of_node(call: &Call) -> Outcome {
    check_name(call)?;
    alarms(call)
}

/// What was stored is back, and clients are served.
pub(super) fn initialized(call: &Call) -> Outcome {
    match call.site.watched.phase.now() {
        Phase::Serving => well(),
        Phase::Recovering => failed(json!({ "reason": "the store is being read" })),
        Phase::Draining => failed(json!({ "reason": "the server stops" })),
    }
}

/// Clients are served, and publishers need not wait.
pub(super) fn ready(call: &Call) -> Outcome {
    match call.site.watched.phase.now() {
        Phase::Serving => alarms(call),
        Phase::Recovering | Phase::Draining => initialized(call),
    }
}

/// There is room for more connections.
pub(super) fn connections(call: &Call) -> Outcome {
    let (open, max) = (call.broker().connection_refs().len(), call.site.limits().connections_max);
    let shown = json!({ "current": open, "limit": max });
    if open < max {
        return wire::ok(&json!({ "status": "ok", "current": open, "limit": max }));
    }
    let mut why = shown;
    why["reason"] = json!("node connection limit is reached");
    failed(why)
}

/// Some listener has this port.
pub(super) fn port(call: &Call) -> Outcome {
    let port: u16 = call.path("port").parse().map_err(|_| Failure::bad("Invalid port"))?;
    let ports: Vec<u16> =
        call.site.watched.listeners.open().iter().map(|listener| listener.address.port()).collect();
    if ports.contains(&port) {
        return wire::ok(&json!({ "status": "ok", "port": port }));
    }
    failed(json!({ "reason": "No active listener", "missing": port, "ports": ports }))
}

/// The names that RabbitMQ's tools have for the protocol of a listener.
fn aliases(protocol: &str, has_tls: bool) -> &'static [&'static str] {
    match (protocol, has_tls) {
        ("amqp", false) => &["amqp", "amqp091", "amqp0-9-1", "amqp-0-9-1"],
        ("amqp", true) => &["amqp/ssl", "amqps"],
        ("mqtt", false) => {
            &["mqtt", "mqtt31", "mqtt311", "mqtt50", "mqtt3.1", "mqtt3.1.1", "mqtt5.0"]
        }
        ("mqtt", true) => &["mqtt/ssl", "mqtts"],
        ("stomp", false) => &["stomp", "stomp10", "stomp11", "stomp12"],
        ("stomp", true) => &["stomp/ssl", "stomps"],
        ("xmpp", false) => &["xmpp"],
        ("xmpp", true) => &["xmpp/ssl", "xmpps"],
        ("http", false) => {
            &["http", "web-mqtt", "web-stomp", "http/web-mqtt", "http/web-stomp", "http/prometheus"]
        }
        ("http", true) => &["https", "https/web-mqtt", "https/web-stomp", "https/prometheus"],
        (_, false) => &["metrics", "prometheus", "http/prometheus"],
        (_, true) => &["metrics/ssl", "https/prometheus"],
    }
}

/// What RabbitMQ calls the protocol of a listener.
pub(super) fn protocol_of(port: &OpenPort) -> &'static str {
    aliases(&port.protocol, port.has_tls).first().copied().unwrap_or_default()
}

/// Every one of these protocols, divided by commas, has a listener.
pub(super) fn protocols(call: &Call) -> Outcome {
    let listeners = call.site.watched.listeners.open();
    let has = |wanted: &str| {
        let names = |l: &OpenPort| aliases(&l.protocol, l.has_tls);
        listeners.iter().any(|listener| names(listener).contains(&wanted))
    };
    let wanted = call.path("protocols").to_ascii_lowercase();
    let missing: Vec<&str> = wanted.split(',').filter(|name| !has(name)).collect();
    match missing.as_slice() {
        [] => wire::ok(&json!({ "status": "ok", "protocol": wanted })),
        missing => {
            let known: Vec<&str> = listeners.iter().map(protocol_of).collect();
            let missing = missing.join(",");
            failed(json!({
                "reason": "No active listener",
                "missing": missing,
                "protocols": known,
            }))
        }
    }
}

/// Seconds of the units that may be asked with; RabbitMQ knows no hours.
const UNITS: [(&str, u64); 5] = [
    ("hour", 3600),
    ("day", 86_400),
    ("week", 604_800),
    ("month", 2_592_000),
    ("year", 31_536_000),
];

/// No certificate of a listener ends within this time.
pub(super) fn certificates(call: &Call) -> Outcome {
    let unit = call.path("unit");
    let known = UNITS.iter().find(|(name, _)| *name == unit.trim_end_matches('s'));
    let supported = "Supported units: days, weeks, months, years.";
    let (_, secs) =
        known.ok_or_else(|| Failure::bad(format!("Time unit not recognised. {supported}")))?;
    let within = call.path("within").parse::<u64>();
    let within = within.map_err(|_| Failure::bad("Invalid expiration value."))?;
    let until = (clock::now().unix_ms / 1000).saturating_add(within.saturating_mul(*secs));
    let ports = call.site.watched.listeners.open();
    let expired: Vec<Value> = ports
        .iter()
        .filter_map(|port| Some((port, port.certificate.as_ref()?)))
        .filter(|(_, certificate)| certificate.expires_unix_secs <= until)
        .map(|(port, certificate)| {
            json!({
                "node": call.site.watched.name,
                "protocol": protocol_of(port),
                "interface": port.address.ip().to_string(),
                "port": port.address.port().to_string(),
                "name": certificate.name,
                "certfile_expires_on": [time_of(certificate.expires_unix_secs)],
            })
        })
        .collect();
    if expired.is_empty() {
        return well();
    }
    let unit = unit.trim_end_matches('s');
    let reason = format!("Certificates expiring within {within} {unit}(s)");
    failed(json!({ "reason": reason, "expired": expired }))
}

fn time_of(unix_secs: u64) -> String {
    rfc3339_from_ms(i64::try_from(unix_secs.saturating_mul(1000)).unwrap_or(i64::MAX))
}
