//! A client of AMQP 0-9-1 on one blocking socket with one channel.

mod frames;

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Result, bail};

use frames::{BODY, CHANNEL, FRAME_END, HEADER, METHOD};
pub use frames::{Field, Method, body_frame, content_header, frame, publish, publish_with, table};

/// The first eight bytes of a connection.
pub const PROTOCOL_HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";

/// Class and method number.
pub type Id = (u16, u16);

/// What the broker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// Any method but `basic.deliver` and `basic.get-ok`, with its arguments.
    Method(Id, Vec<u8>),
    /// A message.
    Delivery(Delivery),
}

/// A message for a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// What it is acknowledged by.
    pub tag: u64,
    /// Delivered before.
    pub redelivered: bool,
    /// Its body.
    pub body: Vec<u8>,
}

/// A frame as received.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    kind: u8,
    payload: Vec<u8>,
}

/// A connection with channel 1 open.
#[derive(Debug)]
pub struct Amqp {
    stream: TcpStream,
    input: Vec<u8>,
    partial: Option<(Delivery, u64)>,
}

impl Amqp {
    /// Connects and sends nothing.
    ///
    /// Errors: those of the socket.
    pub fn dial(port: u16) -> Result<Self> {
        Self::over(TcpStream::connect(("127.0.0.1", port))?)
    }

