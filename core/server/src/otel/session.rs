//! A session that makes spans of what passes through it.

use std::sync::Arc;

use bytes::BytesMut;
use polymq_contract::{
    Broadcast, Command, DisconnectCause, Effects, Event, EventBatch, Outbox, Peer, ProtocolSession,
    Timeout,
};
use polymq_model::{Message, Now};

use super::{Operation, Tracer, What};

pub(super) struct TracedSession {
    pub(super) session: Box<dyn ProtocolSession>,
    pub(super) tracer: Arc<Tracer>,
    pub(super) protocol: &'static str,
    pub(super) peer: Arc<Peer>,
    /// Events that the session was offered and has left for later.
    pub(super) noted: usize,
}

impl TracedSession {
    fn what(&self, operation: Operation, redelivered: bool) -> What<'_> {
        What { operation, protocol: self.protocol, peer: &self.peer, redelivered }
    }

    /// Spans for publishes among the commands from `from` on.
    fn published(&self, effects: &mut Effects, from: usize) {
        let what = self.what(Operation::Publish, false);
        for command in effects.commands.iter_mut().skip(from) {
            let publishes = match command {
                Command::Publish(publish) => std::slice::from_mut(publish),
                Command::Commit(transaction) => transaction.publishes.as_mut_slice(),
                _ => continue,
            };
            for publish in publishes {
                if let Some(message) = self.tracer.note(what, &publish.message) {
                    publish.message = message;
                }
            }
        }
    }

    /// A span for a delivery, which is the parent of what comes after it.
    fn delivered(&self, event: &mut Event) {
        match event {
            Event::Delivered(delivery) => {
                let what = self.what(Operation::Deliver, delivery.redelivered);
                if let Some(message) = self.tracer.note(what, &delivery.message) {
                    delivery.message = message;
                }
            }
            Event::Broadcast { batch, .. } => {
                let is_traced = |message| self.tracer.context(message).is_some();
                if !batch.messages().iter().any(is_traced) {
                    return;
                }
                let what = self.what(Operation::Deliver, false);
                let one = |message: &Message| {
                    self.tracer.note(what, message).unwrap_or_else(|| message.clone())
                };
                let messages = batch.messages().iter().map(one).collect();
                *batch = Arc::new(Broadcast::new(messages));
            }
            _ => {}
        }
    }
}

impl ProtocolSession for TracedSession {
    fn on_bytes(&mut self, input: &mut BytesMut, now: Now, effects: &mut Effects) {
        let from = effects.commands.len();
        self.session.on_bytes(input, now, effects);
        self.published(effects, from);
    }

    fn on_events(&mut self, events: &mut EventBatch, now: Now, effects: &mut Effects) {
        // The first of them may have been offered before.
        for event in events.iter_mut().skip(self.noted) {
            self.delivered(event);
        }
        let from = effects.commands.len();
        self.session.on_events(events, now, effects);
        self.noted = events.len();
        self.published(effects, from);
    }

    fn on_timeout(&mut self, now: Now, effects: &mut Effects) {
        self.session.on_timeout(now, effects);
    }

    fn next_timeout(&self) -> Option<Timeout> {
        self.session.next_timeout()
    }

    fn on_disconnect(&mut self, cause: DisconnectCause, effects: &mut Effects) {
        self.session.on_disconnect(cause, effects);
    }

    fn on_open(&mut self, outbox: &Arc<Outbox>) {
        self.session.on_open(outbox);
    }

    fn on_secured(&mut self, peer: &Arc<Peer>) {
        self.peer = Arc::clone(peer);
        self.session.on_secured(peer);
    }

    fn on_socket_lost(&mut self, now: Now) -> bool {
        self.session.on_socket_lost(now)
    }

    fn on_socket_gained(&mut self, now: Now, effects: &mut Effects) {
        self.session.on_socket_gained(now, effects);
    }

    fn on_resume_failed(&mut self, now: Now, effects: &mut Effects) {
        self.session.on_resume_failed(now, effects);
    }
}
