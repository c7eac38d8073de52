//! Why a message goes where: the real router, without effect.

use axum::Json;
use polymq_broker::{Principal, Role, Step};
use polymq_contract::Destination;
use polymq_model::{
    Body, UserName,
    json_form::{IncomingMessage, NewJsonMessage, Sender},
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
        /// An address of a protocol, instead of exchange and key of the message.
        address: Option<Address>,
        /// The message, as publishing takes it.
        message: Value,
    }
}

record! {
    /// A place in the syntax of a protocol.
    Address {
        /// `mqtt`, `stomp` or `xmpp`.
        protocol: String,
        /// The topic, destination or JID.
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
    let to = match &asked.address {
        None => Destination {
            exchange: incoming.exchange.clone().unwrap_or_default(),
            key: incoming.routing_key.clone().unwrap_or_default(),
            ..Destination::default()
        },
        Some(address) => {
            let to = mapped(&call, address)?;
            let params = json!({ "exchange": to.exchange, "routing_key": to.key });
            steps.push(json!({
                "kind": "address",
                "object": address.text,
                "outcome": "mapped",
                "reason": { "code": address.protocol, "params": params },
                "children": [],
            }));
            to
        }
    };
    let exchange = if to.exchange == "amq.default" { "" } else { &to.exchange };
    let bad = |bad: polymq_model::json_form::BadField| {
        Problem::bad("invalid_argument", bad.text).at(format!("/message{}", bad.at))
    };
    let body = incoming.body().map_err(bad)?;
    let now = clock::now();
    let new = NewJsonMessage {
        exchange,
        key: &to.key,
        properties: incoming.properties,
        body: Body::Slice(&body),
        sender: Sender { user: who.user.as_str(), impersonator: who.impersonator },
    };
    let limits = &call.site.limits();
    let (message, delay) = new.build(now.unix_ms, limits, &mut Vec::new()).map_err(bad)?;
    if delay.is_some() || !to.delay.is_zero() {
        steps.push(json!({
            "kind": "schedule", "object": exchange, "outcome": "delayed",
            "reason": { "code": "routed_when_due", "params": {} }, "children": [],
        }));
    }
    let makes = to.declares_queue;
    let explained = caller
        .blocking("vhost", move |broker, _| broker.explain(&who, &vhost, &message, makes, now));
    let explained = explained.await?;
    steps.extend(explained.steps.iter().map(shown));
    Ok(Json(json!({
        "steps": steps,
        "routed": !explained.queues.is_empty() || explained.subscribers > 0,
        "queues": explained.queues,
        "subscribers": explained.subscribers,
    })))
}

/// Where a publish to an address of a protocol goes, as the protocol itself has it.
///
/// Errors: no client may publish there, or the server speaks no such protocol.
fn mapped(call: &Call, address: &Address) -> Result<Destination, Problem> {
    let limits = call.site.limits();
    let spoken = call.site.watched.protocols.iter();
    let told = spoken.filter(|protocol| protocol.name() == address.protocol);
    // Several may have one name: XMPP as a server, and for each server that it has joined.
    let mut why_not = None;
    for protocol in told {
        match protocol.destination(&address.text, &limits) {
            Some(Ok(destination)) => return Ok(destination),
            Some(Err(why)) => why_not = why_not.or(Some(why)),
            None => {}
        }
    }
    Err(match why_not {
        Some(why) => Problem::bad("bad_name", why).at("/address/text"),
        None => {
            let text = format!("`{}` is no protocol with addresses", address.protocol);
            Problem::bad("wrong_type", text).at("/address/protocol")
        }
    })
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
