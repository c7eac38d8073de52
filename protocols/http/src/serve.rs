//! Accepts HTTP connections and keeps them, within a number, sizes and times, so that nobody can
//! hold what the broker needs.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use parking_lot::Mutex;
use polymq_contract::{Peer, Transport};
use polymq_driver::{Accepting, Door, Entered, Tls};
use polymq_model::{Limits, VhostName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    Site, Watched, clock, front, pages,
    settings::Settings,
    socket::{IDLE_TIMEOUT, Noted, Socket},
};

/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Headers of a request.
const HEADERS_MAX: usize = 100;
/// Requests of one HTTP/2 connection at a time.
const STREAMS_MAX: u32 = 128;
/// For a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = clock::seconds(10);
/// How often a connection is looked at.
const LOOK_EVERY: Duration = clock::seconds(5);
/// Pause after the system refused to accept.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whom a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Whoever logs in; health needs no login.
    Users,
    /// Whoever can reach it; there is nothing but metrics and health.
    Everybody,
}

/// A port that serves HTTP.
pub struct HttpListener {
    /// Name in the configuration.
    pub name: Arc<str>,
    /// The socket; it must not block.
    pub socket: std::net::TcpListener,
    /// Whom it is for.
    pub audience: Audience,
    /// Set to speak TLS.
    pub tls: Option<Arc<Tls>>,
    /// Virtual host of the listener.
    pub vhost: VhostName,
}

/// A listener without its socket, which closes when nobody accepts there any more.
struct Entrance {
    name: Arc<str>,
    audience: Audience,
    tls: Option<Arc<Tls>>,
    vhost: VhostName,
}

/// The HTTP server. Cloning shares it.
#[derive(Clone)]
pub struct Http {
    site: Arc<Site>,
    pages: Arc<ArcSwap<Pages>>,
}

/// What answers requests.
struct Pages {
    all: Routes,
    /// Those of [`Audience::Everybody`].
    open: Routes,
}

/// Paths and who answers them.
pub(crate) type Routes = TowerToHyperService<axum::Router>;

impl Pages {
    fn new(site: &Arc<Site>) -> Self {
        let all = TowerToHyperService::new(pages::router(site));
        Self { all, open: TowerToHyperService::new(pages::open(site)) }
    }

    fn of(&self, audience: Audience) -> &Routes {
        match audience {
            Audience::Users => &self.all,
            Audience::Everybody => &self.open,
        }
    }
}

/// How many connections there are, and whether they are to end.
pub(crate) struct Traffic {
    room: Arc<Semaphore>,
    /// How many connections there may be at a time.
    places: Mutex<usize>,
    door: Door,
    open: AtomicUsize,
    refused: AtomicU64,
    too_fast: AtomicU64,
    empty: Notify,
    draining: watch::Sender<bool>,
}

impl Traffic {
    /// True once connections are to end.
    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Connections closed at once because their address has too many.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Connections closed at once because their address opens too many a second.
    pub(crate) fn too_fast(&self) -> u64 {
        self.too_fast.load(Ordering::Relaxed)
    }

    /// Lets a connection in that was accepted, as one of its address.
    fn enter(&self, peer: Option<SocketAddr>) -> Option<Entered> {
        let entered = self.door.enter(peer.map(|address| address.ip()));
        if entered.is_none() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        entered
    }

    /// Another number of connections at a time. Those that are open stay: nobody new comes in until
    /// there are less, but for one on each listener, whose place was taken before.
    fn bound(&self, connections_max: usize) {
        let (new, mut places) = (places(connections_max), self.places.lock());
        let before = std::mem::replace(&mut *places, new);
        if new > before {
            return self.room.add_permits(new - before);
        }
        // Waits in front of whoever comes, for places that are taken.
        let (room, less) = (Arc::clone(&self.room), before - new);
        tokio::spawn(async move {
            for _ in 0..less {
                let Ok(place) = room.acquire().await else { return };
                place.forget();
            }
        });
    }

