//! Delayed messages: what waits for its time, earlier, later or not at all.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use polymq_broker::{ScheduledAt, ScheduledView};
use polymq_model::carry::rfc3339_to_ms;
use serde_json::{Value, json};

use super::{
    caller::{Caller, vhost_of},
    list::{AFTER, ANSWERS, LIMIT, limit},
    route::{DRY_RUN, NOTHING, OBJECT, ROUTE},
    shown::{Payload, address_of, of_message},
    value::time,
};
use crate::{
    api::{Api, Media, Method, Operation},
    call::Call,
    clock,
    problem::Problem,
    schema::{Schema, record},
};

record! {
    /// Another time for a delayed message.
    Reschedule {
        /// When it is to be routed, in RFC 3339.
        due_at: String,
    }
}

const NEEDS: &str = "the right to publish the message, or tag monitoring; what is in it is for \
     whoever may read where it goes";
const CHANGE: &str =
    "the rights to publish the message and to read where it goes, or tag administrator";
const ONE: &str = "/vhosts/{vhost}/scheduled/{id}";

static LIST: Operation = Operation {
    path: "/vhosts/{vhost}/scheduled",
    id: "listScheduled",
    tag: "scheduled",
    summary: "Delayed messages in the order in which they leave",
    permission: NEEDS,
    query: &[LIMIT, AFTER],
    answers: ANSWERS,
    ..ROUTE
};
static MOVE: Operation = Operation {
    method: Method::Patch,
    path: ONE,
    id: "moveScheduled",
    tag: "scheduled",
    summary: "Have a delayed message leave at another time",
    permission: CHANGE,
    query: &[DRY_RUN],
    body: &[Media::json(<Reschedule as Schema>::schema)],
    answers: OBJECT,
    ..ROUTE
};
static CANCEL: Operation = Operation {
    method: Method::Delete,
    path: ONE,
    id: "cancelScheduled",
    tag: "scheduled",
    summary: "Drop a delayed message",
    permission: CHANGE,
    query: &[DRY_RUN],
    answers: NOTHING,
    ..ROUTE
};

pub(super) fn routes(api: Api) -> Api {
    api.route(&LIST, index).route(&MOVE, reschedule).route(&CANCEL, cancel)
}

fn shown(view: &ScheduledView, may_read: bool) -> Value {
    let mut shown = match may_read {
        true => of_message(&view.message, Payload::Head),
        false => address_of(&view.message),
    };
    // It is below 0 once it is over; here it is still to come.
    if let Some(delay) = shown.get_mut("properties").and_then(|all| all.get_mut("delay")) {
        *delay = json!(delay.as_i64().map(i64::unsigned_abs));
    }
    shown.insert("id".to_owned(), json!(view.at.id.to_string()));
    shown.insert("due_at".to_owned(), time(view.at.due_ms));
    shown.insert("published_at".to_owned(), time(view.message.arrived_ms()));
    Value::Object(shown)
}

async fn index(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    let vhost = vhost_of(&call)?;
    let after = call.query("after").map(cursor).transpose()?;
    let limit = limit(&call)?;
    let found = caller.blocking("vhost", move |broker, who| {
        let total = broker.scheduled_count(&vhost)?;
        let page = broker.scheduled(&vhost, after, limit)?;
        let next = (page.len() == limit).then(|| page.last().map(|last| last.at)).flatten();
        let visible = |view: &ScheduledView| {
            let rights = broker.scheduled_rights(who, &vhost, &view.message);
            rights.see.then(|| shown(view, rights.read))
        };
        let items: Vec<Value> = page.iter().filter_map(visible).collect();
        let next = next.map(|at| format!("{}-{}", at.due_ms, at.id));
        Ok(json!({
            "items": items,
            "next": next,
            "total": { "value": total, "exact": true },
            "order": "key",
        }))
    });
    found.await.map(Json)
}

fn cursor(text: &str) -> Result<ScheduledAt, Problem> {
    let parts = text.split_once('-');
    let read = parts.and_then(|(due, id)| {
        Some(ScheduledAt { due_ms: due.parse().ok()?, id: id.parse().ok()? })
    });
    read.ok_or_else(|| {
        Problem::bad("bad_cursor", "`after` is not the `next` of an earlier answer").at("after")
    })
}

/// The id of the path, once the caller may change that message.
///
/// Errors: it waits no more, or the right is missing.
async fn changeable(call: &Call, caller: &Caller) -> Result<u64, Problem> {
    let vhost = vhost_of(call)?;
    let missing = || {
        let text = format!("no delayed message {}", call.path("id"));
        Problem::new(StatusCode::NOT_FOUND, "message_not_found", text)
    };
    let id: u64 = call.path("id").parse().map_err(|_| missing())?;
    let may = caller.blocking("message", move |broker, who| {
        let message = broker.scheduled_message(&vhost, id)?;
        Ok(broker.scheduled_rights(who, &vhost, &message).change)
    });
    if may.await? { Ok(id) } else { Err(missing()) }
}

async fn reschedule(mut call: Call) -> Result<Response, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    let wanted: Reschedule = call.json().await?;
    let due_ms = rfc3339_to_ms(&wanted.due_at).and_then(|ms| u64::try_from(ms).ok());
    let due_ms = due_ms.ok_or_else(|| {
        Problem::bad("wrong_type", "`due_at` is a time in RFC 3339").at("/due_at")
    })?;
    let (id, vhost) = (changeable(&call, &caller).await?, vhost_of(&call)?);
    let text = json!({ "id": id.to_string(), "due_at": time(due_ms) });
    if !call.flag("dry_run") {
        caller
            .blocking("message", move |broker, _| {
                broker.move_scheduled(&vhost, id, due_ms, clock::now())
            })
            .await?;
    }
    Ok(Json(text).into_response())
}

async fn cancel(call: Call) -> Result<Response, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    let (id, vhost) = (changeable(&call, &caller).await?, vhost_of(&call)?);
    if call.flag("dry_run") {
        return Ok(Json(json!({ "dry_run": true, "count": 1 })).into_response());
    }
    caller.blocking("message", move |broker, _| broker.cancel_scheduled(&vhost, id)).await?;
    let object = format!("/vhosts/{}/scheduled/{id}", call.vhost());
    caller.audit(&call, "scheduled.cancel", object, Default::default());
    Ok(StatusCode::NO_CONTENT.into_response())
}
