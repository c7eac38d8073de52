//! Consumers.

use polymq_broker::ConsumerView;
use serde_json::{Value, json};

use super::{
    call::Call,
    connections::{Connections, channel_details},
    list::{Row, Wanted},
    values::object,
    wire::{self, Failure, Outcome},
};
use crate::clock;

struct ConsumerRow(ConsumerView);

impl Row for ConsumerRow {
    fn place(&self) -> (&str, &str) {
        (self.0.vhost.as_str(), &self.0.tag)
    }
}

/// A consumer with its queue and its channel.
pub(super) fn object_of(consumer: &ConsumerView, connections: &Connections) -> Value {
    json!({
        "consumer_tag": &*consumer.tag,
        "active": consumer.is_active,
        "activity_status": match (consumer.is_active, consumer.single_active) {
            (true, true) => "single_active",
            (true, false) => "up",
            (false, _) => "waiting",
        },
        "ack_required": !consumer.no_ack,
        "exclusive": consumer.exclusive,
        "prefetch_count": consumer.prefetch,
        "arguments": object(&consumer.arguments),
        "consumer_timeout": consumer.timeout_ms.unwrap_or(0),
        "queue": { "name": consumer.queue.as_str(), "vhost": consumer.vhost.as_str() },
        "channel_details": channel_details(consumer, connections),
    })
}

/// `GET /consumers`, `/consumers/:vhost`
pub(super) fn list(call: &Call) -> Outcome {
    let all = call.broker().consumers(call.vhost_filter().as_deref());
    let all = all.map_err(|_| Failure::not_found())?;
    let connections = Connections::of(call);
    let is_own = |consumer: &ConsumerView| {
        let owner = connections.get(consumer.connection);
        owner.is_some_and(|named| named.user == call.user().as_str())
    };
    let rows = all.into_iter().filter(|consumer| call.is_monitoring() || is_own(consumer));
    let rows = rows.map(ConsumerRow).collect();
    Wanted::of(call)?.answer(rows, |row| object_of(&row.0, &connections))
}

/// `DELETE /consumers/:vhost/:connection/:channel/:consumer`
pub(super) fn cancel(call: &Call) -> Outcome {
    let (vhost, tag) = (call.vhost()?, call.path("consumer"));
    let channel = call.path("channel").parse().map_err(|_| Failure::not_found())?;
    let connections = Connections::of(call);
    let connection = call.path("connection").replace('+', " ");
    let all = call.broker().consumers(Some(vhost.as_str())).map_err(|_| Failure::not_found())?;
    let is_meant = |consumer: &&ConsumerView| {
        &*consumer.tag == tag && connections.is_channel(consumer, (&connection, channel))
    };
    let found = all.iter().find(is_meant).ok_or_else(Failure::not_found)?;
    let before = object_of(found, &connections);
    let place = (&vhost, found.queue.as_str());
    let consumer = (found.connection, found.channel, tag);
    call.broker().cancel_consumer(call.manager.principal(), place, consumer, clock::now())?;
    let object = format!("queues/{}/consumers/{tag}", found.queue);
    call.audit("consumer.cancel", &object, (before, Value::Null));
    wire::done()
}
