//! The server as a whole: what it is, what it does, and how its store and its resources are.

use axum::Json;
use polymq_broker::{AuditEntry, PROTOCOLS, Sample, Span};
use serde_json::{Map, Value, json};

use super::{
    caller::{Caller, blocking},
    list,
    route::{MONITORING, ROUTE},
    value::time,
};
use crate::{
    Phase, Site,
    api::{Api, Kind, Operation, Parameter},
    call::Call,
    clock, health,
    problem::Problem,
};

const AGE: Parameter =
    Parameter { name: "age", kind: Kind::Time, about: "Samples of the last 10m, or so long" };
const EVERY: Parameter =
    Parameter { name: "every", kind: Kind::Time, about: "At which distance: 5s, or more" };

/// How many of the largest queues are told.
const LARGEST: usize = 10;

static SERVER: Operation = Operation {
    path: "/server",
    id: "showServer",
    tag: "server",
    summary: "Version, protocols and limits",
    ..ROUTE
};
static OVERVIEW: Operation = Operation {
    path: "/overview",
    id: "showOverview",
    tag: "server",
    summary: "Totals and samples of them for rates",
    permission: MONITORING,
    query: &[AGE, EVERY],
    ..ROUTE
};
static STORAGE: Operation = Operation {
    path: "/storage",
    id: "showStorage",
    tag: "server",
    summary: "What the store keeps, how long it takes, its largest queues, how long room lasts",
    permission: MONITORING,
    ..ROUTE
};
static ALARMS: Operation = Operation {
    path: "/alarms",
    id: "listAlarms",
    tag: "server",
    summary: "What keeps publishers waiting or needs a look",
    permission: MONITORING,
    query: list::QUERY,
    answers: list::ANSWERS,
    ..ROUTE
};
static AUDIT: Operation = Operation {
    path: "/audit",
    id: "listAudit",
    tag: "server",
    summary: "The last 1,000 changes by administrators since the start; older ones are in the file",
    permission: MONITORING,
    query: list::QUERY,
    answers: list::ANSWERS,
    ..ROUTE
};

pub(super) fn routes(api: Api) -> Api {
    api.route(&SERVER, server)
        .route(&AUDIT, audit)
        .route(&OVERVIEW, overview)
        .route(&STORAGE, storage)
        .route(&ALARMS, list_alarms)
}

async fn server(call: Call) -> Result<Json<Value>, Problem> {
    Caller::anywhere(&call).await?;
    let (watched, limits) = (&call.site.watched, call.site.limits());
    let phase = match watched.phase.now() {
        Phase::Recovering => "recovering",
        Phase::Serving => "serving",
        Phase::Draining => "draining",
    };
    let protocols = PROTOCOLS.iter().filter(|protocol| **protocol != "other");
    Ok(Json(json!({
        "product": "PolyMQ",
        "version": env!("CARGO_PKG_VERSION"),
        "name": watched.name,
        "phase": phase,
        "uptime_secs": (watched.facts)().uptime_secs,
        "now": time(clock::now().unix_ms),
        "protocols": protocols.collect::<Vec<_>>(),
        "limits": {
            "message_bytes_max": limits.message_bytes_max,
            "connections_max": limits.connections_max,
            "channels_max": limits.channels_max,
            "topic_levels_max": limits.topic_levels_max,
            "nesting_max": limits.nesting_max,
        },
    })))
}

fn sample(sample: &Sample) -> Value {
    let activity = sample.activity.read().into_iter();
    let mut shown: Map<String, Value> =
        activity.map(|(name, count)| (name.to_owned(), json!(count))).collect();
    shown.insert("at".to_owned(), time(sample.at_ms));
    shown.insert("ready".to_owned(), json!(sample.ready));
    shown.insert("unacked".to_owned(), json!(sample.unsettled));
    shown.insert("bytes_in".to_owned(), json!(sample.bytes_in));
    shown.insert("bytes_out".to_owned(), json!(sample.bytes_out));
    Value::Object(shown)
}

