//! Definitions: everything but messages, out and in. The document is that of `/api/definitions`.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use polymq_broker::{Definition, Difference, Effect, ImportPlan};
use polymq_contract::{Refusal, RefusalKind};
use serde_json::{Value, json};

use super::{
    caller::{Caller, blocking},
    route::{ADMINISTRATOR, DRY_RUN, OBJECT, ROUTE, object},
};
use crate::{
    api::{Api, Kind, Media, Method, Operation, Parameter},
    call::Call,
    clock,
    problem::Problem,
    rabbitmq::definitions::{Origin, document, read},
};

/// The largest document, in bytes.
const BYTES_MAX: usize = 20_000_000;
/// Changes that are told one by one.
const NAMED_MAX: usize = 1000;

const ON_CONFLICT: Parameter = Parameter {
    name: "on_conflict",
    kind: Kind::Word(&["fail", "skip"]),
    about: "What happens when a queue or exchange is there with other settings: nothing at all \
            happens (`fail`, which is usual), or it stays as it is",
};

static EXPORT: Operation = Operation {
    path: "/definitions",
    id: "exportDefinitions",
    tag: "definitions",
    summary: "Everything that was declared, in the form of RabbitMQ; passwords as hashes",
    permission: ADMINISTRATOR,
    ..ROUTE
};
static DIFF: Operation = Operation {
    method: Method::Post,
    path: "/definitions:diff",
    id: "compareDefinitions",
    tag: "definitions",
    summary: "What importing a document would create, change and leave",
    permission: ADMINISTRATOR,
    body: &[Media::json(object)],
    answers: OBJECT,
    ..ROUTE
};
static IMPORT: Operation = Operation {
    method: Method::Post,
    path: "/definitions:import",
    id: "importDefinitions",
    tag: "definitions",
    summary: "Bring in a document: all of it or nothing; what it does not name stays",
    permission: ADMINISTRATOR,
    query: &[DRY_RUN, ON_CONFLICT],
    body: &[Media::json(object)],
    answers: OBJECT,
    ..ROUTE
};

pub(super) fn routes(api: Api) -> Api {
    api.route(&EXPORT, export).route(&DIFF, diff).route(&IMPORT, import)
}

async fn export(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let (manager, broker) = (caller.manage(&call), caller.broker().clone());
    let made = move || document(&Origin { manager: &manager, broker: &broker });
    let made = blocking(made).await?;
    made.map(|document| Json(Value::Object(document)))
        .map_err(|failure| Problem::new(failure.status, "invalid_definitions", failure.reason()))
}

/// The definitions in the body.
async fn definitions(call: &mut Call, caller: &Caller) -> Result<Vec<Definition>, Problem> {
    call.expect_content_type(&["application/json"])?;
    let bytes = call.bytes(BYTES_MAX).await?;
    // For the place of a mistake, and a bound of depth.
    let _: serde_json::Map<String, Value> = crate::json::read(&bytes)?;
    let manager = caller.manage(call);
    let found = read(&Origin { manager: &manager, broker: caller.broker() }, None, &bytes).await;
    found.map_err(|failure| Problem::bad("invalid_definitions", failure.reason()))
}

async fn diff(mut call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let found = definitions(&mut call, &caller).await?;
    let manager = caller.manage(&call);
    let plan = blocking(move || manager.plan_import(found)).await?.map_err(refused)?;
    Ok(Json(shown(&plan)))
}

async fn import(mut call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let found = definitions(&mut call, &caller).await?;
    let (is_dry, skips) = (call.flag("dry_run"), call.query("on_conflict") == Some("skip"));
    let manager = caller.manage(&call);
    let done = blocking(move || {
        let plan = manager.plan_import(found.clone()).map_err(refused)?;
        if !plan.wrong.is_empty() && !is_dry {
            let text = format!("nothing was imported: {}", plan.wrong.join("; "));
            return Err(Problem::bad("invalid_definitions", text).with("wrong", plan.wrong));
        }
        let conflicts = conflicts(&plan);
        if !conflicts.is_empty() && !skips && !is_dry {
            let text = "nothing was imported: some objects are there with other settings";
            let problem = Problem::new(StatusCode::CONFLICT, "arguments_differ", text);
            return Err(problem.with("conflicts", conflicts));
        }
        if !is_dry {
            manager.import(found, clock::now()).map_err(refused)?;
        }
        Ok(plan)
    });
    let mut told = shown(&done.await??);
    told["dry_run"] = json!(is_dry);
    Ok(Json(told).into_response())
}

fn refused(refusal: Refusal) -> Problem {
    match refusal.kind {
        RefusalKind::NotFound => Problem::bad("invalid_definitions", refusal.text),
        _ => Problem::refused(&refusal, "definitions"),
    }
}

fn conflicts(plan: &ImportPlan) -> Vec<Value> {
    let conflict = |one: &Difference| match &one.effect {
        Effect::Conflict(why) => Some(json!({ "kind": one.kind, "name": one.name, "detail": why })),
        Effect::Unchanged | Effect::Create | Effect::Change { .. } => None,
    };
    plan.differences.iter().filter_map(conflict).take(NAMED_MAX).collect()
}

/// What an import would do: the first changes one by one, and how many there are of each kind.
fn shown(plan: &ImportPlan) -> Value {
    let mut changes = Vec::new();
    let (mut created, mut changed, mut conflicting, mut unchanged) = (0_u64, 0_u64, 0_u64, 0_u64);
    for Difference { kind, name, effect } in &plan.differences {
        let mut row = json!({ "kind": kind, "name": name });
        match effect {
            Effect::Unchanged => {
                unchanged += 1;
                continue;
            }
            Effect::Create => {
                created += 1;
                row["change"] = json!("create");
            }
            Effect::Change { before, after } => {
                changed += 1;
                row["change"] = json!("change");
                row["before"] = before.clone();
                row["after"] = after.clone();
            }
            Effect::Conflict(reason) => {
                conflicting += 1;
                row["change"] = json!("conflict");
                row["detail"] = json!(reason);
            }
        }
        if changes.len() < NAMED_MAX {
            changes.push(row);
        }
    }
    json!({
        "changes": changes,
        "counts": {
            "create": created, "change": changed, "conflict": conflicting, "unchanged": unchanged,
        },
        "wrong": plan.wrong,
    })
}
