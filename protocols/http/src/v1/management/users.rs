//! Users and what they may do.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use polymq_broker::{
    Credentials, PermissionQuestion, PermissionRecord, PermissionView, TopicPermissionRecord,
    TopicPermissionView, TopicSyntax, UserChange, UserLimits, UserView,
};
use polymq_contract::{Refusal, Secret};
use polymq_model::UserName;
use serde_json::{Value, json};

use super::{
    caller::{Caller, vhost_of},
    list,
    route::{ADMINISTRATOR, DRY_RUN, NOTHING, PUT, ROUTE},
};
use crate::{
    api::{Api, Media, Method, Operation},
    call::Call,
    json,
    problem::Problem,
    schema::{Schema, record},
};

record! {
    /// A user. What is not said stays as it is.
    UserSpec {
        /// A new password; `null` for none, with which nobody can log in by a password.
        #[serde(default, deserialize_with = "json::given")]
        password: Option<Value>,
        /// A hash that RabbitMQ or this server has exported, instead of a password.
        password_hash: Option<String>,
        /// How it was hashed.
        hashing_algorithm: Option<String>,
        /// All tags: `administrator`, `monitoring`, `policymaker`, `management`, `impersonator`.
        tags: Option<Vec<String>>,
    }
}

record! {
    /// What a user may do in a virtual host: regular expressions on names of objects.
    PermissionSpec {
        /// Objects to declare and delete.
        configure: String,
        /// Objects to publish to and bind.
        write: String,
        /// Objects to consume from and bind to.
        read: String,
    }
}

record! {
    /// Which topics of an exchange a user may write and read.
    TopicPermissionSpec {
        /// Topics to publish to.
        write: String,
        /// Topics to subscribe to and bind.
        read: String,
        /// How both are written: `regex`, `dot` or `slash`.
        syntax: Option<String>,
    }
}

record! {
    /// What a user may use; what is not said is not bounded, and 0 blocks.
    UserBounds {
        /// Open connections.
        connections_max: Option<u64>,
        /// Open channels of all connections together.
        channels_max: Option<u64>,
    }
}

record! {
    /// A question about the rights of a user.
    Question {
        /// Who; whoever asks, unless it is said.
        user: Option<String>,
        /// `configure`, `write` or `read`.
        action: String,
        /// Name of the queue or exchange.
        object: String,
        /// A routing key, or with `read` a pattern, in dot form; the object is an exchange then.
        topic: Option<String>,
        /// The client id, where rules name it.
        client_id: Option<String>,
    }
}

pub(super) const OWN: &str = "one's own; others' with tag administrator";
const ONE: &str = "/users/{user}";
const PERMISSION: &str = "/users/{user}/permissions/{vhost}";
const TOPICS: &str = "/users/{user}/topic-permissions/{vhost}/{exchange}";
const LIMITS: &str = "/users/{user}/limits";

pub(super) const fn operation(
    method: Method,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    permission: &'static str,
) -> Operation {
    Operation { method, path, id, tag: "access", summary, permission, ..ROUTE }
}

pub(super) const fn list_of(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    permission: &'static str,
) -> Operation {
    let plain = operation(Method::Get, path, id, summary, permission);
    Operation { query: list::QUERY, answers: list::ANSWERS, ..plain }
}

const fn save_of(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    body: &'static [Media],
) -> Operation {
    let plain = operation(Method::Put, path, id, summary, ADMINISTRATOR);
    Operation { query: &[DRY_RUN], body, answers: PUT, ..plain }
}

pub(super) const fn remove_of(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    permission: &'static str,
) -> Operation {
    let plain = operation(Method::Delete, path, id, summary, permission);
    Operation { query: &[DRY_RUN], answers: NOTHING, ..plain }
}

static LIST: Operation = list_of("/users", "listUsers", "Users", ADMINISTRATOR);
static SHOW: Operation = operation(Method::Get, ONE, "showUser", "A user", ADMINISTRATOR);
static SAVE: Operation = save_of(
    ONE,
    "putUser",
    "Create or change a user",
    &[Media::json(<UserSpec as Schema>::schema)],
);
static REMOVE: Operation = remove_of(
    ONE,
    "deleteUser",
    "Delete a user with everything of its own; its connections end",
    ADMINISTRATOR,
);
static PERMISSIONS: Operation =
    list_of("/permissions", "listPermissions", "Permissions of all users", ADMINISTRATOR);
