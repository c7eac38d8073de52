//! Queues.

use std::collections::BTreeMap;

use polymq_broker::{
    Activity, ConsumerView, QueueCounts, QueueDetails, QueueList, QueueRef, Sample, Span,
    UnackedView,
};
use polymq_contract::{Answer, Command, DeclareQueue};
use polymq_model::{ConnectionId, QueueName};
use serde_json::{Map, Value, json};

use super::{
    bindings,
    call::Call,
    connections::{Connections, channel_details, details_of, sent},
    list::{Columns, NumberOf, Row, Wanted},
    rates,
    time::date,
    values::{Fields, garbage_collection, object},
    wire::{self, Failure, Outcome},
};

/// Unacknowledged messages of a queue that are looked at, at most.
const UNACKED_MAX: usize = 10_000;

/// A queue of a list.
struct QueueRow<'l> {
    list: &'l QueueList,
    name: &'l QueueName,
}

impl QueueRow<'_> {
    fn counts(&self) -> QueueCounts {
        self.list.queue(self.name).map(|queue| queue.counts()).unwrap_or_default()
    }

    /// How fast a number of its samples grows.
    fn rate(&self, read: &impl Fn(&Sample) -> u64) -> f64 {
        let queue = self.list.queue(self.name);
        queue.map_or(0.0, |queue| rates::rate(&queue.recent(None), read))
    }
}

impl Row for QueueRow<'_> {
    fn place(&self) -> (&str, &str) {
        (self.list.vhost().as_str(), self.name.as_str())
    }

    fn number_of(path: &[String]) -> Option<NumberOf<Self>> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match *path {
            [column] => {
                let read = count_of(column)?;
                Some(Box::new(move |row| read(&row.counts()) as f64))
            }
            [details, "rate"] => {
                let read: fn(&Sample) -> u64 = match details {
                    "messages_details" => |sample| sample.ready + sample.unsettled,
                    "messages_ready_details" => |sample| sample.ready,
                    "messages_unacknowledged_details" => |sample| sample.unsettled,
                    _ => return None,
                };
                Some(Box::new(move |row| row.rate(&read)))
            }
            ["message_stats", details, "rate"] => {
                let name = details.strip_suffix("_details")?;
                let (_, read) = *rates::OF_QUEUE.iter().find(|(known, _)| *known == name)?;
                let read = move |sample: &Sample| read(&sample.activity);
                Some(Box::new(move |row| row.rate(&read)))
            }
            _ => None,
        }
    }
}

fn count_of(column: &str) -> Option<fn(&QueueCounts) -> u64> {
    Some(match column {
        "messages" => |counts| counts.ready + counts.unsettled,
        "messages_ready" => |counts| counts.ready,
        "messages_unacknowledged" => |counts| counts.unsettled,
        "consumers" => |counts| counts.consumers.into(),
        "message_bytes" => |counts| counts.bytes + counts.unsettled_bytes,
        "message_bytes_ready" => |counts| counts.bytes,
        "message_bytes_unacknowledged" => |counts| counts.unsettled_bytes,
        "message_bytes_ram" | "memory" => bytes_in_memory,
        _ => return None,
    })
}

/// Bytes of bodies that are in memory for certain.
fn bytes_in_memory(counts: &QueueCounts) -> u64 {
    let ready = if counts.in_memory == counts.ready { counts.bytes } else { 0 };
    ready + counts.unsettled_bytes
}

/// RabbitMQ's timestamps are in seconds.
fn secs(ms: i64) -> i64 {
    ms.div_euclid(1000)
}

/// A queue is idle when so long, in ms, nothing has happened to it.
const IDLE_MS: u64 = 5_000;

/// How much is shown of a queue.
struct Shown {
    node: String,
    now_ms: u64,
    start_ms: u64,
    lengths: Option<Span>,
    rates: Option<Span>,
    /// Nothing that changes by itself.
    is_bare: bool,
    /// The numbers of messages even so.
    has_totals: bool,
}

impl Shown {
    fn of(call: &Call) -> Self {
        let now_ms = crate::clock::now().unix_ms;
        let up_ms = ((call.site.watched.facts)().uptime_secs * 1000.0) as u64;
        Self {
            node: call.site.watched.name.clone(),
            now_ms,
            start_ms: now_ms.saturating_sub(up_ms),
            lengths: call.spans.lengths,
            rates: call.spans.msg_rates,
            is_bare: call.has_flag("disable_stats"),
            has_totals: call.has_flag("enable_queue_totals"),
        }
    }

