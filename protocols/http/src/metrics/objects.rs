//! Numbers of single queues and connections. A page of them grows with what clients make, so it is
//! bounded, or narrowed by whoever asks.

use polymq_broker::{ConnectionRef, QueueRef};

use crate::{
    Watched,
    exposition::{
        Exposition,
        Kind::{Counter, Gauge},
    },
};

/// Objects on one page without a filter.
const OBJECTS_MAX: usize = 1000;

/// What a page is to show.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// `queues`, `connections`; all of them when there is none.
    pub(crate) families: Vec<String>,
    /// Only this virtual host.
    pub(crate) vhost: Option<String>,
    /// Only this queue.
    pub(crate) queue: Option<String>,
}

/// Names of families, with those that RabbitMQ has for them.
const QUEUES: [&str; 4] =
    ["queues", "queue_coarse_metrics", "queue_metrics", "queue_consumer_count"];
const CONNECTIONS: [&str; 3] = ["connections", "connection_coarse_metrics", "connection_metrics"];

impl Wanted {
    /// Reads the query of a request.
    ///
    /// Errors: a family that does not exist.
    pub(crate) fn parse(query: &str) -> Result<Self, String> {
        let mut wanted = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "family" if QUEUES.contains(&&*value) => wanted.families.push("queues".into()),
                "family" if CONNECTIONS.contains(&&*value) => {
                    wanted.families.push("connections".into());
                }
                "family" => return Err(format!("no family `{value}`; queues or connections\n")),
                "vhost" => wanted.vhost = Some(value.into_owned()),
                "queue" => wanted.queue = Some(value.into_owned()),
                "prefix" => {}
                other => return Err(format!("no parameter `{other}`\n")),
            }
        }
        Ok(wanted)
    }

    fn has(&self, family: &str) -> bool {
        self.families.is_empty() || self.families.iter().any(|wanted| wanted == family)
    }

    fn takes_queue(&self, queue: &QueueRef) -> bool {
        let vhost = self.vhost.as_deref().is_none_or(|name| name == queue.vhost().as_str());
        vhost && self.queue.as_deref().is_none_or(|name| name == queue.name().as_str())
    }

    fn takes_connection(&self, connection: &ConnectionRef) -> bool {
        let vhost = connection.vhost.as_ref().map(|vhost| vhost.as_str());
        self.vhost.is_none() || self.vhost.as_deref() == vhost
    }
}

/// The page.
///
/// Errors: it would have too many objects.
pub(crate) fn page(watched: &Watched, wanted: &Wanted) -> Result<String, String> {
    let mut queues = watched.broker.queue_refs(None).unwrap_or_default();
    queues.retain(|queue| wanted.has("queues") && wanted.takes_queue(queue));
    let mut connections = watched.broker.connection_refs();
    let is_wanted = wanted.has("connections") && wanted.queue.is_none();
    connections.retain(|connection| is_wanted && wanted.takes_connection(connection));
    let count = queues.len() + connections.len();
    if count > OBJECTS_MAX && wanted.families.is_empty() {
        return Err(format!(
            "{count} objects are too many for one page of at most {OBJECTS_MAX}; ask \
             /metrics/detailed?family=queues&vhost=NAME, or one queue by queue=NAME\n"
        ));
    }
    let mut text = Exposition::new("polymq_detailed");
    of_queues(&mut text, &queues);
    of_connections(&mut text, &connections);
    Ok(text.finish())
}

fn of_queues(text: &mut Exposition, queues: &[QueueRef]) {
    let rows: Vec<_> =
        queues.iter().map(|queue| (queue, queue.counts(), queue.activity())).collect();
    let labels = rows
        .iter()
        .map(|(queue, _, _)| [("vhost", queue.vhost().as_str()), ("queue", queue.name().as_str())]);
    let labels: Vec<_> = labels.collect();
    let mut family = |name: &str, kind, help: &str, numbers: Vec<u64>| {
        let values = labels.iter().zip(numbers).map(|(labels, number)| (&labels[..], number));
        text.family(name, kind, help, values);
    };
    let ready = rows.iter().map(|(_, counts, _)| counts.ready).collect();
    family("queue_messages_ready", Gauge, "Messages to be delivered.", ready);
    let unacked = rows.iter().map(|(_, counts, _)| counts.unsettled).collect();
    family("queue_messages_unacked", Gauge, "Messages not settled.", unacked);
    let bytes = rows.iter().map(|(_, counts, _)| counts.bytes).collect();
    family("queue_bytes", Gauge, "Bytes of the bodies of ready messages.", bytes);
    let consumers = rows.iter().map(|(_, counts, _)| u64::from(counts.consumers)).collect();
    family("queue_consumers", Gauge, "Consumers.", consumers);
    let published = rows.iter().map(|(_, _, activity)| activity.published).collect();
    family("queue_messages_published_total", Counter, "Messages that came.", published);
    let delivered = rows.iter().map(|(_, _, activity)| activity.delivered_in_any_way()).collect();
    family("queue_messages_delivered_total", Counter, "Messages that left.", delivered);
    let settled = rows.iter().map(|(_, _, activity)| activity.acknowledged).collect();
    family("queue_messages_acknowledged_total", Counter, "Deliveries acknowledged.", settled);
}

fn of_connections(text: &mut Exposition, connections: &[ConnectionRef]) {
    let rows: Vec<_> = connections
        .iter()
        .map(|one| {
            let user = one.user.as_ref().map(|user| user.as_str().to_owned()).unwrap_or_default();
            (one.id.0.to_string(), one.name(), user, one.protocol(), one.traffic())
        })
        .collect();
    let labels: Vec<_> = rows
        .iter()
        .map(|(id, name, user, protocol, _)| {
            [("id", &**id), ("name", &**name), ("user", &**user), ("protocol", *protocol)]
        })
        .collect();
    let mut family = |name: &str, help: &str, numbers: Vec<u64>| {
        let values = labels.iter().zip(numbers).map(|(labels, number)| (&labels[..], number));
        text.family(name, Counter, help, values);
    };
    let bytes_in = rows.iter().map(|(.., traffic)| traffic.bytes_in).collect();
    family("connection_bytes_in_total", "Bytes received.", bytes_in);
    let bytes_out = rows.iter().map(|(.., traffic)| traffic.bytes_out).collect();
    family("connection_bytes_out_total", "Bytes sent.", bytes_out);
}
