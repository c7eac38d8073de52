//! Policies of users and of operators, with the objects that they apply to.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use polymq_broker::{ApplyTo, PolicyKind, PolicyRecord};
use serde_json::{Value, json};

use super::{
    caller::{Caller, blocking, vhost_of},
    etag, list,
    problems::not_there,
    route::{ADMINISTRATOR, CONDITIONS, DRY_RUN, IF_MATCH, NOTHING, POLICYMAKER, PUT, ROUTE},
    value::{from_table, to_table},
};
use crate::{
    api::{Api, Media, Method, Operation},
    call::Call,
    clock,
    problem::Problem,
    schema::{Schema, record},
};

record! {
    /// A policy.
    PolicySpec {
        /// A regular expression on names.
        pattern: String,
        /// `all`, `queues`, `classic_queues`, `quorum_queues`, `streams` or `exchanges`.
        apply_to: Option<String>,
        /// Of several that match the highest counts.
        priority: Option<i64>,
        /// What it says, by the names of arguments without `x-`.
        definition: Value,
    }
}

/// Objects that an answer names at most.
const NAMED_MAX: usize = 1000;

const BODY: &[Media] = &[Media::json(<PolicySpec as Schema>::schema)];

const fn list_of(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation {
        path,
        id,
        tag: "policies",
        summary,
        permission: "tag management and a permission there, or tag monitoring",
        query: list::QUERY,
        answers: list::ANSWERS,
        ..ROUTE
    }
}

const fn show_of(path: &'static str, id: &'static str) -> Operation {
    Operation {
        path,
        id,
        tag: "policies",
        summary: "A policy and the objects that it applies to",
        permission: "tag management and a permission there, or tag monitoring",
        ..ROUTE
    }
}

const fn save_of(path: &'static str, id: &'static str, permission: &'static str) -> Operation {
    Operation {
        method: Method::Put,
        path,
        id,
        tag: "policies",
        summary: "Create or replace a policy; it takes effect at once",
        permission,
        query: &[DRY_RUN],
        headers: CONDITIONS,
        body: BODY,
        answers: PUT,
    }
}

const fn remove_of(path: &'static str, id: &'static str, permission: &'static str) -> Operation {
    Operation {
        method: Method::Delete,
        path,
        id,
        tag: "policies",
        summary: "Remove a policy",
        permission,
        query: &[DRY_RUN],
        headers: &[IF_MATCH],
        answers: NOTHING,
        ..ROUTE
    }
}

const ALL: &str = "/vhosts/{vhost}/policies";
const ONE: &str = "/vhosts/{vhost}/policies/{name}";
const ALL_OF_OPERATORS: &str = "/vhosts/{vhost}/operator-policies";
const ONE_OF_OPERATORS: &str = "/vhosts/{vhost}/operator-policies/{name}";

static LIST: Operation = list_of(ALL, "listPolicies", "Policies");
static SHOW: Operation = show_of(ONE, "showPolicy");
static SAVE: Operation = save_of(ONE, "putPolicy", POLICYMAKER);
static REMOVE: Operation = remove_of(ONE, "deletePolicy", POLICYMAKER);
static LIST_OP: Operation =
    list_of(ALL_OF_OPERATORS, "listOperatorPolicies", "Policies of operators");
static SHOW_OP: Operation = show_of(ONE_OF_OPERATORS, "showOperatorPolicy");
static SAVE_OP: Operation = save_of(ONE_OF_OPERATORS, "putOperatorPolicy", ADMINISTRATOR);
static REMOVE_OP: Operation = remove_of(ONE_OF_OPERATORS, "deleteOperatorPolicy", ADMINISTRATOR);

pub(super) fn routes(api: Api) -> Api {
    api.route(&LIST, |call| index(call, PolicyKind::User))
        .route(&SHOW, |call| show(call, PolicyKind::User))
        .route(&SAVE, |call| save(call, PolicyKind::User))
        .route(&REMOVE, |call| remove(call, PolicyKind::User))
        .route(&LIST_OP, |call| index(call, PolicyKind::Operator))
        .route(&SHOW_OP, |call| show(call, PolicyKind::Operator))
        .route(&SAVE_OP, |call| save(call, PolicyKind::Operator))
        .route(&REMOVE_OP, |call| remove(call, PolicyKind::Operator))
}

