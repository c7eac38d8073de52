//! Who is kept out.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use polymq_broker::{Ban, BanTarget, BanView};
use polymq_contract::Refusal;
use polymq_model::carry::rfc3339_to_ms;
use serde_json::{Value, json};

use super::{
    caller::Caller,
    list,
    problems::not_there,
    route::{ADMINISTRATOR, DRY_RUN, MONITORING, NOTHING, PUT, ROUTE},
    value::time,
};
use crate::{
    api::{Api, Media, Method, Operation},
    call::Call,
    problem::Problem,
    schema::{Schema, record},
};

record! {
    /// A ban of exactly one user, address or client id.
    BanSpec {
        /// A user.
        user: Option<String>,
        /// An address.
        address: Option<String>,
        /// A client id of MQTT.
        client_id: Option<String>,
        /// Why, for people.
        reason: Option<String>,
        /// When it ends, in RFC 3339; never unless it is said.
        until: Option<String>,
    }
}

static LIST: Operation = Operation {
    path: "/bans",
    id: "listBans",
    tag: "access",
    summary: "Bans",
    permission: MONITORING,
    query: list::QUERY,
    answers: list::ANSWERS,
    ..ROUTE
};
static SHOW: Operation = Operation {
    path: "/bans/{id}",
    id: "showBan",
    tag: "access",
    summary: "A ban",
    permission: MONITORING,
    ..ROUTE
};
static SAVE: Operation = Operation {
    method: Method::Put,
    path: "/bans/{id}",
    id: "putBan",
    tag: "access",
    summary: "Keep a user, an address or a client id out; connections that are there end",
    permission: ADMINISTRATOR,
    query: &[DRY_RUN],
    body: &[Media::json(<BanSpec as Schema>::schema)],
    answers: PUT,
    ..ROUTE
};
static REMOVE: Operation = Operation {
    method: Method::Delete,
    path: "/bans/{id}",
    id: "deleteBan",
    tag: "access",
    summary: "Let somebody in again",
    permission: ADMINISTRATOR,
    query: &[DRY_RUN],
    answers: NOTHING,
    ..ROUTE
};

pub(super) fn routes(api: Api) -> Api {
    api.route(&LIST, index).route(&SHOW, show).route(&SAVE, save).route(&REMOVE, remove)
}

fn refused(refusal: Refusal) -> Problem {
    Problem::refused(&refusal, "ban")
}

fn shown(view: &BanView) -> Value {
    let (kind, target) = match &view.ban.target {
        BanTarget::User(user) => ("user", user.clone()),
        BanTarget::Address(address) => ("address", address.to_string()),
        BanTarget::ClientId(id) => ("client_id", id.clone()),
    };
    let mut shown = json!({
        "id": view.id,
        "reason": view.ban.reason,
        "until": time(view.ban.until_ms.unwrap_or(0)),
    });
    shown[kind] = json!(target);
    shown
}

async fn index(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let all = caller.manage(&call).bans().map_err(refused)?;
    list::page(&call, all, |view| view.id.clone(), shown).map(Json)
}

fn find(call: &Call, caller: &Caller) -> Result<BanView, Problem> {
    let all = caller.manage(call).bans().map_err(refused)?;
    let found = all.into_iter().find(|view| view.id == call.path("id"));
    found.ok_or_else(|| not_there("ban_not_found", "ban", call.path("id")))
}

async fn show(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    Ok(Json(shown(&find(&call, &caller)?)))
}

async fn save(mut call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let spec: BanSpec = call.json().await?;
    let target = match (spec.user, spec.address, spec.client_id) {
        (Some(user), None, None) => BanTarget::User(user),
        (None, Some(address), None) => BanTarget::Address(address.parse().map_err(|_| {
            Problem::bad("wrong_type", "`address` is an IP address").at("/address")
        })?),
        (None, None, Some(id)) => BanTarget::ClientId(id),
        _ => {
            let text = "a ban names one of user, address and client_id";
            return Err(Problem::bad("invalid_argument", text));
        }
    };
    let until_ms = match &spec.until {
        None => None,
        Some(text) => {
            let ms = rfc3339_to_ms(text).and_then(|ms| u64::try_from(ms).ok());
            Some(ms.ok_or_else(|| {
                Problem::bad("wrong_type", "`until` is a time in RFC 3339").at("/until")
            })?)
        }
    };
    let ban = Ban { target, reason: spec.reason.unwrap_or_default(), until_ms };
    if call.flag("dry_run") {
        caller.manage(&call).check_ban(call.path("id"), &ban).map_err(refused)?;
        let would_create = find(&call, &caller).is_err();
        let text = json!({ "dry_run": true, "would_create": would_create });
        return Ok(Json(text).into_response());
    }
    let id = call.path("id").to_owned();
    let is_new = caller.manage(&call).put_ban(&id, ban.clone()).map_err(refused)?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(shown(&BanView { id, ban }))).into_response())
}

async fn remove(call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let found = find(&call, &caller)?;
    if call.flag("dry_run") {
        return Ok(Json(json!({ "dry_run": true, "ban": shown(&found) })).into_response());
    }
    caller.manage(&call).remove_ban(&found.id).map_err(refused)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
