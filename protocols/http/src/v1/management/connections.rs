//! Connections of all protocols.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use polymq_broker::{ConnectionRef, Role};
use polymq_model::ConnectionId;
use serde_json::{Value, json};

use super::{
    caller::Caller,
    list,
    problems::not_there,
    route::{DRY_RUN, NOTHING, ROUTE},
    value::{from_table, time},
};
use crate::{
    api::{Api, Kind, Method, Operation, Parameter},
    call::Call,
    problem::Problem,
};

const REASON: Parameter =
    Parameter { name: "reason", kind: Kind::Text, about: "What the client is told" };

static LIST: Operation = Operation {
    path: "/connections",
    id: "listConnections",
    tag: "connections",
    summary: "Connections of all protocols",
    permission: "own connections; all with tag monitoring",
    query: list::QUERY,
    answers: list::ANSWERS,
    ..ROUTE
};
static SHOW: Operation = Operation {
    path: "/connections/{id}",
    id: "showConnection",
    tag: "connections",
    summary: "A connection with its channels",
    permission: "own connections; all with tag monitoring",
    ..ROUTE
};
static CLOSE: Operation = Operation {
    method: Method::Delete,
    path: "/connections/{id}",
    id: "closeConnection",
    tag: "connections",
    summary: "Close a connection; its client is told why in its protocol's terms",
    permission: "own connections; all with tag administrator",
    query: &[REASON, DRY_RUN],
    answers: NOTHING,
    ..ROUTE
};

pub(super) fn routes(api: Api) -> Api {
    api.route(&LIST, index).route(&SHOW, show).route(&CLOSE, close)
}

/// A connection as JSON.
pub(super) fn shown(connection: &ConnectionRef) -> Value {
    let (peer, introduction) = (connection.peer(), connection.introduction());
    let traffic = connection.traffic();
    json!({
        "id": connection.id.0.to_string(),
        "name": connection.name(),
        "protocol": connection.protocol(),
        "protocol_version": introduction.protocol,
        "user": connection.user.as_ref().map(|user| user.as_str()),
        "vhost": connection.vhost.as_ref().map(|vhost| vhost.as_str()),
        "client_id": introduction.client_id,
        "client_properties": from_table(&introduction.client_properties),
        "mechanism": introduction.mechanism,
        "peer": peer.address.map(|address| address.to_string()),
        "local": peer.local.map(|address| address.to_string()),
        "listener": &*peer.listener,
        "tls": peer.tls.as_ref().map(|tls| json!({
            "version": tls.version,
            "cipher": tls.cipher,
            "certificate_user": tls.certificate_user,
        })),
        "connected_at": time(connection.connected_ms()),
        "state": if connection.is_blocked { "blocked" } else { "running" },
        "channels": connection.channel_count(),
        "heartbeat_secs": introduction.heartbeat_secs,
        "bytes_in": traffic.bytes_in,
        "bytes_out": traffic.bytes_out,
        "waiting_bytes": connection.waiting_bytes(),
        "published": connection.activity().published,
        "delivered": connection.activity().delivered_in_any_way(),
    })
}

/// The connections that the caller may see, or may close.
fn visible(caller: &Caller, role: Role) -> Vec<ConnectionRef> {
    let sees_all = caller.has(role);
    let mut all = caller.broker().connection_refs();
    all.retain(|connection| sees_all || connection.user.as_ref() == Some(&caller.who.user));
    all
}

async fn index(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let key = |connection: &ConnectionRef| format!("{:020}", connection.id.0);
    list::page(&call, visible(&caller, Role::Monitoring), key, shown).map(Json)
}

fn find(call: &Call, caller: &Caller, role: Role) -> Result<ConnectionRef, Problem> {
    let missing = || not_there("connection_not_found", "connection", call.path("id"));
    let id = ConnectionId(call.path("id").parse().map_err(|_| missing())?);
    visible(caller, role).into_iter().find(|one| one.id == id).ok_or_else(missing)
}

async fn show(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let found = find(&call, &caller, Role::Monitoring)?;
    let mut connection = shown(&found);
    let channel = |channel: &polymq_broker::ChannelView| {
        json!({
            "number": channel.number,
            "prefetch": channel.prefetch,
            "group_prefetch": channel.group_prefetch,
            "unacked": channel.unsettled,
            "unconfirmed": channel.unconfirmed,
            "confirming": channel.is_confirming,
            "transactional": channel.is_transactional,
        })
    };
    connection["channel_list"] = found.channels(None).iter().map(channel).collect();
    Ok(Json(connection))
}

async fn close(call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let found = find(&call, &caller, Role::Administrator)?;
    if call.flag("dry_run") {
        return Ok(Json(json!({ "dry_run": true, "name": found.name() })).into_response());
    }
    let reason = call.query("reason").unwrap_or("closed by an administrator");
    let closed = caller.manage(&call).close_connection(&found, reason);
    closed.map_err(|refusal| Problem::refused(&refusal, "connection"))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
