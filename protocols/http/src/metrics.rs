//! The numbers of this process, read when somebody asks. Only totals, so that the page stays
//! small however many queues and connections there are.

mod objects;
mod rabbitmq;
mod service;

use std::collections::{BTreeMap, HashMap};

use polymq_broker::{ConnectionTotals, PROTOCOLS, Summary};

use crate::{
    Facts, Site, Watched, clock,
    exposition::{
        Exposition,
        Kind::{Counter, Gauge},
    },
    protocols,
};

/// Counters that each protocol has: name in the broker, name and help of the metric.
const BY_PROTOCOL: [(&str, &str, &str); 10] = [
    ("messages_received", "messages_received_total", "Messages published by clients."),
    ("bytes_received", "message_bytes_received_total", "Bytes of bodies published by clients."),
    ("messages_confirmed", "messages_confirmed_total", "Publishes confirmed."),
    ("messages_delivered", "messages_delivered_total", "Messages handed to clients."),
    ("messages_acknowledged", "messages_acknowledged_total", "Deliveries acknowledged."),
    ("messages_returned", "messages_returned_total", "Deliveries given back to their queues."),
    ("messages_rejected", "messages_rejected_total", "Deliveries rejected."),
    ("publishes_refused", "publishes_refused_total", "Publishes that broke a rule or a limit."),
    ("connections_opened", "connections_opened_total", "Connections of a known protocol."),
    ("connections_closed", "connections_closed_total", "Such connections that are gone."),
];

/// Why messages are dropped: counter of the broker, label of the metric.
const DROPPED: [(&str, &str); 5] = [
    ("dropped_expired", "expired"),
    ("dropped_maxlen", "queue_full"),
    ("dropped_rejected", "rejected"),
    ("dropped_slow_consumer", "slow_consumer"),
    ("dropped_permission", "permission"),
];

/// Why messages died that a queue has taken, as above.
const DEAD_LETTERED: [(&str, &str); 4] = [
    ("dead_lettered_expired", "expired"),
    ("dead_lettered_maxlen", "maxlen"),
    ("dead_lettered_rejected", "rejected"),
    ("dead_lettered_delivery_limit", "delivery_limit"),
];

pub(crate) use objects::{Wanted, page as page_of_objects};

/// Totals, under one family of names or both.
pub(crate) fn page(site: &Site, prefix: Option<&str>) -> String {
    let watched = &*site.watched;
    // Both families tell of queues and connections, of which there may be many.
    let read = Read {
        watched,
        facts: (watched.facts)(),
        summary: watched.broker.summary(|_| true),
        connections: watched.broker.connection_totals(),
    };
    if let Some(free) = read.facts.disk_free_bytes {
        site.forecast.note(clock::now().unix_ms, free);
    }
    let mut text = String::new();
    if prefix.is_none_or(|prefix| prefix == "polymq") {
        text.push_str(&ours(site, &read));
    }
    if prefix.is_none_or(|prefix| prefix == "rabbitmq") {
        text.push_str(&rabbitmq::page(&read));
    }
    text
}

/// What is read once for a page.
struct Read<'a> {
    watched: &'a Watched,
    facts: Facts,
    summary: Summary,
    connections: ConnectionTotals,
}

fn ours(site: &Site, read: &Read) -> String {
    let Read { watched, facts, summary, .. } = read;
    let mut text = Exposition::new("polymq");
    let version = env!("CARGO_PKG_VERSION");
    let build = [("version", version), ("name", &*watched.name)];
    text.family("build_info", Gauge, "The running program.", [(&build[..], 1)]);
    text.single("uptime_seconds", Gauge, "Time since the start.", facts.uptime_secs);
    messages(&mut text, watched);
    protocols::write(&mut text, &watched.protocols, &site.conversions);
    logins(&mut text, watched);
    state(&mut text, watched, summary);
    connections(&mut text, site, &read.connections);
    service::write(&mut text, site);
    store(&mut text, facts);
    resources(&mut text, facts);
    certificates(&mut text, watched);
    text.finish()
}

