//! The last lines of the log in memory, for whoever follows it over HTTP.

use std::{
    collections::VecDeque,
    fmt::Debug,
    sync::{Arc, OnceLock},
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use polymq_http::{LiveLog, LogLine};
use serde_json::{Map, Value, json};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id},
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

/// Lines that are kept.
const LINES_MAX: usize = 1000;
/// Bytes of one field that are kept.
const FIELD_BYTES_MAX: usize = 2048;
/// Fields of one line.
const FIELDS_MAX: usize = 32;

/// The ring of the process, as the log is.
pub(crate) fn shared() -> Arc<Ring> {
    static RING: OnceLock<Arc<Ring>> = OnceLock::new();
    Arc::clone(RING.get_or_init(Arc::default))
}

/// The last lines.
#[derive(Debug, Default)]
pub(crate) struct Ring(Mutex<(u64, VecDeque<Arc<LogLine>>)>);

impl Ring {
    fn push(&self, mut line: LogLine) {
        let mut kept = self.0.lock();
        kept.0 += 1;
        line.number = kept.0;
        if kept.1.len() >= LINES_MAX {
            kept.1.pop_front();
        }
        kept.1.push_back(Arc::new(line));
    }
}

impl LiveLog for Ring {
    fn after(&self, number: u64) -> Vec<Arc<LogLine>> {
        let kept = self.0.lock();
        let from = kept.1.partition_point(|line| line.number <= number);
        kept.1.range(from..).cloned().collect()
    }
}

/// Puts what is logged into the ring. It gets what the filter of the log lets through.
pub(crate) struct LiveLines;

/// What lines say that are about one thing, as a connection.
struct OfSpan(Map<String, Value>);

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for LiveLines {
    fn on_new_span(&self, of: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        of.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(OfSpan(fields.others));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let Some(span) = context.event_span(event)
            && let Some(OfSpan(others)) = span.extensions().get()
        {
            for (name, value) in others {
                fields.others.entry(name.as_str()).or_insert_with(|| value.clone());
            }
        }
        let meta = event.metadata();
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        shared().push(LogLine {
            number: 0,
            at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            level: match *meta.level() {
                tracing::Level::ERROR => "error",
                tracing::Level::WARN => "warn",
                tracing::Level::INFO => "info",
                tracing::Level::DEBUG => "debug",
                tracing::Level::TRACE => "trace",
            },
            target: meta.target().to_owned(),
            event: fields.event,
            fields: fields.others,
        });
    }
}

#[derive(Default)]
struct Fields {
    event: String,
    others: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        if self.others.len() < FIELDS_MAX {
            self.others.insert(field.name().to_owned(), value);
        }
    }

    fn put_text(&mut self, field: &Field, text: &str) {
        let text = &text[..text.floor_char_boundary(FIELD_BYTES_MAX)];
        if field.name() == "event" {
            text.clone_into(&mut self.event);
        } else {
            self.put(field, json!(text));
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, json!(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, json!(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put_text(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn lines_are_kept_with_their_event_and_fields_and_the_oldest_go() {
        let subscriber = tracing_subscriber::registry().with(LiveLines);
        tracing::subscriber::with_default(subscriber, || {
            for n in 0..LINES_MAX + 5 {
                tracing::info!(event = "tick", n, text = %"x".repeat(5000), "words");
            }
        });
        let mine = |line: &Arc<LogLine>| line.event == "tick";
        let kept: Vec<_> = shared().after(0).into_iter().filter(mine).collect();
        assert!(kept.len() <= LINES_MAX);
        let last = kept.last().unwrap();
        assert_eq!((last.level, &last.fields["n"]), ("info", &json!(LINES_MAX + 4)));
        assert_eq!(last.fields["message"], "words");
        assert_eq!(last.fields["text"].as_str().unwrap().len(), FIELD_BYTES_MAX);
        assert!(shared().after(last.number).iter().all(|line| line.number > last.number));
    }

    #[test]
    fn a_line_says_which_connection_it_is_about() {
        let subscriber = tracing_subscriber::registry().with(LiveLines);
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::debug_span!("connection", connection = 4711);
            span.in_scope(|| tracing::info!(event = "about_a_connection", n = 1));
        });
        let all = shared().after(0);
        let line = all.iter().find(|line| line.event == "about_a_connection").unwrap();
        assert_eq!((&line.fields["connection"], &line.fields["n"]), (&json!(4711), &json!(1)));
    }
}
