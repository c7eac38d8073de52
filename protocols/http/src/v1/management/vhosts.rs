//! Virtual hosts, and what they may use.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use polymq_broker::{VhostLimits, VhostRecord, VhostView};
use serde_json::{Value, json};

use super::{
    caller::{Caller, vhost_of},
    etag, list,
    route::{ADMINISTRATOR, CONDITIONS, DRY_RUN, IF_MATCH, NOTHING, PUT, ROUTE},
};
use crate::{
    api::{Api, Media, Method, Operation},
    call::Call,
    problem::Problem,
    schema::{Schema, record},
};

record! {
    /// What is known about a virtual host.
    VhostSpec {
        /// For people.
        description: Option<String>,
        /// For people and tools.
        tags: Option<Vec<String>>,
        /// The type of queues that are declared without one: `classic` or `quorum`.
        default_queue_type: Option<String>,
        /// Deleting it is refused.
        protected_from_deletion: Option<bool>,
    }
}

record! {
    /// The most that a virtual host may use; what is not said is not bounded, and 0 blocks.
    VhostBounds {
        /// Open connections.
        connections_max: Option<u64>,
        /// Queues, those of client sessions included.
        queues_max: Option<u64>,
        /// Bytes of ready messages; above this its publishers wait.
        bytes_high: Option<u64>,
        /// Bytes in memory of the retained messages of its clients.
        retained_bytes_max: Option<u64>,
        /// Retained messages of its clients.
        retained_count_max: Option<u64>,
        /// Bytes of the largest body that its clients may publish.
        message_bytes_max: Option<u64>,
    }
}

static LIST: Operation = Operation {
    path: "/vhosts",
    id: "listVhosts",
    tag: "vhosts",
    summary: "Virtual hosts that the user may see",
    permission: "tag management; all with tag monitoring",
    query: list::QUERY,
    answers: list::ANSWERS,
    ..ROUTE
};
static SHOW: Operation = Operation {
    path: "/vhosts/{vhost}",
    id: "showVhost",
    tag: "vhosts",
    summary: "A virtual host",
    permission: "tag management and a permission there, or tag monitoring",
    ..ROUTE
};
static SAVE: Operation = Operation {
    method: Method::Put,
    path: "/vhosts/{vhost}",
    id: "putVhost",
    tag: "vhosts",
    summary: "Create a virtual host, or change what is known about it",
    permission: ADMINISTRATOR,
    query: &[DRY_RUN],
    headers: CONDITIONS,
    body: &[Media::json(<VhostSpec as Schema>::schema)],
    answers: PUT,
};
static REMOVE: Operation = Operation {
    method: Method::Delete,
    path: "/vhosts/{vhost}",
    id: "deleteVhost",
    tag: "vhosts",
    summary: "Delete a virtual host with everything in it",
    permission: ADMINISTRATOR,
    query: &[DRY_RUN],
    headers: &[IF_MATCH],
    answers: NOTHING,
    ..ROUTE
};
static LIMITS: Operation = Operation {
    path: "/vhosts/{vhost}/limits",
    id: "showVhostLimits",
    tag: "vhosts",
    summary: "What a virtual host may use, and uses",
    permission: "tag management and a permission there, or tag monitoring",
    ..ROUTE
};
static BOUND: Operation = Operation {
    method: Method::Put,
    path: "/vhosts/{vhost}/limits",
    id: "putVhostLimits",
    tag: "vhosts",
    summary: "Bound a virtual host; what is there already stays",
    permission: ADMINISTRATOR,
    query: &[DRY_RUN],
    body: &[Media::json(<VhostBounds as Schema>::schema)],
    answers: PUT,
    ..ROUTE
};
static UNBOUND: Operation = Operation {
    method: Method::Delete,
    path: "/vhosts/{vhost}/limits",
    id: "deleteVhostLimits",
    tag: "vhosts",
    summary: "Remove all bounds of a virtual host",
    permission: ADMINISTRATOR,
    query: &[DRY_RUN],
    answers: NOTHING,
    ..ROUTE
};

pub(super) fn routes(api: Api) -> Api {
    api.route(&LIST, index)
        .route(&SHOW, show)
        .route(&SAVE, save)
        .route(&REMOVE, remove)
        .route(&LIMITS, limits)
        .route(&BOUND, bound)
        .route(&UNBOUND, unbound)
}

fn shown(vhost: &VhostView) -> Value {
    let record = &vhost.record;
    json!({
        "name": vhost.name.as_str(),
        "description": record.description,
        "tags": record.tags,
        "default_queue_type": record.default_queue_type,
        "protected_from_deletion": record.protected_from_deletion,
        "connections": vhost.connections,
        "queues": vhost.queues,
        "limits": bounds(&vhost.limits),
    })
}

