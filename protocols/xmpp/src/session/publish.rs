//! Stanzas that become messages, and what their senders are told.

use std::collections::BTreeMap;

use polymq_contract::{Command, Publish, PublishOutcome, Refusal, RefusalKind};
use polymq_model::PublisherId;

use super::{Session, Turn};
use crate::{
    error::{StanzaError, StreamError, ends_stream},
    message::Draft,
    xml::{Element, ns},
};

/// Publishes that are not confirmed yet.
#[derive(Debug, Default)]
pub(super) struct Publishes {
    last: u64,
    due: BTreeMap<u64, Origin>,
}

/// A stanza that has become a message.
#[derive(Debug)]
pub(crate) struct Origin {
    /// The stanza without what is in it, to be answered.
    pub(crate) stanza: Element,
    /// What it is answered with.
    pub(crate) kind: Kind,
    /// Its number, for stream management.
    pub(crate) number: u64,
}

/// What a stanza that has become a message is answered with.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Nothing, or an error when nobody takes it.
    Sent(Option<StanzaError>),
    /// The result of an `<iq/>`.
    Iq(Element),
}

impl Session {
    /// Publishes a message; its stanza is done when the broker has confirmed it.
    pub(crate) fn publish(
        &mut self,
        draft: Draft,
        (exchange, key): (&str, &str),
        (stanza, kind): (Element, Kind),
        turn: &mut Turn<'_>,
    ) {
        let number = self.current;
        let stanza = Element { nodes: Vec::new(), ..stanza };
        let bytes_max = self.limits.message_bytes_max;
        if draft.body_len() > bytes_max {
            let text = format!("a message has at most {bytes_max} bytes, not {}", draft.body_len());
            let refusal = Refusal::new(RefusalKind::TooLarge, text);
            self.send_error(&stanza, &StanzaError::from(refusal), turn);
            return self.stanza_done(number, turn);
        }
        let delay = draft.delay();
        let message = draft.addressed(exchange, key, turn.now.unix_ms);
        self.publishes.last = self.publishes.last.wrapping_add(1);
        let publish = self.publishes.last;
        self.publishes.due.insert(publish, Origin { stanza, kind, number });
        turn.effects.commands.push(Command::Publish(Publish {
            publisher: PublisherId(0),
            number: publish,
            mandatory: false,
            received: None,
            delay,
            message,
        }));
    }

    pub(super) fn on_confirmed(
        &mut self,
        first: u64,
        last: u64,
        outcome: PublishOutcome,
        turn: &mut Turn<'_>,
    ) {
        let numbers: Vec<u64> = self.publishes.due.range(first..=last).map(|(n, _)| *n).collect();
        for number in numbers {
            let Some(origin) = self.publishes.due.remove(&number) else { continue };
            match outcome {
                PublishOutcome::Routed(_) => self.on_published(origin, true, turn),
                PublishOutcome::Unrouted => self.on_published(origin, false, turn),
                PublishOutcome::Refused(kind) => {
                    let text = "the publish was refused";
                    self.on_refused(&origin, Refusal::new(kind, text), turn);
                }
            }
        }
    }

    pub(super) fn on_publish_refused(
        &mut self,
        number: u64,
        refusal: Refusal,
        turn: &mut Turn<'_>,
    ) {
        if let Some(origin) = self.publishes.due.remove(&number) {
            self.on_refused(&origin, refusal, turn);
        }
    }

    fn on_published(&mut self, origin: Origin, is_routed: bool, turn: &mut Turn<'_>) {
        let Origin { stanza, kind, number } = origin;
        match kind {
            Kind::Iq(payload) => {
                let payload = Some(payload).filter(|payload| payload.ns != ns::CLIENT);
                self.send_result(&stanza, payload, turn);
            }
            Kind::Sent(Some(error)) if !is_routed => self.send_error(&stanza, &error, turn),
            Kind::Sent(_) => {}
        }
        self.stanza_done(number, turn);
    }

    fn on_refused(&mut self, origin: &Origin, refusal: Refusal, turn: &mut Turn<'_>) {
        if ends_stream(refusal.kind) {
            let error = StreamError::new("internal-server-error", refusal.text);
            return self.fail(error, turn);
        }
        self.send_error(&origin.stanza, &StanzaError::from(refusal), turn);
        self.stanza_done(origin.number, turn);
    }
}
