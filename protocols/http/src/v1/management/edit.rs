//! Editing one message while it is moved, copied or retried: a new message takes its place.

use polymq_broker::Principal;
use polymq_model::{
    Body, Limits, Message,
    json_form::{BadField, BadKind, IncomingMessage, NewJsonMessage, Sender},
};
use serde_json::{Map, Value, json};

use super::{
    caller::Caller,
    shown::{Payload, of_message},
};
use crate::{clock, json, problem::Problem, schema::record};

/// Where the position is kept that the message had before.
const EDITED_FROM: &str = "x-edited-from";

record! {
    /// What changes of the message.
    Edit {
        /// The exchange that it says it was published to.
        exchange: Option<String>,
        /// The routing key.
        routing_key: Option<String>,
        /// Properties that change, `headers` and `expiration` among them; `null` takes one away,
        /// and those that are not named stay.
        properties: Option<Value>,
        /// The body.
        payload: Option<Value>,
        /// How it is written: `string` unless it is said, `base64` or `json`.
        payload_encoding: Option<String>,
    }
}

/// The message that takes the place of one of a queue.
///
/// Errors: there is none at the position; the edit makes no message.
pub(super) async fn edited(
    caller: &Caller,
    limits: &Limits,
    (vhost, queue, seq): (polymq_model::VhostName, String, u64),
    edit: &Edit,
) -> Result<Message, Problem> {
    let browse = caller.blocking("message", move |broker, who| {
        broker.browse_one(who, &vhost, &queue, seq, clock::now())
    });
    let found = browse.await?;
    let mut object = of_message(&found.message, Payload::Full);
    let is_body_new = edit.payload.is_some();
    object.retain(|name, _| match name.as_str() {
        "payload_bytes" | "truncated" => false,
        "payload" | "payload_encoding" => !is_body_new,
        _ => true,
    });
    apply(&mut object, edit, seq);
    drop_user(&mut object, &caller.who);
    build(&object, limits, &caller.who)
}

fn apply(object: &mut Map<String, Value>, edit: &Edit, seq: u64) {
    let texts = [
        ("exchange", edit.exchange.clone().map(Value::String)),
        ("routing_key", edit.routing_key.clone().map(Value::String)),
        ("payload", edit.payload.clone()),
        ("payload_encoding", edit.payload_encoding.clone().map(Value::String)),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            object.insert(name.to_owned(), value);
        }
    }
    let properties = object.entry("properties").or_insert_with(|| json!({}));
    if let Some(change) = &edit.properties {
        merge(properties, change);
    }
    merge(properties, &json!({ "headers": { EDITED_FROM: seq.to_string() } }));
}

/// As RFC 7396 has it: `null` takes away, objects are merged.
fn merge(target: &mut Value, change: &Value) {
    let Value::Object(change) = change else {
        change.clone_into(target);
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Some(target) = target.as_object_mut() else { return };
    for (name, value) in change {
        match value {
            Value::Null => {
                target.remove(name);
            }
            value => merge(target.entry(name.clone()).or_insert(Value::Null), value),
        }
    }
}

/// Whoever edits a message does not speak for its sender.
fn drop_user(object: &mut Map<String, Value>, who: &Principal) {
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut)
        && !who.impersonator
        && properties.get("user_id").is_some_and(|user| user != who.user.as_str())
    {
        properties.remove("user_id");
    }
}

fn build(
    object: &Map<String, Value>,
    limits: &Limits,
    who: &Principal,
) -> Result<Message, Problem> {
    let text = Value::Object(object.clone()).to_string();
    let incoming: IncomingMessage =
        json::read(text.as_bytes()).map_err(|problem| problem.below("/edit"))?;
    let bad = |bad: BadField| {
        let code = match bad.kind {
            BadKind::TooLarge => "message_too_large",
            BadKind::Wrong | BadKind::NotAvailable => "invalid_argument",
        };
        Problem::bad(code, bad.text).at(format!("/edit{}", bad.at))
    };
    let body = incoming.body().map_err(bad)?;
    let new = NewJsonMessage {
        exchange: incoming.exchange.as_deref().unwrap_or_default(),
        key: incoming.routing_key.as_deref().unwrap_or_default(),
        properties: incoming.properties,
        body: Body::Slice(&body),
        sender: Sender { user: who.user.as_str(), impersonator: who.impersonator },
    };
    let built = new.build(clock::now().unix_ms, limits, &mut Vec::new());
    built.map(|(message, _)| message).map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_merged_and_null_takes_away() {
        let mut target = json!({ "a": 1, "headers": { "x": 1, "y": 2 } });
        merge(&mut target, &json!({ "a": null, "b": 3, "headers": { "x": null, "z": "new" } }));
        assert_eq!(target, json!({ "b": 3, "headers": { "y": 2, "z": "new" } }));
    }
}
