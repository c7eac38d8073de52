//! What goes to the other side.

use polymq_contract::{Command, DeliveryRange, Outcome, Settlement};
use polymq_model::ConsumerId;

use super::{Session, Turn};
use crate::{
    error::StanzaError,
    xml::{self, Element, ns},
};

/// A delivery that is settled when its stanza has come through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settle {
    pub(crate) consumer: ConsumerId,
    pub(crate) number: u64,
}

impl Session {
    /// Writes what is no stanza: not counted, and gone when the socket is.
    pub(crate) fn put_raw(&mut self, element: &Element, turn: &mut Turn<'_>) {
        if self.is_detached {
            return;
        }
        let mut text = String::new();
        match &*element.ns {
            // Only the stream's own elements have the prefix of its header.
            ns::STREAM => {
                text.push_str("<stream:");
                text.push_str(&element.name);
                if self.is_framed() {
                    // RFC 7395, section 3.3.3: each message stands for itself.
                    text.push_str(" xmlns:stream='");
                    text.push_str(ns::STREAM);
                    text.push('\'');
                }
                text.push('>');
                xml::write_children(&element.nodes, self.default_ns(), &mut text);
                text.push_str("</stream:");
                text.push_str(&element.name);
                text.push('>');
            }
            _ => xml::write(element, self.default_ns(), &mut text),
        }
        turn.effects.out.add_frames(1);
        turn.effects.out.push_shared(self.wrapped(text));
    }

    /// Sends a stanza.
    pub(crate) fn send(&mut self, stanza: &Element, turn: &mut Turn<'_>) {
        self.send_settling(stanza, None, turn);
    }

    /// Sends a stanza, and settles a delivery when it has come through: with stream management when
    /// the client says so, without when it is written.
    pub(crate) fn send_settling(
        &mut self,
        stanza: &Element,
        settle: Option<Settle>,
        turn: &mut Turn<'_>,
    ) {
        let mut text = String::new();
        xml::write(stanza, self.default_ns(), &mut text);
        if text.len() > self.shared.settings.stanza_bytes_max.saturating_mul(2) {
            self.shared.counters.too_large.add(1);
            if let Some(settle) = settle {
                settle_as(settle, Outcome::TooLarge, turn);
            }
            return;
        }
        let bytes = self.wrapped(text);
        let is_kept = self.sm.keep(&bytes, settle);
        if !self.is_detached {
            turn.effects.out.add_frames(1);
            turn.effects.out.push_shared(bytes);
        }
        self.ask_for_ack(turn);
        if let Some(settle) = settle.filter(|_| !is_kept) {
            settle_as(settle, Outcome::Accepted, turn);
        }
    }

    /// Sends a stanza that another session has passed.
    pub(super) fn send_passed(&mut self, mut stanza: Element, turn: &mut Turn<'_>) {
        if !self.is_component() {
            stanza.set("to", self.jid.to_string());
        }
        self.send(&stanza, turn);
    }

    /// Answers a stanza with an error (RFC 6120, section 8.3).
    pub(crate) fn send_error(
        &mut self,
        stanza: &Element,
        error: &StanzaError,
        turn: &mut Turn<'_>,
    ) {
        // An error is never answered with another.
        let kind = stanza.get("type").unwrap_or_default();
        if kind == "error" || (stanza.name == "iq" && kind == "result") {
            return;
        }
        let answer = reply_to(stanza, "error").child(error.element());
        self.send(&answer, turn);
    }

    /// Answers an `<iq/>`.
    pub(crate) fn send_result(
        &mut self,
        iq: &Element,
        payload: Option<Element>,
        turn: &mut Turn<'_>,
    ) {
        let answer = reply_to(iq, "result").children(payload);
        self.send(&answer, turn);
    }
}

/// An empty stanza in the other direction.
pub(crate) fn reply_to(stanza: &Element, kind: &'static str) -> Element {
    let get = |name| stanza.get(name).map(str::to_owned);
    Element::new(ns::CLIENT, stanza.name.clone())
        .attr("type", kind)
        .maybe_attr("id", get("id"))
        .maybe_attr("from", get("to"))
        .maybe_attr("to", get("from"))
}

/// Settles a delivery, together with its neighbour when that was the last command.
pub(crate) fn settle_as(settle: Settle, outcome: Outcome, turn: &mut Turn<'_>) {
    let Settle { consumer, number } = settle;
    if number == 0 {
        return;
    }
    if let Some(Command::Settle(last)) = turn.effects.commands.last_mut()
        && last.consumer == consumer
        && last.outcome == outcome
        && last.deliveries.last.checked_add(1) == Some(number)
    {
        last.deliveries.last = number;
        return;
    }
    let deliveries = DeliveryRange { first: number, last: number };
    turn.effects.commands.push(Command::Settle(Settlement::new(consumer, deliveries, outcome)));
}
