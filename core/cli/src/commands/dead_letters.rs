//! Dead letters: seen, sent back, changed, moved out of the way.

use serde_json::{Value, json};

use super::{
    Done,
    queues::{address, begin, peek, retry, via},
};
use crate::{
    api::{Call, segment},
    arguments::{Cause, DlqCommand, DlqEdit, Selection, Work},
    failure::Failure,
    messages,
    resource::{Session, headers, say},
};

const GROUP_COLUMNS: &[&str] = &["queue", "origin", "reason", "count", "last_at"];
const COLUMNS: &[&str] = &[
    "seq",
    "death.0.queue",
    "death.0.reason",
    "death.0.count",
    "death.0.at",
    "routing_key",
    "payload_bytes",
    "payload",
];

pub(super) fn dead_letters(session: &Session, command: DlqCommand) -> Done {
    let of = |name: &str| session.api.in_vhost(&format!("queues/{}", segment(name)));
    match command {
        DlqCommand::Ls(ls) => {
            session.list(&session.api.in_vhost("dead-letters"), &ls, GROUP_COLUMNS)
        }
        DlqCommand::Show { name, cause, filter, limit, full } => {
            let filter = Some(condition(&cause, filter));
            peek(session, &name, vec![("limit", limit.to_string())], (filter, full), COLUMNS)
        }
        DlqCommand::Retry { name, via_exchange, cause, work } => {
            retry(session, &of(&name), via_exchange, narrowed(work, &cause)?)
        }
        DlqCommand::Edit(edit) => change(session, &of(&edit.name), edit),
        DlqCommand::Park { name, into, cause, work } => {
            let into = into.unwrap_or_else(|| format!("{name}.parked"));
            let (work, queue) = (narrowed(work, &cause)?, of(&name));
            if !is_there(session, &of(&into))? {
                if work.dry_run {
                    say(&format!("queue `{into}` would be made"))?;
                    // What leaves this queue is counted alike, wherever it goes.
                    return begin(session, &format!("{queue}/messages:delete"), work, json!({}));
                }
                session.api.call(&Call::new("PUT", &of(&into)).json(&json!({})))?;
                say(&format!("queue `{into}` is made"))?;
            }
            let to = json!({ "to": { "queue": into } });
            begin(session, &format!("{queue}/messages:move"), work, to)
        }
    }
}

/// What is true of dead letters with a cause.
fn condition(cause: &Cause, filter: Option<String>) -> String {
    let mut text = "death.queue IS NOT NULL".to_owned();
    for (field, value) in [("death.queue", &cause.origin), ("death.reason", &cause.reason)] {
        if let Some(value) = value {
            text.push_str(&format!(" AND {field} = '{}'", value.replace('\'', "''")));
        }
    }
    if let Some(filter) = filter {
        text.push_str(&format!(" AND ({filter})"));
    }
    text
}

/// Work on dead letters with a cause; positions are a choice of their own.
fn narrowed(work: Work, cause: &Cause) -> Result<Work, Failure> {
    let is_narrow = cause.origin.is_some() || cause.reason.is_some();
    if !work.selection.seq.is_empty() {
        return match is_narrow {
            true => Err(Failure::Usage("--seq names messages, whatever their cause".to_owned())),
            false => Ok(work),
        };
    }
    let filter = Some(condition(cause, work.selection.filter));
    Ok(Work { selection: Selection { filter, ..work.selection }, ..work })
}

fn is_there(session: &Session, path: &str) -> Result<bool, Failure> {
    match session.api.call(&Call::new("GET", path)) {
        Err(Failure::Refused { status: 404, .. }) => Ok(false),
        other => other.map(|_| true),
    }
}

fn change(session: &Session, queue: &str, wanted: DlqEdit) -> Done {
    let mut properties = json!({});
    let mut of_headers = headers(&wanted.headers)?;
    of_headers.extend(wanted.remove_header.into_iter().map(|name| (name, Value::Null)));
    if !of_headers.is_empty() {
        properties["headers"] = json!(of_headers);
    }
    if let Some(kind) = wanted.content_type {
        properties["content_type"] = json!(kind);
    }
    let mut edit = match &wanted.body {
        Some(body) => messages::payload_of(&messages::body_of(body)?),
        None => json!({}),
    };
    if let Some(key) = wanted.routing_key {
        edit["routing_key"] = json!(key);
    }
    if properties != json!({}) {
        edit["properties"] = properties;
    }
    if edit == json!({}) {
        return Err(Failure::Usage("say what changes: a body, headers, a routing key".to_owned()));
    }
    let (path, mut body) = match &wanted.to {
        Some(to) => (format!("{queue}/messages:move"), json!({ "to": address(to) })),
        None => (format!("{queue}/messages:retry"), json!({ "via": via(wanted.via_exchange) })),
    };
    body["edit"] = edit;
    let selection = Selection { filter: None, seq: vec![wanted.seq], limit: None };
    let work = Work { selection, rate: None, dry_run: wanted.dry_run, detach: false };
    begin(session, &path, work, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_part_of_the_condition() {
        let cause = Cause { origin: Some("o'n".to_owned()), reason: Some("expired".to_owned()) };
        assert_eq!(
            condition(&cause, Some("a = 1 OR b = 2".to_owned())),
            "death.queue IS NOT NULL AND death.queue = 'o''n' AND death.reason = 'expired' \
             AND (a = 1 OR b = 2)"
        );
    }
}
