//! Connections, and what else shows them.

use std::collections::HashMap;

use polymq_broker::{Activity, ChannelView, ConnectionRef, ConsumerView, Span};
use polymq_model::{ConnectionId, UserName, Value as Typed, value::find};
use serde_json::{Value, json};

use super::{
    call::Call,
    list::{Columns, Row, Wanted},
    rates,
    values::{garbage_collection, object},
    wire::{self, Failure, Outcome},
};

/// What other objects show of a connection.
pub(super) struct Named {
    pub(super) name: String,
    pub(super) user: String,
    pub(super) vhost: String,
    pub(super) peer_host: String,
    pub(super) peer_port: u16,
    connection: ConnectionRef,
}

impl Named {
    fn new(connection: ConnectionRef) -> Self {
        let peer = connection.peer();
        let (peer_host, peer_port) = match peer.address {
            Some(address) => (address.ip().to_string(), address.port()),
            None => ("localhost".to_owned(), 0),
        };
        let text = |name: Option<&str>| name.unwrap_or_default().to_owned();
        Self {
            name: connection.name(),
            user: text(connection.user.as_ref().map(|user| user.as_str())),
            vhost: text(connection.vhost.as_ref().map(|vhost| vhost.as_str())),
            peer_host,
            peer_port,
            connection,
        }
    }
}

impl Row for Named {
    fn place(&self) -> (&str, &str) {
        ("", &self.name)
    }
}

/// The connections that are there, by number.
pub(super) struct Connections {
    node: String,
    by_id: HashMap<ConnectionId, Named>,
}

impl Connections {
    pub(super) fn of(call: &Call) -> Self {
        let refs = call.broker().connection_refs();
        let named = refs.into_iter().map(|connection| (connection.id, Named::new(connection)));
        Self { node: call.site.watched.name.clone(), by_id: named.collect() }
    }

    pub(super) fn get(&self, id: ConnectionId) -> Option<&Named> {
        self.by_id.get(&id)
    }

    /// The connection of a name, and the number that a channel of it is shown with.
    pub(super) fn is_channel(
        &self,
        consumer: &ConsumerView,
        (connection, channel): (&str, u32),
    ) -> bool {
        self.get(consumer.connection).is_some_and(|named| {
            named.name == connection && named.connection.channel_number(consumer.channel) == channel
        })
    }
}

/// What a consumer has been sent.
pub(super) fn sent(consumer: &ConsumerView) -> Activity {
    match consumer.no_ack {
        true => Activity { delivered_no_ack: consumer.delivered, ..Activity::default() },
        false => Activity { delivered: consumer.delivered, ..Activity::default() },
    }
}

/// The channel of a consumer.
pub(super) fn channel_details(consumer: &ConsumerView, connections: &Connections) -> Value {
    details_of(consumer.connection, consumer.channel, connections)
}

/// A channel by the number that its consumers have.
pub(super) fn details_of(
    connection: ConnectionId,
    channel: u32,
    connections: &Connections,
) -> Value {
    let Some(named) = connections.get(connection) else {
        return json!({
            "connection_name": "", "name": "", "node": "", "number": 0, "peer_host": "",
            "peer_port": 0, "user": "",
        });
    };
    let number = named.connection.channel_number(channel);
    json!({
        "connection_name": named.name,
        "name": channel_name(named, number),
        "node": connections.node,
        "number": number,
        "peer_host": named.peer_host,
        "peer_port": named.peer_port,
        "user": named.user,
    })
}

fn channel_name(named: &Named, number: u32) -> String {
    format!("{} ({number})", named.name)
}

/// True for a connection that whoever asks may see. One that has opened no virtual host is on its
/// way in, or asks for nothing but numbers, as this API's own.
pub(super) fn is_visible(call: &Call, connection: &ConnectionRef) -> bool {
    match connection.user.as_ref().filter(|_| connection.vhost.is_some()) {
        Some(user) => call.is_monitoring() || user == call.user(),
        None => false,
    }
}

fn visible(call: &Call) -> impl Iterator<Item = Named> {
    let refs = call.broker().connection_refs();
    refs.into_iter().filter(|connection| is_visible(call, connection)).map(Named::new)
}

