//! Queues: listing, declaring, deleting, pausing; who reads them and what feeds them.

use std::borrow::Cow;

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use polymq_broker::{
    ConsumerView, QueueCounts, QueueDetails, QueueList, QueueRef, Role, access::Configure,
};
use polymq_contract::{Command, DeclareQueue};
use polymq_model::{QueueName, VhostName};
use serde_json::{Value, json};

use super::{
    bindings,
    caller::{Caller, vhost_of},
    consumers, etag, list,
    problems::{arguments_differ, not_there},
    route::{CONDITIONS, DRY_RUN, IF_MATCH, NOTHING, OBJECT, PUT, ROUTE},
    value::{from_table, time, to_table},
};
use crate::{
    api::{Api, Kind, Media, Method, Operation, Parameter},
    call::Call,
    clock,
    problem::Problem,
    schema::{Schema, record},
};

const IF_UNUSED: Parameter =
    Parameter { name: "if_unused", kind: Kind::Flag, about: "Only when it has no consumers" };
const IF_EMPTY: Parameter =
    Parameter { name: "if_empty", kind: Kind::Flag, about: "Only when it has no messages" };

record! {
    /// What a queue is declared with.
    QueueSpec {
        /// It survives a restart; `true` unless it is said.
        durable: Option<bool>,
        /// It goes with its last consumer.
        auto_delete: Option<bool>,
        /// Arguments, as `x-max-length`.
        arguments: Option<Value>,
    }
}

record! {
    /// What changes of a queue.
    QueuePatch {
        /// Arguments that change; `null` takes one away, and those that are not named stay.
        arguments: std::collections::BTreeMap<String, Value>,
    }
}

const PATH: &str = "/vhosts/{vhost}/queues/{queue}";

static LIST: Operation = Operation {
    path: "/vhosts/{vhost}/queues",
    id: "listQueues",
    tag: "queues",
    summary: "Queues that the user has a right to; all with tag monitoring",
    query: list::QUERY,
    answers: list::ANSWERS,
    ..ROUTE
};
static SHOW: Operation = Operation {
    path: PATH,
    id: "showQueue",
    tag: "queues",
    summary: "A queue with its settings and what it holds",
    permission: "any right to the queue, or tag monitoring",
    ..ROUTE
};
static DECLARE: Operation = Operation {
    method: Method::Put,
    path: PATH,
    id: "putQueue",
    tag: "queues",
    summary: "Declare a queue",
    permission: "configure on the queue; read on it and write on its dead-letter exchange",
    query: &[DRY_RUN],
    headers: CONDITIONS,
    body: &[Media::json(<QueueSpec as Schema>::schema)],
    answers: PUT,
};
static CHANGE: Operation = Operation {
    method: Method::Patch,
    path: PATH,
    id: "changeQueue",
    tag: "queues",
    summary: "Change arguments while the queue is there; who declares it then must say the same",
    permission: "configure on the queue; read on it and write on its dead-letter exchange",
    query: &[DRY_RUN],
    headers: &[IF_MATCH],
    body: &[Media::json(<QueuePatch as Schema>::schema)],
    answers: OBJECT,
};
static REMOVE: Operation = Operation {
    method: Method::Delete,
    path: PATH,
    id: "deleteQueue",
    tag: "queues",
    summary: "Delete a queue with its messages",
    permission: "configure on the queue",
    query: &[IF_UNUSED, IF_EMPTY, DRY_RUN],
    headers: &[IF_MATCH],
    answers: NOTHING,
    ..ROUTE
};
static PAUSE: Operation = Operation {
    method: Method::Put,
    path: "/vhosts/{vhost}/queues/{queue}/pause",
    id: "pauseQueue",
    tag: "queues",
    summary: "Stop deliveries; publishes, expiry and limits go on",
    permission: "configure on the queue",
    query: &[DRY_RUN],
    answers: NOTHING,
    ..ROUTE
};
static RESUME: Operation = Operation {
    method: Method::Delete,
    id: "resumeQueue",
    summary: "Let deliveries go on",
    path: "/vhosts/{vhost}/queues/{queue}/pause",
    tag: "queues",
    permission: "configure on the queue",
    query: &[DRY_RUN],
    answers: NOTHING,
    ..ROUTE
};
static CONSUMERS: Operation = Operation {
    path: "/vhosts/{vhost}/queues/{queue}/consumers",
    id: "listConsumersOfQueue",
    tag: "queues",
    summary: "Who reads the queue",
    permission: "any right to the queue, or tag monitoring",
    query: list::QUERY,
    answers: list::ANSWERS,
    ..ROUTE
};
static BINDINGS: Operation = Operation {
    path: "/vhosts/{vhost}/queues/{queue}/bindings",
    id: "listBindingsOfQueue",
    tag: "queues",
    summary: "What feeds the queue",
    permission: "any right to the queue, or tag monitoring",
    query: list::QUERY,
    answers: list::ANSWERS,
    ..ROUTE
};

