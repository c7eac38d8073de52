//! The server as a node of a cluster of one.

use std::{fmt::Write as _, sync::atomic::Ordering};

use axum::{http::header, response::IntoResponse};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::{
    call::Call,
    list::Columns,
    node_numbers,
    overview::{contexts, exchange_types},
    wire::{self, Failure, Outcome, RABBITMQ_VERSION},
};
use crate::ConfigValue;

/// Protocols whose logins are told. Strict clients refuse names that they do not know.
const LOGIN_PROTOCOLS: [&str; 4] = ["amqp", "mqtt", "stomp", "http"];

/// What RabbitMQ's node says of its memory; all but a few are parts of its own machine.
const MEMORY: [&str; 26] = [
    "connection_readers",
    "connection_writers",
    "connection_channels",
    "connection_other",
    "queue_procs",
    "quorum_queue_procs",
    "quorum_queue_dlx_procs",
    "stream_queue_procs",
    "stream_queue_replica_reader_procs",
    "stream_queue_coordinator_procs",
    "plugins",
    "metadata_store",
    "other_proc",
    "metrics",
    "mgmt_db",
    "mnesia",
    "quorum_ets",
    "metadata_store_ets",
    "other_ets",
    "binary",
    "msg_index",
    "code",
    "atom",
    "other_system",
    "allocated_unused",
    "reserved_unallocated",
];

