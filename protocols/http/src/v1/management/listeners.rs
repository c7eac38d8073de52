//! Listeners: which there are, stopping one and letting it go on.

use std::sync::Arc;

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    caller::{Caller, blocking},
    list,
    problems::not_there,
    route::{ADMINISTRATOR, DRY_RUN, MONITORING, OBJECT, ROUTE},
    value::time,
};
use crate::{
    OpenPort, Watched,
    api::{Api, Media, Method, Operation},
    call::Call,
    problem::Problem,
    schema::{Schema, record},
};

record! {
    /// What becomes of a listener.
    ListenerPatch {
        /// Whether it takes new connections; those that are there go on either way.
        running: bool,
    }
}

static LIST: Operation = Operation {
    path: "/listeners",
    id: "listListeners",
    tag: "server",
    summary: "Ports, open ones and stopped ones",
    permission: MONITORING,
    query: list::QUERY,
    answers: list::ANSWERS,
    ..ROUTE
};
static SHOW: Operation = Operation {
    path: "/listeners/{name}",
    id: "showListener",
    tag: "server",
    summary: "A listener with its ports",
    permission: MONITORING,
    ..ROUTE
};
static RUN: Operation = Operation {
    method: Method::Put,
    path: "/listeners/{name}",
    id: "putListener",
    tag: "server",
    summary: "Stop a listener, or let it go on; a restart of the server lets all go on",
    permission: ADMINISTRATOR,
    query: &[DRY_RUN],
    body: &[Media::json(<ListenerPatch as Schema>::schema)],
    answers: OBJECT,
    ..ROUTE
};

pub(super) fn routes(api: Api) -> Api {
    api.route(&LIST, index).route(&SHOW, show).route(&RUN, run)
}

/// All ports as JSON.
pub(super) fn all(watched: &Watched) -> Vec<Value> {
    let open = watched.listeners.open();
    let stopped = watched.listeners.stopped();
    let rows = open.iter().map(|port| shown(port, true));
    rows.chain(stopped.iter().map(|port| shown(port, false))).collect()
}

fn shown(port: &OpenPort, is_running: bool) -> Value {
    let certificate = port.certificate.as_ref();
    let ends = certificate.map_or(0, |one| one.expires_unix_secs.saturating_mul(1000));
    json!({
        "name": port.name,
        "protocol": port.protocol,
        "address": port.address.to_string(),
        "running": is_running,
        "tls": port.has_tls,
        "certificate": certificate.map(|one| one.name.as_str()),
        "certificate_expires_at": time(ends),
    })
}

/// A listener, of which there may be several ports.
fn find(watched: &Watched, name: &str) -> Result<Value, Problem> {
    let ports: Vec<Value> = all(watched).into_iter().filter(|port| port["name"] == *name).collect();
    let is_running = ports.iter().any(|port| port["running"] == true);
    match ports.is_empty() {
        true => Err(not_there("listener_not_found", "listener", name)),
        false => Ok(json!({ "name": name, "running": is_running, "ports": ports })),
    }
}

async fn index(call: Call) -> Result<Json<Value>, Problem> {
    Caller::anywhere(&call).await?;
    let key = |port: &Value| port["address"].as_str().unwrap_or_default().to_owned();
    list::page(&call, all(&call.site.watched), key, Value::clone).map(Json)
}

async fn show(call: Call) -> Result<Json<Value>, Problem> {
    Caller::anywhere(&call).await?;
    find(&call.site.watched, call.path("name")).map(Json)
}

async fn run(mut call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let ListenerPatch { running } = call.json().await?;
    let name = call.path("name").to_owned();
    let before = find(&call.site.watched, &name)?;
    if !running && *call.socket.peer.listener == *name {
        let text = format!("this request has come by listener '{name}'; ask by another one");
        return Err(Problem::new(StatusCode::CONFLICT, "in_use", text));
    }
    if call.flag("dry_run") {
        let changes = before["running"] != running;
        return Ok(Json(json!({ "dry_run": true, "changes": changes })).into_response());
    }
    let (listeners, of) = (Arc::clone(&call.site.watched.listeners), name.clone());
    let done = blocking(move || listeners.run(&of, running)).await?;
    let is_changed =
        done.map_err(|why| Problem::new(StatusCode::CONFLICT, "listener_failed", why))?;
    if is_changed {
        let action = if running { "listener.start" } else { "listener.stop" };
        caller.audit(&call, action, format!("/listeners/{name}"), Default::default());
    }
    find(&call.site.watched, &name).map(|found| Json(found).into_response())
}
