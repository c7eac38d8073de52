//! Definitions: everything but messages, out and in. The document is that of `/api/definitions`.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use polymq_broker::{Definition, Difference, Effect, Import, ImportPlan, PolicyKind};
use polymq_contract::{Refusal, RefusalKind};
use serde_json::{Value, json};

use super::{
    caller::{Caller, blocking},
    for_rabbitmq,
    problems::count_changed,
    route::{ADMINISTRATOR, DRY_RUN, OBJECT, ROUTE},
};
use crate::{
    api::{Api, Kind, Media, Method, Operation, Parameter},
    call::Call,
    clock, json, mistakes,
    problem::Problem,
    rabbitmq::{
        Failure,
        definitions::{Origin, document, read},
    },
    schema::{self, Schema, Schemas},
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

const MODE: Parameter = Parameter {
    name: "mode",
    kind: Kind::Word(&["merge", "replace"]),
    about: "`merge`, which is usual: what the document does not name stays. `replace`: of every \
            list that the document has, what is not in it goes, queues with their messages",
};
const EXPECT: Parameter = Parameter {
    name: "expect",
    kind: Kind::Number,
    about: "How many things `replace` deletes, as a dry run has told; needed when there are any",
};
const FORMAT: Parameter = Parameter {
    name: "format",
    kind: Kind::Word(&["polymq", "rabbitmq"]),
    about: "`rabbitmq` leaves out what a RabbitMQ does not take, and says so in `warnings`",
};

static EXPORT: Operation = Operation {
    path: "/definitions",
    id: "exportDefinitions",
    tag: "definitions",
    summary: "Everything that was declared, in the form of RabbitMQ; passwords as hashes",
    permission: ADMINISTRATOR,
    query: &[FORMAT],
    ..ROUTE
};
static DIFF: Operation = Operation {
    method: Method::Post,
    path: "/definitions:diff",
    id: "compareDefinitions",
    tag: "definitions",
    summary: "What importing a document would create, change, delete and leave",
    permission: ADMINISTRATOR,
    query: &[MODE],
    body: &[Media::json(<Document as Schema>::schema)],
    answers: OBJECT,
    ..ROUTE
};
static IMPORT: Operation = Operation {
    method: Method::Post,
    path: "/definitions:import",
    id: "importDefinitions",
    tag: "definitions",
    summary: "Bring in a document: all of it or nothing",
    permission: ADMINISTRATOR,
    query: &[DRY_RUN, ON_CONFLICT, MODE, EXPECT],
    body: &[Media::json(<Document as Schema>::schema)],
    answers: OBJECT,
    ..ROUTE
};

/// What a document may say: what this server exports, and what RabbitMQ does.
struct Document;

impl Schema for Document {
    fn schema(all: &mut Schemas) -> Value {
        all.named("Definitions", |_| {
            let lists = LISTS.iter().map(|(list, needed, others)| {
                let of = |name, may_be_absent| (name, "", may_be_absent, kind_of(name));
                let needed = needed.split(' ').map(|name| of(name, false));
                let fields: Vec<_> =
                    needed.chain(others.split(' ').map(|name| of(name, true))).collect();
                let items = schema::object("", &fields);
                (*list, "", true, json!({ "type": "array", "items": items }))
            });
            let about = ABOUT.iter().map(|name| (*name, "", true, json!({})));
            schema::object(
                "Definitions as RabbitMQ writes them",
                &lists.chain(about).collect::<Vec<_>>(),
            )
        })
    }
}

/// The lists of a document, with the fields that everything in them has, and those it may have.
const LISTS: &[(&str, &str, &str)] = &[
    (
        "vhosts",
        "name",
        "description tags default_queue_type protected_from_deletion metadata limits tracing",
    ),
    ("users", "name", "password password_hash hashing_algorithm tags administrator limits"),
    ("permissions", "user vhost configure write read", "kind"),
    ("topic_permissions", "user vhost exchange write read", "syntax"),
    ("parameters", "component vhost name value", "kind"),
    ("global_parameters", "name value", "kind"),
    ("policies", "vhost name pattern definition", "apply-to priority"),
    ("exchanges", "name vhost", "type durable auto_delete internal arguments"),
    ("queues", "name vhost", "type durable auto_delete arguments"),
    ("bindings", "source vhost destination destination_type", "routing_key arguments"),
];

/// What a document says of itself.
const ABOUT: &[&str] = &[
    "rabbit_version",
    "rabbitmq_version",
    "rabbitmq_definition_format",
    "original_cluster_name",
    "original_vhost_name",
    "explanation",
    "metadata",
    "product_name",
    "product_version",
    "warnings",
];

/// What a field of a definition is. What RabbitMQ writes in several ways is looked at later.
fn kind_of(field: &str) -> Value {
    match field {
        "name" | "vhost" | "user" | "source" | "destination" | "destination_type"
        | "routing_key" | "pattern" | "component" | "exchange" => json!({ "type": "string" }),
        _ => json!({}),
    }
}

pub(super) fn routes(api: Api) -> Api {
    api.route(&EXPORT, export).route(&DIFF, diff).route(&IMPORT, import)
}

async fn export(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let (manager, broker) = (caller.manage(&call), caller.broker().clone());
    let made = move || document(&Origin { manager: &manager, broker: &broker });
    let made = blocking(made).await?;
    let mut made = made
        .map_err(|failure| Problem::new(failure.status, "invalid_definitions", failure.reason()))?;
    if call.query("format") == Some("rabbitmq") {
        for_rabbitmq::narrow(&mut made);
    }
    Ok(Json(Value::Object(made)))
}

/// What the body is to bring about.
async fn import_of(call: &mut Call, caller: &Caller) -> Result<Import, Problem> {
    call.expect_content_type(&["application/json"])?;
    let bytes = call.bytes(BYTES_MAX).await?;
    // For the places of mistakes, and a bound of depth.
    let lists: Value = json::read(&bytes)?;
    if let Some(mistakes) = Problem::together(mistakes::find::<Document>(&lists)) {
        return Err(mistakes);
    }
    let (manager, broker) = (caller.manage(call), caller.broker());
    let origin = Origin { manager: &manager, broker };
    let invalid = |failure: Failure| Problem::bad("invalid_definitions", failure.reason());
    let wanted = read(&origin, None, &bytes).await.map_err(invalid)?;
    if call.query("mode") != Some("replace") {
        return Ok(wanted.into());
    }
    let there = Value::Object(document(&origin).map_err(invalid)?).to_string();
    let mut have = read(&origin, None, there.as_bytes()).await.map_err(invalid)?;
    have.retain(|one| lists.get(list_of(one)).is_some());
    Ok(Import::replacing(have, wanted))
}

/// The list of a document that a definition stands in.
fn list_of(definition: &Definition) -> &'static str {
    match definition {
        Definition::Vhost(..) => "vhosts",
        Definition::User(..) | Definition::UserLimits(..) => "users",
        Definition::Permission(..) => "permissions",
        Definition::TopicPermission(..) => "topic_permissions",
        Definition::GlobalParameter(..) => "global_parameters",
        Definition::VhostLimits(..) | Definition::Policy(_, PolicyKind::Operator, ..) => {
            "parameters"
        }
        Definition::Policy(_, PolicyKind::User, ..) => "policies",
        Definition::Exchange(..) => "exchanges",
        Definition::Queue(..) => "queues",
        Definition::Binding(..) => "bindings",
    }
}

