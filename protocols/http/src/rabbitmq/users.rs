//! Users.

use std::collections::HashSet;

use polymq_broker::{BrokerHandle, Credentials, UserChange, UserView};
use polymq_contract::{RefusalKind, Secret};
use polymq_model::UserName;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::{
    call::Call,
    list::{Columns, Row, Wanted},
    values::Fields,
    wire::{self, Failure, Outcome},
};

/// How RabbitMQ hashes when nothing else is said.
const USUAL_ALGORITHM: &str = "rabbit_password_hashing_sha256";

struct UserRow(UserView);

impl Row for UserRow {
    fn place(&self) -> (&str, &str) {
        ("", self.0.name.as_str())
    }
}

/// Limits of a user as they are shown.
pub(super) fn limits_of(view: &UserView) -> Value {
    let mut shown = Map::new();
    let limits = [
        ("max-connections", view.limits.connections_max),
        ("max-channels", view.limits.channels_max),
    ];
    for (name, max) in limits {
        if let Some(max) = max {
            shown.insert(name.to_owned(), json!(max));
        }
    }
    Value::Object(shown)
}

/// A user with its hash.
pub(super) fn object_of(view: &UserView) -> Value {
    let (hash, algorithm) = view.record.exported_hash();
    json!({
        "name": view.name.as_str(),
        "password_hash": hash,
        "hashing_algorithm": algorithm,
        "tags": view.record.tags,
        "limits": limits_of(view),
    })
}

/// `GET /whoami`
pub(super) fn whoami(call: &Call) -> Outcome {
    wire::ok(&Columns::of(call).pick(json!({
        "name": call.user().as_str(),
        "tags": call.tags.names(),
        "is_internal_user": true,
        "login_session_timeout": 480,
    })))
}

fn answer(call: &Call, views: Vec<UserView>) -> Outcome {
    let rows = views.into_iter().map(UserRow).collect();
    Wanted::of(call)?.answer(rows, |row| object_of(&row.0))
}

/// `GET /users`
pub(super) fn list(call: &Call) -> Outcome {
    answer(call, call.manager.users()?)
}

/// `GET /users/without-permissions`
pub(super) fn without_permissions(call: &Call) -> Outcome {
    let all = call.manager.permissions()?;
    let having: HashSet<_> = all.iter().map(|permission| &permission.user).collect();
    let mut users = call.manager.users()?;
    users.retain(|view| !having.contains(&view.name));
    answer(call, users)
}

/// The user of the path.
pub(super) fn name_of(call: &Call) -> Result<UserName, Failure> {
    let access = call.broker().access();
    let name = call.known("user", |name| access.user(name).is_some());
    UserName::new(name).map_err(|bad| Failure::bad(bad.to_string()))
}

fn found(call: &Call) -> Result<UserView, Failure> {
    call.manager.find_user(&name_of(call)?).map_err(|refusal| match refusal.kind {
        RefusalKind::NotFound => Failure::not_found(),
        _ => refusal.into(),
    })
}

/// `GET /users/:user`
pub(super) fn one(call: &Call) -> Outcome {
    wire::ok(&Columns::of(call).pick(object_of(&found(call)?)))
}

/// What a user is to be, by the fields of a PUT or of definitions. Hashing takes its time.
///
/// Errors: fields that are missing or wrong.
pub(super) async fn change_of(
    broker: &BrokerHandle,
    fields: &Fields,
) -> Result<UserChange, Failure> {
    let tags = match (fields.words("tags")?, fields.words("administrator")?) {
        (Some(tags), _) => tags,
        (None, _) => return Err(Failure::bad("tags_not_present")),
    };
    let credentials = match (fields.text("password_hash")?, fields.text("password")?) {
        (Some(_), Some(_)) => {
            return Err(Failure::bad("both_password_and_password_hash_are_provided"));
        }
        (Some(hash), None) if hash.is_empty() => Credentials::none(),
        (Some(hash), None) => {
            let algorithm = fields.text("hashing_algorithm")?;
            Credentials::imported(algorithm.as_deref().unwrap_or(USUAL_ALGORITHM), &hash)?
        }
        (None, Some(password)) => hash(broker, password).await?,
        (None, None) => Credentials::none(),
    };
    Ok(UserChange { credentials: Some(credentials), tags: Some(tags) })
}

async fn hash(broker: &BrokerHandle, password: String) -> Result<Credentials, Failure> {
    let (reply, hashed) = oneshot::channel();
    broker.hash_password(Secret::new(password.into_bytes()), move |credentials| {
        // Whoever asked has gone away.
        let _ = reply.send(credentials);
    });
    let hashed = hashed.await.map_err(|_| Failure::unavailable("the password was not hashed"))?;
    hashed.map_err(|refusal| match refusal.kind {
        RefusalKind::Limit => Failure::unavailable(refusal.text),
        _ => refusal.into(),
    })
}

/// `PUT /users/:user`
pub(super) async fn put(call: Call) -> Outcome {
    let fields = Fields::read(&call.body)?;
    let name = name_of(&call)?;
    // Before the password is hashed, which costs more than the rest.
    call.manager.users()?;
    let change = change_of(call.broker(), &fields).await?;
    wire::put(call.manager.put_user(&name, change)?)
}

/// `DELETE /users/:user`
pub(super) fn delete(call: &Call) -> Outcome {
    let view = found(call)?;
    call.manager.remove_user(&view.name)?;
    wire::done()
}

/// `POST /users/bulk-delete`
pub(super) fn bulk_delete(call: &Call) -> Outcome {
    let fields = Fields::read(&call.body)?;
    fields.need(&["users"])?;
    let names = fields.words("users")?.unwrap_or_default();
    let name = |name: String| UserName::new(name).map_err(|bad| Failure::bad(bad.to_string()));
    let names: Vec<UserName> = names.into_iter().map(name).collect::<Result<_, _>>()?;
    // All of them or none.
    for name in &names {
        if call.broker().access().user(name.as_str()).is_none() {
            return Err(Failure::bad(json!(["no_such_user", name.as_str()])));
        }
    }
    for name in &names {
        call.manager.remove_user(name)?;
    }
    wire::done()
}
