//! Looking at messages of a queue without taking them, and searching them.

use std::time::Duration;

use axum::{
    Json,
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use polymq_broker::{Browse, BrowseFrom, Browsed};
use polymq_filter::Filter;
use polymq_model::carry::rfc3339_to_ms;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    caller::{Caller, vhost_of},
    list::{AFTER, FILTER, LIMIT, filter, limit},
    problems::bad_filter,
    route::{ROUTE, object},
    shown::{Payload, browsed, native},
    stream,
};
use crate::{
    api::{Answer, Api, Kind, Media, Method, Operation, Parameter},
    call::Call,
    clock,
    problem::Problem,
    schema::record,
};

/// Messages that one call looks at, at most.
const SCAN_MAX: u64 = 100_000;
/// Bytes of payloads in one answer, at most; a page ends before it has more.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

const FROM: Parameter = Parameter {
    name: "from",
    kind: Kind::Text,
    about: "Where to begin: `head`, `tail`, `seq:<position>` or `time:<RFC 3339>`",
};
const PAYLOAD: Parameter = Parameter {
    name: "payload",
    kind: Kind::Word(Payload::WORDS),
    about: "How much of the payloads: none, the first 4 KiB, or all",
};
const TYPES: Parameter = Parameter {
    name: "types",
    kind: Kind::Word(&["plain"]),
    about: "`plain` leaves the types of headers out",
};
const UNACKED: Parameter = Parameter {
    name: "unacked",
    kind: Kind::Flag,
    about: "`false` leaves out what consumers hold",
};
const PAGE: &[Answer] = &[Answer { status: 200, about: "Messages", media: &[Media::json(object)] }];

static LIST: Operation = Operation {
    path: "/vhosts/{vhost}/queues/{queue}/messages",
    id: "browseMessages",
    tag: "messages",
    summary: "Look at messages; nothing about them changes",
    permission: "read on the queue",
    query: &[FROM, LIMIT, AFTER, FILTER, PAYLOAD, TYPES, UNACKED],
    answers: PAGE,
    ..ROUTE
};
static ONE: Operation = Operation {
    path: "/vhosts/{vhost}/queues/{queue}/messages/{seq}",
    id: "showMessage",
    tag: "messages",
    summary: "Look at one message with everything that is known about it",
    permission: "read on the queue",
    query: &[PAYLOAD, TYPES],
    ..ROUTE
};
static RAW: Operation = Operation {
    path: "/vhosts/{vhost}/queues/{queue}/messages/{seq}/payload",
    id: "downloadPayload",
    tag: "messages",
    summary: "The payload of one message, byte for byte",
    permission: "read on the queue",
    answers: &[Answer {
        status: 200,
        about: "The payload",
        media: &[Media::bytes("application/octet-stream")],
    }],
    ..ROUTE
};
static SEARCH: Operation = Operation {
    method: Method::Post,
    path: "/vhosts/{vhost}/queues/{queue}/messages:search",
    id: "searchMessages",
    tag: "messages",
    summary: "Search messages; hits stream in as lines of JSON",
    permission: "read on the queue",
    body: &[Media::json(<Search as crate::schema::Schema>::schema)],
    answers: &[Answer {
        status: 200,
        about: "Lines with `hit`, `progress` and `end`",
        media: &[Media::bytes("application/x-ndjson")],
    }],
    ..ROUTE
};

record! {
    /// What to search for.
    Search {
        /// A condition on fields, headers and the JSON body.
        filter: String,
        /// Where to begin: `head` or `time:` and a time.
        from: Option<String>,
        /// The most hits: 1,000 unless it is said.
        hits_max: Option<u64>,
        /// The most messages to look at: 1,000,000 unless it is said.
        scan_max: Option<u64>,
        /// The longest time, as `30s`.
        time_max: Option<String>,
        /// How much of payloads is shown.
        payload: Option<String>,
    }
}

pub(super) fn routes(api: Api) -> Api {
    api.route(&LIST, list).route(&ONE, one).route(&RAW, raw).route(&SEARCH, search)
}

