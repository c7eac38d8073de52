//! A TCP proxy between a client and the broker that treats their bytes badly.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Result;
use rustix::net::sockopt::set_socket_linger;

/// How often a thread that waits for bytes looks whether its connection has ended.
const LOOK: Duration = Duration::from_millis(20);

/// What happens to the bytes from the client, at a place that is counted from the first one of
/// its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Each piece waits.
    Delay(Duration),
    /// Each byte is a segment of its own.
    ByteByByte,
    /// So many bytes from there on are lost.
    Lose {
        /// The first of them.
        at: u64,
        /// How many.
        count: u64,
    },
    /// The byte there comes so many times more.
    Repeat {
        /// Which one.
        at: u64,
        /// How often.
        times: usize,
    },
    /// Bits of the byte there change.
    Corrupt {
        /// Which one.
        at: u64,
        /// These bits.
        bits: u8,
    },
    /// Both sides see an end there.
    CutAt(u64),
    /// Both sides see a reset there.
    ResetAt(u64),
    /// The broker sees the end of the client's bytes there, and may go on talking.
    HalfCloseAt(u64),
    /// Nothing passes from there on, in either direction, and nobody is told.
    SilenceAt(u64),
}

/// A listening port whose connections lead to the broker.
#[derive(Debug)]
pub struct Proxy {
    /// Where clients connect.
    pub port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    fault: Fault,
    is_over: AtomicBool,
    is_silent: AtomicBool,
    /// Connections whose fault has happened.
    harmed: AtomicU64,
}

impl Proxy {
    /// Leads connections to a port of this machine.
    ///
    /// Errors: when there is no port to listen on.
    pub fn start(to: u16, fault: Fault) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let (is_over, is_silent) = (AtomicBool::new(false), AtomicBool::new(false));
        let shared = Arc::new(Shared { fault, is_over, is_silent, harmed: AtomicU64::new(0) });
        let accepted = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepted.is_over.load(Ordering::SeqCst) {
                    return;
                }
                // A broker that refuses is seen by the client as an end.
                if let Ok(broker) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)) {
                    // Without its threads the connection is dropped, which the client sees.
                    let _ = join(client, broker, &accepted);
                }
            }
        });
        Ok(Self { port, shared })
    }

    /// Connections whose fault has happened.
    pub fn harmed(&self) -> u64 {
        self.shared.harmed.load(Ordering::SeqCst)
    }

    /// From now on nothing passes, in either direction, and nobody is told.
    pub fn fall_silent(&self) {
        self.shared.is_silent.store(true, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        // The thread that accepts looks after the next connection.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

/// What the two threads of a connection share.
struct Link {
    shared: Arc<Shared>,
    is_over: AtomicBool,
    is_silent: AtomicBool,
    is_reset: AtomicBool,
}

impl Link {
    fn is_over(&self) -> bool {
        let is = |flag: &AtomicBool| flag.load(Ordering::SeqCst);
        is(&self.is_over) || is(&self.shared.is_over)
    }

    fn is_silent(&self) -> bool {
        let is = |flag: &AtomicBool| flag.load(Ordering::SeqCst);
        is(&self.is_silent) || is(&self.shared.is_silent)
    }

    /// Some bytes, none at the end of the stream, `None` when the connection is over.
    fn piece(&self, from: &mut TcpStream) -> Option<Vec<u8>> {
        let mut chunk = [0; 16 * 1024];
        while !self.is_over() {
            match from.read(&mut chunk) {
                Ok(count) => return chunk.get(..count).map(<[u8]>::to_vec),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    _ => break,
                },
            }
        }
        None
    }

    /// This direction has no more bytes. A reset says so by itself, when the sockets are dropped,
    /// and silence says nothing.
    fn finish(&self, to: &TcpStream) {
        while self.is_silent() && !self.is_over() {
            thread::sleep(LOOK);
        }
        if !self.is_reset.load(Ordering::SeqCst) {
            // The other side may have gone already.
            let _ = to.shutdown(Shutdown::Write);
        }
    }
}

/// One connection: two threads, one for each direction.
fn join(client: TcpStream, broker: TcpStream, shared: &Arc<Shared>) -> Result<()> {
    for socket in [&client, &broker] {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(LOOK))?;
    }
    let flag = || AtomicBool::new(false);
    let shared = Arc::clone(shared);
    let link = Link { shared, is_over: flag(), is_silent: flag(), is_reset: flag() };
    let link = Arc::new(link);
    let (client_in, broker_out) = (client.try_clone()?, broker.try_clone()?);
    let mut up = Up { client: client_in, broker: broker_out, at: 0, link: Arc::clone(&link) };
    thread::spawn(move || up.run());
    let (mut from, mut to) = (broker, client);
    thread::spawn(move || {
        while let Some(bytes) = link.piece(&mut from) {
            let is_lost = link.is_silent() && !bytes.is_empty();
            if !is_lost && (bytes.is_empty() || to.write_all(&bytes).is_err()) {
                break;
            }
        }
        link.finish(&to);
    });
    Ok(())
}

