//! The log while it is written, as server-sent events.

use std::{sync::Arc, time::Duration};

use axum::response::Response;
use serde_json::{Value, json};

use super::{
    caller::Caller,
    route::{MONITORING, ROUTE},
    stream::{self, CLOSING, Events},
    value::time,
};
use crate::{
    LogLine, Phase, Site,
    api::{Answer, Api, Kind, Media, Operation, Parameter},
    call::Call,
    problem::Problem,
    v1::{Place, streams::OF_EVENTS},
};

/// Levels, from the one that matters most.
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
/// Lines of before that a reader is shown, when nobody says how many.
const LINES: u64 = 100;
/// How often the log is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

const LEVEL: Parameter = Parameter {
    name: "level",
    kind: Kind::Word(&LEVELS),
    about: "Lines of this level and of what matters more; what is not logged is not here either",
};
const TARGET: Parameter = Parameter {
    name: "target",
    kind: Kind::Text,
    about: "Only of this part of the broker, as `polymq_mqtt`",
};
const EVENT: Parameter =
    Parameter { name: "event", kind: Kind::Text, about: "Only this event, as `job_over`" };
const BEFORE: Parameter = Parameter {
    name: "lines",
    kind: Kind::Number,
    about: "So many of the last lines first: 100, at most 1,000",
};
const FOLLOW: Parameter = Parameter {
    name: "follow",
    kind: Kind::Flag,
    about: "`false`: end with the event `end` behind the lines that are there",
};
const LAST_EVENT_ID: Parameter = Parameter {
    name: "Last-Event-ID",
    kind: Kind::Text,
    about: "Go on behind this line, as far as it is kept",
};

static LOGS: Operation = Operation {
    path: "/logs",
    id: "followLog",
    tag: "server",
    summary: "Follow the log by server-sent events; the last 1,000 lines are kept",
    permission: MONITORING,
    query: &[LEVEL, TARGET, EVENT, BEFORE, FOLLOW],
    headers: &[LAST_EVENT_ID],
    answers: &[Answer {
        status: 200,
        about: "Events `line`, `gap`, `end` and `closing`",
        media: &[Media::bytes("text/event-stream")],
    }],
    ..ROUTE
};

pub(super) fn routes(api: Api) -> Api {
    api.route(&LOGS, follow)
}

/// Which lines somebody wants.
struct Wanted {
    level: usize,
    target: Option<String>,
    event: Option<String>,
}

impl Wanted {
    fn of(call: &Call) -> Self {
        let rank = |word: &str| LEVELS.iter().position(|level| *level == word);
        Self {
            level: call.query("level").and_then(rank).unwrap_or(LEVELS.len()),
            target: call.query("target").map(str::to_owned),
            event: call.query("event").map(str::to_owned),
        }
    }

    fn takes(&self, line: &LogLine) -> bool {
        let is_part = |target: &String| {
            let rest = line.target.strip_prefix(target.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        LEVELS.iter().position(|level| *level == line.level) <= Some(self.level)
            && self.target.as_ref().is_none_or(is_part)
            && self.event.as_ref().is_none_or(|event| *event == line.event)
    }
}

async fn follow(call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let wanted = Wanted::of(&call);
    let place = OF_EVENTS.enter(&caller.who.user)?;
    let seen = stream::last_seen(&call);
    let kept = call.site.watched.log.after(0);
    let next = match seen {
        Some(seen) => seen,
        None => {
            let count = call.number("lines").unwrap_or(LINES);
            let back = kept.iter().rev().filter(|line| wanted.takes(line));
            let first = back.take(usize::try_from(count).unwrap_or(usize::MAX)).last();
            let newest = kept.last().map_or(0, |line| line.number);
            first.map_or(newest, |line| line.number - 1)
        }
    };
    let (events, answer) = stream::events();
    let site = Arc::clone(&call.site);
    let follows = call.query("follow") != Some("false");
    let reader = Reader { site, caller, wanted, follows, seen: next, events, _place: place };
    tokio::spawn(reader.run());
    Ok(answer)
}

/// One reader and its task.
struct Reader {
    site: Arc<Site>,
    caller: Caller,
    wanted: Wanted,
    follows: bool,
    /// The number of the last line that was looked at.
    seen: u64,
    events: Events,
    _place: Place,
}

impl Reader {
    async fn run(mut self) {
        // So that the reader knows at once that it is connected.
        let mut text = ": the log\n\n".to_owned();
        loop {
            let is_draining = self.site.watched.phase.now() == Phase::Draining;
            let is_over = is_draining || !self.follows;
            if self.caller.is_gone() || self.caller.needs(polymq_broker::Role::Monitoring).is_err()
            {
                return;
            }
            self.look(&mut text);
            if !self.follows {
                text.push_str(stream::END);
            } else if is_draining {
                text.push_str(CLOSING);
            }
            if !self.events.send(&mut text).await || is_over {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.events.is_left() => return,
            }
        }
    }

    fn look(&mut self, text: &mut String) {
        for line in self.site.watched.log.after(self.seen) {
            let lost = line.number.saturating_sub(self.seen + 1);
            if self.seen > 0 {
                stream::write_gap(text, lost);
            }
            self.seen = line.number;
            if self.wanted.takes(&line) {
                text.push_str(&format!(
                    "id: {}\nevent: line\ndata: {}\n\n",
                    line.number,
                    shown(&line)
                ));
            }
        }
    }
}

fn shown(line: &LogLine) -> Value {
    json!({
        "at": time(line.at_ms),
        "level": line.level,
        "target": line.target,
        "event": line.event,
        "fields": line.fields,
    })
}

/// The lines after a number with their numbers; at first only the last of them.
pub(super) fn after(site: &Site, number: u64, is_first: bool) -> Vec<(u64, Value)> {
    let lines = site.watched.log.after(number);
    let skipped = match is_first {
        true => lines.len().saturating_sub(usize::try_from(LINES).unwrap_or(usize::MAX)),
        false => 0,
    };
    lines.iter().skip(skipped).map(|line| (line.number, shown(line))).collect()
}