/// Reads where to begin.
///
/// Errors: it is none of the forms.
fn start(text: Option<&str>) -> Result<BrowseFrom, Problem> {
    let bad = || {
        let text = "`from` is head, tail, seq:<position> or time:<RFC 3339>";
        Problem::bad("wrong_type", text).at("from")
    };
    match text {
        None | Some("head" | "") => Ok(BrowseFrom::Head),
        Some("tail") => Ok(BrowseFrom::Tail),
        Some(other) => match other.split_once(':') {
            Some(("seq", seq)) => seq.parse().map(BrowseFrom::Seq).map_err(|_| bad()),
            Some(("time", time)) => {
                let ms = rfc3339_to_ms(time).and_then(|ms| u64::try_from(ms).ok());
                ms.map(BrowseFrom::Time).ok_or_else(bad)
            }
            _ => Err(bad()),
        },
    }
}

/// A position in the path or as a cursor.
fn position(text: &str, at: &str) -> Result<u64, Problem> {
    let bad = |_| Problem::bad("bad_cursor", format!("`{text}` is no position")).at(at);
    text.parse().map_err(bad)
}

async fn list(call: Call) -> Result<Response, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    let (vhost, queue) = (vhost_of(&call)?, call.queue()?);
    let browse = Browse {
        from: start(call.query("from"))?,
        after: call.query("after").map(|after| position(after, "after")).transpose()?,
        filter: filter(&call)?,
        limit: limit(&call)?,
        scan_max: SCAN_MAX,
        unacked: call.query("unacked") != Some("false"),
    };
    let payload = Payload::parse(call.query("payload"));
    let now = clock::now();
    let is_tail = browse.from == BrowseFrom::Tail;
    let found = caller
        .blocking("queue", move |broker, who| {
            broker.browse(who, &vhost, queue.as_str(), &browse, now)
        })
        .await?;
    let mut page = page(found, payload, is_tail);
    for item in page["items"].as_array_mut().into_iter().flatten() {
        drop_types(&call, item);
    }
    Ok(Json(page).into_response())
}

/// Leaves the types of headers out, where only plain JSON is wanted.
fn drop_types(call: &Call, message: &mut Value) {
    if call.query("types").is_some()
        && let Some(properties) = message["properties"].as_object_mut()
    {
        properties.remove("header_types");
    }
}

fn page(found: Browsed, payload: Payload, is_tail: bool) -> Value {
    let (mut items, mut bytes, mut next) = (Vec::new(), 0, found.next);
    for (at, message) in found.messages.iter().enumerate() {
        let weight = if payload == Payload::Full { message.message.body().len() } else { 0 };
        bytes += weight;
        // A page from the tail cannot end early: its end is what was asked for.
        if at > 0 && bytes > PAGE_BYTES_MAX && !is_tail {
            next = found.messages.get(at - 1).map(|last| last.seq);
            break;
        }
        let shown = if bytes > PAGE_BYTES_MAX { Payload::Head } else { payload };
        items.push(browsed(message, shown));
    }
    json!({
        "items": items,
        "next": next.map(|seq| seq.to_string()),
        "scanned": found.scanned,
        "unreadable": found.unreadable,
    })
}

async fn one(call: Call) -> Result<Response, Problem> {
    let found = find(&call).await?;
    let mut shown = browsed(
        &found,
        match call.query("payload") {
            None => Payload::Full,
            word => Payload::parse(word),
        },
    );
    drop_types(&call, &mut shown);
    shown["native"] = native(&found.message);
    Ok(Json(shown).into_response())
}

async fn find(call: &Call) -> Result<polymq_broker::BrowsedMessage, Problem> {
    let caller = Caller::in_vhost(call).await?;
    let (vhost, queue) = (vhost_of(call)?, call.queue()?);
    let (seq, now) = (position(call.path("seq"), "seq")?, clock::now());
    caller
        .blocking("message", move |broker, who| {
            broker.browse_one(who, &vhost, queue.as_str(), seq, now)
        })
        .await
}

async fn raw(call: Call) -> Result<Response, Problem> {
    let found = find(&call).await?;
    let name = format!("attachment; filename=\"message-{}\"", found.seq);
    let attachment =
        HeaderValue::from_str(&name).unwrap_or_else(|_| HeaderValue::from_static("attachment"));
    // Whatever the payload is, a browser must not run it.
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::CONTENT_DISPOSITION, attachment),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    let body = match found.message.large_body() {
        Some(body) => body.clone(),
        None => bytes::Bytes::copy_from_slice(found.message.body()),
    };
    Ok((headers, Body::from(body)).into_response())
}

/// Messages that one round of a search looks at.
const ROUND: u64 = 5_000;
/// The longest search.
const TIME_MAX: Duration = Duration::from_secs(600);

