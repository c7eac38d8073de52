//! Clients of MQTT 3.1, 3.1.1 and 5.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};

use crate::{
    wire::{Cursor, put_binary, put_var},
    world::{Speaks, World},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V31,
    V311,
    V5,
}

pub(crate) struct Mqtt {
    world: World,
    link: usize,
    version: Version,
    /// False when the test answers publishes of quality of service 1 and 2 itself.
    answers: bool,
    next_id: u16,
    incoming: BytesMut,
    received: VecDeque<Received>,
    /// First byte and rest of the packets that are no PUBLISH.
    replies: VecDeque<(u8, Vec<u8>)>,
}

/// The properties of a PUBLISH.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Properties {
    pub(crate) format: Option<u8>,
    pub(crate) expiry: Option<u32>,
    pub(crate) content_type: Option<String>,
    pub(crate) response_topic: Option<String>,
    pub(crate) correlation: Option<Vec<u8>>,
    pub(crate) subscription_ids: Vec<u32>,
    pub(crate) user: Vec<(String, String)>,
}

/// A PUBLISH from the server.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Received {
    pub(crate) topic: String,
    pub(crate) qos: u8,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    pub(crate) packet_id: u16,
    pub(crate) raw_properties: Vec<u8>,
    pub(crate) properties: Properties,
    pub(crate) payload: Vec<u8>,
}

impl Received {
    pub(crate) fn user(&self, name: &str) -> Option<&str> {
        self.properties.get(name)
    }
}

