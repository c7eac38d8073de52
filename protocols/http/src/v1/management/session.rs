//! Sessions of web pages: log in, who am I, log out.

use std::sync::Arc;

use axum::{
    Json,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use polymq_broker::{BrokerHandle, Principal, Role};
use polymq_contract::{Login, Refusal, Secret};
use serde_json::{Value, json};
use tokio::{sync::oneshot, time::timeout};

use super::{
    caller::Caller,
    route::{OBJECT, ROUTE},
};
use crate::{
    api::{Answer, Api, Media, Method, Operation, ROOT},
    call::Call,
    problem::Problem,
    schema::{Schema, record},
    sessions,
};

record! {
    /// Who logs in.
    SessionLogin {
        /// The user; left out for a token.
        user: Option<String>,
        /// Its password, or a token.
        password: String,
    }
}

static LOG_IN: Operation = Operation {
    method: Method::Post,
    path: "/session",
    id: "logIn",
    tag: "server",
    summary: "Log in a web page: the answer sets a cookie, and has the token that changes need",
    permission: "none: this is the login",
    body: &[Media::json(<SessionLogin as Schema>::schema)],
    answers: OBJECT,
    ..ROUTE
};
static SHOW: Operation = Operation {
    path: "/session",
    id: "showSession",
    tag: "server",
    summary: "Who asks, with tags and permissions",
    ..ROUTE
};
static LOG_OUT: Operation = Operation {
    method: Method::Delete,
    path: "/session",
    id: "logOut",
    tag: "server",
    summary: "End the session of the cookie",
    answers: &[Answer { status: 204, about: "It is over", media: &[] }],
    ..ROUTE
};

pub(super) fn routes(api: Api) -> Api {
    api.route(&LOG_IN, log_in).route(&SHOW, show).route(&LOG_OUT, log_out)
}

async fn log_in(mut call: Call) -> Result<Response, Problem> {
    let SessionLogin { user, password } = call.json_of_login().await?;
    let password = Secret::new(password.into_bytes());
    let login = Login::Password { user: user.unwrap_or_default(), password };
    let site = Arc::clone(&call.site);
    let broker = &site.watched.broker;
    let (reply, step) = oneshot::channel::<Result<Principal, Refusal>>();
    broker.log_in("http", login, &call.socket.peer, move |step| {
        // Whoever asked has gone away.
        let _ = reply.send(step);
    });
    let late = || {
        let text = "logins take too long at the moment";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "login_timeout", text).retry()
    };
    let step = timeout(site.limits().login_timeout, step).await.map_err(|_| late())?;
    let who = step
        .map_err(|_| late())?
        .map_err(|refusal| Problem::refused(&refusal, "session").without_challenge())?;
    let begun = site.sessions.begin(&who, broker, &site.settings())?;
    tracing::info!(event = "session_begun", user = %who.user);
    let mut told = shown(broker, &who);
    told["csrf_token"] = json!(begun.csrf_token);
    Ok((headers(&call, Some(&begun.id)), Json(told)).into_response())
}

/// The cookie, and nothing that a proxy keeps.
fn headers(call: &Call, id: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // Nowhere else is it read, so that a browser sends it nowhere else.
    for path in [ROOT, "/ws"] {
        let path = format!("{}{path}", call.site.settings().path_prefix);
        if let Some(cookie) = sessions::cookie(id, &path, call.socket.peer.tls.is_some()) {
            headers.append(header::SET_COOKIE, cookie);
        }
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers
}

async fn show(call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let mut told = shown(caller.broker(), &caller.who);
    if call.is_by_cookie()
        && let Some(token) = sessions::token_of(&call.headers)
    {
        told["csrf_token"] = json!(token);
    }
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(told)).into_response())
}

async fn log_out(call: Call) -> Result<Response, Problem> {
    Caller::anywhere(&call).await?;
    if let Some(id) = sessions::id_of(&call.headers) {
        call.site.sessions.end(&id);
    }
    Ok((StatusCode::NO_CONTENT, headers(&call, None)).into_response())
}

/// Somebody with tags and permissions.
fn shown(broker: &BrokerHandle, who: &Principal) -> Value {
    let access = broker.access();
    let tags = access.tags_of(who);
    let rights: Vec<Value> = access
        .permissions()
        .into_iter()
        .filter(|(_, of, _)| *of == who.user)
        .map(|(vhost, _, record)| {
            json!({
                "vhost": vhost.as_str(), "configure": record.configure, "write": record.write,
                "read": record.read,
            })
        })
        .collect();
    let roles = [Role::Management, Role::Policymaker, Role::Monitoring, Role::Administrator];
    let roles: Vec<_> =
        roles.into_iter().filter(|role| tags.include(*role)).map(Role::as_str).collect();
    json!({
        "user": who.user.as_str(),
        "tags": tags.names(),
        "roles": roles,
        "impersonator": who.impersonator,
        "permissions": rights,
    })
}
