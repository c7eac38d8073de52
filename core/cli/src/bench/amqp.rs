//! AMQP 0-9-1, as far as a load test speaks it. One channel.

use anyhow::bail;

use super::{Client, Plan, wire::Wire};

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const FRAME_END: u8 = 0xce;
const FRAME_MAX: u32 = 131_072;
/// Unacknowledged deliveries of a consumer.
const PREFETCH: u16 = 1_000;
/// A queue that was forgotten goes after ten minutes.
const EXPIRES: &[u8] = b"\x09x-expiresI\x00\x09\x27\xc0";

const fn id(class: u32, method: u32) -> u32 {
    class << 16 | method
}
const CONNECTION_CLOSE: u32 = id(10, 50);
const CHANNEL_CLOSE: u32 = id(20, 40);
const DELIVER: u32 = id(60, 60);
const ACK: u32 = id(60, 80);
const NACK: u32 = id(60, 120);

pub(super) struct Amqp {
    wire: Wire,
    is_confirmed: bool,
    confirmed: u64,
    /// Tag of the delivery whose body comes.
    delivering: u64,
}

/// A method, written field by field.
struct Method(Vec<u8>);

impl Method {
    fn new(class: u32, method: u32) -> Self {
        Self(id(class, method).to_be_bytes().to_vec())
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn short(mut self, text: &str) -> Self {
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.bytes(text.as_bytes().get(..255).unwrap_or(text.as_bytes()))
    }

    fn long(self, bytes: &[u8]) -> Self {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.bytes(&len.to_be_bytes()).bytes(bytes)
    }
}

fn frame(kind: u8, channel: u16, payload: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(payload);
    out.push(FRAME_END);
}

fn be32(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |four| u32::from_be_bytes(*four))
}

fn be64(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |eight| u64::from_be_bytes(*eight))
}

/// The first whole frame: its type, its payload and how many bytes it takes.
fn first(bytes: &[u8]) -> anyhow::Result<Option<(u8, &[u8], usize)>> {
    let Some(head) = bytes.get(..7) else { return Ok(None) };
    if head.starts_with(b"AMQP") {
        bail!("the broker does not speak AMQP 0-9-1");
    }
    let size = be32(head.get(3..).unwrap_or_default());
    if size > FRAME_MAX {
        bail!("the broker sends a frame of {size} bytes");
    }
    let end = 7 + size as usize;
    match (bytes.get(7..end), bytes.get(end)) {
        (Some(payload), Some(&FRAME_END)) => Ok(Some((head[0], payload, end + 1))),
        (_, Some(_)) => bail!("the broker sends a frame without its end"),
        (_, None) => Ok(None),
    }
}

impl Amqp {
    pub(super) fn open(plan: &Plan) -> anyhow::Result<Self> {
        let mut wire = Wire::connect(plan.address)?;
        wire.out.extend_from_slice(b"AMQP\0\0\x09\x01");
        let is_confirmed = plan.is_confirmed;
        let mut client = Self { wire, is_confirmed, confirmed: 0, delivering: 0 };
        client.expect(id(10, 10))?;
        let response = format!("\0{}\0{}", plan.user, plan.password);
        let start = Method::new(10, 11).bytes(&[0; 4]).short("PLAIN").long(response.as_bytes());
        client.send(0, start.short("en_US"));
        let tune = client.expect(id(10, 30))?;
        let channels = tune.get(4..6).unwrap_or(&[0, 1]).to_vec();
        let tuned = Method::new(10, 31).bytes(&channels).bytes(&FRAME_MAX.to_be_bytes());
        client.send(0, tuned.bytes(&[0, 0]));
        client.send(0, Method::new(10, 40).short(&plan.vhost).short("").bytes(&[0]));
        client.expect(id(10, 41))?;
        client.send(1, Method::new(20, 10).short(""));
        client.expect(id(20, 11))?;
        if is_confirmed {
            client.send(1, Method::new(85, 10).bytes(&[0]));
            client.expect(id(85, 11))?;
        }
        Ok(client)
    }

    fn send(&mut self, channel: u16, method: Method) {
        frame(METHOD, channel, &method.0, &mut self.wire.out);
    }

    /// The payload of the next method, which must be this one.
    fn expect(&mut self, wanted: u32) -> anyhow::Result<Vec<u8>> {
        self.wire.ask(|wire| {
            let Some((kind, payload, size)) = first(wire.waiting())? else { return Ok(None) };
            let payload = payload.to_vec();
            wire.take(size);
            match be32(&payload) {
                _ if kind != METHOD => Ok(None),
                found if found == wanted => Ok(Some(payload)),
                CONNECTION_CLOSE | CHANNEL_CLOSE => bail!("{}", refusal(&payload)),
                found => bail!("the broker sends {}.{}", found >> 16, found & 0xffff),
            }
        })
    }

