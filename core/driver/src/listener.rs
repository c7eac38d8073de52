//! Listeners: a port or a Unix socket, the protocols spoken there, and the loop that accepts.

use std::{
    fmt,
    future::poll_fn,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use tokio::{
    io::ReadBuf,
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    task::AbortHandle,
};

use polymq_contract::{Peer, Protocol, Transport};
use polymq_model::VhostName;

use crate::{
    arrival::{Arrival, Speakers},
    clock,
    ending::Ending,
    gate::{Gate, Ticket},
    incoming::Guest,
    socket::Direct,
    tls::Tls,
    wire::Wire,
};

/// Connections that the system keeps ready for us to accept.
const BACKLOG: i32 = 4096;
/// Pause after the system refused to accept, as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The first byte of every TLS connection, and of no protocol in clear text (RFC 8446, section
/// 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// What a listener serves, and where.
#[derive(Clone)]
pub struct ListenerSpec {
    /// Name in the configuration, logs and metrics.
    pub name: Arc<str>,
    /// Protocols spoken here; with several, the first bytes of a connection decide, and earlier
    /// ones are asked first.
    pub protocols: Vec<Arc<dyn Protocol>>,
    /// Where.
    pub bind: Bind,
    /// A port for everybody: it is shared with [`Listener::with_guest`], and with `tls` clients may
    /// speak TLS or clear text, which their first byte tells.
    pub is_shared: bool,
    /// Set to speak TLS from the first byte.
    pub tls: Option<Arc<Tls>>,
    /// Set to let clients of a protocol that can do so switch to TLS.
    pub start_tls: Option<Arc<Tls>>,
    /// Virtual host of clients that name none.
    pub vhost: VhostName,
}

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bind {
    /// A TCP port; 0 takes any free one.
    Tcp(SocketAddr),
    /// A Unix socket. A file that nobody listens on any more is replaced.
    Unix(PathBuf),
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listener `{name}` cannot listen on {bind}")]
pub struct ListenerError {
    /// Name of the listener.
    pub name: Arc<str>,
    /// Where it was to listen.
    pub bind: Bind,
    /// What the system said.
    #[source]
    pub error: io::Error,
}

/// A listener that holds its address; connections wait in the system's backlog until it is served.
pub struct Listener {
    spec: ListenerSpec,
    guest: Option<Arc<dyn Guest>>,
    socket: BoundSocket,
    bound: Bind,
}

/// A listener that takes connections until it is told to stop, or its driver is.
#[derive(Debug)]
pub struct Accepting(AbortHandle);

impl Accepting {
    /// Whoever is accepted by this task.
    pub fn of(task: AbortHandle) -> Self {
        Self(task)
    }

    /// Accepts nobody any more; connections that are there go on. The port is free a moment later,
    /// unless somebody else holds the socket, too.
    pub fn stop(&self) {
        self.0.abort();
    }
}

/// The file of a Unix socket, which goes with its listener.
struct Placed(PathBuf);

impl Drop for Placed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A listener while it is served.
struct Served {
    spec: ListenerSpec,
    speakers: Speakers,
}

enum BoundSocket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl Listener {
    /// Takes the address.
    pub fn bind(spec: ListenerSpec) -> Result<Self, ListenerError> {
        let bound = match &spec.bind {
            Bind::Tcp(address) => bind_tcp(*address),
            Bind::Unix(path) => bind_unix(path),
        };
        match bound {
            Ok((socket, bound)) => Ok(Self { spec, guest: None, socket, bound }),
            Err(error) => Err(ListenerError { name: spec.name, bind: spec.bind, error }),
        }
    }

    /// The same, on a TCP socket that listens already.
    ///
    /// Errors: the socket has no address.
    pub fn over(spec: ListenerSpec, socket: std::net::TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let bound = Bind::Tcp(socket.local_addr()?);
        Ok(Self { spec, guest: None, socket: BoundSocket::Tcp(socket), bound })
    }

    /// A second hand on the socket, with which it stays open; `None` for a Unix socket.
    ///
    /// Errors: the system gives no more files.
    pub fn socket(&self) -> io::Result<Option<std::net::TcpListener>> {
        match &self.socket {
            BoundSocket::Tcp(socket) => socket.try_clone().map(Some),
            BoundSocket::Unix(_) => Ok(None),
        }
    }

    /// The same, with somebody who serves connections that no session does, if the port is shared.
    pub fn with_guest(mut self, guest: Arc<dyn Guest>) -> Self {
        self.guest = self.spec.is_shared.then_some(guest);
        self
    }

    /// Where it listens, with the port that the system chose.
    pub fn address(&self) -> &Bind {
        &self.bound
    }

    /// Its TCP address; `None` for a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self.bound {
            Bind::Tcp(address) => Some(address),
            Bind::Unix(_) => None,
        }
    }

    pub(crate) fn serve(self, gate: &Arc<Gate>) -> io::Result<Accepting> {
        let gate = Arc::clone(gate);
        let speakers = Speakers { protocols: self.spec.protocols.clone(), guest: self.guest };
        let served = Arc::new(Served { spec: self.spec, speakers });
        let accepting = Arc::clone(&gate);
        let task = match self.socket {
            BoundSocket::Tcp(socket) => {
                let socket = TcpListener::from_std(socket)?;
                tokio::spawn(async move { accept_tcp(&socket, &served, &gate).await })
            }
            BoundSocket::Unix(socket) => {
                let socket = UnixListener::from_std(socket)?;
                let placed = match &served.spec.bind {
                    Bind::Unix(path) => Some(Placed(path.clone())),
                    Bind::Tcp(_) => None,
                };
                tokio::spawn(async move {
                    let _placed = placed;
                    accept_unix(&socket, &served, &gate).await;
                })
            }
        };
        let handle = Accepting(task.abort_handle());
        let mut listeners = accepting.listeners.lock();
        listeners.retain(|task| !task.is_finished());
        listeners.push(task);
        Ok(handle)
    }
}

