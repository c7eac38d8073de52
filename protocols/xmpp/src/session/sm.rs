//! Stream management (XEP-0198): acknowledgements both ways, and streams that outlive connections.

use std::collections::VecDeque;

use bytes::Bytes;
use polymq_contract::Outcome;
use polymq_model::Now;

use super::{
    DEPTH_MAX, Phase, Session, Turn,
    send::{Settle, settle_as},
};
use crate::{
    directory::{Word, tell},
    error::StreamError,
    xml::{Element, StreamParser, ns},
};

/// Stanzas that a client may leave unacknowledged, and their bytes. A client beyond that is cut off
/// rather than served from memory without end.
const UNACKED_MAX: usize = 10_000;
const UNACKED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Stanzas on their way, in both directions.
#[derive(Debug, Default)]
pub(crate) struct StreamManagement {
    is_enabled: bool,
    /// Under which the stream may be resumed.
    id: Option<String>,
    /// Stanzas of the client that are done with, in a row from the first.
    handled: u32,
    /// Those behind them: true for those that are done.
    received: VecDeque<bool>,
    /// Number of the first of those.
    first: u64,
    /// The client wants to know when this one is done.
    wanted: Option<u64>,
    /// Stanzas that the client has acknowledged.
    acked: u32,
    unacked: VecDeque<Unacked>,
    unacked_bytes: usize,
    /// An acknowledgement has been asked for and has not come.
    is_asked: bool,
    /// The client has come back and has seen this many.
    resumed_at: Option<u32>,
    /// A new socket is there.
    has_gained: bool,
}

#[derive(Debug)]
struct Unacked {
    bytes: Bytes,
    settle: Option<Settle>,
}

impl StreamManagement {
    pub(crate) fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    pub(crate) fn is_resumable(&self) -> bool {
        self.id.is_some()
    }

    /// Counts a stanza that has come; returns its number.
    pub(crate) fn receive(&mut self) -> u64 {
        if self.is_enabled {
            self.received.push_back(false);
        }
        self.first.wrapping_add(u64::try_from(self.received.len()).unwrap_or(0)).wrapping_sub(1)
    }

    /// A stanza is done with.
    pub(super) fn done(&mut self, number: u64) {
        let Some(at) = number.checked_sub(self.first) else { return };
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        if let Some(slot) = self.received.get_mut(at) {
            *slot = true;
        }
        while self.received.front() == Some(&true) {
            self.received.pop_front();
            self.first = self.first.wrapping_add(1);
            self.handled = self.handled.wrapping_add(1);
        }
    }

    /// Keeps a stanza until the client has acknowledged it; false when nobody is to.
    pub(super) fn keep(&mut self, bytes: &Bytes, settle: Option<Settle>) -> bool {
        if self.is_enabled {
            self.unacked_bytes = self.unacked_bytes.saturating_add(bytes.len());
            self.unacked.push_back(Unacked { bytes: bytes.clone(), settle });
        }
        self.is_enabled
    }

    /// True while a new socket is there and the stream does not go on over it yet.
    pub(super) fn is_resuming(&self) -> bool {
        self.has_gained
    }

    fn may_go_on(&self) -> bool {
        self.has_gained && self.received.is_empty()
    }

    /// XEP-0198, section 4.
    fn counts_too_much(&self, count: u32) -> StreamError {
        let unacked = u32::try_from(self.unacked.len()).unwrap_or(u32::MAX);
        let sent = self.acked.wrapping_add(unacked);
        let text = format!("{count} stanzas are acknowledged, and {sent} were sent");
        let special = Element::new(ns::SM, "handled-count-too-high")
            .attr("h", count.to_string())
            .attr("send-count", sent.to_string());
        let error = StreamError::new("undefined-condition", text);
        StreamError { special: Some(Box::new(special)), ..error }
    }

    fn is_over(&self) -> bool {
        self.unacked.len() > UNACKED_MAX || self.unacked_bytes > UNACKED_BYTES_MAX
    }

    /// Takes what the client has acknowledged; `None` when it counts more than it was sent.
    fn ack(&mut self, count: u32) -> Option<Vec<Settle>> {
        let new = usize::try_from(count.wrapping_sub(self.acked)).ok()?;
        if new > self.unacked.len() {
            return None;
        }
        self.acked = count;
        let gone = self.unacked.drain(..new);
        let mut bytes: usize = 0;
        let settled = gone
            .filter_map(|unacked| {
                bytes = bytes.saturating_add(unacked.bytes.len());
                unacked.settle
            })
            .collect();
        self.unacked_bytes = self.unacked_bytes.saturating_sub(bytes);
        self.is_asked = false;
        Some(settled)
    }
}

