//! Spans for a collector of OpenTelemetry (OTLP over HTTP, as JSON).
//!
//! A protocol is wrapped, and with it each of its sessions: what a session publishes and what it is
//! given to deliver pass by here. So the broker knows nothing of spans, and a program without them
//! pays nothing. Traces are those of publishers: a message without a sampled `traceparent` has no
//! span. The publish is a span of its own, and so is each delivery, whose id the receiver finds as
//! its parent.

mod export;
mod session;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use polymq_contract::{Counters, Destination, Peer, Protocol, ProtocolSession, Recognised};
use polymq_http::Spans;
use polymq_model::{Format, Limits, Message, Now, TraceContext, carry::Explained};

use self::{
    export::{Exporter, Span},
    session::TracedSession,
};
use crate::{auth, config};

/// What requests of HTTP are called.
const HTTP: &str = "http";

/// What decides about spans and sends them.
pub(crate) struct Tracer {
    exporter: Exporter,
    one_in: u64,
    /// Ids are made of a random start and a step that meets every number once.
    next_id: AtomicU64,
}

impl Tracer {
    /// A tracer, if a collector is configured.
    ///
    /// Errors: no randomness, no thread, or no URL.
    pub(crate) fn start(
        settings: &config::Tracing,
        name: &str,
    ) -> anyhow::Result<Option<Arc<Self>>> {
        if settings.endpoint.0.is_empty() {
            return Ok(None);
        }
        let exporter = Exporter::start(&settings.endpoint.0, name)?;
        let next_id = AtomicU64::new(u64::from_ne_bytes(auth::random()?));
        Ok(Some(Arc::new(Self { exporter, one_in: u64::from(settings.one_in).max(1), next_id })))
    }

    /// The same protocol, whose sessions make spans.
    pub(crate) fn wrap(self: &Arc<Self>, protocol: Arc<dyn Protocol>) -> Arc<dyn Protocol> {
        Arc::new(Traced { protocol, tracer: Arc::clone(self) })
    }

    /// The context of a message that is to have a span. Which traces are kept depends on their ids
    /// alone, so that none is kept by halves.
    fn context(&self, message: &Message) -> Option<TraceContext> {
        let context = message.trace_context().filter(|context| context.is_sampled)?;
        let tail = context.trace_id.last_chunk().map_or(0, |tail| u64::from_be_bytes(*tail));
        tail.is_multiple_of(self.one_in).then_some(context)
    }

    fn id(&self) -> [u8; 8] {
        loop {
            let number = self.next_id.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            if number != 0 {
                return number.to_be_bytes();
            }
        }
    }

    /// Makes a span of what happens to a message, and returns the message as it goes on.
    fn note(&self, what: What<'_>, message: &Message) -> Option<Message> {
        let context = self.context(message)?;
        let (id, now) = (self.id(), nanos());
        let in_broker = Duration::from_millis(message.arrived_ms()).as_nanos();
        let start = match what.operation {
            Operation::Publish => now,
            Operation::Deliver => u64::try_from(in_broker).unwrap_or(now).min(now),
        };
        self.exporter.send(Span {
            trace_id: context.trace_id,
            parent_id: context.parent_id,
            id,
            operation: what.operation,
            protocol: what.protocol,
            peer: what.peer.address,
            exchange: message.exchange().to_owned(),
            key: message.key().to_owned(),
            body_bytes: message.body().len(),
            redelivered: what.redelivered,
            start_nanos: start,
            end_nanos: now,
        });
        Some(message.in_span(&context, id))
    }
}

impl Spans for Tracer {
    fn published(&self, peer: &Peer, message: &Message) -> Option<Message> {
        let operation = Operation::Publish;
        self.note(What { operation, protocol: HTTP, peer, redelivered: false }, message)
    }

    fn delivered(&self, peer: &Peer, message: &Message, redelivered: bool) -> Option<Message> {
        let operation = Operation::Deliver;
        self.note(What { operation, protocol: HTTP, peer, redelivered }, message)
    }
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Publish,
    Deliver,
}

/// What happens, and over which connection.
#[derive(Clone, Copy)]
struct What<'w> {
    operation: Operation,
    protocol: &'static str,
    peer: &'w Peer,
    redelivered: bool,
}

fn nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A protocol whose sessions make spans.
struct Traced {
    protocol: Arc<dyn Protocol>,
    tracer: Arc<Tracer>,
}

impl Protocol for Traced {
    fn name(&self) -> &'static str {
        self.protocol.name()
    }

    fn recognise(&self, first: &[u8]) -> Recognised {
        self.protocol.recognise(first)
    }

    fn formats(&self) -> Vec<&'static Format> {
        self.protocol.formats()
    }

    fn counters(&self) -> &Counters {
        self.protocol.counters()
    }

    fn explain(&self, message: &Message, unix_ms: u64) -> Option<Vec<Explained>> {
        self.protocol.explain(message, unix_ms)
    }

    fn destination(&self, address: &str, limits: &Limits) -> Option<Result<Destination, String>> {
        self.protocol.destination(address, limits)
    }

    fn session(
        &self,
        peer: &Arc<Peer>,
        limits: &Arc<Limits>,
        now: Now,
    ) -> Box<dyn ProtocolSession> {
        Box::new(TracedSession {
            session: self.protocol.session(peer, limits, now),
            tracer: Arc::clone(&self.tracer),
            protocol: self.protocol.name(),
            peer: Arc::clone(peer),
            noted: 0,
        })
    }
}
