//! Receiving with leases, and settling with receipts.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Response, StatusCode, header},
};
use polymq_contract::{Consume, Delivery, DeliveryRange, Note, Outcome, Settlement};
use polymq_model::{
    QueueName, Value as HeaderValueOf,
    json_form::{Shown, Style},
};
use serde_json::json;

use super::{
    documents::{Messages, Receipts, ReceiptsResult},
    publish::json_answer,
};
use crate::{
    api::{Answer, Kind, Media, Method, Operation, Parameter},
    call::{self, Call},
    client::Next,
    clock, events,
    leases::{Bearer, Holder, LEASES_MAX, Settled},
    problem::Problem,
    raw,
    schema::{Schema, record},
};

/// Messages of one call.
const MESSAGES_MAX: usize = 1000;
/// Bytes of their bodies; what would go beyond stays in the queue.
const BYTES_MAX: usize = 8 * 1024 * 1024;
const WAIT_MAX: Duration = Duration::from_secs(60);
/// What is on the disk alone has to be read before it can come.
const WAIT_MIN: Duration = Duration::from_millis(50);
const LEASE_DEFAULT: Duration = Duration::from_secs(30);
const LEASE_MIN: Duration = Duration::from_secs(1);
const LEASE_MAX: Duration = Duration::from_secs(12 * 3600);
const RECEIPT: HeaderName = HeaderName::from_static("polymq-receipt");

record! {
    /// What is to be received.
    Receive {
        /// Messages at most, 1 to 1,000; usual: 1.
        max: Option<usize>,
        /// How long to wait for the first, such as `20s`; at most `60s`, usual: not at all.
        wait: Option<String>,
        /// How long the messages are leased, `1s` to `12h`; usual: `30s`.
        lease: Option<String>,
    }
}

record! {
    /// Which leases are to be longer.
    Extend {
        /// Receipts of the messages.
        receipts: Vec<String>,
        /// From now on, `1s` to `12h`; usual: `30s`.
        lease: Option<String>,
    }
}

record! {
    /// What was not done.
    Nack {
        /// Receipts of the messages.
        receipts: Vec<String>,
        /// Back to the queue; otherwise dead-lettered or dropped. Usual: true.
        requeue: Option<bool>,
        /// Not before this time, such as `5m`.
        delay: Option<String>,
        /// Why, for the dead-letter record.
        reason: Option<String>,
    }
}

const TYPES: Parameter = Parameter {
    name: "types",
    kind: Kind::Word(&["plain"]),
    about: "`plain` leaves the types of headers out.",
};

/// Receives.
pub(super) static RECEIVE: Operation = Operation {
    method: Method::Post,
    path: "/vhosts/{vhost}/queues/{queue}/messages:receive",
    id: "receiveMessages",
    tag: "messages",
    summary: "Lease messages of a queue",
    permission: "read on the queue",
    query: &[TYPES],
    headers: &[Parameter {
        name: "Accept",
        kind: Kind::Text,
        about: "With `max` 1, `application/octet-stream` answers with the body itself, and \
                `application/cloudevents+json` with the event; the receipt is in `Polymq-Receipt`.",
    }],
    body: &[Media::json(Receive::schema)],
    answers: &[
        Answer {
            status: 200,
            about: "Messages, each with the receipt that settles it.",
            media: &[
                Media::json(Messages::schema),
                Media::bytes("application/octet-stream"),
                Media::bytes(events::STRUCTURED),
            ],
        },
        Answer { status: 204, about: "There was none.", media: &[] },
    ],
};

const SETTLED: &[Answer] = &[Answer {
    status: 200,
    about: "What came of each receipt, in order.",
    media: &[Media::json(ReceiptsResult::schema)],
}];

