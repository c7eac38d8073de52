//! Why a message goes where: the real router, without effect.

use axum::Json;
use polymq_broker::{Principal, Role, Step};
use polymq_model::{
    Body, UserName,
    address::StompDestination,
    json_form::{IncomingMessage, NewJsonMessage, Sender},
    topic::slash_to_dot,
};
use serde_json::{Map, Value, json};

use super::{
    caller::{Caller, vhost_of},
    problems::missing_role,
    route::{OBJECT, ROUTE},
};
use crate::{
    api::{Api, Media, Method, Operation},
    call::Call,
    clock,
    problem::Problem,
    schema::{Schema, record},
};

record! {
    /// A message that nobody publishes, and who would publish it.
    Explain {
        /// Who would publish it; whoever asks, unless it is said.
        user: Option<String>,
        /// A topic of MQTT or a destination of STOMP, instead of exchange and key of the message.
        address: Option<Address>,
        /// The message, as publishing takes it.
        message: Value,
    }
}

record! {
    /// A place in the syntax of a protocol.
    Address {
        /// `mqtt` or `stomp`.
        protocol: String,
        /// The topic or destination.
        text: String,
    }
}

static EXPLAIN: Operation = Operation {
    method: Method::Post,
    path: "/vhosts/{vhost}/routing:explain",
    id: "explainRouting",
    tag: "messages",
    summary: "Follow a message through the router without publishing it",
    permission: "one's own rights; those of others with tag monitoring",
    body: &[Media::json(<Explain as Schema>::schema)],
    answers: OBJECT,
    ..ROUTE
};

pub(super) fn routes(api: Api) -> Api {
    api.route(&EXPLAIN, explain)
}

async fn explain(mut call: Call) -> Result<Json<Value>, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    let vhost = vhost_of(&call)?;
    let asked: Explain = call.json().await?;
    let mut who = caller.who.clone();
    if let Some(name) = asked.user.filter(|name| name != who.user.as_str()) {
        if !caller.has(Role::Monitoring) {
            return Err(missing_role("monitoring"));
        }
        who = Principal::of_user(
            UserName::new(&name)
                .map_err(|bad| Problem::bad("bad_name", bad.to_string()).at("/user"))?,
        );
    }
    let incoming: IncomingMessage = serde_json::from_value(asked.message)
        .map_err(|bad| Problem::bad("wrong_type", bad.to_string()).at("/message"))?;
    let mut steps = Vec::new();
    let (exchange, key) = match &asked.address {
        None => (
            incoming.exchange.clone().unwrap_or_default(),
            incoming.routing_key.clone().unwrap_or_default(),
        ),
        Some(address) => {
            let (exchange, key) = mapped(address)?;
            steps.push(json!({
                "kind": "address",
                "object": address.text,
                "outcome": "mapped",
                "reason": {
                    "code": address.protocol,
                    "params": { "exchange": exchange, "routing_key": key },
                },
                "children": [],
            }));
            (exchange, key)
        }
    };
    let exchange = if exchange == "amq.default" { String::new() } else { exchange };
    let bad = |bad: polymq_model::json_form::BadField| {
        Problem::bad("invalid_argument", bad.text).at(format!("/message{}", bad.at))
    };
    let body = incoming.body().map_err(bad)?;
    let now = clock::now();
    let new = NewJsonMessage {
        exchange: &exchange,
        key: &key,
        properties: incoming.properties,
        body: Body::Slice(&body),
        sender: Sender { user: who.user.as_str(), impersonator: who.impersonator },
    };
    let limits = &call.site.limits();
    let (message, delay) = new.build(now.unix_ms, limits, &mut Vec::new()).map_err(bad)?;
    if delay.is_some() {
        steps.push(json!({
            "kind": "schedule", "object": exchange, "outcome": "delayed",
            "reason": { "code": "routed_when_due", "params": {} }, "children": [],
        }));
    }
    let explained =
        caller.blocking("vhost", move |broker, _| broker.explain(&who, &vhost, &message, now));
    let explained = explained.await?;
    steps.extend(explained.steps.iter().map(shown));
    Ok(Json(json!({
        "steps": steps,
        "routed": !explained.queues.is_empty() || explained.subscribers > 0,
        "queues": explained.queues,
        "subscribers": explained.subscribers,
    })))
}

/// Exchange and key of a place in the syntax of a protocol.
///
/// Errors: it is none.
fn mapped(address: &Address) -> Result<(String, String), Problem> {
    let bad = |text: String| Problem::bad("bad_name", text).at("/address/text");
    match address.protocol.as_str() {
        "mqtt" => {
            let mut key = String::new();
            slash_to_dot(&address.text, &mut key);
            Ok(("amq.topic".to_owned(), key))
        }
        "stomp" => match StompDestination::parse(&address.text) {
            Ok(StompDestination::Queue(queue) | StompDestination::AmqQueue(queue)) => {
                Ok((String::new(), queue.into_owned()))
            }
            Ok(StompDestination::Topic(key)) => Ok(("amq.topic".to_owned(), key.into_owned())),
            Ok(StompDestination::Exchange { exchange, key }) => {
                Ok((exchange.into_owned(), key.unwrap_or_default().into_owned()))
            }
            Ok(_) => Err(bad("it is not an address that messages are sent to".to_owned())),
            Err(error) => Err(bad(error.to_string())),
        },
        _ => Err(Problem::bad("wrong_type", "`protocol` is mqtt or stomp").at("/address/protocol")),
    }
}

fn shown(step: &Step) -> Value {
    let params = step.params.iter().map(|(name, value)| ((*name).to_owned(), json!(value)));
    json!({
        "kind": step.kind,
        "object": step.object,
        "outcome": step.outcome,
        "reason": { "code": step.code, "params": params.collect::<Map<_, _>>() },
        "children": step.children.iter().map(shown).collect::<Vec<_>>(),
    })
}
