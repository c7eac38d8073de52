//! What the server does beside messages: its API, jobs, leases, streams, alarms.

use std::collections::BTreeMap;

use polymq_broker::JobState;

use crate::{
    Site,
    exposition::{Exposition, Kind::Gauge},
    v1,
};

/// Everything of this kind that may be wrong, so that a series is there before it is 1.
const ALARMS: [&str; 8] = [
    "publishers_blocked",
    "store",
    "store_full",
    "damage",
    "certificates",
    "mark_memory",
    "mark_disk",
    "log_lines_dropped",
];

pub(super) fn write(text: &mut Exposition, site: &Site) {
    let watched = &*site.watched;
    let standing = v1::alarms(watched);
    let kinds: Vec<_> = ALARMS
        .iter()
        .map(|kind| ([("kind", *kind)], u8::from(standing.iter().any(|id| id == kind))))
        .collect();
    let values = kinds.iter().map(|(labels, is)| (&labels[..], *is));
    text.family("alarms", Gauge, "1 for what needs a look, as /api/v1/alarms lists it.", values);

    let refs = watched.broker.connection_refs();
    let reason = if watched.broker.alarm().is_some() { "alarm" } else { "vhost" };
    let blocked = refs.iter().filter(|connection| connection.is_blocked).count();
    let rows: Vec<_> = ["alarm", "vhost"]
        .map(|word| ([("reason", word)], if word == reason { blocked } else { 0 }))
        .into();
    let values = rows.iter().map(|(labels, count)| (&labels[..], *count));
    text.family("publishers_blocked", Gauge, "Connections whose publishes wait.", values);

    let mut by_listener: BTreeMap<(String, &str), usize> = BTreeMap::new();
    for connection in &refs {
        let key = (connection.peer().listener.to_string(), connection.protocol());
        *by_listener.entry(key).or_default() += 1;
    }
    let rows: Vec<_> = by_listener
        .iter()
        .map(|((listener, protocol), count)| {
            ([("listener", listener.as_str()), ("protocol", *protocol)], *count)
        })
        .collect();
    let values = rows.iter().map(|(labels, count)| (&labels[..], *count));
    text.family("listener_connections", Gauge, "Open connections by listener.", values);

    text.single("leases", Gauge, "Messages leased over HTTP.", site.leases.count());
    let streams = v1::open_streams();
    let rows = streams.map(|(kind, count)| ([("kind", kind)], count));
    let values = rows.iter().map(|(labels, count)| (&labels[..], *count));
    text.family("sse_streams", Gauge, "Streams of server-sent events.", values);

    let mut states = BTreeMap::from([("queued", 0), ("running", 0)]);
    for job in watched.broker.jobs() {
        *states.entry(word(job.state)).or_default() += 1;
    }
    let rows: Vec<_> = states.iter().map(|(state, count)| ([("state", *state)], *count)).collect();
    let values = rows.iter().map(|(labels, count)| (&labels[..], *count));
    text.family("jobs", Gauge, "Jobs, the last 1,000 that are over included.", values);

    let help = "0 when the last reload of the configuration was refused.";
    let is_ok = u8::from(watched.configuration.is_reload_ok());
    text.single("config_reload_ok", Gauge, help, is_ok);
    site.times.write(text);
}

fn word(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Done => "done",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
        JobState::Interrupted => "interrupted",
    }
}
