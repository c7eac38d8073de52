//! Consumers, whatever protocol they speak.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use polymq_broker::{BrokerHandle, ConsumerView};
use polymq_model::ConnectionId;
use serde_json::{Value, json};

use super::{
    caller::{Caller, blocking, vhost_of},
    list,
    problems::not_there,
    queues,
    route::{DRY_RUN, MONITORING, NOTHING, ROUTE},
    value::from_table,
};
use crate::{
    api::{Api, Method, Operation},
    call::Call,
    clock,
    problem::Problem,
};

static LIST: Operation = Operation {
    path: "/consumers",
    id: "listConsumers",
    tag: "connections",
    summary: "Consumers of all virtual hosts",
    permission: MONITORING,
    query: list::QUERY,
    answers: list::ANSWERS,
    ..ROUTE
};

static CANCEL: Operation = Operation {
    method: Method::Delete,
    path: "/vhosts/{vhost}/queues/{queue}/consumers/{connection}/{channel}/{tag}",
    id: "cancelConsumer",
    tag: "connections",
    summary: "End a consumer; its client is told, and what it has not settled goes back",
    permission: "own consumers; all with tag administrator",
    query: &[DRY_RUN],
    answers: NOTHING,
    ..ROUTE
};

pub(super) fn routes(api: Api) -> Api {
    api.route(&LIST, index).route(&CANCEL, cancel)
}

/// What a list of consumers is sorted by.
pub(super) fn key(consumer: &ConsumerView) -> String {
    format!(
        "{}\0{}\0{:020}\0{}",
        consumer.vhost, consumer.queue, consumer.connection.0, consumer.tag
    )
}

/// A consumer as JSON.
pub(super) fn shown(broker: &BrokerHandle, consumer: &ConsumerView) -> Value {
    let connection = broker.connection_ref(consumer.connection);
    json!({
        "tag": &*consumer.tag,
        "vhost": consumer.vhost.as_str(),
        "queue": consumer.queue.as_str(),
        "connection": consumer.connection.0.to_string(),
        "connection_name": connection.as_ref().map(|connection| connection.name()),
        "protocol": connection.as_ref().map(|connection| connection.protocol()),
        "user": connection
            .as_ref()
            .and_then(|c| c.user.as_ref().map(|user| user.as_str().to_owned())),
        "channel": consumer.channel,
        "active": consumer.is_active,
        "ack_required": !consumer.no_ack,
        "exclusive": consumer.exclusive,
        "prefetch": consumer.prefetch,
        "priority": consumer.priority,
        "timeout_ms": consumer.timeout_ms,
        "unacked": consumer.unsettled,
        "arguments": from_table(&consumer.arguments),
    })
}

async fn index(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let broker = caller.broker().clone();
    let found = blocking(move || {
        let found = broker.consumers(None).map_err(|r| Problem::refused(&r, "vhost"))?;
        list::page(&call, found, key, |consumer| shown(&broker, consumer))
    });
    found.await?.map(Json)
}

async fn cancel(call: Call) -> Result<Response, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    let (vhost, queue) = (vhost_of(&call)?, queues::find(&call, &caller)?);
    let tag = call.path("tag").to_owned();
    let missing = || not_there("consumer_not_found", "consumer", &tag);
    let connection = ConnectionId(call.path("connection").parse().map_err(|_| missing())?);
    let channel: u32 = call.path("channel").parse().map_err(|_| missing())?;
    let is_meant = |consumer: &ConsumerView| {
        (consumer.connection, consumer.channel, &*consumer.tag) == (connection, channel, &*tag)
    };
    let found = queue.consumers().into_iter().find(is_meant).ok_or_else(missing)?;
    let before = shown(caller.broker(), &found);
    if call.flag("dry_run") {
        return Ok(Json(json!({ "dry_run": true, "consumer": before })).into_response());
    }
    let place = (&vhost, queue.name().as_str());
    let broker = caller.broker();
    broker
        .cancel_consumer(&caller.who, place, (connection, channel, &tag), clock::now())
        .map_err(|refusal| Problem::refused(&refusal, "consumer"))?;
    let object = format!("/vhosts/{vhost}/queues/{}/consumers/{tag}", queue.name());
    caller.audit(&call, "consumer.cancel", object, (before, Value::Null));
    Ok(StatusCode::NO_CONTENT.into_response())
}
