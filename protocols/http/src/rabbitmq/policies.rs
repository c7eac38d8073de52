//! Policies of users and of operators.

use polymq_broker::{ApplyTo, Manager, PolicyKind, PolicyRecord};
use polymq_contract::Refusal;
use polymq_model::VhostName;
use serde_json::{Value, json};

use super::{
    call::Call,
    list::{Columns, Row, Wanted},
    values::{Fields, object},
    wire::{self, Failure, Outcome},
};

/// What policies apply to, as RabbitMQ calls it.
const WORDS: [(&str, ApplyTo); 6] = [
    ("all", ApplyTo::All),
    ("queues", ApplyTo::Queues),
    ("classic_queues", ApplyTo::ClassicQueues),
    ("quorum_queues", ApplyTo::QuorumQueues),
    ("streams", ApplyTo::Streams),
    ("exchanges", ApplyTo::Exchanges),
];

/// A policy with its place.
pub(super) struct PolicyRow {
    pub(super) vhost: VhostName,
    pub(super) name: String,
    pub(super) record: PolicyRecord,
}

impl Row for PolicyRow {
    fn place(&self) -> (&str, &str) {
        (self.vhost.as_str(), &self.name)
    }
}

/// A policy.
pub(super) fn object_of(row: &PolicyRow) -> Value {
    let word = WORDS.iter().find(|(_, apply_to)| *apply_to == row.record.apply_to);
    json!({
        "vhost": row.vhost.as_str(),
        "name": row.name,
        "pattern": row.record.pattern,
        "apply-to": word.map_or("all", |(word, _)| word),
        "definition": object(&row.record.definition),
        "priority": row.record.priority,
    })
}

/// The policies that whoever asks may see, of the virtual host of the path or of all.
pub(super) fn rows(call: &Call, kind: PolicyKind) -> Result<Vec<PolicyRow>, Failure> {
    let vhosts = match call.vhost_filter() {
        Some(_) => vec![call.vhost()?],
        None => call.manager.vhosts()?.into_iter().map(|view| view.name).collect(),
    };
    Ok(rows_of(&call.manager, vhosts, kind)?)
}

/// The policies of some virtual hosts.
///
/// Errors: those of the broker.
pub(super) fn rows_of(
    manager: &Manager,
    vhosts: Vec<VhostName>,
    kind: PolicyKind,
) -> Result<Vec<PolicyRow>, Refusal> {
    let mut rows = Vec::new();
    for vhost in vhosts {
        let policies = manager.policies(&vhost, kind)?.into_iter();
        rows.extend(policies.map(|(name, record)| PolicyRow {
            vhost: vhost.clone(),
            name,
            record,
        }));
    }
    Ok(rows)
}

fn list_of(call: &Call, kind: PolicyKind) -> Outcome {
    Wanted::of(call)?.answer(rows(call, kind)?, object_of)
}

fn one_of(call: &Call, kind: PolicyKind) -> Outcome {
    let name = call.path("name");
    let row = rows(call, kind)?.into_iter().find(|row| row.name == name);
    wire::ok(&Columns::of(call).pick(object_of(&row.ok_or_else(Failure::not_found)?)))
}

/// The record that the fields of a PUT or of definitions make.
///
/// Errors: some are missing or wrong.
pub(super) fn record_of(fields: &Fields) -> Result<PolicyRecord, Failure> {
    fields.need(&["pattern", "definition"])?;
    let word = fields.text("apply-to")?.unwrap_or_else(|| "all".to_owned());
    let known = WORDS.iter().find(|(known, _)| *known == word);
    let (_, apply_to) = known.ok_or_else(|| {
        let words: Vec<_> = WORDS.iter().map(|(word, _)| *word).collect();
        Failure::bad(format!("apply-to is one of {}, not '{word}'", words.join(", ")))
    })?;
    Ok(PolicyRecord {
        pattern: fields.needed_text("pattern")?,
        apply_to: *apply_to,
        priority: fields.number("priority")?.unwrap_or_default(),
        definition: fields.table("definition")?,
    })
}

fn put_of(call: &Call, kind: PolicyKind) -> Outcome {
    let record = record_of(&Fields::read(&call.body)?)?;
    let (vhost, now) = (call.vhost()?, crate::clock::now());
    wire::put(call.manager.put_policy(&vhost, kind, call.path("name"), record, now)?)
}

fn delete_of(call: &Call, kind: PolicyKind) -> Outcome {
    let name = call.path("name");
    if !rows(call, kind)?.iter().any(|row| row.name == name) {
        return Err(Failure::not_found());
    }
    call.manager.remove_policy(&call.vhost()?, kind, name, crate::clock::now())?;
    wire::done()
}

/// `GET /policies`, `/policies/:vhost`
pub(super) fn list(call: &Call) -> Outcome {
    list_of(call, PolicyKind::User)
}

/// `GET /policies/:vhost/:name`
pub(super) fn one(call: &Call) -> Outcome {
    one_of(call, PolicyKind::User)
}

/// `PUT /policies/:vhost/:name`
pub(super) fn put(call: &Call) -> Outcome {
    put_of(call, PolicyKind::User)
}

/// `DELETE /policies/:vhost/:name`
pub(super) fn delete(call: &Call) -> Outcome {
    delete_of(call, PolicyKind::User)
}

/// `GET /operator-policies`, `/operator-policies/:vhost`
pub(super) fn list_operator(call: &Call) -> Outcome {
    list_of(call, PolicyKind::Operator)
}

/// `GET /operator-policies/:vhost/:name`
pub(super) fn one_operator(call: &Call) -> Outcome {
    one_of(call, PolicyKind::Operator)
}

/// `PUT /operator-policies/:vhost/:name`
pub(super) fn put_operator(call: &Call) -> Outcome {
    put_of(call, PolicyKind::Operator)
}

/// `DELETE /operator-policies/:vhost/:name`
pub(super) fn delete_operator(call: &Call) -> Outcome {
    delete_of(call, PolicyKind::Operator)
}