fn messages(text: &mut Exposition, watched: &Watched) {
    let counters = watched.broker.counters();
    let protocols: Vec<_> = PROTOCOLS
        .iter()
        .map(|protocol| {
            let values: HashMap<_, _> = counters.protocol(protocol).read().into_iter().collect();
            ([("protocol", *protocol)], values)
        })
        .collect();
    let of = |name: &'static str| {
        let number = move |values: &HashMap<&str, u64>| values.get(name).copied().unwrap_or(0);
        protocols.iter().map(move |(labels, values)| (&labels[..], number(values)))
    };
    for (counter, name, help) in BY_PROTOCOL {
        text.family(name, Counter, help, of(counter));
    }

    let totals: HashMap<_, _> = counters.total.read().into_iter().collect();
    let total = |name: &str| totals.get(name).copied().unwrap_or(0);
    let unroutable = of("messages_unrouted").map(|(_, count)| count).sum();
    let reasons = DROPPED.map(|(counter, reason)| ([("reason", reason)], total(counter)));
    let dropped = reasons.iter().map(|(labels, count)| (&labels[..], *count));
    let unroutable: (&[_], u64) = (&[("reason", "unroutable")], unroutable);
    let help = "Messages that reached nobody, by reason.";
    text.family("messages_dropped_total", Counter, help, dropped.chain([unroutable]));
    let refusals: Vec<_> = watched
        .broker
        .counters()
        .refusals()
        .map(|(kind, count)| ([("kind", kind.as_str())], count))
        .collect();
    let refusals = refusals.iter().map(|(labels, count)| (&labels[..], *count));
    let help = "Requests and publishes of clients that were refused, by kind.";
    text.family("refusals_total", Counter, help, refusals);
    let help = "Messages sent on to a dead letter exchange.";
    let died = DEAD_LETTERED.map(|(counter, reason)| ([("reason", reason)], total(counter)));
    let died = died.iter().map(|(labels, count)| (&labels[..], *count));
    text.family("messages_dead_lettered_total", Counter, help, died);
    text.single("queues_created_total", Counter, "Queues declared.", total("queues_created"));
    text.single("queues_deleted_total", Counter, "Queues deleted.", total("queues_deleted"));
    text.single("wills_published_total", Counter, "Wills published.", total("wills_published"));
}

fn logins(text: &mut Exposition, watched: &Watched) {
    let mut rows = Vec::new();
    for protocol in PROTOCOLS {
        for (name, count) in watched.broker.counters().protocol(protocol).read() {
            match name {
                "logins" => rows.push(([("protocol", protocol), ("result", "ok")], count)),
                "logins_failed" => {
                    rows.push(([("protocol", protocol), ("result", "failed")], count));
                }
                _ => {}
            }
        }
    }
    let values = rows.iter().map(|(labels, count)| (&labels[..], *count));
    text.family("auth_attempts_total", Counter, "Logins, by result.", values);
}

fn state(text: &mut Exposition, watched: &Watched, summary: &Summary) {
    let (ready, unsettled) = (summary.sample.ready, summary.sample.unsettled);
    let quorum = summary.quorum_queues;
    let types: [(&[_], u64); 2] =
        [(&[("type", "classic")], summary.queues - quorum), (&[("type", "quorum")], quorum)];
    text.family("queues", Gauge, "Queues.", types);
    text.single("consumers", Gauge, "Consumers of queues.", summary.consumers);
    let states: [(&[_], u64); 2] =
        [(&[("state", "ready")], ready), (&[("state", "unacked")], unsettled)];
    text.family("queue_messages", Gauge, "Messages in queues.", states);
    let help = "Ready messages in memory; the others are on the disk alone.";
    text.single("queue_messages_in_memory", Gauge, help, summary.in_memory);
    let help = "Deliveries of messages that had been delivered before.";
    let again = summary.sample.activity.redelivered;
    text.single("messages_redelivered_total", Counter, help, again);
    let help = "Bytes of the bodies of ready messages.";
    text.single("queue_bytes", Gauge, help, summary.bytes);
    let (sessions, retained) = watched.broker.session_counts();
    text.single("client_sessions", Gauge, "Sessions of MQTT clients.", sessions);
    text.single("retained_messages", Gauge, "Retained messages.", retained);
    let delayed = watched.broker.delayed_count();
    text.single("delayed_messages", Gauge, "Messages that are routed later.", delayed);
    let alarm = u8::from(watched.broker.alarm().is_some());
    text.single("alarm", Gauge, "1 while publishers wait for memory or disk.", alarm);
}

fn connections(text: &mut Exposition, site: &Site, open: &ConnectionTotals) {
    let watched = &*site.watched;
    let rows: Vec<_> = open
        .by_protocol
        .iter()
        .map(|(protocol, count)| ([("protocol", *protocol)], *count))
        .collect();
    let values = rows.iter().map(|(labels, count)| (&labels[..], *count));
    text.family("connections", Gauge, "Open connections of a known protocol.", values);

    let driver = watched.driver.values();
    text.single("sockets", Gauge, "Open connections, strangers included.", driver.open);
    text.single("sockets_accepted_total", Counter, "Connections accepted.", driver.accepted);
    let refused = driver.refused + site.traffic.refused();
    let help = "Connections closed at once because there were too many.";
    text.single("sockets_refused_total", Counter, help, refused);
    let too_fast = driver.too_fast + site.traffic.too_fast();
    let help = "Connections closed at once because their address opens too many a second.";
    text.single("sockets_too_fast_total", Counter, help, too_fast);
    text.single("socket_bytes_in_total", Counter, "Bytes received.", driver.bytes_in);
    text.single("socket_bytes_out_total", Counter, "Bytes sent.", driver.bytes_out);
    let help = "Times that the system refused to accept.";
    text.single("accept_errors_total", Counter, help, driver.accept_errors);
    let causes: Vec<_> =
        driver.closed.into_iter().map(|(cause, count)| ([("cause", cause)], count)).collect();
    let values = causes.iter().map(|(labels, count)| (&labels[..], *count));
    text.family("sockets_closed_total", Counter, "Connections ended, by cause.", values);
}

