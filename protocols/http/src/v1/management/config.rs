//! The configuration: what holds, where it comes from, and what the files say now.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, http::StatusCode};
use serde_json::{Value, json};

use super::{
    caller::{Caller, blocking},
    list,
    route::{ADMINISTRATOR, DRY_RUN, OBJECT, ROUTE},
};
use crate::{
    ConfigChange, ConfigRefusal, ConfigValue,
    api::{Api, Media, Method, Operation},
    call::Call,
    problem::Problem,
    schema::{Schema, record},
};

record! {
    /// What changes of the configuration.
    ConfigPatch {
        /// New values by their keys, as `limits.connections`; `null` takes a key out of the file.
        values: BTreeMap<String, Value>,
    }
}

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
    query: &[DRY_RUN],
    answers: OBJECT,
    ..ROUTE
};

static CHANGE: Operation = Operation {
    method: Method::Patch,
    path: "/config",
    id: "changeConfig",
    tag: "server",
    summary: "Write values into the configuration file and apply them, as far as a reload does",
    permission: ADMINISTRATOR,
    query: &[DRY_RUN],
    body: &[Media::json(<ConfigPatch as Schema>::schema)],
    answers: OBJECT,
    ..ROUTE
};

pub(super) fn routes(api: Api) -> Api {
    api.route(&SHOW, show)
        .route(&CHANGE, change)
        .route(&CHECK, |call| look_again(call, false))
        .route(&RELOAD, |call| {
            let applies = !call.flag("dry_run");
            look_again(call, applies)
        })
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
    let changes = looked.await?.map_err(invalid)?;
    let action = if applies { Some("config.reload") } else { None };
    Ok(told(&call, &caller, &changes, action))
}

async fn change(mut call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let ConfigPatch { values } = call.json().await?;
    if values.is_empty() {
        return Err(Problem::bad("out_of_range", "there is no value to change").at("/values"));
    }
    let values: Vec<_> = values
        .into_iter()
        .map(|(key, value)| (key, Some(value).filter(|v| !v.is_null())))
        .collect();
    let (configuration, is_dry) =
        (Arc::clone(&call.site.watched.configuration), call.flag("dry_run"));
    let changed = blocking(move || configuration.change(&values, is_dry)).await?;
    let changes = changed.map_err(|refusal| match refusal {
        ConfigRefusal::Invalid(mistakes) => invalid(mistakes),
        ConfigRefusal::ReadOnly { why, lines } => {
            Problem::new(StatusCode::CONFLICT, "config_read_only", why).with("lines", lines)
        }
    })?;
    let action = if is_dry { None } else { Some("config.change") };
    Ok(told(&call, &caller, &changes, action))
}

fn invalid(mistakes: Vec<String>) -> Problem {
    let text = format!("nothing has changed: {}", mistakes.join("; "));
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    Problem::new(status, "config_invalid", text).with("mistakes", mistakes)
}

/// The answer; what has happened is written down.
fn told(
    call: &Call,
    caller: &Caller,
    changes: &[ConfigChange],
    action: Option<&'static str>,
) -> Json<Value> {
    let shown: Vec<Value> = changes.iter().map(shown).collect();
    if let Some(action) = action {
        let after = json!({ "changes": shown });
        caller.audit(call, action, "/config".to_owned(), (Value::Null, after));
    }
    Json(json!({ "dry_run": action.is_none(), "changes": shown }))
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
