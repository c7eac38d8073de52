//! Exchanges.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use polymq_broker::{ExchangeView, access::Configure};
use polymq_contract::{Command, DeclareExchange};
use serde_json::{Value, json};

use super::{
    caller::{Caller, vhost_of},
    etag, list,
    problems::{arguments_differ, not_there},
    route::{CONDITIONS, DRY_RUN, IF_MATCH, NOTHING, PUT, ROUTE},
    value::{from_table, to_table},
};
use crate::{
    api::{Api, Kind, Media, Method, Operation, Parameter},
    call::Call,
    problem::Problem,
    schema::{Schema, record},
};

const IF_UNUSED: Parameter =
    Parameter { name: "if_unused", kind: Kind::Flag, about: "Only when no binding leads from it" };

record! {
    /// What an exchange is declared with.
    ExchangeSpec {
        /// `direct`, `fanout`, `topic`, `headers`, `x-consistent-hash` and so on.
        r#type: String,
        /// It survives a restart; `true` unless it is said.
        durable: Option<bool>,
        /// It goes with its last binding.
        auto_delete: Option<bool>,
        /// Clients may not publish to it.
        internal: Option<bool>,
        /// Arguments, as `alternate-exchange`.
        arguments: Option<Value>,
    }
}

const PATH: &str = "/vhosts/{vhost}/exchanges/{exchange}";

static LIST: Operation = Operation {
    path: "/vhosts/{vhost}/exchanges",
    id: "listExchanges",
    tag: "exchanges",
    summary: "Exchanges that the user has a right to; all with tag monitoring",
    query: list::QUERY,
    answers: list::ANSWERS,
    ..ROUTE
};
static SHOW: Operation = Operation {
    path: PATH,
    id: "showExchange",
    tag: "exchanges",
    summary: "An exchange",
    permission: "any right to the exchange, or tag monitoring",
    ..ROUTE
};
static DECLARE: Operation = Operation {
    method: Method::Put,
    path: PATH,
    id: "putExchange",
    tag: "exchanges",
    summary: "Declare an exchange",
    permission: "configure on the exchange; read on it and write on its alternate",
    query: &[DRY_RUN],
    headers: CONDITIONS,
    body: &[Media::json(<ExchangeSpec as Schema>::schema)],
    answers: PUT,
};
static REMOVE: Operation = Operation {
    method: Method::Delete,
    path: PATH,
    id: "deleteExchange",
    tag: "exchanges",
    summary: "Delete an exchange with its bindings",
    permission: "configure on the exchange",
    query: &[IF_UNUSED, DRY_RUN],
    headers: &[IF_MATCH],
    answers: NOTHING,
    ..ROUTE
};

pub(super) fn routes(api: Api) -> Api {
    api.route(&LIST, index).route(&SHOW, show).route(&DECLARE, declare).route(&REMOVE, remove)
}

/// An exchange as JSON.
fn shown(exchange: &ExchangeView) -> Value {
    let name = if exchange.name.is_empty() { "amq.default" } else { &exchange.name };
    json!({
        "name": name,
        "vhost": exchange.vhost.as_str(),
        "type": exchange.kind,
        "durable": exchange.durable,
        "auto_delete": exchange.auto_delete,
        "internal": exchange.internal,
        "arguments": from_table(&exchange.arguments),
        "policy": exchange.policy,
        "activity": {
            "published": exchange.activity.published,
            "published_out": exchange.activity.published_out,
        },
    })
}

/// What people set of an exchange.
fn set(exchange: &ExchangeView) -> Value {
    json!({
        "type": exchange.kind,
        "durable": exchange.durable,
        "auto_delete": exchange.auto_delete,
        "internal": exchange.internal,
        "arguments": from_table(&exchange.arguments),
    })
}

async fn index(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    let vhost = vhost_of(&call)?;
    let all = caller.broker().exchanges(Some(vhost.as_str()), None);
    let mut all = all.map_err(|refusal| Problem::refused(&refusal, "vhost"))?;
    all.retain(|exchange| caller.sees(&vhost, "exchange", &exchange.name));
    list::page(&call, all, |exchange| exchange.name.clone(), shown).map(Json)
}

fn find(call: &Call, caller: &Caller) -> Result<ExchangeView, Problem> {
    let (vhost, name) = (vhost_of(call)?, call.exchange()?);
    let missing = || not_there("exchange_not_found", "exchange", &name);
    if !caller.sees(&vhost, "exchange", &name) {
        return Err(missing());
    }
    caller.broker().exchange(vhost.as_str(), &name, None).map_err(|_| missing())
}

