//! A client of AMQP 0-9-1 with one connection and one channel.

mod props;

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};

pub(crate) use props::{Field, Props, table};

use crate::{
    wire::{Cursor, put_long, put_short},
    world::{Speaks, World},
};

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const FRAME_END: u8 = 0xCE;

pub(crate) struct Amqp {
    world: World,
    link: usize,
    incoming: BytesMut,
    replies: VecDeque<(u16, u16, Vec<u8>)>,
    deliveries: VecDeque<Delivery>,
    partial: Option<Delivery>,
    /// How the server closed the channel or the connection.
    closed: Option<(u16, String)>,
}

/// A `basic.deliver` with its content.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Delivery {
    pub(crate) tag: u64,
    pub(crate) redelivered: bool,
    pub(crate) exchange: String,
    pub(crate) key: String,
    /// Property flags and property list.
    pub(crate) raw_props: Vec<u8>,
    pub(crate) props: Props,
    pub(crate) body: Vec<u8>,
    body_bytes: usize,
}

impl Delivery {
    pub(crate) fn header(&self, name: &str) -> Option<&Field> {
        self.props.header(name)
    }

    pub(crate) fn text_header(&self, name: &str) -> Option<&str> {
        self.header(name).and_then(Field::as_text)
    }
}

impl Amqp {
    pub(crate) fn connect(world: &World) -> Self {
        Self::connect_as(world, "guest")
    }

    pub(crate) fn connect_as(world: &World, user: &str) -> Self {
        let mut client = Self::log_in(world, user);
        client.method(0, 10, 40, b"\x01/\x00\x00");
        client.expect(10, 41);
        client.open_channel(1);
        client.expect(20, 11);
        client
    }

    /// How the opening of a virtual host is refused.
    pub(crate) fn refused(world: &World) -> (u16, String) {
        let mut client = Self::log_in(world, "guest");
        client.method(0, 10, 40, b"\x01/\x00\x00");
        client.closed().expect("a refusal")
    }

    fn log_in(world: &World, user: &str) -> Self {
        let mut client = Self {
            world: world.clone(),
            link: world.open(Speaks::Amqp),
            incoming: BytesMut::new(),
            replies: VecDeque::new(),
            deliveries: VecDeque::new(),
            partial: None,
            closed: None,
        };
        world.send(client.link, b"AMQP\x00\x00\x09\x01");
        client.expect(10, 10);
        let mut start_ok = vec![0, 0, 0, 0];
        put_short(&mut start_ok, b"PLAIN");
        put_long(&mut start_ok, format!("\0{user}\0secret").as_bytes());
        put_short(&mut start_ok, b"en_US");
        client.method(0, 10, 11, &start_ok);
        let tune = client.expect(10, 30);
        client.method(0, 10, 31, &tune);
        client
    }

    /// Asks for a channel.
    pub(crate) fn open_channel(&mut self, number: u16) {
        self.method(number, 20, 10, &[0]);
    }

    pub(crate) fn declare_exchange(&mut self, name: &str, kind: &str) {
        self.declare_exchange_with(name, kind, &[]);
    }

    /// Declares a durable exchange.
    pub(crate) fn declare_exchange_with(
        &mut self,
        name: &str,
        kind: &str,
        declared: &[(&str, Field)],
    ) {
        self.ask_for_exchange(name, kind, declared);
        self.expect(40, 11);
    }

    /// Asks for a durable exchange.
    pub(crate) fn ask_for_exchange(&mut self, name: &str, kind: &str, declared: &[(&str, Field)]) {
        let mut arguments = vec![0, 0];
        put_short(&mut arguments, name.as_bytes());
        put_short(&mut arguments, kind.as_bytes());
        arguments.push(0b0_0010);
        put_long(&mut arguments, &table(declared));
        self.method(1, 40, 10, &arguments);
    }

    pub(crate) fn declare(&mut self, queue: &str) {
        self.declare_with(queue, &[]);
    }

    /// Declares a durable queue.
    pub(crate) fn declare_with(&mut self, queue: &str, arguments: &[(&str, Field)]) {
        self.ask_for_queue(queue, arguments);
        self.expect(50, 11);
    }

    /// Asks for a durable queue.
    pub(crate) fn ask_for_queue(&mut self, queue: &str, arguments: &[(&str, Field)]) {
        let mut method = vec![0, 0];
        put_short(&mut method, queue.as_bytes());
        method.push(0b0_0010);
        put_long(&mut method, &table(arguments));
        self.method(1, 50, 10, &method);
    }

