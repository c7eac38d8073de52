//! Subscribing by server-sent events.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use parking_lot::Mutex;
use polymq_contract::{Answer as Told, BindQueue, Command, Consume, DeclareQueue};
use polymq_model::{Table, UserName, Value, topic::valid_key};

use super::{receive::style, streams::OF_MESSAGES};
use crate::{
    api::{Answer, Kind, Media, Method, Operation, Parameter},
    call::Call,
    client::Client,
    feed::{EventId, Feed},
    origin::Origin,
    problem::Problem,
};

/// Messages that a subscription keeps for a reader that is slow or away; older ones go first.
const WINDOW: u64 = 1000;
/// The same in bytes.
const WINDOW_BYTES: i64 = 16 * 1024 * 1024;
/// Messages on their way to one reader.
const PREFETCH: u32 = 64;
/// Longest time that a subscription is kept without a reader.
const KEEP_MAX: Duration = Duration::from_secs(24 * 3600);
const KEEP_USUAL: Duration = Duration::from_secs(5 * 60);
/// Longest name of a subscription.
const NAME_BYTES_MAX: usize = 100;
const LAST_EVENT_ID: &str = "last-event-id";

/// Subscribes.
pub(super) static SUBSCRIBE: Operation = Operation {
    method: Method::Get,
    path: "/vhosts/{vhost}/subscribe",
    id: "subscribe",
    tag: "messages",
    summary: "Receive messages as server-sent events",
    permission: "read on the queue; for a pattern read on the exchange, and configure, write and \
                 read on the subscription's queue",
    query: &[
        Parameter { name: "queue", kind: Kind::Text, about: "A queue; needs `ack=auto`." },
        Parameter {
            name: "ack",
            kind: Kind::Word(&["auto"]),
            about: "Messages are acknowledged when the socket has taken them.",
        },
        Parameter { name: "exchange", kind: Kind::Text, about: "An exchange; needs `pattern`." },
        Parameter {
            name: "pattern",
            kind: Kind::Text,
            about: "Binding key in dot form, with `*` and `#` for topic exchanges; may be empty.",
        },
        Parameter {
            name: "name",
            kind: Kind::Text,
            about: "Keeps the subscription of an exchange under this name when the reader is \
                    gone, so that it can go on behind `Last-Event-ID`.",
        },
        Parameter {
            name: "keep",
            kind: Kind::Time,
            about: "How long it is kept without a reader, at most 24h; usual: 5m.",
        },
        Parameter {
            name: "types",
            kind: Kind::Word(&["plain"]),
            about: "`plain` leaves the types of headers out.",
        },
    ],
    headers: &[Parameter {
        name: "Last-Event-ID",
        kind: Kind::Text,
        about: "The id of the last event that was received; of a subscription with a name.",
    }],
    body: &[],
    answers: &[Answer {
        status: 200,
        about: "Events `message` with a message object each; `gap` says how many were lost; \
                `cancelled` comes last when the queue is gone or may not be read any more, \
                otherwise `closing`.",
        media: &[Media::bytes("text/event-stream")],
    }],
};

/// The readers of subscriptions with names: a new one takes the place of the old one.
#[derive(Default)]
pub(crate) struct Readers(Mutex<HashMap<ReaderKey, Weak<Client>>>);

/// User, virtual host and queue.
type ReaderKey = (UserName, String, String);

impl Readers {
    /// Notes the reader, and parts the one before from the broker.
    fn enter(&self, key: ReaderKey, client: &Arc<Client>) {
        let mut readers = self.0.lock();
        readers.retain(|_, reader| reader.strong_count() > 0);
        let before = readers.insert(key, Arc::downgrade(client));
        drop(readers);
        if let Some(before) = before.and_then(|before| before.upgrade()) {
            before.end("another reader has taken the subscription");
        }
    }
}

/// What is read.
enum Source {
    Queue(String),
    Pattern { exchange: String, pattern: String, kept: Option<Kept> },
}

struct Kept {
    name: String,
    time: Duration,
}

