//! Bindings.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use polymq_broker::BindingView;
use polymq_contract::{BindExchange, BindQueue, Command};
use polymq_model::{Table, sha256, topic::valid_key};
use serde_json::{Value, json};

use super::{
    caller::{Caller, vhost_of},
    list,
    problems::not_there,
    route::{DRY_RUN, NOTHING, PUT, ROUTE},
    value::{from_table, to_table},
};
use crate::{
    api::{Api, Media, Method, Operation},
    call::Call,
    problem::Problem,
    schema::{Schema, record},
};

record! {
    /// A binding.
    BindingSpec {
        /// The exchange that messages come from.
        source: String,
        /// The queue or exchange that they go to.
        destination: String,
        /// `queue` or `exchange`; a queue unless it is said.
        destination_type: Option<String>,
        /// The binding key.
        routing_key: Option<String>,
        /// Arguments.
        arguments: Option<Value>,
    }
}

static LIST: Operation = Operation {
    path: "/vhosts/{vhost}/bindings",
    id: "listBindings",
    tag: "bindings",
    summary: "Bindings between objects that the user has a right to; all with tag monitoring",
    query: list::QUERY,
    answers: list::ANSWERS,
    ..ROUTE
};
static BIND: Operation = Operation {
    method: Method::Post,
    path: "/vhosts/{vhost}/bindings",
    id: "bind",
    tag: "bindings",
    summary: "Bind a queue or an exchange",
    permission: "write on the destination, read on the source",
    query: &[DRY_RUN],
    body: &[Media::json(<BindingSpec as Schema>::schema)],
    answers: PUT,
    ..ROUTE
};
static SHOW: Operation = Operation {
    path: "/vhosts/{vhost}/bindings/{id}",
    id: "showBinding",
    tag: "bindings",
    summary: "One binding",
    ..ROUTE
};
static UNBIND: Operation = Operation {
    method: Method::Delete,
    path: "/vhosts/{vhost}/bindings/{id}",
    id: "unbind",
    tag: "bindings",
    summary: "Remove a binding",
    permission: "write on the destination, read on the source",
    query: &[DRY_RUN],
    answers: NOTHING,
    ..ROUTE
};

pub(super) fn routes(api: Api) -> Api {
    api.route(&LIST, index).route(&BIND, bind).route(&SHOW, show).route(&UNBIND, unbind)
}

