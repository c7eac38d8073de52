//! Limits of virtual hosts and users.

use polymq_broker::{Manager, UserLimits, UserView, VhostLimits, limit_from};
use polymq_contract::{Refusal, RefusalKind};
use polymq_model::VhostName;
use serde_json::{Map, Value, json};

use super::{
    call::Call,
    users,
    values::Fields,
    wire::{self, Failure, Outcome},
};

fn object_of(limits: &VhostLimits) -> Value {
    let mut shown = Map::new();
    let all = [
        ("max-connections", limits.connections_max),
        ("max-queues", limits.queues_max),
        ("bytes-high", limits.bytes_high),
        ("retained-max-bytes", limits.retained_bytes_max),
        ("retained-max-count", limits.retained_count_max),
        ("max-message-size", limits.message_bytes_max),
    ];
    for (name, max) in all {
        if let Some(max) = max {
            shown.insert(name.to_owned(), json!(max));
        }
    }
    Value::Object(shown)
}

/// The limits of the virtual hosts that have some, of one or of all.
///
/// Errors: those of the broker.
pub(super) fn of_vhosts(
    manager: &Manager,
    only: Option<&str>,
) -> Result<Vec<(String, Value)>, Refusal> {
    let views = manager.vhosts()?;
    let bound = views.iter().filter(|view| {
        let is_meant = only.is_none_or(|only| view.name.as_str() == only);
        is_meant && view.limits != VhostLimits::default()
    });
    Ok(bound.map(|view| (view.name.as_str().to_owned(), object_of(&view.limits))).collect())
}

/// `GET /vhost-limits`, `/vhost-limits/:vhost`
pub(super) fn list_vhosts(call: &Call) -> Outcome {
    let only = call.vhost_filter();
    let rows = of_vhosts(&call.manager, only.as_deref())?.into_iter();
    wire::ok(&rows.map(|(vhost, value)| json!({ "vhost": vhost, "value": value })).collect())
}

/// The number of the body. A negative one is no limit.
fn value(call: &Call) -> Result<Option<u64>, Failure> {
    let fields = Fields::read(&call.body)?;
    fields.need(&["value"])?;
    Ok(fields.number("value")?.and_then(limit_from))
}

fn unknown(name: &str) -> Failure {
    Failure::bad(format!(
        "Validation failed\n\nUnrecognised terms [{{<<\"{name}\">>}}] in limits\n"
    ))
}

/// Sets one limit of a virtual host in place.
///
/// Errors: there is none of that name.
pub(super) fn set_in_vhost(
    limits: &mut VhostLimits,
    name: &str,
    max: Option<u64>,
) -> Result<(), Failure> {
    match name {
        "max-connections" => limits.connections_max = max,
        "max-queues" => limits.queues_max = max,
        "bytes-high" => limits.bytes_high = max,
        "retained-max-bytes" => limits.retained_bytes_max = max,
        "retained-max-count" => limits.retained_count_max = max,
        "max-message-size" => limits.message_bytes_max = max,
        other => return Err(unknown(other)),
    }
    Ok(())
}

/// Limits of a virtual host, all at once.
///
/// Errors: one of them is none that there is.
pub(super) fn vhost_limits_of(map: &Map<String, Value>) -> Result<VhostLimits, Failure> {
    let mut limits = VhostLimits::default();
    for (name, max) in map {
        set_in_vhost(&mut limits, name, max.as_i64().and_then(limit_from))?;
    }
    Ok(limits)
}

fn set_vhost(call: &Call, max: Option<u64>) -> Outcome {
    let vhost: VhostName = call.vhost()?;
    let view = call.manager.vhost(&vhost).map_err(|refusal| match refusal.kind {
        RefusalKind::NotFound => Failure::not_found(),
        _ => refusal.into(),
    })?;
    let mut limits = view.limits;
    set_in_vhost(&mut limits, call.path("name"), max)?;
    call.manager.set_vhost_limits(&vhost, limits)?;
    wire::done()
}

/// `PUT /vhost-limits/:vhost/:name`
pub(super) fn put_vhost(call: &Call) -> Outcome {
    let max = value(call)?;
    set_vhost(call, max)
}

/// `DELETE /vhost-limits/:vhost/:name`
pub(super) fn delete_vhost(call: &Call) -> Outcome {
    set_vhost(call, None)
}

fn user_object(view: &UserView) -> Value {
    json!({ "user": view.name.as_str(), "value": users::limits_of(view) })
}

/// `GET /user-limits`
pub(super) fn list_users(call: &Call) -> Outcome {
    let views = call.manager.users()?;
    let bound = views.iter().filter(|view| view.limits != UserLimits::default());
    wire::ok(&bound.map(user_object).collect())
}

/// `GET /user-limits/:user`
pub(super) fn list_user(call: &Call) -> Outcome {
    let name = users::name_of(call)?;
    let limits = call.manager.user_limits(&name).map_err(|refusal| match refusal.kind {
        RefusalKind::NotFound => Failure::not_found(),
        _ => refusal.into(),
    })?;
    let record = call.broker().access().user(name.as_str()).ok_or_else(Failure::not_found)?;
    let view = UserView { name, record, limits };
    let rows = if limits == UserLimits::default() { vec![] } else { vec![user_object(&view)] };
    wire::ok(&Value::Array(rows))
}

/// Sets one limit of a user in place.
///
/// Errors: there is none of that name.
pub(super) fn set_in_user(
    limits: &mut UserLimits,
    name: &str,
    max: Option<u64>,
) -> Result<(), Failure> {
    match name {
        "max-connections" => limits.connections_max = max,
        "max-channels" => limits.channels_max = max,
        other => return Err(unknown(other)),
    }
    Ok(())
}

fn set_user(call: &Call, max: Option<u64>) -> Outcome {
    let name = users::name_of(call)?;
    let limits = call.manager.user_limits(&name).map_err(|refusal| match refusal.kind {
        RefusalKind::NotFound => Failure::not_found(),
        _ => refusal.into(),
    });
    let mut limits = limits?;
    set_in_user(&mut limits, call.path("name"), max)?;
    call.manager.set_user_limits(&name, limits)?;
    wire::done()
}

/// `PUT /user-limits/:user/:name`
pub(super) fn put_user(call: &Call) -> Outcome {
    let max = value(call)?;
    set_user(call, max)
}

/// `DELETE /user-limits/:user/:name`
pub(super) fn delete_user(call: &Call) -> Outcome {
    set_user(call, None)
}