/// What happens a second, between the last two samples.
fn rates(samples: &[Sample]) -> Value {
    let [.., before, last] = samples else { return json!({}) };
    let seconds = last.at_ms.saturating_sub(before.at_ms) as f64 / 1000.0;
    if seconds <= 0.0 {
        return json!({});
    }
    let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
    let (now, then) = (last.activity.read(), before.activity.read());
    let activity = now.into_iter().zip(then);
    let mut shown: Map<String, Value> = activity
        .map(|((name, now), (_, then))| (name.to_owned(), json!(rate(now, then))))
        .collect();
    shown.insert("bytes_in".to_owned(), json!(rate(last.bytes_in, before.bytes_in)));
    shown.insert("bytes_out".to_owned(), json!(rate(last.bytes_out, before.bytes_out)));
    Value::Object(shown)
}

/// What an overview shows.
pub(super) fn shown(broker: &polymq_broker::BrokerHandle, span: Option<Span>) -> Value {
    broker.watch(clock::now());
    let (summary, samples) = (broker.summary(|_| true), broker.recent_totals(span));
    let (sessions, retained) = broker.session_counts();
    let connections: Map<String, Value> = broker
        .connection_totals()
        .by_protocol
        .into_iter()
        .map(|(protocol, count)| (protocol.to_owned(), json!(count)))
        .collect();
    json!({
        "totals": sample(&summary.sample),
        "rates": rates(&samples),
        "samples": samples.iter().map(sample).collect::<Vec<_>>(),
        "objects": {
            "vhosts": broker.vhosts().len(),
            "queues": summary.queues,
            "consumers": summary.consumers,
            "connections": connections.values().filter_map(Value::as_u64).sum::<u64>(),
            "client_sessions": sessions,
            "retained_messages": retained,
            "delayed_messages": broker.delayed_count(),
        },
        "connections_by_protocol": connections,
        "alarm": broker.alarm().as_deref(),
    })
}

async fn overview(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let span = Span {
        age_ms: call.time("age").map_or(600_000, ms),
        step_ms: call.time("every").map_or(5_000, ms).max(5_000),
    };
    let broker = caller.broker().clone();
    blocking(move || shown(&broker, Some(span))).await.map(Json)
}

async fn storage(call: Call) -> Result<Json<Value>, Problem> {
    Caller::anywhere(&call).await?;
    let shown = blocking(move || {
        let mut shown = storage_of(&call.site);
        shown["largest_queues"] = largest(&call.site.watched);
        shown
    });
    shown.await.map(Json)
}

/// The queues with the most bytes of ready messages.
fn largest(watched: &crate::Watched) -> Value {
    let refs = watched.broker.queue_refs(None).unwrap_or_default();
    let mut sized: Vec<_> = refs.iter().map(|queue| (queue.counts().bytes, queue)).collect();
    sized.retain(|(bytes, _)| *bytes > 0);
    sized.sort_unstable_by_key(|(bytes, queue)| {
        (std::cmp::Reverse(*bytes), queue.vhost().clone(), queue.name().clone())
    });
    let row = |(bytes, queue): &(u64, &polymq_broker::QueueRef)| {
        let (vhost, name) = (queue.vhost().as_str(), queue.name().as_str());
        json!({ "vhost": vhost, "name": name, "bytes": bytes })
    };
    sized.iter().take(LARGEST).map(row).collect()
}

