//! Spans on their way to the collector, on a thread of their own. What finds no room is dropped and
//! counted: whoever watches must not slow down what is watched.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use serde_json::{Value, json};
use ureq::{
    Agent,
    tls::{TlsConfig, TlsProvider},
};

use super::Operation;

/// Spans that wait.
const WAITING_MAX: usize = 8192;
/// Spans of a request.
const BATCH_MAX: usize = 512;
/// How long a span may wait for others.
const SEND_EVERY: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is said that a collector does not take them.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Something that happened to a message.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) trace_id: [u8; 16],
    pub(super) parent_id: [u8; 8],
    pub(super) id: [u8; 8],
    pub(super) operation: Operation,
    pub(super) protocol: &'static str,
    pub(super) peer: Option<SocketAddr>,
    pub(super) exchange: String,
    pub(super) key: String,
    pub(super) body_bytes: usize,
    pub(super) redelivered: bool,
    pub(super) start_nanos: u64,
    pub(super) end_nanos: u64,
}

/// The way to the collector.
pub(super) struct Exporter {
    spans: SyncSender<Span>,
    dropped: Arc<AtomicU64>,
}

impl Exporter {
    /// Starts the thread.
    ///
    /// Errors: the system gives none.
    pub(super) fn start(endpoint: &str, name: &str) -> anyhow::Result<Self> {
        let (spans, waiting) = sync_channel(WAITING_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        // The second of two providers in one process would be ambiguous.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let tls = TlsConfig::builder().provider(TlsProvider::Rustls).build();
        let agent = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .max_redirects(0)
            .tls_config(tls)
            .user_agent(concat!("polymq/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        let collector = Collector {
            agent,
            url: format!("{}/v1/traces", endpoint.trim_end_matches('/')),
            name: name.to_owned(),
            dropped: Arc::clone(&dropped),
            said: None,
        };
        thread::Builder::new()
            .name("polymq-otel".into())
            .spawn(move || collector.run(&waiting))
            .context("no thread for traces")?;
        Ok(Self { spans, dropped })
    }

    pub(super) fn send(&self, span: Span) {
        if self.spans.try_send(span).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Collector {
    agent: Agent,
    url: String,
    name: String,
    dropped: Arc<AtomicU64>,
    /// When it was last said that something is lost.
    said: Option<Instant>,
}

impl Collector {
    fn run(mut self, waiting: &Receiver<Span>) {
        while let Ok(first) = waiting.recv() {
            let (mut spans, until) = (vec![first], Instant::now() + SEND_EVERY);
            while spans.len() < BATCH_MAX {
                match waiting.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(span) => spans.push(span),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
            }
            let body = request(&self.name, &spans).to_string();
            let sent = self.agent.post(&self.url).content_type("application/json").send(body);
            let error = sent.err().map(|error| error.to_string());
            if error.is_some() {
                self.dropped.fetch_add(spans.len() as u64, Ordering::Relaxed);
            }
            self.say(error.as_deref());
        }
    }

    /// Says that spans are lost, now and then.
    fn say(&mut self, error: Option<&str>) {
        if self.said.is_some_and(|said| said.elapsed() < SAY_EVERY) {
            return;
        }
        let count = self.dropped.swap(0, Ordering::Relaxed);
        if count > 0 {
            self.said = Some(Instant::now());
            tracing::warn!(event = "spans_lost", count, error);
        }
    }
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An `ExportTraceServiceRequest` as JSON (OTLP 1.9, "JSON Protobuf Encoding").
fn request(name: &str, spans: &[Span]) -> Value {
    let spans: Vec<_> = spans.iter().map(shown).collect();
    json!({ "resourceSpans": [{
        "resource": { "attributes": [
            text("service.name", name),
            text("service.version", env!("CARGO_PKG_VERSION")),
        ] },
        "scopeSpans": [{ "scope": { "name": "polymq" }, "spans": spans }],
    }] })
}

fn shown(span: &Span) -> Value {
    // The kinds of OTLP: 2 is a server, 4 a producer.
    let (word, kind, what) = match span.operation {
        Operation::Publish => ("publish", 2, "send"),
        Operation::Deliver => ("deliver", 4, "receive"),
    };
    let destination = format!("{}:{}", span.exchange, span.key);
    let mut attributes = vec![
        text("messaging.system", "polymq"),
        text("messaging.operation.name", word),
        text("messaging.operation.type", what),
        text("messaging.destination.name", &destination),
        text("messaging.rabbitmq.destination.routing_key", &span.key),
        text("network.protocol.name", span.protocol),
        // 64 bits are text in this encoding.
        json!({
            "key": "messaging.message.body.size",
            "value": { "intValue": span.body_bytes.to_string() },
        }),
    ];
    if let Some(peer) = span.peer {
        attributes.push(text("network.peer.address", &peer.ip().to_string()));
    }
    if span.redelivered {
        let value = json!({ "boolValue": true });
        attributes.push(json!({ "key": "polymq.redelivered", "value": value }));
    }
    json!({
        "traceId": hex(&span.trace_id),
        "spanId": hex(&span.id),
        "parentSpanId": hex(&span.parent_id),
        "name": format!("{word} {destination}"),
        "kind": kind,
        "startTimeUnixNano": span.start_nanos.to_string(),
        "endTimeUnixNano": span.end_nanos.to_string(),
        "attributes": attributes,
    })
}