    /// Declares an exclusive queue that the broker names.
    pub(crate) fn declare_unnamed(&mut self) -> String {
        self.method(1, 50, 10, &[0, 0, 0, 0b0_0100, 0, 0, 0, 0]);
        Cursor(&self.expect(50, 11)).short()
    }

    pub(crate) fn bind(&mut self, queue: &str, exchange: &str, key: &str) {
        self.bind_with(queue, exchange, key, &[]);
    }

    pub(crate) fn bind_with(
        &mut self,
        queue: &str,
        exchange: &str,
        key: &str,
        binding: &[(&str, Field)],
    ) {
        self.ask_to_bind(queue, exchange, key, binding);
        self.expect(50, 21);
    }

    /// Asks for a binding.
    pub(crate) fn ask_to_bind(
        &mut self,
        queue: &str,
        exchange: &str,
        key: &str,
        binding: &[(&str, Field)],
    ) {
        let mut arguments = vec![0, 0];
        put_short(&mut arguments, queue.as_bytes());
        put_short(&mut arguments, exchange.as_bytes());
        put_short(&mut arguments, key.as_bytes());
        arguments.push(0);
        put_long(&mut arguments, &table(binding));
        self.method(1, 50, 20, &arguments);
    }

    /// A queue of this name that gets what is published to the topics that match, and a consumer of
    /// it.
    pub(crate) fn listen(&mut self, queue: &str, pattern: &str) {
        self.declare(queue);
        self.bind(queue, "amq.topic", pattern);
        self.consume(queue);
    }

    pub(crate) fn consume(&mut self, queue: &str) {
        self.consume_with(queue, 0);
    }

    pub(crate) fn consume_without_ack(&mut self, queue: &str) {
        self.consume_with(queue, 0b0010);
    }

    fn consume_with(&mut self, queue: &str, flags: u8) {
        let mut arguments = vec![0, 0];
        put_short(&mut arguments, queue.as_bytes());
        put_short(&mut arguments, queue.as_bytes());
        arguments.push(flags);
        put_long(&mut arguments, &[]);
        self.method(1, 60, 20, &arguments);
        self.expect(60, 21);
    }

    pub(crate) fn publish(&mut self, exchange: &str, key: &str, props: &Props, body: &[u8]) {
        self.publish_raw(exchange, key, &props.encode(), body);
        assert_eq!(self.closed(), None, "the publish is accepted");
    }

    /// Publishes to `amq.topic`.
    pub(crate) fn publish_topic(&mut self, key: &str, props: &Props, body: &[u8]) {
        self.publish("amq.topic", key, props, body);
    }

    pub(crate) fn publish_raw(&mut self, exchange: &str, key: &str, props: &[u8], body: &[u8]) {
        let mut arguments = vec![0, 0];
        put_short(&mut arguments, exchange.as_bytes());
        put_short(&mut arguments, key.as_bytes());
        arguments.push(0);
        let mut out = method_frame(1, 60, 40, &arguments);
        let mut header = vec![0, 60, 0, 0];
        header.extend_from_slice(&u64::try_from(body.len()).unwrap().to_be_bytes());
        header.extend_from_slice(props);
        out.extend(frame(HEADER, 1, &header));
        for part in body.chunks(100_000) {
            out.extend(frame(BODY, 1, part));
        }
        self.world.send(self.link, &out);
    }

    /// A content header that announces a body of no bytes.
    pub(crate) fn header_of_nothing(&mut self) {
        self.header_of(0);
    }

    /// A content header without properties that announces a body.
    pub(crate) fn header_of(&mut self, body_bytes: u64) {
        let mut header = vec![0, 60, 0, 0];
        header.extend_from_slice(&body_bytes.to_be_bytes());
        header.extend_from_slice(&[0, 0]);
        self.world.send(self.link, &frame(HEADER, 1, &header));
    }

    pub(crate) fn ack(&mut self, tag: u64) {
        let mut arguments = tag.to_be_bytes().to_vec();
        arguments.push(0);
        self.method(1, 60, 80, &arguments);
    }

    /// Deliveries that have come, acknowledged.
    pub(crate) fn deliveries(&mut self) -> Vec<Delivery> {
        let deliveries = self.unsettled();
        for delivery in &deliveries {
            self.ack(delivery.tag);
        }
        deliveries
    }

