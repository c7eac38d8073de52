//! A client of MQTT 3.1.1 and 5 on one blocking socket.

use std::{io::Write, net::TcpStream, time::Duration};

use anyhow::{Result, bail};

use crate::amqp::read_more;

/// A packet: its first byte and what follows its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Type and flags.
    pub first: u8,
    /// The rest.
    pub body: Vec<u8>,
}

/// A PUBLISH as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Sent before.
    pub dup: bool,
    /// 0 with quality of service 0.
    pub packet_id: u16,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// How to connect.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a> {
    /// 4 for 3.1.1, 5 for 5.0.
    pub level: u8,
    /// The client identifier.
    pub client_id: &'a str,
    /// Begin anew; a connection that does not is kept for ever.
    pub clean: bool,
}

/// A packet with its length.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut rest = body.len();
    loop {
        let low = u8::try_from(rest & 0x7F).unwrap_or_default();
        rest >>= 7;
        out.push(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            break;
        }
    }
    out.extend(body);
    out
}

/// A string or bytes behind their length.
pub fn text(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&len.to_be_bytes()[..], bytes].concat()
}

/// CONNECT.
pub fn connect(login: Login<'_>) -> Vec<u8> {
    let mut body = text(b"MQTT");
    body.extend([login.level, if login.clean { 2 } else { 0 }, 0, 0]);
    if login.level == 5 {
        // A session that is kept needs an expiry in version 5.
        body.extend_from_slice(if login.clean { &[0][..] } else { &[5, 0x11, 255, 255, 255, 255] });
    }
    body.extend(text(login.client_id.as_bytes()));
    packet(0x10, &body)
}

/// PUBLISH of MQTT 3.1.1; a packet id of 0 means quality of service 0.
pub fn publish(topic: &str, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = text(topic.as_bytes());
    if packet_id > 0 {
        body.extend(packet_id.to_be_bytes());
    }
    body.extend(payload);
    packet(if packet_id > 0 { 0x32 } else { 0x30 }, &body)
}

/// A connection.
#[derive(Debug)]
pub struct Mqtt {
    stream: TcpStream,
    input: Vec<u8>,
    level: u8,
    /// The broker remembers an earlier connection.
    pub present: bool,
}

impl Mqtt {
    /// Connects and sends nothing.
    ///
    /// Errors: those of the socket.
    pub fn dial(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream, input: Vec::new(), level: 4, present: false })
    }

    /// Connects and logs in.
    ///
    /// Errors: when the broker refuses or the connection breaks.
    pub fn open(port: u16, login: Login<'_>) -> Result<Self> {
        let mut client = Self::dial(port)?;
        client.level = login.level;
        client.send(&connect(login))?;
        match client.next_packet()? {
            Some(Packet { first: 0x20, body }) if body.get(1) == Some(&0) => {
                client.present = body.first() == Some(&1);
                Ok(client)
            }
            other => bail!("CONNECT is answered with {other:?}"),
        }
    }

    /// How long [`Mqtt::next_packet`] waits.
    ///
    /// Errors: those of the socket.
    pub fn set_patience(&self, time: Duration) -> Result<()> {
        Ok(self.stream.set_read_timeout(Some(time))?)
    }

    /// Writes bytes.
    ///
    /// Errors: when the connection is broken.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Subscribes and waits for the answer. Nothing may be on its way to this client yet.
    ///
    /// Errors: when the broker refuses.
    pub fn subscribe(&mut self, filter: &str, qos: u8) -> Result<()> {
        let mut body = vec![0, 1];
        if self.level == 5 {
            body.push(0);
        }
        body.extend(text(filter.as_bytes()));
        body.push(qos);
        self.send(&packet(0x82, &body))?;
        match self.next_packet()? {
            Some(Packet { first: 0x90, body }) if body.last() == Some(&qos) => Ok(()),
            other => bail!("SUBSCRIBE is answered with {other:?}"),
        }
    }

    /// PUBACK.
    ///
    /// Errors: when the connection is broken.
    pub fn puback(&mut self, packet_id: u16) -> Result<()> {
        self.send(&[&[0x40, 2][..], &packet_id.to_be_bytes()].concat())
    }

    /// The next packet; `None` when none comes for as long as the patience.
    ///
    /// Errors: when the connection ends.
    pub fn next_packet(&mut self) -> Result<Option<Packet>> {
        loop {
            if let Some(packet) = self.take() {
                return Ok(Some(packet));
            }
            if !read_more(&mut self.stream, &mut self.input)? {
                return Ok(None);
            }
        }
    }

    fn take(&mut self) -> Option<Packet> {
        let (mut len, mut head) = (0_usize, 1);
        loop {
            let byte = *self.input.get(head)?;
            len |= usize::from(byte & 0x7F) << (7 * (head - 1));
            head += 1;
            if byte & 0x80 == 0 || head > 4 {
                break;
            }
        }
        let first = *self.input.first()?;
        let body = self.input.get(head..head + len)?.to_vec();
        self.input.drain(..head + len);
        Some(Packet { first, body })
    }

    /// Says goodbye with DISCONNECT and waits for the socket's end.
    ///
    /// Errors: when it stays open.
    pub fn close(mut self) -> Result<()> {
        self.send(&[0xE0, 0])?;
        self.last_words().map(|_| ())
    }

    /// Everything until the broker closes the socket.
    ///
    /// Errors: when it stays open longer than the patience.
    pub fn last_words(&mut self) -> Result<Vec<Packet>> {
        let mut words = Vec::new();
        loop {
            match self.next_packet() {
                Ok(Some(packet)) => words.push(packet),
                Ok(None) => bail!("the connection stays open after {words:?}"),
                Err(_) => return Ok(words),
            }
        }
    }
}

impl Packet {
    /// Reads a PUBLISH of MQTT 3.1.1; `None` when it is another packet.
    pub fn publish(&self) -> Option<Publish> {
        if self.first >> 4 != 3 {
            return None;
        }
        let len = self.body.first_chunk::<2>().map(|len| u16::from_be_bytes(*len))?;
        let mut at = 2 + usize::from(len);
        let mut packet_id = 0;
        if self.first & 6 != 0 {
            packet_id = self.id_at(at)?;
            at += 2;
        }
        let payload = self.body.get(at..)?.to_vec();
        Some(Publish { dup: self.first & 8 != 0, packet_id, payload })
    }

    /// Reads a PUBACK; `None` when it is another packet.
    pub fn puback(&self) -> Option<u16> {
        (self.first == 0x40).then(|| self.id_at(0)).flatten()
    }

    fn id_at(&self, at: usize) -> Option<u16> {
        let bytes = self.body.get(at..)?.first_chunk::<2>()?;
        Some(u16::from_be_bytes(*bytes))
    }
}