async fn diff(mut call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let import = import_of(&mut call, &caller).await?;
    let manager = caller.manage(&call);
    let plan = blocking(move || manager.plan_import(import)).await?.map_err(refused)?;
    Ok(Json(shown(&plan)))
}

async fn import(mut call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let import = import_of(&mut call, &caller).await?;
    let (is_dry, skips) = (call.flag("dry_run"), call.query("on_conflict") == Some("skip"));
    let expected = call.number("expect").unwrap_or(0);
    let manager = caller.manage(&call);
    let done = blocking(move || {
        let plan = manager.plan_import(import.clone()).map_err(refused)?;
        if is_dry {
            return Ok(plan);
        }
        if !plan.wrong.is_empty() {
            let text = format!("nothing was imported: {}", plan.wrong.join("; "));
            return Err(Problem::bad("invalid_definitions", text).with("wrong", plan.wrong));
        }
        let conflicts = conflicts(&plan);
        if !conflicts.is_empty() && !skips {
            let text = "nothing was imported: some objects are there with other settings";
            let problem = Problem::new(StatusCode::CONFLICT, "arguments_differ", text);
            return Err(problem.with("conflicts", conflicts));
        }
        let deleted = import.surplus.len() as u64;
        if deleted != expected {
            return Err(count_changed(expected, deleted));
        }
        manager.import(import, clock::now()).map_err(refused)?;
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
        Effect::Unchanged | Effect::Create | Effect::Change { .. } | Effect::Delete => None,
    };
    plan.differences.iter().filter_map(conflict).take(NAMED_MAX).collect()
}

/// What an import would do: the first changes one by one, and how many there are of each kind.
fn shown(plan: &ImportPlan) -> Value {
    let mut changes = Vec::new();
    let (mut created, mut changed, mut conflicting) = (0_u64, 0_u64, 0_u64);
    let (mut deleted, mut unchanged) = (0_u64, 0_u64);
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
            Effect::Delete => {
                deleted += 1;
                row["change"] = json!("delete");
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
            "create": created,
            "change": changed,
            "delete": deleted,
            "conflict": conflicting,
            "unchanged": unchanged,
        },
        "wrong": plan.wrong,
    })
}
