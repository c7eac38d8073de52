//! Live traces: what happens to some of the messages, as server-sent events.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use polymq_broker::{NewTrace, PROTOCOLS, TraceEvent, TraceFilter, TraceView};
use polymq_contract::Refusal;
use polymq_model::{UserName, VhostName};
use serde_json::{Map, Value, json};

use super::{
    caller::Caller,
    list,
    problems::not_there,
    route::{DRY_RUN, MONITORING, NOTHING, ROUTE, object},
    stream::{self, CLOSING, Events},
    value::time,
};
use crate::{
    Phase, Site,
    api::{Answer, Api, Kind, Media, Method, Operation, Parameter},
    call::{Call, parse_time},
    clock,
    problem::Problem,
    schema::{Schema, record},
    v1::{Place, streams::OF_EVENTS},
};

/// Messages a second, when nobody says how many.
const RATE: u32 = 100;
/// Messages, when nobody says how many.
const MESSAGES: u64 = 10_000;
/// How long a trace lasts, when nobody says it.
const DURATION: Duration = Duration::from_secs(600);
/// How often a trace is looked at for a reader.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Events that are written at a time.
const EVENTS_AT_ONCE: usize = 500;

const LAST_EVENT_ID: Parameter = Parameter {
    name: "Last-Event-ID",
    kind: Kind::Text,
    about: "Go on behind this event, as far as it is kept",
};

const END_WITH_READER: Parameter = Parameter {
    name: "end_with_reader",
    kind: Kind::Flag,
    about: "The trace ends when this reader goes",
};

record! {
    /// Which messages a trace follows, and how many. What is left out does not matter.
    TraceSpec {
        /// The virtual host.
        vhost: String,
        /// The exchange that they are published to.
        exchange: Option<String>,
        /// The routing key; `*` stands for any text.
        routing_key: Option<String>,
        /// A queue that they are routed to.
        queue: Option<String>,
        /// Who publishes them.
        user: Option<String>,
        /// The client id of the publisher, where its protocol has one.
        client_id: Option<String>,
        /// The protocol of the publisher, as `mqtt`.
        protocol: Option<String>,
        /// The most messages a second: 100, at most 1,000. Others are counted and not followed.
        rate: Option<u32>,
        /// It ends after so many messages: 10,000.
        limit: Option<u64>,
        /// It ends after this time: 10m, at most.
        duration: Option<String>,
        /// Show the first 1,024 bytes of bodies, of messages in queues that one may read.
        payload: Option<bool>,
    }
}

static START: Operation = Operation {
    method: Method::Post,
    path: "/traces",
    id: "startTrace",
    tag: "traces",
    summary: "Follow messages on their way; three traces run at a time, each ends by itself",
    permission: "tag monitoring, and read on the queue and exchange that it names",
    query: &[DRY_RUN],
    body: &[Media::json(<TraceSpec as Schema>::schema)],
    answers: &[Answer { status: 201, about: "It runs", media: &[Media::json(object)] }],
    ..ROUTE
};
static LIST: Operation = Operation {
    path: "/traces",
    id: "listTraces",
    tag: "traces",
    summary: "Traces that run, and the last three that are over",
    permission: MONITORING,
    query: list::QUERY,
    answers: list::ANSWERS,
    ..ROUTE
};
static SHOW: Operation = Operation {
    path: "/traces/{id}",
    id: "showTrace",
    tag: "traces",
    summary: "A trace and how far it is",
    permission: MONITORING,
    ..ROUTE
};
static END: Operation = Operation {
    method: Method::Delete,
    path: "/traces/{id}",
    id: "endTrace",
    tag: "traces",
    summary: "End a trace, or forget one that is over",
    permission: "own traces; all with tag administrator",
    query: &[DRY_RUN],
    answers: NOTHING,
    ..ROUTE
};
static EVENTS: Operation = Operation {
    path: "/traces/{id}/events",
    id: "followTrace",
    tag: "traces",
    summary: "Follow a trace by server-sent events, from its beginning as far as it is kept",
    permission: "own traces; all with tag administrator, but those with payloads",
    query: &[END_WITH_READER],
    headers: &[LAST_EVENT_ID],
    answers: &[Answer {
        status: 200,
        about: "Events `step`, `gap`, `end` and `closing`",
        media: &[Media::bytes("text/event-stream")],
    }],
    ..ROUTE
};