fn certificates(text: &mut Exposition, watched: &Watched) {
    // Several addresses of one listener have one certificate.
    let ends: BTreeMap<_, _> = watched
        .listeners
        .open()
        .into_iter()
        .filter_map(|port| Some((port.name, port.certificate?.expires_unix_secs)))
        .collect();
    let rows: Vec<_> =
        ends.iter().map(|(name, ends)| ([("listener", name.as_str())], *ends)).collect();
    let values = rows.iter().map(|(labels, ends)| (&labels[..], *ends));
    let help = "When the certificate of a listener ends, in seconds since 1970.";
    text.family("tls_certificate_expiry_seconds", Gauge, help, values);
}

fn store(text: &mut Exposition, facts: &Facts) {
    let works = u8::from(facts.store_problem.is_none());
    text.single("store_up", Gauge, "1 while the store takes writes.", works);
    let help = "1 while messages are refused because the disk is full.";
    text.single("store_full", Gauge, help, u8::from(facts.store_is_full));
    let help = "How much of the recovery is done.";
    text.single("store_recovered_percent", Gauge, help, facts.recovered_percent);
    if let Some(bytes) = facts.store_disk_bytes {
        text.single("store_disk_bytes", Gauge, "What the files of the store take.", bytes);
    }
    if let Some((messages, bytes)) = facts.store_live {
        text.single("store_live_messages", Gauge, "Messages that the store keeps.", messages);
        let help = "Bytes of their properties and bodies.";
        text.single("store_live_bytes", Gauge, help, bytes);
    }
    text.single("store_batches_total", Counter, "Batches written.", facts.store_batches);
    text.single("store_batch_records_total", Counter, "Records in them.", facts.store_records);
    text.single("store_batch_bytes_total", Counter, "Bytes of them.", facts.store_batch_bytes);
    let help = "Places at which stored messages were found damaged since the start.";
    text.single("store_damaged_ranges", Gauge, help, facts.store_damaged_ranges);
    let help = "Messages at them that nobody had acknowledged.";
    text.single("store_damaged_messages", Gauge, help, facts.store_damaged_messages);
    let help = "Bytes read only to find damage.";
    text.single("store_scrubbed_bytes_total", Counter, help, facts.store_scrubbed_bytes);
    let help = "How often everything was read for that.";
    text.single("store_scrubs_total", Counter, help, facts.store_scrubs);
    let help = "Bytes not yet written.";
    text.single("store_pending_bytes", Gauge, help, facts.store_pending_bytes);
    let help = "How long the store has not answered the batch it has.";
    text.single("store_unanswered_seconds", Gauge, help, facts.store_unanswered_seconds);
    let help = "Time from handing a batch over until it is durable.";
    let (buckets, sum) = (&facts.store_sync_buckets, facts.store_sync_seconds);
    text.histogram("store_sync_seconds", help, buckets, sum);
}

fn resources(text: &mut Exposition, facts: &Facts) {
    let mut optional = |name: &str, help: &str, value: Option<u64>| {
        if let Some(value) = value {
            text.single(name, Gauge, help, value);
        }
    };
    optional("memory_resident_bytes", "Memory of the process.", facts.memory_resident_bytes);
    optional("memory_limit_bytes", "Above this publishers wait.", facts.memory_high_bytes);
    optional("disk_free_bytes", "Free space for data.", facts.disk_free_bytes);
    optional("disk_free_limit_bytes", "Below this publishers wait.", Some(facts.disk_low_bytes));
    let help = "After that they wait until so much is free.";
    text.single("disk_free_resume_bytes", Gauge, help, facts.disk_resume_bytes);
    let reached = facts.marks_reached.iter();
    let reached: Vec<_> =
        reached.map(|(resource, is)| ([("resource", *resource)], u8::from(*is))).collect();
    let values = reached.iter().map(|(labels, is)| (&labels[..], *is));
    let help = "1 while the mark at which publishers wait is reached.";
    text.family("watermark_reached", Gauge, help, values);
    let help = "Lines for the log that were dropped, because nobody took them.";
    text.single("log_lines_dropped_total", Counter, help, facts.log_lines_dropped);
}
