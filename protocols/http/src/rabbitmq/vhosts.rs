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

fn object_of(call: &Call, view: &VhostView) -> Value {
    let (record, node) = (&view.record, &call.site.watched.name);
    let kind = record.default_queue_type.as_deref().unwrap_or("classic");
    let mut shown = json!({
        "name": view.name.as_str(),
        "description": record.description,
        "tags": record.tags,
        "default_queue_type": kind,
        "metadata": {
            "description": record.description,
            "tags": record.tags,
            "default_queue_type": kind,
        },
        "tracing": false,
        "protected_from_deletion": record.protected_from_deletion,
        "cluster_state": { (node.as_str()): "running" },
    });
    if call.has_flag("disable_stats") {
        return shown;
    }
    let (lengths, span) = (call.span("lengths"), call.span("msg_rates"));
    let widest = span.or(lengths).or_else(|| call.span("data_rates"));
    let Ok((now, recent)) = call.broker().vhost_totals(view.name.as_str(), widest) else {
        return shown;
    };
    let numbers = rates::lengths((now.ready, now.unsettled), &recent, lengths.is_some());
    if let Value::Object(shown) = &mut shown {
        shown.extend(numbers.map(|(name, value)| (name.to_owned(), value)));
        let stats = rates::message_stats(&rates::OF_ALL, &now.activity, &recent, span.is_some());
        shown.insert("message_stats".to_owned(), stats);
        let is_sampled = call.span("data_rates").is_some();
        let octets: [(&str, rates::Read); 2] =
            [("recv_oct", |sample| sample.bytes_in), ("send_oct", |sample| sample.bytes_out)];
        for (name, read) in octets {
            shown.insert(name.to_owned(), json!(read(&now)));
            let details = rates::details(&recent, is_sampled, read);
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

/// `PUT /vhosts/:vhost`
pub(super) fn put(call: &Call) -> Outcome {
    let fields = Fields::read(&call.body)?;
    let name = VhostName::new(call.vhost_name()).map_err(|bad| Failure::bad(bad.to_string()))?;
    let before = call.manager.vhost(&name).ok().map(|view| view.record).unwrap_or_default();
    let metadata = fields.get("metadata").map(Fields::of).transpose()?;
    let nested = metadata.as_ref().unwrap_or(&fields);
    let kind = match fields.text("default_queue_type")? {
        None => nested.text("default_queue_type")?,
        kind => kind,
    };
    let record = VhostRecord {
        description: match fields.text("description")? {
            None => nested.text("description")?.unwrap_or(before.description),
            Some(description) => description,
        },
        tags: match fields.words("tags")? {
            None => nested.words("tags")?.unwrap_or(before.tags),
            Some(tags) => tags,
        },
        default_queue_type: match kind.as_deref() {
            None => before.default_queue_type,
            Some("" | "undefined" | "classic") => None,
            Some(kind) => Some(kind.to_owned()),
        },
        protected_from_deletion: fields
            .flag("protected_from_deletion", before.protected_from_deletion)?,
    };
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
