//! What a connection talks over, and how that changes: TLS on the way, a socket that is lost, a
//! socket that comes from another session.

use std::{
    ops::ControlFlow::{self, Break, Continue},
    sync::Arc,
    task::{Context, Poll},
};

use polymq_contract::{Close, Peer};
use polymq_model::Now;

use super::Link;
use crate::{
    ending::Ending,
    heirs::Handover,
    socket::{Handshake, Socket},
};

/// What a link has to talk over.
pub(super) enum Line<S> {
    Socket(S),
    Securing(Handshake<S>),
    /// Nothing: the session lives on without, or the link is about to end.
    Gone,
}

impl<S: Socket + Send + 'static> Link<S> {
    /// True when the session goes on although its socket is gone.
    pub(super) fn outlives_socket(&mut self, now: Now) -> bool {
        if self.key.is_none() || self.effects.close.is_some() {
            return false;
        }
        let survives = self.session.on_socket_lost(now);
        if survives {
            self.line = Line::Gone;
            self.effects.out.take_all();
            self.unflushed = false;
            self.input.bytes().clear();
        }
        survives
    }

    /// Takes over the socket of another session.
    pub(super) fn gain_socket(&mut self, now: Now) {
        let Some(key) = &self.key else { return };
        let Some(Handover { socket, input }) = self.gate.heirs.take(key) else { return };
        self.line = Line::Socket(socket);
        self.effects.out.take_all();
        self.unflushed = false;
        *self.input.bytes() = input;
        self.resume = true;
        self.tick = None;
        self.session.on_socket_gained(now, &mut self.effects);
        self.execute(now);
    }

    /// Does what the session wants done with its socket, once everything before is written.
    pub(super) fn change_line(&mut self, now: Now) -> ControlFlow<Ending, bool> {
        if let Some(key) = self.effects.resumable.take() {
            self.gate.heirs.enter::<S>(key.clone(), &self.outbox);
            self.key = Some(key);
        }
        if !self.effects.out.is_empty() || self.unflushed {
            return Continue(false);
        }
        if let Some(key) = self.effects.resume.take() {
            return self.give_socket(&key, now);
        }
        if !self.effects.start_tls || !matches!(self.line, Line::Socket(_)) {
            return Continue(false);
        }
        let Some(tls) = self.start_tls.clone() else { return Break(Ending::Handshake) };
        // Whoever could put bytes in before the handshake would be heard as if they came after it.
        if !self.input.bytes().is_empty() {
            let detail = "bytes came between the request for TLS and its handshake".to_owned();
            return Break(Ending::Session(Close { cause: "tls_injection", detail }));
        }
        let Line::Socket(socket) = std::mem::replace(&mut self.line, Line::Gone) else {
            return Continue(false);
        };
        let Some(handshake) = socket.encrypt(&tls) else { return Break(Ending::Handshake) };
        let gate = Arc::clone(&self.gate);
        self.line = Line::Securing(Box::pin(async move { gate.handshakes.run(handshake).await }));
        Continue(true)
    }

    fn give_socket(&mut self, key: &str, now: Now) -> ControlFlow<Ending, bool> {
        let Line::Socket(socket) = std::mem::replace(&mut self.line, Line::Gone) else {
            return Continue(false);
        };
        let input = self.input.bytes().split();
        match self.gate.heirs.give(key, Handover { socket, input }) {
            Ok(()) => Break(Ending::HandedOver),
            Err(Handover { socket, input }) => {
                self.line = Line::Socket(socket);
                *self.input.bytes() = input;
                self.resume = true;
                self.session.on_resume_failed(now, &mut self.effects);
                self.execute(now);
                Continue(true)
            }
        }
    }

    /// Goes on with a TLS handshake.
    pub(super) fn finish_securing(&mut self, cx: &mut Context<'_>) -> ControlFlow<Ending, bool> {
        let Line::Securing(handshake) = &mut self.line else { return Continue(false) };
        match handshake.as_mut().poll(cx) {
            Poll::Pending => Continue(false),
            Poll::Ready(Err(ending)) => {
                self.line = Line::Gone;
                Break(ending)
            }
            Poll::Ready(Ok((socket, facts))) => {
                self.line = Line::Socket(socket);
                self.effects.start_tls = false;
                // The session may have waited for this.
                self.resume = true;
                let mut peer = Peer::clone(&self.peer);
                peer.tls = Some(Arc::new(facts));
                peer.offers_tls = false;
                self.peer = Arc::new(peer);
                self.connection.secured(&self.peer);
                self.session.on_secured(&self.peer);
                Continue(true)
            }
        }
    }
}
