//! API tokens of users.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use polymq_broker::{NewToken, TokenView};
use polymq_model::carry::rfc3339_to_ms;
use serde_json::{Value, json};

use super::{
    caller::Caller,
    list,
    route::{DRY_RUN, PUT},
    users::{OWN, done, list_of, operation, refused, remove_of, user_of},
    value::time,
};
use crate::{
    api::{Api, Media, Method, Operation},
    call::Call,
    problem::Problem,
    schema::{Schema, record},
};

record! {
    /// A new API token.
    TokenSpec {
        /// For people.
        name: Option<String>,
        /// What it leaves of its user's rights, as `read:*/orders*`; all of them without any.
        scopes: Option<Vec<String>>,
        /// When it ends, in RFC 3339.
        expires_at: Option<String>,
    }
}

const TOKENS: &str = "/users/{user}/tokens";

static LIST_TOKENS: Operation =
    list_of(TOKENS, "listTokens", "API tokens of a user, without what proves them", OWN);
static MAKE_TOKEN: Operation = Operation {
    query: &[DRY_RUN],
    body: &[Media::json(<TokenSpec as Schema>::schema)],
    answers: PUT,
    ..operation(
        Method::Post,
        TOKENS,
        "makeToken",
        "Make an API token; its text is shown in this answer and never again",
        OWN,
    )
};
static REVOKE_TOKEN: Operation = remove_of(
    "/users/{user}/tokens/{id}",
    "revokeToken",
    "Revoke an API token; connections that use it end",
    OWN,
);

pub(super) fn routes(api: Api) -> Api {
    api.route(&LIST_TOKENS, tokens)
        .route(&MAKE_TOKEN, make_token)
        .route(&REVOKE_TOKEN, revoke_token)
}

fn token(view: &TokenView) -> Value {
    json!({
        "id": view.id,
        "user": view.user.as_str(),
        "name": view.name,
        "scopes": view.scopes,
        "created_at": time(view.created_ms),
        "expires_at": time(view.expires_ms.unwrap_or(0)),
    })
}

async fn tokens(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let all = caller.manage(&call).tokens(&user_of(&call)?).map_err(refused)?;
    let key = |view: &TokenView| format!("{:020}\0{}", view.created_ms, view.id);
    list::page(&call, all, key, token).map(Json)
}

async fn make_token(mut call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let user = user_of(&call)?;
    let TokenSpec { name, scopes, expires_at } = call.json().await?;
    let expires_ms = match &expires_at {
        None => None,
        Some(text) => {
            let ms = rfc3339_to_ms(text).and_then(|ms| u64::try_from(ms).ok());
            Some(ms.ok_or_else(|| {
                Problem::bad("wrong_type", "`expires_at` is a time in RFC 3339").at("/expires_at")
            })?)
        }
    };
    let name = name.unwrap_or_default();
    let new = NewToken { name, scopes: scopes.unwrap_or_default(), expires_ms };
    if call.flag("dry_run") {
        let view = caller.manage(&call).draft_token(&user, new).map_err(refused)?;
        let mut shown = token(&view);
        // The one that is made later gets another.
        shown["id"] = Value::Null;
        shown["dry_run"] = json!(true);
        return Ok(Json(shown).into_response());
    }
    let (view, secret) = caller.manage(&call).make_token(&user, new).map_err(refused)?;
    let mut shown = token(&view);
    shown["token"] = json!(String::from_utf8_lossy(secret.expose()));
    // What is shown once must not stay in caches.
    let headers = [(axum::http::header::CACHE_CONTROL, "no-store")];
    Ok((StatusCode::CREATED, headers, Json(shown)).into_response())
}

async fn revoke_token(call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let (user, manager) = (user_of(&call)?, caller.manage(&call));
    let id = call.path("id");
    if call.flag("dry_run") {
        let all = manager.tokens(&user).map_err(refused)?;
        let count = all.iter().filter(|token| token.id == id).count();
        return Ok(Json(json!({ "dry_run": true, "count": count })).into_response());
    }
    manager.revoke_token(&user, id).map_err(refused)?;
    Ok(done())
}