/// Listens on an address, with room for many connections that nobody has accepted yet. The socket
/// does not block.
///
/// Errors: the address cannot be taken.
pub fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind_tcp(address: SocketAddr) -> io::Result<(BoundSocket, Bind)> {
    let socket = listen(address)?;
    let bound = socket.local_addr()?;
    Ok((BoundSocket::Tcp(socket), Bind::Tcp(bound)))
}

fn bind_unix(path: &Path) -> io::Result<(BoundSocket, Bind)> {
    use std::os::unix::{fs::FileTypeExt, net};

    let is_socket = path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket());
    if is_socket
        && net::UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        std::fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok((BoundSocket::Unix(socket.into()), Bind::Unix(path.to_owned())))
}

async fn accept_tcp(listener: &TcpListener, served: &Arc<Served>, gate: &Arc<Gate>) {
    let spec = &served.spec;
    while let Some((socket, address)) = next(gate, || listener.accept()).await {
        let now = clock::now().instant;
        if !gate.door.admits(address.ip(), now) {
            gate.counters.too_fast();
            continue;
        }
        let delay = gate.door.delay(now);
        if !delay.is_zero() && !waited(gate, delay).await {
            return;
        }
        let Some(ticket) = gate.enter(Some(address.ip())) else {
            continue;
        };
        // Fails only on a socket that is broken already, which the connection's first read finds
        // out.
        let _ = socket.set_nodelay(true);
        let peer = Peer {
            address: Some(address),
            local: socket.local_addr().ok(),
            is_loopback: address.ip().to_canonical().is_loopback(),
            tls: None,
            offers_tls: false,
            account: None,
            transport: Transport::Stream,
            listener: Arc::clone(&spec.name),
            vhost: spec.vhost.clone(),
        };
        let arrival = Arrival::new(ticket);
        if spec.tls.is_some() {
            tokio::spawn(serve_tls(arrival, socket, Arc::clone(served), peer));
        } else {
            tokio::spawn(serve_clear(arrival, socket, Arc::clone(served), peer));
        }
    }
}