    fn details(&self, queue: &QueueRef) -> QueueDetails {
        queue.details(self.lengths)
    }

    fn object(&self, of: &QueueRef, queue: &QueueDetails) -> Map<String, Value> {
        let Value::Object(mut shown) = json!({
            "name": queue.name.as_str(),
            "vhost": queue.vhost.as_str(),
            "type": queue.kind,
            "durable": queue.durable,
            "auto_delete": queue.auto_delete,
            "exclusive": queue.owner.is_some(),
            "arguments": object(&queue.arguments),
            "node": self.node,
            "state": if queue.paused { "paused" } else { "running" },
        }) else {
            return Map::new();
        };
        if self.is_bare && !self.has_totals {
            return shown;
        }
        let counts = (queue.counts.ready, queue.counts.unsettled);
        let lengths = rates::lengths(counts, &queue.recent, self.lengths.is_some());
        if self.is_bare {
            let plain = lengths.into_iter().filter(|(name, _)| !name.ends_with("_details"));
            shown.extend(plain.map(|(name, value)| (name.to_owned(), value)));
            return shown;
        }
        shown.extend(lengths.map(|(name, value)| (name.to_owned(), value)));
        // One history holds both, and is mostly wanted once.
        let recent = (self.rates != self.lengths).then(|| of.recent(self.rates));
        self.add_numbers(queue, recent.as_ref().unwrap_or(&queue.recent), &mut shown);
        shown
    }

    fn add_numbers(&self, queue: &QueueDetails, recent: &[Sample], shown: &mut Map<String, Value>) {
        let counts = &queue.counts;
        let (user, operator) = &queue.policies;
        let is_kept = queue.durable && queue.owner.is_none();
        let kept = |number: u64| if is_kept { number } else { 0 };
        let stats =
            rates::message_stats(&rates::OF_QUEUE, &queue.activity, recent, self.rates.is_some());
        let in_memory = bytes_in_memory(counts);
        let has_room = if counts.ready == 0 && counts.consumers > 0 { 1.0 } else { 0.0 };
        let Value::Object(more) = json!({
            "policy": user,
            "operator_policy": operator,
            "effective_policy_definition": object(&queue.policy_definition),
            "messages_ram": counts.in_memory + counts.unsettled,
            "messages_ready_ram": counts.in_memory,
            "messages_unacknowledged_ram": counts.unsettled,
            "messages_paged_out": counts.ready.saturating_sub(counts.in_memory),
            "messages_persistent": kept(counts.ready + counts.unsettled),
            "messages_delayed": counts.delayed,
            "message_bytes": counts.bytes + counts.unsettled_bytes,
            "message_bytes_ready": counts.bytes,
            "message_bytes_unacknowledged": counts.unsettled_bytes,
            "message_bytes_ram": in_memory,
            "message_bytes_paged_out": 0,
            "message_bytes_persistent": kept(counts.bytes + counts.unsettled_bytes),
            "consumers": counts.consumers,
            "consumer_utilisation": has_room,
            "consumer_capacity": has_room,
            "active_consumers": match queue.single_active_consumer {
                Some(_) => 1,
                None => counts.consumers,
            },
            "exclusive_consumer_tag": queue.exclusive_consumer.as_deref(),
            "single_active_consumer_tag": queue.single_active_consumer.as_deref(),
            "memory": in_memory,
            "head_message_timestamp": queue.head_timestamp_ms.map(secs),
            "dead_letter_unroutable": queue.dead_letter_unroutable,
            "message_stats": stats,
            "leader": self.node,
            "members": [self.node],
            "online": [self.node],
            "recoverable_slaves": null,
            "reductions": 0,
            "reductions_details": { "rate": 0.0 },
            "garbage_collection": garbage_collection(),
        }) else {
            return;
        };
        // Tools that make tables of text stumble over null.
        shown.extend(more.into_iter().filter(|(_, value)| !value.is_null()));
        // Of a queue that nothing has happened to, since the start.
        let idle_ms = queue.active_ms.max(self.start_ms);
        if self.now_ms.saturating_sub(idle_ms) >= IDLE_MS {
            shown.insert("idle_since".to_owned(), json!(date(idle_ms)));
        }
    }
}