static SHOW_PERMISSION: Operation = operation(
    Method::Get,
    PERMISSION,
    "showPermission",
    "What a user may do in a virtual host",
    ADMINISTRATOR,
);
static GRANT: Operation = save_of(
    PERMISSION,
    "putPermission",
    "Set what a user may do in a virtual host",
    &[Media::json(<PermissionSpec as Schema>::schema)],
);
static REVOKE: Operation = remove_of(
    PERMISSION,
    "deletePermission",
    "Take all rights in a virtual host from a user",
    ADMINISTRATOR,
);
static ALL_TOPICS: Operation = list_of(
    "/topic-permissions",
    "listTopicPermissions",
    "Topic permissions of all users",
    ADMINISTRATOR,
);
static GRANT_TOPICS: Operation = save_of(
    TOPICS,
    "putTopicPermission",
    "Set which topics of an exchange a user may write and read",
    &[Media::json(<TopicPermissionSpec as Schema>::schema)],
);
static REVOKE_TOPICS: Operation = remove_of(
    TOPICS,
    "deleteTopicPermission",
    "Free a user of its topic permission on an exchange",
    ADMINISTRATOR,
);
static SHOW_LIMITS: Operation =
    operation(Method::Get, LIMITS, "showUserLimits", "What a user may use", OWN);
static BOUND: Operation = save_of(
    LIMITS,
    "putUserLimits",
    "Bound a user; what is open already stays",
    &[Media::json(<UserBounds as Schema>::schema)],
);
static TEST: Operation = Operation {
    body: &[Media::json(<Question as Schema>::schema)],
    ..operation(
        Method::Post,
        "/vhosts/{vhost}/permissions:test",
        "testPermission",
        "Whether a user may do something, and by which rule",
        OWN,
    )
};

pub(super) fn routes(api: Api) -> Api {
    api.route(&LIST, index)
        .route(&SHOW, show)
        .route(&SAVE, save)
        .route(&REMOVE, remove)
        .route(&PERMISSIONS, permissions)
        .route(&SHOW_PERMISSION, show_permission)
        .route(&GRANT, grant)
        .route(&REVOKE, revoke)
        .route(&ALL_TOPICS, all_topics)
        .route(&GRANT_TOPICS, grant_topics)
        .route(&REVOKE_TOPICS, revoke_topics)
        .route(&SHOW_LIMITS, show_limits)
        .route(&BOUND, bound)
        .route(&TEST, test)
}

pub(super) fn refused(refusal: Refusal) -> Problem {
    Problem::refused(&refusal, "user")
}

pub(super) fn user_of(call: &Call) -> Result<UserName, Problem> {
    UserName::new(call.path("user"))
        .map_err(|bad| Problem::bad("bad_name", bad.to_string()).at("user"))
}

pub(super) fn done() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

fn put(is_new: bool, shown: Value) -> Response {
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    (status, Json(shown)).into_response()
}

fn dry(would_create: bool) -> Response {
    Json(json!({ "dry_run": true, "would_create": would_create })).into_response()
}

fn shown(user: &UserView) -> Value {
    json!({
        "name": user.name.as_str(),
        "tags": user.record.tags,
        "has_password": !user.record.password_hash.is_empty(),
        "loopback_only": user.record.loopback_only,
        "limits": bounds(&user.limits),
    })
}

fn bounds(limits: &UserLimits) -> Value {
    json!({ "connections_max": limits.connections_max, "channels_max": limits.channels_max })
}

async fn index(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let all = caller.manage(&call).users().map_err(refused)?;
    list::page(&call, all, |user| user.name.as_str().to_owned(), shown).map(Json)
}

async fn show(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let found = caller.manage(&call).find_user(&user_of(&call)?).map_err(refused)?;
    Ok(Json(shown(&found)))
}

