//! Connections that we open ourselves, and open again when they end.

use std::{sync::Arc, time::Duration};

use tokio::net::TcpStream;

use polymq_contract::{Account, Peer, Protocol, Transport};
use polymq_model::{UserName, VhostName};

use crate::{arrival::Arrival, clock, gate::Gate, said, socket::Direct, wire::Wire};

/// Pause before the first new attempt; each failure doubles it.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// A connection to a server of somebody else, where the session speaks first.
#[derive(Clone)]
pub struct Outgoing {
    /// Name in the configuration, logs and metrics.
    pub name: Arc<str>,
    /// Host and port.
    pub address: String,
    /// What is spoken.
    pub protocol: Arc<dyn Protocol>,
    /// The user whose rights the other side has.
    pub account: UserName,
    /// The virtual host.
    pub vhost: VhostName,
}

/// Keeps the connection until the driver stops.
pub(crate) async fn keep(outgoing: Outgoing, gate: Arc<Gate>) {
    let mut pause = RETRY_MIN;
    while !gate.is_draining() {
        let began = clock::now().instant;
        match TcpStream::connect(&outgoing.address).await {
            Ok(socket) => serve(&outgoing, socket, &gate).await,
            Err(error) => {
                static SAID: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
                if said::is_due(&SAID) {
                    let (name, address) = (&outgoing.name, &outgoing.address);
                    tracing::warn!(event = "cannot_connect", %name, address, %error);
                }
            }
        }
        // A connection that held for a while is worth an early attempt.
        let held = clock::now().instant.saturating_duration_since(began);
        pause = if held > RETRY_MAX { RETRY_MIN } else { pause.saturating_mul(2).min(RETRY_MAX) };
        tokio::select! {
            () = gate.closing.notified() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn serve(outgoing: &Outgoing, socket: TcpStream, gate: &Arc<Gate>) {
    let Some(ticket) = gate.enter(None) else { return };
    // Fails only on a socket that is broken already, which the first read finds out.
    let _ = socket.set_nodelay(true);
    let address = socket.peer_addr().ok();
    let peer = Peer {
        address,
        local: socket.local_addr().ok(),
        is_loopback: address.is_some_and(|address| address.ip().to_canonical().is_loopback()),
        tls: None,
        offers_tls: false,
        account: Some(Account::Configured(outgoing.account.clone())),
        transport: Transport::Stream,
        listener: Arc::clone(&outgoing.name),
        vhost: outgoing.vhost.clone(),
    };
    let socket = Wire::Plain(Direct::Watched(socket));
    Arrival::new(ticket).serve_opened(socket, &outgoing.protocol, peer).await;
}