fn bounds(limits: &VhostLimits) -> Value {
    json!({
        "connections_max": limits.connections_max,
        "queues_max": limits.queues_max,
        "bytes_high": limits.bytes_high,
        "retained_bytes_max": limits.retained_bytes_max,
        "retained_count_max": limits.retained_count_max,
        "message_bytes_max": limits.message_bytes_max,
    })
}

fn tag(vhost: &VhostView) -> String {
    etag::of(&serde_json::to_value(&vhost.record).unwrap_or_default())
}

async fn index(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let all = caller.manage(&call).vhosts().map_err(|r| Problem::refused(&r, "vhost"))?;
    list::page(&call, all, |vhost| vhost.name.as_str().to_owned(), shown).map(Json)
}

async fn show(call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let found = caller.manage(&call).vhost(&vhost_of(&call)?);
    let found = found.map_err(|refusal| Problem::refused(&refusal, "vhost"))?;
    Ok(([etag::header(&tag(&found))], Json(shown(&found))).into_response())
}

async fn save(mut call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let name = vhost_of(&call)?;
    let spec: VhostSpec = call.json().await?;
    let manager = caller.manage(&call);
    let existing = manager.vhost(&name).ok();
    etag::check(&call.headers, existing.as_ref().map(tag).as_deref())?;
    let before = existing.as_ref().map(|found| found.record.clone()).unwrap_or_default();
    let record = VhostRecord {
        description: spec.description.unwrap_or(before.description),
        tags: spec.tags.unwrap_or(before.tags),
        default_queue_type: spec.default_queue_type.or(before.default_queue_type),
        protected_from_deletion: spec
            .protected_from_deletion
            .unwrap_or(before.protected_from_deletion),
    };
    if call.flag("dry_run") {
        let text = json!({ "dry_run": true, "would_create": existing.is_none() });
        return Ok(Json(text).into_response());
    }
    let is_new = manager.put_vhost(&name, record);
    let is_new = is_new.map_err(|refusal| Problem::refused(&refusal, "vhost"))?;
    let found = manager.vhost(&name).map_err(|refusal| Problem::refused(&refusal, "vhost"))?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, [etag::header(&tag(&found))], Json(shown(&found))).into_response())
}

async fn remove(call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let (name, manager) = (vhost_of(&call)?, caller.manage(&call));
    let refused = |refusal| Problem::refused(&refusal, "vhost");
    let found = manager.vhost(&name).map_err(refused)?;
    etag::check(&call.headers, Some(&tag(&found)))?;
    if found.record.protected_from_deletion {
        let text = format!("vhost '{name}' is protected from deletion");
        return Err(Problem::new(StatusCode::CONFLICT, "protected", text));
    }
    if call.flag("dry_run") {
        let text = json!({
            "dry_run": true, "queues": found.queues, "connections": found.connections,
        });
        return Ok(Json(text).into_response());
    }
    manager.delete_vhost(&name).map_err(refused)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn limits(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let found = caller.manage(&call).vhost(&vhost_of(&call)?);
    let found = found.map_err(|refusal| Problem::refused(&refusal, "vhost"))?;
    let mut shown = bounds(&found.limits);
    shown["uses"] = json!({
        "connections": found.connections,
        "queues": found.queues,
        "retained_bytes": found.retained.bytes,
        "retained_count": found.retained.count,
    });
    Ok(Json(shown))
}

async fn bound(mut call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let spec: VhostBounds = call.json().await?;
    let limits = VhostLimits {
        connections_max: spec.connections_max,
        queues_max: spec.queues_max,
        bytes_high: spec.bytes_high,
        retained_bytes_max: spec.retained_bytes_max,
        retained_count_max: spec.retained_count_max,
        message_bytes_max: spec.message_bytes_max,
    };
    set(&call, &caller, limits, StatusCode::OK)
}

async fn unbound(call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    set(&call, &caller, VhostLimits::default(), StatusCode::NO_CONTENT)
}

fn set(
    call: &Call,
    caller: &Caller,
    limits: VhostLimits,
    done: StatusCode,
) -> Result<Response, Problem> {
    let (name, manager) = (vhost_of(call)?, caller.manage(call));
    let refused = |refusal| Problem::refused(&refusal, "vhost");
    let before = manager.vhost(&name).map_err(refused)?;
    let shown = bounds(&limits);
    if call.flag("dry_run") {
        let text = json!({ "dry_run": true, "changes": before.limits != limits });
        return Ok(Json(text).into_response());
    }
    manager.set_vhost_limits(&name, limits).map_err(refused)?;
    match done {
        StatusCode::NO_CONTENT => Ok(done.into_response()),
        done => Ok((done, Json(shown)).into_response()),
    }
}
