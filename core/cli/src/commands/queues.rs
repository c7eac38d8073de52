//! Queues, the messages in them, and work on messages.

use std::{
    io::{BufRead, BufReader},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{BINDING_COLUMNS, CONSUMER_COLUMNS, Done, JOB_COLUMNS, dry};
use crate::{
    api::{Call, segment},
    arguments::{JobCommand, Ls, Named, Paused, QueueCommand, Selection, Work},
    destination::Destination,
    failure::Failure,
    progress::Bar,
    resource::{Session, confirm, made, say, typed},
};

const QUEUE_COLUMNS: &[&str] =
    &["name", "state", "messages.ready", "messages.unacked", "messages.scheduled", "consumers"];
const MESSAGE_COLUMNS: &[&str] =
    &["seq", "state", "routing_key", "payload_bytes", "delivery_count", "enqueued_at", "payload"];
const HELD_COLUMNS: &[&str] = &[
    "seq",
    "user",
    "connection",
    "consumer",
    "protocol",
    "delivered_at",
    "times_out_at",
    "payload_bytes",
];
/// How often a job is asked how far it is.
const JOB_PAUSE: Duration = Duration::from_millis(300);

/// A destination as the body of a request names it.
pub(super) fn address(to: &Destination) -> Value {
    match to {
        Destination::Queue(name) => json!({ "queue": name }),
        Destination::Exchange(name, key) => json!({ "exchange": name, "routing_key": key }),
    }
}

pub(super) fn queue(session: &Session, command: QueueCommand) -> Done {
    let of = |name: &str| session.api.in_vhost(&format!("queues/{}", segment(name)));
    match command {
        QueueCommand::Ls(ls) => session.list(&session.api.in_vhost("queues"), &ls, QUEUE_COLUMNS),
        QueueCommand::Show(Named { name }) => session.show(&of(&name)),
        QueueCommand::Create { name, made: wanted, change } => {
            session.create(&of(&name), &Value::Object(made(&wanted)?), change)
        }
        QueueCommand::Update { name, arguments, unset, dry_run } => {
            let mut changes = typed(&arguments)?;
            for key in unset {
                changes[key] = Value::Null;
            }
            let body = json!({ "arguments": changes });
            session.change(&Call::new("PATCH", &of(&name)).json(&body), dry(dry_run))
        }
        QueueCommand::Delete { name, if_empty, if_unused, change, sure } => {
            let mut query = Vec::new();
            query.extend(if_empty.then(|| ("if_empty", "true".to_owned())));
            query.extend(if_unused.then(|| ("if_unused", "true".to_owned())));
            session.delete(&of(&name), &query, change, Some((&name, sure)))
        }
        QueueCommand::Peek { name, from, limit, filter, full } => {
            let query = vec![("from", from), ("limit", limit.to_string())];
            peek(session, &name, query, (filter, full), MESSAGE_COLUMNS)
        }
        QueueCommand::Search { name, filter, limit } => {
            search(session, &format!("{}/messages:search", of(&name)), &filter, limit)
        }
        QueueCommand::Purge { name, work, sure } => {
            if !work.dry_run {
                confirm(&name, sure)?;
            }
            begin(session, &format!("{}/messages:purge", of(&name)), work, json!({}))
        }
        QueueCommand::Move { name, to, work } => {
            let path = format!("{}/messages:move", of(&name));
            begin(session, &path, work, json!({ "to": address(&to) }))
        }
        QueueCommand::Copy { name, to, work } => {
            let path = format!("{}/messages:copy", of(&name));
            begin(session, &path, work, json!({ "to": address(&to) }))
        }
        QueueCommand::Retry { name, via_exchange, work } => {
            retry(session, &of(&name), via_exchange, work)
        }
        QueueCommand::Pause(Paused { name, dry_run }) => {
            session.change(&Call::new("PUT", &format!("{}/pause", of(&name))), dry(dry_run))
        }
        QueueCommand::Resume(Paused { name, dry_run }) => {
            session.change(&Call::new("DELETE", &format!("{}/pause", of(&name))), dry(dry_run))
        }
        QueueCommand::Unacked { name, limit } => {
            let limit = usize::try_from(limit).ok();
            let rows = session.api.list(&format!("{}/unacked", of(&name)), &[], limit)?;
            Ok(session.output.rows(&rows, HELD_COLUMNS)?)
        }
        QueueCommand::Consumers(Named { name }) => {
            session.list(&format!("{}/consumers", of(&name)), &Ls::default(), CONSUMER_COLUMNS)
        }
        QueueCommand::Bindings(Named { name }) => {
            session.list(&format!("{}/bindings", of(&name)), &Ls::default(), BINDING_COLUMNS)
        }
    }
}

/// Shows messages of a queue, of which nothing changes.
pub(super) fn peek(
    session: &Session,
    queue: &str,
    mut query: Vec<(&str, String)>,
    (filter, full): (Option<String>, bool),
    columns: &[&str],
) -> Done {
    query.push(("payload", if full { "full" } else { "head" }.to_owned()));
    query.extend(filter.map(|filter| ("filter", filter)));
    let path = session.api.in_vhost(&format!("queues/{}/messages", segment(queue)));
    let page = session.api.call(&Call::new("GET", &path).query(&query))?;
    let rows = page.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    Ok(session.output.rows(&rows, columns)?)
}

fn search(session: &Session, path: &str, filter: &str, limit: u64) -> Done {
    let body = json!({ "filter": filter, "hits_max": limit, "payload": "head" });
    let mut stream = session.api.stream(&Call::new("POST", path).json(&body))?;
    let mut lines = BufReader::new(&mut stream);
    let mut line = String::new();
    let mut rows = session.output.stream(MESSAGE_COLUMNS);
    loop {
        line.clear();
        let read = lines.read_line(&mut line);
        if read.context("the search broke off")? == 0 {
            return Ok(rows.end()?);
        }
        let found: Value = serde_json::from_str(&line).unwrap_or(Value::Null);
        if let Some(hit) = found.get("hit") {
            rows.push(hit)?;
        }
        if let Some(end) =
            found.get("end").and_then(Value::as_str).filter(|end| *end != "end_of_queue")
        {
            say(&format!("the search has ended early: {end}"))?;
        }
    }
}

pub(super) fn retry(session: &Session, queue: &str, via_exchange: bool, work: Work) -> Done {
    begin(session, &format!("{queue}/messages:retry"), work, json!({ "via": via(via_exchange) }))
}

/// How a dead letter goes back.
pub(super) fn via(exchange: bool) -> &'static str {
    if exchange { "exchange" } else { "queue" }
}

