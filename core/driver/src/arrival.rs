//! From an accepted socket to its session, under the limits of strangers, and to its end.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, atomic::AtomicU64},
    task::{Context, Poll},
    time::Instant,
};

use polymq_contract::{Outbox, Output, Peer, Protocol, Recognised};

use crate::{
    clock,
    ending::Ending,
    gate::Ticket,
    incoming::Guest,
    input::Input,
    link::{Link, Parts, Step},
    parting::part,
    said,
    socket::Socket,
    timer::Timer,
    tls::Tls,
};

/// When a refused connection was last said.
static SAID: AtomicU64 = AtomicU64::new(0);

/// A connection on its way to a login, and what bounds it.
pub(crate) struct Arrival {
    pub(crate) ticket: Ticket,
    timer: Timer,
    deadline: Instant,
}

impl Arrival {
    pub(crate) fn new(ticket: Ticket) -> Self {
        let deadline = clock::now().instant + ticket.limits.login_timeout;
        Self { ticket, timer: Timer::default(), deadline }
    }

    /// Counts and logs an arrival that came to nothing.
    pub(crate) fn fail(&self, ending: &Ending) {
        self.ticket.gate.counters.ended(ending);
        tracing::debug!(
            event = "stranger_ended",
            cause = ending.word(),
            "a connection ended before it had a session"
        );
    }

    /// Runs a step until the deadline of the login or the stop of the server.
    pub(crate) async fn bounded<F: Future + Unpin>(
        &mut self,
        mut step: F,
    ) -> Result<F::Output, Ending> {
        let mut is_registered = false;
        poll_fn(|cx| {
            if !is_registered {
                self.ticket.register(cx.waker());
                is_registered = true;
            }
            if self.ticket.gate.is_draining() {
                return Poll::Ready(Err(Ending::Shutdown));
            }
            if let Poll::Ready(done) = Pin::new(&mut step).poll(cx) {
                return Poll::Ready(Ok(done));
            }
            if self.timer.poll(Some(self.deadline), clock::now().instant, cx) {
                return Poll::Ready(Err(Ending::LoginTimeout));
            }
            Poll::Pending
        })
        .await
    }

    /// Counts and logs an arrival that came to nothing, and says so to a peer that can hear it.
    async fn refuse<S: Socket>(&self, mut socket: S, ending: &Ending) {
        self.fail(ending);
        let gate = &self.ticket.gate;
        if socket.parts(ending, gate.is_draining()) {
            part(socket, Output::default(), gate).await;
        }
    }

    /// Waits for the first bytes, finds out who speaks, and serves the connection to its end.
    ///
    /// Clients speak first in every protocol, so a connection that is silent has no session yet
    /// and costs little.
    pub(crate) async fn serve<S>(
        mut self,
        mut socket: S,
        speakers: &Speakers,
        peer: Peer,
        start_tls: Option<Arc<Tls>>,
    ) where
        S: Socket + Send + 'static,
    {
        let mut input = Input::default();
        let bytes_max = self.ticket.limits.login_frame_bytes_max;
        let mut detection = Detection { speakers, bytes_max };
        let found = self
            .bounded(poll_fn(|cx| detection.poll(&mut socket, &mut input, cx)))
            .await
            .unwrap_or_else(Err);
        match found {
            Ok(Speaker::Protocol(protocol)) => {
                self.run(socket, input, protocol, (peer, start_tls)).await;
            }
            Ok(Speaker::Guest(guest)) => {
                let first = input.bytes().split().freeze();
                match socket.into_incoming(first) {
                    Some(incoming) => guest.serve(incoming, peer),
                    None => self.fail(&Ending::Unrecognised),
                }
            }
            Err(ending) => self.refuse(socket, &ending).await,
        }
    }

    /// Serves a connection that we have opened, whose session speaks first.
    pub(crate) async fn serve_opened<S>(
        mut self,
        socket: S,
        protocol: &Arc<dyn Protocol>,
        peer: Peer,
    ) where
        S: Socket + Send + 'static,
    {
        self.run(socket, Input::default(), protocol, (peer, None)).await;
    }

