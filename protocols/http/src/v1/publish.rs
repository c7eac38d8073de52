//! Publishing: one message with its properties in headers, or many as JSON.

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use polymq_contract::{Place, PublishOutcome, Refusal, RefusalKind};
use polymq_model::{
    Body as MessageBody, Durability,
    json_form::{BadField, BadKind, IncomingMessage, JsonProperties, NewJsonMessage, Sender},
};
use serde_json::{Value, json};

use super::{
    documents::{self, Outcome, Outcomes},
    request,
};
use crate::{
    api::{Answer, Kind, Media, Method, Operation, Parameter},
    call::Call,
    client::{Client, Outgoing, Published, Publishing, Told},
    clock, events, json,
    problem::Problem,
    raw,
    schema::Schema,
};

/// Messages of one call.
const BATCH_MAX: usize = 1000;

const CONFIRM: Parameter = Parameter {
    name: "confirm",
    kind: Kind::Word(&["stored", "routed", "none"]),
    about: "When to answer: `stored`, once the store has the message (usual for persistent ones); \
            `routed`, once its queues have it; `none`, at once.",
};
const MANDATORY: Parameter = Parameter {
    name: "mandatory",
    kind: Kind::Flag,
    about: "A message that no queue takes is answered with 422.",
};
const REPLY: Parameter = Parameter {
    name: "reply",
    kind: Kind::Time,
    about: "Answer with the first message that is sent to the reply address, which is made for \
            this; at most 60s, once the request is as safe as `confirm` asks for.",
};
const ROUTING_KEY: Parameter = Parameter {
    name: "routing_key",
    kind: Kind::Text,
    about: "The routing key in dot form; empty when it is left out.",
};

const ANSWERS: &[Answer] = &[
    Answer {
        status: 200,
        about: "The message is as safe as asked for; with `reply`, the answer to it.",
        media: &[Media::json(Outcome::schema)],
    },
    Answer { status: 202, about: "The message was taken (`confirm=none`).", media: &[] },
];

/// To an exchange.
pub(super) static TO_EXCHANGE: Operation = Operation {
    method: Method::Post,
    path: "/vhosts/{vhost}/exchanges/{exchange}/messages",
    id: "publishToExchange",
    tag: "messages",
    summary: "Publish a message to an exchange",
    permission: "write on the exchange",
    query: &[ROUTING_KEY, CONFIRM, MANDATORY, REPLY],
    headers: documents::PROPERTY_HEADERS,
    body: &[Media::bytes("*/*")],
    answers: ANSWERS,
};

/// To a queue.
pub(super) static TO_QUEUE: Operation = Operation {
    method: Method::Post,
    path: "/vhosts/{vhost}/queues/{queue}/messages",
    id: "publishToQueue",
    tag: "messages",
    summary: "Publish a message to a queue",
    permission: "write on the default exchange",
    query: &[CONFIRM, MANDATORY, REPLY],
    headers: documents::PROPERTY_HEADERS,
    body: &[Media::bytes("*/*")],
    answers: ANSWERS,
};

/// Many at once.
pub(super) static MANY: Operation = Operation {
    method: Method::Post,
    path: "/vhosts/{vhost}/messages:publish",
    id: "publishMany",
    tag: "messages",
    summary: "Publish up to 1,000 messages, each to its own place",
    permission: "write on each exchange",
    query: &[
        CONFIRM,
        Parameter {
            name: "atomic",
            kind: Kind::Flag,
            about: "All messages are published, or none is.",
        },
    ],
    headers: &[],
    body: &[
        Media::json(documents::messages_schema),
        Media { content_type: "application/x-ndjson", schema: None },
    ],
    answers: &[
        Answer {
            status: 200,
            about: "How each one ended, in order.",
            media: &[Media::json(Outcomes::schema)],
        },
        Answer { status: 202, about: "The messages were taken (`confirm=none`).", media: &[] },
    ],
};

/// How safe a message must be before its publisher is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Confirm {
    Stored,
    Routed,
    None,
}

impl Confirm {
    pub(super) fn of(call: &Call) -> Self {
        match call.query("confirm") {
            Some("routed") => Self::Routed,
            Some("none") => Self::None,
            _ => Self::Stored,
        }
    }
}

