//! Bindings.

use polymq_broker::BindingView;
use polymq_contract::{BindExchange, BindQueue, Command};
use polymq_model::{RequestId, Table, topic::valid_key};
use serde_json::{Value, json};

use super::{
    call::Call,
    list::{Columns, Row, Wanted},
    names::{encode, properties_key},
    values::{Fields, object},
    wire::{self, Failure, Outcome},
};

struct BindingRow(BindingView);

impl Row for BindingRow {
    fn place(&self) -> (&str, &str) {
        (self.0.vhost.as_str(), &self.0.source)
    }
}

fn object_of(binding: &BindingView) -> Value {
    json!({
        "source": binding.source,
        "vhost": binding.vhost.as_str(),
        "destination": binding.destination,
        "destination_type": if binding.to_queue { "queue" } else { "exchange" },
        "routing_key": binding.key,
        "arguments": object(&binding.arguments),
        "properties_key": properties_key(&binding.key, &binding.arguments),
    })
}

/// The bindings of the virtual host of the path that are wanted.
pub(super) fn answer(call: &Call, is_wanted: impl Fn(&BindingView) -> bool) -> Outcome {
    let all = call.broker().bindings(call.vhost_filter().as_deref());
    let mut all = all.map_err(|_| Failure::not_found())?;
    let mut sight = call.sight();
    all.retain(|binding| sight.sees(&binding.vhost) && is_wanted(binding));
    // Of one source they are told apart by the rest.
    all.sort_by(|a, b| (&a.destination, &a.key).cmp(&(&b.destination, &b.key)));
    let rows = all.into_iter().map(BindingRow).collect();
    Wanted::of(call)?.answer(rows, |row| object_of(&row.0))
}

/// `GET /bindings`, `/bindings/:vhost`
pub(super) fn list(call: &Call) -> Outcome {
    answer(call, |_| true)
}

/// The two ends of the path: source, destination, and whether that is a queue.
struct Ends {
    source: String,
    destination: String,
    to_queue: bool,
}

impl Ends {
    fn of(call: &Call) -> Self {
        let to_queue = call.has_path("queue");
        let destination = match to_queue {
            true => call.queue_name(),
            false => call.exchange_name("destination"),
        };
        Self { source: call.exchange_name("source"), destination, to_queue }
    }

    fn is_of(&self, binding: &BindingView) -> bool {
        binding.source == self.source
            && binding.destination == self.destination
            && binding.to_queue == self.to_queue
    }

    /// Where they stand below their virtual host, for the audit file.
    fn path(&self) -> String {
        let kind = if self.to_queue { 'q' } else { 'e' };
        format!("bindings/e/{}/{kind}/{}", self.source, self.destination)
    }

    /// Errors: one of them does not exist.
    fn check(&self, call: &Call) -> Result<(), Failure> {
        let (broker, vhost) = (call.broker(), call.vhost_name());
        let has_exchange = |name: &str| broker.exchange(&vhost, name, None).is_ok();
        let has_destination = match self.to_queue {
            true => broker.queue_ref(&vhost, &self.destination).is_ok(),
            false => has_exchange(&self.destination),
        };
        if has_exchange(&self.source) && has_destination {
            return Ok(());
        }
        Err(Failure::not_found())
    }

    fn order(&self, request: RequestId, (key, arguments): (String, Table), add: bool) -> Command {
        let (source, destination) = (self.source.clone(), self.destination.clone());
        if self.to_queue {
            let (queue, exchange) = (destination, source);
            let bind = Box::new(BindQueue { request, queue, exchange, key, arguments });
            return if add { Command::BindQueue(bind) } else { Command::UnbindQueue(bind) };
        }
        let bind = Box::new(BindExchange { request, destination, source, key, arguments });
        if add { Command::BindExchange(bind) } else { Command::UnbindExchange(bind) }
    }
}

/// `GET /bindings/:vhost/e/:source/q/:queue` and `…/e/:destination`
pub(super) fn between(call: &Call) -> Outcome {
    let ends = Ends::of(call);
    ends.check(call)?;
    answer(call, |binding| ends.is_of(binding))
}

/// `POST /bindings/:vhost/e/:source/q/:queue` and `…/e/:destination`
pub(super) async fn post(call: Call) -> Outcome {
    let fields = Fields::read(&call.body)?;
    let key = fields.text("routing_key")?.unwrap_or_default();
    valid_key(&key, &call.site.limits()).map_err(|bad| Failure::bad(bad.to_string()))?;
    let arguments = fields.table("arguments")?;
    let ends = Ends::of(&call);
    // A part of a path like any other, so its percent signs are encoded again.
    let properties_key = properties_key(&key, &arguments).replace('%', "%25");
    let location = format!("{}/{properties_key}", encode(&ends.destination));
    let bound = json!({ "routing_key": key, "arguments": object(&arguments) });
    call.order(|request| ends.order(request, (key, arguments), true)).await?;
    call.audit("binding.add", &ends.path(), (Value::Null, bound));
    wire::created_at(&location)
}

fn found(call: &Call, ends: &Ends) -> Result<BindingView, Failure> {
    let wanted = call.path("properties_key");
    // The key in the path is decoded once, and may have been encoded twice.
    let is_it = |binding: &BindingView| {
        let key = properties_key(&binding.key, &binding.arguments);
        key == wanted || super::names::decode(&key).is_some_and(|plain| plain == wanted)
    };
    let vhost = call.vhost_name();
    let all = call.broker().bindings_from(&vhost, &ends.source).unwrap_or_default();
    let mut ours = all.into_iter().filter(|binding| ends.is_of(binding));
    ours.find(is_it).ok_or_else(Failure::not_found)
}

/// `GET /bindings/:vhost/e/:source/q/:queue/:properties_key` and the like
pub(super) fn one(call: &Call) -> Outcome {
    let binding = found(call, &Ends::of(call))?;
    wire::ok(&Columns::of(call).pick(object_of(&binding)))
}

/// `DELETE /bindings/:vhost/e/:source/q/:queue/:properties_key` and the like
pub(super) async fn delete(call: Call) -> Outcome {
    let ends = Ends::of(&call);
    let binding = found(&call, &ends)?;
    let bound = json!({ "routing_key": binding.key, "arguments": object(&binding.arguments) });
    let what = (binding.key, Table::clone(&binding.arguments));
    call.order(|request| ends.order(request, what, false)).await?;
    call.audit("binding.remove", &ends.path(), (bound, Value::Null));
    wire::done()
}