/// The store as JSON.
pub(super) fn storage_of(site: &Site) -> Value {
    let facts = (site.watched.facts)();
    if let Some(free) = facts.disk_free_bytes {
        site.forecast.note(clock::now().unix_ms, free);
    }
    let (messages, bytes) = facts.store_live.unzip();
    let buckets: Vec<Value> = facts
        .store_sync_buckets
        .iter()
        .map(|(up_to, count)| {
            json!({ "up_to_seconds": up_to.is_finite().then_some(up_to), "count": count })
        })
        .collect();
    json!({
        "state": if facts.store_problem.is_none() { "ok" } else { "failed" },
        "problem": facts.store_problem,
        "recovered_percent": facts.recovered_percent,
        "disk": {
            "used_bytes": facts.store_disk_bytes,
            "free_bytes": facts.disk_free_bytes,
            "low_bytes": facts.disk_low_bytes,
            "resume_bytes": facts.disk_resume_bytes,
            "low_in_seconds": site.forecast.seconds_to(facts.disk_low_bytes),
        },
        "live": { "messages": messages, "bytes": bytes },
        "damage": {
            "ranges": facts.store_damaged_ranges,
            "messages": facts.store_damaged_messages,
            "scrubs": facts.store_scrubs,
            "scrubbed_bytes": facts.store_scrubbed_bytes,
        },
        "commits": {
            "batches": facts.store_batches,
            "records": facts.store_records,
            "bytes": facts.store_batch_bytes,
            "pending_bytes": facts.store_pending_bytes,
            "unanswered_seconds": facts.store_unanswered_seconds,
            "sync_seconds": facts.store_sync_seconds,
            "sync_buckets": buckets,
        },
        "memory": {
            "resident_bytes": facts.memory_resident_bytes,
            "high_bytes": facts.memory_high_bytes,
        },
    })
}

/// What is not as it should be, with what to do about it.
pub(super) fn standing(watched: &crate::Watched) -> Vec<Value> {
    let facts = (watched.facts)();
    let mut found = Vec::new();
    let mut add = |id: &str, severity: &str, detail: String, advice: &str| {
        found.push(json!({
            "id": id, "severity": severity, "detail": detail, "advice": advice,
        }));
    };
    if let Some(reason) = watched.broker.alarm() {
        let advice = "free what is short; publishing resumes by itself";
        add("publishers_blocked", "critical", reason.to_string(), advice);
    }
    if let Some(problem) = &facts.store_problem {
        add("store", "critical", problem.clone(), "look at the log and at the disk");
    }
    if facts.store_is_full {
        let text = "the disk is full: messages are refused".to_owned();
        add("store_full", "critical", text, "make room; publishing resumes by itself");
    }
    if facts.store_damaged_ranges > 0 {
        let text = format!(
            "{} stored messages at {} places cannot be read",
            facts.store_damaged_messages, facts.store_damaged_ranges
        );
        add("damage", "warning", text, "see `polymq storage repair`");
    }
    if let Some(text) = health::ending(watched, clock::now().unix_ms / 1000) {
        add("certificates", "warning", text, "renew them, and reload the configuration");
    }
    for (resource, is_reached) in &facts.marks_reached {
        if *is_reached {
            let text = format!("the mark of {resource} is reached");
            add(&format!("mark_{resource}"), "warning", text, "consume, or give it more");
        }
    }
    if facts.log_lines_dropped > 0 {
        let text = format!("{} lines of the log were dropped", facts.log_lines_dropped);
        add("log_lines_dropped", "warning", text, "see who reads the log, and why so slowly");
    }
    found
}

/// The ids of what keeps publishers waiting or needs a look.
pub(crate) fn alarms(watched: &crate::Watched) -> Vec<String> {
    let id = |row: Value| row["id"].as_str().unwrap_or_default().to_owned();
    standing(watched).into_iter().map(id).collect()
}

async fn audit(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let changes = caller.manage(&call).audited(0);
    let changes = changes.map_err(|refusal| Problem::refused(&refusal, "audit"))?;
    // As wide as the longest, so that text sorts as numbers do.
    let key = |change: &AuditEntry| format!("{:020}", change.number);
    let row = |change: &AuditEntry| {
        let mut row = json!({ "token": null, "before": null, "after": null });
        if let (Value::Object(row), Value::Object(said)) = (&mut row, json!(change)) {
            row.extend(said);
        }
        row
    };
    list::page(&call, changes, key, row).map(Json)
}

async fn list_alarms(call: Call) -> Result<Json<Value>, Problem> {
    Caller::anywhere(&call).await?;
    let found = standing(&call.site.watched);
    let key = |alarm: &Value| alarm["id"].as_str().unwrap_or_default().to_owned();
    list::page(&call, found, key, Value::clone).map(Json)
}
