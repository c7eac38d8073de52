//! The numbers of a node, and how they have changed while somebody has asked for them.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use polymq_broker::{PROTOCOLS, Span};
use serde_json::{Map, Value, json};

use super::{
    call::Call,
    rates::{self, Moment},
};
use crate::{Facts, Watched, clock};

/// At which distance readings are kept at least, in ms.
const EVERY_MS: u64 = 4_500;
/// Readings that are kept: ten minutes of them for somebody who asks every five seconds.
const KEPT: usize = 121;

/// What every number is read from.
struct Sources<'a> {
    watched: &'a Watched,
    facts: &'a Facts,
}

impl Sources<'_> {
    fn total(&self, of: impl Fn(&polymq_broker::TotalCounters) -> &AtomicU64) -> u64 {
        of(&self.watched.broker.counters().total).load(Ordering::Relaxed)
    }

    /// Of all protocols but HTTP: whoever asks for numbers is not to see itself come and go.
    fn protocols(&self, of: impl Fn(&polymq_broker::ProtocolCounters) -> &AtomicU64) -> u64 {
        let counters = self.watched.broker.counters();
        let clients = PROTOCOLS.iter().filter(|protocol| **protocol != "http");
        let numbers = clients.map(|protocol| of(counters.protocol(protocol)));
        numbers.map(|number| number.load(Ordering::Relaxed)).sum()
    }
}