async fn save(mut call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let (name, manager) = (user_of(&call)?, caller.manage(&call));
    let spec: UserSpec = call.json().await?;
    let is_new = manager.find_user(&name).is_err();
    let credentials = match (&spec.password, &spec.password_hash) {
        (Some(_), Some(_)) => {
            let text = "`password` and `password_hash` exclude each other";
            return Err(Problem::bad("invalid_argument", text).at("/password"));
        }
        (Some(Value::Null), None) => Some(Credentials::none()),
        (Some(Value::String(password)), None) => {
            let hashed = hashed(&caller, password).await;
            Some(hashed.map_err(|problem| problem.at("/password"))?)
        }
        (Some(_), None) => {
            return Err(Problem::bad("wrong_type", "`password` is text").at("/password"));
        }
        (None, Some(hash)) => {
            let algorithm = spec.hashing_algorithm.as_deref();
            let algorithm = algorithm.unwrap_or("rabbit_password_hashing_sha256");
            Some(Credentials::imported(algorithm, hash).map_err(refused)?)
        }
        (None, None) => None,
    };
    let change = UserChange { credentials, tags: spec.tags };
    if call.flag("dry_run") {
        change.check().map_err(refused)?;
        return Ok(dry(is_new));
    }
    let is_new = manager.put_user(&name, change).map_err(refused)?;
    Ok(put(is_new, shown(&manager.find_user(&name).map_err(refused)?)))
}

/// Hashes a password on a thread of the authenticator.
async fn hashed(caller: &Caller, password: &str) -> Result<Credentials, Problem> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    caller.broker().hash_password(Secret::new(password.as_bytes()), move |hashed| {
        // Whoever asked may have gone.
        sender.send(hashed).ok();
    });
    match receiver.await {
        Ok(hashed) => hashed.map_err(refused),
        Err(_) => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            Err(Problem::new(status, "busy", "the password could not be hashed").retry())
        }
    }
}

async fn remove(call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let (name, manager) = (user_of(&call)?, caller.manage(&call));
    manager.find_user(&name).map_err(refused)?;
    if name == caller.who.user {
        let text = "nobody can delete themselves";
        return Err(Problem::new(StatusCode::CONFLICT, "in_use", text));
    }
    if call.flag("dry_run") {
        let of_user = |one: &polymq_broker::ConnectionRef| one.user.as_ref() == Some(&name);
        let connections = caller.broker().connection_refs().iter().filter(|c| of_user(c)).count();
        return Ok(Json(json!({ "dry_run": true, "connections": connections })).into_response());
    }
    manager.remove_user(&name).map_err(refused)?;
    Ok(done())
}

fn permission(view: &PermissionView) -> Value {
    let PermissionRecord { configure, write, read } = &view.record;
    json!({
        "user": view.user.as_str(), "vhost": view.vhost.as_str(),
        "configure": configure, "write": write, "read": read,
    })
}

async fn permissions(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let all = caller.manage(&call).permissions().map_err(refused)?;
    list::page(&call, all, |view| format!("{}\0{}", view.user, view.vhost), permission).map(Json)
}

async fn show_permission(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let (user, vhost) = (user_of(&call)?, vhost_of(&call)?);
    let record = caller.manage(&call).permission(&vhost, &user).map_err(refused)?;
    Ok(Json(permission(&PermissionView { vhost, user, record })))
}

async fn grant(mut call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let (user, vhost, manager) = (user_of(&call)?, vhost_of(&call)?, caller.manage(&call));
    let PermissionSpec { configure, write, read } = call.json().await?;
    let record = PermissionRecord { configure, write, read };
    if call.flag("dry_run") {
        manager.check_permission(&vhost, &user, &record).map_err(refused)?;
        return Ok(dry(manager.permission(&vhost, &user).is_err()));
    }
    let is_new = manager.put_permission(&vhost, &user, record.clone()).map_err(refused)?;
    Ok(put(is_new, permission(&PermissionView { vhost, user, record })))
}