fn shown((name, record): &(String, PolicyRecord)) -> Value {
    json!({
        "name": name,
        "pattern": record.pattern,
        "apply_to": record.apply_to,
        "priority": record.priority,
        "definition": from_table(&record.definition),
    })
}

async fn index(call: Call, kind: PolicyKind) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let found = caller.manage(&call).policies(&vhost_of(&call)?, kind);
    let found = found.map_err(|refusal| Problem::refused(&refusal, "vhost"))?;
    list::page(&call, found, |(name, _)| name.clone(), shown).map(Json)
}

fn find(
    call: &Call,
    caller: &Caller,
    kind: PolicyKind,
) -> Result<Option<(String, PolicyRecord)>, Problem> {
    let all = caller.manage(call).policies(&vhost_of(call)?, kind);
    let all = all.map_err(|refusal| Problem::refused(&refusal, "vhost"))?;
    Ok(all.into_iter().find(|(name, _)| name == call.path("name")))
}

fn missing(call: &Call) -> Problem {
    not_there("policy_not_found", "policy", call.path("name"))
}

async fn show(call: Call, kind: PolicyKind) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let found = find(&call, &caller, kind)?.ok_or_else(|| missing(&call))?;
    let mut policy = shown(&found);
    let tag = etag::of(&policy);
    policy["matches"] = matches(&call, &caller, &found.1).await?;
    Ok(([etag::header(&tag)], Json(policy)).into_response())
}

/// The objects that a policy matches, whether or not another has a higher priority.
async fn matches(call: &Call, caller: &Caller, record: &PolicyRecord) -> Result<Value, Problem> {
    let (broker, vhost, record) = (caller.broker().clone(), vhost_of(call)?, record.clone());
    let name = call.path("name").to_owned();
    let found = blocking(move || broker.policy_matches(&vhost, (&name, &record))).await?;
    let found = found.map_err(|refusal| Problem::refused(&refusal, "policy"))?;
    let named = |names: &[String]| names.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>();
    Ok(json!({
        "queues": named(&found.queues),
        "exchanges": named(&found.exchanges),
        "queue_count": found.queues.len(),
        "exchange_count": found.exchanges.len(),
    }))
}

async fn save(mut call: Call, kind: PolicyKind) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let spec: PolicySpec = call.json().await?;
    let existing = find(&call, &caller, kind)?;
    let tag = existing.as_ref().map(|found| etag::of(&shown(found)));
    etag::check(&call.headers, tag.as_deref())?;
    let apply_to = match &spec.apply_to {
        None => ApplyTo::All,
        Some(word) => serde_json::from_value(json!(word)).map_err(|_| {
            let text = "`apply_to` is all, queues, classic_queues, quorum_queues, streams or \
                        exchanges";
            Problem::bad("wrong_type", text).at("/apply_to")
        })?,
    };
    let record = PolicyRecord {
        pattern: spec.pattern,
        apply_to,
        priority: spec.priority.unwrap_or(0),
        definition: to_table(&spec.definition, "/definition")?,
    };
    let (vhost, name, manager) = (vhost_of(&call)?, call.path("name"), caller.manage(&call));
    if call.flag("dry_run") {
        let needed = match kind {
            PolicyKind::User => polymq_broker::Role::Policymaker,
            PolicyKind::Operator => polymq_broker::Role::Administrator,
        };
        caller.needs(needed)?;
        let matches = matches(&call, &caller, &record).await?;
        let text =
            json!({ "dry_run": true, "would_create": existing.is_none(), "matches": matches });
        return Ok(Json(text).into_response());
    }
    let is_new = manager.put_policy(&vhost, kind, name, record.clone(), clock::now());
    let is_new = is_new.map_err(|refusal| Problem::refused(&refusal, "policy"))?;
    let policy = shown(&(name.to_owned(), record));
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, [etag::header(&etag::of(&policy))], Json(policy)).into_response())
}

async fn remove(call: Call, kind: PolicyKind) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let found = find(&call, &caller, kind)?.ok_or_else(|| missing(&call))?;
    etag::check(&call.headers, Some(&etag::of(&shown(&found))))?;
    if call.flag("dry_run") {
        let matches = matches(&call, &caller, &found.1).await?;
        return Ok(Json(json!({ "dry_run": true, "matches": matches })).into_response());
    }
    let (vhost, name) = (vhost_of(&call)?, call.path("name"));
    let removed = caller.manage(&call).remove_policy(&vhost, kind, name, clock::now());
    removed.map_err(|refusal| Problem::refused(&refusal, "policy"))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