fn number(element: &Element) -> Option<u32> {
    element.get("h")?.parse().ok()
}

impl Session {
    /// An element of stream management on a stream that is bound.
    pub(super) fn on_sm(&mut self, element: &Element, turn: &mut Turn<'_>) {
        match &*element.name {
            "enable" => self.on_enable(element, turn),
            "r" if self.sm.is_enabled => {
                self.put_ack(turn);
                // What is not safe yet is told once it is.
                let due = u64::try_from(self.sm.received.len()).unwrap_or(0);
                self.sm.wanted = (due > 0).then_some(self.sm.first.wrapping_add(due));
            }
            "a" if self.sm.is_enabled => match number(element) {
                Some(count) => self.on_ack(count, turn),
                None => self.fail(StreamError::new("invalid-xml", "<a/> has no count"), turn),
            },
            _ => self.put_sm_failure("unexpected-request", turn),
        }
    }

    fn on_enable(&mut self, element: &Element, turn: &mut Turn<'_>) {
        if self.sm.is_enabled || self.is_component() {
            return self.put_sm_failure("unexpected-request", turn);
        }
        self.sm.is_enabled = true;
        let mut enabled = Element::new(ns::SM, "enabled");
        let timeout = self.shared.settings.resume_timeout;
        let wants = matches!(element.get("resume"), Some("true" | "1"));
        if wants && !timeout.is_zero() {
            let id = self.shared.random_name();
            turn.effects.resumable = Some(self.resume_key(&id));
            enabled = enabled
                .attr("resume", "true")
                .attr("id", id.clone())
                .attr("max", timeout.as_secs().to_string());
            self.here().enter_stream(&self.resume_key(&id), &self.outbox);
            self.sm.id = Some(id);
        }
        self.put_raw(&enabled, turn);
    }

    pub(super) fn put_sm_failure(&mut self, condition: &'static str, turn: &mut Turn<'_>) {
        let failed =
            Element::new(ns::SM, "failed").child(Element::new(ns::STANZA_ERRORS, condition));
        self.put_raw(&failed, turn);
    }

    fn put_ack(&mut self, turn: &mut Turn<'_>) {
        self.sm.wanted = None;
        let ack = Element::new(ns::SM, "a").attr("h", self.sm.handled.to_string());
        self.put_raw(&ack, turn);
    }

    /// A stanza of the client is done with.
    pub(crate) fn stanza_done(&mut self, number: u64, turn: &mut Turn<'_>) {
        if !self.sm.is_enabled {
            return;
        }
        self.sm.done(number);
        if self.sm.wanted.is_some_and(|wanted| self.sm.first >= wanted) {
            self.put_ack(turn);
        }
        self.go_on(turn);
    }

    fn on_ack(&mut self, count: u32, turn: &mut Turn<'_>) {
        match self.sm.ack(count) {
            Some(settled) => {
                settled.into_iter().for_each(|s| settle_as(s, Outcome::Accepted, turn));
                self.ask_for_ack(turn);
            }
            None => self.fail(self.sm.counts_too_much(count), turn),
        }
    }

    /// Asks the client what it has seen, once at a time.
    pub(super) fn ask_for_ack(&mut self, turn: &mut Turn<'_>) {
        if self.phase != Phase::Bound || !self.sm.is_enabled {
            return;
        }
        if self.sm.is_over() {
            let text = "too many stanzas are unacknowledged";
            return self.fail(StreamError::new("policy-violation", text), turn);
        }
        if !self.sm.unacked.is_empty() && !self.sm.is_asked && !self.is_detached {
            self.sm.is_asked = true;
            self.put_raw(&Element::new(ns::SM, "r"), turn);
        }
    }

    /// `<resume/>` on a new stream.
    pub(super) fn on_resume_request(&mut self, element: &Element, turn: &mut Turn<'_>) {
        let id = element.get("previd").unwrap_or_default();
        let key = self.resume_key(id);
        let (Some(count), Some(outbox)) = (number(element), self.here().stream(&key)) else {
            return self.put_sm_failure("item-not-found", turn);
        };
        // The word comes before the socket, so the stream knows what to send on it.
        tell(&self.shared.counters, &outbox, Word::Resume(count));
        turn.effects.resume = Some(key);
    }