pub(super) async fn to_exchange(call: Call) -> Result<Response<Body>, Problem> {
    let exchange = call.exchange()?;
    let key = call.query("routing_key").unwrap_or_default().to_owned();
    publish(call, &exchange, &key).await
}

pub(super) async fn to_queue(call: Call) -> Result<Response<Body>, Problem> {
    let queue = call.queue()?;
    publish(call, "", queue.as_str()).await
}

async fn publish(mut call: Call, exchange: &str, key: &str) -> Result<Response<Body>, Problem> {
    let client = call.client().await?;
    may_publish(&call, &client)?;
    if call.content_type().as_deref() == Some(events::BATCH) {
        return event_batch(call, &client, (exchange, key)).await;
    }
    let properties = raw::properties(&call.headers)?;
    let body = message_body(&mut call).await?;
    if let Some(wait) = call.time("reply") {
        return request::answered(&call, &client, (exchange, key), properties, body, wait).await;
    }
    let id = properties.message_id.clone();
    let body = MessageBody::Shared(body);
    let outgoing = outgoing_of_request(&call, &client, (exchange, key), properties, body)?;
    let object = if exchange.is_empty() { "queue" } else { "exchange" };
    let confirm = Confirm::of(&call);
    let told = publish_one(&client, outgoing, confirm).await;
    let unrouted = Published::Ended(PublishOutcome::Unrouted);
    if call.flag("mandatory") && told.outcome == unrouted {
        return Err(unroutable("no queue takes the message"));
    }
    let word = outcome(&told.outcome, &client, object)?;
    Ok(match confirm {
        Confirm::None => status(StatusCode::ACCEPTED),
        Confirm::Stored | Confirm::Routed => outcome_answer(word, told.place, id),
    })
}

/// Publishes a message and waits until it is as safe as asked for.
pub(super) async fn publish_one(client: &Client, outgoing: Outgoing, confirm: Confirm) -> Told {
    let confirms = client.publish([outgoing]).await;
    match (confirms.now(), confirm) {
        (Publishing { place, outcome: Some(outcome) }, _) => Told { place, outcome },
        // It has been taken: only the store is still to say so.
        (Publishing { place: Some(place), .. }, Confirm::Routed | Confirm::None) => {
            let outcome = Published::Ended(PublishOutcome::Routed(Durability::Memory));
            Told { place: Some(place), outcome }
        }
        (Publishing { .. }, _) => last(confirms.all().await),
    }
}

pub(super) fn unroutable(text: &str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unroutable", text)
}