/// Begins work on messages, and follows it to its end.
pub(super) fn begin(session: &Session, path: &str, work: Work, mut body: Value) -> Done {
    let Selection { filter, seq, limit } = work.selection;
    let mut select = json!({});
    if !seq.is_empty() {
        select["seqs"] = json!(seq);
    }
    if let Some(filter) = filter {
        select["filter"] = json!(filter);
    }
    if let Some(limit) = limit {
        select["limit"] = json!(limit);
    }
    if select != json!({}) {
        body["select"] = select;
    }
    if let Some(rate) = work.rate {
        body["rate"] = json!(rate);
    }
    let query: &[_] = match work.dry_run {
        true => &[("dry_run", "true".to_owned())],
        // Whoever purges was asked already.
        false if path.ends_with(":purge") => &[("expect", "any".to_owned())],
        false => &[],
    };
    let started = session.api.call(&Call::new("POST", path).query(query).json(&body))?;
    let id = started
        .get("id")
        .and_then(|id| id.as_str().map_or_else(|| Some(id.to_string()), |id| Some(id.to_owned())));
    match id.filter(|_| !work.detach && !work.dry_run) {
        Some(id) => watch(session, &id),
        None => Ok(session.output.document(&started)?),
    }
}

/// Follows a job to its end, with a bar for whoever sits before a terminal.
fn watch(session: &Session, id: &str) -> Done {
    let path = format!("jobs/{}", segment(id));
    let mut bar = Bar::new();
    loop {
        let job = session.api.call(&Call::new("GET", &path))?;
        let state = job.get("state").and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |at: &str| job.pointer(at).and_then(Value::as_u64);
        bar.show(&state, number("/progress/done").unwrap_or(0), number("/progress/total"))?;
        if matches!(state.as_str(), "queued" | "running") {
            thread::sleep(JOB_PAUSE);
            continue;
        }
        bar.end()?;
        session.output.document(&job)?;
        return match state.as_str() {
            "done" => all_of(&job),
            other => Err(Failure::Partly(format!("job {id}: {other}"))),
        };
    }
}

/// Errors: some of what the job was to do it has not done, or nothing.
fn all_of(job: &Value) -> Done {
    let count = |at: &str| job.pointer(at).and_then(Value::as_u64).unwrap_or(0);
    let (done, refused) = (count("/result/done"), count("/result/refused"));
    let missed = count("/result/missed");
    let left = refused.saturating_add(missed);
    if left == 0 {
        return Ok(());
    }
    let mut text = format!("{left} of {} stay where they are", done.saturating_add(left));
    if missed > 0 {
        text.push_str(&format!(", {missed} of them were not there any more"));
    }
    let reason = job.pointer("/result/refused_messages/0/reason").and_then(Value::as_str);
    if let Some(reason) = reason {
        text.push_str(&format!("; the first was refused: {reason}"));
    }
    match done {
        0 => Err(Failure::Other(anyhow::anyhow!(text))),
        _ => Err(Failure::Partly(text)),
    }
}

pub(super) fn job(session: &Session, command: JobCommand) -> Done {
    match command {
        JobCommand::Ls(ls) => session.list("jobs", &ls, JOB_COLUMNS),
        JobCommand::Show(Named { name }) => session.show(&format!("jobs/{}", segment(&name))),
        JobCommand::Watch(Named { name }) => watch(session, &name),
        JobCommand::Cancel { id, change } => {
            session.end(&format!("jobs/{}", segment(&id)), &[], change, "cancelled")
        }
    }
}
