//! What belongs to one connection of HTTP: its peer, its clients of the broker, and when something
//! last moved on it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, StatusCode};
use axum::http::{HeaderValue, Version, header::AUTHORIZATION};
use parking_lot::Mutex;
use polymq_broker::Principal;
use polymq_contract::{Account, Login, Peer, Refusal, RefusalKind, Secret};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Site, client::Client, clock, identity, problem::Problem, serve::Audience};

/// Users and virtual hosts that one connection may change between without logging in again.
const CLIENTS_MAX: usize = 16;
/// From the first byte of a request's head to its last.
const HEAD_TIMEOUT: Duration = clock::seconds(10);
/// How long a connection may be silent between requests.
pub(crate) const IDLE_TIMEOUT: Duration = clock::seconds(75);
/// How long a client may take no byte of what waits for it.
const STUCK_TIMEOUT: Duration = clock::seconds(60);

/// One connection of HTTP.
pub(crate) struct Socket {
    /// The other end.
    pub(crate) peer: Arc<Peer>,
    /// Who may read the metrics here.
    pub(crate) audience: Audience,
    /// When something moved.
    pub(crate) activity: Arc<Activity>,
    clients: Mutex<Vec<Kept>>,
}

/// What a request shows of whoever sends it.
#[derive(Clone)]
pub(crate) enum Shown {
    /// `Authorization`.
    Header(HeaderValue),
    /// A client certificate that names a user.
    Certificate,
    /// Nothing, over the Unix socket: the kernel stands for whoever asks.
    Local,
    /// The id of a session that has been found.
    Session(String, Principal),
}

impl Shown {
    /// What a request shows beside cookies.
    ///
    /// Errors: nothing.
    pub(crate) fn of(headers: &HeaderMap, peer: &Peer) -> Result<Self, Problem> {
        match (headers.get(AUTHORIZATION), identity::certificate_user(peer)) {
            (Some(value), _) => Ok(Self::Header(value.clone())),
            (None, Some(_)) => Ok(Self::Certificate),
            (None, None) if matches!(peer.account, Some(Account::Local)) => Ok(Self::Local),
            (None, None) => Err(Problem::login_required()),
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Header(one), Self::Header(other)) => {
                identity::is_same(one.as_bytes(), other.as_bytes())
            }
            (Self::Session(one, _), Self::Session(other, _)) => {
                identity::is_same(one.as_bytes(), other.as_bytes())
            }
            (Self::Certificate, Self::Certificate) | (Self::Local, Self::Local) => true,
            (Self::Header(_) | Self::Certificate | Self::Local | Self::Session(..), _) => false,
        }
    }
}

/// A client that stays logged in for the next request.
struct Kept {
    shown: Shown,
    vhost: Option<String>,
    client: Arc<Client>,
}

impl Socket {
    pub(crate) fn new(peer: Peer, audience: Audience) -> Self {
        Self { peer: Arc::new(peer), audience, activity: Arc::default(), clients: Mutex::default() }
    }

    /// Where requests come from, for the audit file.
    pub(crate) fn origin(&self) -> String {
        self.peer.address.map_or_else(|| "unix socket".to_owned(), |address| address.to_string())
    }

    /// The client of whoever sends these headers, logged in by now; with the virtual host open when
    /// one is named.
    ///
    /// Errors: nobody is shown, the login is wrong, or the user may not enter the virtual host.
    pub(crate) async fn client(
        &self,
        site: &Site,
        headers: &HeaderMap,
        vhost: Option<&str>,
    ) -> Result<Arc<Client>, Problem> {
        self.client_of(site, &Shown::of(headers, &self.peer)?, vhost).await
    }

