//! The same numbers under the names that dashboards for RabbitMQ ask for.

use std::sync::atomic::Ordering;

use polymq_broker::{Activity, ConnectionTotals, PROTOCOLS, SIZE_BOUNDS};

use super::{Facts, Read};
use crate::{
    Watched,
    exposition::{
        Exposition,
        Kind::{Counter, Gauge},
    },
    rabbitmq::RABBITMQ_VERSION,
};

/// Counters of the whole broker: name of the metric, name of what has happened, and help.
/// RabbitMQ has them twice, by channel and in total.
const HAPPENED: [(&str, &str, &str); 12] = [
    ("messages_received_total", "published", "Messages received from publishers."),
    ("messages_confirmed_total", "confirmed", "Messages confirmed to publishers."),
    ("messages_routed_total", "published_out", "Messages handed to queues."),
    ("messages_unroutable_dropped_total", "dropped", "Messages that no queue took."),
    ("messages_unroutable_returned_total", "returned", "Messages that went back."),
    ("messages_delivered_consume_auto_ack_total", "delivered_no_ack", "Deliveries, settled."),
    ("messages_delivered_consume_manual_ack_total", "delivered", "Deliveries, to be settled."),
    ("messages_delivered_get_auto_ack_total", "got_no_ack", "Messages got, settled."),
    ("messages_delivered_get_manual_ack_total", "got", "Messages got, to be settled."),
    ("messages_get_empty_total", "got_empty", "Gets that found nothing."),
    ("messages_redelivered_total", "redelivered", "Deliveries of messages delivered before."),
    ("messages_acknowledged_total", "acknowledged", "Deliveries acknowledged."),
];

/// Names that channels have for some of them.
const OF_CHANNELS: [(&str, &str, &str); 11] = [
    ("channel_messages_published_total", "published", "Messages published."),
    ("channel_messages_confirmed_total", "confirmed", "Messages confirmed."),
    ("channel_messages_unroutable_dropped_total", "dropped", "Messages that no queue took."),
    ("channel_messages_unroutable_returned_total", "returned", "Messages that went back."),
    ("channel_messages_delivered_total", "delivered_no_ack", "Deliveries, settled."),
    ("channel_messages_delivered_ack_total", "delivered", "Deliveries, to be settled."),
    ("channel_messages_redelivered_total", "redelivered", "Repeated deliveries."),
    ("channel_messages_acked_total", "acknowledged", "Deliveries acknowledged."),
    ("channel_get_total", "got_no_ack", "Messages got, settled."),
    ("channel_get_ack_total", "got", "Messages got, to be settled."),
    ("channel_get_empty_total", "got_empty", "Gets that found nothing."),
];

pub(super) fn page(read: &Read) -> String {
    let Read { watched, facts, summary, .. } = read;
    let mut text = Exposition::new("rabbitmq");
    let now = &summary.sample;
    identity(&mut text, watched, facts);
    objects(&mut text, read);
    text.single("queue_messages_ready", Gauge, "Messages to be delivered.", now.ready);
    text.single("queue_messages_unacked", Gauge, "Messages not settled.", now.unsettled);
    let all = now.ready + now.unsettled;
    text.single("queue_messages", Gauge, "Messages in queues.", all);
    happened(&mut text, &now.activity);
    sizes(&mut text, watched);
    dead_letters(&mut text, watched);
    process(&mut text, watched, facts);
    text.finish()
}

fn identity(text: &mut Exposition, watched: &Watched, facts: &Facts) {
    let build = [
        ("rabbitmq_version", RABBITMQ_VERSION),
        ("product_name", "PolyMQ"),
        ("product_version", env!("CARGO_PKG_VERSION")),
        ("erlang_version", "0"),
        ("prometheus_plugin_version", RABBITMQ_VERSION),
        ("prometheus_client_version", "0"),
    ];
    text.family("build_info", Gauge, "The running program.", [(&build[..], 1)]);
    let name = &*watched.name;
    let who = [
        ("rabbitmq_node", name),
        ("rabbitmq_cluster", name),
        ("rabbitmq_cluster_permanent_id", name),
        ("rabbitmq_endpoint", "aggregated"),
    ];
    text.family("identity_info", Gauge, "The node and its cluster.", [(&who[..], 1)]);
    text.single("erlang_uptime_seconds", Gauge, "Time since the start.", facts.uptime_secs);
}

fn objects(text: &mut Exposition, read: &Read) {
    let Read {
        watched, summary, connections: ConnectionTotals { channels, publishers, .. }, ..
    } = read;
    let counters = watched.broker.counters();
    let protocols = || PROTOCOLS.iter().map(|protocol| counters.protocol(protocol));
    let opened: u64 = protocols().map(|one| one.connections_opened.load(Ordering::Relaxed)).sum();
    let closed: u64 = protocols().map(|one| one.connections_closed.load(Ordering::Relaxed)).sum();
    let total = &counters.total;
    let created = total.queues_created.load(Ordering::Relaxed);
    let open = read.connections.connections();
    text.single("connections", Gauge, "Connections that are open.", open);
    text.single("channels", Gauge, "Channels that are open.", *channels);
    text.single("queues", Gauge, "Queues.", summary.queues);
    text.single("consumers", Gauge, "Consumers.", summary.consumers);
    text.single("connections_opened_total", Counter, "Connections opened.", opened);
    text.single("connections_closed_total", Counter, "Connections closed.", closed);
    let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    text.single("channels_opened_total", Counter, "Channels opened.", of(&total.channels_opened));
    text.single("channels_closed_total", Counter, "Channels closed.", of(&total.channels_closed));
    let help = "Consumers of channels.";
    text.single("channel_consumers", Gauge, help, summary.consumers);
    let all = [("protocol", "all")];
    text.family("global_publishers", Gauge, "Channels that publish.", [(&all[..], *publishers)]);
    text.family("global_consumers", Gauge, "Consumers.", [(&all[..], summary.consumers)]);
    let help = "Messages received on channels that ask for confirms.";
    let asked = of(&total.publishes_to_confirm);
    text.family("global_messages_received_confirm_total", Counter, help, [(&all[..], asked)]);
    text.single("queues_declared_total", Counter, "Queues declared.", created);
    text.single("queues_created_total", Counter, "Queues made.", created);
    let deleted = total.queues_deleted.load(Ordering::Relaxed);
    text.single("queues_deleted_total", Counter, "Queues deleted.", deleted);
}

