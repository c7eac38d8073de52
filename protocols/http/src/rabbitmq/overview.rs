//! The whole broker at a glance.

use polymq_broker::Summary;
use serde_json::{Value, json};

use super::{
    call::Call,
    connections::is_visible,
    health::protocol_of,
    list::Columns,
    node_numbers, rates,
    values::Fields,
    wire::{self, Failure, Outcome, RABBITMQ_VERSION},
};

/// Types of exchanges, and what they are.
const EXCHANGE_TYPES: [(&str, &str); 9] = [
    ("direct", "the binding key is the routing key"),
    ("fanout", "every binding"),
    ("topic", "the binding key is a pattern of the routing key"),
    ("headers", "the binding's arguments match the headers"),
    ("x-consistent-hash", "one binding, by a hash that keeps its choice"),
    ("x-modulus-hash", "one binding, by a hash and the number of bindings"),
    ("x-random", "one binding, at random"),
    ("x-local-random", "one binding, at random"),
    ("x-delayed-message", "messages that are routed later"),
];

/// The types of exchanges as the overview and the node show them.
pub(super) fn exchange_types() -> Value {
    let types = EXCHANGE_TYPES.iter().map(
        |(name, description)| json!({ "name": name, "description": description, "enabled": true }),
    );
    types.collect()
}

/// The listeners, as the overview shows them.
fn listeners(call: &Call) -> Value {
    let node = &call.site.watched.name;
    let listeners = call.site.watched.listeners.open().into_iter().map(|listener| {
        json!({
            "node": node,
            "protocol": protocol_of(&listener),
            "ip_address": listener.address.ip().to_string(),
            "port": listener.address.port(),
            "tls": listener.has_tls,
            "socket_opts": [],
        })
    });
    listeners.collect()
}

/// Where management answers.
pub(super) fn contexts(call: &Call) -> Value {
    let node = &call.site.watched.name;
    let prefix = &call.site.settings().path_prefix;
    let ports = call.site.watched.listeners.open();
    let ports = ports.iter().filter(|port| port.protocol == "http");
    let contexts = ports.map(|port| {
        json!({
            "node": node,
            "description": "RabbitMQ Management",
            "path": if prefix.is_empty() { "/" } else { prefix },
            "ip": port.address.ip().to_string(),
            "port": port.address.port().to_string(),
            "ssl_opts": [],
            "cowboy_opts": "[]",
        })
    });
    contexts.collect()
}

/// `GET /overview`
pub(super) fn overview(call: &Call) -> Outcome {
    let watched = &call.site.watched;
    let (span, lengths) = (call.spans.msg_rates, call.spans.lengths);
    let summary = call.broker().summary(|vhost| call.manager.may_see(vhost));
    let now = summary.sample;
    // Samples are those of the whole broker.
    let recent = |span| match summary.is_part {
        true => Vec::new(),
        false => call.broker().recent_totals(span),
    };
    let queue_totals: serde_json::Map<String, Value> =
        rates::lengths((now.ready, now.unsettled), &recent(lengths), lengths.is_some())
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
    let stats = rates::message_stats(&rates::OF_ALL, &now.activity, &recent(span), span.is_some());
    let shown = json!({
        "management_version": RABBITMQ_VERSION,
        "rabbitmq_version": RABBITMQ_VERSION,
        "product_name": "PolyMQ",
        "product_version": env!("CARGO_PKG_VERSION"),
        "rates_mode": "detailed",
        "sample_retention_policies": {
            "global": [600, 3600, 28800, 86400],
            "basic": [600, 3600, 28800, 86400],
            "detailed": [600],
        },
        "exchange_types": exchange_types(),
        "cluster_name": call.site.cluster_name(),
        "cluster_tags": {},
        "node_tags": {},
        "default_queue_type": "classic",
        "erlang_version": "",
        "erlang_full_version": "",
        "crypto_lib_version": "",
        "release_series_support_status": "supported",
        "disable_stats": call.has_flag("disable_stats"),
        "enable_queue_totals": call.has_flag("enable_queue_totals"),
        "is_op_policy_updating_enabled": true,
        "message_stats": stats,
        "churn_rates": node_numbers::churn(call),
        "queue_totals": queue_totals,
        "object_totals": object_totals(call, &summary),
        "statistics_db_event_queue": 0,
        "node": watched.name,
        "listeners": listeners(call),
        "contexts": contexts(call),
    });
    wire::ok(&Columns::of(call).pick(shown))
}

fn object_totals(call: &Call, summary: &Summary) -> Value {
    let connections = call.broker().connection_refs();
    let ours: Vec<_> =
        connections.iter().filter(|connection| is_visible(call, connection)).collect();
    json!({
        "connections": ours.len(),
        "channels": ours.iter().map(|connection| connection.channel_count()).sum::<usize>(),
        "exchanges": summary.exchanges,
        "queues": summary.queues,
        "consumers": summary.consumers,
    })
}

/// `GET /cluster-name`
pub(super) fn cluster_name(call: &Call) -> Outcome {
    wire::ok(&json!({ "name": call.site.cluster_name() }))
}

/// `PUT /cluster-name`
pub(super) fn set_cluster_name(call: &Call) -> Outcome {
    let name = Fields::read(&call.body)?.needed_text("name")?;
    call.manager.put_global_parameter("cluster_name", json!(name))?;
    wire::done()
}

/// `GET /version`
pub(super) fn version() -> Outcome {
    wire::ok(&json!(RABBITMQ_VERSION)).map_err(|_: Failure| Failure::not_found())
}
