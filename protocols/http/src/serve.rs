//! Accepts HTTP connections. One request each, within a time, a size and a number of others, so
//! that nobody can hold what the broker needs.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Extension;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::{
    Watched,
    pages::{self, Peer},
};

/// From accepting a connection to the end of its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// From accepting a connection to its end.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// Connections at a time, over all listeners of one call.
const CONNECTIONS_MAX: usize = 256;
/// Pause after the system refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who may read the metrics on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Peers on loopback.
    Loopback,
    /// Whoever can reach it.
    Everybody,
}

/// A port that serves pages.
pub struct HttpListener {
    /// The socket; it must not block.
    pub socket: std::net::TcpListener,
    /// Who may read the metrics here.
    pub audience: Audience,
}

/// Serves the listeners until the runtime ends. Needs a tokio runtime with I/O and time.
///
/// Errors: the runtime does not take a socket.
pub fn serve(
    listeners: Vec<HttpListener>,
    watched: &Arc<Watched>,
    path_prefix: &str,
) -> std::io::Result<()> {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    for HttpListener { socket, audience } in listeners {
        let socket = TcpListener::from_std(socket)?;
        let router = pages::router(Arc::clone(watched), audience, path_prefix);
        tokio::spawn(accept(socket, router, Arc::clone(&room)));
    }
    Ok(())
}

async fn accept(listener: TcpListener, router: axum::Router, room: Arc<Semaphore>) {
    loop {
        // Waiting here leaves further connections in the system's backlog.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, address)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    connection(socket, address, router).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(event = "http_accept_failed", %error);
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(socket: TcpStream, address: SocketAddr, router: axum::Router) {
    let service = TowerToHyperService::new(router.layer(Extension(Peer(address))));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(socket), service);
    match timeout(CONNECTION_TIMEOUT, served).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(event = "http_connection_failed", %address, %error),
    }
}
