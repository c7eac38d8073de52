//! Jobs: work on many messages, with progress and an end that can be asked for; and the calls that
//! begin one.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use polymq_broker::{BrokerHandle, JobRecord, JobSpec, JobState, JobStep, MoveTo, Role, Via, Work};
use polymq_filter::Filter;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    caller::{Caller, blocking, vhost_of},
    edit::{self, Edit},
    list,
    problems::{bad_filter, count_changed, expect_needed, not_there},
    route::{DRY_RUN, JOB, NOTHING, ROUTE},
    shown::{Payload, browsed},
    value::time,
};
use crate::{
    api::{Api, Kind, Media, Method, Operation, Parameter},
    call::Call,
    clock,
    problem::Problem,
    schema::{Schema, record},
};

/// Positions that one call names at most.
const SEQS_MAX: usize = 10_000;
/// How often a call that waits for a job looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a call waits for a job at most.
const WAIT_MAX: Duration = Duration::from_secs(60);

const WAIT: Parameter = Parameter {
    name: "wait",
    kind: Kind::Time,
    about: "Answer when the job is over, or after this time",
};
const EXPECT: Parameter = Parameter {
    name: "expect",
    kind: Kind::NumberOr("any"),
    about: "How many messages a dry run has counted; with another number nothing happens. Whoever \
            deletes without naming positions must say it, or `any`",
};
const BEGIN: &[Parameter] = &[WAIT, DRY_RUN, EXPECT];

record! {
    /// Which messages: by positions, or by a condition and a number.
    Select {
        /// Their positions, as browsing shows them.
        seqs: Option<Vec<String>>,
        /// A condition on fields, headers and the JSON body.
        filter: Option<String>,
        /// The most messages.
        limit: Option<u64>,
    }
}

record! {
    /// Where messages go: to a queue, or through an exchange.
    Target {
        /// A queue.
        queue: Option<String>,
        /// An exchange.
        exchange: Option<String>,
        /// The routing key; without it each message keeps its own.
        routing_key: Option<String>,
    }
}

record! {
    /// What is done with which messages.
    MessageWork {
        /// Which messages; without it all.
        select: Option<Select>,
        /// Where they go, for move and copy.
        to: Option<Target>,
        /// For retry: `queue` straight back, `exchange` through routing again.
        via: Option<String>,
        /// The most messages a second.
        rate: Option<u32>,
        /// What changes of it, for one message that is moved, copied or retried.
        edit: Option<Edit>,
    }
}

const BODY: &[Media] = &[Media::json(<MessageWork as Schema>::schema)];

const fn begin(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation {
        method: Method::Post,
        path,
        id,
        tag: "jobs",
        summary,
        permission: "read on the queue, and write on the target",
        query: BEGIN,
        body: BODY,
        answers: JOB,
        ..ROUTE
    }
}

static PURGE: Operation = Operation {
    permission: "read on the queue",
    body: &[],
    ..begin(
        "/vhosts/{vhost}/queues/{queue}/messages:purge",
        "purgeMessages",
        "Remove every message that no consumer has",
    )
};
static DELETE: Operation = Operation {
    permission: "read on the queue",
    ..begin("/vhosts/{vhost}/queues/{queue}/messages:delete", "deleteMessages", "Remove messages")
};
static MOVE: Operation = begin(
    "/vhosts/{vhost}/queues/{queue}/messages:move",
    "moveMessages",
    "Move messages to a queue or through an exchange",
);
static COPY: Operation = begin(
    "/vhosts/{vhost}/queues/{queue}/messages:copy",
    "copyMessages",
    "Copy messages to a queue or through an exchange",
);
static RETRY: Operation = begin(
    "/vhosts/{vhost}/queues/{queue}/messages:retry",
    "retryMessages",
    "Send dead letters back to where they died",
);
static JOBS: Operation = Operation {
    path: "/jobs",
    id: "listJobs",
    tag: "jobs",
    summary: "The last 1,000 jobs",
    permission: "own jobs; all with tag monitoring",
    query: list::QUERY,
    answers: list::ANSWERS,
    ..ROUTE
};
static SHOW: Operation = Operation {
    path: "/jobs/{id}",
    id: "showJob",
    tag: "jobs",
    summary: "A job and its progress",
    permission: "own jobs; all with tag monitoring",
    ..ROUTE
};
static END: Operation = Operation {
    method: Method::Delete,
    path: "/jobs/{id}",
    id: "endJob",
    tag: "jobs",
    summary: "End a job before its next batch, or forget one that is over",
    permission: "own jobs; all with tag administrator",
    query: &[DRY_RUN],
    answers: NOTHING,
    ..ROUTE
};

