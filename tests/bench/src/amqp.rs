//! AMQP 0-9-1 as the generator speaks it: frames encoded once, a blocking handshake, and a scan
//! that walks frame headers without copying a body.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, bail};

use crate::wire::{Wire, be16, be32, be64};

/// Frame type of a method.
const METHOD: u8 = 1;
/// Frame type of a content header.
const HEADER: u8 = 2;
/// Frame type of a content body.
const BODY: u8 = 3;
/// Last byte of every frame.
const FRAME_END: u8 = 0xCE;
/// Largest frame accepted and announced; every payload of the rows fits into one.
const FRAME_MAX: u32 = 131_072;

const CONNECTION_CLOSE: u32 = method_id(10, 50);
const CHANNEL_CLOSE: u32 = method_id(20, 40);
const BASIC_CANCEL: u32 = method_id(60, 30);
const BASIC_ACK: u32 = method_id(60, 80);
const BASIC_NACK: u32 = method_id(60, 120);

const fn method_id(class: u16, method: u16) -> u32 {
    (class as u32) << 16 | method as u32
}

/// User name and password for `PLAIN`.
#[derive(Clone, Debug)]
pub struct Login {
    /// Name of the user.
    pub user: String,
    /// Password of the user.
    pub password: String,
}

impl Default for Login {
    fn default() -> Self {
        Self { user: "guest".into(), password: "guest".into() }
    }
}

/// What the scan found; frames without meaning to the generator are skipped.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message arrived, with this body.
    Message(&'a [u8]),
    /// The broker confirmed a publish, or all up to it.
    Confirmed {
        /// Number of the publish in its channel, from 1.
        tag: u64,
        /// Whether every earlier publish is confirmed too.
        multiple: bool,
    },
    /// The broker gave up the channel, the connection, a consumer or a publish.
    Refused(String),
}

/// Walks the whole frames at the start of `buffer` and returns how many bytes they take.
///
/// Errors: a frame without its end mark or above the frame size agreed on.
pub fn scan<'a>(buffer: &'a [u8], mut on_event: impl FnMut(Event<'a>)) -> Result<usize> {
    let mut at = 0;
    while let Some(head) = buffer.get(at..at + 7) {
        let size = be32(&head[3..]);
        if size > FRAME_MAX {
            bail!("the broker announced a frame of {size} bytes");
        }
        let end = at + 7 + size as usize;
        let Some(&mark) = buffer.get(end) else { break };
        if mark != FRAME_END {
            bail!("a frame of type {} and {size} bytes has no end mark", head[0]);
        }
        let payload = &buffer[at + 7..end];
        match head[0] {
            BODY => on_event(Event::Message(payload)),
            METHOD if size >= 4 => scan_method(payload, &mut on_event),
            _ => {}
        }
        at = end + 1;
    }
    Ok(at)
}

fn scan_method<'a>(payload: &'a [u8], on_event: &mut impl FnMut(Event<'a>)) {
    match (be32(payload), payload.len()) {
        (BASIC_ACK, 13..) => {
            let multiple = payload[12] & 1 == 1;
            on_event(Event::Confirmed { tag: be64(&payload[4..]), multiple });
        }
        (BASIC_NACK, _) => on_event(Event::Refused("a publish was nacked".into())),
        (BASIC_CANCEL, _) => on_event(Event::Refused("the consumer was cancelled".into())),
        (CHANNEL_CLOSE | CONNECTION_CLOSE, 7..) => {
            let code = be16(&payload[4..]);
            let text = payload.get(7..7 + usize::from(payload[6])).unwrap_or_default();
            let text = String::from_utf8_lossy(text);
            on_event(Event::Refused(format!("closed by the broker: {code} {text}")));
        }
        _ => {}
    }
}

fn frame(kind: u8, channel: u16, payload: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out.push(FRAME_END);
}

/// Arguments of a method, written field by field.
struct Args(Vec<u8>);

impl Args {
    fn new(class: u16, method: u16) -> Self {
        Self(method_id(class, method).to_be_bytes().to_vec())
    }

    fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    fn u16(mut self, value: u16) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    fn short(mut self, text: &str) -> Self {
        self.0.push(text.len() as u8);
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn long(self, text: &[u8]) -> Self {
        let mut args = self.u32(text.len() as u32);
        args.0.extend_from_slice(text);
        args
    }

    fn into_frame(self, channel: u16) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.0.len() + 8);
        frame(METHOD, channel, &self.0, &mut out);
        out
    }
}

