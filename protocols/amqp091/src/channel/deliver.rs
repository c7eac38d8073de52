//! Messages to frames: deliveries, answers to `basic.get`, and returns.

use bytes::{BufMut, Bytes, BytesMut};
use polymq_contract::{Effects, output::SHARED_BYTES_MIN};
use polymq_model::{ConsumerId, Message, topic::amqp_wire_key};

use super::{Channel, Context, consume::Arrival};
use crate::{
    codec::{
        frame::{self, END, OVERHEAD_BYTES, put_head},
        hot::{self, Origin},
    },
    connection::Connection,
    convert,
};

/// Octets of a content header beside its properties.
const CONTENT_HEADER_BYTES: usize = 12;

/// `basic.return` says so when no queue takes a mandatory message.
const NO_ROUTE: (u16, &str) = (312, "NO_ROUTE");

/// Which property bytes a client is shown.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shown {
    /// Those the message came with.
    Native,
    /// Those in the connection's buffer.
    Written,
}

impl Shown {
    /// Writes the properties into the connection's buffer, unless the native ones are right as they
    /// are.
    #[inline]
    pub(super) fn of(arrival: &Arrival<'_>, context: &mut Context<'_>) -> Self {
        if convert::is_shown_as_received(arrival) {
            return Self::Native;
        }
        let props = &mut context.connection.props;
        props.clear();
        convert::write(arrival, context.now.unix_ms, props);
        Self::Written
    }

    fn bytes<'a>(self, message: &'a Message, connection: &'a Connection) -> &'a [u8] {
        match self {
            Self::Native => message.native_props(),
            Self::Written => &connection.props,
        }
    }

    /// True when the content header fits into a frame, as it cannot be split.
    pub(super) fn fits(self, message: &Message, connection: &Connection) -> bool {
        let size = self.bytes(message, connection).len() + CONTENT_HEADER_BYTES + OVERHEAD_BYTES;
        size <= connection.frame_max
    }
}

impl Channel {
    #[inline]
    pub(super) fn put_delivery(
        &self,
        consumer: ConsumerId,
        tag: u64,
        arrival: &Arrival<'_>,
        shown: Shown,
        context: &mut Context<'_>,
    ) {
        let Some(known) = context.connection.consumers.get(&consumer) else { return };
        let message = arrival.message;
        let key = amqp_wire_key(message.key());
        let origin = Origin { exchange: message.exchange(), key: &key };
        let out = context.effects.out.buffer();
        hot::put_deliver(out, self.number, &known.tag, tag, arrival.redelivered, origin);
        self.put_content(message, shown, context.connection, context.effects);
    }

    pub(super) fn put_got(
        &self,
        tag: u64,
        remaining: u32,
        arrival: &Arrival<'_>,
        shown: Shown,
        context: &mut Context<'_>,
    ) {
        let message = arrival.message;
        let key = amqp_wire_key(message.key());
        let origin = Origin { exchange: message.exchange(), key: &key };
        let out = context.effects.out.buffer();
        hot::put_get_ok(out, self.number, tag, arrival.redelivered, origin, remaining);
        self.put_content(message, shown, context.connection, context.effects);
    }

    /// A mandatory message of this channel found no queue.
    pub(crate) fn on_returned(&self, message: &Message, context: &mut Context<'_>) {
        let arrival = Arrival { message, number: 0, redelivered: false, acquired: 0, failed: 0 };
        let shown = Shown::of(&arrival, context);
        let key = amqp_wire_key(message.key());
        let origin = Origin { exchange: message.exchange(), key: &key };
        let (code, text) = NO_ROUTE;
        hot::put_return(context.effects.out.buffer(), self.number, code, text, origin);
        self.put_content(message, shown, context.connection, context.effects);
    }

    #[inline]
    fn put_content(
        &self,
        message: &Message,
        shown: Shown,
        connection: &Connection,
        effects: &mut Effects,
    ) {
        let props = shown.bytes(message, connection);
        let body = message.body();
        hot::put_content_header(effects.out.buffer(), self.number, body.len(), props);
        let part_max = connection.frame_max.saturating_sub(OVERHEAD_BYTES).max(1);
        if let Some(shared) = message.large_body() {
            self.put_shared_body(shared, part_max, effects);
        } else if body.len() <= part_max {
            put_body(effects.out.buffer(), self.number, body);
        } else {
            let out = effects.out.buffer();
            body.chunks(part_max).for_each(|part| put_body(out, self.number, part));
        }
    }

    /// A long body leaves by reference, cut into frames.
    fn put_shared_body(&self, body: &Bytes, part_max: usize, effects: &mut Effects) {
        let mut rest = body.clone();
        while !rest.is_empty() {
            let part = rest.split_to(part_max.min(rest.len()));
            if part.len() < SHARED_BYTES_MIN {
                put_body(effects.out.buffer(), self.number, &part);
                continue;
            }
            put_head(effects.out.buffer(), frame::BODY, self.number, part.len());
            effects.out.push_shared(part);
            effects.out.buffer().put_u8(END);
        }
    }
}

/// An empty body has no frame.
#[inline]
fn put_body(out: &mut BytesMut, channel: u16, body: &[u8]) {
    if !body.is_empty() {
        frame::put(out, frame::BODY, channel, body);
    }
}
