//! The log while it is written, as LavinMQ sends it.

use std::{sync::Arc, time::Duration};

use polymq_broker::Role;
use serde_json::{Map, Value, json};

use super::{
    call::Call,
    wire::{Failure, Outcome},
};
use crate::{
    LogLine, Phase,
    v1::{Events, OF_EVENTS, Place, events},
};

/// How often the log is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// `GET /livelog`: server-sent events whose data is `[severity, source, message]` and whose id is a
/// time in ms since 1970; `Last-Event-ID` leaves out what was not later.
pub(super) async fn follow(call: Call) -> Outcome {
    let place = OF_EVENTS.enter(call.user()).map_err(Failure::from)?;
    let seen = call.headers.get("Last-Event-ID").and_then(|id| id.to_str().ok()?.parse().ok());
    let (events, answer) = events();
    tokio::spawn(read(call, seen.unwrap_or(0), events, place));
    Ok(answer)
}

async fn read(call: Call, seen_ms: u64, mut events: Events, _place: Place) {
    let watched = Arc::clone(&call.site.watched);
    // So that the reader knows at once that it is connected.
    let mut text = ": the log\n\n".to_owned();
    let mut last = 0;
    loop {
        let is_draining = watched.phase.now() == Phase::Draining;
        if call.manager.require(Role::Monitoring).is_err() {
            return;
        }
        for line in watched.log.after(last) {
            last = line.number;
            if line.at_ms > seen_ms {
                text.push_str(&format!("id: {}\ndata: {}\n\n", line.at_ms, shown(&line)));
            }
        }
        if !events.send(&mut text).await || is_draining {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = events.is_left() => return,
        }
    }
}

fn shown(line: &LogLine) -> Value {
    json!([line.level, line.target, message(&line.event, &line.fields)])
}

/// What has happened, in one line.
fn message(event: &str, fields: &Map<String, Value>) -> String {
    let mut text = event.to_owned();
    for (name, value) in fields {
        if !text.is_empty() {
            text.push(' ');
        }
        match value.as_str() {
            Some(value) if name == "message" => text.push_str(value),
            Some(value) => text.push_str(&format!("{name}={value}")),
            None => text.push_str(&format!("{name}={value}")),
        }
    }
    text
}
