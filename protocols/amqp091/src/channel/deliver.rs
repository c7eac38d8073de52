//! Messages to frames: deliveries, answers to `basic.get`, and returns.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use polymq_contract::{Effects, output::SHARED_BYTES_MIN};
use polymq_model::{
    ConsumerId, Message,
    topic::{AMQP_KEY_BYTES_MAX, amqp_wire_key},
};

use super::{Channel, Context, consume::Arrival};
use crate::{
    codec::{
        frame::{self, END, OVERHEAD_BYTES, put_head},
        hot::{self, CONTENT_HEADER_BYTES, Content, Origin},
    },
    connection::Connection,
    convert,
};

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
        let Connection { props, shared, .. } = &mut *context.connection;
        props.clear();
        convert::write(arrival, context.now.unix_ms, &shared.counters.conversions, props);
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
        let Context { connection, effects, .. } = context;
        let Some(known) = connection.consumers.get(&consumer) else { return };
        let deliver =
            hot::Deliver { consumer: known.tag.as_bytes(), tag, redelivered: arrival.redelivered };
        let key = wire_key(arrival.message);
        let origin = Origin { exchange: arrival.message.exchange_bytes(), key: &key };
        let content = content(arrival.message, shown, connection);
        hot::put_deliver(effects.out.frame(), self.number, deliver, origin, content);
        self.put_rest(arrival.message, content, connection, effects);
    }

    pub(super) fn put_got(
        &self,
        tag: u64,
        remaining: u32,
        arrival: &Arrival<'_>,
        shown: Shown,
        context: &mut Context<'_>,
    ) {
        let Context { connection, effects, .. } = context;
        let got = hot::GetOk { tag, redelivered: arrival.redelivered, remaining };
        let key = wire_key(arrival.message);
        let origin = Origin { exchange: arrival.message.exchange_bytes(), key: &key };
        let content = content(arrival.message, shown, connection);
        hot::put_get_ok(effects.out.frame(), self.number, got, origin, content);
        self.put_rest(arrival.message, content, connection, effects);
    }

    /// A mandatory message of this channel found no queue.
    pub(crate) fn on_returned(&self, message: &Message, context: &mut Context<'_>) {
        let arrival = Arrival { message, number: 0, redelivered: false, acquired: 0, failed: 0 };
        let shown = Shown::of(&arrival, context);
        let Context { connection, effects, .. } = context;
        let key = wire_key(message);
        let origin = Origin { exchange: message.exchange_bytes(), key: &key };
        let content = content(message, shown, connection);
        hot::put_return(effects.out.frame(), self.number, NO_ROUTE, origin, content);
        self.put_rest(message, content, connection, effects);
    }

    /// The frames of a body that is large, or too long for one frame.
    #[inline]
    fn put_rest(
        &self,
        message: &Message,
        content: Content<'_>,
        connection: &Connection,
        effects: &mut Effects,
    ) {
        if content.body.len() == content.body_bytes {
            return;
        }
        let part_max = part_max(connection);
        if let Some(shared) = message.large_body() {
            self.put_shared_body(shared, part_max, effects);
        } else {
            let out = effects.out.buffer();
            let parts = message.body().chunks(part_max);
            parts.for_each(|part| put_body(out, self.number, part));
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

/// The largest body that fits into a frame.
fn part_max(connection: &Connection) -> usize {
    connection.frame_max.saturating_sub(OVERHEAD_BYTES).max(1)
}

/// Properties and, when it fits into one frame and is worth copying, the body.
#[inline]
fn content<'a>(message: &'a Message, shown: Shown, connection: &'a Connection) -> Content<'a> {
    let body = message.body();
    let is_here = message.large_body().is_none() && body.len() <= part_max(connection);
    Content {
        props: shown.bytes(message, connection),
        body_bytes: body.len(),
        body: if is_here { body } else { &[] },
    }
}

#[inline]
fn wire_key(message: &Message) -> Cow<'_, [u8]> {
    let key = message.key_bytes();
    if key.len() <= AMQP_KEY_BYTES_MAX {
        return Cow::Borrowed(key);
    }
    Cow::Owned(amqp_wire_key(message.key()).into_owned().into_bytes())
}

fn put_body(out: &mut BytesMut, channel: u16, body: &[u8]) {
    frame::put(out, frame::BODY, channel, body);
}
