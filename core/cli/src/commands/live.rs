//! What moves: totals and queues, the log, the ways of messages.

use std::{
    io::{IsTerminal, Write},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{Done, PLAIN};
use crate::{
    api::Call,
    arguments::{Logs, Named, Top, Trace, TraceCommand},
    destination::Destination,
    failure::Failure,
    output::Format,
    resource::{Session, say},
    sse::Events,
};

const QUEUE_COLUMNS: &[&str] =
    &["vhost", "name", "state", "messages.ready", "messages.unacked", "consumers"];
const LOG_COLUMNS: &[&str] = &["at", "level", "event", "target", "fields"];
const TRACE_COLUMNS: &[&str] =
    &["at", "message", "event", "after_us", "protocol", "exchange", "routing_key", "queue"];
const TRACES_COLUMNS: &[&str] =
    &["id", "by", "state", "vhost", "exchange", "queue", "messages", "ends_at"];
/// Clears a terminal and goes to its first place.
const CLEAR: &[u8] = b"\x1b[H\x1b[2J";

/// Shows totals and the first queues in an order, again and again.
pub(super) fn top(session: &Session, wanted: &Top) -> Done {
    let is_screen = session.output.format == Format::Table && std::io::stdout().is_terminal();
    session.output.check_end(wanted.count.is_some())?;
    let columns = ["at", "totals.ready", "totals.unacked", "objects.connections"];
    let mut rows = session.output.stream(&columns);
    let mut left = wanted.count.unwrap_or(u64::MAX);
    loop {
        let overview = session.api.call(&Call::new("GET", "overview"))?;
        let queues = busiest(session, wanted)?;
        let mut out = std::io::stdout().lock();
        if is_screen {
            out.write_all(CLEAR)?;
        }
        if session.output.format == Format::Table {
            out.write_all(summary(&overview).as_bytes())?;
            drop(out);
            session.output.rows(&queues, QUEUE_COLUMNS)?;
        } else {
            drop(out);
            let at = overview.pointer("/totals/at").cloned().unwrap_or_default();
            let row = json!({
                "at": at,
                "totals": overview.get("totals"),
                "rates": overview.get("rates"),
                "objects": overview.get("objects"),
                "alarm": overview.get("alarm"),
                "queues": queues,
            });
            rows.push(&row)?;
        }
        std::io::stdout().flush()?;
        left -= 1;
        if left == 0 {
            return if session.output.format == Format::Table { Ok(()) } else { Ok(rows.end()?) };
        }
        thread::sleep(Duration::from_secs(wanted.every));
    }
}

/// The first queues of all virtual hosts in the order that is asked for.
fn busiest(session: &Session, wanted: &Top) -> Result<Vec<Value>, Failure> {
    let query = [("sort", wanted.sort.clone())];
    let mut rows = Vec::new();
    for vhost in session.api.list("vhosts", &[], None)? {
        let Some(name) = vhost.get("name").and_then(Value::as_str) else { continue };
        let path = format!("vhosts/{}/queues", crate::api::vhost_segment(name));
        let queues = match session.api.list(&path, &query, Some(wanted.queues)) {
            // One that this user may not enter is no reason to show nothing.
            Err(Failure::Refused { status: 403, .. }) => continue,
            other => other?,
        };
        for mut queue in queues {
            queue["vhost"] = json!(name);
            rows.push(queue);
        }
    }
    let (field, is_reversed) = match wanted.sort.strip_prefix('-') {
        Some(field) => (field, true),
        None => (wanted.sort.as_str(), false),
    };
    let pointer = format!("/{}", field.replace('.', "/"));
    rows.sort_by(|a, b| {
        let (a, b) = (a.pointer(&pointer), b.pointer(&pointer));
        let number = |value: Option<&Value>| value.and_then(Value::as_f64);
        let order = match (number(a), number(b)) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            _ => a.and_then(Value::as_str).cmp(&b.and_then(Value::as_str)),
        };
        if is_reversed { order.reverse() } else { order }
    });
    rows.truncate(wanted.queues);
    Ok(rows)
}

