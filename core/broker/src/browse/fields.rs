//! The fields of a message that filters know.

use std::borrow::Cow;

use polymq_filter::{Fields, Scalar};
use polymq_model::{Message, Properties, Value, carry::ident_to_text};

use super::BrowsedMessage;
use crate::queue::{MessageState, Peeked};

/// A message as a filter sees it.
///
/// Names: `exchange`, `routing_key`, `payload_bytes`, `state` (`ready`, `unacked`, `scheduled`),
/// `redelivered`, `delivery_count`, `acquired_count`, `enqueued_at`, `expires_at`, `priority`,
/// `persistent`, `protocol`, `message_id`, `correlation_id`, `content_type`, `content_encoding`,
/// `type`, `app_id`, `user_id`, `group_id`, `reply_to`, `timestamp`, `death.queue`, `death.reason`,
/// `death.exchange`, `death.count`, `death.detail`, `death.time`; those of JMS that begin with
/// `JMS`, `_size` and `_key`; and any header by its name or as `headers.name`.
pub struct MessageFields<'m> {
    message: &'m Message,
    state: &'m MessageState,
    failed: u16,
    acquired: u16,
    expires_ms: u64,
}

impl<'m> MessageFields<'m> {
    /// The fields of a message that was looked at.
    pub fn new(browsed: &'m BrowsedMessage) -> Self {
        let BrowsedMessage { ref state, failed, acquired, expires_ms, ref message, .. } = *browsed;
        Self { message, state, failed, acquired, expires_ms }
    }

    pub(crate) fn of(peeked: &'m Peeked) -> Self {
        let entry = &peeked.entry;
        Self {
            message: &entry.message,
            state: &peeked.state,
            failed: entry.failed,
            acquired: entry.acquired,
            expires_ms: entry.deadline_ms,
        }
    }

    /// What the broker knows about the message in its queue.
    fn of_queue(&self, name: &str) -> Option<Scalar<'_>> {
        let message = self.message;
        match name {
            "exchange" => Some(Scalar::text(message.exchange())),
            "routing_key" | "_key" => Some(Scalar::text(message.key())),
            "payload_bytes" | "_size" => Some(Scalar::unsigned(message.body().len() as u64)),
            "protocol" => Some(Scalar::text(message.format().name)),
            "persistent" => Some(Scalar::Bool(message.is_durable())),
            "redelivered" | "JMSRedelivered" => Some(Scalar::Bool(self.acquired > 0)),
            "delivery_count" => Some(Scalar::Int(i64::from(self.failed))),
            "acquired_count" => Some(Scalar::Int(i64::from(self.acquired))),
            "JMSXDeliveryCount" => Some(Scalar::Int(i64::from(self.acquired) + 1)),
            "enqueued_at" => time(message.arrived_ms()),
            "expires_at" | "JMSExpiration" => time(self.expires_ms),
            "state" => Some(Scalar::text(match self.state {
                MessageState::Ready => "ready",
                MessageState::Unacked { .. } => "unacked",
                MessageState::Scheduled { .. } => "scheduled",
            })),
            _ => None,
        }
    }

    fn of_death(&self, name: &str) -> Option<Scalar<'_>> {
        let death = self.message.annotations()?.deaths.first()?;
        match name {
            "queue" => Some(Scalar::text(&death.queue)),
            "reason" => Some(Scalar::text(&death.reason)),
            "exchange" => Some(Scalar::text(&death.exchange)),
            "count" => Some(Scalar::unsigned(death.count)),
            "time" => time(death.time_ms),
            "detail" => death.detail.as_deref().map(Scalar::text),
            _ => None,
        }
    }
}

impl Fields for MessageFields<'_> {
    fn field(&self, name: &str) -> Option<Scalar<'_>> {
        if let Some(found) = self.of_queue(name) {
            return Some(found);
        }
        if let Some(name) = name.strip_prefix("death.") {
            return self.of_death(name);
        }
        let properties = self.message.properties();
        if let Some(name) = name.strip_prefix("headers.") {
            return properties.header(name).and_then(scalar);
        }
        of_properties(properties, name).or_else(|| properties.header(name).and_then(scalar))
    }

    fn body(&self) -> Option<&[u8]> {
        Some(self.message.body())
    }
}

fn of_properties<'p>(properties: &'p Properties, name: &str) -> Option<Scalar<'p>> {
    let text = |text: &'p Option<String>| text.as_deref().map(Scalar::text);
    let ident = |ident: &'p Option<polymq_model::properties::Ident>| {
        ident.as_ref().map(|ident| Scalar::Text(Cow::Owned(ident_to_text(ident))))
    };
    match name {
        "message_id" | "JMSMessageID" => ident(&properties.id),
        "correlation_id" | "JMSCorrelationID" => ident(&properties.correlation),
        "content_type" => text(&properties.content_type),
        "content_encoding" => text(&properties.content_encoding),
        "type" | "JMSType" => text(&properties.kind),
        "app_id" => text(&properties.app_id),
        "user_id" | "JMSXUserID" => text(&properties.user_id),
        "group_id" | "JMSXGroupID" => text(&properties.group_id),
        "priority" | "JMSPriority" => {
            properties.priority.map(|priority| Scalar::Int(i64::from(priority)))
        }
        "JMSDeliveryMode" => {
            let mode = |durable| if durable { "PERSISTENT" } else { "NON_PERSISTENT" };
            properties.durable.map(|durable| Scalar::text(mode(durable)))
        }
        "reply_to" => properties.reply_to.as_ref().map(|a| Scalar::Text(a.to_text().into())),
        "timestamp" | "JMSTimestamp" => properties.timestamp_ms.map(Scalar::Time),
        _ => None,
    }
}

fn time(ms: u64) -> Option<Scalar<'static>> {
    i64::try_from(ms).ok().filter(|ms| *ms > 0).map(Scalar::Time)
}

/// A header as a value of the filter; lists, maps and bytes have none.
fn scalar(value: &Value) -> Option<Scalar<'_>> {
    match value {
        Value::Bool(truth) => Some(Scalar::Bool(*truth)),
        Value::String(text) | Value::Symbol(text) => Some(Scalar::text(text)),
        Value::Timestamp(ms) => Some(Scalar::Time(*ms)),
        Value::F32(number) => Some(Scalar::Float(f64::from(*number))),
        Value::F64(number) => Some(Scalar::Float(*number)),
        Value::U64(number) => Some(Scalar::unsigned(*number)),
        other => other.as_i64().map(Scalar::Int),
    }
}