fn happened(text: &mut Exposition, activity: &Activity) {
    let numbers = activity.read();
    let of = |name: &str| {
        let found = numbers.iter().find(|(known, _)| *known == name);
        found.map_or(0, |(_, number)| *number)
    };
    let entered = activity.published_out;
    text.single("queue_messages_published_total", Counter, "Messages into queues.", entered);
    let delivered = activity.delivered_in_any_way();
    let all = [("protocol", "all"), ("queue_type", "all")];
    for (name, word, help) in HAPPENED {
        text.family(&format!("global_{name}"), Counter, help, [(&all[..], of(word))]);
    }
    let help = "Messages that have left towards clients.";
    text.family("global_messages_delivered_total", Counter, help, [(&all[..], delivered)]);
    for (name, word, help) in OF_CHANNELS {
        text.single(name, Counter, help, of(word));
    }
}

/// How large the bodies of published messages are. Bounds are written as RabbitMQ writes them,
/// because dashboards ask for them by their text.
fn sizes(text: &mut Exposition, watched: &Watched) {
    const BOUNDS: [&str; SIZE_BOUNDS.len()] =
        ["100.0", "1000.0", "10000.0", "100000.0", "1e+06", "1e+07", "5e+07", "1e+08"];
    let counters = watched.broker.counters();
    let buckets: Vec<_> = BOUNDS.into_iter().chain(["+Inf"]).zip(counters.sizes()).collect();
    let bytes_of =
        |protocol: &&str| counters.protocol(protocol).bytes_received.load(Ordering::Relaxed);
    let sum: u64 = PROTOCOLS.iter().map(bytes_of).sum();
    let help = "Bytes of the bodies of published messages.";
    text.buckets("message_size_bytes", help, &[("protocol", "all")], &buckets, sum);
}

fn dead_letters(text: &mut Exposition, watched: &Watched) {
    let total = &watched.broker.counters().total;
    let labels = [("queue_type", "all"), ("dead_letter_strategy", "all")];
    let died = total.dead_lettered.load(Ordering::Relaxed);
    let help = "Messages sent on to a dead letter exchange, for whatever reason.";
    text.family("global_messages_dead_lettered_total", Counter, help, [(&labels[..], died)]);
    let by_reason = [
        ("expired", &total.dead_lettered_expired, "Dead letters that had expired."),
        ("maxlen", &total.dead_lettered_maxlen, "Dead letters of queues that were too full."),
        ("rejected", &total.dead_lettered_rejected, "Dead letters that were rejected."),
        (
            "delivery_limit",
            &total.dead_lettered_delivery_limit,
            "Dead letters that had been delivered too often.",
        ),
        // They leave their queue when the other has taken them.
        ("confirmed", &total.dead_lettered, "Dead letters that a queue has taken."),
    ];
    for (reason, counter, help) in by_reason {
        let name = format!("global_messages_dead_lettered_{reason}_total");
        let count = counter.load(Ordering::Relaxed);
        text.family(&name, Counter, help, [(&labels[..], count)]);
    }
}

fn process(text: &mut Exposition, watched: &Watched, facts: &Facts) {
    let mut optional = |name: &str, help: &str, value: Option<u64>| {
        if let Some(value) = value {
            text.single(name, Gauge, help, value);
        }
    };
    optional("process_open_fds", "Files that are open.", facts.files_open);
    optional("process_max_fds", "Files that may be open.", facts.files_max);
    let sockets = watched.driver.values().open;
    optional("process_open_tcp_sockets", "Sockets that are open.", Some(sockets));
    optional("process_max_tcp_sockets", "Sockets that may be open.", facts.files_max);
    let resident = facts.memory_resident_bytes;
    optional("process_resident_memory_bytes", "Memory of the process.", resident);
    let limit = facts.memory_high_bytes;
    optional("resident_memory_limit_bytes", "Above this publishers wait.", limit);
    optional("disk_space_available_bytes", "Free space for data.", facts.disk_free_bytes);
    let low = Some(facts.disk_low_bytes);
    optional("disk_space_available_limit_bytes", "Below this publishers wait.", low);
    for (resource, is_reached) in &facts.marks_reached {
        let name = match *resource {
            "memory" => "alarms_memory_used_watermark",
            _ => "alarms_free_disk_space_watermark",
        };
        text.single(name, Gauge, "1 while publishers wait for it.", u8::from(*is_reached));
    }
}