pub(super) fn routes(api: Api) -> Api {
    api.route(&START, start)
        .route(&LIST, index)
        .route(&SHOW, show)
        .route(&END, end)
        .route(&EVENTS, follow)
}

async fn start(mut call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let spec: TraceSpec = call.json().await?;
    let new = new_trace(spec)?;
    if call.flag("dry_run") {
        let checked = caller.manage(&call).check_new_trace(&new);
        checked.map_err(|refusal| Problem::refused(&refusal, "vhost"))?;
        return Ok(Json(json!({ "dry_run": true, "would_create": true })).into_response());
    }
    let started = caller.manage(&call).start_trace(new, clock::nanos, clock::now().unix_ms);
    let view = started.map_err(|refusal| Problem::refused(&refusal, "vhost"))?;
    let location = call.location(&format!("/traces/{}", view.id));
    let location = HeaderValue::from_str(&location);
    let location = [(header::LOCATION, location.unwrap_or_else(|_| HeaderValue::from_static("")))];
    Ok((StatusCode::CREATED, location, Json(shown(&view))).into_response())
}

fn new_trace(spec: TraceSpec) -> Result<NewTrace, Problem> {
    let bad_name =
        |at: &str, bad: polymq_model::BadName| Problem::bad("bad_name", bad.to_string()).at(at);
    let vhost = if spec.vhost == "~" { "/".to_owned() } else { spec.vhost };
    if let Some(protocol) = spec.protocol.as_deref().filter(|name| !PROTOCOLS.contains(name)) {
        let text = format!("there is no protocol `{protocol}`");
        let known = PROTOCOLS.to_vec();
        return Err(Problem::bad("wrong_type", text).at("/protocol").with("known", known));
    }
    let duration = match spec.duration.as_deref() {
        None => DURATION,
        Some(text) => parse_time(text).ok_or_else(|| {
            Problem::bad("wrong_type", "a time has its unit, such as 5m").at("/duration")
        })?,
    };
    let exchange = spec.exchange.map(|name| match name.as_str() {
        "amq.default" => String::new(),
        _ => name,
    });
    Ok(NewTrace {
        filter: TraceFilter {
            vhost: VhostName::new(vhost).map_err(|bad| bad_name("/vhost", bad))?,
            exchange,
            routing_key: spec.routing_key,
            queue: spec.queue,
            user: spec.user.map(UserName::new).transpose().map_err(|bad| bad_name("/user", bad))?,
            client_id: spec.client_id,
            protocol: spec.protocol,
        },
        rate: spec.rate.unwrap_or(RATE),
        messages_max: spec.limit.unwrap_or(MESSAGES),
        duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        payload: spec.payload.unwrap_or(false),
    })
}

/// A trace as JSON.
fn shown(view: &TraceView) -> Value {
    let filter = &view.new.filter;
    let exchange = filter.exchange.as_deref().map(|name| match name {
        "" => "amq.default",
        name => name,
    });
    json!({
        "id": view.id.to_string(),
        "by": view.by,
        "state": view.ended.map_or("running", |_| "over"),
        "ended": view.ended,
        "started_at": time(view.started_ms),
        "ends_at": time(view.ends_ms),
        "vhost": filter.vhost.as_str(),
        "exchange": exchange,
        "routing_key": filter.routing_key,
        "queue": filter.queue,
        "user": filter.user.as_ref().map(UserName::as_str),
        "client_id": filter.client_id,
        "protocol": filter.protocol,
        "rate": view.new.rate,
        "limit": view.new.messages_max,
        "payload": view.new.payload,
        "messages": view.messages,
        "skipped": view.skipped,
        "events": view.events,
        "forgotten": view.forgotten,
    })
}

fn missing(refusal: &Refusal, call: &Call) -> Problem {
    match refusal.kind {
        polymq_contract::RefusalKind::NotFound => {
            not_there("trace_not_found", "trace", call.path("id"))
        }
        _ => Problem::refused(refusal, "trace"),
    }
}

fn id_of(call: &Call) -> Result<u64, Problem> {
    let id = call.path("id");
    id.parse().map_err(|_| not_there("trace_not_found", "trace", id))
}

async fn index(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let all = caller.manage(&call).traces();
    let all = all.map_err(|refusal| Problem::refused(&refusal, "trace"))?;
    list::page(&call, all, |view| format!("{:020}", view.id), shown).map(Json)
}

