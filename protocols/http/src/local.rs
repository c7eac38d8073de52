//! The Unix socket in the data directory. Whoever the kernel says is root, or the user that this
//! process runs as, is the first administrator; nobody else is answered.

use std::sync::Arc;

use polymq_contract::{Account, Peer, Transport};
use polymq_driver::Accepting;
use polymq_model::VhostName;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::sleep,
};

use crate::{
    serve::{ACCEPT_PAUSE, Audience, Guest, Http, connection},
    socket::Socket,
};

/// Connections at a time. They do not count among those of the network, so that an administrator
/// gets in when these are all taken.
const CONNECTIONS_MAX: usize = 32;

/// A Unix socket for administrators of this machine.
pub struct LocalListener {
    /// The socket; it must not block.
    pub socket: std::os::unix::net::UnixListener,
    /// Whether somebody with this user id may enter.
    pub may_enter: fn(u32) -> bool,
    /// Virtual host of the listener.
    pub vhost: VhostName,
}

impl Http {
    /// Serves administrators of this machine from now on. Needs a tokio runtime with I/O and time.
    ///
    /// Errors: the runtime does not take the socket.
    pub fn serve_local(&self, listener: LocalListener) -> std::io::Result<Accepting> {
        let LocalListener { socket, may_enter, vhost } = listener;
        let socket = UnixListener::from_std(socket)?;
        let task = tokio::spawn(accept(self.clone(), socket, may_enter, vhost));
        Ok(Accepting::of(task.abort_handle()))
    }
}

async fn accept(http: Http, socket: UnixListener, may_enter: fn(u32) -> bool, vhost: VhostName) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let socket = match socket.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::debug!(event = "http_accept_failed", %error);
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if !is_let_in(&socket, may_enter) {
            continue;
        }
        let Some(guest) = Guest::let_in(&http, place, None) else { continue };
        let peer = Peer {
            address: None,
            local: None,
            is_loopback: true,
            tls: None,
            offers_tls: false,
            account: Some(Account::Local),
            transport: Transport::Stream,
            listener: Arc::from("local"),
            vhost: vhost.clone(),
        };
        let http = http.clone();
        tokio::spawn(async move {
            connection(http, socket, Socket::new(peer, Audience::Users)).await;
            drop(guest);
        });
    }
}

/// Asks the kernel who has connected.
fn is_let_in(socket: &UnixStream, may_enter: fn(u32) -> bool) -> bool {
    match socket.peer_cred() {
        Ok(peer) if may_enter(peer.uid()) => true,
        Ok(peer) => {
            tracing::warn!(event = "local_login_refused", uid = peer.uid());
            false
        }
        Err(error) => {
            tracing::debug!(event = "http_accept_failed", %error);
            false
        }
    }
}