fn object_of(call: &Call, named: &Named, span: Option<Span>) -> Value {
    let connection = &named.connection;
    let (peer, said) = (connection.peer(), connection.introduction());
    let (traffic, recent) = (connection.traffic(), connection.recent(span));
    let (host, port) = match peer.local {
        Some(address) => (address.ip().to_string(), address.port()),
        None => ("localhost".to_owned(), 0),
    };
    let mut properties = object(&said.client_properties);
    if !said.client_id.is_empty() {
        properties["client_id"] = json!(said.client_id);
    }
    let provided = find(&said.client_properties, "connection_name").and_then(Typed::as_str);
    let octets =
        |read: fn(&polymq_broker::Sample) -> u64| rates::details(&recent, span.is_some(), read);
    let protocol = if said.protocol.is_empty() { connection.protocol() } else { said.protocol };
    let mut shown = json!({
        "name": named.name,
        "node": call.site.watched.name,
        "vhost": named.vhost,
        "user": named.user,
        "user_who_performed_action": named.user,
        "protocol": protocol,
        "state": if connection.is_blocked { "blocked" } else { "running" },
        "type": "network",
        "host": host,
        "port": port,
        "peer_host": named.peer_host,
        "peer_port": named.peer_port,
        "ssl": peer.tls.is_some(),
        "channels": connection.channel_count(),
        "channel_max": said.channels_max,
        "frame_max": said.frame_bytes_max,
        "timeout": said.heartbeat_secs,
        "auth_mechanism": said.mechanism,
        "client_properties": properties,
        "connected_at": connection.connected_ms(),
        "recv_oct": traffic.bytes_in,
        "recv_oct_details": octets(|sample| sample.bytes_in),
        "recv_cnt": traffic.reads,
        "send_oct": traffic.bytes_out,
        "send_oct_details": octets(|sample| sample.bytes_out),
        "send_cnt": traffic.writes,
        "send_pend": connection.waiting_bytes(),
        "reductions": 0,
        "reductions_details": { "rate": 0.0 },
        "garbage_collection": garbage_collection(),
        "container_id": said.client_id,
    });
    if let Some(name) = provided {
        shown["user_provided_name"] = json!(name);
    }
    if let Some(tls) = &peer.tls {
        shown["ssl_protocol"] = json!(tls.version);
        shown["ssl_cipher"] = json!(tls.cipher);
    }
    shown
}

/// `GET /connections`
pub(super) fn list(call: &Call) -> Outcome {
    let span = call.spans.data_rates;
    let rows = visible(call).collect();
    Wanted::of(call)?.answer(rows, |named| object_of(call, named, span))
}

/// `GET /vhosts/:vhost/connections`
pub(super) fn list_of_vhost(call: &Call) -> Outcome {
    let (span, vhost) = (call.spans.data_rates, call.vhost_name());
    let rows = visible(call).filter(|named| named.vhost == vhost).collect();
    Wanted::of(call)?.answer(rows, |named| object_of(call, named, span))
}

/// Those of a user; a user without the right to see others sees only itself.
fn of_user(call: &Call) -> Result<Vec<Named>, Failure> {
    let user = call.path("user");
    if user != call.user().as_str() && !call.is_monitoring() {
        return Err(Failure::denied("User not authorised to access object"));
    }
    Ok(visible(call).filter(|named| named.user == user).collect())
}

/// `GET /connections/username/:user`
pub(super) fn list_of_user(call: &Call) -> Outcome {
    let span = call.spans.data_rates;
    Wanted::of(call)?.answer(of_user(call)?, |named| object_of(call, named, span))
}

/// `DELETE /connections/username/:user`
pub(super) fn close_of_user(call: &Call) -> Outcome {
    let user = UserName::new(call.path("user")).map_err(|_| Failure::not_found())?;
    call.manager.require_self(Some(&user))?;
    of_user(call)?.iter().try_for_each(|named| close(call, named))?;
    wire::done()
}

/// The connection of the path.
fn found(call: &Call) -> Result<Named, Failure> {
    let name = call.path("connection").replace('+', " ");
    let refs = call.broker().connection_refs().into_iter();
    let named = refs.map(Named::new).find(|named| named.name == name);
    let named = named.ok_or_else(Failure::not_found)?;
    match is_visible(call, &named.connection) {
        true => Ok(named),
        false => Err(Failure::denied("User not authorised to access object")),
    }
}

/// `GET /connections/:connection`
pub(super) fn one(call: &Call) -> Outcome {
    let shown = object_of(call, &found(call)?, call.spans.data_rates);
    wire::ok(&Columns::of(call).pick(shown))
}

/// `DELETE /connections/:connection`
pub(super) fn delete(call: &Call) -> Outcome {
    close(call, &found(call)?)?;
    wire::done()
}

fn close(call: &Call, named: &Named) -> Result<(), Failure> {
    let reason = call.headers.get("x-reason").and_then(|reason| reason.to_str().ok());
    let reason = reason.filter(|reason| !reason.is_empty());
    let reason = reason.unwrap_or("Closed via management plugin");
    Ok(call.manager.close_connection(&named.connection, reason)?)
}

struct ChannelRow {
    name: String,
    view: ChannelView,
    of: usize,
}

impl Row for ChannelRow {
    fn place(&self) -> (&str, &str) {
        ("", &self.name)
    }
}

struct Channels {
    node: String,
    span: Option<Span>,
    consumers: HashMap<(ConnectionId, u32), u32>,
}