/// The lines above the queues.
fn summary(overview: &Value) -> String {
    let number = |at: &str| overview.pointer(at).and_then(Value::as_f64).unwrap_or(0.0);
    let mut text = format!(
        "connections {:.0}  consumers {:.0}  queues {:.0}  ready {:.0}  unacked {:.0}\n",
        number("/objects/connections"),
        number("/objects/consumers"),
        number("/objects/queues"),
        number("/totals/ready"),
        number("/totals/unacked"),
    );
    let rates = overview.get("rates").and_then(Value::as_object);
    let moving = rates.into_iter().flatten().filter_map(|(name, rate)| {
        let rate = rate.as_f64().filter(|rate| *rate >= 0.05)?;
        Some(format!("{name} {rate:.1}/s"))
    });
    let moving: Vec<_> = moving.collect();
    if !moving.is_empty() {
        text.push_str(&format!("{}\n", moving.join("  ")));
    }
    if let Some(alarm) = overview.get("alarm").and_then(Value::as_str) {
        text.push_str(&format!("publishers wait: {}\n", alarm.escape_debug()));
    }
    text.push('\n');
    text
}

/// Shows what the broker has logged, and what it logs.
pub(super) fn logs(session: &Session, wanted: &Logs) -> Done {
    session.output.check_end(!wanted.follow)?;
    let mut rows = session.output.stream(LOG_COLUMNS);
    let mut query = vec![("follow", wanted.follow.to_string())];
    query.extend(wanted.level.clone().map(|level| ("level", level)));
    query.extend(wanted.event.clone().map(|event| ("event", event)));
    let stream = session.api.stream(&Call::new("GET", "logs").query(&query))?;
    for event in Events::new(stream) {
        let event = event.context("the stream broke off")?;
        match event.name.as_str() {
            "end" => break,
            "closing" => return Err(Failure::Partly("the broker stops".to_owned())),
            "gap" => say(&format!("some lines are missing: {}", event.data))?,
            _ => rows.push(&parsed(&event.data))?,
        }
    }
    Ok(rows.end()?)
}

fn parsed(data: &str) -> Value {
    serde_json::from_str(data).unwrap_or_else(|_| json!({ "text": data }))
}

/// Starts a trace, shows its events, and ends it; or looks at traces.
pub(super) fn trace(session: &Session, wanted: &Trace) -> Done {
    match &wanted.command {
        Some(TraceCommand::Ls(ls)) => return session.list("traces", ls, TRACES_COLUMNS),
        Some(TraceCommand::End(Named { name })) => {
            let path = format!("traces/{}", crate::api::segment(name));
            return session.end(&path, &[], PLAIN, "ended");
        }
        None => session.output.check_end(wanted.count.is_some())?,
    }
    let mut filter = json!({ "vhost": session.api.vhost() });
    let named = [
        ("client_id", &wanted.client),
        ("user", &wanted.publisher),
        ("protocol", &wanted.protocol),
    ];
    for (name, value) in named {
        if let Some(value) = value {
            filter[name] = json!(value);
        }
    }
    match &wanted.address {
        Some(Destination::Queue(name)) => filter["queue"] = json!(name),
        Some(Destination::Exchange(name, key)) => {
            filter["exchange"] = json!(name);
            if !key.is_empty() {
                filter["routing_key"] = json!(key);
            }
        }
        None => {}
    }
    if let Some(rate) = wanted.rate {
        filter["rate"] = json!(rate);
    }
    if wanted.payload {
        filter["payload"] = json!(true);
    }
    let made = session.api.call(&Call::new("POST", "traces").json(&filter))?;
    let id = made.get("id").map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned));
    let id = id.unwrap_or_default();
    let path = format!("traces/{}", crate::api::segment(&id));
    let shown = shown(session, &format!("{path}/events"), wanted.count);
    // It ends by itself when its reader has gone, a little later.
    let _ = session.api.call(&Call::new("DELETE", &path));
    shown
}

fn shown(session: &Session, path: &str, count: Option<u64>) -> Done {
    // Whoever ends this command leaves no trace behind.
    let query = [("end_with_reader", "true".to_owned())];
    let stream = session.api.stream(&Call::new("GET", path).query(&query))?;
    let mut rows = session.output.stream(TRACE_COLUMNS);
    let mut left = count.unwrap_or(u64::MAX);
    for event in Events::new(stream) {
        let event = event.context("the stream broke off")?;
        match event.name.as_str() {
            "closing" | "end" => break,
            "gap" => say(&format!("some events are missing: {}", event.data))?,
            _ => {
                rows.push(&parsed(&event.data))?;
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
    }
    Ok(rows.end()?)
}