/// Encodes a publish on channel 1: method, header and body frame.
pub fn publish(exchange: &str, routing_key: &str, persistent: bool, body: &[u8]) -> Vec<u8> {
    let method = Args::new(60, 40).u16(0).short(exchange).short(routing_key).u8(0);
    let mut out = method.into_frame(1);
    let mut header = Vec::new();
    header.extend_from_slice(&60u16.to_be_bytes());
    header.extend_from_slice(&0u16.to_be_bytes());
    header.extend_from_slice(&(body.len() as u64).to_be_bytes());
    if persistent {
        header.extend_from_slice(&0x1000u16.to_be_bytes());
        header.push(2);
    } else {
        header.extend_from_slice(&0u16.to_be_bytes());
    }
    frame(HEADER, 1, &header, &mut out);
    frame(BODY, 1, body, &mut out);
    out
}

/// Appends an acknowledgement of a delivery on channel 1.
pub fn ack(tag: u64, multiple: bool, out: &mut Vec<u8>) {
    let mut payload = [0; 13];
    payload[..4].copy_from_slice(&BASIC_ACK.to_be_bytes());
    payload[4..12].copy_from_slice(&tag.to_be_bytes());
    payload[12] = u8::from(multiple);
    frame(METHOD, 1, &payload, out);
}

/// A connection with channel 1 open, on a blocking socket.
pub struct Connection {
    wire: Wire,
}

impl Connection {
    /// Connects, logs in and opens a channel.
    pub fn open(addr: SocketAddr, login: &Login) -> Result<Self> {
        let mut wire = Wire::connect(addr)?;
        wire.stream.write_all(b"AMQP\0\0\x09\x01")?;
        let mut connection = Self { wire };
        connection.expect(method_id(10, 10))?;
        let response = format!("\0{}\0{}", login.user, login.password);
        let args = Args::new(10, 11).u32(0).short("PLAIN").long(response.as_bytes());
        connection.send(args.short("en_US"), 0)?;
        let tune = connection.expect(method_id(10, 30)).context("login refused")?;
        let channels = tune.get(4..).map_or(0, be16);
        connection.send(Args::new(10, 31).u16(channels).u32(FRAME_MAX).u16(0), 0)?;
        connection.call(Args::new(10, 40).short("/").short("").u8(0), 0, (10, 41))?;
        connection.call(Args::new(20, 10).short(""), 1, (20, 11))?;
        Ok(connection)
    }

    /// Declares a queue; a queue that is not durable goes away with its last consumer.
    pub fn declare_queue(&mut self, queue: &str, durable: bool) -> Result<()> {
        let bits = if durable { 0b0_0010 } else { 0b0_1000 };
        self.call(Args::new(50, 10).u16(0).short(queue).u8(bits).u32(0), 1, (50, 11))
    }

    /// Binds a queue to an exchange.
    pub fn bind_queue(&mut self, queue: &str, exchange: &str, routing_key: &str) -> Result<()> {
        let args = Args::new(50, 20).u16(0).short(queue).short(exchange).short(routing_key);
        self.call(args.u8(0).u32(0), 1, (50, 21))
    }

    /// Deletes a queue with everything in it.
    pub fn delete_queue(&mut self, queue: &str) -> Result<()> {
        self.call(Args::new(50, 40).u16(0).short(queue).u8(0), 1, (50, 41))
    }

    /// Asks for publisher confirms.
    pub fn select_confirms(&mut self) -> Result<()> {
        self.call(Args::new(85, 10).u8(0), 1, (85, 11))
    }

    /// Starts a consumer.
    pub fn consume(&mut self, queue: &str, no_ack: bool) -> Result<()> {
        let bits = if no_ack { 0b10 } else { 0 };
        let args = Args::new(60, 20).u16(0).short(queue).short("c").u8(bits).u32(0);
        self.call(args, 1, (60, 21))
    }

    /// Limits how many deliveries may wait for their acknowledgement.
    pub fn limit_prefetch(&mut self, count: u16) -> Result<()> {
        self.call(Args::new(60, 10).u32(0).u16(count).u8(0), 1, (60, 11))
    }