    pub(crate) fn new(connections_max: usize, limits: &Limits) -> Self {
        Self {
            door: Door::new(limits),
            refused: AtomicU64::new(0),
            too_fast: AtomicU64::new(0),
            room: Arc::new(Semaphore::new(places(connections_max))),
            places: Mutex::new(places(connections_max)),
            open: AtomicUsize::new(0),
            empty: Notify::new(),
            draining: watch::Sender::new(false),
        }
    }
}

/// Places for connections; without any nobody could ask for more.
fn places(connections_max: usize) -> usize {
    connections_max.clamp(1, Semaphore::MAX_PERMITS >> 1)
}

/// An open connection: counted until it is dropped.
pub(crate) struct Guest {
    site: Arc<Site>,
    _place: (OwnedSemaphorePermit, Entered),
}

impl Guest {
    /// A connection for which there is a place; `None` when its address has too many.
    pub(crate) fn let_in(
        http: &Http,
        place: OwnedSemaphorePermit,
        peer: Option<SocketAddr>,
    ) -> Option<Self> {
        let entered = http.site.traffic.enter(peer)?;
        http.site.traffic.open.fetch_add(1, Ordering::AcqRel);
        Some(Self { site: Arc::clone(&http.site), _place: (place, entered) })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if self.site.traffic.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.site.traffic.empty.notify_waiters();
        }
    }
}

impl Http {
    /// A server of these pages that serves no port yet.
    pub fn new(watched: Arc<Watched>, settings: Settings) -> Self {
        let site = Arc::new(Site::new(watched, settings));
        let pages = Arc::new(ArcSwap::from_pointee(Pages::new(&site)));
        Self { site, pages }
    }

    /// Other settings for connections and requests that come from now on.
    pub fn set(&self, settings: Settings) {
        let (traffic, limits) = (&self.site.traffic, Arc::clone(&settings.limits));
        traffic.bound(settings.connections_max);
        traffic.door.set(&limits);
        self.site.limits.store(limits);
        self.site.settings.store(Arc::new(settings));
        self.pages.store(Arc::new(Pages::new(&self.site)));
    }

    /// Serves a listener from now on. Needs a tokio runtime with I/O and time.
    ///
    /// Errors: the runtime does not take the socket.
    pub fn serve(&self, listener: HttpListener) -> std::io::Result<Accepting> {
        let HttpListener { name, socket, audience, tls, vhost } = listener;
        let socket = TcpListener::from_std(socket)?;
        let entrance = Arc::new(Entrance { name, audience, tls, vhost });
        let task = tokio::spawn(accept(self.clone(), socket, entrance));
        Ok(Accepting::of(task.abort_handle()))
    }

    #[cfg(test)]
    pub(crate) fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// Serves a connection that somebody else has accepted and found to speak HTTP. When there are
    /// too many it is dropped.
    pub fn adopt<S>(&self, socket: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let traffic = &self.site.traffic;
        let Ok(place) = Arc::clone(&traffic.room).try_acquire_owned() else { return };
        let Some(guest) = Guest::let_in(self, place, peer.address) else { return };
        let http = self.clone();
        tokio::spawn(async move {
            connection(http, socket, Socket::new(peer, Audience::Users)).await;
            drop(guest);
        });
    }

    /// Lets the requests that have begun finish, for so long at most, and closes connections. New
    /// ones are still answered, once each, so that whoever watches hears that the server stops.
    pub async fn shutdown(&self, within: Duration) {
        let traffic = &self.site.traffic;
        traffic.draining.send_replace(true);
        let deadline = Instant::now() + within;
        loop {
            let empty = traffic.empty.notified();
            if traffic.open.load(Ordering::Acquire) == 0
                || timeout_at(deadline, empty).await.is_err()
            {
                break;
            }
        }
        self.site.leases.close();
    }
}