impl Properties {
    pub(crate) fn of_user(user: &[(&str, &str)]) -> Self {
        let user = user.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Self { user, ..Self::default() }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.user.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(format) = self.format {
            out.extend([0x01, format]);
        }
        if let Some(seconds) = self.expiry {
            out.push(0x02);
            out.extend(seconds.to_be_bytes());
        }
        let mut binary = |id: u8, bytes: Option<&[u8]>| {
            if let Some(bytes) = bytes {
                out.push(id);
                put_binary(&mut out, bytes);
            }
        };
        binary(0x03, self.content_type.as_deref().map(str::as_bytes));
        binary(0x08, self.response_topic.as_deref().map(str::as_bytes));
        binary(0x09, self.correlation.as_deref());
        for (name, value) in &self.user {
            out.push(0x26);
            put_binary(&mut out, name.as_bytes());
            put_binary(&mut out, value.as_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Self {
        let mut found = Self::default();
        let mut cursor = Cursor(bytes);
        while !cursor.is_empty() {
            match cursor.u8() {
                0x01 => assert_eq!(found.format.replace(cursor.u8()), None),
                0x02 => assert_eq!(found.expiry.replace(cursor.u32()), None),
                0x03 => assert_eq!(found.content_type.replace(cursor.text()), None),
                0x08 => assert_eq!(found.response_topic.replace(cursor.text()), None),
                0x09 => assert_eq!(found.correlation.replace(cursor.binary().to_vec()), None),
                0x0B => found.subscription_ids.push(cursor.var().unwrap()),
                0x26 => found.user.push((cursor.text(), cursor.text())),
                other => panic!("no PUBLISH has the property {other:#x}"),
            }
        }
        found
    }
}

/// What a client publishes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) properties: Properties,
    pub(crate) payload: Vec<u8>,
}

/// A publish of quality of service 1 without properties.
pub(crate) fn publish(topic: &str, payload: &[u8]) -> Publish {
    Publish { topic: topic.to_owned(), qos: 1, payload: payload.to_vec(), ..Publish::default() }
}

impl Publish {
    pub(crate) fn qos(self, qos: u8) -> Self {
        Self { qos, ..self }
    }

    pub(crate) fn with(self, properties: &Properties) -> Self {
        Self { properties: properties.clone(), ..self }
    }
}

impl Mqtt {
    pub(crate) fn connect(world: &World, version: Version, client_id: &str) -> Self {
        Self::connect_as(world, version, client_id, "guest", &[])
    }

    pub(crate) fn v5(world: &World, client_id: &str) -> Self {
        Self::connect(world, Version::V5, client_id)
    }

    pub(crate) fn v311(world: &World, client_id: &str) -> Self {
        Self::connect(world, Version::V311, client_id)
    }

    fn new(world: &World, version: Version) -> Self {
        Self {
            world: world.clone(),
            link: world.open(Speaks::Mqtt),
            version,
            answers: true,
            next_id: 0,
            incoming: BytesMut::new(),
            received: VecDeque::new(),
            replies: VecDeque::new(),
        }
    }

    /// Connects with properties of CONNECT, of which the versions before 5 have none.
    pub(crate) fn connect_as(
        world: &World,
        version: Version,
        client_id: &str,
        user: &str,
        properties: &[u8],
    ) -> Self {
        let (client, connack) = Self::attempt(world, version, client_id, user, properties);
        assert_eq!(connack[1], 0, "the connection is accepted");
        client
    }

    /// The return or reason code with which a connection is refused.
    pub(crate) fn refused(world: &World, version: Version, client_id: &str) -> u8 {
        Self::attempt(world, version, client_id, "guest", &[]).1[1]
    }

    /// Sends CONNECT; the second value is CONNACK.
    fn attempt(
        world: &World,
        version: Version,
        client_id: &str,
        user: &str,
        properties: &[u8],
    ) -> (Self, Vec<u8>) {
        let mut client = Self::new(world, version);
        let (name, level) = match version {
            Version::V31 => ("MQIsdp", 3),
            Version::V311 => ("MQTT", 4),
            Version::V5 => ("MQTT", 5),
        };
        let mut body = Vec::new();
        put_binary(&mut body, name.as_bytes());
        // User name, password, clean start; no keep-alive.
        body.extend([level, 0b1100_0010, 0, 0]);
        if version == Version::V5 {
            put_var(&mut body, properties.len());
            body.extend_from_slice(properties);
        }
        put_binary(&mut body, client_id.as_bytes());
        put_binary(&mut body, user.as_bytes());
        put_binary(&mut body, b"secret");
        client.packet(0x10, &body);
        let connack = client.reply(0x20);
        (client, connack)
    }

    /// Connects a client of version 5 that leaves a will of quality of service 1.
    pub(crate) fn with_will(world: &World, client_id: &str, will: &Publish) -> Self {
        let mut client = Self::new(world, Version::V5);
        let mut body = b"\x00\x04MQTT\x05\xCE\x00\x00\x00".to_vec();
        put_binary(&mut body, client_id.as_bytes());
        let properties = will.properties.encode();
        put_var(&mut body, properties.len());
        body.extend(properties);
        put_binary(&mut body, will.topic.as_bytes());
        put_binary(&mut body, &will.payload);
        put_binary(&mut body, b"u2");
        put_binary(&mut body, b"secret");
        client.packet(0x10, &body);
        assert_eq!(client.reply(0x20)[1], 0, "the connection is accepted");
        client
    }

    /// Leaves the answers to publishes to the test.
    pub(crate) fn answering_by_hand(mut self) -> Self {
        self.answers = false;
        self
    }

    pub(crate) fn subscribe(&mut self, filter: &str, qos: u8) {
        let reason = self.subscribe_with(filter, qos, None);
        assert_eq!(reason, qos, "the subscription of {filter} is granted");
    }

    /// Subscribes with these options and this subscription identifier; returns the reason code.
    pub(crate) fn subscribe_with(&mut self, filter: &str, options: u8, id: Option<u32>) -> u8 {
        let mut properties = Vec::new();
        if let Some(id) = id {
            properties.push(0x0B);
            put_var(&mut properties, usize::try_from(id).unwrap());
        }
        self.send_subscribe(filter, options, &properties)
    }

    /// Subscribes with quality of service 1 and arguments in user properties; returns the reason
    /// code.
    pub(crate) fn subscribe_as(&mut self, filter: &str, arguments: &[(&str, &str)]) -> u8 {
        self.send_subscribe(filter, 1, &Properties::of_user(arguments).encode())
    }

    fn send_subscribe(&mut self, filter: &str, options: u8, properties: &[u8]) -> u8 {
        self.next_id += 1;
        let mut body = self.next_id.to_be_bytes().to_vec();
        if self.version == Version::V5 {
            put_var(&mut body, properties.len());
            body.extend(properties);
        }
        put_binary(&mut body, filter.as_bytes());
        body.push(options);
        self.packet(0x82, &body);
        *self.reply(0x90).last().expect("SUBACK has a reason code")
    }

    /// Publishes, answers what the server answers, and returns the reason code.
    pub(crate) fn publish(&mut self, publish: Publish) -> u8 {
        self.publish_acked(publish).get(2).copied().unwrap_or(0)
    }

    /// Publishes, answers what the server answers, and returns the body of PUBACK or PUBREC.
    pub(crate) fn publish_acked(&mut self, publish: Publish) -> Vec<u8> {
        let qos = publish.qos;
        self.send(publish);
        if qos == 0 {
            return Vec::new();
        }
        let answer = self.reply(if qos == 1 { 0x40 } else { 0x50 });
        let reason = answer.get(2).copied().unwrap_or(0);
        if qos == 2 && reason < 0x80 {
            self.packet(0x62, &answer[..2]);
            self.reply(0x70);
        }
        answer
    }

    /// Publishes and waits for nothing.
    pub(crate) fn send(&mut self, publish: Publish) {
        let mut body = Vec::new();
        put_binary(&mut body, publish.topic.as_bytes());
        if publish.qos > 0 {
            self.next_id += 1;
            body.extend(self.next_id.to_be_bytes());
        }
        if self.version == Version::V5 {
            let properties = publish.properties.encode();
            put_var(&mut body, properties.len());
            body.extend(properties);
        }
        body.extend_from_slice(&publish.payload);
        self.packet(0x30 | publish.qos << 1 | u8::from(publish.retain), &body);
    }

    /// First byte and rest of the packet that has come, which is no PUBLISH; `None` when there is
    /// none.
    pub(crate) fn answer(&mut self) -> Option<(u8, Vec<u8>)> {
        self.read();
        self.replies.pop_front()
    }

    /// Publishes what was received, with all its properties, to another topic.
    pub(crate) fn republish(&mut self, received: &Received, topic: &str) {
        let mut properties = received.properties.clone();
        properties.subscription_ids.clear();
        let reason = self.publish(Publish {
            topic: topic.to_owned(),
            qos: received.qos,
            retain: received.retain,
            properties,
            payload: received.payload.clone(),
        });
        assert!(reason < 0x80, "the publish is accepted: {reason:#x}");
    }

    /// PUBACK with a reason code.
    pub(crate) fn puback(&mut self, packet_id: u16, reason: u8) {
        let mut body = packet_id.to_be_bytes().to_vec();
        if self.version == Version::V5 {
            body.push(reason);
        }
        self.packet(0x40, &body);
    }

    /// Publishes that have come.
    pub(crate) fn all(&mut self) -> Vec<Received> {
        self.read();
        self.received.drain(..).collect()
    }

    /// The only publish that has come.
    pub(crate) fn one(&mut self) -> Received {
        let mut received = self.all();
        assert_eq!(received.len(), 1, "one publish is expected: {received:?}");
        received.remove(0)
    }

    pub(crate) fn topics(&mut self) -> Vec<String> {
        self.all().into_iter().map(|received| received.topic).collect()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.world.is_open(self.link)
    }

    pub(crate) fn cut(self) {
        self.world.cut(self.link);
    }

    /// Sends the beginning of a packet of this length.
    pub(crate) fn packet_head(&mut self, first: u8, length: usize) {
        let mut out = vec![first];
        put_var(&mut out, length);
        self.world.send(self.link, &out);
    }

    /// Sends a packet.
    pub(crate) fn packet(&mut self, first: u8, body: &[u8]) {
        let mut out = vec![first];
        put_var(&mut out, body.len());
        out.extend_from_slice(body);
        self.world.send(self.link, &out);
    }

    fn reply(&mut self, first: u8) -> Vec<u8> {
        self.read();
        let (found, body) = self.replies.pop_front().expect("an answer");
        assert_eq!(found, first, "another packet came: {body:?}");
        body
    }

    fn read(&mut self) {
        loop {
            self.incoming.unsplit(self.world.receive(self.link));
            let mut cursor = Cursor(&self.incoming);
            if cursor.is_empty() {
                return;
            }
            let first = cursor.u8();
            let Some(length) = cursor.var() else { return };
            let length = usize::try_from(length).unwrap();
            if cursor.0.len() < length {
                return;
            }
            let head = self.incoming.len() - cursor.0.len();
            let body = cursor.take(length).to_vec();
            self.incoming.advance(head + length);
            self.on_packet(first, &body);
        }
    }

    fn on_packet(&mut self, first: u8, body: &[u8]) {
        match first >> 4 {
            3 => self.on_publish(first, body),
            6 if self.answers => self.packet(0x70, &body[..2]),
            _ => self.replies.push_back((first, body.to_vec())),
        }
    }

    fn on_publish(&mut self, first: u8, body: &[u8]) {
        let mut cursor = Cursor(body);
        let qos = first >> 1 & 3;
        let mut received = Received {
            topic: cursor.text(),
            qos,
            dup: first & 8 != 0,
            retain: first & 1 != 0,
            packet_id: if qos > 0 { cursor.u16() } else { 0 },
            ..Received::default()
        };
        if self.version == Version::V5 {
            let length = usize::try_from(cursor.var().unwrap()).unwrap();
            received.raw_properties = cursor.take(length).to_vec();
            received.properties = Properties::decode(&received.raw_properties);
        }
        received.payload = cursor.0.to_vec();
        if self.answers && qos > 0 {
            let answer = if qos == 1 { 0x40 } else { 0x50 };
            self.packet(answer, &received.packet_id.to_be_bytes());
        }
        self.received.push_back(received);
    }
}
