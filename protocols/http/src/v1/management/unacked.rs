//! Who holds which message of a queue, and for how long.

use axum::Json;
use polymq_broker::{BrokerHandle, ConnectionRef, UnackedView};
use polymq_model::ConnectionId;
use serde_json::{Value, json};

use super::{
    caller::Caller,
    list::{self, AFTER, LIMIT},
    queues,
    route::ROUTE,
    value::time,
};
use crate::{
    api::{Api, Operation},
    call::Call,
    clock,
    problem::Problem,
};

static UNACKED: Operation = Operation {
    path: "/vhosts/{vhost}/queues/{queue}/unacked",
    id: "listUnacked",
    tag: "queues",
    summary: "Which message is held by whom and since when; the oldest of each consumer first",
    permission: "any right to the queue, or tag monitoring",
    query: &[LIMIT, AFTER],
    answers: list::ANSWERS,
    ..ROUTE
};

pub(super) fn routes(api: Api) -> Api {
    api.route(&UNACKED, index)
}

async fn index(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    let queue = queues::find(&call, &caller)?;
    let limit = list::limit(&call)?;
    let after = call.query("after").map(|cursor| place_of(cursor, call.id())).transpose()?;
    let total = queue.counts().unsettled;
    let mut found = queue.unacked(after, limit + 1);
    let has_more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| has_more);
    let next =
        last.map(|last| list::to_cursor(&json!([last.place.0, last.place.1]), "", call.id()));
    let mut holders = Holders { broker: caller.broker(), last: None };
    let now_ms = clock::now().unix_ms;
    let items: Vec<Value> = found.iter().map(|held| holders.shown(held, now_ms)).collect();
    Ok(Json(json!({
        "items": items,
        "next": next,
        "total": { "value": total, "exact": true },
        "order": "key",
    })))
}

/// Errors: it is not the `next` of an earlier answer.
fn place_of(cursor: &str, list: &str) -> Result<(u64, u64), Problem> {
    let (place, _) = list::cursor(cursor, list)?;
    serde_json::from_value(place).map_err(|_| list::bad_cursor())
}

/// Who holds messages. Those of one connection come together.
struct Holders<'b> {
    broker: &'b BrokerHandle,
    last: Option<(ConnectionId, Option<ConnectionRef>)>,
}

impl Holders<'_> {
    fn connection(&mut self, id: ConnectionId) -> Option<&ConnectionRef> {
        if self.last.as_ref().is_none_or(|(known, _)| *known != id) {
            self.last = Some((id, self.broker.connection_ref(id)));
        }
        self.last.as_ref()?.1.as_ref()
    }

    fn shown(&mut self, held: &UnackedView, now_ms: u64) -> Value {
        let connection = self.connection(held.connection);
        let since_ms = held.since_ms.unwrap_or(0);
        let due_ms = held.since_ms.zip(held.timeout_ms).map(|(ms, may)| ms.saturating_add(may));
        json!({
            "seq": held.seq.to_string(),
            "consumer": &*held.tag,
            "connection": connection.map(|connection| connection.id.0.to_string()),
            "connection_name": connection.map(ConnectionRef::name),
            "protocol": connection.map(ConnectionRef::protocol),
            "user": connection.and_then(|c| c.user.as_ref()).map(|user| user.as_str().to_owned()),
            "channel": held.channel,
            "delivered_at": time(since_ms),
            "held_ms": held.since_ms.map(|ms| now_ms.saturating_sub(ms)),
            "times_out_at": time(due_ms.unwrap_or(0)),
            "payload_bytes": held.payload_bytes,
            "delivery_count": held.failed,
            "redelivered": held.acquired > 0,
        })
    }
}
