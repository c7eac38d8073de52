//! What the protocols count: frames, errors, and messages that change their form.

use std::{collections::BTreeMap, sync::Arc};

use polymq_contract::{Conversions, Protocol};

use crate::exposition::{Exposition, Kind::Counter};

/// Counters of a protocol: name there, name and help of the metric.
const COUNTERS: [(&str, &str, &str); 7] = [
    ("frames_in", "frames_received_total", "Frames, packets or stanzas of clients."),
    ("frames_out", "frames_sent_total", "Frames, packets or stanzas for clients."),
    (
        "faults",
        "protocol_errors_total",
        "Connections and channels closed for an error of their client.",
    ),
    (
        "publishes_dropped",
        "publishes_ignored_total",
        "Publishes dropped because the protocol version cannot say no.",
    ),
    ("too_large", "deliveries_too_large_total", "Deliveries that the client's limit forbade."),
    ("not_kept", "messages_not_kept_total", "Messages for nobody there that are not kept."),
    ("resumed", "streams_resumed_total", "Streams that went on over another connection."),
];

/// Several listeners may have a protocol of the same name; they count together.
pub(crate) fn write(
    text: &mut Exposition,
    protocols: &[Arc<dyn Protocol>],
    over_http: &Conversions,
) {
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut messages: BTreeMap<[&str; 2], u64> = BTreeMap::new();
    let mut losses: BTreeMap<[&str; 4], u64> = BTreeMap::new();
    for protocol in protocols {
        for (counter, value) in protocol.counters().read() {
            *counts.entry((counter, protocol.name())).or_default() += value;
        }
    }
    let of_protocols = protocols.iter().map(|protocol| &protocol.counters().conversions);
    for pair in of_protocols.chain([over_http]).flat_map(Conversions::all) {
        *messages.entry([pair.from, pair.to]).or_default() += pair.messages.value();
        for (field, outcome, count) in pair.losses() {
            let key = [pair.from, pair.to, field, outcome.label()];
            *losses.entry(key).or_default() += count;
        }
    }
    for (counter, name, help) in COUNTERS {
        let rows = counts.iter().filter(|((known, _), _)| *known == counter);
        let rows = rows.map(|((_, protocol), count)| ([("protocol", *protocol)], *count));
        family(text, name, help, rows);
    }
    let rows = messages.into_iter().filter(|(_, count)| *count > 0);
    let rows = rows.map(|(values, count)| (labels(["from", "to"], values), count));
    let help = "Messages delivered in another form than they came in.";
    family(text, "conversions_total", help, rows);
    let names = ["from", "to", "field", "outcome"];
    let rows = losses.into_iter().map(|(values, count)| (labels(names, values), count));
    let help = "Fields of messages that were dropped, by reason.";
    family(text, "conversion_fields_total", help, rows);
}

fn family<'a, const N: usize>(
    text: &mut Exposition,
    name: &str,
    help: &str,
    rows: impl Iterator<Item = ([(&'a str, &'a str); N], u64)>,
) {
    let rows: Vec<_> = rows.collect();
    let values = rows.iter().map(|(labels, count)| (&labels[..], *count));
    text.family(name, Counter, help, values);
}

fn labels<'a, const N: usize>(
    names: [&'a str; N],
    values: [&'a str; N],
) -> [(&'a str, &'a str); N] {
    std::array::from_fn(|at| (names[at], values[at]))
}