async fn accept(http: Http, socket: TcpListener, listener: Arc<Entrance>) {
    loop {
        // Waiting here leaves further connections in the system's backlog.
        let room = Arc::clone(&http.site.traffic.room);
        let Ok(place) = room.acquire_owned().await else { return };
        match socket.accept().await {
            Ok((socket, address)) => {
                let (traffic, now) = (&http.site.traffic, clock::now().instant);
                if !traffic.door.admits(address.ip(), now) {
                    traffic.too_fast.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let delay = traffic.door.delay(now);
                if !delay.is_zero() {
                    sleep(delay).await;
                }
                let Some(guest) = Guest::let_in(&http, place, Some(address)) else { continue };
                let (http, listener) = (http.clone(), Arc::clone(&listener));
                tokio::spawn(async move {
                    arrived(http, socket, address, &listener).await;
                    drop(guest);
                });
            }
            Err(error) => {
                tracing::debug!(event = "http_accept_failed", %error);
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn arrived(http: Http, socket: TcpStream, address: SocketAddr, listener: &Entrance) {
    // Fails only on a socket that is broken already, which the first read finds out.
    let _ = socket.set_nodelay(true);
    let mut peer = Peer {
        address: Some(address),
        local: socket.local_addr().ok(),
        is_loopback: address.ip().to_canonical().is_loopback(),
        tls: None,
        offers_tls: false,
        account: None,
        transport: Transport::Stream,
        listener: Arc::clone(&listener.name),
        vhost: listener.vhost.clone(),
    };
    let Some(tls) = &listener.tls else {
        return connection(http, socket, Socket::new(peer, listener.audience)).await;
    };
    match timeout(HANDSHAKE_TIMEOUT, tls.accept_http(socket)).await {
        Ok(Ok((socket, facts))) => {
            peer.tls = Some(Arc::new(facts));
            Box::pin(connection(http, socket, Socket::new(peer, listener.audience))).await;
        }
        Ok(Err(error)) => tracing::debug!(event = "http_handshake_failed", %address, %error),
        Err(_) => tracing::debug!(event = "http_handshake_failed", %address, "too slow"),
    }
}

/// Serves a connection to its end.
pub(crate) async fn connection<S>(http: Http, socket: S, state: Socket)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Http { site, pages } = http;
    let state = Arc::new(state);
    let (activity, own) = (Arc::clone(&state.activity), Arc::clone(&state));
    let socket = Noted { socket, activity: Arc::clone(&activity) };
    let mut draining = site.traffic.draining.subscribe();
    let address = state.peer.address;
    let service = service_fn(move |request: Request<Incoming>| {
        let busy = state.activity.begin(request.version());
        let (site, socket) = (Arc::clone(&site), Arc::clone(&state));
        let pages = pages.load_full();
        async move {
            let answer = front::answer(&site, pages.of(socket.audience), socket, request).await;
            drop(busy);
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS_MAX);
    let mut served = pin!(builder.serve_connection_with_upgrades(TokioIo::new(socket), service));
    // Whoever comes now is answered once, and closed by its answer.
    let mut is_ending = *draining.borrow();
    loop {
        tokio::select! {
            ended = &mut served => {
                if let Err(error) = ended {
                    tracing::debug!(event = "http_connection_failed", ?address, %error);
                }
                return;
            }
            told = draining.wait_for(|is| *is), if !is_ending => {
                drop(told);
                is_ending = true;
                served.as_mut().graceful_shutdown();
            }
            () = sleep(LOOK_EVERY) => {
                own.forget_ended();
                if activity.is_overdue() {
                    return tracing::debug!(event = "http_head_too_slow", ?address);
                }
                if activity.is_stuck() {
                    return tracing::debug!(event = "http_reader_too_slow", ?address);
                }
                if activity.is_idle() && !is_ending {
                    is_ending = true;
                    served.as_mut().graceful_shutdown();
                }
            }
        }
    }
}
