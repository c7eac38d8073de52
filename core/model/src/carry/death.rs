//! What the broker knows about a message, as headers.

use super::text::value_to_text;
use crate::{
    delay::DELAY_HEADER,
    message::{Annotations, Death},
    value::{Table, Value},
};

/// The headers that show a dead-letter record and a delay, typed as AMQP clients expect them.
pub fn annotation_headers(annotations: &Annotations) -> Table {
    let mut headers = Table::new();
    if !annotations.deaths.is_empty() {
        let deaths = annotations.deaths.iter().map(death).collect();
        headers.push(("x-death".to_owned(), Value::List(deaths)));
    }
    for (which, record) in [("first", &annotations.first_death), ("last", &annotations.last_death)]
    {
        let Some((queue, reason, exchange)) = record else { continue };
        for (what, text) in [("queue", queue), ("reason", reason), ("exchange", exchange)] {
            headers.push((format!("x-{which}-death-{what}"), Value::String(text.clone())));
        }
    }
    if let Some(delayed) = &annotations.delayed {
        // Negated, so that publishing the message again does not delay it again.
        let ms = i64::try_from(delayed.delay_ms).unwrap_or(i64::MAX);
        headers.push((DELAY_HEADER.to_owned(), Value::I64(-ms)));
    }
    headers
}

/// The same headers for protocols whose headers are text; the record itself is JSON.
pub fn annotation_text_headers(annotations: &Annotations) -> Vec<(String, String)> {
    let headers = annotation_headers(annotations);
    headers.into_iter().map(|(name, value)| (name, value_to_text(&value, |_| false).0)).collect()
}

fn death(death: &Death) -> Value {
    let text = |text: &str| Value::String(text.to_owned());
    let time = i64::try_from(death.time_ms).unwrap_or(i64::MAX);
    let mut shown = vec![
        ("count".to_owned(), Value::I64(i64::try_from(death.count).unwrap_or(i64::MAX))),
        ("reason".to_owned(), text(&death.reason)),
        ("queue".to_owned(), text(&death.queue)),
        // Whole seconds, because that is all a timestamp of AMQP can say.
        ("time".to_owned(), Value::Timestamp(time - time % 1000)),
        ("exchange".to_owned(), text(&death.exchange)),
        (
            "routing-keys".to_owned(),
            Value::List(death.routing_keys.iter().map(|key| text(key)).collect()),
        ),
    ];
    if let Some(ttl_ms) = death.original_ttl_ms {
        shown.push(("original-expiration".to_owned(), text(&ttl_ms.to_string())));
    }
    if let Some(detail) = &death.detail {
        shown.push(("detail".to_owned(), text(detail)));
    }
    Value::Map(shown)
}
