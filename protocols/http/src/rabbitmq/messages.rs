//! Publishing and getting single messages.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use polymq_contract::{Delivery, DeliveryRange, Outcome as Settled, PublishOutcome, Settlement};
use polymq_model::{
    Body, ConsumerId,
    address::Address,
    carry::annotation_headers,
    json_form::{JsonProperties, NewJsonMessage, Sender, Style},
};
use serde_json::{Map, Value, json};

use super::{
    call::Call,
    values::{Fields, object},
    wire::{self, Failure, Outcome},
};
use crate::{
    client::{Client, Outgoing, Published},
    clock,
};

/// The most messages of one call; whoever asks for more gets fewer.
const COUNT_MAX: i64 = 10_000;
/// No further message is taken once an answer has so many bytes of bodies.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// Properties as RabbitMQ calls them. `cluster_id` means nothing and is passed over.
const PROPERTIES: [&str; 13] = [
    "content_type",
    "content_encoding",
    "headers",
    "delivery_mode",
    "priority",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "timestamp",
    "type",
    "user_id",
    "app_id",
];
/// Those that are numbers.
const NUMBERS: [&str; 3] = ["delivery_mode", "priority", "timestamp"];

/// What a client says about a message.
///
/// Errors: a property that cannot be what it is.
fn properties_of(fields: &Fields) -> Result<JsonProperties, Failure> {
    let said = match fields.get("properties") {
        Some(Value::Object(said)) => said.clone(),
        // An empty object of a client in Erlang.
        Some(Value::Array(items)) if items.is_empty() => Map::new(),
        Some(other) => return Err(Failure::bad(format!("'properties' is no object: {other}"))),
        None => Map::new(),
    };
    let nested = Fields::of(&Value::Object(said.clone()))?;
    let mut known = Map::new();
    for (name, value) in said {
        if !PROPERTIES.contains(&name.as_str()) || value.is_null() {
            continue;
        }
        let value = match NUMBERS.contains(&name.as_str()) {
            true => nested.number(&name)?.map_or(Value::Null, Value::from),
            false => value,
        };
        known.insert(name, value);
    }
    // What says nothing about it is not persistent, as everywhere in AMQP.
    known.entry("delivery_mode").or_insert(json!(1));
    serde_json::from_value(Value::Object(known))
        .map_err(|error| Failure::bad(format!("properties: {error}")))
}

/// The body that a payload stands for.
///
/// Errors: it is no text, or not in its encoding.
fn body_of(fields: &Fields) -> Result<Vec<u8>, Failure> {
    let Some(payload) = fields.get("payload").and_then(Value::as_str) else {
        return Err(Failure::bad("payload_not_string"));
    };
    match fields.needed_text("payload_encoding")?.as_str() {
        "string" => Ok(payload.as_bytes().to_vec()),
        "base64" => BASE64_STANDARD
            .decode(payload)
            .map_err(|error| Failure::bad(format!("payload is no base64: {error}"))),
        other => Err(Failure::bad(format!("Unsupported encoding: {other}"))),
    }
}

/// `POST /exchanges/:vhost/:exchange/publish`
pub(super) async fn publish(call: Call) -> Outcome {
    let fields = Fields::read(&call.body)?;
    fields.need(&["properties", "routing_key", "payload", "payload_encoding"])?;
    let key = fields.needed_text("routing_key")?;
    let (properties, body) = (properties_of(&fields)?, body_of(&fields)?);
    let exchange = call.exchange_name("exchange");
    let client = call.client(&call.vhost_name()).await?;
    let sender = Sender { user: client.user().as_str(), impersonator: client.is_impersonator() };
    let body = Body::Shared(body.into());
    let new = NewJsonMessage { exchange: &exchange, key: &key, properties, body, sender };
    let limits = &call.site.limits();
    let (message, delay) = new
        .build(clock::now().unix_ms, limits, &mut Vec::new())
        .map_err(|bad| Failure::bad(bad.to_string()))?;
    // Whoever has published before that is answered when it is over.
    if let Some(alarm) = alarm(&call, &client) {
        return Err(Failure::unavailable(format!("publishers wait: {alarm}")));
    }
    let outgoing = Outgoing { message, delay, mandatory: false };
    let told = client.publish([outgoing]).await.all().await.pop();
    match told.map(|told| told.outcome) {
        Some(Published::Ended(PublishOutcome::Routed(_))) => wire::ok(&json!({ "routed": true })),
        Some(Published::Ended(PublishOutcome::Unrouted)) | None => {
            wire::ok(&json!({ "routed": false }))
        }
        Some(Published::Ended(PublishOutcome::Refused(kind))) => {
            if let Some(alarm) = alarm(&call, &client) {
                return Err(Failure::unavailable(format!("publishers wait: {alarm}")));
            }
            Err(Failure::bad(format!("the message was refused: {}", kind.as_str())))
        }
        Some(Published::Refused(refusal)) => Err(Failure::bad_if_missing(&refusal)),
    }
}

