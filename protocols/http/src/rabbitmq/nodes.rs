//! The server as a node of a cluster of one.

use serde_json::{Map, Value, json};

use super::{
    call::Call,
    list::Columns,
    overview::exchange_types,
    rates,
    wire::{self, Failure, Outcome, RABBITMQ_VERSION},
};

/// Protocols whose logins are told. Strict clients refuse names that they do not know.
const LOGIN_PROTOCOLS: [&str; 4] = ["amqp", "mqtt", "stomp", "http"];

/// What RabbitMQ's node says of its memory; all but a few are parts of its own machine.
const MEMORY: [&str; 25] = [
    "connection_readers",
    "connection_writers",
    "connection_channels",
    "connection_other",
    "queue_procs",
    "quorum_queue_procs",
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
    let sockets = watched.driver.values().open;
    let limits = &call.site.limits();
    let memory = facts.memory_resident_bytes.unwrap_or_default();
    let mut shown = json!({
        "name": watched.name,
        "type": "disc",
        "running": true,
        "uptime": (facts.uptime_secs * 1000.0) as u64,
        "os_pid": std::process::id().to_string(),
        "fd_used": sockets,
        "fd_total": limits.connections_max,
        "sockets_used": sockets,
        "sockets_total": limits.connections_max,
        "proc_used": 1,
        "proc_total": 1_048_576,
        "mem_used": memory,
        "mem_limit": facts.memory_high_bytes.unwrap_or_default(),
        "mem_alarm": is_reached(&facts.marks_reached, "memory"),
        "disk_free": facts.disk_free_bytes.unwrap_or_default(),
        "disk_free_limit": facts.disk_low_bytes,
        "disk_free_alarm": is_reached(&facts.marks_reached, "disk"),
        "run_queue": 0,
        "processors": std::thread::available_parallelism().map_or(1, usize::from),
        "rates_mode": "detailed",
        "enabled_plugins": ["rabbitmq_management", "rabbitmq_mqtt", "rabbitmq_stomp"],
        "being_drained": watched.phase.now() == crate::Phase::Draining,
        "partitions": [],
        "contexts": [],
        "applications": [
            { "name": "rabbit", "description": "RabbitMQ", "version": RABBITMQ_VERSION },
            { "name": "polymq", "description": "PolyMQ", "version": env!("CARGO_PKG_VERSION") },
        ],
        "auth_mechanisms": [
            { "name": "PLAIN", "description": "SASL PLAIN", "enabled": true },
            { "name": "AMQPLAIN", "description": "AMQPLAIN", "enabled": true },
            { "name": "EXTERNAL", "description": "TLS client certificate", "enabled": true },
        ],
        "exchange_types": exchange_types(),
        "log_files": [],
        "config_files": [],
        "db_dir": "",
        "net_ticktime": 60,
        "cluster_links": [],
        "metrics_gc_queue_length": {},
        "context_switches": 0,
        "gc_num": 0,
        "gc_bytes_reclaimed": 0,
        "io_read_count": 0,
        "io_write_count": facts.store_batches,
        "io_write_bytes": facts.store_batch_bytes,
        "io_sync_count": facts.store_batches,
    });
    let still = rates::details(&[], call.span("node_stats").is_some(), |_| 0);
    for name in ["mem_used", "fd_used", "sockets_used", "proc_used", "disk_free", "run_queue"] {
        shown[format!("{name}_details")] = still.clone();
    }
    shown
}

/// `GET /nodes`
pub(super) fn list(call: &Call) -> Outcome {
    wire::ok(&json!([Columns::of(call).pick(object(call))]))
}

fn check_name(call: &Call) -> Result<(), Failure> {
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
    let queues = call.broker().queue_refs(None).unwrap_or_default();
    let bodies: u64 = queues.iter().map(|queue| queue.counts().bytes).sum::<u64>().min(total);
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

/// `GET /auth/attempts/:node`
pub(super) fn logins(call: &Call) -> Outcome {
    check_name(call)?;
    let counters = call.broker().counters();
    let rows = LOGIN_PROTOCOLS.iter().map(|protocol| {
        let counts = counters.protocol(protocol).read();
        let of = |name: &str| {
            let found = counts.iter().find(|(known, _)| *known == name);
            found.map_or(0, |(_, count)| *count)
        };
        let (right, wrong) = (of("logins"), of("logins_failed"));
        json!({
            "protocol": protocol,
            "auth_attempts": right + wrong,
            "auth_attempts_succeeded": right,
            "auth_attempts_failed": wrong,
        })
    });
    wire::ok(&rows.collect())
}
