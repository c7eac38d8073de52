//! MQTT 3.1.1 and 5 as the generator speaks it: packets encoded once, a blocking handshake, and a
//! scan that walks fixed headers without copying a payload.

use std::net::{SocketAddr, TcpStream};

use anyhow::{Result, bail};

use crate::wire::{Wire, be16};

/// Protocol version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V4,
    /// MQTT 5.
    V5,
}

/// What the scan found; packets without meaning to the generator are skipped.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A message arrived; `id` is set above QoS 0.
    Message {
        /// Packet identifier to acknowledge.
        id: Option<u16>,
        /// The application message.
        payload: &'a [u8],
    },
    /// The broker acknowledged a publish of QoS 1.
    Confirmed,
    /// The broker disconnects or refuses a publish.
    Refused(String),
}

/// Walks the whole packets at the start of `buffer` and returns how many bytes they take.
///
/// Errors: a malformed length, or a publish whose parts exceed it.
pub fn scan<'a>(
    version: Version,
    buffer: &'a [u8],
    mut on_event: impl FnMut(Event<'a>),
) -> Result<usize> {
    let mut at = 0;
    while let Some(&first) = buffer.get(at) {
        let Some((length, width)) = remaining_length(&buffer[at + 1..])? else { break };
        let start = at + 1 + width;
        let Some(body) = buffer.get(start..start + length) else { break };
        match first >> 4 {
            3 => {
                let Some(event) = parse_publish(version, first, body) else {
                    bail!("a publish of {length} bytes is malformed");
                };
                on_event(event);
            }
            4 => match body.get(2) {
                Some(&code) if code >= 0x80 => {
                    on_event(Event::Refused(format!("publish refused with code {code:#04x}")));
                }
                _ => on_event(Event::Confirmed),
            },
            14 => {
                let code = body.first().copied().unwrap_or_default();
                on_event(Event::Refused(format!("disconnected with code {code:#04x}")));
            }
            _ => {}
        }
        at = start + length;
    }
    Ok(at)
}

fn parse_publish(version: Version, first: u8, body: &[u8]) -> Option<Event<'_>> {
    let mut at = 2 + usize::from(be16(body.get(..2)?));
    let mut id = None;
    if first & 0b0110 != 0 {
        id = Some(be16(body.get(at..at + 2)?));
        at += 2;
    }
    if version == Version::V5 {
        let (length, width) = remaining_length(body.get(at..)?).ok()??;
        at += length + width;
    }
    Some(Event::Message { id, payload: body.get(at..)? })
}

/// Reads a variable byte integer: its value and width, or nothing when bytes are missing.
fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte < 0x80 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= 4 {
        bail!("a length takes more than four bytes");
    }
    Ok(None)
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut rest = body.len();
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out.extend_from_slice(body);
    out
}

fn text(value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value.as_bytes());
}

fn no_properties(version: Version, out: &mut Vec<u8>) {
    if version == Version::V5 {
        out.push(0);
    }
}

/// Encodes a publish; with an `id` it is of QoS 1.
pub fn publish(version: Version, topic: &str, id: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    text(topic, &mut body);
    if let Some(id) = id {
        body.extend_from_slice(&id.to_be_bytes());
    }
    no_properties(version, &mut body);
    body.extend_from_slice(payload);
    packet(if id.is_some() { 0x32 } else { 0x30 }, &body)
}

/// Appends the acknowledgement of a publish of QoS 1.
pub fn puback(id: u16, out: &mut Vec<u8>) {
    let [high, low] = id.to_be_bytes();
    out.extend_from_slice(&[0x40, 2, high, low]);
}

/// An accepted connection on a blocking socket.
pub struct Connection {
    wire: Wire,
    version: Version,
}

impl Connection {
    /// Connects with a clean session and no keep-alive.
    pub fn open(
        addr: SocketAddr,
        version: Version,
        client_id: &str,
        login: Option<(&str, &str)>,
    ) -> Result<Self> {
        Self::over(Wire::connect(addr)?, version, client_id, login)
    }

    /// The same over a connection that stands already.
    pub fn over(
        mut wire: Wire,
        version: Version,
        client_id: &str,
        login: Option<(&str, &str)>,
    ) -> Result<Self> {
        let mut body = Vec::new();
        text("MQTT", &mut body);
        body.push(if version == Version::V5 { 5 } else { 4 });
        body.push(if login.is_some() { 0xC2 } else { 0x02 });
        body.extend_from_slice(&0u16.to_be_bytes());
        no_properties(version, &mut body);
        text(client_id, &mut body);
        if let Some((user, password)) = login {
            text(user, &mut body);
            text(password, &mut body);
        }
        wire.send(&packet(0x10, &body))?;
        let mut connection = Self { wire, version };
        let connack = connection.expect(0x20)?;
        match connack.get(1) {
            Some(0) => Ok(connection),
            code => bail!("the broker refused the connection with code {code:?}"),
        }
    }