/// Acknowledges.
pub(super) static ACK: Operation = Operation {
    method: Method::Post,
    path: "/vhosts/{vhost}/queues/{queue}/leases:ack",
    id: "ackLeases",
    tag: "messages",
    summary: "Acknowledge leased messages",
    permission: "the receipts",
    query: &[Parameter {
        name: "confirm",
        kind: Kind::Word(&["stored"]),
        about: "`stored` answers once the store has it.",
    }],
    headers: &[],
    body: &[Media::json(Receipts::schema)],
    answers: SETTLED,
};

/// Gives back.
pub(super) static NACK: Operation = Operation {
    method: Method::Post,
    path: "/vhosts/{vhost}/queues/{queue}/leases:nack",
    id: "nackLeases",
    tag: "messages",
    summary: "Give leased messages back, or reject them",
    permission: "the receipts",
    query: &[],
    headers: &[],
    body: &[Media::json(Nack::schema)],
    answers: SETTLED,
};

/// Makes leases longer.
pub(super) static EXTEND: Operation = Operation {
    method: Method::Post,
    path: "/vhosts/{vhost}/queues/{queue}/leases:extend",
    id: "extendLeases",
    tag: "messages",
    summary: "Make leases longer",
    permission: "the receipts",
    query: &[],
    headers: &[],
    body: &[Media::json(Extend::schema)],
    answers: SETTLED,
};

/// Acknowledges one.
pub(super) static DELETE: Operation = Operation {
    method: Method::Delete,
    path: "/vhosts/{vhost}/queues/{queue}/leases/{receipt}",
    id: "ackLease",
    tag: "messages",
    summary: "Acknowledge a leased message",
    permission: "the receipt",
    query: &[],
    headers: &[],
    body: &[],
    answers: &[Answer { status: 204, about: "It is acknowledged.", media: &[] }],
};

/// A call whose values are in their ranges.
struct Asked {
    max: usize,
    wait: Duration,
    lease: Duration,
}

impl Receive {
    fn check(&self) -> Result<Asked, Problem> {
        let max = self.max.unwrap_or(1);
        if !(1..=MESSAGES_MAX).contains(&max) {
            let text = format!("{max} messages; 1 to {MESSAGES_MAX} are allowed");
            return Err(Problem::bad("out_of_range", text).at("/max"));
        }
        let wait = time(self.wait.as_deref(), "/wait", Duration::ZERO)?;
        if wait > WAIT_MAX {
            return Err(Problem::bad("out_of_range", "60s is the longest wait").at("/wait"));
        }
        Ok(Asked { max, wait: wait.max(WAIT_MIN), lease: lease_time(self.lease.as_deref())? })
    }
}

fn lease_time(text: Option<&str>) -> Result<Duration, Problem> {
    let lease = time(text, "/lease", LEASE_DEFAULT)?;
    if (LEASE_MIN..=LEASE_MAX).contains(&lease) {
        return Ok(lease);
    }
    Err(Problem::bad("out_of_range", "a lease is 1s to 12h long").at("/lease"))
}

fn time(text: Option<&str>, at: &str, usual: Duration) -> Result<Duration, Problem> {
    let Some(text) = text else { return Ok(usual) };
    call::parse_time(text).ok_or_else(|| {
        let text = format!("`{text}` is no time with its unit (ms, s, m, h, d), such as 30s");
        Problem::bad("wrong_type", text).at(at)
    })
}

pub(super) async fn receive(mut call: Call) -> Result<Response<Body>, Problem> {
    let queue = call.queue()?;
    // Whoever holds the leases is another client: this one shows that the login is right.
    let user = call.client().await?.user().clone();
    let asked = call.json::<Receive>().await?.check()?;
    let vhost = call.vhost().to_owned();
    let leases = Arc::clone(&call.site.leases);
    let holder = leases.holder(&call.site, &call.socket, &call.shown()?, &vhost).await?;
    let bearer = Bearer { user: user.as_str(), vhost: &vhost, queue: queue.as_str() };
    let max = asked.max.min(leases.room(bearer)?);
    if max == 0 {
        let text = format!("{LEASES_MAX} messages of this queue are leased to you already");
        let status = StatusCode::TOO_MANY_REQUESTS;
        return Err(Problem::new(status, "too_many_leases", text).retry());
    }
    let arrived = take(&holder, &queue, user.as_str(), max, asked.wait).await?;
    let arrived = within_bytes(&holder, arrived);
    let mut leased = Vec::with_capacity(arrived.len());
    for delivery in arrived {
        leased.push((leases.lease(&holder, bearer, &delivery, asked.lease)?, delivery));
    }
    Ok(answer(&call, asked.max, &leased))
}

