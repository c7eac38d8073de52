//! Messages of clients (RFC 6121, section 5 and 8.5).

use polymq_contract::{Note, Outcome};
use polymq_model::address::{TOPIC_EXCHANGE, mailbox_key};

use super::{
    carbons,
    iq::{Handled, Route},
};
use crate::{
    directory::user_of,
    error::StanzaError,
    jid::{Place, Service},
    message::{Draft, Sender, read},
    session::{Kind, Session, Turn},
    xml::{Element, ns},
};

/// What is kept of the reason of an error.
const REASON_BYTES_MAX: usize = 1024;
/// Chat states (XEP-0085), which nobody wants to read later.
const CHAT_STATES: &str = "http://jabber.org/protocol/chatstates";

impl Session {
    pub(super) fn on_message(
        &mut self,
        stanza: Element,
        route: &Route,
        turn: &mut Turn<'_>,
    ) -> Handled {
        let handled = match &route.place {
            Place::User if !self.is_component() => self.on_direct(&stanza, route, turn),
            Place::Named(Service::Queues, queue) => self.on_to_queue(&stanza, route, queue, turn),
            Place::Named(Service::Topics, key) => {
                let draft = self.draft(stanza.clone(), &route.from.to_string(), Some(route));
                let to = (TOPIC_EXCHANGE, key.as_str());
                draft.map(|draft| self.publish_stanza(&stanza, draft, to, None, turn))
            }
            Place::Named(Service::Rooms, room) => self.on_to_room(&stanza, route, room, turn),
            Place::Elsewhere => Err(StanzaError::new("cancel", "remote-server-not-found", "")),
            Place::Server | Place::Service(_) | Place::User => Err(StanzaError::unavailable()),
        };
        handled.unwrap_or_else(|error| {
            self.send_error(&stanza, &error, turn);
            Handled::Now
        })
    }

    /// Takes a stanza apart. Answers go to the sender of the route, if there is one.
    pub(super) fn draft(
        &self,
        stanza: Element,
        from: &str,
        reply: Option<&Route>,
    ) -> Result<Draft, StanzaError> {
        let sender = Sender { user: &self.user, impersonator: self.impersonator };
        let shared = &self.shared;
        let reply = reply.map(|route| &route.from);
        read(stanza, from, reply, sender, &shared.domains, shared.entering())
    }

    pub(super) fn publish_stanza(
        &mut self,
        stanza: &Element,
        draft: Draft,
        to: (&str, &str),
        unrouted: Option<StanzaError>,
        turn: &mut Turn<'_>,
    ) -> Handled {
        let head = Element { nodes: Vec::new(), ..stanza.clone() };
        self.publish(draft, to, (head, Kind::Sent(unrouted)), turn);
        Handled::Later
    }

    /// A message from one user to another.
    fn on_direct(
        &mut self,
        stanza: &Element,
        route: &Route,
        turn: &mut Turn<'_>,
    ) -> Result<Handled, StanzaError> {
        let Some(user) = user_of(&route.to, self.shared.domains.base()) else {
            return Err(StanzaError::unavailable());
        };
        let directory = self.here();
        let resource = (!route.to.is_bare()).then_some(route.to.resource.as_str());
        let passed = match (stanza.get("type").unwrap_or_default(), resource) {
            ("error", Some(resource)) => {
                carbons::sent(self, stanza);
                directory.pass_to(&user, resource, stanza.clone());
                return Ok(Handled::Now);
            }
            ("error", None) => return Ok(Handled::Now),
            ("groupchat", _) => return Err(StanzaError::unavailable()),
            // RFC 6121, section 8.5.2.1.1: news is for everybody who is there, and does not wait.
            ("headline", Some(resource)) if directory.has_resource(&user, resource) => {
                // What a receiver does not read is dropped and counted there.
                directory.pass_to(&user, resource, stanza.clone());
                1
            }
            ("headline", _) => directory.pass_to_listening(&user, stanza),
            (_, resource) if is_signal(stanza) => {
                carbons::sent(self, stanza);
                let named = resource.filter(|name| directory.has_resource(&user, name));
                match named {
                    Some(name) => {
                        directory.pass_to(&user, name, stanza.clone());
                        1
                    }
                    None => directory.pass_to_active(&user, stanza),
                }
            }
            _ => {
                carbons::sent(self, stanza);
                let draft = self.draft(stanza.clone(), &route.from.to_string(), Some(route))?;
                let key = mailbox_key(&route.to.to_string());
                let nobody = Some(StanzaError::unavailable());
                return Ok(self.publish_stanza(stanza, draft, ("", &key), nobody, turn));
            }
        };
        if passed == 0 {
            self.shared.counters.not_kept.add(1);
        }
        Ok(Handled::Now)
    }

    /// A message to a queue: a new one, or the receipt or error that settles a delivery.
    fn on_to_queue(
        &mut self,
        stanza: &Element,
        route: &Route,
        queue: &str,
        turn: &mut Turn<'_>,
    ) -> Result<Handled, StanzaError> {
        if stanza.get("type") == Some("error") {
            let error = stanza.find(ns::CLIENT, "error");
            let outcome = match error.and_then(|error| error.get("type")) {
                Some("wait") => Outcome::Failed,
                Some("continue") => Outcome::Returned,
                _ => Outcome::Rejected,
            };
            let note = error.map(note_of).filter(|note| *note != Note::default());
            if let Some(id) = stanza.get("id") {
                self.settle_receipt(id, outcome, note.map(Box::new), turn);
            }
            return Ok(Handled::Now);
        }
        if let Some(received) = stanza.find(ns::RECEIPTS, "received") {
            let id = received.get("id").unwrap_or_default();
            return match self.settle_receipt(id, Outcome::Accepted, None, turn) {
                true => Ok(Handled::Now),
                false => Err(StanzaError::bad_request(format!("no delivery `{id}` is unsettled"))),
            };
        }
        let draft = self.draft(stanza.clone(), &route.from.to_string(), Some(route))?;
        let missing = StanzaError::not_found(format!("there is no queue `{queue}`"));
        Ok(self.publish_stanza(stanza, draft, ("", queue), Some(missing), turn))
    }
}

/// What an error says of the delivery that it settles: why, and after how many ms it is to come
/// again.
fn note_of(error: &Element) -> Note {
    let text = error.content_of(ns::STANZA_ERRORS, "text").filter(|text| !text.is_empty());
    let condition = || {
        let found = error.elements().find(|child| child.ns == ns::STANZA_ERRORS);
        found.map(|condition| condition.name.to_string())
    };
    let after = error.find(ns::QUEUE, "retry").and_then(|retry| retry.get("after"));
    let reason = text.or_else(condition).map(|mut text| {
        text.truncate(text.floor_char_boundary(REASON_BYTES_MAX));
        text
    });
    Note { retry_after_ms: after.and_then(|ms| ms.parse().ok()), reason }
}

/// True for what only means something now.
fn is_signal(stanza: &Element) -> bool {
    let mut has_state = false;
    for child in stanza.elements() {
        match &*child.ns {
            CHAT_STATES => has_state = true,
            ns::HINTS | ns::ORIGIN_ID => {}
            ns::CLIENT if child.name == "thread" => {}
            _ => return false,
        }
    }
    has_state
}