    /// Subscribes and waits until the broker granted it.
    pub fn subscribe(&mut self, filter: &str, qos: u8) -> Result<()> {
        let mut body = vec![0, 1];
        no_properties(self.version, &mut body);
        text(filter, &mut body);
        body.push(qos);
        self.wire.send(&packet(0x82, &body))?;
        match self.expect(0x90)?.last() {
            Some(&granted) if granted < 0x80 => Ok(()),
            code => bail!("the broker refused to subscribe `{filter}` with code {code:?}"),
        }
    }

    /// Gives up the socket and what was read from it beyond the handshake.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        self.wire.into_parts()
    }

    fn expect(&mut self, first: u8) -> Result<Vec<u8>> {
        let found = self.wire.take(1)?[0];
        let mut width = Vec::new();
        let length = loop {
            width.extend(self.wire.take(1)?);
            if let Some((length, _)) = remaining_length(&width)? {
                break length;
            }
        };
        let body = self.wire.take(length)?;
        if found != first {
            bail!("the broker sent packet {found:#04x} instead of {first:#04x}");
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Found = Vec<(Option<u16>, Vec<u8>)>;

    fn messages(version: Version, buffer: &[u8]) -> (usize, Found) {
        let mut found = Vec::new();
        let used = scan(version, buffer, |event| match event {
            Event::Message { id, payload } => found.push((id, payload.to_vec())),
            other => panic!("unexpected {other:?}"),
        });
        (used.unwrap(), found)
    }

    #[test]
    fn publish_of_each_version_and_quality() {
        assert_eq!(publish(Version::V4, "t", None, b"hi"), b"\x30\x05\0\x01thi");
        assert_eq!(publish(Version::V4, "t", Some(7), b"hi"), b"\x32\x07\0\x01t\0\x07hi");
        assert_eq!(publish(Version::V5, "t", None, b"hi"), b"\x30\x06\0\x01t\0hi");
    }

    #[test]
    fn long_packets_have_a_length_of_two_bytes() {
        let wire = publish(Version::V4, "t", None, &[0; 200]);
        assert_eq!(&wire[..3], [0x30, 203 & 0x7F | 0x80, 1]);
        assert_eq!(messages(Version::V4, &wire).0, wire.len());
    }

    #[test]
    fn scan_finds_the_same_messages_however_the_bytes_are_split() {
        for version in [Version::V4, Version::V5] {
            let mut wire = Vec::new();
            for id in 1..=4u16 {
                wire.extend(publish(version, "a/b", Some(id), &[id as u8; 130]));
                wire.extend(publish(version, "a/b", None, b"plain"));
                wire.extend([0xD0, 0]);
            }
            let (used, whole) = messages(version, &wire);
            assert_eq!((used, whole.len()), (wire.len(), 8));
            for cut in 0..wire.len() {
                let (first, mut found) = messages(version, &wire[..cut]);
                let (second, rest) = messages(version, &wire[first..]);
                found.extend(rest);
                assert_eq!(first + second, wire.len());
                assert_eq!(found, whole, "cut at {cut}");
            }
        }
    }

    #[test]
    fn acknowledgements_are_confirmations() {
        let mut wire = Vec::new();
        puback(300, &mut wire);
        assert_eq!(wire, [0x40, 2, 1, 44]);
        let mut events = Vec::new();
        scan(Version::V4, &wire, |event| events.push(event)).unwrap();
        assert_eq!(events, [Event::Confirmed]);
    }

    #[test]
    fn refusing_acknowledgement_is_reported() {
        let mut refused = false;
        scan(Version::V5, &[0x40, 3, 0, 1, 0x97], |event| {
            refused = matches!(event, Event::Refused(_));
        })
        .unwrap();
        assert!(refused);
    }

    #[test]
    fn scan_refuses_a_length_of_five_bytes_and_a_topic_beyond_the_packet() {
        assert!(scan(Version::V4, &[0x30, 255, 255, 255, 255, 1], |_| ()).is_err());
        assert!(scan(Version::V4, &[0x30, 2, 0, 9], |_| ()).is_err());
    }
}
