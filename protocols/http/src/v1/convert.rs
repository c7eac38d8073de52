//! What becomes of a message in other protocols.

use axum::{body::Body, http::Response};
use polymq_model::{
    Body as MessageBody,
    carry::{TARGETS, Target, explain},
    json_form::{IncomingMessage, NewJsonMessage, Sender},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    documents::MessageDocument,
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

/// What is asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    message: IncomingMessage,
    to: Option<Vec<String>>,
}

fn asked_schema(all: &mut Schemas) -> Value {
    let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    json!({
        "type": "object",
        "required": ["message"],
        "properties": {
            "message": MessageDocument::schema(all),
            "to": {
                "type": "array", "items": { "type": "string", "enum": names },
                "description": "Protocols; all of them when it is left out.",
            },
        },
        "additionalProperties": false,
    })
}

/// Explains.
pub(super) static EXPLAIN: Operation = Operation {
    method: Method::Post,
    path: "/convert:explain",
    id: "explainConversion",
    tag: "messages",
    summary: "Tell what becomes of a message's fields in other protocols",
    permission: "a login",
    query: &[],
    headers: &[],
    body: &[Media::json(asked_schema)],
    answers: &[Answer {
        status: 200,
        about: "One line for each field and protocol.",
        media: &[Media::json(ExplainedFields::schema)],
    }],
};

pub(super) async fn explain_conversion(mut call: Call) -> Result<Response<Body>, Problem> {
    let client = call.identity().await?;
    let Asked { message, to } = call.json().await?;
    let targets = targets(to)?;
    let body = message.body().map_err(problem_of).map_err(|problem| problem.below("/message"))?;
    let user = client.user().as_str();
    let new = NewJsonMessage {
        exchange: "",
        key: message.routing_key.as_deref().unwrap_or_default(),
        properties: message.properties,
        body: MessageBody::Slice(&body),
        sender: Sender { user, impersonator: client.is_impersonator() },
    };
    let now_ms = clock::now().unix_ms;
    let (message, _) = new
        .build(now_ms, &call.site.limits(), &mut Vec::new())
        .map_err(|bad| problem_of(bad).below("/message"))?;
    let mut lines = Vec::new();
    for (name, target) in targets {
        lines.extend(explain(&message, target, now_ms).into_iter().map(|line| ExplainedField {
            to: name.to_owned(),
            field: line.field,
            outcome: line.outcome.to_owned(),
            r#as: line.shown_as,
            value: line.value,
            why: line.why.map(str::to_owned),
        }));
    }
    let told = ExplainedFields { lines };
    // Writing to memory cannot fail, and every key is a string.
    Ok(json_answer(serde_json::to_string(&told).unwrap_or_default()))
}

fn targets(asked: Option<Vec<String>>) -> Result<Vec<(&'static str, Target)>, Problem> {
    let Some(asked) = asked else { return Ok(TARGETS.to_vec()) };
    if asked.len() > TARGETS.len() {
        let text = format!("there are {} protocols", TARGETS.len());
        return Err(Problem::bad("out_of_range", text).at("/to"));
    }
    let find = |(place, name): (usize, &String)| {
        TARGETS.into_iter().find(|(known, _)| known == name).ok_or_else(|| {
            let text = format!("there is no protocol `{name}`");
            Problem::bad("wrong_type", text).at(format!("/to/{place}"))
        })
    };
    asked.iter().enumerate().map(find).collect()
}