/// Why publishers wait, if they do.
fn alarm(call: &Call, client: &Client) -> Option<Box<str>> {
    let alarm = call.broker().alarm().map(|alarm| alarm.to_string().into_boxed_str());
    alarm.or_else(|| client.blocked())
}

/// Messages that were taken and go back unless it is said how they end.
struct Taken {
    client: Arc<Client>,
    consumers: Vec<ConsumerId>,
    outcome: Settled,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let range = DeliveryRange { first: 1, last: 1 };
        let outcome = self.outcome;
        let consumers = self.consumers.drain(..);
        self.client.settle(consumers.map(|consumer| Settlement::new(consumer, range, outcome)));
    }
}

/// How messages end that are got.
///
/// Errors: there is no such way.
fn ack_mode(fields: &Fields) -> Result<Settled, Failure> {
    match fields.needed_text("ackmode")?.as_str() {
        "ack_requeue_false" => Ok(Settled::Accepted),
        "ack_requeue_true" => Ok(Settled::Returned),
        "reject_requeue_false" => Ok(Settled::Rejected),
        "reject_requeue_true" => Ok(Settled::Failed),
        other => Err(Failure::bad(format!("ackmode '{other}' is not known"))),
    }
}

/// `POST /queues/:vhost/:queue/get`
pub(super) async fn get(call: Call) -> Outcome {
    let fields = Fields::read(&call.body)?;
    fields.need(&["ackmode", "count", "encoding"])?;
    let outcome = ack_mode(&fields)?;
    let count = fields.number("count")?.unwrap_or_default().min(COUNT_MAX);
    let is_base64 = match fields.needed_text("encoding")?.as_str() {
        "auto" => false,
        "base64" => true,
        other => return Err(Failure::bad(format!("Unsupported encoding: {other}"))),
    };
    let truncate = fields.number("truncate")?.and_then(|bytes| usize::try_from(bytes).ok());
    let queue = call.queue_name();
    let client = call.client(&call.vhost_name()).await?;
    let mut taken =
        Taken { client: Arc::clone(&client), consumers: Vec::new(), outcome: Settled::Returned };
    let (mut rows, mut bytes) = (Vec::new(), 0);
    for _ in 0..count {
        let (consumer, delivery, remaining) = client.get(&queue).await?;
        let Some(delivery) = delivery else { break };
        taken.consumers.push(consumer);
        call.site.note_shown(&delivery.message);
        rows.push(row(&delivery, remaining, is_base64, truncate));
        bytes += delivery.message.body().len();
        if bytes >= BYTES_MAX {
            break;
        }
    }
    taken.outcome = outcome;
    drop(taken);
    wire::ok(&Value::Array(rows))
}

fn row(delivery: &Delivery, remaining: u64, is_base64: bool, truncate: Option<usize>) -> Value {
    let message = &delivery.message;
    let whole = message.body();
    let shown = whole.get(..truncate.unwrap_or(usize::MAX).min(whole.len())).unwrap_or(whole);
    let text = std::str::from_utf8(shown).ok().filter(|_| !is_base64);
    let (payload, encoding) = match text {
        Some(text) => (text.to_owned(), "string"),
        None => (BASE64_STANDARD.encode(shown), "base64"),
    };
    json!({
        "payload_bytes": whole.len(),
        "redelivered": delivery.redelivered,
        "exchange": message.exchange(),
        "routing_key": message.key(),
        "message_count": remaining,
        "properties": shown_properties(delivery),
        "payload": payload,
        "payload_encoding": encoding,
    })
}

fn shown_properties(delivery: &Delivery) -> Value {
    let message = &delivery.message;
    let properties = JsonProperties::of(message, clock::now().unix_ms, Style::Plain);
    let Ok(Value::Object(mut shown)) = serde_json::to_value(&properties) else {
        return json!({});
    };
    shown.retain(|name, _| PROPERTIES.contains(&name.as_str()));
    let mut headers: Vec<_> = message.annotations().map(annotation_headers).unwrap_or_default();
    if delivery.failed > 0 {
        let count = polymq_model::Value::I64(i64::from(delivery.failed));
        headers.push(("x-delivery-count".to_owned(), count));
    }
    if let (false, Value::Object(more)) = (headers.is_empty(), object(&headers)) {
        let all = shown.entry("headers").or_insert_with(|| json!({}));
        if let Value::Object(all) = all {
            all.extend(more);
        }
    }
    // In AMQP this is text.
    if let Some(expiration) = shown.get_mut("expiration") {
        *expiration = json!(expiration.to_string().trim_matches('"'));
    }
    if let Some(Value::String(reply_to)) = shown.get_mut("reply_to")
        && let Address::Queue(queue) = Address::parse(reply_to)
    {
        *reply_to = queue;
    }
    // In AMQP a message that is not persistent mostly says nothing about it.
    if !message.is_durable() {
        shown.remove("delivery_mode");
    }
    Value::Object(shown)
}