    /// Gives up the socket and what was read from it beyond the handshake.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        self.wire.into_parts()
    }

    /// Says goodbye without waiting for the answer.
    pub fn close(mut self) -> Result<()> {
        self.send(Args::new(10, 50).u16(200).short("bye").u16(0).u16(0), 0)
    }

    fn send(&mut self, args: Args, channel: u16) -> Result<()> {
        Ok(self.wire.stream.write_all(&args.into_frame(channel))?)
    }

    fn call(&mut self, args: Args, channel: u16, answer: (u16, u16)) -> Result<()> {
        self.send(args, channel)?;
        self.expect(method_id(answer.0, answer.1)).map(drop)
    }

    /// Reads the next method and returns its payload.
    fn expect(&mut self, method: u32) -> Result<Vec<u8>> {
        loop {
            let head = self.wire.take(7)?;
            if &head[..4] == b"AMQP" {
                bail!("the broker does not speak AMQP 0-9-1");
            }
            let size = be32(&head[3..]);
            if size > FRAME_MAX {
                bail!("the broker announced a frame of {size} bytes");
            }
            let mut payload = self.wire.take(size as usize + 1)?;
            payload.pop();
            if head[0] != METHOD || payload.len() < 4 {
                continue;
            }
            let found = be32(&payload);
            if found == method {
                return Ok(payload);
            }
            let mut refusal = None;
            scan_method(&payload, &mut |event| {
                if let Event::Refused(text) = event {
                    refusal = Some(text);
                }
            });
            let (class, id) = (method >> 16, method & 0xFFFF);
            let text = refusal.unwrap_or_else(|| format!("unexpected method {found:#010x}"));
            bail!("waiting for method {class}.{id}: {text}");
        }
    }
}

/// Encodes a delivery as a broker would, for tests.
#[cfg(test)]
fn delivery(tag: u64, body: &[u8]) -> Vec<u8> {
    let (high, low) = ((tag >> 32) as u32, tag as u32);
    let args = Args::new(60, 60).short("c").u32(high).u32(low).u8(0).short("").short("q");
    let mut out = args.into_frame(1);
    let published = publish("", "q", false, body);
    let method_size = 8 + be32(&published[3..]) as usize;
    out.extend_from_slice(&published[method_size..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies(buffer: &[u8]) -> (usize, Vec<Vec<u8>>) {
        let mut found = Vec::new();
        let used = scan(buffer, |event| match event {
            Event::Message(body) => found.push(body.to_vec()),
            other => panic!("unexpected {other:?}"),
        });
        (used.unwrap(), found)
    }

    #[test]
    fn publish_is_method_header_and_body() {
        let wire = publish("", "q", true, b"hi");
        assert_eq!(
            wire,
            [
                &[1, 0, 1, 0, 0, 0, 10, 0, 60, 0, 40, 0, 0, 0, 1, b'q', 0, 0xCE][..],
                &[2, 0, 1, 0, 0, 0, 15, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0x10, 0, 2, 0xCE],
                &[3, 0, 1, 0, 0, 0, 2, b'h', b'i', 0xCE],
            ]
            .concat()
        );
    }

    #[test]
    fn ack_carries_tag_and_multiple() {
        let mut wire = Vec::new();
        ack(258, true, &mut wire);
        assert_eq!(wire.len(), 21);
        let mut seen = None;
        let used = scan(&wire, |event| seen = Some(event)).unwrap();
        assert_eq!(used, 21);
        assert_eq!(seen, Some(Event::Confirmed { tag: 258, multiple: true }));
    }

    #[test]
    fn scan_finds_the_same_messages_however_the_bytes_are_split() {
        let mut wire = Vec::new();
        for tag in 1..=5u64 {
            wire.extend(delivery(tag, &[tag as u8; 9]));
        }
        let (used, whole) = bodies(&wire);
        assert_eq!((used, whole.len()), (wire.len(), 5));
        for cut in 0..wire.len() {
            let (first, mut found) = bodies(&wire[..cut]);
            assert!(first <= cut);
            let (second, rest) = bodies(&wire[first..]);
            found.extend(rest);
            assert_eq!(first + second, wire.len());
            assert_eq!(found, whole, "cut at {cut}");
        }
    }

    #[test]
    fn scan_refuses_a_frame_without_its_end_mark() {
        let mut wire = delivery(1, b"x");
        *wire.last_mut().unwrap() = 0;
        assert!(scan(&wire, |_| ()).is_err());
    }

    #[test]
    fn scan_refuses_an_enormous_frame() {
        assert!(scan(&[3, 0, 1, 255, 255, 255, 255, 0], |_| ()).is_err());
    }

    #[test]
    fn channel_close_reports_code_and_text() {
        let wire = Args::new(20, 40).u16(404).short("no queue").u16(0).u16(0).into_frame(1);
        let mut text = String::new();
        scan(&wire, |event| {
            if let Event::Refused(why) = event {
                text = why;
            }
        })
        .unwrap();
        assert!(text.contains("404 no queue"), "{text}");
    }
}
