//! The clocks of a stream: the login, silence, and the time to come back.

use std::time::{Duration, Instant};

use polymq_contract::Timeout;
use polymq_model::Now;

use super::{Phase, Session, Turn};
use crate::{
    Settings,
    error::StreamError,
    xml::{Element, ns},
};

/// How long a component's server may take to answer.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client that has logged in may take to bind a resource.
const BIND_TIMEOUT: Duration = Duration::from_secs(30);

/// The clocks of a stream.
#[derive(Debug)]
pub(super) struct Clock {
    last: Now,
    ping_after: Duration,
    heard: Instant,
    /// The client was asked, and has not answered.
    is_asked: bool,
    /// When a stream without a socket ends.
    ends_at: Option<Instant>,
    /// When a client that has logged in must have bound a resource.
    bind_by: Option<Instant>,
    /// When a component opens its stream, or gives up opening it.
    starts_at: Option<Instant>,
}

impl Clock {
    pub(super) fn new(now: Now, settings: &Settings, is_component: bool) -> Self {
        Self {
            last: now,
            ping_after: settings.ping_after,
            heard: now.instant,
            is_asked: false,
            ends_at: None,
            bind_by: None,
            starts_at: is_component.then_some(now.instant),
        }
    }

    /// Something has come.
    pub(super) fn heard(&mut self, now: Now) {
        self.last = now;
        self.heard = now.instant;
        self.is_asked = false;
    }

    pub(super) fn last(&self) -> Now {
        self.last
    }

    /// The client has logged in, and has some time to bind a resource.
    pub(super) fn logged_in(&mut self, now: Now) {
        self.bind_by = now.instant.checked_add(BIND_TIMEOUT);
    }

    /// The stream ends at this time, or not any more.
    pub(super) fn end_at(&mut self, at: Option<Instant>) {
        self.ends_at = at;
    }

    pub(super) fn next(&self, phase: Phase, is_detached: bool) -> Option<Timeout> {
        match phase {
            Phase::Closed => None,
            Phase::Opening | Phase::Negotiating => {
                let start = self.starts_at.map(|at| Timeout { at, reason: "handshake" });
                start.or_else(|| self.bind_by.map(|at| Timeout { at, reason: "bind" }))
            }
            Phase::Bound if is_detached => {
                self.ends_at.map(|at| Timeout { at, reason: "resumption" })
            }
            Phase::Bound if self.ping_after.is_zero() => None,
            Phase::Bound => {
                let at = self.heard.checked_add(match self.is_asked {
                    true => self.ping_after.saturating_mul(2),
                    false => self.ping_after,
                });
                at.map(|at| Timeout { at, reason: "ping" })
            }
        }
    }
}

impl Session {
    pub(super) fn on_time(&mut self, turn: &mut Turn<'_>) {
        self.clock.last = turn.now;
        let due = self.clock.next(self.phase, self.is_detached);
        if due.is_none_or(|due| due.at > turn.now.instant) {
            return;
        }
        match self.phase {
            Phase::Closed => {}
            Phase::Opening | Phase::Negotiating if self.clock.bind_by.is_some() => {
                let text = "no resource was bound";
                self.fail(StreamError::new("connection-timeout", text), turn);
            }
            Phase::Opening | Phase::Negotiating if self.is_open => {
                let text = "the server does not answer the handshake";
                self.fail(StreamError::new("connection-timeout", text), turn);
            }
            Phase::Opening | Phase::Negotiating => {
                self.clock.starts_at = turn.now.instant.checked_add(HANDSHAKE_TIMEOUT);
                self.put_header(turn);
            }
            Phase::Bound if self.is_detached => {
                self.close_stream("resume_timeout", "the client has not come back", turn);
            }
            Phase::Bound if self.clock.is_asked => {
                let text = "the client is silent";
                // Its socket may be dead; its stream may go on over another.
                if self.sm.is_resumable() {
                    turn.effects.out.take_all();
                    self.lose_socket(turn.now);
                    return;
                }
                self.fail(StreamError::new("connection-timeout", text), turn);
            }
            Phase::Bound => {
                self.clock.is_asked = true;
                self.put_ping(turn);
            }
        }
    }

    /// Asks the other side whether it is there (XEP-0199, or XEP-0198 where that is on).
    fn put_ping(&mut self, turn: &mut Turn<'_>) {
        if self.sm.is_enabled() {
            return self.put_raw(&Element::new(ns::SM, "r"), turn);
        }
        if self.is_component() {
            turn.effects.out.buffer().extend_from_slice(b" ");
            self.clock.heard(turn.now);
            return;
        }
        let ping = Element::new(ns::CLIENT, "iq")
            .attr("type", "get")
            .attr("id", "ping")
            .attr("from", self.shared.domains.base())
            .attr("to", self.jid.to_string())
            .child(Element::new(ns::PING, "ping"));
        self.send(&ping, turn);
    }
}