    /// Deliveries that have come, not acknowledged.
    pub(crate) fn unsettled(&mut self) -> Vec<Delivery> {
        self.read();
        self.deliveries.drain(..).collect()
    }

    /// The only delivery that has come, acknowledged.
    pub(crate) fn delivery(&mut self) -> Delivery {
        let mut deliveries = self.deliveries();
        assert_eq!(deliveries.len(), 1, "one delivery is expected: {deliveries:?}");
        deliveries.remove(0)
    }

    /// How the server closed the channel or the connection, if it did.
    pub(crate) fn closed(&mut self) -> Option<(u16, String)> {
        self.read();
        self.closed.clone()
    }

    /// The same, and forgets it, so that the connection can go on.
    pub(crate) fn take_closed(&mut self) -> Option<(u16, String)> {
        self.read();
        self.closed.take()
    }

    pub(crate) fn cut(self) {
        self.world.cut(self.link);
    }

    /// Sends a method.
    pub(crate) fn method(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) {
        self.world.send(self.link, &method_frame(channel, class, method, arguments));
    }

    /// The arguments of the method that must come next.
    pub(crate) fn expect(&mut self, class: u16, method: u16) -> Vec<u8> {
        self.read();
        assert_eq!(self.closed, None, "{class}.{method} is expected");
        let (found_class, found_method, arguments) = self.replies.pop_front().expect("an answer");
        assert_eq!((found_class, found_method), (class, method));
        arguments
    }

    fn read(&mut self) {
        self.incoming.unsplit(self.world.receive(self.link));
        while self.incoming.len() >= 7 {
            let mut cursor = Cursor(&self.incoming);
            let (kind, _channel) = (cursor.u8(), cursor.u16());
            let size = usize::try_from(cursor.u32()).unwrap();
            if self.incoming.len() < size + 8 {
                break;
            }
            let payload = self.incoming[7..7 + size].to_vec();
            assert_eq!(self.incoming[7 + size], FRAME_END);
            self.incoming.advance(size + 8);
            match kind {
                METHOD => self.on_method(&payload),
                HEADER => self.on_header(&payload),
                BODY => self.on_body(&payload),
                other => panic!("frame of type {other}"),
            }
        }
    }

    fn on_method(&mut self, payload: &[u8]) {
        assert!(self.partial.is_none(), "a method comes amid content");
        let mut cursor = Cursor(payload);
        match (cursor.u16(), cursor.u16()) {
            (60, 60) => {
                cursor.short();
                self.partial = Some(Delivery {
                    tag: cursor.u64(),
                    redelivered: cursor.u8() != 0,
                    exchange: cursor.short(),
                    key: cursor.short(),
                    ..Delivery::default()
                });
            }
            // `basic.get-ok`, a delivery to nobody's consumer.
            (60, 71) => {
                self.partial = Some(Delivery {
                    tag: cursor.u64(),
                    redelivered: cursor.u8() != 0,
                    exchange: cursor.short(),
                    key: cursor.short(),
                    ..Delivery::default()
                });
            }
            (20, 40) | (10, 50) => self.closed = Some((cursor.u16(), cursor.short())),
            (class, method) => self.replies.push_back((class, method, cursor.0.to_vec())),
        }
    }

    fn on_header(&mut self, payload: &[u8]) {
        let mut cursor = Cursor(payload);
        assert_eq!((cursor.u16(), cursor.u16()), (60, 0));
        let delivery = self.partial.as_mut().expect("a header follows a delivery");
        delivery.body_bytes = usize::try_from(cursor.u64()).unwrap();
        delivery.raw_props = cursor.0.to_vec();
        delivery.props = Props::decode(cursor.0);
        self.finish();
    }

    fn on_body(&mut self, payload: &[u8]) {
        let delivery = self.partial.as_mut().expect("a body follows a header");
        delivery.body.extend_from_slice(payload);
        self.finish();
    }

    fn finish(&mut self) {
        if let Some(whole) = self.partial.take_if(|d| d.body.len() >= d.body_bytes) {
            assert_eq!(whole.body.len(), whole.body_bytes);
            self.deliveries.push_back(whole);
        }
    }
}

fn method_frame(channel: u16, class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    let mut payload = class.to_be_bytes().to_vec();
    payload.extend_from_slice(&method.to_be_bytes());
    payload.extend_from_slice(arguments);
    frame(METHOD, channel, &payload)
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend_from_slice(&channel.to_be_bytes());
    put_long(&mut out, payload);
    out.push(FRAME_END);
    out
}