pub(super) fn routes(api: Api) -> Api {
    api.route(&LIST, index)
        .route(&SHOW, show)
        .route(&DECLARE, declare)
        .route(&CHANGE, change)
        .route(&REMOVE, remove)
        .route(&PAUSE, |call| pause(call, true))
        .route(&RESUME, |call| pause(call, false))
        .route(&CONSUMERS, consumers_of)
        .route(&BINDINGS, bindings_of)
}

/// A queue as JSON.
pub(super) fn shown(queue: &QueueDetails) -> Value {
    let counts = &queue.counts;
    let activity: serde_json::Map<String, Value> = queue
        .activity
        .read()
        .into_iter()
        .map(|(name, count)| (name.to_owned(), json!(count)))
        .collect();
    json!({
        "name": queue.name.as_str(),
        "vhost": queue.vhost.as_str(),
        "type": queue.kind,
        "durable": queue.durable,
        "auto_delete": queue.auto_delete,
        "exclusive": queue.owner.is_some(),
        "arguments": from_table(&queue.arguments),
        "declared_by": queue.declared_by.as_deref(),
        "policy": queue.policies.0,
        "operator_policy": queue.policies.1,
        "policy_definition": from_table(&queue.policy_definition),
        "state": if queue.paused { "paused" } else { "running" },
        "messages": {
            "total": counts.ready + counts.unsettled + counts.delayed,
            "ready": counts.ready,
            "unacked": counts.unsettled,
            "scheduled": counts.delayed,
            "bytes_ready": counts.bytes,
            "bytes_unacked": counts.unsettled_bytes,
            "in_memory": counts.in_memory,
        },
        "consumers": counts.consumers,
        "single_active_consumer": queue.single_active_consumer.as_deref(),
        "exclusive_consumer": queue.exclusive_consumer.as_deref(),
        "active_at": time(queue.active_ms),
        "dead_letters_unroutable": queue.dead_letter_unroutable,
        "activity": activity,
    })
}

/// A column that is a count of the queue.
fn count(counts: &QueueCounts, column: &str) -> Option<Value> {
    Some(json!(match column {
        "messages.total" => counts.ready + counts.unsettled + counts.delayed,
        "messages.ready" => counts.ready,
        "messages.unacked" => counts.unsettled,
        "messages.scheduled" => counts.delayed,
        "messages.bytes_ready" => counts.bytes,
        "messages.bytes_unacked" => counts.unsettled_bytes,
        "messages.in_memory" => counts.in_memory,
        "consumers" => counts.consumers.into(),
        _ => return None,
    }))
}

/// What people set of a queue.
fn set(queue: &QueueDetails) -> Value {
    json!({
        "durable": queue.durable,
        "auto_delete": queue.auto_delete,
        "arguments": from_table(&queue.arguments),
    })
}

async fn index(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    let vhost = vhost_of(&call)?;
    // Thousands of queues take a while to look at.
    caller
        .blocking("vhost", move |broker, who| {
            let list = broker.queue_lists(Some(vhost.as_str()))?.pop();
            let names = list.as_ref().map(QueueList::names).unwrap_or_default();
            let sees = |name: &&QueueName| broker.may_see(who, &vhost, "queue", name.as_str());
            let names: Cow<[QueueName]> =
                match broker.access().tags_of(who).include(Role::Monitoring) {
                    true => names.into(),
                    false => names.iter().filter(sees).cloned().collect(),
                };
            let find = |name: &QueueName| list.as_ref().and_then(|list| list.queue(name));
            let column = |name: &QueueName, column: &str| count(&find(name)?.counts(), column);
            let row = |name: &QueueName| {
                find(name).map_or(Value::Null, |queue| shown(&queue.details(None)))
            };
            let key = ("name", QueueName::as_str);
            Ok(list::page_in_order(&call, &names, key, column, row))
        })
        .await?
        .map(Json)
}