async fn show(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let found = caller.manage(&call).trace(id_of(&call)?);
    found.map(|view| Json(shown(&view))).map_err(|refusal| missing(&refusal, &call))
}

async fn end(call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let (manager, id) = (caller.manage(&call), id_of(&call)?);
    if call.flag("dry_run") {
        // Only whoever may end it may read it.
        manager.trace_events(id, u64::MAX, 0).map_err(|refusal| missing(&refusal, &call))?;
        let found = manager.trace(id).map_err(|refusal| missing(&refusal, &call))?;
        return Ok(Json(json!({ "dry_run": true, "trace": shown(&found) })).into_response());
    }
    let ended = manager.end_trace(id);
    ended.map_err(|refusal| missing(&refusal, &call))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn follow(call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let id = id_of(&call)?;
    let may = caller.manage(&call).trace_events(id, u64::MAX, 0);
    may.map_err(|refusal| missing(&refusal, &call))?;
    let place = OF_EVENTS.enter(&caller.who.user)?;
    let seen = stream::last_seen(&call);
    let (events, answer) = stream::events();
    let (site, seen) = (Arc::clone(&call.site), seen.unwrap_or(0));
    let ends = call.flag("end_with_reader");
    let reader = Reader { site, caller, id, seen, events, ends, _place: place };
    tokio::spawn(reader.run());
    Ok(answer)
}

/// One reader and its task.
struct Reader {
    site: Arc<Site>,
    caller: Caller,
    id: u64,
    /// The number of the last event that was sent.
    seen: u64,
    events: Events,
    /// The trace ends with this reader.
    ends: bool,
    _place: Place,
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.ends {
            // One that is over already is no reason to say anything.
            let _ = self.caller.broker().manage(&self.caller.who, "").end_trace(self.id);
        }
    }
}

impl Reader {
    async fn run(mut self) {
        // So that the reader knows at once that it is connected.
        let mut text = ": the trace\n\n".to_owned();
        loop {
            let is_draining = self.site.watched.phase.now() == Phase::Draining;
            // Why it is over is looked at first, so that no event comes behind the last look.
            let manager = self.caller.broker().manage(&self.caller.who, "");
            let view = manager.trace(self.id).ok();
            let events = match manager.trace_events(self.id, self.seen, EVENTS_AT_ONCE) {
                Ok(events) if !self.caller.is_gone() => events,
                Ok(_) | Err(_) => return,
            };
            let is_behind = events.len() == EVENTS_AT_ONCE;
            self.write_down(&events, &mut text);
            let is_done = view.is_none_or(|view| is_silent(&view)) && events.is_empty();
            if is_draining {
                text.push_str(CLOSING);
            } else if is_done {
                text.push_str(stream::END);
            }
            if !self.events.send(&mut text).await || is_draining || is_done {
                return;
            }
            if !is_behind {
                tokio::select! {
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                    () = self.events.is_left() => return,
                }
            }
        }
    }

    fn write_down(&mut self, events: &[TraceEvent], text: &mut String) {
        for event in events {
            let lost = event.number.saturating_sub(self.seen + 1);
            stream::write_gap(text, lost);
            self.seen = event.number;
            let data = step(event);
            text.push_str(&format!("id: {}\nevent: step\ndata: {data}\n\n", event.number));
        }
    }
}

/// Nothing more comes of a trace. One that has all its messages goes on until it would have ended.
fn is_silent(view: &TraceView) -> bool {
    match view.ended {
        None => false,
        Some("messages") => view.ends_ms <= clock::now().unix_ms,
        Some(_) => true,
    }
}

fn step(event: &TraceEvent) -> Value {
    let mut shown = Map::new();
    shown.insert("message".to_owned(), json!(event.message));
    shown.insert("event".to_owned(), json!(event.event));
    shown.insert("at".to_owned(), time(event.at_ms));
    shown.insert("after_us".to_owned(), json!(event.after_us));
    for (name, value) in &event.fields {
        shown.insert((*name).to_owned(), json!(value));
    }
    Value::Object(shown)
}

/// Some events of a trace after a number, with their numbers.
pub(super) fn after(caller: &Caller, id: u64, number: u64) -> Vec<(u64, Value)> {
    let events = caller.broker().manage(&caller.who, "").trace_events(id, number, EVENTS_AT_ONCE);
    events.unwrap_or_default().iter().map(|event| (event.number, step(event))).collect()
}