    /// As [`client`](Self::client), of what a request shows.
    ///
    /// Errors: the login is wrong, or the user may not enter the virtual host.
    pub(crate) async fn client_of(
        &self,
        site: &Site,
        shown: &Shown,
        vhost: Option<&str>,
    ) -> Result<Arc<Client>, Problem> {
        if let Some(client) = self.kept(shown, vhost) {
            return Ok(client);
        }
        let client = Arc::new(self.connect_shown(site, shown, None).await?);
        if let Some(vhost) = vhost {
            client.visit(vhost).await.map_err(|refusal| not_connected(&refusal))?;
        }
        let vhost = vhost.map(str::to_owned);
        let kept = Kept { shown: shown.clone(), vhost, client: client.clone() };
        let mut clients = self.clients.lock();
        // Requests that share one connection may have logged in at the same time.
        clients.retain(|other| !other.is_for(shown, kept.vhost.as_deref()));
        let first_idle = clients.iter().position(|other| Arc::strong_count(&other.client) == 1);
        let evicted =
            (clients.len() >= CLIENTS_MAX).then(|| clients.remove(first_idle.unwrap_or_default()));
        clients.push(kept);
        drop(clients);
        drop(evicted);
        Ok(client)
    }

    /// A client of its own of what a request shows.
    ///
    /// Errors: as for [`Socket::client_of`].
    pub(crate) async fn connect_shown(
        &self,
        site: &Site,
        shown: &Shown,
        vhost: Option<&str>,
    ) -> Result<Client, Problem> {
        let who = match shown {
            Shown::Header(value) => {
                let login = identity::login(Some(value))?;
                let token = identity::token_of(&login).cloned();
                let connected = self.connect(site, login, vhost).await;
                return connected.map_err(|problem| match &token {
                    Some(token) => of_token(site, token, problem),
                    None => problem,
                });
            }
            Shown::Certificate => {
                let login = Login::Certificate { identity: String::new() };
                return self.connect(site, login, vhost).await;
            }
            Shown::Local => return self.connect(site, Login::Configured, vhost).await,
            Shown::Session(_, who) => who,
        };
        let bytes_max = site.limits().outbox_bytes_max;
        let vhost = vhost.map(str::to_owned);
        let broker = &site.watched.broker;
        let connected = Client::connect_as(broker, &self.peer, who, vhost, bytes_max).await;
        let connected = connected.map_err(|refusal| not_connected(&refusal))?;
        Ok(connected.with_spans(site.watched.spans.as_ref(), &self.peer))
    }

    /// A client of its own, which goes with whoever holds it.
    ///
    /// Errors: as for [`Socket::client`].
    pub(crate) async fn connect(
        &self,
        site: &Site,
        login: Login,
        vhost: Option<&str>,
    ) -> Result<Client, Problem> {
        let vhost = vhost.map(str::to_owned);
        let bytes_max = site.limits().outbox_bytes_max;
        let connected = Client::connect(&site.watched.broker, &self.peer, login, vhost, bytes_max);
        match tokio::time::timeout(site.limits().login_timeout, connected).await {
            Ok(connected) => {
                let connected = connected.map_err(|refusal| not_connected(&refusal))?;
                Ok(connected.with_spans(site.watched.spans.as_ref(), &self.peer))
            }
            Err(_) => {
                let text = "logins take too long at the moment";
                Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "login_timeout", text).retry())
            }
        }
    }

    /// Lets go of clients that the broker has ended; nobody else would notice while no request uses
    /// them.
    pub(crate) fn forget_ended(&self) {
        let mut clients = self.clients.lock();
        let gone: Vec<_> = clients.extract_if(.., |kept| kept.client.ended().is_some()).collect();
        drop(clients);
        drop(gone);
    }

    fn kept(&self, shown: &Shown, vhost: Option<&str>) -> Option<Arc<Client>> {
        let mut clients = self.clients.lock();
        let place = clients.iter().position(|kept| kept.is_for(shown, vhost))?;
        let client = Arc::clone(&clients.get(place)?.client);
        if client.ended().is_none() {
            return Some(client);
        }
        let gone = clients.remove(place);
        drop(clients);
        drop(gone);
        None
    }
}

impl Kept {
    fn is_for(&self, shown: &Shown, vhost: Option<&str>) -> bool {
        self.vhost.as_deref() == vhost && self.shown.is(shown)
    }
}

