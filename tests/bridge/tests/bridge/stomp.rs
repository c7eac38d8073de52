//! Clients of STOMP 1.0, 1.1 and 1.2.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};

use crate::world::{Speaks, World};

pub(crate) struct Stomp {
    world: World,
    link: usize,
    version: &'static str,
    incoming: BytesMut,
    frames: VecDeque<Frame>,
    subscriptions: u32,
}

/// A frame of the server, with headers as they are meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Frame {
    pub(crate) command: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// What the server says about a delivery; everything else is the message's.
const OF_THE_SERVER: [&str; 6] =
    ["subscription", "destination", "message-id", "ack", "redelivered", "content-length"];

impl Frame {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Headers of the message, in order.
    pub(crate) fn own(&self) -> Vec<(String, String)> {
        let is_own = |(name, _): &&(String, String)| !OF_THE_SERVER.contains(&name.as_str());
        self.headers.iter().filter(is_own).cloned().collect()
    }
}

/// Headers as a test writes them.
pub(crate) fn headers(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

impl Stomp {
    pub(crate) fn connect(world: &World) -> Self {
        Self::connect_as(world, "1.2", "guest")
    }

    pub(crate) fn connect_as(world: &World, version: &'static str, user: &str) -> Self {
        let mut client = Self {
            world: world.clone(),
            link: world.open(Speaks::Stomp),
            version,
            incoming: BytesMut::new(),
            frames: VecDeque::new(),
            subscriptions: 0,
        };
        let connect = headers(&[
            ("accept-version", version),
            ("host", "/"),
            ("login", user),
            ("passcode", "secret"),
        ]);
        let frame = client.encoded("CONNECT", &connect, b"");
        world.send(client.link, &frame);
        assert_eq!(client.frame().get("version"), Some(version));
        client
    }

    /// Subscribes and returns the subscription's id.
    pub(crate) fn subscribe(&mut self, destination: &str) -> String {
        self.subscribe_with(destination, &[])
    }

    pub(crate) fn subscribe_with(&mut self, destination: &str, more: &[(&str, &str)]) -> String {
        self.subscriptions += 1;
        let id = self.subscriptions.to_string();
        let own = [("id", id.as_str()), ("destination", destination), ("receipt", "s")];
        self.command("SUBSCRIBE", &[&own, more].concat());
        self.read();
        let receipt = self.frames.pop_front().expect("a receipt");
        assert_eq!(receipt.get("receipt-id"), Some("s"), "{receipt:?}");
        id
    }

    pub(crate) fn command(&mut self, command: &str, pairs: &[(&str, &str)]) {
        let frame = self.encoded(command, &headers(pairs), b"");
        self.world.send(self.link, &frame);
    }

    pub(crate) fn send(&mut self, destination: &str, pairs: &[(&str, &str)], body: &[u8]) {
        self.send_headers(destination, &headers(pairs), body);
    }

    pub(crate) fn send_headers(
        &mut self,
        destination: &str,
        own: &[(String, String)],
        body: &[u8],
    ) {
        let length = body.len().to_string();
        let mut all = headers(&[("destination", destination), ("content-length", &length)]);
        all.extend_from_slice(own);
        let frame = self.encoded("SEND", &all, body);
        self.world.send(self.link, &frame);
    }

    /// Sends what was received, with all its headers, to another place.
    pub(crate) fn republish(&mut self, message: &Frame, destination: &str) {
        self.send_headers(destination, &message.own(), &message.body);
    }

    /// Every frame that has come.
    pub(crate) fn all(&mut self) -> Vec<Frame> {
        self.read();
        self.frames.drain(..).collect()
    }

    fn frame(&mut self) -> Frame {
        let mut all = self.all();
        assert_eq!(all.len(), 1, "one frame is expected: {all:?}");
        all.remove(0)
    }

    /// The only frame that has come, which is a message.
    pub(crate) fn message(&mut self) -> Frame {
        let frame = self.frame();
        assert_eq!(frame.command, "MESSAGE", "{frame:?}");
        frame
    }

    /// The ERROR that ended the connection.
    pub(crate) fn failure(&mut self) -> Frame {
        let frame = self.frame();
        assert_eq!(frame.command, "ERROR", "{frame:?}");
        assert!(!self.world.is_open(self.link));
        frame
    }

    /// What it says.
    pub(crate) fn error(&mut self) -> String {
        String::from_utf8(self.failure().body).unwrap()
    }

    pub(crate) fn cut(self) {
        self.world.cut(self.link);
    }

    fn encoded(&self, command: &str, all: &[(String, String)], body: &[u8]) -> Vec<u8> {
        let is_escaped = command != "CONNECT";
        let mut out = format!("{command}\n").into_bytes();
        for (name, value) in all {
            for (text, end) in [(name, ':'), (value, '\n')] {
                let text = if is_escaped { self.escape(text) } else { text.clone() };
                out.extend(text.bytes());
                out.extend(end.to_string().bytes());
            }
        }
        out.push(b'\n');
        out.extend_from_slice(body);
        out.push(0);
        out
    }

    fn escape(&self, text: &str) -> String {
        if self.version == "1.0" {
            return text.to_owned();
        }
        let text = text.replace('\\', "\\\\").replace('\n', "\\n").replace(':', "\\c");
        if self.version == "1.2" { text.replace('\r', "\\r") } else { text }
    }

    fn unescape(&self, text: &str) -> String {
        if self.version == "1.0" {
            return text.to_owned();
        }
        let mut out = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            assert_ne!(c, '\r', "a carriage return is escaped or not sent");
            out.push(match c {
                '\\' => match chars.next() {
                    Some('n') => '\n',
                    Some('c') => ':',
                    Some('\\') => '\\',
                    Some('r') if self.version == "1.2" => '\r',
                    other => panic!("undefined escape {other:?}"),
                },
                c => c,
            });
        }
        out
    }

    fn read(&mut self) {
        self.incoming.unsplit(self.world.receive(self.link));
        while !self.incoming.is_empty() {
            if self.incoming[0] == b'\n' {
                self.incoming.advance(1);
                continue;
            }
            let end = self.incoming.windows(2).position(|pair| pair == b"\n\n").expect("a head");
            let head = String::from_utf8(self.incoming.split_to(end).to_vec()).unwrap();
            self.incoming.advance(2);
            let mut lines = head.split('\n');
            let command = lines.next().unwrap().to_owned();
            let mut all = Vec::new();
            for line in lines {
                let (name, value) = line.split_once(':').expect("a header");
                all.push((self.unescape(name), self.unescape(value)));
            }
            let mut frame = Frame { command, headers: all, body: Vec::new() };
            let length = frame.get("content-length").map_or(0, |text| text.parse().unwrap());
            frame.body = self.incoming.split_to(length).to_vec();
            assert_eq!(self.incoming.get_u8(), 0, "a frame ends with NUL");
            self.frames.push_back(frame);
        }
    }
}