async fn search(mut call: Call) -> Result<Response, Problem> {
    let caller = Caller::in_vhost(&call).await?;
    let (vhost, queue) = (vhost_of(&call)?, call.queue()?);
    let wanted: Search = call.json().await?;
    let filter = Filter::parse(&wanted.filter).map_err(|bad| bad_filter(&bad).at("/filter"))?;
    let time_max = match &wanted.time_max {
        None => Duration::from_secs(30),
        Some(text) => crate::call::parse_time(text).ok_or_else(|| {
            Problem::bad("wrong_type", "`time_max` is a time such as 30s").at("/time_max")
        })?,
    };
    let browse = Browse {
        from: start(wanted.from.as_deref())?,
        after: None,
        filter: Some(filter),
        limit: 1,
        scan_max: ROUND,
        unacked: true,
    };
    if browse.from == BrowseFrom::Tail {
        let text = "a search begins at head, seq: or time:";
        return Err(Problem::bad("wrong_type", text).at("/from"));
    }
    // A queue that is not there, or not to be read, is told before the stream begins.
    let probe = Browse { scan_max: 1, ..browse.clone() };
    let (at, name) = (vhost.clone(), queue.clone());
    caller
        .blocking("queue", move |broker, who| {
            broker.browse(who, &at, name.as_str(), &probe, clock::now())
        })
        .await?;
    let mut searching = Searching {
        hits_left: wanted.hits_max.unwrap_or(1000).min(100_000),
        scan_left: wanted.scan_max.unwrap_or(1_000_000),
        scanned: 0,
        until: Instant::now() + time_max.min(TIME_MAX),
        payload: Payload::parse(wanted.payload.as_deref()),
        browse,
        caller,
        vhost,
        queue,
        is_over: false,
    };
    let (writer, body) = stream::body();
    tokio::spawn(async move {
        while let Some(lines) = searching.round().await
            && writer.write(lines).await
        {}
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// A search under way; it ends when its client goes away, because nobody asks for more.
struct Searching {
    caller: Caller,
    vhost: polymq_model::VhostName,
    queue: polymq_model::QueueName,
    browse: Browse,
    payload: Payload,
    hits_left: u64,
    scan_left: u64,
    scanned: u64,
    until: Instant,
    is_over: bool,
}

impl Searching {
    /// The lines of the next round; `None` when it is over.
    async fn round(&mut self) -> Option<String> {
        if self.is_over {
            return None;
        }
        self.browse.limit = usize::try_from(self.hits_left.clamp(1, 100)).unwrap_or(100);
        self.browse.scan_max = self.scan_left.min(ROUND);
        let (vhost, queue, browse) = (self.vhost.clone(), self.queue.clone(), self.browse.clone());
        let looked = self.caller.blocking("queue", move |broker, who| {
            broker.browse(who, &vhost, queue.as_str(), &browse, clock::now())
        });
        let found = match looked.await {
            Ok(found) => found,
            Err(problem) => {
                self.is_over = true;
                return Some(format!("{}\n", json!({ "end": problem.code() })));
            }
        };
        self.scanned += found.scanned;
        self.scan_left = self.scan_left.saturating_sub(found.scanned);
        self.hits_left = self.hits_left.saturating_sub(found.messages.len() as u64);
        self.browse.after = found.next;
        let mut lines = String::new();
        for hit in &found.messages {
            lines.push_str(&json!({ "hit": browsed(hit, self.payload) }).to_string());
            lines.push('\n');
        }
        let queue = self.caller.broker().queue_ref(self.vhost.as_str(), self.queue.as_str());
        let total =
            queue.ok().map(|queue| queue.counts()).map(|c| c.ready + c.unsettled + c.delayed);
        let progress = json!({ "scanned": self.scanned, "total": total });
        lines.push_str(&json!({ "progress": progress }).to_string());
        lines.push('\n');
        let end = match () {
            () if found.next.is_none() => Some("end_of_queue"),
            () if self.hits_left == 0 => Some("hits_max"),
            () if self.scan_left == 0 => Some("scan_max"),
            () if Instant::now() >= self.until => Some("time_max"),
            () => None,
        };
        if let Some(end) = end {
            self.is_over = true;
            lines.push_str(&json!({ "end": end }).to_string());
            lines.push('\n');
        }
        Some(lines)
    }
}