/// The queue of the path, if the caller may see it.
///
/// Errors: it is not there, or not to be seen, which look alike.
pub(super) fn find(call: &Call, caller: &Caller) -> Result<QueueRef, Problem> {
    let (vhost, queue) = (vhost_of(call)?, call.queue()?);
    let missing = || not_there("queue_not_found", "queue", queue.as_str());
    if !caller.sees(&vhost, "queue", queue.as_str()) {
        return Err(missing());
    }
    caller.broker().queue_ref(vhost.as_str(), queue.as_str()).map_err(|_| missing())
}

async fn show(call: Call) -> Result<Response, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    let details = find(&call, &caller)?.details(None);
    Ok(([etag::header(&etag::of(&set(&details)))], Json(shown(&details))).into_response())
}

async fn declare(mut call: Call) -> Result<Response, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    let (vhost, queue) = (vhost_of(&call)?, call.queue()?.as_str().to_owned());
    let spec: QueueSpec = call.json().await?;
    let arguments = spec.arguments.clone().unwrap_or_else(|| json!({}));
    let arguments = to_table(&arguments, "/arguments")?;
    may_configure(&caller, &vhost, &queue)?;
    let existing = caller.broker().queue_ref(vhost.as_str(), &queue).ok();
    let existing = existing.map(|queue| queue.details(None));
    let tag = existing.as_ref().map(|details| etag::of(&set(details)));
    etag::check(&call.headers, tag.as_deref())?;
    let declare = DeclareQueue {
        request: Default::default(),
        queue: queue.clone(),
        passive: false,
        durable: spec.durable.unwrap_or(true),
        exclusive: false,
        auto_delete: spec.auto_delete.unwrap_or(false),
        arguments,
    };
    if call.flag("dry_run") {
        let checked = caller.broker().check_queue(&declare);
        checked.map_err(|refusal| Problem::refused(&refusal, "queue"))?;
        if let Some(existing) = &existing {
            differs(existing, &declare)?;
        }
        let text = json!({ "dry_run": true, "would_create": existing.is_none() });
        return Ok(Json(text).into_response());
    }
    let is_new = existing.is_none();
    let wanted = declare.clone();
    let declared = caller
        .ask("queue", |request| {
            Command::DeclareQueue(Box::new(DeclareQueue { request, ..declare }))
        })
        .await;
    if let (Err(_), Some(existing)) = (&declared, &existing) {
        // Every difference at once, not only the first.
        differs(existing, &wanted)?;
    }
    declared?;
    let details = find(&call, &caller)?.details(None);
    if is_new {
        let change = (Value::Null, set(&details));
        caller.audit(&call, "queue.declare", object(&vhost, details.name.as_str()), change);
    }
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let tag = etag::header(&etag::of(&set(&details)));
    Ok((status, [tag], Json(shown(&details))).into_response())
}

/// A queue in the audit file.
fn object(vhost: &VhostName, queue: &str) -> String {
    format!("/vhosts/{vhost}/queues/{queue}")
}

async fn change(mut call: Call) -> Result<Response, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    let (vhost, queue) = (vhost_of(&call)?, call.queue()?.as_str().to_owned());
    let QueuePatch { arguments } = call.json().await?;
    may_configure(&caller, &vhost, &queue)?;
    let tag = etag::of(&set(&find(&call, &caller)?.details(None)));
    etag::check(&call.headers, Some(&tag))?;
    let mut changes = Vec::new();
    for (name, value) in &arguments {
        let new = match value {
            Value::Null => None,
            value => to_table(&json!({ name.as_str(): value }), "/arguments")?.pop(),
        };
        changes.push((name.clone(), new.map(|(_, value)| value)));
    }
    let is_dry = call.flag("dry_run");
    let (place, name) = (object(&vhost, &queue), queue.clone());
    let changed = caller.blocking("queue", move |broker, who| {
        broker.change_queue(who, (&vhost, &name), &changes, is_dry, clock::now())
    });
    let changed = changed.await?;
    let (before, after) = (from_table(&changed.before), from_table(&changed.after));
    if is_dry {
        let text = json!({ "dry_run": true, "before": before, "after": after });
        return Ok(Json(text).into_response());
    }
    caller.audit(&call, "queue.change", place, (before, after));
    let details = find(&call, &caller)?.details(None);
    let tag = etag::header(&etag::of(&set(&details)));
    Ok(([tag], Json(shown(&details))).into_response())
}

