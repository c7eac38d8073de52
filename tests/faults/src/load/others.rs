//! Publishers of STOMP, XMPP and HTTP, which are confirmed in the order in which they publish.

use std::{collections::VecDeque, fmt::Write as _, io::Write as _, net::TcpStream};

use anyhow::{Context, Result, bail, ensure};

use super::{
    ANSWER_PATIENCE, Life, Stage,
    publishers::{Course, Target, WINDOW, through_faults},
};
use crate::{
    ledger::{Kind, Protocol},
    talk::Talk,
    web::{GUEST, answer},
};

/// A client that has logged in. Where it may lose its connection, `None` says that it has.
trait Client {
    /// Sends messages.
    fn send(&mut self, messages: &[(u64, Vec<u8>)]) -> Option<()>;

    /// Waits for the next answer, and returns how many of the oldest messages are confirmed by it.
    ///
    /// Errors: when it is no confirm.
    fn confirmed(&mut self) -> Result<Option<usize>>;
}

/// Publishes over STOMP, XMPP or HTTP, as [`super::amqp_publisher`] does.
///
/// Errors: when a living broker refuses, hangs or talks nonsense.
pub fn publisher_of(protocol: Protocol, stage: &Stage, target: &Target) -> Result<()> {
    let mut course = Course { stage, target, protocol, next: 0 };
    through_faults(stage, |life| match protocol {
        Protocol::Stomp => live(&mut course, Stomp::open(life, target)),
        Protocol::Xmpp => live(&mut course, Xmpp::open(life, target)),
        Protocol::Http => live(&mut course, Http::open(life, target)),
        Protocol::None | Protocol::Amqp | Protocol::Mqtt => bail!("{protocol:?} is elsewhere"),
    })
}

/// One connection; true when all is done.
fn live(course: &mut Course<'_>, client: Result<impl Client>) -> Result<bool> {
    let Ok(mut client) = client else { return Ok(false) };
    let mut open = VecDeque::new();
    loop {
        let mut messages = Vec::new();
        while course.goes_on() && open.len() < WINDOW {
            let message = course.message();
            open.push_back(message.0);
            messages.push(message);
        }
        if open.is_empty() {
            return Ok(true);
        }
        let mut is_lost = client.send(&messages).is_none();
        while !is_lost && (open.len() > WINDOW / 2 || !course.goes_on() && !open.is_empty()) {
            match client.confirmed()? {
                Some(count) => {
                    ensure!(count <= open.len(), "{count} of {} are confirmed", open.len());
                    course.write(Kind::Confirmed, open.drain(..count));
                }
                None => is_lost = true,
            }
        }
        if is_lost {
            course.write(Kind::Unknown, open);
            return Ok(false);
        }
    }
}

/// Confirmed by receipts.
struct Stomp {
    talk: Talk,
    destination: String,
    /// Numbers that have no receipt yet.
    open: VecDeque<u64>,
}

impl Stomp {
    fn open(life: Life, target: &Target) -> Result<Self> {
        let talk = Talk::stomp(life.ports.stomp)?;
        talk.stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
        let destination = match target.exchange {
            "" => format!("/amq/queue/{}", target.key),
            _ => format!("/topic/{}", target.key),
        };
        Ok(Self { talk, destination, open: VecDeque::new() })
    }
}

impl Client for Stomp {
    fn send(&mut self, messages: &[(u64, Vec<u8>)]) -> Option<()> {
        let mut bytes = Vec::new();
        for (n, body) in messages {
            let head = format!(
                "SEND\ndestination:{}\npersistent:true\nreceipt:{n}\ncontent-length:{}\n\n",
                self.destination,
                body.len()
            );
            bytes.extend([head.as_bytes(), body, b"\0"].concat());
            self.open.push_back(*n);
        }
        self.talk.write(&bytes).ok()
    }

    fn confirmed(&mut self) -> Result<Option<usize>> {
        let Ok(frame) = self.talk.hear("\0") else { return Ok(None) };
        let n = self.open.pop_front().context("a receipt for nothing")?;
        let is_receipt = frame.lines().any(|line| line == format!("receipt-id:{n}"));
        ensure!(is_receipt, "no receipt of {n}: {frame}");
        Ok(Some(1))
    }
}

/// Confirmed by the counts of stream management, in which a message counts once it is stored.
struct Xmpp {
    talk: Talk,
    to: String,
    counted: u64,
}

impl Xmpp {
    fn open(life: Life, target: &Target) -> Result<Self> {
        let mut talk = Talk::xmpp(life.ports.xmpp, &format!("publisher-{}", target.producer))?;
        talk.stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
        talk.say("<enable xmlns='urn:xmpp:sm:3'/>")?;
        talk.hear("<enabled")?;
        let service = if target.exchange.is_empty() { "queues" } else { "topics" };
        Ok(Self { talk, to: format!("{}@{service}.localhost", target.key), counted: 0 })
    }
}

impl Client for Xmpp {
    fn send(&mut self, messages: &[(u64, Vec<u8>)]) -> Option<()> {
        let mut text = String::new();
        for (n, body) in messages {
            // A body is text here.
            let body: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
            write!(text, "<message to='{}' id='{n}'><body>{body}</body></message>", self.to)
                .ok()?;
        }
        text.push_str("<r xmlns='urn:xmpp:sm:3'/>");
        self.talk.say(&text).ok()
    }

    fn confirmed(&mut self) -> Result<Option<usize>> {
        let Ok(before) = self.talk.hear("<a ") else { return Ok(None) };
        ensure!(!before.contains("type='error'"), "a stanza is refused: {before}");
        let Ok(ack) = self.talk.hear("/>") else { return Ok(None) };
        let count = ack.split("h='").nth(1).and_then(|rest| rest.split('\'').next());
        let count: u64 = count.context("no count")?.parse()?;
        let new = count.checked_sub(self.counted).context("a count that goes down")?;
        self.counted = count;
        Ok(Some(usize::try_from(new)?))
    }
}

/// Confirmed by the answer of each request, of which many are on their way.
struct Http {
    socket: TcpStream,
    path: String,
}

impl Http {
    fn open(life: Life, target: &Target) -> Result<Self> {
        let socket = TcpStream::connect(("127.0.0.1", life.ports.http))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(ANSWER_PATIENCE))?;
        let path = match target.exchange {
            "" => format!("queues/{}/messages", target.key),
            exchange => format!("exchanges/{exchange}/messages?routing_key={}", target.key),
        };
        Ok(Self { socket, path })
    }
}

impl Client for Http {
    fn send(&mut self, messages: &[(u64, Vec<u8>)]) -> Option<()> {
        let mut bytes = Vec::new();
        for (_, body) in messages {
            let head = format!(
                "POST /api/v1/vhosts/~/{} HTTP/1.1\r\nHost: x\r\nAuthorization: {GUEST}\r\n\
                 Content-Type: application/octet-stream\r\nMq-Persistent: true\r\n\
                 Content-Length: {}\r\n\r\n",
                self.path,
                body.len()
            );
            bytes.extend([head.as_bytes(), body].concat());
        }
        self.socket.write_all(&bytes).ok()
    }

    fn confirmed(&mut self) -> Result<Option<usize>> {
        let Ok((status, body)) = answer(&mut self.socket) else { return Ok(None) };
        ensure!(status == 200 && body.contains("\"stored\""), "{status}: {body}");
        Ok(Some(1))
    }
}