type Number = (&'static str, fn(&Sources) -> u64);

/// Those that an overview tells as well.
const CHURN: [Number; 7] = [
    ("connection_created", |from| from.protocols(|counts| &counts.connections_opened)),
    ("connection_closed", |from| from.protocols(|counts| &counts.connections_closed)),
    ("channel_created", |from| from.total(|counts| &counts.channels_opened)),
    ("channel_closed", |from| from.total(|counts| &counts.channels_closed)),
    ("queue_declared", |from| from.total(|counts| &counts.queues_created)),
    ("queue_created", |from| from.total(|counts| &counts.queues_created)),
    ("queue_deleted", |from| from.total(|counts| &counts.queues_deleted)),
];

/// The others. What belongs to RabbitMQ's own machine or to its own store is 0.
const OTHERS: [Number; 24] = [
    ("mem_used", |from| from.facts.memory_resident_bytes.unwrap_or_default()),
    ("fd_used", |from| from.facts.files_open.unwrap_or_else(|| from.watched.driver.values().open)),
    ("sockets_used", |from| from.watched.driver.values().open),
    ("proc_used", |_| 1),
    ("disk_free", |from| from.facts.disk_free_bytes.unwrap_or_default()),
    ("run_queue", |_| 0),
    ("context_switches", |_| 0),
    ("gc_num", |_| 0),
    ("gc_bytes_reclaimed", |_| 0),
    ("io_read_count", |_| 0),
    ("io_read_bytes", |_| 0),
    ("io_seek_count", |_| 0),
    ("io_reopen_count", |_| 0),
    ("io_write_count", |from| from.facts.store_batches),
    ("io_write_bytes", |from| from.facts.store_batch_bytes),
    ("io_sync_count", |from| from.facts.store_batches),
    ("io_file_handle_open_attempt_count", |_| 0),
    ("mnesia_disk_tx_count", |_| 0),
    ("mnesia_ram_tx_count", |_| 0),
    ("msg_store_read_count", |_| 0),
    ("msg_store_write_count", |from| from.facts.store_records),
    ("queue_index_read_count", |_| 0),
    ("queue_index_write_count", |_| 0),
    ("queue_index_journal_write_count", |_| 0),
];

const COUNT: usize = CHURN.len() + OTHERS.len();

/// All numbers at one moment.
#[derive(Debug, Clone)]
struct Reading {
    at_ms: u64,
    values: [u64; COUNT],
}

impl Moment for Reading {
    fn at_ms(&self) -> u64 {
        self.at_ms
    }
}

/// What the numbers were when somebody asked.
#[derive(Debug, Default)]
pub(crate) struct NodeHistory(Mutex<VecDeque<Reading>>);

impl NodeHistory {
    /// Notes a reading, unless the last one is younger than some seconds.
    fn note(&self, reading: Reading) {
        let mut kept = self.0.lock();
        let is_due =
            kept.back().is_none_or(|last| last.at_ms.saturating_add(EVERY_MS) <= reading.at_ms);
        if is_due {
            kept.push_back(reading);
            if kept.len() > KEPT {
                kept.pop_front();
            }
        }
    }

    pub(super) fn forget(&self) {
        self.0.lock().clear();
    }

    /// The readings of a span, oldest first; without one the last two.
    fn pick(&self, span: Option<Span>) -> Vec<Reading> {
        let kept = self.0.lock();
        let Some(span) = span else {
            return kept.range(kept.len().saturating_sub(2)..).cloned().collect();
        };
        let newest = kept.back().map_or(0, |reading| reading.at_ms);
        let mut picked: Vec<Reading> = Vec::new();
        for reading in kept.iter().rev() {
            let is_due = picked.last().is_none_or(|last| {
                reading.at_ms.saturating_add(span.step_ms) <= last.at_ms + EVERY_MS / 2
            });
            if newest - reading.at_ms <= span.age_ms && is_due {
                picked.push(reading.clone());
            }
        }
        picked.reverse();
        picked
    }
}

/// Adds numbers and their rates to an object.
fn add(call: &Call, facts: &Facts, shown: &mut Map<String, Value>, from: usize, to: usize) {
    let watched = &call.site.watched;
    let sources = Sources { watched, facts };
    let numbers: Vec<Number> = CHURN.into_iter().chain(OTHERS).collect();
    let mut values = [0; COUNT];
    for (value, (_, read)) in values.iter_mut().zip(&numbers) {
        *value = read(&sources);
    }
    let history = &call.site.node_history;
    history.note(Reading { at_ms: clock::now().unix_ms, values });
    let span = call.spans.node_stats;
    let recent = history.pick(span);
    for (at, (name, _)) in numbers.iter().enumerate().take(to).skip(from) {
        let value = |values: &[u64; COUNT]| values.get(at).copied().unwrap_or_default();
        shown.insert((*name).to_owned(), json!(value(&values)));
        let details =
            rates::details(&recent, span.is_some(), |reading: &Reading| value(&reading.values));
        shown.insert(format!("{name}_details"), details);
    }
}

/// What has come and gone.
pub(super) fn churn(call: &Call) -> Value {
    let mut shown = Map::new();
    add(call, &(call.site.watched.facts)(), &mut shown, 0, CHURN.len());
    Value::Object(shown)
}

/// All of them, with the averages of the store.
pub(super) fn all(call: &Call, facts: &Facts) -> Map<String, Value> {
    let mut shown = Map::new();
    add(call, facts, &mut shown, 0, COUNT);
    let batches = facts.store_batches.max(1) as f64;
    let sync_ms = facts.store_sync_seconds * 1000.0 / batches;
    let averages = [
        ("io_sync_avg_time", sync_ms),
        ("io_write_avg_time", 0.0),
        ("io_read_avg_time", 0.0),
        ("io_seek_avg_time", 0.0),
    ];
    for (name, value) in averages {
        shown.insert(name.to_owned(), json!(value));
        shown.insert(format!("{name}_details"), json!({ "rate": 0.0 }));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_kept_at_a_distance_and_picked_by_span() {
        let history = NodeHistory::default();
        for second in 0..1000 {
            history.note(Reading { at_ms: second * 1000, values: [second; COUNT] });
        }
        assert_eq!(history.0.lock().len(), KEPT);
        let at = |readings: Vec<Reading>| -> Vec<u64> {
            readings.iter().map(|reading| reading.at_ms / 1000).collect()
        };
        assert_eq!(at(history.pick(None)), [990, 995]);
        let span = Span { age_ms: 30_000, step_ms: 10_000 };
        assert_eq!(at(history.pick(Some(span))), [965, 975, 985, 995]);
    }
}