fn is_reached(reached: &[(&'static str, bool)], resource: &str) -> bool {
    reached.iter().any(|(known, is)| *known == resource && *is)
}

fn object(call: &Call) -> Value {
    let watched = &call.site.watched;
    let facts = (watched.facts)();
    let limits = &call.site.limits();
    let configuration = watched.configuration.effective();
    let mechanisms = configuration.iter().find(|value| value.key == "auth.mechanisms");
    let offers = |name: &str| mechanisms.is_none_or(|list| list.value.contains(name));
    let mut shown = json!({
        "name": watched.name,
        "type": "disc",
        "running": true,
        "uptime": (facts.uptime_secs * 1000.0) as u64,
        "os_pid": std::process::id().to_string(),
        "fd_total": facts.files_max.unwrap_or(limits.connections_max as u64),
        "sockets_total": limits.connections_max,
        "proc_total": 1_048_576,
        "mem_limit": facts.memory_high_bytes.unwrap_or_default(),
        "mem_alarm": is_reached(&facts.marks_reached, "memory"),
        "disk_free_limit": facts.disk_low_bytes,
        "disk_free_alarm": is_reached(&facts.marks_reached, "disk"),
        "processors": std::thread::available_parallelism().map_or(1, usize::from),
        "rates_mode": "detailed",
        "rabbitmq_version": RABBITMQ_VERSION,
        "product_name": "PolyMQ",
        "product_version": env!("CARGO_PKG_VERSION"),
        "enabled_plugins": ["rabbitmq_management", "rabbitmq_mqtt", "rabbitmq_stomp"],
        "being_drained": watched.phase.now() == crate::Phase::Draining,
        "partitions": [],
        "contexts": contexts(call),
        "mem_calculation_strategy": "rss",
        "applications": [
            { "name": "rabbit", "description": "RabbitMQ", "version": RABBITMQ_VERSION },
            { "name": "polymq", "description": "PolyMQ", "version": env!("CARGO_PKG_VERSION") },
        ],
        "auth_mechanisms": [
            { "name": "PLAIN", "description": "SASL PLAIN", "enabled": offers("\"PLAIN\"") },
            { "name": "AMQPLAIN", "description": "AMQPLAIN", "enabled": offers("\"PLAIN\"") },
            {
                "name": "EXTERNAL",
                "description": "TLS client certificate",
                "enabled": offers("\"EXTERNAL\""),
            },
        ],
        "exchange_types": exchange_types(),
        "log_files": ["<stderr>"],
        "config_files": config_files(&configuration),
        "db_dir": data_dir(&configuration),
        "net_ticktime": 60,
        "cluster_links": [],
        "metrics_gc_queue_length": {
            "channel_closed": 0,
            "channel_consumer_deleted": 0,
            "connection_closed": 0,
            "consumer_deleted": 0,
            "exchange_deleted": 0,
            "node_node_deleted": 0,
            "queue_deleted": 0,
            "vhost_deleted": 0,
        },
    });
    let numbers = node_numbers::all(call, &facts);
    if let Value::Object(shown) = &mut shown {
        shown.extend(numbers);
    }
    shown
}

/// The files that values of the configuration stand in.
fn config_files(values: &[ConfigValue]) -> Vec<&str> {
    let file = |value: &ConfigValue| {
        let (file, line) = value.origin.rsplit_once(':')?;
        line.parse::<u32>().is_ok().then_some(file.len())
    };
    let mut files: Vec<&str> =
        values.iter().filter_map(|value| value.origin.get(..file(value)?)).collect();
    files.sort_unstable();
    files.dedup();
    files
}

/// Where the data are, as it stands in the configuration.
fn data_dir(values: &[ConfigValue]) -> &str {
    let value = values.iter().find(|value| value.key == "server.data_dir");
    value.map_or("", |value| value.value.trim_matches('"'))
}

/// `GET /nodes`
pub(super) fn list(call: &Call) -> Outcome {
    wire::ok(&json!([Columns::of(call).pick(object(call))]))
}

/// Errors: the node of the path is not this one.
pub(super) fn check_name(call: &Call) -> Result<(), Failure> {
    match call.path("node") == call.site.watched.name {
        true => Ok(()),
        false => Err(Failure::not_found()),
    }
}

/// `GET /nodes/:node`
pub(super) fn one(call: &Call) -> Outcome {
    check_name(call)?;
    wire::ok(&Columns::of(call).pick(object(call)))
}

fn memory_of(call: &Call) -> (u64, Map<String, Value>) {
    let total = (call.site.watched.facts)().memory_resident_bytes.unwrap_or_default();
    let bodies = call.broker().summary(|_| true).bytes.min(total);
    let mut parts: Map<String, Value> =
        MEMORY.iter().map(|name| ((*name).to_owned(), json!(0))).collect();
    parts.insert("binary".to_owned(), json!(bodies));
    parts.insert("other_system".to_owned(), json!(total - bodies));
    (total, parts)
}

/// `GET /nodes/:node/memory`
pub(super) fn memory(call: &Call) -> Outcome {
    check_name(call)?;
    let (total, mut parts) = memory_of(call);
    parts.insert("strategy".to_owned(), json!("rss"));
    let totals = json!({ "rss": total, "allocated": total, "erlang": total });
    parts.insert("total".to_owned(), totals);
    wire::ok(&json!({ "memory": parts }))
}

/// `GET /nodes/:node/memory/relative`
pub(super) fn relative_memory(call: &Call) -> Outcome {
    check_name(call)?;
    let (total, parts) = memory_of(call);
    let percent = |value: Value| {
        let part = value.as_u64().unwrap_or_default();
        json!(part.saturating_mul(100).checked_div(total).unwrap_or_default())
    };
    let mut parts: Map<String, Value> =
        parts.into_iter().map(|(name, value)| (name, percent(value))).collect();
    parts.insert("total".to_owned(), json!(100));
    wire::ok(&json!({ "memory": parts }))
}

/// Logins of each of [`LOGIN_PROTOCOLS`], right and wrong.
type Logins = [(u64, u64); LOGIN_PROTOCOLS.len()];

/// The logins that somebody has had forgotten; counters only grow.
#[derive(Debug, Default)]
pub(crate) struct ForgottenLogins(Mutex<Logins>);

/// All logins since the start.
fn logins_of(call: &Call) -> Logins {
    let counters = call.broker().counters();
    LOGIN_PROTOCOLS.map(|protocol| {
        let counts = counters.protocol(protocol);
        (counts.logins.load(Ordering::Relaxed), counts.logins_failed.load(Ordering::Relaxed))
    })
}

/// `DELETE /auth/attempts/:node`
pub(super) fn forget_logins(call: &Call) -> Outcome {
    check_name(call)?;
    *call.site.forgotten_logins.0.lock() = logins_of(call);
    wire::done()
}

/// `DELETE /reset`, `/reset/:node`: samples are forgotten; what has been counted stays.
pub(super) fn reset(call: &Call) -> Outcome {
    if call.has_path("node") {
        check_name(call)?;
    }
    call.broker().forget_samples();
    call.site.node_history.forget();
    wire::done()
}

/// `GET /auth/attempts/:node`
pub(super) fn logins(call: &Call) -> Outcome {
    check_name(call)?;
    let forgotten = *call.site.forgotten_logins.0.lock();
    let all = LOGIN_PROTOCOLS.iter().zip(logins_of(call).into_iter().zip(forgotten));
    let rows = all.map(|(protocol, (now, before))| {
        let (right, wrong) = (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1));
        json!({
            "protocol": protocol,
            "auth_attempts": right + wrong,
            "auth_attempts_succeeded": right,
            "auth_attempts_failed": wrong,
        })
    });
    wire::ok(&rows.collect())
}

/// `GET /config/effective`: plain text, a line for each key, as it would stand in a file. Secrets
/// are masked.
pub(super) fn configuration(call: &Call) -> Outcome {
    let mut text = String::new();
    for value in call.site.watched.configuration.effective() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} = {}", value.key, value.value);
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}
