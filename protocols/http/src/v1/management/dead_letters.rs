//! Dead letters in groups: where they are, where they died, and of what.

use axum::Json;
use polymq_broker::DeadLetterGroup;
use serde_json::{Value, json};

use super::{
    caller::{Caller, vhost_of},
    list,
    route::ROUTE,
    value::time,
};
use crate::{
    api::{Api, Operation},
    call::Call,
    clock,
    problem::Problem,
};

/// Messages of each queue that are looked at.
const SCAN_MAX: u64 = 100_000;

static LIST: Operation = Operation {
    path: "/vhosts/{vhost}/dead-letters",
    id: "listDeadLetters",
    tag: "dead-letters",
    summary: "Dead letters by origin, reason and queue",
    permission: "read on the queues that hold them",
    query: list::QUERY,
    answers: list::ANSWERS,
    ..ROUTE
};

pub(super) fn routes(api: Api) -> Api {
    api.route(&LIST, index)
}

fn shown(group: &DeadLetterGroup) -> Value {
    let quoted = |text: &str| text.replace('\'', "''");
    let mut filter = format!(
        "death.queue = '{}' AND death.reason = '{}'",
        quoted(&group.origin),
        quoted(&group.reason)
    );
    match &group.detail {
        // The text may go on behind what tells groups apart.
        Some(detail) => {
            let escaped = quoted(detail).replace('\\', "\\\\");
            let escaped = escaped.replace('%', "\\%").replace('_', "\\_");
            filter.push_str(&format!(" AND death.detail LIKE '{escaped}%' ESCAPE '\\'"));
        }
        None => filter.push_str(" AND death.detail IS NULL"),
    }
    json!({
        "queue": group.queue,
        "origin": group.origin,
        "reason": group.reason,
        "detail": group.detail,
        "count": group.count,
        "first_at": time(group.first_ms),
        "last_at": time(group.last_ms),
        "sample_seq": group.sample_seq.to_string(),
        // Chooses the messages of this group, for retry, move and delete.
        "filter": filter,
    })
}

async fn index(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    let vhost = vhost_of(&call)?;
    let found = caller.blocking("vhost", move |broker, who| {
        broker.dead_letters(who, &vhost, SCAN_MAX, clock::now())
    });
    let found = found.await?;
    let (queues, exact) = (found.queues, found.exact);
    let key = |group: &DeadLetterGroup| {
        let detail = group.detail.as_deref().unwrap_or_default();
        // The largest group first.
        format!(
            "{:020}\0{}\0{}\0{}\0{detail}",
            u64::MAX - group.count,
            group.queue,
            group.origin,
            group.reason
        )
    };
    let mut page = list::page(&call, found.groups, key, shown)?;
    page["total"]["exact"] = json!(exact);
    page["queues"] = json!(queues);
    Ok(Json(page))
}