async fn accept_unix(listener: &UnixListener, served: &Arc<Served>, gate: &Arc<Gate>) {
    let spec = &served.spec;
    while let Some((socket, _)) = next(gate, || listener.accept()).await {
        let Some(ticket) = gate.enter(None) else {
            continue;
        };
        let peer = Peer {
            address: None,
            local: None,
            is_loopback: true,
            tls: None,
            offers_tls: false,
            account: None,
            transport: Transport::Stream,
            listener: Arc::clone(&spec.name),
            vhost: spec.vhost.clone(),
        };
        tokio::spawn(serve_unix(ticket, socket, Arc::clone(served), peer));
    }
}

/// Waits while further connections stay in the system's backlog; false once the driver accepts no
/// more.
async fn waited(gate: &Gate, delay: Duration) -> bool {
    let mut closing = pin!(gate.closing.notified());
    if gate.is_draining() {
        return false;
    }
    tokio::select! {
        () = &mut closing => false,
        () = tokio::time::sleep(delay) => true,
    }
}

/// The next connection; `None` once the driver accepts no more.
async fn next<T, F>(gate: &Gate, mut accept: impl FnMut() -> F) -> Option<T>
where
    F: Future<Output = io::Result<T>>,
{
    loop {
        let mut closing = pin!(gate.closing.notified());
        if gate.is_draining() {
            return None;
        }
        let accepted = tokio::select! {
            () = &mut closing => return None,
            accepted = accept() => accepted,
        };
        match accepted {
            Ok(connection) => return Some(connection),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                gate.counters.accept_failed();
                tracing::warn!(event = "accept_failed", %error, "trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Errors that speak of the connection which was to be accepted, and not of us.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

async fn serve_unix(ticket: Ticket, socket: UnixStream, served: Arc<Served>, peer: Peer) {
    Arrival::new(ticket).serve(Direct::Watched(socket), &served.speakers, peer, None).await;
}

async fn serve_clear(arrival: Arrival, socket: TcpStream, served: Arc<Served>, mut peer: Peer) {
    let spec = &served.spec;
    let start_tls = spec.start_tls.clone().or_else(|| spec.tls.clone());
    peer.offers_tls = start_tls.is_some();
    let socket = Wire::Plain(Direct::Watched(socket));
    arrival.serve(socket, &served.speakers, peer, start_tls).await;
}

async fn serve_tls(mut arrival: Arrival, socket: TcpStream, served: Arc<Served>, mut peer: Peer) {
    let Some(tls) = &served.spec.tls else {
        return;
    };
    if served.spec.is_shared {
        let mut first = [0];
        let mut first = ReadBuf::new(&mut first);
        let peeked = arrival.bounded(poll_fn(|cx| socket.poll_peek(cx, &mut first))).await;
        match peeked {
            Ok(Ok(count)) if count > 0 => {}
            Ok(_) => return arrival.fail(&Ending::PeerGone),
            Err(ending) => return arrival.fail(&ending),
        }
        if first.filled() != [TLS_HANDSHAKE] {
            return serve_clear(arrival, socket, served, peer).await;
        }
    }
    let gate = Arc::clone(&arrival.ticket.gate);
    let handshake = Box::pin(async {
        // Who says nothing takes no place.
        let _ = socket.readable().await;
        gate.handshakes.run(tls.accept(Direct::Watched(socket))).await
    });
    match arrival.bounded(handshake).await {
        Ok(Ok((socket, facts))) => {
            peer.tls = Some(Arc::new(facts));
            let socket = Wire::Tls(Box::new(socket));
            arrival.serve(socket, &served.speakers, peer, None).await;
        }
        Ok(Err(ending)) | Err(ending) => arrival.fail(&ending),
    }
}
