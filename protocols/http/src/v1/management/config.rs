//! The configuration: what holds, where it comes from, and what the files say now.

use std::sync::Arc;

use axum::{Json, http::StatusCode};
use serde_json::{Value, json};

use super::{
    caller::{Caller, blocking},
    list,
    route::{ADMINISTRATOR, OBJECT, ROUTE},
};
use crate::{
    ConfigChange, ConfigValue,
    api::{Api, Method, Operation},
    call::Call,
    problem::Problem,
};

static SHOW: Operation = Operation {
    path: "/config",
    id: "listConfig",
    tag: "server",
    summary: "Every value of the configuration and where it comes from; secrets are masked",
    permission: ADMINISTRATOR,
    query: list::QUERY,
    answers: list::ANSWERS,
    ..ROUTE
};
static CHECK: Operation = Operation {
    method: Method::Post,
    path: "/config:check",
    id: "checkConfig",
    tag: "server",
    summary: "Read the files again and tell what a reload would change; `needs_restart` says what \
              waits for one",
    permission: ADMINISTRATOR,
    answers: OBJECT,
    ..ROUTE
};
static RELOAD: Operation = Operation {
    method: Method::Post,
    path: "/config:reload",
    id: "reloadConfig",
    tag: "server",
    summary: "Read the files again and apply what can be applied; with a mistake nothing changes",
    permission: ADMINISTRATOR,
    answers: OBJECT,
    ..ROUTE
};

pub(super) fn routes(api: Api) -> Api {
    api.route(&SHOW, show)
        .route(&CHECK, |call| look_again(call, false))
        .route(&RELOAD, |call| look_again(call, true))
}

async fn show(call: Call) -> Result<Json<Value>, Problem> {
    Caller::anywhere(&call).await?;
    let values = call.site.watched.configuration.effective();
    let row = |value: &ConfigValue| {
        json!({
            "key": value.key,
            "value": value.value,
            "origin": value.origin,
            "reloadable": value.is_reloadable,
            "waiting": value.waiting.as_ref().map(|(value, origin)| {
                json!({ "value": value, "origin": origin })
            }),
        })
    };
    list::page(&call, values, |value| value.key.clone(), row).map(Json)
}

async fn look_again(call: Call, applies: bool) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let configuration = Arc::clone(&call.site.watched.configuration);
    let looked = blocking(move || match applies {
        true => configuration.reload(),
        false => configuration.check(),
    });
    let changes = looked.await?.map_err(|mistakes| {
        let text = format!("nothing has changed: {}", mistakes.join("; "));
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Problem::new(status, "config_invalid", text).with("mistakes", mistakes)
    })?;
    let shown: Vec<Value> = changes.iter().map(shown).collect();
    if applies {
        let (object, after) = ("/config".to_owned(), json!({ "changes": shown }));
        caller.manage(&call).audit("config.reload", object, Value::Null, after);
    }
    Ok(Json(json!({ "dry_run": !applies, "changes": shown })))
}

fn shown(change: &ConfigChange) -> Value {
    json!({
        "key": change.key,
        "from": change.from,
        "to": change.to,
        "origin": change.origin,
        "needs_restart": !change.is_applied,
    })
}