/// `GET /queues`, `/queues/detailed`, `/queues/:vhost`
pub(super) fn list(call: &Call) -> Outcome {
    let vhost = call.vhost_filter();
    let lists = call.broker().queue_lists(vhost.as_deref()).map_err(|_| Failure::not_found())?;
    let lists: Vec<_> = lists.iter().filter(|list| call.manager.may_see(list.vhost())).collect();
    let size = (lists.iter().map(|list| list.names().len()).sum(), lists.len() == 1);
    let lists = lists.into_iter();
    let rows = lists.flat_map(|list| list.names().iter().map(move |name| QueueRow { list, name }));
    let (wanted, shown) = (Wanted::of(call)?, Shown::of(call));
    wanted.answer_in_order(rows, size, |row| match row.list.queue(row.name) {
        Some(queue) => Value::Object(shown.object(&queue, &shown.details(&queue))),
        None => Value::Null,
    })
}

impl Row for QueueRef {
    fn place(&self) -> (&str, &str) {
        (self.vhost().as_str(), self.name().as_str())
    }
}

/// `GET /users/:user/queues`: those that the user has declared, of what whoever asks may see.
pub(super) fn list_of_user(call: &Call) -> Outcome {
    let (user, mut sight, shown) = (call.path("user"), call.sight(), Shown::of(call));
    let mut rows = call.broker().queue_refs(None).map_err(|_| Failure::not_found())?;
    rows.retain(|queue| queue.declared_by() == Some(user) && sight.sees(queue.vhost()));
    let wanted = Wanted::of(call)?;
    wanted.answer(rows, |queue| Value::Object(shown.object(queue, &shown.details(queue))))
}

fn found(call: &Call) -> Result<QueueRef, Failure> {
    let (vhost, queue) = (call.vhost_name(), call.queue_name());
    call.broker().queue_ref(&vhost, &queue).map_err(|_| Failure::not_found())
}

/// `GET /queues/:vhost/:queue`
pub(super) fn one(call: &Call) -> Outcome {
    let queue = found(call)?;
    let shown = Shown::of(call);
    let mut details = shown.details(&queue);
    if details.head_timestamp_ms.is_none() && details.counts.in_memory < details.counts.ready {
        details.head_timestamp_ms = call.broker().head_timestamp_ms(&queue, crate::clock::now());
    }
    let mut object = shown.object(&queue, &details);
    let connections = Connections::of(call);
    let found = queue.consumers();
    let consumers = found.iter().map(|consumer| {
        let mut consumer_object = super::consumers::object_of(consumer, &connections);
        consumer_object["channel_details"] = channel_details(consumer, &connections);
        consumer_object
    });
    object.insert("consumer_details".to_owned(), consumers.collect());
    object.insert("incoming".to_owned(), json!([]));
    object.insert("deliveries".to_owned(), deliveries(&found, &connections));
    object.insert("backing_queue_status".to_owned(), json!({ "mode": "default", "version": 2 }));
    if let Some(owner) = details.owner.and_then(|id| connections.get(id)) {
        let owner = json!({
            "name": owner.name,
            "peer_host": owner.peer_host,
            "peer_port": owner.peer_port,
        });
        object.insert("owner_pid_details".to_owned(), owner);
    }
    wire::ok(&Columns::of(call).pick(Value::Object(object)))
}

/// What the channels of its consumers have been sent.
fn deliveries(consumers: &[ConsumerView], connections: &Connections) -> Value {
    let mut channels: BTreeMap<(ConnectionId, u32), (&ConsumerView, Activity)> = BTreeMap::new();
    for consumer in consumers {
        let (_, sum) = channels
            .entry((consumer.connection, consumer.channel))
            .or_insert_with(|| (consumer, Activity::default()));
        *sum += sent(consumer);
    }
    let row = |(consumer, sum): &(&ConsumerView, Activity)| {
        json!({
            "channel_details": channel_details(consumer, connections),
            "stats": rates::message_stats(&rates::OF_QUEUE, sum, &[], false),
        })
    };
    channels.values().map(row).collect()
}

