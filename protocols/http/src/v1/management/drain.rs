//! The end of the process, as an administrator asks for it.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    caller::Caller,
    route::{ADMINISTRATOR, DRY_RUN, ROUTE, object},
};
use crate::{
    api::{Answer, Api, Media, Method, Operation},
    call::{BODY_BYTES_MAX, Call},
    problem::Problem,
};

static DRAIN: Operation = Operation {
    method: Method::Post,
    path: "/server:drain",
    id: "drainServer",
    tag: "server",
    summary: "Take nobody in any more, tell clients, let them finish, and end the process",
    permission: ADMINISTRATOR,
    query: &[DRY_RUN],
    answers: &[Answer { status: 202, about: "The end has begun", media: &[Media::json(object)] }],
    ..ROUTE
};

pub(super) fn routes(api: Api) -> Api {
    api.route(&DRAIN, drain)
}

async fn drain(mut call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    // The answer closes the connection: whoever still sent a body would not get to read it.
    call.bytes(BODY_BYTES_MAX).await?;
    let name = call.site.watched.name.clone();
    let connections = call.site.watched.driver.values().open;
    if call.flag("dry_run") {
        let shown = json!({ "dry_run": true, "name": name, "connections": connections });
        return Ok(Json(shown).into_response());
    }
    caller.manage(&call).audit("server.drain", name.clone(), Value::Null, Value::Null);
    (call.site.watched.drain)();
    let shown = json!({ "name": name, "phase": "draining", "connections": connections });
    Ok((StatusCode::ACCEPTED, Json(shown)).into_response())
}
