//! A TCP relay with a fixed front port and a back port that may change.

use std::{
    io,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    thread,
};

/// Passes bytes between clients and the broker, and ends connections where one side ends them.
///
/// The listener lives as long as the process; a test process is short.
pub struct Relay {
    front: u16,
    shared: Arc<Shared>,
}

struct Shared {
    /// Port of the broker, or 0 while it is down.
    back: AtomicU16,
    open: Mutex<Vec<TcpStream>>,
}

impl Relay {
    /// Opens a free loopback port that leads nowhere until [`Relay::lead_to`].
    ///
    /// Errors: the system's, when no port or thread is to be had.
    pub fn open() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let front = listener.local_addr()?.port();
        let shared = Arc::new(Shared { back: AtomicU16::new(0), open: Mutex::new(Vec::new()) });
        let accepting = Arc::clone(&shared);
        thread::Builder::new().name(format!("relay-{front}")).spawn(move || {
            for client in listener.incoming().flatten() {
                // A client of a broker that is down sees its connection closed and tries again.
                let _ = accepting.connect(client);
            }
        })?;
        Ok(Self { front, shared })
    }

    /// The port that clients connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.front
    }

    /// New connections go to this port from now on; 0 closes them at once.
    pub fn lead_to(&self, port: u16) {
        self.shared.back.store(port, Ordering::SeqCst);
    }

    /// Ends every connection in both directions without a word of any protocol.
    pub fn cut(&self) {
        for stream in self.shared.open().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn open(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self, client: TcpStream) -> io::Result<()> {
        let port = self.back.load(Ordering::SeqCst);
        if port == 0 {
            return client.shutdown(Shutdown::Both);
        }
        let broker = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        client.set_nodelay(true)?;
        broker.set_nodelay(true)?;
        let (client_again, broker_again) = (client.try_clone()?, broker.try_clone()?);
        {
            let mut open = self.open();
            open.push(client.try_clone()?);
            open.push(broker.try_clone()?);
        }
        thread::Builder::new().spawn(move || pass(client, broker))?;
        thread::Builder::new().spawn(move || pass(broker_again, client_again))?;
        Ok(())
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    match io::copy(&mut from, &mut to) {
        Ok(_) => {
            let _ = to.shutdown(Shutdown::Write);
        }
        Err(_) => {
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        }
    }
}
