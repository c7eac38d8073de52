//! Binding a resource, and parting from everything that is bound to it (RFC 6120, section 7).

use polymq_contract::{Command, Consume};
use polymq_model::address::{JID_PART_BYTES_MAX, mailbox_key};

use super::{Phase, Session, Source, Turn, send::reply_to};
use crate::{
    error::{StanzaError, StreamError},
    xml::{Element, ns},
};

/// Messages on their way to a resource that are not settled.
const PREFETCH: u32 = 1000;

impl Session {
    /// An element between the login and the binding.
    pub(super) fn on_before_bind(&mut self, element: Element, turn: &mut Turn<'_>) {
        if element.is(ns::SM, "resume") {
            return self.on_resume_request(&element, turn);
        }
        if element.is(ns::SM, "enable") {
            return self.put_sm_failure("unexpected-request", turn);
        }
        let bind = element.find(ns::BIND, "bind");
        if element.is(ns::CLIENT, "iq") && element.get("type") == Some("set") {
            if let Some(bind) = bind {
                let asked = bind.content_of(ns::BIND, "resource").unwrap_or_default();
                return self.bind(element, &asked, turn);
            }
            if element.find(ns::SESSION, "session").is_some() {
                return self.send_result(&element, None, turn);
            }
        }
        let text = "bind a resource first";
        self.fail(StreamError::new("not-authorized", text), turn);
    }

    fn bind(&mut self, iq: Element, asked: &str, turn: &mut Turn<'_>) {
        let is_fit = asked.len() <= JID_PART_BYTES_MAX && !asked.contains(char::is_control);
        if !is_fit {
            let error = StanzaError::bad_request("this cannot be a resource");
            return self.send_error(&iq, &error, turn);
        }
        self.jid.resource = match asked {
            "" => self.shared.random_name(),
            named => named.to_owned(),
        };
        let key = mailbox_key(&self.jid.to_string());
        let consumer = self.next_consumer();
        self.consumers.insert(consumer, Source::Resource);
        // Everything that a client may leave unacknowledged stays below what ends its stream.
        let tag = self.jid.to_string();
        let consume = Consume { prefetch: PREFETCH, tag, ..consume_of(key, consumer, false) };
        self.ask_and_wait(
            turn,
            |request| Command::Consume(Box::new(Consume { request, ..consume })),
            move |session, answer, turn| match answer {
                Ok(_) => session.on_bound(&iq, turn),
                Err(refusal) => {
                    session.jid.resource.clear();
                    session.send_error(&iq, &StanzaError::from(refusal), turn);
                }
            },
        );
    }

    fn on_bound(&mut self, iq: &Element, turn: &mut Turn<'_>) {
        self.phase = Phase::Bound;
        self.here().enter(&self.user, &self.jid.resource, &self.outbox);
        let jid = Element::new(ns::BIND, "jid").text(self.jid.to_string());
        let bound = Element::new(ns::BIND, "bind").child(jid);
        let answer = reply_to(iq, "result").child(bound);
        self.send(&answer, turn);
    }

    /// Leaves everything that others see of this stream. Called once it is sure that it does not go
    /// on; calling it again does nothing.
    pub(super) fn leave(&mut self, turn: &mut Turn<'_>) {
        if self.phase != Phase::Bound {
            return;
        }
        self.phase = Phase::Closed;
        self.leave_services(turn);
        if !self.is_component() {
            self.become_unavailable(None, turn);
            self.here().leave(&self.user, &self.jid.resource, &self.outbox);
        }
        self.give_up_unacked(turn);
    }
}

/// A consumer that takes one message after the other.
pub(crate) fn consume_of(
    queue: String,
    consumer: polymq_model::ConsumerId,
    no_ack: bool,
) -> Consume {
    Consume {
        request: polymq_model::RequestId(0),
        consumer,
        queue,
        no_ack,
        exclusive: false,
        prefetch: 0,
        group: consumer.0,
        tag: String::new(),
        arguments: Vec::new(),
    }
}