    /// On a socket that is connected; sends nothing.
    ///
    /// Errors: those of the socket.
    pub fn over(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream, input: Vec::new(), partial: None })
    }

    /// Connects, logs in and opens the channel.
    ///
    /// Errors: when the broker refuses or the connection breaks.
    pub fn open(port: u16) -> Result<Self> {
        Self::open_with_heartbeat(port, 0)
    }

    /// As [`Amqp::open`], with a heartbeat of so many seconds; this client sends none.
    ///
    /// Errors: when the broker refuses or the connection breaks.
    pub fn open_with_heartbeat(port: u16, heartbeat_secs: u16) -> Result<Self> {
        let mut client = Self::dial(port)?;
        client.log_in(heartbeat_secs)?;
        Ok(client)
    }

    /// Logs in over a connection as somebody; `None` when the broker does not let them in.
    ///
    /// Errors: those of the socket.
    pub fn log_in_over(stream: TcpStream, user: &str, password: &str) -> Result<Option<Self>> {
        let mut client = Self::over(stream)?;
        client.send(PROTOCOL_HEADER)?;
        client.expect((10, 10))?;
        client.send(&start_ok_as(user, password, &[]).frame(0))?;
        Ok(client.expect((10, 30)).is_ok().then_some(client))
    }

    /// Logs in on a connection that was only dialled, and opens the channel.
    ///
    /// Errors: when the broker refuses or the connection breaks.
    pub fn log_in(&mut self, heartbeat_secs: u16) -> Result<()> {
        self.send(PROTOCOL_HEADER)?;
        self.expect((10, 10))?;
        self.send(&start_ok(&[]).frame(0))?;
        self.expect((10, 30))?;
        let tune_ok = Method::new((10, 31)).u16(16).u32(131_072).u16(heartbeat_secs);
        let open = Method::new((10, 40)).short("/").short("").u8(0);
        self.send(&[tune_ok.frame(0), open.frame(0)].concat())?;
        self.expect((10, 41))?;
        self.call(&Method::new((20, 10)).short(""), (20, 11))?;
        Ok(())
    }

    /// How long [`Amqp::next_event`] waits.
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

    /// Sends a method on the channel and waits for its answer, whose arguments are returned.
    ///
    /// Errors: when something else comes, as a close of the channel.
    pub fn call(&mut self, method: &Method, answer: Id) -> Result<Vec<u8>> {
        self.send(&method.frame(CHANNEL))?;
        self.expect(answer)
    }

    /// Waits for a method.
    ///
    /// Errors: when another one comes, or none.
    pub fn expect(&mut self, id: Id) -> Result<Vec<u8>> {
        match self.next_event()? {
            Some(Incoming::Method(found, arguments)) if found == id => Ok(arguments),
            Some(Incoming::Method(found, arguments)) => {
                bail!("{found:?} instead of {id:?}: {}", String::from_utf8_lossy(&arguments))
            }
            Some(Incoming::Delivery(_)) => bail!("a delivery instead of {id:?}"),
            None => bail!("no {id:?} in time"),
        }
    }

    /// The next thing the broker says; `None` when it says nothing for as long as the patience.
    ///
    /// Errors: when the connection ends.
    pub fn next_event(&mut self) -> Result<Option<Incoming>> {
        loop {
            let Some(frame) = self.frame()? else { return Ok(None) };
            if let Some(incoming) = self.take(frame)? {
                return Ok(Some(incoming));
            }
        }
    }

    /// True when a frame is there without waiting for the socket.
    pub fn has_input(&self) -> bool {
        frame_len(&self.input).is_some_and(|len| self.input.len() >= len)
    }

    fn frame(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some(len) = frame_len(&self.input)
                && self.input.len() >= len
            {
                let bytes: Vec<u8> = self.input.drain(..len).collect();
                let (Some(&kind), Some(payload)) = (bytes.first(), bytes.get(7..len - 1)) else {
                    bail!("a frame without a head")
                };
                if bytes.last() != Some(&FRAME_END) {
                    bail!("a frame without its end");
                }
                return Ok(Some(Frame { kind, payload: payload.to_vec() }));
            }
            if !read_more(&mut self.stream, &mut self.input)? {
                return Ok(None);
            }
        }
    }

    fn take(&mut self, frame: Frame) -> Result<Option<Incoming>> {
        match frame.kind {
            METHOD => {
                let id = (number(&frame.payload, 0)?, number(&frame.payload, 2)?);
                let arguments = frame.payload.get(4..).unwrap_or_default().to_vec();
                // Both begin with the tag and the redelivered flag; one has a consumer tag before.
                let at = match id {
                    (60, 60) => 1 + usize::from(arguments.first().copied().unwrap_or_default()),
                    (60, 71) => 0,
                    _ => return Ok(Some(Incoming::Method(id, arguments))),
                };
                let tag = long_number(&arguments, at)?;
                let redelivered = arguments.get(at + 8) == Some(&1);
                self.partial = Some((Delivery { tag, redelivered, body: Vec::new() }, u64::MAX));
                Ok(None)
            }
            HEADER => {
                let length = long_number(&frame.payload, 4)?;
                let Some((_, missing)) = &mut self.partial else { bail!("a header alone") };
                *missing = length;
                Ok(self.whole())
            }
            BODY => {
                let Some((delivery, missing)) = &mut self.partial else { bail!("a body alone") };
                delivery.body.extend_from_slice(&frame.payload);
                *missing = missing.saturating_sub(frame.payload.len().try_into()?);
                Ok(self.whole())
            }
            _ => Ok(None),
        }
    }

    fn whole(&mut self) -> Option<Incoming> {
        let (delivery, _) = self.partial.take_if(|(_, missing)| *missing == 0)?;
        Some(Incoming::Delivery(delivery))
    }

    /// Declares a durable queue and returns the number of its ready messages.
    ///
    /// Errors: when the broker refuses.
    pub fn declare(&mut self, queue: &str) -> Result<u32> {
        self.declare_with(queue, &[])
    }

    /// The same with arguments.
    ///
    /// Errors: when the broker refuses.
    pub fn declare_with(&mut self, queue: &str, arguments: &[(&str, Field<'_>)]) -> Result<u32> {
        let method = Method::new((50, 10)).u16(0).short(queue).u8(2).long(&table(arguments));
        let answer = self.call(&method, (50, 11))?;
        let at = 1 + usize::from(answer.first().copied().unwrap_or_default());
        let bytes = answer.get(at..at + 4).and_then(|bytes| bytes.first_chunk::<4>());
        bytes.map(|bytes| u32::from_be_bytes(*bytes)).ok_or_else(|| anyhow::anyhow!("no count"))
    }

    /// Binds a queue to `amq.topic`.
    ///
    /// Errors: when the broker refuses.
    pub fn bind_topic(&mut self, queue: &str, key: &str) -> Result<()> {
        let method = Method::new((50, 20)).u16(0).short(queue).short("amq.topic").short(key);
        self.call(&method.u8(0).long(&[]), (50, 21)).map(|_| ())
    }

    /// Turns publisher confirms on.
    ///
    /// Errors: when the broker refuses.
    pub fn confirm_select(&mut self) -> Result<()> {
        self.call(&Method::new((85, 10)).u8(0), (85, 11)).map(|_| ())
    }

    /// Starts a consumer that acknowledges, with at most `prefetch` messages on the way.
    ///
    /// Errors: when the broker refuses.
    pub fn consume(&mut self, queue: &str, prefetch: u16) -> Result<()> {
        self.call(&Method::new((60, 10)).u32(0).u16(prefetch).u8(0), (60, 11))?;
        let consume = Method::new((60, 20)).u16(0).short(queue).short("c").u8(0).long(&[]);
        self.call(&consume, (60, 21)).map(|_| ())
    }

    /// Takes the next message of a queue for good; `None` when there is none.
    ///
    /// Errors: when the broker refuses.
    pub fn get(&mut self, queue: &str) -> Result<Option<Delivery>> {
        let get = Method::new((60, 70)).u16(0).short(queue).u8(1);
        self.send(&get.frame(CHANNEL))?;
        match self.next_event()? {
            Some(Incoming::Delivery(found)) => Ok(Some(found)),
            Some(Incoming::Method((60, 72), _)) => Ok(None),
            Some(Incoming::Method(id, arguments)) => {
                bail!("{id:?} instead of a message: {}", String::from_utf8_lossy(&arguments))
            }
            None => bail!("no answer to basic.get"),
        }
    }

    /// Acknowledges one delivery, or all up to it.
    ///
    /// Errors: when the connection is broken.
    pub fn ack(&mut self, tag: u64, multiple: bool) -> Result<()> {
        self.send(&Method::new((60, 80)).u64(tag).u8(u8::from(multiple)).frame(CHANNEL))
    }

    /// Closes the connection and waits for the broker's answer: what was sent has been done.
    ///
    /// Errors: when the broker does not answer.
    pub fn close(mut self) -> Result<()> {
        let close = Method::new((10, 50)).u16(200).short("bye").u16(0).u16(0);
        self.send(&close.frame(0))?;
        while let Some(incoming) = self.next_event()? {
            if matches!(incoming, Incoming::Method((10, 51), _)) {
                return Ok(());
            }
        }
        bail!("connection.close is not answered")
    }

    /// Everything until the broker closes the socket; methods only.
    ///
    /// Errors: when it stays open longer than the patience.
    pub fn last_words(&mut self) -> Result<Vec<(Id, Vec<u8>)>> {
        let mut words = Vec::new();
        loop {
            match self.next_event() {
                Ok(Some(Incoming::Method(id, arguments))) => words.push((id, arguments)),
                Ok(Some(Incoming::Delivery(_))) => {}
                Ok(None) => bail!("the connection stays open after {words:?}"),
                Err(_) => return Ok(words),
            }
        }
    }
}

/// `connection.start-ok` of the user `guest` with these client properties.
pub fn start_ok(properties: &[u8]) -> Method {
    start_ok_as("guest", "guest", properties)
}

fn start_ok_as(user: &str, password: &str, properties: &[u8]) -> Method {
    let start_ok = Method::new((10, 11)).long(properties).short("PLAIN");
    start_ok.long(format!("\0{user}\0{password}").as_bytes()).short("en_US")
}

/// Reads what there is; false when nothing comes in time.
///
/// Errors: when the connection has ended.
pub fn read_more(stream: &mut TcpStream, input: &mut Vec<u8>) -> Result<bool> {
    let mut chunk = [0; 32 * 1024];
    // A socket with a timeout is interrupted by a process that is stopped and goes on.
    let read = loop {
        match stream.read(&mut chunk) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => break read,
        }
    };
    match read {
        Ok(0) => bail!("the broker closed the connection"),
        Ok(count) => {
            input.extend_from_slice(chunk.get(..count).unwrap_or_default());
            Ok(true)
        }
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn frame_len(input: &[u8]) -> Option<usize> {
    let size = input.get(3..7).and_then(|bytes| bytes.first_chunk::<4>())?;
    usize::try_from(u32::from_be_bytes(*size)).ok()?.checked_add(8)
}

/// Two octets of a method's arguments.
///
/// Errors: when they are not there.
pub fn number(bytes: &[u8], at: usize) -> Result<u16> {
    match bytes.get(at..).and_then(|bytes| bytes.first_chunk::<2>()) {
        Some(bytes) => Ok(u16::from_be_bytes(*bytes)),
        None => bail!("a method is too short"),
    }
}

/// Eight octets of a method's arguments.
///
/// Errors: when they are not there.
pub fn long_number(bytes: &[u8], at: usize) -> Result<u64> {
    match bytes.get(at..).and_then(|bytes| bytes.first_chunk::<8>()) {
        Some(bytes) => Ok(u64::from_be_bytes(*bytes)),
        None => bail!("a frame is too short"),
    }
}