pub(super) fn routes(api: Api) -> Api {
    api.route(&PURGE, |call| start(call, "purge"))
        .route(&DELETE, |call| start(call, "delete"))
        .route(&MOVE, |call| start(call, "move"))
        .route(&COPY, |call| start(call, "copy"))
        .route(&RETRY, |call| start(call, "retry"))
        .route(&JOBS, jobs)
        .route(&SHOW, show)
        .route(&END, end)
}

async fn start(mut call: Call, work: &'static str) -> Result<Response, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    let (vhost, queue) = (vhost_of(&call)?, call.queue()?.as_str().to_owned());
    let wanted = match work {
        "purge" => MessageWork { select: None, to: None, via: None, rate: None, edit: None },
        _ => call.json().await?,
    };
    let work = work_of(work, &wanted)?;
    let select = wanted.select.clone().unwrap_or(Select { seqs: None, filter: None, limit: None });
    if let Some(Err(bad)) = select.filter.as_deref().map(Filter::parse) {
        return Err(bad_filter(&bad).at("/select/filter"));
    }
    let spec = JobSpec {
        vhost,
        queue,
        work,
        seqs: positions(select.seqs.unwrap_or_default())?,
        filter: select.filter,
        limit: select.limit,
        rate: wanted.rate,
    };
    if let Some(limit) = spec.limit.filter(|limit| *limit == 0) {
        let text = format!("a limit of {limit} chooses nothing");
        return Err(Problem::bad("out_of_range", text).at("/select/limit"));
    }
    let edited = match (&wanted.edit, spec.seqs.as_slice()) {
        (None, _) => None,
        (Some(edit), [seq]) => {
            let place = (spec.vhost.clone(), spec.queue.clone(), *seq);
            let limits = call.site.limits();
            Some(edit::edited(&caller, &limits, place, edit).await?)
        }
        (Some(_), _) => {
            let text = "`edit` is for one message: name its position in `select.seqs`";
            return Err(Problem::bad("invalid_argument", text).at("/edit"));
        }
    };
    if let Some(preview) = preview(&call, &caller, &spec).await? {
        return Ok(preview);
    }
    let record = caller
        .blocking("queue", move |broker, who| {
            broker.start_job_with(who, spec, edited, clock::now())
        })
        .await?;
    tracing::info!(
        event = "job_started", job = record.id, kind = record.spec.work.as_str(),
        queue = %record.spec.queue, vhost = %record.spec.vhost, by = %record.by
    );
    let (object, asked) = (format!("/jobs/{}", record.id), json!(record.spec));
    caller.audit(&call, "job.start", object, (Value::Null, asked));
    tokio::spawn(carry_out(caller.broker().clone(), record.id));
    answer(&call, caller.broker(), record).await
}

