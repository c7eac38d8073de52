//! The servers that work together, and what they have loaded. There is one server, and it loads
//! nothing yet.

use axum::Json;
use serde_json::{Value, json};

use super::{
    caller::Caller,
    list,
    route::{MONITORING, ROUTE},
};
use crate::{
    Phase, Site,
    api::{Api, Operation},
    call::Call,
    problem::Problem,
};

static CLUSTER: Operation = Operation {
    path: "/cluster",
    id: "showCluster",
    tag: "server",
    summary: "The cluster with its members, of which there is one",
    permission: MONITORING,
    ..ROUTE
};
static PLUGINS: Operation = Operation {
    path: "/plugins",
    id: "listPlugins",
    tag: "server",
    summary: "Plugins with their states; none can be loaded yet",
    permission: MONITORING,
    query: list::QUERY,
    answers: list::ANSWERS,
    ..ROUTE
};

pub(super) fn routes(api: Api) -> Api {
    api.route(&CLUSTER, cluster).route(&PLUGINS, plugins)
}

/// The members as rows.
pub(super) fn members(site: &Site) -> Vec<Value> {
    let watched = &site.watched;
    let state = match watched.phase.now() {
        Phase::Recovering => "recovering",
        Phase::Serving => "owner",
        Phase::Draining => "draining",
    };
    vec![json!({
        "name": watched.name,
        "state": state,
        "version": env!("CARGO_PKG_VERSION"),
    })]
}

async fn cluster(call: Call) -> Result<Json<Value>, Problem> {
    Caller::anywhere(&call).await?;
    let (name, members) = (call.site.cluster_name(), members(&call.site));
    Ok(Json(json!({ "name": name, "this": call.site.watched.name, "members": members })))
}

async fn plugins(call: Call) -> Result<Json<Value>, Problem> {
    Caller::anywhere(&call).await?;
    list::page(&call, Vec::new(), String::clone, |name| json!({ "name": name })).map(Json)
}