/// What came of the only publish.
fn last(mut all: Vec<Told>) -> Told {
    let outcome = Published::Ended(PublishOutcome::Unrouted);
    all.pop().unwrap_or(Told { place: None, outcome })
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// The usual answer, of one queue to a publish that has no id, is always the same.
fn outcome_answer(word: &'static str, place: Option<Place>, id: Option<String>) -> Response<Body> {
    json_answer(match (word, place, id) {
        ("stored", Some(Place::Queues(1)), None) => {
            Body::from(r#"{"outcome":"stored","queues":1,"routed":true}"#)
        }
        (word, place, id) => Body::from(told(word, place, id).to_string()),
    })
}

fn told(word: &str, place: Option<Place>, id: Option<String>) -> Value {
    let mut told = json!({ "outcome": word, "routed": word != "unrouted" });
    match place {
        Some(Place::Queues(queues)) => told["queues"] = json!(queues),
        // As text, like every number that may be beyond 2^53.
        Some(Place::Scheduled(id)) => told["schedule_id"] = json!(id.to_string()),
        None if word == "unrouted" => told["queues"] = json!(0),
        None => {}
    }
    if let Some(id) = id {
        told["id"] = json!(id);
    }
    told
}

pub(super) fn json_answer(body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Errors: publishers wait for memory or disk. Whoever has published before that is answered
/// when it is over.
fn may_publish(call: &Call, client: &Client) -> Result<(), Problem> {
    let alarm = call.site.watched.broker.alarm().map(|alarm| alarm.to_string());
    match alarm.or_else(|| client.blocked().map(String::from)) {
        None => Ok(()),
        Some(alarm) => Err(blocked(&alarm)),
    }
}

fn blocked(alarm: &str) -> Problem {
    let text = format!("publishers wait: {alarm}");
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "publishers_blocked", text);
    problem.with("alarm", alarm).retry()
}

async fn message_body(call: &mut Call) -> Result<bytes::Bytes, Problem> {
    let max = call.site.limits().message_bytes_max;
    call.bytes(max).await.map_err(|problem| match problem.code() {
        "body_too_large" => {
            let text = format!("the message has more than {max} bytes");
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            Problem::new(status, "message_too_large", text).with("max", max)
        }
        _ => problem,
    })
}

fn outgoing(
    call: &Call,
    client: &Client,
    (exchange, key): (&str, &str),
    properties: JsonProperties,
    body: MessageBody<'_>,
) -> Result<Outgoing, BadField> {
    let user = client.user().as_str();
    let sender = Sender { user, impersonator: client.is_impersonator() };
    let new = NewJsonMessage { exchange, key, properties, body, sender };
    let limits = &call.site.limits();
    let (message, delay) = new.build(clock::now().unix_ms, limits, &mut Vec::new())?;
    Ok(Outgoing { message, delay, mandatory: call_is_mandatory(call) })
}

fn call_is_mandatory(call: &Call) -> bool {
    call.has_query("mandatory") && call.flag("mandatory")
}

/// A field that cannot be what it is.
pub(super) fn problem_of(bad: BadField) -> Problem {
    match bad.kind {
        BadKind::Wrong if bad.at.ends_with("/routing_key") => Problem::bad("bad_name", bad.text),
        BadKind::Wrong => Problem::bad("bad_message", bad.text),
        BadKind::TooLarge => Problem::too_large(bad.text),
        BadKind::NotAvailable => {
            Problem::refused(&Refusal::new(RefusalKind::NotAvailable, bad.text), "message")
        }
    }
    .at(bad.at)
}

/// A message whose properties are the headers of its request.
pub(super) fn outgoing_of_request(
    call: &Call,
    client: &Client,
    to: (&str, &str),
    properties: JsonProperties,
    body: MessageBody<'_>,
) -> Result<Outgoing, Problem> {
    outgoing(call, client, to, properties, body).map_err(|bad| of_request(problem_of(bad)))
}

/// The same problem of a message that stands in a request and in no object: its properties are
/// headers there.
fn of_request(problem: Problem) -> Problem {
    let at = match problem.place() {
        "/routing_key" => "routing_key".to_owned(),
        at => match at.strip_prefix("/properties/") {
            Some(property) => raw::header_of(property),
            None => return problem,
        },
    };
    problem.at(at)
}

/// The word for how a publish ended.
///
/// Errors: it was refused.
pub(super) fn outcome(
    told: &Published,
    client: &Client,
    object: &str,
) -> Result<&'static str, Problem> {
    match told {
        Published::Ended(PublishOutcome::Routed(Durability::Memory)) => Ok("routed"),
        Published::Ended(PublishOutcome::Routed(_)) => Ok("stored"),
        Published::Ended(PublishOutcome::Unrouted) => Ok("unrouted"),
        Published::Ended(PublishOutcome::Refused(RefusalKind::Full)) => match client.blocked() {
            Some(alarm) => Err(blocked(&alarm)),
            None => {
                let text = "a queue is full and refuses more";
                Err(Problem::refused(&Refusal::new(RefusalKind::Full, text), object))
            }
        },
        Published::Ended(PublishOutcome::Refused(kind)) => {
            let text = match kind {
                RefusalKind::StoreFailed => "the store did not say whether it has the message",
                _ => "the message was refused",
            };
            Err(Problem::refused(&Refusal::new(*kind, text), object))
        }
        Published::Refused(refusal) => Err(Problem::refused(refusal, object)),
    }
}

/// Publishes each event of a batch to the same place.
async fn event_batch(
    mut call: Call,
    client: &Client,
    to: (&str, &str),
) -> Result<Response<Body>, Problem> {
    if call.query("reply").is_some() {
        let text = "one message is answered, and this is a batch of events";
        return Err(Problem::bad("wrong_parameters", text).at("reply"));
    }
    call.expect_plain()?;
    let body = message_body(&mut call).await?;
    let parts = events::split(&body)?;
    check_count(parts.len())?;
    let mut all = Vec::with_capacity(parts.len());
    for (place, event) in parts.iter().enumerate() {
        let content_type = Some(events::STRUCTURED.to_owned());
        let properties = JsonProperties { content_type, ..JsonProperties::default() };
        let body = MessageBody::Slice(event.get().as_bytes());
        let made = outgoing(&call, client, to, properties, body);
        all.push(made.map_err(|bad| problem_of(beside(place, bad)))?);
    }
    publish_all(&call, client, all, Vec::new()).await
}

fn beside(place: usize, bad: BadField) -> BadField {
    BadField { at: format!("/{place}{}", bad.at), ..bad }
}

fn check_count(count: usize) -> Result<(), Problem> {
    if count <= BATCH_MAX {
        return Ok(());
    }
    let text = format!("there are {count} messages, {BATCH_MAX} are allowed");
    Err(Problem::bad("out_of_range", text).with("max", BATCH_MAX))
}

pub(super) async fn many(mut call: Call) -> Result<Response<Body>, Problem> {
    let client = call.client().await?;
    may_publish(&call, &client)?;
    let kind = call.content_type().unwrap_or_default();
    let is_lines = ["application/x-ndjson", "application/jsonl"].contains(&kind.as_str());
    if !is_lines {
        call.expect_content_type(&["application/json", "application/x-ndjson"])?;
    }
    call.expect_plain()?;
    let body = message_body(&mut call).await?;
    let messages: Vec<IncomingMessage> = match is_lines {
        false => json::read(&body)?,
        true => {
            let lines = body.split(|byte| *byte == b'\n');
            let lines = lines.filter(|line| !line.trim_ascii().is_empty());
            let read = |(place, line): (usize, &[u8])| {
                json::read(line).map_err(|problem: Problem| problem.below(&format!("/{place}")))
            };
            lines.enumerate().map(read).collect::<Result<_, _>>()?
        }
    };
    check_count(messages.len())?;
    let mut all = Vec::with_capacity(messages.len());
    let mut ids = Vec::with_capacity(messages.len());
    for (place, message) in messages.into_iter().enumerate() {
        let made = message.body().and_then(|body| {
            let named = message.exchange.as_deref().filter(|name| *name != "amq.default");
            let exchange = named.unwrap_or_default();
            if exchange.len() > polymq_model::names::NAME_BYTES_MAX {
                return Err(BadField::new("/exchange", "the name is too long"));
            }
            let to = (exchange, message.routing_key.as_deref().unwrap_or_default());
            ids.push(message.properties.message_id.clone());
            outgoing(&call, &client, to, message.properties, MessageBody::Shared(body.into()))
        });
        all.push(made.map_err(|bad| problem_of(beside(place, bad)))?);
    }
    publish_all(&call, &client, all, ids).await
}

/// Publishes messages and tells how each ended.
async fn publish_all(
    call: &Call,
    client: &Client,
    all: Vec<Outgoing>,
    ids: Vec<Option<String>>,
) -> Result<Response<Body>, Problem> {
    let is_atomic = call.has_query("atomic") && call.flag("atomic");
    let told = if is_atomic {
        let published = client.publish_together(all).await;
        published.map_err(|refusal| Problem::refused(&refusal, "exchange"))?
    } else {
        let confirms = client.publish(all).await;
        if Confirm::of(call) == Confirm::None {
            return Ok(status(StatusCode::ACCEPTED));
        }
        confirms.all().await
    };
    let mut ids = ids.into_iter();
    let is_mandatory = call_is_mandatory(call);
    let results: Vec<_> = told
        .iter()
        .map(|one| {
            let id = ids.next().flatten();
            let ended = match outcome(&one.outcome, client, "exchange") {
                Ok("unrouted") if is_mandatory => Err(unroutable("no queue takes the message")),
                ended => ended,
            };
            ended.map_or_else(
                |no| json!({ "outcome": "refused", "routed": false, "error": no.to_json() }),
                |word| self::told(word, one.place, id),
            )
        })
        .collect();
    Ok(json_answer(json!({ "results": results }).to_string()))
}