    fn ack(&mut self) {
        let tag = self.delivering.to_be_bytes();
        self.send(1, Method::new(60, 80).bytes(&tag).bytes(&[1]));
    }
}

/// Why the broker closes a channel or the connection.
fn refusal(payload: &[u8]) -> String {
    let length = usize::from(payload.get(6).copied().unwrap_or(0));
    let text = payload.get(7..7 + length).unwrap_or_default();
    format!("the broker refuses: {}", String::from_utf8_lossy(text).escape_debug())
}

impl Client for Amqp {
    fn publish(&mut self, place: &str, body: &[u8]) {
        self.send(1, Method::new(60, 40).bytes(&[0, 0]).short("").short(place).bytes(&[0]));
        let mut header = vec![0, 60, 0, 0];
        header.extend_from_slice(&(body.len() as u64).to_be_bytes());
        // The property delivery-mode: 2 is persistent.
        header.extend_from_slice(&[0x10, 0, if self.is_confirmed { 2 } else { 1 }]);
        frame(HEADER, 1, &header, &mut self.wire.out);
        frame(BODY, 1, body, &mut self.wire.out);
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.wire.flush()
    }

    fn read(&mut self, on_message: &mut dyn FnMut(&[u8])) -> anyhow::Result<()> {
        if first(self.wire.waiting())?.is_none() {
            self.wire.fill()?;
        }
        let mut is_owed = false;
        while let Some((kind, payload, size)) = first(self.wire.waiting())? {
            match (kind, be32(payload)) {
                // A body fits into one frame, as what is published here does.
                (BODY, _) => {
                    on_message(payload);
                    is_owed = self.is_confirmed;
                }
                (METHOD, DELIVER) => {
                    let tag = 5 + usize::from(payload.get(4).copied().unwrap_or(0));
                    self.delivering = be64(payload.get(tag..).unwrap_or_default());
                }
                (METHOD, ACK) => {
                    let tag = be64(payload.get(4..).unwrap_or_default());
                    let is_multiple = payload.get(12).is_some_and(|bits| bits & 1 == 1);
                    self.confirmed =
                        if is_multiple { self.confirmed.max(tag) } else { self.confirmed + 1 };
                }
                (METHOD, NACK) => bail!("the broker has refused a publish"),
                (METHOD, CONNECTION_CLOSE | CHANNEL_CLOSE) => bail!("{}", refusal(payload)),
                _ => {}
            }
            self.wire.take(size);
        }
        if is_owed {
            self.ack();
        }
        self.wire.flush()
    }

    fn confirmed(&self) -> u64 {
        self.confirmed
    }

    fn prepare(&mut self, place: &str, consumes: bool) -> anyhow::Result<()> {
        let bits = if self.is_confirmed { 0b10 } else { 0 };
        let declare = Method::new(50, 10).bytes(&[0, 0]).short(place).bytes(&[bits]);
        self.send(1, declare.long(EXPIRES));
        self.expect(id(50, 11))?;
        if consumes {
            self.send(
                1,
                Method::new(60, 10).bytes(&[0; 4]).bytes(&PREFETCH.to_be_bytes()).bytes(&[0]),
            );
            self.expect(id(60, 11))?;
            let no_ack = if self.is_confirmed { 0 } else { 0b10 };
            let consume = Method::new(60, 20).bytes(&[0, 0]).short(place).short("bench");
            self.send(1, consume.bytes(&[no_ack, 0, 0, 0, 0]));
            self.expect(id(60, 21))?;
        }
        Ok(())
    }

    fn remove(&mut self, place: &str) -> anyhow::Result<()> {
        self.send(1, Method::new(50, 40).bytes(&[0, 0]).short(place).bytes(&[0]));
        self.expect(id(50, 41)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_whole_or_not_at_all() {
        let mut bytes = Vec::new();
        frame(
            METHOD,
            1,
            &Method::new(60, 80).bytes(&7_u64.to_be_bytes()).bytes(&[1]).0,
            &mut bytes,
        );
        assert_eq!(bytes.len(), 21);
        let (kind, payload, size) = first(&bytes).unwrap().unwrap();
        assert_eq!((kind, be32(payload), size), (METHOD, ACK, 21));
        assert!((0..bytes.len()).all(|cut| first(&bytes[..cut]).unwrap().is_none()));
        *bytes.last_mut().unwrap() = 0;
        assert!(first(&bytes).is_err());
        assert!(first(b"AMQP\0\0\x09\x01").is_err());
        assert!(first(&[3, 0, 1, 255, 255, 255, 255, 0]).is_err());
    }

    #[test]
    fn a_refusal_is_told_in_words() {
        let close = Method::new(20, 40).bytes(&404_u16.to_be_bytes()).short("no queue");
        assert_eq!(refusal(&close.0), "the broker refuses: no queue");
    }
}