/// What the work would do, when only that is asked for.
///
/// Errors: it is not to be done, or not as much as is expected, or nobody has said how much is.
async fn preview(
    call: &Call,
    caller: &Caller,
    spec: &JobSpec,
) -> Result<Option<Response>, Problem> {
    let (is_dry, expected) = (call.flag("dry_run"), call.query("expect"));
    let deletes_unnamed = matches!(spec.work, Work::Purge | Work::Delete) && spec.seqs.is_empty();
    if !is_dry && (expected == Some("any") || (expected.is_none() && !deletes_unnamed)) {
        return Ok(None);
    }
    let asked = spec.clone();
    let preview = caller
        .blocking("queue", move |broker, who| broker.preview_job(who, &asked, clock::now()))
        .await?;
    let number = call.number("expect");
    if let Some(expected) = number.filter(|expected| *expected != preview.count) {
        return Err(count_changed(expected, preview.count));
    }
    if !is_dry {
        return if number.is_some() { Ok(None) } else { Err(expect_needed(preview.count)) };
    }
    let sample = preview.sample.iter().map(|found| browsed(found, Payload::Head));
    let shown = json!({
        "dry_run": true,
        "count": preview.count,
        "exact": preview.exact,
        "sample": sample.collect::<Vec<_>>(),
    });
    Ok(Some(Json(shown).into_response()))
}

/// Errors: the target is missing or said twice, or belongs to other work.
fn work_of(work: &str, wanted: &MessageWork) -> Result<Work, Problem> {
    let bad = |text: &str, at: &str| Err(Problem::bad("invalid_argument", text).at(at));
    if wanted.to.is_some() && !matches!(work, "move" | "copy") {
        return bad("`to` is for move and copy", "/to");
    }
    if wanted.via.is_some() && work != "retry" {
        return bad("`via` is for retry", "/via");
    }
    let to = match &wanted.to {
        None => None,
        Some(Target { queue: Some(queue), exchange: None, routing_key: None }) => {
            Some(MoveTo::Queue(queue.clone()))
        }
        Some(Target { queue: None, exchange: Some(exchange), routing_key }) => {
            let exchange = if exchange == "amq.default" { "" } else { exchange };
            Some(MoveTo::Exchange { exchange: exchange.to_owned(), key: routing_key.clone() })
        }
        Some(_) => return bad("`to` names a queue, or an exchange and maybe a key", "/to"),
    };
    Ok(match (work, to) {
        ("purge", _) => Work::Purge,
        ("delete", _) => Work::Delete,
        ("move", Some(to)) => Work::Move(to),
        ("copy", Some(to)) => Work::Copy(to),
        ("move" | "copy", None) => return bad("`to` is missing", "/to"),
        _ => match wanted.via.as_deref() {
            None | Some("queue") => Work::Retry(Via::Queue),
            Some("exchange") => Work::Retry(Via::Exchange),
            Some(_) => return bad("`via` is queue or exchange", "/via"),
        },
    })
}

fn positions(seqs: Vec<String>) -> Result<Vec<u64>, Problem> {
    if seqs.len() > SEQS_MAX {
        let text = format!("one call names at most {SEQS_MAX} positions");
        return Err(Problem::bad("out_of_range", text).at("/select/seqs").with("max", SEQS_MAX));
    }
    let bad = |at: usize, text: &str| {
        let problem = Problem::bad("wrong_type", format!("`{text}` is no position"));
        problem.at(format!("/select/seqs/{at}"))
    };
    let read = seqs.iter().enumerate();
    read.map(|(at, text)| text.parse().map_err(|_| bad(at, text))).collect()
}

/// Does the batches of a job until it is over.
async fn carry_out(broker: BrokerHandle, id: u64) {
    loop {
        let stepping = broker.clone();
        let step = blocking(move || stepping.step_job(id, clock::now())).await;
        match step {
            Ok(JobStep::Over) => break,
            Ok(JobStep::Again { after_ms: 0 }) => {}
            // An end that is asked for while a slow job waits is seen within a second.
            Ok(JobStep::Again { after_ms }) => {
                let until = Instant::now() + Duration::from_millis(after_ms);
                while Instant::now() < until && !is_ending(&broker, id) {
                    sleep(Duration::from_secs(1).min(until - Instant::now())).await;
                }
            }
            Err(_) => sleep(LOOK_EVERY).await,
        }
    }
    if let Some(record) = broker.job(id) {
        tracing::info!(
            event = "job_over", job = id, state = ?record.state, done = record.done,
            refused = record.refused
        );
    }
}

