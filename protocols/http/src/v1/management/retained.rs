//! Retained messages, and the tree of topics that they make.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use polymq_contract::{Answer as Answered, Command};
use serde_json::{Map, Value, json};

use super::{
    caller::Caller,
    list,
    problems::not_there,
    route::{DRY_RUN, NOTHING, ROUTE},
    shown::{Payload, of_message},
};
use crate::{
    api::{Api, Kind, Method, Operation, Parameter},
    call::Call,
    clock,
    problem::Problem,
};

/// Retained messages that one call looks at.
const LOOKED_AT_MAX: usize = 100_000;
/// The exchange whose topics have last values.
const TOPICS: &str = "amq.topic";

const PREFIX: Parameter = Parameter {
    name: "prefix",
    kind: Kind::Text,
    about: "The level above, in dot form; the top of the tree without it",
};

static TREE: Operation = Operation {
    path: "/vhosts/{vhost}/topics",
    id: "listTopics",
    tag: "topics",
    summary: "One level of the tree of retained topics, with how many are below",
    permission: "read on amq.topic",
    query: &[PREFIX, list::LIMIT, list::AFTER, list::FILTER, list::SORT, list::FIELDS],
    answers: list::ANSWERS,
    ..ROUTE
};
static SHOW: Operation = Operation {
    path: "/vhosts/{vhost}/retained/{key}",
    id: "showRetained",
    tag: "topics",
    summary: "The last value of a topic",
    permission: "read on amq.topic",
    ..ROUTE
};
static REMOVE: Operation = Operation {
    method: Method::Delete,
    path: "/vhosts/{vhost}/retained/{key}",
    id: "deleteRetained",
    tag: "topics",
    summary: "Forget the last value of a topic",
    permission: "write on amq.topic",
    query: &[DRY_RUN],
    answers: NOTHING,
    ..ROUTE
};

pub(super) fn routes(api: Api) -> Api {
    api.route(&TREE, tree).route(&SHOW, show).route(&REMOVE, remove)
}

async fn recall(
    caller: &Caller,
    pattern: String,
    count_max: usize,
) -> Result<Vec<polymq_model::Message>, Problem> {
    let exchange = TOPICS.to_owned();
    let asked =
        caller.ask("exchange", |request| Command::Recall { request, exchange, pattern, count_max });
    match asked.await? {
        Answered::Recalled(messages) => Ok(messages),
        _ => Ok(Vec::new()),
    }
}

async fn tree(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    let prefix = call.query("prefix").filter(|prefix| !prefix.is_empty());
    let pattern = prefix.map_or_else(|| "#".to_owned(), |prefix| format!("{prefix}.#"));
    let found = recall(&caller, pattern, LOOKED_AT_MAX).await?;
    let is_whole = found.len() < LOOKED_AT_MAX;
    let depth = prefix.map_or(0, |prefix| prefix.split('.').count());
    // By name: whether it has a value itself, and how many are below.
    let mut levels: std::collections::BTreeMap<String, (bool, u64)> = Default::default();
    for message in &found {
        let mut rest = message.key().split('.').skip(depth);
        let Some(name) = rest.next() else { continue };
        let level = levels.entry(name.to_owned()).or_default();
        match rest.next() {
            Some(_) => level.1 += 1,
            None => level.0 = true,
        }
    }
    let items: Vec<_> = levels.into_iter().collect();
    let row = |(name, (has_value, below)): &(String, (bool, u64))| {
        let topic = prefix.map_or_else(|| name.clone(), |prefix| format!("{prefix}.{name}"));
        json!({ "name": name, "topic": topic, "has_value": has_value, "below": below })
    };
    let mut page = list::page(&call, items, |(name, _)| name.clone(), row)?;
    page["total"]["exact"] = json!(is_whole);
    Ok(Json(page))
}

async fn find(call: &Call, caller: &Caller) -> Result<Map<String, Value>, Problem> {
    let key = call.path("key");
    let found = recall(caller, key.to_owned(), 1).await?;
    let found = found.into_iter().find(|message| message.key() == key);
    let found = found.ok_or_else(|| not_there("message_not_found", "retained message", key))?;
    Ok(of_message(&found, Payload::Full))
}

async fn show(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    Ok(Json(Value::Object(find(&call, &caller).await?)))
}

async fn remove(call: Call) -> Result<Response, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    find(&call, &caller).await?;
    let vhost = super::caller::vhost_of(&call)?;
    if call.flag("dry_run") {
        let may = caller.broker().check_forget_retained(&caller.who, &vhost, call.path("key"));
        may.map_err(|refusal| Problem::refused(&refusal, "exchange"))?;
        return Ok(Json(json!({ "dry_run": true, "count": 1 })).into_response());
    }
    let (key, now) = (call.path("key").to_owned(), clock::now());
    caller
        .blocking("exchange", move |broker, who| broker.forget_retained(who, &vhost, &key, now))
        .await?;
    let object = format!("/vhosts/{}/retained/{}", call.vhost(), call.path("key"));
    caller.audit(&call, "retained.delete", object, Default::default());
    Ok(StatusCode::NO_CONTENT.into_response())
}
