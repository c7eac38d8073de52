//! What all channels of a connection share: who it is, what was negotiated, numbers, consumers.

use std::{sync::Arc, time::Instant};

use amq_protocol::protocol::AMQPClass;
use bytes::BytesMut;
use hashbrown::HashMap;
use polymq_contract::{Effects, Introduction, Peer};
use polymq_model::{ConsumerId, Limits, Now, RequestId};

use crate::{
    Shared,
    codec::{cold, frame, table::TableBounds},
    heartbeat::Heartbeat,
    refusal::Exception,
};

/// Entries of a table before login.
const LOGIN_TABLE_ENTRIES_MAX: usize = 128;

/// What the client said it understands, in the `capabilities` of its properties.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Capabilities {
    pub(crate) authentication_failure_close: bool,
    pub(crate) consumer_cancel_notify: bool,
    pub(crate) connection_blocked: bool,
}

/// A consumer that deliveries arrive for.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) channel: u16,
    pub(crate) tag: Box<str>,
}

/// What an outstanding request is for.
#[derive(Debug)]
pub(crate) enum Purpose {
    Authenticate,
    /// A new token in place of one that runs out.
    UpdateSecret,
    OpenVhost,
    OpenChannel,
    /// Answered by the `-ok` method of the one that was sent.
    Topology,
    Consume {
        consumer: ConsumerId,
    },
    Cancel {
        consumer: ConsumerId,
    },
    Get {
        consumer: ConsumerId,
    },
    Commit,
}

/// The request whose answer is due. There is at most one: no input is taken meanwhile.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) request: RequestId,
    pub(crate) purpose: Purpose,
    /// Class and method that asked.
    pub(crate) method: (u16, u16),
    /// Channel, and which of the channels that bore this number; zeros for the connection itself.
    pub(crate) channel: u16,
    pub(crate) incarnation: u16,
    /// The client wants no `-ok`.
    pub(crate) no_wait: bool,
}

/// What all channels share.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: Arc<Peer>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) user: String,
    pub(crate) impersonator: bool,
    pub(crate) capabilities: Capabilities,
    /// Largest frame either side may send now.
    pub(crate) frame_max: usize,
    /// Largest frame once the virtual host is open.
    pub(crate) agreed_frame_max: usize,
    pub(crate) channel_max: u16,
    pub(crate) heartbeat: Heartbeat,
    /// Publishes wait, so the driver may not read.
    pub(crate) blocked: bool,
    pub(crate) pending: Option<Pending>,
    pub(crate) consumers: HashMap<ConsumerId, Consumer>,
    /// Bytes of the message being built.
    pub(crate) scratch: Vec<u8>,
    /// Properties being rewritten, for publishes and deliveries.
    pub(crate) props: Vec<u8>,
    /// Part of the consumer tags made here, unique among connections.
    name: String,
    /// What the broker is told of the client when it opens its virtual host.
    pub(crate) introduction: Introduction,
    next_request: u32,
    next_consumer: u32,
    next_tag: u64,
}

impl Connection {
    pub(crate) fn new(
        peer: Arc<Peer>,
        limits: Arc<Limits>,
        shared: Arc<Shared>,
        name: String,
        now: Instant,
    ) -> Self {
        Self {
            frame_max: limits.login_frame_bytes_max,
            agreed_frame_max: limits.login_frame_bytes_max,
            channel_max: limits.channels_max,
            peer,
            limits,
            shared,
            name,
            user: String::new(),
            impersonator: false,
            capabilities: Capabilities::default(),
            heartbeat: Heartbeat::off(now),
            blocked: false,
            pending: None,
            consumers: HashMap::new(),
            scratch: Vec::new(),
            props: Vec::new(),
            introduction: Introduction::default(),
            next_request: 0,
            next_consumer: 0,
            next_tag: 0,
        }
    }

    /// Bounds of tables that an open connection sends.
    pub(crate) fn table_bounds(&self) -> TableBounds {
        TableBounds {
            depth_max: self.limits.nesting_max,
            entries_max: self.limits.table_entries_max,
        }
    }

    /// Bounds of tables that a stranger sends.
    pub(crate) fn login_table_bounds(&self) -> TableBounds {
        let bounds = self.table_bounds();
        TableBounds { entries_max: bounds.entries_max.min(LOGIN_TABLE_ENTRIES_MAX), ..bounds }
    }

    /// True when a message may say that it comes from this user.
    pub(crate) fn may_be(&self, user: &[u8]) -> bool {
        self.impersonator || user == self.user.as_bytes()
    }

    /// Notes that `request`'s answer is awaited on behalf of the connection itself.
    pub(crate) fn expect(&mut self, purpose: Purpose, method: (u16, u16)) -> RequestId {
        self.expect_on(0, 0, purpose, method, false)
    }

    /// Notes that an answer is awaited by a channel, and gives the number to ask with.
    pub(crate) fn expect_on(
        &mut self,
        channel: u16,
        incarnation: u16,
        purpose: Purpose,
        method: (u16, u16),
        no_wait: bool,
    ) -> RequestId {
        self.next_request = self.next_request.wrapping_add(1);
        let request = RequestId(self.next_request);
        self.pending = Some(Pending { request, purpose, method, channel, incarnation, no_wait });
        request
    }

    /// A consumer number that is not in use.
    pub(crate) fn fresh_consumer(&mut self) -> ConsumerId {
        loop {
            self.next_consumer = self.next_consumer.wrapping_add(1);
            let consumer = ConsumerId(self.next_consumer);
            if !self.consumers.contains_key(&consumer) {
                return consumer;
            }
        }
    }

    /// A consumer tag for a client that named none.
    pub(crate) fn fresh_tag(&mut self) -> String {
        self.next_tag = self.next_tag.wrapping_add(1);
        format!("amq.ctag-{}-{}", self.name, self.next_tag)
    }
}

/// Appends a method frame for the connection itself.
pub(crate) fn put_method(
    out: &mut BytesMut,
    method: amq_protocol::protocol::connection::AMQPMethod,
) {
    cold::put(out, 0, &AMQPClass::Connection(method));
}

/// Appends the `connection.close` that tells of `exception`.
pub(crate) fn put_close(out: &mut BytesMut, exception: &Exception) {
    use amq_protocol::protocol::connection::{AMQPMethod, Close};
    let (class_id, method_id) = exception.method;
    put_method(
        out,
        AMQPMethod::Close(Close {
            reply_code: exception.code.number(),
            reply_text: cold::short(&exception.reply_text()),
            class_id,
            method_id,
        }),
    );
}

/// Sends a heartbeat when one is due.
///
/// Returns false when the peer has been silent for too long. It cannot be heard while its input is
/// not read: it is blocked, the broker owes an answer, or it does not take its output.
pub(crate) fn beat(connection: &mut Connection, now: Now, effects: &mut Effects) -> bool {
    let unheard = connection.blocked
        || connection.pending.is_some()
        || effects.out.len() >= connection.limits.output_bytes_max;
    if unheard {
        connection.heartbeat.received(now.instant);
    }
    if connection.heartbeat.is_peer_gone(now.instant) {
        return false;
    }
    if connection.heartbeat.is_due(now.instant) {
        effects.out.frame().extend_from_slice(&frame::HEARTBEAT_FRAME);
    }
    true
}
