//! Consumers.

use polymq_broker::ConsumerView;
use serde_json::{Value, json};

use super::{
    call::Call,
    connections::{Connections, channel_details},
    list::{Row, Wanted},
    values::object,
    wire::{Failure, Outcome},
};

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