/// The id of a binding: the same for the same source, destination, key and arguments.
fn id(binding: &BindingView) -> String {
    let whole = json!([
        binding.source,
        binding.to_queue,
        binding.destination,
        binding.key,
        from_table(&binding.arguments),
    ]);
    let hash = sha256(whole.to_string().as_bytes());
    hash.iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

/// What a list of bindings is sorted by.
pub(super) fn key(binding: &BindingView) -> String {
    let BindingView { source, destination, key, .. } = binding;
    format!("{source}\0{destination}\0{key}\0{}", id(binding))
}

/// A binding as JSON.
pub(super) fn shown(binding: &BindingView) -> Value {
    json!({
        "id": id(binding),
        "vhost": binding.vhost.as_str(),
        "source": binding.source,
        "destination": binding.destination,
        "destination_type": if binding.to_queue { "queue" } else { "exchange" },
        "routing_key": binding.key,
        "arguments": from_table(&binding.arguments),
    })
}

/// The bindings that the caller may see.
fn visible(call: &Call, caller: &Caller) -> Result<Vec<BindingView>, Problem> {
    let vhost = vhost_of(call)?;
    let all = caller.broker().bindings(Some(vhost.as_str()));
    let mut all = all.map_err(|refusal| Problem::refused(&refusal, "vhost"))?;
    all.retain(|binding| {
        let kind = if binding.to_queue { "queue" } else { "exchange" };
        caller.sees(&vhost, "exchange", &binding.source)
            && caller.sees(&vhost, kind, &binding.destination)
    });
    Ok(all)
}

async fn index(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    let found = visible(&call, &caller)?;
    list::page(&call, found, key, shown).map(Json)
}

fn find(call: &Call, caller: &Caller) -> Result<BindingView, Problem> {
    let wanted = call.path("id");
    let found = visible(call, caller)?.into_iter().find(|binding| id(binding) == wanted);
    found.ok_or_else(|| not_there("binding_not_found", "binding", wanted))
}

async fn show(call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    Ok(Json(shown(&find(&call, &caller)?)))
}

/// The order that binds, or removes a binding.
fn order(
    request: polymq_model::RequestId,
    binding: &BindingView,
    arguments: Table,
    add: bool,
) -> Command {
    let (destination, source) = (binding.destination.clone(), binding.source.clone());
    let key = binding.key.clone();
    if binding.to_queue {
        let (queue, exchange) = (destination, source);
        let bind = Box::new(BindQueue { request, queue, exchange, key, arguments });
        return if add { Command::BindQueue(bind) } else { Command::UnbindQueue(bind) };
    }
    let bind = Box::new(BindExchange { request, destination, source, key, arguments });
    if add { Command::BindExchange(bind) } else { Command::UnbindExchange(bind) }
}

async fn bind(mut call: Call) -> Result<Response, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    let vhost = vhost_of(&call)?;
    let spec: BindingSpec = call.json().await?;
    let to_queue = match spec.destination_type.as_deref() {
        None | Some("queue") => true,
        Some("exchange") => false,
        Some(_) => {
            let text = "`destination_type` is queue or exchange";
            return Err(Problem::bad("wrong_type", text).at("/destination_type"));
        }
    };
    let arguments = to_table(&spec.arguments.unwrap_or_else(|| json!({})), "/arguments")?;
    if let Err(bad) =
        valid_key(spec.routing_key.as_deref().unwrap_or_default(), &call.site.limits())
    {
        return Err(Problem::bad("bad_name", bad.to_string()).at("/routing_key"));
    }
    let binding = BindingView {
        vhost: vhost.clone(),
        source: if spec.source == "amq.default" { String::new() } else { spec.source },
        destination: spec.destination,
        to_queue,
        key: spec.routing_key.unwrap_or_default(),
        arguments: arguments.clone().into(),
    };
    let id = id(&binding);
    // An exchange that is not there is told about by the order.
    let before = caller.broker().bindings_from(vhost.as_str(), &binding.source);
    let before = before.unwrap_or_default();
    let is_alike = |known: &&BindingView| {
        known.to_queue == to_queue
            && known.destination == binding.destination
            && known.key == binding.key
    };
    let is_new = !before.iter().filter(is_alike).any(|known| self::id(known) == id);
    if call.flag("dry_run") {
        let checked = caller.broker().check_binding_rights(&caller.who, &binding, true);
        checked.map_err(|refusal| Problem::refused(&refusal, "exchange"))?;
        return Ok(Json(json!({ "dry_run": true, "would_create": is_new })).into_response());
    }
    let object = if to_queue { "queue" } else { "exchange" };
    caller.ask(object, |request| order(request, &binding, arguments, true)).await?;
    if is_new {
        let object = format!("/vhosts/{vhost}/bindings/{id}");
        caller.audit(&call, "binding.add", object, (Value::Null, shown(&binding)));
    }
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let location = call.location(&format!("/vhosts/{}/bindings/{id}", call.path_as_sent("vhost")));
    let location =
        HeaderValue::from_str(&location).unwrap_or_else(|_| HeaderValue::from_static(""));
    Ok((status, [(header::LOCATION, location)], Json(shown(&binding))).into_response())
}

async fn unbind(call: Call) -> Result<Response, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    let binding = find(&call, &caller)?;
    if call.flag("dry_run") {
        let checked = caller.broker().check_binding_rights(&caller.who, &binding, false);
        checked.map_err(|refusal| Problem::refused(&refusal, "exchange"))?;
        return Ok(Json(json!({ "dry_run": true, "binding": shown(&binding) })).into_response());
    }
    let arguments = Table::clone(&binding.arguments);
    let object = if binding.to_queue { "queue" } else { "exchange" };
    caller.ask(object, |request| order(request, &binding, arguments, false)).await?;
    let object = format!("/vhosts/{}/bindings/{}", binding.vhost, id(&binding));
    caller.audit(&call, "binding.remove", object, (shown(&binding), Value::Null));
    Ok(StatusCode::NO_CONTENT.into_response())
}