async fn revoke(call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let (user, vhost, manager) = (user_of(&call)?, vhost_of(&call)?, caller.manage(&call));
    manager.permission(&vhost, &user).map_err(refused)?;
    if call.flag("dry_run") {
        return Ok(Json(json!({ "dry_run": true, "count": 1 })).into_response());
    }
    manager.remove_permission(&vhost, &user).map_err(refused)?;
    Ok(done())
}

fn topics(view: &TopicPermissionView) -> Value {
    let exchange = if view.exchange.is_empty() { "amq.default" } else { &view.exchange };
    json!({
        "user": view.user.as_str(), "vhost": view.vhost.as_str(), "exchange": exchange,
        "write": view.record.write, "read": view.record.read, "syntax": view.record.syntax,
    })
}

async fn all_topics(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let all = caller.manage(&call).topic_permissions().map_err(refused)?;
    let key =
        |view: &TopicPermissionView| format!("{}\0{}\0{}", view.user, view.vhost, view.exchange);
    list::page(&call, all, key, topics).map(Json)
}

async fn grant_topics(mut call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let (user, vhost, exchange) = (user_of(&call)?, vhost_of(&call)?, call.exchange()?);
    let spec: TopicPermissionSpec = call.json().await?;
    let syntax: TopicSyntax = match &spec.syntax {
        None => TopicSyntax::default(),
        Some(word) => serde_json::from_value(json!(word)).map_err(|_| {
            Problem::bad("wrong_type", "`syntax` is regex, dot or slash").at("/syntax")
        })?,
    };
    let record = TopicPermissionRecord { write: spec.write, read: spec.read, syntax };
    let manager = caller.manage(&call);
    if call.flag("dry_run") {
        let checked = manager.check_topic_permission(&vhost, &user, &exchange, &record);
        checked.map_err(refused)?;
        let all = manager.topic_permissions().map_err(refused)?;
        let is_there = all
            .iter()
            .any(|known| known.user == user && known.vhost == vhost && known.exchange == exchange);
        return Ok(dry(!is_there));
    }
    let put_record = record.clone();
    let is_new = manager.put_topic_permission(&vhost, &user, &exchange, put_record);
    let is_new = is_new.map_err(refused)?;
    Ok(put(is_new, topics(&TopicPermissionView { vhost, user, exchange, record })))
}

async fn revoke_topics(call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let (user, vhost, exchange) = (user_of(&call)?, vhost_of(&call)?, call.exchange()?);
    let manager = caller.manage(&call);
    if call.flag("dry_run") {
        let all = manager.topic_permissions().map_err(refused)?;
        let is_meant = |known: &&TopicPermissionView| {
            known.user == user && known.vhost == vhost && known.exchange == exchange
        };
        let count = all.iter().filter(is_meant).count();
        return Ok(Json(json!({ "dry_run": true, "count": count })).into_response());
    }
    manager.remove_topic_permissions(&vhost, &user, Some(&exchange)).map_err(refused)?;
    Ok(done())
}

async fn show_limits(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let limits = caller.manage(&call).user_limits(&user_of(&call)?).map_err(refused)?;
    Ok(Json(bounds(&limits)))
}

async fn bound(mut call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let (user, manager) = (user_of(&call)?, caller.manage(&call));
    let UserBounds { connections_max, channels_max } = call.json().await?;
    let limits = UserLimits { connections_max, channels_max };
    manager.find_user(&user).map_err(refused)?;
    if call.flag("dry_run") {
        return Ok(dry(false));
    }
    manager.set_user_limits(&user, limits).map_err(refused)?;
    Ok(put(false, bounds(&limits)))
}

async fn test(mut call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let vhost = vhost_of(&call)?;
    let Question { user, action, object, topic, client_id } = call.json().await?;
    let user = match user {
        None => caller.who.user.clone(),
        Some(name) => UserName::new(&name)
            .map_err(|bad| Problem::bad("bad_name", bad.to_string()).at("/user"))?,
    };
    let asked = PermissionQuestion { user, vhost, action, object, topic, client_id };
    let verdict = caller.manage(&call).test_permission(&asked).map_err(refused)?;
    Ok(Json(json!({ "allowed": verdict.allowed, "rule": verdict.rule })))
}
