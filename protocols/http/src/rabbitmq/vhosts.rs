//! Virtual hosts.

use polymq_broker::{PermissionRecord, VhostRecord, VhostView};
use polymq_contract::RefusalKind;
use polymq_model::VhostName;
use serde_json::{Map, Value, json};

use super::{
    call::Call,
    list::{Columns, Row, Wanted},
    rates,
    values::Fields,
    wire::{self, Failure, Outcome},
};

struct VhostRow(VhostView);

impl Row for VhostRow {
    fn place(&self) -> (&str, &str) {
        ("", self.0.name.as_str())
    }
}

/// A virtual host as it was made, also for definitions.
pub(super) fn made(view: &VhostView) -> Value {
    let record = &view.record;
    let kind = record.default_queue_type.as_deref().unwrap_or("classic");
    json!({
        "name": view.name.as_str(),
        "description": record.description,
        "tags": record.tags,
        "default_queue_type": kind,
        "metadata": {
            "description": record.description,
            "tags": record.tags,
            "default_queue_type": kind,
        },
        "protected_from_deletion": record.protected_from_deletion,
    })
}

fn object_of(call: &Call, view: &VhostView) -> Value {
    let node = &call.site.watched.name;
    let mut shown = made(view);
    shown["tracing"] = json!(false);
    shown["cluster_state"] = json!({ (node.as_str()): "running" });
    if call.has_flag("disable_stats") {
        return shown;
    }
    let (lengths, span) = (call.spans.lengths, call.spans.msg_rates);
    let data = call.spans.data_rates;
    let spans = [lengths, span, data];
    let Ok((now, [of_lengths, recent, of_data])) =
        call.broker().vhost_totals(view.name.as_str(), spans)
    else {
        return shown;
    };
    let numbers = rates::lengths((now.ready, now.unsettled), &of_lengths, lengths.is_some());
    if let Value::Object(shown) = &mut shown {
        shown.extend(numbers.map(|(name, value)| (name.to_owned(), value)));
        let stats = rates::message_stats(&rates::OF_ALL, &now.activity, &recent, span.is_some());
        shown.insert("message_stats".to_owned(), stats);
        let octets: [(&str, rates::Read); 2] =
            [("recv_oct", |sample| sample.bytes_in), ("send_oct", |sample| sample.bytes_out)];
        for (name, read) in octets {
            shown.insert(name.to_owned(), json!(read(&now)));
            let details = rates::details(&of_data, data.is_some(), read);
            shown.insert(format!("{name}_details"), details);
        }
    }
    shown
}

/// `GET /vhosts`
pub(super) fn list(call: &Call) -> Outcome {
    let rows = call.manager.vhosts()?.into_iter().map(VhostRow).collect();
    Wanted::of(call)?.answer(rows, |row| object_of(call, &row.0))
}

fn found(call: &Call) -> Result<VhostView, Failure> {
    call.manager.vhost(&call.vhost()?).map_err(|refusal| match refusal.kind {
        RefusalKind::NotFound => Failure::not_found(),
        _ => refusal.into(),
    })
}

/// `GET /vhosts/:vhost`
pub(super) fn one(call: &Call) -> Outcome {
    wire::ok(&Columns::of(call).pick(object_of(call, &found(call)?)))
}

/// The record that the fields of a PUT or of definitions make of the one that is there. Each stands
/// by itself or in `metadata`, as tools and `rabbitmqctl export_definitions` write it.
///
/// Errors: fields that are wrong.
pub(super) fn record_of(fields: &Fields, before: VhostRecord) -> Result<VhostRecord, Failure> {
    let metadata = match fields.get("metadata") {
        // How a server in Erlang writes an empty object.
        Some(Value::Array(items)) if items.is_empty() => Fields::read(b"")?,
        Some(metadata) => Fields::of(metadata)?,
        None => Fields::read(b"")?,
    };
    let of = |name| if fields.get(name).is_some() { fields } else { &metadata };
    let kind = of("default_queue_type").text("default_queue_type")?;
    let protection = "protected_from_deletion";
    Ok(VhostRecord {
        description: of("description").text("description")?.unwrap_or(before.description),
        tags: of("tags").words("tags")?.unwrap_or(before.tags),
        default_queue_type: match kind.as_deref() {
            None => before.default_queue_type,
            Some("" | "undefined" | "classic") => None,
            Some(kind) => Some(kind.to_owned()),
        },
        protected_from_deletion: of(protection).flag(protection, before.protected_from_deletion)?,
    })
}

/// `PUT /vhosts/:vhost`
pub(super) fn put(call: &Call) -> Outcome {
    let fields = Fields::read(&call.body)?;
    let name = VhostName::new(call.vhost_name()).map_err(|bad| Failure::bad(bad.to_string()))?;
    let before = call.manager.vhost(&name).ok().map(|view| view.record).unwrap_or_default();
    let record = record_of(&fields, before)?;
    let is_new = call.manager.put_vhost(&name, record)?;
    if is_new {
        // As in RabbitMQ, whoever makes a virtual host may use it.
        call.manager.put_permission(&name, call.user(), PermissionRecord::all())?;
    }
    wire::put(is_new)
}

/// `DELETE /vhosts/:vhost`
pub(super) fn delete(call: &Call) -> Outcome {
    found(call)?;
    call.manager.delete_vhost(&call.vhost()?).map_err(|refusal| match refusal.kind {
        RefusalKind::Conflict => Failure::precondition(refusal.text),
        _ => refusal.into(),
    })?;
    // A kept connection of this very client would hold the virtual host, and its name with it.
    call.socket.forget_ended();
    call.broker().finish_deletions();
    wire::done()
}

/// `POST /vhosts/:vhost/start/:node`: it runs.
pub(super) fn start(call: &Call) -> Outcome {
    found(call)?;
    wire::done()
}

/// `GET /vhosts/:vhost/deletion/protection`
pub(super) fn protection(call: &Call) -> Outcome {
    let is_protected = found(call)?.record.protected_from_deletion;
    let mut shown = Map::new();
    shown.insert("protected_from_deletion".to_owned(), json!(is_protected));
    wire::ok(&Value::Object(shown))
}

fn set_protection(call: &Call, protected_from_deletion: bool) -> Outcome {
    let view = found(call)?;
    call.manager.put_vhost(&view.name, VhostRecord { protected_from_deletion, ..view.record })?;
    wire::done()
}

/// `POST /vhosts/:vhost/deletion/protection`
pub(super) fn protect(call: &Call) -> Outcome {
    set_protection(call, true)
}

/// `DELETE /vhosts/:vhost/deletion/protection`
pub(super) fn unprotect(call: &Call) -> Outcome {
    set_protection(call, false)
}