async fn show(call: Call) -> Result<Response, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    let found = find(&call, &caller)?;
    Ok(([etag::header(&etag::of(&set(&found)))], Json(shown(&found))).into_response())
}

async fn declare(mut call: Call) -> Result<Response, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    let (vhost, exchange) = (vhost_of(&call)?, call.exchange()?);
    let spec: ExchangeSpec = call.json().await?;
    let arguments = to_table(&spec.arguments.unwrap_or_else(|| json!({})), "/arguments")?;
    may_configure(&call, &caller)?;
    let existing = caller.broker().exchange(vhost.as_str(), &exchange, None).ok();
    let tag = existing.as_ref().map(|exchange| etag::of(&set(exchange)));
    etag::check(&call.headers, tag.as_deref())?;
    let declare = DeclareExchange {
        request: Default::default(),
        exchange,
        kind: spec.r#type,
        passive: false,
        durable: spec.durable.unwrap_or(true),
        auto_delete: spec.auto_delete.unwrap_or(false),
        internal: spec.internal.unwrap_or(false),
        arguments,
    };
    if call.flag("dry_run") {
        let checked = caller.broker().check_exchange(&vhost, &declare);
        if let (Err(_), Some(existing)) = (&checked, &existing) {
            differs(existing, &declare)?;
        }
        checked.map_err(|refusal| Problem::refused(&refusal, "exchange"))?;
        let text = json!({ "dry_run": true, "would_create": existing.is_none() });
        return Ok(Json(text).into_response());
    }
    let is_new = existing.is_none();
    let wanted = declare.clone();
    let declared = caller
        .ask("exchange", |request| {
            Command::DeclareExchange(Box::new(DeclareExchange { request, ..declare }))
        })
        .await;
    if let (Err(_), Some(existing)) = (&declared, &existing) {
        // Every difference at once, not only the first.
        differs(existing, &wanted)?;
    }
    declared?;
    let found = find(&call, &caller)?;
    if is_new {
        let object = format!("/vhosts/{vhost}/exchanges/{}", found.name);
        caller.audit(&call, "exchange.declare", object, (Value::Null, set(&found)));
    }
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let tag = etag::header(&etag::of(&set(&found)));
    Ok((status, [tag], Json(shown(&found))).into_response())
}

/// Errors: what is asked for differs from what is there, with every difference.
fn differs(existing: &ExchangeView, wanted: &DeclareExchange) -> Result<(), Problem> {
    let want = json!({
        "type": wanted.kind,
        "durable": wanted.durable,
        "auto_delete": wanted.auto_delete,
        "internal": wanted.internal,
        "arguments": from_table(&wanted.arguments),
    });
    let object = format!("exchange '{}'", existing.name);
    arguments_differ(&object, &set(existing), &want).map_or(Ok(()), Err)
}

/// Errors: the right is missing.
fn may_configure(call: &Call, caller: &Caller) -> Result<(), Problem> {
    let (vhost, name) = (vhost_of(call)?, call.exchange()?);
    let access = caller.broker().access();
    let permit = access.permit::<Configure>(&caller.who, &vhost, "exchange", &name);
    permit.map(drop).map_err(|refusal| Problem::refused(&refusal, "exchange"))
}

async fn remove(call: Call) -> Result<Response, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    let (vhost, exchange) = (vhost_of(&call)?, call.exchange()?);
    may_configure(&call, &caller)?;
    let found = caller.broker().exchange(vhost.as_str(), &exchange, None);
    let found = found.map_err(|refusal| Problem::refused(&refusal, "exchange"))?;
    etag::check(&call.headers, Some(&etag::of(&set(&found))))?;
    let from = caller.broker().bindings_from(vhost.as_str(), &exchange);
    let bindings = from.map_err(|refusal| Problem::refused(&refusal, "exchange"))?.len();
    let if_unused = call.flag("if_unused");
    if if_unused && bindings > 0 {
        let text = format!("{bindings} bindings lead from exchange '{exchange}'");
        return Err(Problem::new(StatusCode::CONFLICT, "in_use", text));
    }
    if call.flag("dry_run") {
        let checked = caller.broker().check_exchange_deletion(&vhost, &exchange);
        checked.map_err(|refusal| Problem::refused(&refusal, "exchange"))?;
        return Ok(Json(json!({ "dry_run": true, "bindings": bindings })).into_response());
    }
    let object = format!("/vhosts/{vhost}/exchanges/{exchange}");
    caller
        .ask("exchange", |request| Command::DeleteExchange { request, exchange, if_unused })
        .await?;
    caller.audit(&call, "exchange.delete", object, (set(&found), Value::Null));
    Ok(StatusCode::NO_CONTENT.into_response())
}