impl Channels {
    fn of(call: &Call) -> Self {
        let mut consumers = HashMap::new();
        for consumer in call.broker().consumers(None).unwrap_or_default() {
            *consumers.entry((consumer.connection, consumer.channel)).or_default() += 1;
        }
        Self { node: call.site.watched.name.clone(), span: call.spans.msg_rates, consumers }
    }

    fn rows(&self, of: &[Named]) -> Vec<ChannelRow> {
        let channels = of.iter().enumerate().flat_map(|(at, named)| {
            let views = named.connection.channels(self.span).into_iter();
            views.map(move |view| ChannelRow {
                name: channel_name(named, view.number),
                view,
                of: at,
            })
        });
        channels.collect()
    }

    fn consumers_of(&self, named: &Named, number: u32) -> u32 {
        let count = |channel| self.consumers.get(&(named.connection.id, channel)).copied();
        match named.connection.introduction().channels_max {
            0 => {
                let ours = self.consumers.iter().filter(|(key, _)| key.0 == named.connection.id);
                ours.map(|(_, count)| count).sum()
            }
            _ => count(number).unwrap_or_default(),
        }
    }

    fn object(&self, row: &ChannelRow, named: &Named) -> Value {
        let view = &row.view;
        let stats =
            rates::message_stats(&rates::OF_ALL, &view.activity, &view.recent, self.span.is_some());
        json!({
            "name": row.name,
            "number": view.number,
            "node": self.node,
            "vhost": named.vhost,
            "user": named.user,
            "user_who_performed_action": named.user,
            "state": "running",
            "connection_details": {
                "name": named.name,
                "peer_host": named.peer_host,
                "peer_port": named.peer_port,
            },
            "consumer_count": self.consumers_of(named, view.number),
            "prefetch_count": view.prefetch,
            "global_prefetch_count": view.group_prefetch,
            "confirm": view.is_confirming,
            "transactional": view.is_transactional,
            "messages_unacknowledged": view.unsettled,
            "messages_unconfirmed": view.unconfirmed,
            "messages_uncommitted": view.uncommitted_publishes,
            "acks_uncommitted": view.uncommitted_settlements,
            "pending_raft_commands": 0,
            "reductions": 0,
            "reductions_details": { "rate": 0.0 },
            "garbage_collection": garbage_collection(),
            "message_stats": stats,
        })
    }

    fn answer(&self, call: &Call, of: &[Named]) -> Outcome {
        let rows = self.rows(of);
        Wanted::of(call)?.answer(rows, |row| match of.get(row.of) {
            Some(named) => self.object(row, named),
            None => Value::Null,
        })
    }
}

/// `GET /channels`
pub(super) fn channels(call: &Call) -> Outcome {
    let of: Vec<_> = visible(call).collect();
    Channels::of(call).answer(call, &of)
}

/// `GET /vhosts/:vhost/channels`
pub(super) fn channels_of_vhost(call: &Call) -> Outcome {
    let vhost = call.vhost_name();
    let of: Vec<_> = visible(call).filter(|named| named.vhost == vhost).collect();
    Channels::of(call).answer(call, &of)
}

/// `GET /connections/:connection/channels`
pub(super) fn channels_of_connection(call: &Call) -> Outcome {
    Channels::of(call).answer(call, &[found(call)?])
}

/// `GET /channels/:channel`
pub(super) fn channel(call: &Call) -> Outcome {
    let name = call.path("channel").replace('+', " ");
    let of: Vec<_> = visible(call).filter(|named| name.starts_with(&named.name)).collect();
    let channels = Channels::of(call);
    let rows = channels.rows(&of);
    let row = rows.iter().find(|row| row.name == name).ok_or_else(Failure::not_found)?;
    let named = of.get(row.of).ok_or_else(Failure::not_found)?;
    let mut shown = channels.object(row, named);
    let connections = Connections::of(call);
    let all = call.broker().consumers(Some(&named.vhost)).unwrap_or_default();
    let is_its_own = |consumer: &&ConsumerView| {
        consumer.connection == named.connection.id
            && named.connection.channel_number(consumer.channel) == row.view.number
    };
    let consumers = all.iter().filter(is_its_own);
    shown["consumer_details"] =
        consumers.map(|consumer| super::consumers::object_of(consumer, &connections)).collect();
    let deliveries = all.iter().filter(is_its_own).map(|consumer| {
        json!({
            "queue": { "name": consumer.queue.as_str(), "vhost": consumer.vhost.as_str() },
            "stats": rates::message_stats(&rates::OF_QUEUE, &sent(consumer), &[], false),
        })
    });
    shown["deliveries"] = deliveries.collect();
    shown["publishes"] = json!([]);
    wire::ok(&Columns::of(call).pick(shown))
}

/// `GET /connections/:connection/sessions`: sessions of AMQP 1.0, which there are none of.
pub(super) fn sessions(call: &Call) -> Outcome {
    found(call)?;
    wire::ok(&json!([]))
}