    pub(super) fn refuse_resume(&mut self, turn: &mut Turn<'_>) {
        self.put_sm_failure("item-not-found", turn);
    }

    /// The socket is gone; true when the stream goes on without.
    pub(super) fn lose_socket(&mut self, now: Now) -> bool {
        if self.phase != Phase::Bound || !self.sm.is_resumable() {
            return false;
        }
        if std::mem::take(&mut self.sm.has_gained) {
            // The socket that was to go on is gone before it did.
            self.sm.resumed_at = None;
        }
        self.is_detached = true;
        self.sm.is_asked = true;
        self.clock.end_at(now.instant.checked_add(self.shared.settings.resume_timeout));
        true
    }

    /// Another socket is there. The word that comes with it may have come before.
    pub(super) fn gain_socket(&mut self, turn: &mut Turn<'_>) {
        self.is_detached = true;
        self.sm.has_gained = true;
        self.go_on(turn);
    }

    /// The client has come back and has seen `count` stanzas; its socket is on the way.
    pub(super) fn on_resume(&mut self, count: u32, turn: &mut Turn<'_>) {
        self.sm.resumed_at = Some(count);
        self.go_on(turn);
    }

    /// Goes on over a new socket, once it is there, it is known what the client has seen, and what
    /// the client had sent is counted: it sends again what it is not told of (XEP-0198, section 5).
    fn go_on(&mut self, turn: &mut Turn<'_>) {
        let Some(count) = self.sm.resumed_at.filter(|_| self.sm.may_go_on()) else { return };
        self.sm.resumed_at = None;
        self.sm.has_gained = false;
        let seen = self.sm.ack(count);
        self.is_detached = false;
        let Some(settled) = seen else { return self.fail(self.sm.counts_too_much(count), turn) };
        settled.into_iter().for_each(|s| settle_as(s, Outcome::Accepted, turn));
        self.clock.end_at(None);
        self.clock.heard(turn.now);
        self.parser = StreamParser::inside(self.shared.settings.stanza_bytes_max, DEPTH_MAX);
        self.shared.counters.resumed.add(1);
        let resumed = Element::new(ns::SM, "resumed")
            .attr("h", self.sm.handled.to_string())
            .attr("previd", self.sm.id.clone().unwrap_or_default());
        self.put_raw(&resumed, turn);
        turn.effects.out.add_frames(self.sm.unacked.len());
        for unacked in &self.sm.unacked {
            turn.effects.out.push_shared(unacked.bytes.clone());
        }
        self.sm.wanted = None;
        self.sm.is_asked = false;
        self.ask_for_ack(turn);
    }

    /// The key of a stream, which nobody but its user can ask for, where it was.
    fn resume_key(&self, id: &str) -> Box<str> {
        format!("{}\0{}\0{id}", self.peer.vhost, self.user).into()
    }

    /// The stream does not go on: what the client has not acknowledged comes back.
    pub(super) fn give_up_unacked(&mut self, turn: &mut Turn<'_>) {
        if let Some(id) = self.sm.id.take() {
            self.here().leave_stream(&self.resume_key(&id));
        }
        for unacked in std::mem::take(&mut self.sm.unacked) {
            if let Some(settle) = unacked.settle {
                settle_as(settle, Outcome::Failed, turn);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanzas_are_counted_in_a_row() {
        let mut sm = StreamManagement { is_enabled: true, ..StreamManagement::default() };
        let (first, second, third) = (sm.receive(), sm.receive(), sm.receive());
        sm.done(second);
        assert_eq!(sm.handled, 0, "the first is not done");
        sm.done(first);
        assert_eq!(sm.handled, 2);
        sm.done(third);
        assert_eq!((sm.handled, sm.received.len()), (3, 0));
    }

    #[test]
    fn acknowledgements_wrap_and_are_not_believed_beyond_what_was_sent() {
        let mut sm =
            StreamManagement { is_enabled: true, acked: u32::MAX, ..StreamManagement::default() };
        sm.keep(&Bytes::from_static(b"<a/>"), None);
        sm.keep(&Bytes::from_static(b"<b/>"), None);
        assert!(sm.ack(0).is_some(), "the count goes on from 0");
        assert!(sm.ack(2).is_none());
        assert!(sm.ack(1).is_some());
        assert_eq!((sm.unacked.len(), sm.unacked_bytes), (0, 0));
    }
}
