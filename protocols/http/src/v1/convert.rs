//! What becomes of a message in other protocols.

use std::sync::Arc;

use axum::{body::Body, http::Response};
use polymq_contract::Protocol;
use polymq_model::{
    Body as MessageBody, Message, QueueName, VhostName,
    carry::{Explained, TARGETS, Target, explain},
    json_form::{IncomingMessage, NewJsonMessage, Sender},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    documents::MessageDocument,
    management::Caller,
    publish::{json_answer, problem_of},
};
use crate::{
    api::{Answer, Media, Method, Operation},
    call::Call,
    clock,
    problem::Problem,
    schema::{Schema, Schemas, record},
};

record! {
    /// A field of a message in another protocol.
    ExplainedField {
        /// The protocol.
        to: String,
        /// The field, or `header <name>`.
        field: String,
        /// `kept`, `renamed`, `carried` (by another header), `rounded`, `retyped` or `dropped`.
        outcome: String,
        /// Its name there; empty when it is dropped.
        r#as: String,
        /// What the receiver sees, or what was dropped.
        value: String,
        /// Why it was dropped.
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    }
}

record! {
    /// Every field in every protocol that was asked for.
    ExplainedFields {
        /// One for each.
        lines: Vec<ExplainedField>,
    }
}

record! {
    /// A message that lies in a queue.
    QueuedMessage {
        /// The virtual host; `/` where it is left out.
        vhost: Option<String>,
        /// The queue.
        queue: String,
        /// Its position, as browsing tells it.
        seq: String,
    }
}

/// What is asked: about one of the two.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    message: Option<IncomingMessage>,
    queued: Option<QueuedMessage>,
    to: Option<Vec<String>>,
}

/// A protocol that is asked about.
enum To {
    /// One that the model knows.
    Model(Target),
    /// One that tells by itself.
    Itself(Arc<dyn Protocol>),
}

/// The protocol that tells by itself.
const XMPP: &str = "xmpp";

impl Schema for Asked {
    fn schema(all: &mut Schemas) -> Value {
        let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).chain([XMPP]).collect();
        json!({
            "type": "object",
            "description": "Either `message` or `queued`.",
            "properties": {
                "message": MessageDocument::schema(all),
                "queued": QueuedMessage::schema(all),
                "to": {
                    "type": "array", "items": { "type": "string" },
                    "description": format!(
                        "Protocols, of {}; a name without its digits stands for all versions, and \
                         all of them are meant when it is left out.",
                        names.join(", "),
                    ),
                },
            },
            "additionalProperties": false,
        })
    }
}

/// Explains.
pub(super) static EXPLAIN: Operation = Operation {
    method: Method::Post,
    path: "/convert:explain",
    id: "explainConversion",
    tag: "messages",
    summary: "Tell what becomes of a message's fields in other protocols",
    permission: "a login; read on the queue for a message that lies in one",
    query: &[],
    headers: &[],
    body: &[Media::json(<Asked as Schema>::schema)],
    answers: &[Answer {
        status: 200,
        about: "One line for each field and protocol.",
        media: &[Media::json(ExplainedFields::schema)],
    }],
};

pub(super) async fn explain_conversion(mut call: Call) -> Result<Response<Body>, Problem> {
    // Whoever has no login is told that first.
    call.identity().await?;
    let asked: Asked = call.json().await?;
    let targets = targets(asked.to, &call.site.watched.protocols)?;
    let now_ms = clock::now().unix_ms;
    let message = match (asked.message, asked.queued) {
        (Some(message), None) => written(&call, message, now_ms).await?,
        (None, Some(queued)) => found(&call, queued).await?,
        _ => {
            let text = "the body holds either `message` or `queued`";
            return Err(Problem::bad("wrong_type", text));
        }
    };
    let mut lines = Vec::new();
    for (name, target) in targets {
        let told = match target {
            To::Model(target) => explain(&message, target, now_ms),
            To::Itself(protocol) => protocol.explain(&message, now_ms).unwrap_or_default(),
        };
        lines.extend(told.into_iter().map(|line| shown(name, line)));
    }
    let told = ExplainedFields { lines };
    // Writing to memory cannot fail, and every key is a string.
    Ok(json_answer(serde_json::to_string(&told).unwrap_or_default()))
}