/// `PUT /queues/:vhost/:queue`
pub(super) async fn put(call: Call) -> Outcome {
    let fields = Fields::read(&call.body)?;
    let vhost = call.vhost_name();
    let name = call.queue_name();
    let mut arguments = fields.table("arguments")?;
    if let Some(kind) = fields.text("type")?
        && !arguments.iter().any(|(known, _)| known == "x-queue-type")
        && kind != "default"
    {
        arguments.push(("x-queue-type".to_owned(), polymq_model::Value::String(kind)));
    }
    let (durable, auto_delete) =
        (fields.flag("durable", true)?, fields.flag("auto_delete", false)?);
    let is_new = call.broker().queue_ref(&vhost, &name).is_err();
    let declared = json!({
        "durable": durable, "auto_delete": auto_delete, "arguments": object(&arguments),
    });
    call.order(|request| {
        Command::DeclareQueue(Box::new(DeclareQueue {
            request,
            queue: name.clone(),
            passive: false,
            durable,
            exclusive: false,
            auto_delete,
            arguments,
        }))
    })
    .await?;
    if is_new {
        call.audit("queue.declare", &path_of(&name), (Value::Null, declared));
    }
    wire::put(is_new)
}

/// A queue below its virtual host, for the audit file.
fn path_of(queue: &str) -> String {
    format!("queues/{queue}")
}

/// `DELETE /queues/:vhost/:queue`
pub(super) async fn delete(call: Call) -> Outcome {
    let before = json!({ "messages": found(&call)?.counts().ready });
    let queue = call.queue_name();
    let (if_unused, if_empty) = (call.has_flag("if-unused"), call.has_flag("if-empty"));
    let path = path_of(&queue);
    let order = |request| Command::DeleteQueue { request, queue, if_unused, if_empty };
    call.order(order).await?;
    call.audit("queue.delete", &path, (before, Value::Null));
    wire::done()
}

/// `DELETE /queues/:vhost/:queue/contents`
pub(super) async fn purge(call: Call) -> Outcome {
    found(&call)?;
    let queue = call.queue_name();
    let path = path_of(&queue);
    match call.order(|request| Command::PurgeQueue { request, queue }).await? {
        Answer::QueuePurged { messages, .. } => {
            call.audit("queue.purge", &path, (json!({ "messages": messages }), Value::Null));
            wire::done()
        }
        _ => Err(Failure::internal("an odd answer")),
    }
}

/// `PUT /queues/:vhost/:queue/pause`
pub(super) async fn pause(call: Call) -> Outcome {
    set_paused(call, true).await
}

/// `PUT /queues/:vhost/:queue/resume`
pub(super) async fn resume(call: Call) -> Outcome {
    set_paused(call, false).await
}

async fn set_paused(call: Call, paused: bool) -> Outcome {
    found(&call)?;
    let queue = call.queue_name();
    let (path, action) = (path_of(&queue), if paused { "queue.pause" } else { "queue.resume" });
    call.order(|request| Command::PauseQueue { request, queue, paused }).await?;
    call.audit(action, &path, (Value::Null, Value::Null));
    wire::done()
}

/// `GET /queues/:vhost/:queue/bindings`
pub(super) fn bindings(call: &Call) -> Outcome {
    let queue = found(call)?;
    let name = queue.name().as_str();
    bindings::answer(call, |binding| binding.to_queue && binding.destination == name)
}

/// A delivery that is not settled.
struct UnackedRow(UnackedView, String);

impl Row for UnackedRow {
    fn place(&self) -> (&str, &str) {
        (&self.1, &self.0.tag)
    }
}

/// `GET /queues/:vhost/:queue/unacked`
pub(super) fn unacked(call: &Call) -> Outcome {
    let connections = Connections::of(call);
    let held = found(call)?.unacked(None, UNACKED_MAX).into_iter();
    // The order that they come in.
    let rows = held.enumerate().map(|(at, held)| UnackedRow(held, format!("{at:020}")));
    let now_ms = crate::clock::now().unix_ms;
    Wanted::of(call)?.answer(rows.collect(), |UnackedRow(held, _)| {
        let details = details_of(held.connection, held.channel, &connections);
        json!({
            "consumer_tag": &*held.tag,
            "channel_name": details["name"],
            "unacked_for_seconds": held.since_ms.map_or(0, |ms| now_ms.saturating_sub(ms) / 1000),
            "position": held.seq.to_string(),
            "message_bytes": held.payload_bytes,
            "redelivered": held.acquired > 0,
            "channel_details": details,
        })
    })
}

/// `POST /queues/:vhost/:queue/actions`: RabbitMQ knows none any more either.
pub(super) fn actions(call: &Call) -> Outcome {
    found(call)?;
    let action = Fields::read(&call.body)?.needed_text("action")?;
    Err(Failure::bad(json!(["unknown", action])))
}