/// The direction from the client to the broker.
struct Up {
    client: TcpStream,
    broker: TcpStream,
    /// Bytes that have come.
    at: u64,
    link: Arc<Link>,
}

impl Up {
    fn run(&mut self) {
        let link = Arc::clone(&self.link);
        while let Some(bytes) = link.piece(&mut self.client) {
            if bytes.is_empty() || !self.pass(&bytes) {
                break;
            }
        }
        link.finish(&self.broker);
    }

    /// Passes bytes on; false when that was all.
    fn pass(&mut self, bytes: &[u8]) -> bool {
        let first = self.at;
        self.at += bytes.len() as u64;
        let index = |at: u64| {
            let index = usize::try_from(at.checked_sub(first)?).ok()?;
            (index < bytes.len()).then_some(index)
        };
        let mut changed = bytes.to_vec();
        match self.link.shared.fault {
            Fault::None => {}
            Fault::Delay(time) => thread::sleep(time),
            Fault::ByteByByte => return bytes.iter().all(|byte| self.write(&[*byte])),
            Fault::Lose { at, count } => {
                let mut place = first;
                changed.retain(|_| {
                    place += 1;
                    !(at..at + count).contains(&(place - 1))
                });
                self.note(index(at));
            }
            Fault::Repeat { at, times } => {
                if let Some(index) = self.note(index(at)) {
                    let again = vec![bytes[index]; times];
                    changed.splice(index..index, again);
                }
            }
            Fault::Corrupt { at, bits } => {
                if let Some(index) = self.note(index(at)) {
                    changed[index] ^= bits;
                }
            }
            Fault::CutAt(at)
            | Fault::ResetAt(at)
            | Fault::HalfCloseAt(at)
            | Fault::SilenceAt(at) => {
                if let Some(index) = self.note(index(at)) {
                    return self.write(&bytes[..index]) && self.end();
                }
            }
        }
        self.write(&changed)
    }

    /// Ends the connection as the fault says; true when bytes are still taken.
    fn end(&mut self) -> bool {
        match self.link.shared.fault {
            Fault::SilenceAt(_) => {
                self.link.is_silent.store(true, Ordering::SeqCst);
                return true;
            }
            Fault::HalfCloseAt(_) => return false,
            Fault::ResetAt(_) => {
                self.link.is_reset.store(true, Ordering::SeqCst);
                for socket in [&self.client, &self.broker] {
                    // Without this the sides see an end, which is a fault as well.
                    let _ = set_socket_linger(socket, Some(Duration::ZERO));
                }
            }
            Fault::None
            | Fault::Delay(_)
            | Fault::ByteByByte
            | Fault::Lose { .. }
            | Fault::Repeat { .. }
            | Fault::Corrupt { .. }
            | Fault::CutAt(_) => {}
        }
        // Both threads let go of the sockets, which sends what was set above.
        self.link.is_over.store(true, Ordering::SeqCst);
        false
    }

    fn note(&self, index: Option<usize>) -> Option<usize> {
        if index.is_some() {
            self.link.shared.harmed.fetch_add(1, Ordering::SeqCst);
        }
        index
    }

    fn write(&mut self, bytes: &[u8]) -> bool {
        self.link.is_silent() || self.broker.write_all(bytes).is_ok()
    }
}