pub(super) async fn subscribe(call: Call) -> Result<Response<Body>, Problem> {
    call.require_login()?;
    let source = source(&call)?;
    let last_seen = match call.headers.get(LAST_EVENT_ID) {
        None => None,
        Some(id) => Some(event_id(id)?),
    };
    // Of its own, so that nobody else's events wait behind those of a slow reader.
    let takes = matches!(source, Source::Queue(_));
    let client = Arc::new(call.own_client(takes).await?);
    let place = OF_MESSAGES.enter(client.user())?;
    let (queue, window, prefetch) = match &source {
        Source::Queue(queue) => (queue.clone(), 0, PREFETCH),
        Source::Pattern { exchange, pattern, kept } => {
            let queue = declare(&client, kept.as_ref()).await?;
            if kept.is_some() {
                let key = (client.user().clone(), call.vhost().to_owned(), queue.clone());
                call.site.readers.enter(key, &client);
            }
            bind(&client, &queue, exchange, pattern).await?;
            let window = if kept.is_some() { WINDOW } else { 0 };
            (queue, window, PREFETCH + u32::try_from(window).unwrap_or(0))
        }
    };
    let deliveries = client
        .consume(|request, consumer| Consume {
            request,
            consumer,
            queue: queue.clone(),
            no_ack: false,
            exclusive: false,
            prefetch,
            group: 0,
            tag: format!("http subscription of {}", client.user()),
            // A reader that takes nothing is bounded by its prefetch.
            arguments: vec![("x-consumer-timeout".to_owned(), Value::I64(0))],
        })
        .await
        .map_err(|refusal| Problem::refused(&refusal, "queue"))?;
    let last_seen = last_seen.filter(|_| window > 0);
    let busy = call.socket.activity.busy();
    let site = Arc::clone(&call.site);
    let feed = Feed::new((site, deliveries), style(&call), (window, last_seen), (busy, place));
    let mut response = Response::new(Body::new(feed));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

fn event_id(value: &HeaderValue) -> Result<EventId, Problem> {
    let id = value.to_str().ok().and_then(EventId::parse);
    id.ok_or_else(|| Problem::bad("bad_header", "it is no id of an event").at("Last-Event-ID"))
}

fn source(call: &Call) -> Result<Source, Problem> {
    let bad = |text: &str, at: &str| Err(Problem::bad("wrong_parameters", text).at(at));
    match (call.query("queue"), call.query("exchange"), call.query("pattern")) {
        (Some(queue), None, None) => {
            if call.query("ack").is_none() {
                return bad("messages of a queue are acknowledged: say `ack=auto`", "ack");
            }
            if call.query("name").is_some() {
                return bad("a queue keeps its messages itself", "name");
            }
            // A page of another host must not take messages away.
            if call.origin == Origin::Foreign {
                let text = "a page of another origin asks; list it in http.cors_origins if it may";
                let problem = Problem::new(StatusCode::FORBIDDEN, "origin_denied", text);
                return Err(problem.at("Origin"));
            }
            Ok(Source::Queue(queue.to_owned()))
        }
        (None, Some(_), None) => bad("an exchange needs `pattern`, which may be empty", "pattern"),
        (None, Some(exchange), Some(pattern)) => {
            if let Err(error) = valid_key(pattern, &call.site.limits()) {
                return Err(Problem::bad("bad_name", error.to_string()).at("pattern"));
            }
            let exchange = if exchange == "amq.default" { "" } else { exchange }.to_owned();
            Ok(Source::Pattern { exchange, pattern: pattern.to_owned(), kept: kept(call)? })
        }
        _ => bad("say either `queue` or `exchange` and `pattern`", "queue"),
    }
}

fn kept(call: &Call) -> Result<Option<Kept>, Problem> {
    let Some(name) = call.query("name") else {
        return match call.query("keep") {
            None => Ok(None),
            Some(_) => {
                let text = "only a subscription with a name is kept";
                Err(Problem::bad("wrong_parameters", text).at("keep"))
            }
        };
    };
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        let text = format!("a name has 1 to {NAME_BYTES_MAX} bytes");
        return Err(Problem::bad("bad_name", text).at("name"));
    }
    let time = call.time("keep").unwrap_or(KEEP_USUAL);
    if time.is_zero() || time > KEEP_MAX {
        let text = "a subscription is kept for more than 0s and at most 24h";
        return Err(Problem::bad("out_of_range", text).at("keep"));
    }
    Ok(Some(Kept { name: name.to_owned(), time }))
}

/// Makes the queue of a subscription, or finds it.
async fn declare(client: &Client, kept: Option<&Kept>) -> Result<String, Problem> {
    let length = i64::try_from(WINDOW).unwrap_or(i64::MAX);
    let mut arguments: Table = vec![
        ("x-max-length".to_owned(), Value::I64(length)),
        ("x-max-length-bytes".to_owned(), Value::I64(WINDOW_BYTES)),
        ("x-overflow".to_owned(), Value::String("drop-head".to_owned())),
    ];
    let mut queue = String::new();
    if let Some(Kept { name, time }) = kept {
        let ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        arguments.push(("x-expires".to_owned(), Value::I64(ms)));
        queue = format!("http-subscription-{}-{name}", client.user());
    }
    let exclusive = kept.is_none();
    let declare = |request| {
        let (passive, durable, auto_delete) = (false, false, false);
        let declare =
            DeclareQueue { request, queue, passive, durable, exclusive, auto_delete, arguments };
        Command::DeclareQueue(Box::new(declare))
    };
    match client.ask(declare).await {
        Ok(Told::QueueDeclared { queue, .. }) => Ok(queue.as_str().to_owned()),
        Ok(_) => Ok(String::new()),
        Err(refusal) => Err(Problem::refused(&refusal, "queue")),
    }
}

async fn bind(client: &Client, queue: &str, exchange: &str, key: &str) -> Result<(), Problem> {
    let bind = |request| {
        let (queue, exchange, key) = (queue.to_owned(), exchange.to_owned(), key.to_owned());
        let arguments = Table::new();
        Command::BindQueue(Box::new(BindQueue { request, queue, exchange, key, arguments }))
    };
    let bound = client.ask(bind).await;
    bound.map(|_| ()).map_err(|refusal| Problem::refused(&refusal, "exchange"))
}