fn shown(to: &str, line: Explained) -> ExplainedField {
    ExplainedField {
        to: to.to_owned(),
        field: line.field,
        outcome: line.outcome.to_owned(),
        r#as: line.shown_as,
        value: line.value,
        why: line.why.map(str::to_owned),
    }
}

/// The message of the request, as if its sender had published it.
///
/// Errors: it could not be published.
async fn written(call: &Call, message: IncomingMessage, now_ms: u64) -> Result<Message, Problem> {
    let client = call.identity().await?;
    let body = message.body().map_err(problem_of).map_err(|problem| problem.below("/message"))?;
    let new = NewJsonMessage {
        exchange: "",
        key: message.routing_key.as_deref().unwrap_or_default(),
        properties: message.properties,
        body: MessageBody::Slice(&body),
        sender: Sender { user: client.user().as_str(), impersonator: client.is_impersonator() },
    };
    let built = new.build(now_ms, &call.site.limits(), &mut Vec::new());
    built.map(|(message, _)| message).map_err(|bad| problem_of(bad).below("/message"))
}

/// A message of a queue, which is not changed by it.
///
/// Errors: no such message, or no right to look at it.
async fn found(call: &Call, queued: QueuedMessage) -> Result<Message, Problem> {
    let bad = |at: &str, text: String| Problem::bad("bad_name", text).at(format!("/queued/{at}"));
    let vhost = queued.vhost.as_deref().unwrap_or("/");
    let vhost = VhostName::new(vhost).map_err(|error| bad("vhost", error.to_string()))?;
    let queue = QueueName::new(&queued.queue).map_err(|error| bad("queue", error.to_string()))?;
    let seq = queued.seq.parse().map_err(|_| {
        let text = format!("`{}` is no position", queued.seq);
        Problem::bad("bad_cursor", text).at("/queued/seq")
    })?;
    let caller = Caller::in_named_vhost(call, vhost.as_str()).await?;
    let found = caller.blocking("message", move |broker, who| {
        broker.browse_one(who, &vhost, queue.as_str(), seq, clock::now())
    });
    Ok(found.await?.message)
}

/// The protocols that are asked about, with their names.
///
/// Errors: one that is not there.
fn targets(
    asked: Option<Vec<String>>,
    protocols: &[Arc<dyn Protocol>],
) -> Result<Vec<(&'static str, To)>, Problem> {
    let itself = protocols.iter().find(|protocol| protocol.name() == XMPP);
    let itself = itself.map(|protocol| (XMPP, To::Itself(Arc::clone(protocol))));
    let known = TARGETS.into_iter().map(|(name, target)| (name, To::Model(target))).chain(itself);
    let mut known: Vec<_> = known.collect();
    let Some(asked) = asked else { return Ok(known) };
    // Digits are versions: a name without them stands for all versions.
    let is_meant = |name: &str, wanted: &str| {
        name == wanted || name.trim_end_matches(|sign: char| sign.is_ascii_digit()) == wanted
    };
    let is_known = |wanted: &str| known.iter().any(|(name, _)| is_meant(name, wanted));
    if let Some((place, wanted)) = asked.iter().enumerate().find(|(_, name)| !is_known(name)) {
        let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        let text = format!("there is no protocol `{wanted}`; there are {}", names.join(", "));
        let problem = Problem::bad("wrong_type", text).at(format!("/to/{place}"));
        return Err(problem.with("known", names));
    }
    known.retain(|(name, _)| asked.iter().any(|wanted| is_meant(name, wanted)));
    Ok(known)
}