/// Waits for messages, and takes those that are there then.
async fn take(
    holder: &Holder,
    queue: &QueueName,
    user: &str,
    max: usize,
    wait: Duration,
) -> Result<Vec<Delivery>, Problem> {
    let consume = holder.client.consume(|request, consumer| Consume {
        request,
        consumer,
        queue: queue.as_str().to_owned(),
        no_ack: false,
        exclusive: false,
        prefetch: u32::try_from(max).unwrap_or(u32::MAX),
        // Each consumer has a bound of its own.
        group: consumer.0,
        tag: format!("http lease of {user}"),
        // The lease is what bounds the time.
        arguments: vec![("x-consumer-timeout".to_owned(), HeaderValueOf::I64(0))],
    });
    let mut deliveries = consume.await.map_err(|refusal| Problem::refused(&refusal, "queue"))?;
    let first = match deliveries.next_within(wait).await {
        Some(Next::Delivery(first)) => *first,
        None => return Ok(deliveries.finish()),
        Some(Next::Cancelled(_)) => {
            let text = "the queue was deleted";
            return Err(Problem::new(StatusCode::NOT_FOUND, "queue_not_found", text));
        }
        Some(Next::Ended(_)) => {
            let text = "the server stops";
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return Err(Problem::new(status, "draining", text).retry());
        }
    };
    let mut all = vec![first];
    all.append(&mut deliveries.finish());
    Ok(all)
}

/// Gives back what is too much for one answer; one message is never too much.
fn within_bytes(holder: &Holder, mut arrived: Vec<Delivery>) -> Vec<Delivery> {
    let mut bytes = 0_usize;
    let fits = arrived.iter().enumerate().take_while(|(place, delivery)| {
        bytes = bytes.saturating_add(delivery.message.size());
        *place == 0 || bytes <= BYTES_MAX
    });
    let count = fits.count();
    let rest = arrived.split_off(count);
    holder.client.settle(rest.into_iter().map(|delivery| {
        let range = DeliveryRange { first: delivery.number, last: delivery.number };
        Settlement::new(delivery.consumer, range, Outcome::Returned)
    }));
    arrived
}

fn answer(call: &Call, max: usize, leased: &[(String, Delivery)]) -> Response<Body> {
    let now_ms = clock::now().unix_ms;
    let accept = call.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    leased.iter().for_each(|(_, delivery)| call.site.note_shown(&delivery.message));
    let wants = |kind: &str| accept.is_some_and(|accept| accept.contains(kind));
    if let ([(receipt, delivery)], 1) = (leased, max)
        && (wants("application/octet-stream") || wants(events::STRUCTURED))
    {
        let event = wants(events::STRUCTURED).then(|| events::wrapped(&delivery.message)).flatten();
        let mut response = match event {
            Some(event) => {
                let mut response = Response::new(Body::from(event));
                let kind = HeaderValue::from_static(events::STRUCTURED);
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                response
            }
            None => raw::response(&call.site, &delivery.message, now_ms),
        };
        if let Ok(receipt) = HeaderValue::from_str(receipt) {
            response.headers_mut().insert(RECEIPT, receipt);
        }
        return response;
    }
    if leased.is_empty() {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return response;
    }
    let style = style(call);
    let mut body = String::from(r#"{"messages":["#);
    for (place, (receipt, delivery)) in leased.iter().enumerate() {
        let mut shown = shown(delivery, now_ms, style);
        shown.receipt = Some(receipt.clone());
        body.push_str(if place > 0 { "," } else { "" });
        body.push_str(&shown.to_json());
    }
    body.push_str("]}");
    json_answer(body)
}

/// How the types of headers are told.
pub(super) fn style(call: &Call) -> Style {
    match call.query("types") {
        Some(_) => Style::Plain,
        None => Style::Bare,
    }
}

/// A delivery as a message object.
pub(super) fn shown(delivery: &Delivery, now_ms: u64, style: Style) -> Shown<'_> {
    let mut shown = Shown::new(&delivery.message, now_ms, style);
    shown.seq = Some(delivery.seq.0);
    shown.redelivered = delivery.redelivered;
    shown.delivery_count = delivery.failed;
    shown.acquired_count = delivery.acquired;
    shown
}

