//! The driver as the server sees it.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};

use polymq_contract::{Broker, Peer, Protocol, Transport};
use polymq_model::Limits;

use crate::{
    arrival::{Arrival, Speakers},
    counters::DriverCounters,
    gate::Gate,
    incoming::Incoming,
    listener::{Accepting, Listener},
    outgoing::{self, Outgoing},
    socket::Adopted,
    websocket::{Form, WebSocket},
};

/// How long connections that were told to go may take to notice, after the time for draining is
/// over.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves listeners until [`Driver::shutdown`]. Cloning shares it; dropping it stops nothing.
#[derive(Clone)]
pub struct Driver {
    gate: Arc<Gate>,
}

impl Driver {
    /// A driver of `broker` that serves no port yet.
    pub fn new(broker: Arc<dyn Broker>, limits: Arc<Limits>) -> Self {
        Self { gate: Arc::new(Gate::new(broker, limits)) }
    }

    /// Serves these listeners. Needs a tokio runtime with I/O and time.
    ///
    /// Errors: the runtime does not take a socket.
    pub fn start(
        broker: Arc<dyn Broker>,
        limits: Arc<Limits>,
        listeners: Vec<Listener>,
    ) -> std::io::Result<Self> {
        let driver = Self::new(broker, limits);
        for listener in listeners {
            driver.serve(listener)?;
        }
        Ok(driver)
    }

    /// Serves one more listener from now on, until it is told to stop or the driver is.
    ///
    /// Errors: the runtime does not take the socket.
    pub fn serve(&self, listener: Listener) -> std::io::Result<Accepting> {
        listener.serve(&self.gate)
    }

    /// Other limits for connections that come from now on; those that are there keep theirs.
    pub fn set_limits(&self, limits: Arc<Limits>) {
        self.gate.set_limits(limits);
    }

    /// Serves a stream that somebody else has accepted, as an upgraded HTTP connection. It counts
    /// like any other; when there are too many, or the driver stops, it is dropped.
    pub fn adopt<S>(&self, socket: S, protocols: Vec<Arc<dyn Protocol>>, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(ticket) = self.gate.enter(peer.address.map(|address| address.ip())) else {
            return;
        };
        tokio::spawn(async move {
            let speakers = Speakers { protocols, guest: None };
            Arrival::new(ticket).serve(Adopted(socket), &speakers, peer, None).await
        });
    }

    /// Serves a connection that was upgraded to WebSocket (RFC 6455) and carries `protocol` from
    /// now on. It counts like any other; when there are too many, or the driver stops, it is
    /// dropped.
    ///
    /// Sets `Peer::transport`.
    pub fn adopt_web_socket(
        &self,
        incoming: Incoming,
        form: Form,
        protocol: Arc<dyn Protocol>,
        mut peer: Peer,
    ) {
        let Some(ticket) = self.gate.enter(peer.address.map(|address| address.ip())) else {
            return;
        };
        peer.transport = match form.keeps_frames() {
            true => Transport::Messages,
            false => Transport::Stream,
        };
        tokio::spawn(async move {
            let socket = Box::new(WebSocket::new(incoming, form, &ticket.limits));
            let speakers = Speakers { protocols: vec![protocol], guest: None };
            Arrival::new(ticket).serve(socket, &speakers, peer, None).await
        });
    }

    /// Keeps a connection to a server of somebody else, from now until the driver stops accepting.
    pub fn keep(&self, outgoing: Outgoing) {
        tokio::spawn(outgoing::keep(outgoing, Arc::clone(&self.gate)));
    }

    /// False when the next connection would be one too many, or nobody is let in any more.
    pub fn has_room(&self) -> bool {
        let open = usize::try_from(self.gate.counters.open()).unwrap_or(usize::MAX);
        open < self.gate.limits().connections_max && !self.gate.is_draining()
    }

    /// The counters, for metrics.
    pub fn counters(&self) -> &Arc<DriverCounters> {
        &self.gate.counters
    }

    /// Closes the listeners and cuts the connections that have not logged in; the others go on.
    pub fn stop_accepting(&self) {
        self.gate.drain();
    }

    /// Ends everything: stops accepting, gives connections up to `drain_timeout` to send what
    /// waits and close, cuts the rest. Returns when no connection is left.
    ///
    /// Before this, tell the connections why: the broker sends each of them `Event::Closing`.
    pub async fn shutdown(&self, drain_timeout: Duration) {
        self.gate.drain();
        let listeners = std::mem::take(&mut *self.gate.listeners.lock());
        for listener in listeners {
            // An accepting task that panicked holds no address any more either.
            let _ = listener.await;
        }
        if !self.emptied(drain_timeout).await {
            self.gate.cut();
            self.emptied(CUT_TIMEOUT).await;
        }
    }

    async fn emptied(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        loop {
            let empty = self.gate.empty.notified();
            if self.gate.counters.open() == 0 {
                return true;
            }
            if timeout_at(deadline, empty).await.is_err() {
                return self.gate.counters.open() == 0;
            }
        }
    }
}
