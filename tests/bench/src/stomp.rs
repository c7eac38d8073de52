//! STOMP 1.2 as the generator speaks it: frames encoded once, a blocking handshake, and a scan that
//! finds the ends of frames by their `content-length`.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, bail};
use memchr::memmem;

use crate::amqp::Login;
use crate::wire::Wire;

/// What the scan found; frames without meaning to the generator are skipped.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A message arrived.
    Message {
        /// What an acknowledgement names, when one is due.
        ack: Option<&'a [u8]>,
        /// The application data.
        payload: &'a [u8],
    },
    /// The broker answered a receipt.
    Confirmed,
    /// The broker ends the connection.
    Refused(String),
}

/// Walks the whole frames at the start of `buffer` and returns how many bytes they take.
///
/// Errors: a `content-length` that is no number, or a body that does not end with NUL.
pub fn scan<'a>(buffer: &'a [u8], mut on_event: impl FnMut(Event<'a>)) -> Result<usize> {
    let mut at = 0;
    while let Some(rest) = buffer.get(at..).filter(|rest| !rest.is_empty()) {
        if rest[0] == b'\n' {
            at += 1;
            continue;
        }
        let Some(head_end) = memmem::find(rest, b"\n\n") else { break };
        let head = &rest[..head_end];
        let body_at = head_end + 2;
        let length = match header(head, b"\ncontent-length:") {
            Some(text) => std::str::from_utf8(text)?.parse()?,
            None => match memchr::memchr(0, &rest[body_at..]) {
                Some(length) => length,
                None => break,
            },
        };
        let Some(end) = rest.get(body_at + length) else { break };
        if *end != 0 {
            bail!("a body of {length} bytes does not end there");
        }
        let payload = &rest[body_at..body_at + length];
        if head.starts_with(b"MESSAGE") {
            on_event(Event::Message { ack: header(head, b"\nack:"), payload });
        } else if head.starts_with(b"RECEIPT") {
            on_event(Event::Confirmed);
        } else if head.starts_with(b"ERROR") {
            let text = String::from_utf8_lossy(&rest[..body_at + length]).replace('\n', " ");
            on_event(Event::Refused(text));
        }
        at += body_at + length + 1;
    }
    Ok(at)
}

fn header<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let at = memmem::find(head, name)? + name.len();
    let value = &head[at..];
    Some(memchr::memchr(b'\n', value).map_or(value, |end| &value[..end]))
}

/// Encodes a message to a queue that is there, or to a topic.
pub fn send(destination: &str, payload: &[u8]) -> Vec<u8> {
    let length = payload.len();
    let head = format!("SEND\ndestination:{destination}\ncontent-length:{length}\n\n");
    [head.as_bytes(), payload, b"\0"].concat()
}

/// Appends the acknowledgement of a message and of those before it.
pub fn ack(id: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"ACK\nid:");
    out.extend_from_slice(id);
    out.extend_from_slice(b"\n\n\0");
}

/// A connection on a blocking socket.
pub struct Connection {
    wire: Wire,
}

impl Connection {
    /// Connects without heart-beats.
    pub fn open(addr: SocketAddr, login: &Login) -> Result<Self> {
        let mut connection = Self { wire: Wire::connect(addr)? };
        let Login { user, password, .. } = login;
        let frame =
            format!("CONNECT\naccept-version:1.2\nhost:/\nlogin:{user}\npasscode:{password}\n\n\0");
        connection.exchange(&frame, "CONNECTED")?;
        Ok(connection)
    }

    /// Subscribes to a queue that ends with its subscription, and waits until that stands.
    pub fn subscribe(&mut self, queue: &str, has_acks: bool) -> Result<()> {
        let ack = if has_acks { "client" } else { "auto" };
        let frame = format!(
            "SUBSCRIBE\nid:0\ndestination:/queue/{queue}\nack:{ack}\ndurable:false\n\
             auto-delete:true\nreceipt:s\n\n\0"
        );
        self.exchange(&frame, "RECEIPT")
    }

    /// Gives up the socket and what was read from it beyond the handshake.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        self.wire.into_parts()
    }

    fn exchange(&mut self, frame: &str, wanted: &str) -> Result<()> {
        self.wire.stream.write_all(frame.as_bytes())?;
        let mut answer = Vec::new();
        while answer.last() != Some(&0) {
            answer.extend(self.wire.take(1)?);
        }
        let text = String::from_utf8(answer).context("an answer that is no text")?;
        if !text.trim_start().starts_with(wanted) {
            bail!("the broker answered `{text}`");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scan_finds_the_same_messages_however_the_bytes_are_split() {
        let one = b"MESSAGE\nsubscription:0\nack:a-1\ncontent-length:4\n\na\0\n\n\0\n";
        let wire = [&one[..], b"RECEIPT\nreceipt-id:1\n\n\0", one].concat();
        let count = |bytes: &[u8]| {
            let mut found = Vec::new();
            let used = scan(bytes, |event| found.push(format!("{event:?}"))).unwrap();
            (used, found)
        };
        let (used, whole) = count(&wire);
        assert_eq!((used, whole.len()), (wire.len(), 3));
        for cut in 0..wire.len() {
            let (first, mut found) = count(&wire[..cut]);
            let (second, rest) = count(&wire[first..]);
            found.extend(rest);
            assert_eq!(first + second, wire.len());
            assert_eq!(found, whole, "cut at {cut}");
        }
    }

    #[test]
    fn messages_say_what_to_acknowledge() {
        let wire = b"MESSAGE\nack:a-1\ncontent-length:1\n\nx\0";
        let mut found = None;
        scan(wire, |event| found = Some(event)).unwrap();
        assert_eq!(found, Some(Event::Message { ack: Some(b"a-1"), payload: b"x" }));
        let mut out = Vec::new();
        ack(b"a-1", &mut out);
        assert_eq!(out, b"ACK\nid:a-1\n\n\0");
    }
}
