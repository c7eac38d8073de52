//! Consumers, whatever protocol they speak.

use axum::Json;
use polymq_broker::{BrokerHandle, ConsumerView};
use serde_json::{Value, json};

use super::{
    caller::{Caller, blocking},
    list,
    route::{MONITORING, ROUTE},
    value::from_table,
};
use crate::{
    api::{Api, Operation},
    call::Call,
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

pub(super) fn routes(api: Api) -> Api {
    api.route(&LIST, index)
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
        "user": connection.as_ref().and_then(|c| c.user.as_ref().map(|user| user.as_str().to_owned())),
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
