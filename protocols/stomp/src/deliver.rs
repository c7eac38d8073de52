//! MESSAGE.

use bytes::{BufMut, BytesMut};
use polymq_contract::{Delivery, Effects};
use polymq_model::{Message, Now, address::StompDestination};

use crate::{
    codec::{
        Version,
        writer::{put_header, put_length, put_number},
    },
    convert,
    session::{Phase, Session},
    subscription::AckMode,
};

/// The line that says where the last message came from, because messages repeat it.
#[derive(Debug, Default)]
pub(crate) struct LastOrigin {
    exchange_bytes: usize,
    address: Vec<u8>,
    line: Vec<u8>,
}

impl LastOrigin {
    #[inline]
    fn line(&mut self, message: &Message, topic_exchange: &str, version: Version) -> &[u8] {
        let exchange_bytes = message.exchange_bytes().len();
        let is_same = self.exchange_bytes == exchange_bytes
            && self.address == message.address_bytes()
            && !self.line.is_empty();
        if !is_same {
            let mut destination = String::new();
            let (exchange, key) = (message.exchange(), message.key());
            StompDestination::put_origin(exchange, key, topic_exchange, &mut destination);
            self.line.clear();
            put_header("destination", &destination, version, &mut self.line);
            self.exchange_bytes = exchange_bytes;
            self.address.clear();
            self.address.extend_from_slice(message.address_bytes());
        }
        &self.line
    }
}

impl Session {
    #[inline]
    pub(crate) fn deliver(&mut self, delivery: &Delivery, now: Now, effects: &mut Effects) {
        if !matches!(self.phase, Phase::Open | Phase::Leaving) {
            return;
        }
        let Some(subscription) = self.subscriptions.find(delivery.consumer) else { return };
        let number = match delivery.number {
            0 => {
                subscription.sent += 1;
                subscription.sent
            }
            number => {
                subscription.unsettled.push(number);
                number
            }
        };
        let (message, version) = (&delivery.message, self.version);
        let exchange = &self.shared.settings.exchange;
        let out = effects.out.frame();
        let props_bytes = message.native_props().len();
        out.reserve(256 + props_bytes + message.body().len().min(4096));
        out.put_slice(&subscription.head);
        out.put_slice(self.last_origin.line(message, exchange, version));
        let put_id = |name: &[u8], out: &mut BytesMut| {
            out.put_slice(name);
            out.put_slice(self.name.as_bytes());
            out.put_u8(b'-');
            put_number(delivery.consumer.0.into(), out);
            out.put_u8(b'-');
            put_number(number, out);
            out.put_u8(b'\n');
        };
        put_id(b"message-id:", out);
        if version == Version::V12 && subscription.ack != AckMode::Auto {
            put_id(b"ack:", out);
        }
        if delivery.redelivered {
            out.put_slice(b"redelivered:true\n");
        }
        for (name, count) in
            [("x-acquired-count:", delivery.acquired), ("x-delivery-count:", delivery.failed)]
        {
            if count > 0 {
                out.put_slice(name.as_bytes());
                put_number(count.into(), out);
                out.put_u8(b'\n');
            }
        }
        if subscription.shows_origin {
            put_header("x-origin-protocol", message.format().name, version, out);
            out.put_slice(b"x-enqueued-at:");
            put_number(message.arrived_ms(), out);
            out.put_u8(b'\n');
        }
        let conversions = &self.shared.counters.conversions;
        convert::put_headers(message, version, now.unix_ms, exchange, conversions, out);
        put_length(message.body().len(), out);
        match message.large_body() {
            Some(body) => effects.out.push_shared(body.clone()),
            None => out.put_slice(message.body()),
        }
        effects.out.buffer().put_u8(0);
    }
}