/// A token that is refused is no wrong password.
fn of_token(site: &Site, token: &Secret, problem: Problem) -> Problem {
    if problem.code() != "login_failed" {
        return problem;
    }
    match site.watched.broker.is_token_over(token.expose()) {
        true => Problem::token_expired(),
        false => Problem::login_failed("the token is not good here, or not any more"),
    }
}

fn not_connected(refusal: &Refusal) -> Problem {
    match refusal.kind {
        // The broker takes no more connections, or it stops.
        RefusalKind::Limit => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            Problem::new(status, "limit_reached", refusal.text.clone()).retry()
        }
        _ => Problem::refused(refusal, "vhost"),
    }
}

/// When something moved on a connection.
pub(crate) struct Activity {
    start: Instant,
    in_flight: AtomicUsize,
    is_http2: AtomicBool,
    moved_ms: AtomicU64,
    /// Since when the client takes nothing of what waits for it; 0 for never.
    stuck_ms: AtomicU64,
    /// When the first byte of a head came that is not whole yet; 0 for none.
    head_ms: AtomicU64,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            in_flight: AtomicUsize::new(0),
            is_http2: AtomicBool::new(false),
            moved_ms: AtomicU64::new(0),
            stuck_ms: AtomicU64::new(0),
            head_ms: AtomicU64::new(1),
        }
    }
}

/// A request that is being answered.
pub(crate) struct Busy(Arc<Activity>);

impl Activity {
    /// A request has begun.
    pub(crate) fn begin(self: &Arc<Self>, version: Version) -> Busy {
        if version == Version::HTTP_2 {
            self.is_http2.store(true, Ordering::Relaxed);
        }
        self.busy()
    }

    /// Something is being answered that outlives its request.
    pub(crate) fn busy(self: &Arc<Self>) -> Busy {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.head_ms.store(0, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// True when the head of a request takes too long. Streams of HTTP/2 carry more than requests,
    /// so that only its first one is looked at.
    pub(crate) fn is_overdue(&self) -> bool {
        let since = self.head_ms.load(Ordering::Relaxed);
        since != 0
            && !self.is_http2.load(Ordering::Relaxed)
            && self.in_flight.load(Ordering::Relaxed) == 0
            && self.since(since) >= HEAD_TIMEOUT
    }

    /// True when the connection is kept and nobody uses it.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0
            && self.since(self.moved_ms.load(Ordering::Relaxed)) >= IDLE_TIMEOUT
    }

    /// True when the client has taken nothing for too long of what waits for it.
    pub(crate) fn is_stuck(&self) -> bool {
        let since = self.stuck_ms.load(Ordering::Relaxed);
        since != 0 && self.since(since) >= STUCK_TIMEOUT
    }

    fn since(&self, ms: u64) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(ms))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    fn read(&self) {
        let now = self.now_ms();
        self.moved_ms.store(now, Ordering::Relaxed);
        if self.in_flight.load(Ordering::Relaxed) == 0 && self.head_ms.load(Ordering::Relaxed) == 0
        {
            self.head_ms.store(now, Ordering::Relaxed);
        }
    }

    /// Bytes were given to the socket, or it takes none at the moment.
    fn wrote(&self, is_ready: bool) {
        if is_ready {
            self.moved_ms.store(self.now_ms(), Ordering::Relaxed);
            self.stuck_ms.store(0, Ordering::Relaxed);
        } else if self.stuck_ms.load(Ordering::Relaxed) == 0 {
            self.stuck_ms.store(self.now_ms(), Ordering::Relaxed);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A socket that notes when it moves.
pub(crate) struct Noted<S> {
    pub(crate) socket: S,
    pub(crate) activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.socket).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            this.activity.read();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.socket).poll_write(cx, bytes);
        this.activity.wrote(wrote.is_ready());
        wrote
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.socket).poll_write_vectored(cx, slices);
        this.activity.wrote(wrote.is_ready());
        wrote
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.socket).poll_flush(cx);
        if flushed.is_pending() {
            this.activity.wrote(false);
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