pub(super) async fn ack(mut call: Call) -> Result<Response<Body>, Problem> {
    let is_stored = call.query("confirm").is_some();
    // Nobody without a login is told anything about a body.
    call.client().await?;
    let Receipts { receipts } = call.json().await?;
    let (told, settlements) = settle(&call, &receipts, Outcome::Accepted, None).await?;
    match is_stored {
        true => settlements.send_and_store().await?,
        false => settlements.send(),
    }
    Ok(results(&told))
}

pub(super) async fn nack(mut call: Call) -> Result<Response<Body>, Problem> {
    call.client().await?;
    let Nack { receipts, requeue, delay, reason } = call.json().await?;
    let delay = match &delay {
        Some(text) => Some(time(Some(text), "/delay", Duration::ZERO)?),
        None => None,
    };
    let retry_after_ms = delay.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
    let outcome = match requeue {
        Some(false) if delay.is_some() => {
            let text = "what does not go back to the queue cannot be delayed";
            return Err(Problem::bad("out_of_range", text).at("/delay"));
        }
        Some(false) => Outcome::Rejected,
        Some(true) | None => Outcome::Failed,
    };
    let note = Note { retry_after_ms, reason };
    let note = Some(&note).filter(|note| **note != Note::default());
    let (told, settlements) = settle(&call, &receipts, outcome, note).await?;
    settlements.send();
    Ok(results(&told))
}

pub(super) async fn extend(mut call: Call) -> Result<Response<Body>, Problem> {
    let queue = call.queue()?;
    let user = call.client().await?.user().clone();
    let Extend { receipts, lease } = call.json().await?;
    let lease = lease_time(lease.as_deref())?;
    let bearer = Bearer { user: user.as_str(), vhost: call.vhost(), queue: queue.as_str() };
    Ok(results(&call.site.leases.extend(&receipts, bearer, lease)))
}

pub(super) async fn delete(call: Call) -> Result<Response<Body>, Problem> {
    let receipts = [call.path("receipt").to_owned()];
    let (told, settlements) = settle(&call, &receipts, Outcome::Accepted, None).await?;
    settlements.send();
    match told.first() {
        Some(Settled::Ok) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok(response)
        }
        Some(Settled::Expired) => {
            let text = "the lease has ended, or the message was settled before";
            Err(Problem::new(StatusCode::GONE, "receipt_expired", text))
        }
        Some(Settled::Unknown) | None => {
            let text = "it is no receipt of yours for this queue";
            Err(Problem::new(StatusCode::NOT_FOUND, "receipt_not_found", text))
        }
    }
}

async fn settle(
    call: &Call,
    receipts: &[String],
    outcome: Outcome,
    note: Option<&Note>,
) -> Result<(Vec<Settled>, crate::leases::Settlements), Problem> {
    let queue = call.queue()?;
    let user = call.client().await?.user().clone();
    let bearer = Bearer { user: user.as_str(), vhost: call.vhost(), queue: queue.as_str() };
    Ok(call.site.leases.settle(receipts, bearer, outcome, note))
}

fn results(told: &[Settled]) -> Response<Body> {
    let results: Vec<_> = told.iter().map(|one| json!({ "outcome": one.as_str() })).collect();
    json_answer(json!({ "results": results }).to_string())
}
