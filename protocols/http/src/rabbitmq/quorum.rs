//! Replicas of quorum queues, in a cluster of one: each queue has its one member here.

use axum::http::StatusCode;
use polymq_broker::QueueDetails;
use serde_json::json;

use super::{
    call::Call,
    nodes,
    values::Fields,
    wire::{self, Failure, Outcome},
};

const CLASSIC: &str = "classic_queue_not_supported";

fn found(call: &Call) -> Result<QueueDetails, Failure> {
    let queue = call.broker().queue_ref(&call.vhost_name(), &call.queue_name());
    Ok(queue.map_err(|_| Failure::not_found())?.details(None))
}

/// `GET /queues/quorum/:vhost/:queue/status`. There is no log of a consensus, so its places are 0.
pub(super) fn status(call: &Call) -> Outcome {
    if found(call)?.kind != "quorum" {
        let failed = json!({ "status": "failed", "reason": CLASSIC });
        return wire::ok_with(StatusCode::SERVICE_UNAVAILABLE, &failed);
    }
    wire::ok(&json!([{
        "Node Name": call.site.watched.name,
        "Raft State": "leader",
        "Membership": "voter",
        "Last Log Index": 0,
        "Last Written": 0,
        "Last Applied": 0,
        "Commit Index": 0,
        "Snapshot Index": 0,
        "Term": 1,
        "Machine Version": 0,
    }]))
}

/// Whether the node of the body is this one.
///
/// Errors: the queue is not there or has no replicas, or the body names no node.
fn is_here(call: &Call) -> Result<bool, Failure> {
    let queue = found(call)?;
    let node = Fields::read(&call.body)?.needed_text("node")?;
    match queue.kind {
        "quorum" => Ok(node == call.site.watched.name),
        _ => Err(Failure::unavailable(CLASSIC)),
    }
}

/// `POST /queues/quorum/:vhost/:queue/replicas/add`
pub(super) fn add(call: &Call) -> Outcome {
    // That it is there already is no error in RabbitMQ either.
    if is_here(call)? { wire::done() } else { Err(Failure::unavailable("node_not_running")) }
}

/// `DELETE /queues/quorum/:vhost/:queue/replicas/delete`
pub(super) fn delete(call: &Call) -> Outcome {
    if is_here(call)? { Err(Failure::unavailable("last_node")) } else { accepted() }
}

/// `POST /queues/quorum/replicas/on/:node/grow`
pub(super) fn grow(call: &Call) -> Outcome {
    nodes::check_name(call)?;
    Fields::read(&call.body)?.need(&["vhost_pattern", "queue_pattern", "strategy"])?;
    wire::done()
}

/// `DELETE /queues/quorum/replicas/on/:node/shrink`: the last replica of each queue stays.
pub(super) fn shrink(call: &Call) -> Outcome {
    nodes::check_name(call)?;
    accepted()
}

fn accepted() -> Outcome {
    wire::ok_with(StatusCode::ACCEPTED, &json!({}))
}