/// Errors: the right is missing.
fn may_configure(caller: &Caller, vhost: &VhostName, queue: &str) -> Result<(), Problem> {
    let access = caller.broker().access();
    let permit = access.permit::<Configure>(&caller.who, vhost, "queue", queue);
    permit.map(drop).map_err(|refusal| Problem::refused(&refusal, "queue"))
}

/// Errors: what is asked for differs from what is there, with every difference.
fn differs(existing: &QueueDetails, wanted: &DeclareQueue) -> Result<(), Problem> {
    let want = json!({
        "durable": wanted.durable,
        "auto_delete": wanted.auto_delete,
        "arguments": from_table(&wanted.arguments),
    });
    let object = format!("queue '{}'", existing.name);
    arguments_differ(&object, &set(existing), &want).map_or(Ok(()), Err)
}

async fn remove(call: Call) -> Result<Response, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    let (vhost, queue) = (vhost_of(&call)?, call.queue()?.as_str().to_owned());
    may_configure(&caller, &vhost, &queue)?;
    let found = caller.broker().queue_ref(vhost.as_str(), &queue);
    let details = found.map_err(|refusal| Problem::refused(&refusal, "queue"))?.details(None);
    etag::check(&call.headers, Some(&etag::of(&set(&details))))?;
    let (if_unused, if_empty) = (call.flag("if_unused"), call.flag("if_empty"));
    let counts = details.counts;
    let in_the_way = match () {
        () if if_unused && counts.consumers > 0 => Some(("in_use", "has consumers")),
        () if if_empty && counts.ready > 0 => Some(("not_empty", "has messages")),
        () => None,
    };
    if let Some((code, why)) = in_the_way {
        let text = format!("queue '{queue}' {why}");
        return Err(Problem::new(StatusCode::CONFLICT, code, text));
    }
    if call.flag("dry_run") {
        return Ok(Json(json!({ "dry_run": true, "messages": counts.ready })).into_response());
    }
    let (object, before) = (object(&vhost, &queue), json!({ "messages": counts.ready }));
    caller
        .ask("queue", |request| Command::DeleteQueue { request, queue, if_unused, if_empty })
        .await?;
    caller.audit(&call, "queue.delete", object, (before, Value::Null));
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn pause(call: Call, paused: bool) -> Result<Response, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    let (vhost, queue) = (vhost_of(&call)?, call.queue()?.as_str().to_owned());
    if call.flag("dry_run") {
        may_configure(&caller, &vhost, &queue)?;
        let details = find(&call, &caller)?.details(None);
        let text = json!({ "dry_run": true, "changes": details.paused != paused });
        return Ok(Json(text).into_response());
    }
    let (object, action) =
        (object(&vhost, &queue), if paused { "queue.pause" } else { "queue.resume" });
    caller.ask("queue", |request| Command::PauseQueue { request, queue, paused }).await?;
    caller.audit(&call, action, object, (Value::Null, Value::Null));
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn consumers_of(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    let found: Vec<ConsumerView> = find(&call, &caller)?.consumers();
    list::page(&call, found, consumers::key, |consumer| consumers::shown(caller.broker(), consumer))
        .map(Json)
}

async fn bindings_of(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    let queue = find(&call, &caller)?;
    let all = caller.broker().bindings(Some(queue.vhost().as_str()));
    let mut found = all.map_err(|refusal| Problem::refused(&refusal, "vhost"))?;
    found.retain(|binding| binding.to_queue && binding.destination == queue.name().as_str());
    list::page(&call, found, bindings::key, bindings::shown).map(Json)
}