    async fn run<S>(
        &mut self,
        socket: S,
        input: Input,
        protocol: &Arc<dyn Protocol>,
        (peer, start_tls): (Peer, Option<Arc<Tls>>),
    ) where
        S: Socket + Send + 'static,
    {
        let gate = Arc::clone(&self.ticket.gate);
        let mut link = match self.link(socket, input, protocol, (peer, start_tls)) {
            Ok(link) => link,
            Err((socket, ending)) => return self.refuse(socket, &ending).await,
        };
        // Whatever is logged on the way says which connection it is about.
        let span = tracing::debug_span!("connection", connection = link.id().0);
        let ending = loop {
            match poll_fn(|cx| span.in_scope(|| link.poll(cx))).await {
                Step::Yield => tokio::task::yield_now().await,
                Step::Ended(ending) => break ending,
            }
        };
        gate.counters.ended(&ending);
        let (socket, out) = span.in_scope(|| {
            tracing::debug!(
                event = "connection_ended",
                cause = ending.word(),
                protocol = protocol.name(),
                "a connection ended"
            );
            link.end(&ending)
        });
        let Some(mut socket) = socket else { return };
        if socket.parts(&ending, gate.is_draining()) {
            let is_whole = matches!(ending, Ending::Session(_));
            part(socket, if is_whole { out } else { Output::default() }, &gate).await;
        }
    }

    fn link<S>(
        &mut self,
        socket: S,
        input: Input,
        protocol: &Arc<dyn Protocol>,
        (peer, start_tls): (Peer, Option<Arc<Tls>>),
    ) -> Result<Link<S>, (S, Ending)>
    where
        S: Socket + Send + 'static,
    {
        let gate = Arc::clone(&self.ticket.gate);
        let limits = Arc::clone(&self.ticket.limits);
        let outbox = Arc::new(Outbox::new(limits.outbox_bytes_max));
        let peer = Arc::new(peer);
        let now = clock::now();
        let made = catch_unwind(AssertUnwindSafe(|| {
            let connection = gate.broker.connect(protocol.name(), &peer, &outbox)?;
            let mut session = protocol.session(&peer, &limits, now);
            session.on_open(&outbox);
            Ok((connection, session))
        }));
        let (connection, session) = match made {
            Ok(Ok(made)) => made,
            Ok(Err(refusal)) => {
                let refusal: polymq_contract::Refusal = refusal;
                if said::is_due(&SAID) {
                    tracing::warn!(event = "connection_refused", %refusal);
                }
                return Err((socket, Ending::Refused));
            }
            Err(_) => return Err((socket, Ending::Panic)),
        };
        Ok(Link::new(Parts {
            socket,
            session,
            connection,
            outbox,
            gate,
            limits,
            input,
            timer: std::mem::take(&mut self.timer),
            login_deadline: self.deadline,
            peer,
            start_tls,
        }))
    }
}

/// Who may speak on a port.
#[derive(Clone, Default)]
pub(crate) struct Speakers {
    /// Earlier ones are asked first.
    pub(crate) protocols: Vec<Arc<dyn Protocol>>,
    pub(crate) guest: Option<Arc<dyn Guest>>,
}

enum Speaker<'a> {
    Protocol(&'a Arc<dyn Protocol>),
    Guest(&'a Arc<dyn Guest>),
}

/// Reads the first bytes until it is clear who speaks.
struct Detection<'a> {
    speakers: &'a Speakers,
    bytes_max: usize,
}

impl<'a> Detection<'a> {
    fn poll<S: Socket>(
        &mut self,
        socket: &mut S,
        input: &mut Input,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Speaker<'a>, Ending>> {
        loop {
            let bytes_max = self.bytes_max.saturating_sub(input.bytes().len());
            if bytes_max == 0 {
                return Poll::Ready(Err(Ending::Unrecognised));
            }
            match input.poll_read(socket, bytes_max, cx) {
                Poll::Ready(Ok(count)) if count > 0 => {}
                Poll::Ready(_) if socket.has_fault() => return Poll::Ready(Err(Ending::Fault)),
                Poll::Ready(_) => return Poll::Ready(Err(Ending::PeerGone)),
                Poll::Pending => {
                    input.rest();
                    return Poll::Pending;
                }
            }
            if let Some(found) = self.find(input.bytes()) {
                return Poll::Ready(found.ok_or(Ending::Unrecognised));
            }
        }
    }

    /// `None` while it is unclear; the inner `None` when nobody knows these bytes.
    fn find(&self, first: &[u8]) -> Option<Option<Speaker<'a>>> {
        let speakers = self.speakers;
        match (&speakers.protocols[..], &speakers.guest) {
            // Who is alone on a port tells a stranger itself what is wrong.
            ([only], None) => return Some(Some(Speaker::Protocol(only))),
            ([], Some(only)) => return Some(Some(Speaker::Guest(only))),
            _ => {}
        }
        let protocols =
            speakers.protocols.iter().map(|p| (p.recognise(first), Speaker::Protocol(p)));
        let guest = speakers.guest.iter().map(|g| (g.recognise(first), Speaker::Guest(g)));
        let mut is_unsure = false;
        for (recognised, speaker) in protocols.chain(guest) {
            match recognised {
                Recognised::Yes => return Some(Some(speaker)),
                Recognised::Unsure => is_unsure = true,
                Recognised::No => {}
            }
        }
        (!is_unsure).then_some(None)
    }
}