fn is_ending(broker: &BrokerHandle, id: u64) -> bool {
    broker.is_job_ending(id)
}

async fn answer(call: &Call, broker: &BrokerHandle, begun: JobRecord) -> Result<Response, Problem> {
    let wait = call.time("wait").unwrap_or_default().min(WAIT_MAX);
    let until = Instant::now() + wait;
    let mut record = begun;
    while !record.state.is_over() && Instant::now() < until {
        sleep(LOOK_EVERY).await;
        match broker.job(record.id) {
            Some(now) => record = now,
            None => break,
        }
    }
    let status = if record.state.is_over() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let location = call.location(&format!("/jobs/{}", record.id));
    let location = HeaderValue::from_str(&location);
    let location: [(HeaderName, HeaderValue); 1] =
        [(header::LOCATION, location.unwrap_or_else(|_| HeaderValue::from_static("")))];
    Ok((status, location, Json(shown(&record))).into_response())
}

/// A job as JSON.
pub(super) fn shown(record: &JobRecord) -> Value {
    let spec = &record.spec;
    let taken_ms = match record.finished_ms {
        0 => clock::now().unix_ms.saturating_sub(record.started_ms),
        at => at.saturating_sub(record.started_ms),
    };
    let rate = match taken_ms {
        0 => 0.0,
        ms => record.done as f64 * 1000.0 / ms as f64,
    };
    json!({
        "id": record.id.to_string(),
        "kind": spec.work.as_str(),
        "vhost": spec.vhost.as_str(),
        "queue": spec.queue,
        "spec": spec,
        "state": record.state,
        "progress": {
            "done": record.done, "scanned": record.scanned, "total": record.total,
            "unit": "messages",
        },
        "rate": if record.started_ms == 0 { 0.0 } else { rate },
        "by": record.by,
        "created_at": time(record.created_ms),
        "started_at": time(record.started_ms),
        "finished_at": time(record.finished_ms),
        "result": {
            "done": record.done,
            "refused": record.refused,
            "missed": record.missed,
            "refused_messages": record.refused_messages.iter().map(|refused| {
                json!({ "seq": refused.seq.to_string(), "reason": refused.reason })
            }).collect::<Vec<_>>(),
        },
        "error": record.error,
    })
}

async fn jobs(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let sees_all = caller.has(Role::Monitoring);
    let mut jobs = caller.broker().jobs();
    jobs.retain(|job| sees_all || job.by == caller.who.user.as_str());
    // The newest first, also page by page.
    let key = |job: &JobRecord| format!("{:020}", u64::MAX - job.id);
    list::page(&call, jobs, key, shown).map(Json)
}

/// Errors: the job is not there, or another's.
fn find(call: &Call, caller: &Caller, role: Role) -> Result<JobRecord, Problem> {
    let missing = || not_there("job_not_found", "job", call.path("id"));
    let id = call.path("id").parse().map_err(|_| missing())?;
    let record = caller.broker().job(id).ok_or_else(missing)?;
    match record.by == caller.who.user.as_str() || caller.has(role) {
        true => Ok(record),
        false => Err(missing()),
    }
}

async fn show(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    Ok(Json(shown(&find(&call, &caller, Role::Monitoring)?)))
}

async fn end(call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let record = find(&call, &caller, Role::Administrator)?;
    if call.flag("dry_run") {
        return Ok(Json(json!({ "dry_run": true, "job": shown(&record) })).into_response());
    }
    let ended = caller.broker().cancel_job(record.id);
    ended.map_err(|refusal| Problem::refused(&refusal, "job"))?;
    let before = json!({ "state": record.state, "done": record.done });
    let object = format!("/jobs/{}", record.id);
    caller.audit(&call, "job.end", object, (before, Value::Null));
    debug_assert!(record.state != JobState::Queued || record.started_ms == 0);
    Ok(StatusCode::NO_CONTENT.into_response())
}
