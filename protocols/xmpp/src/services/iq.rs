//! Which stanza goes to which service, and requests.

use crate::{
    directory::{PassedTo, user_of},
    error::{StanzaError, StreamError},
    jid::{Jid, Place, Service},
    session::{Session, Turn},
    xml::{Element, ns},
};

/// A stanza that has an answer of its own coming is not done when it has been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handled {
    /// Done.
    Now,
    /// Done when its message is confirmed.
    Later,
}

/// Who asks whom.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    /// The sender, with its resource.
    pub(crate) from: Jid,
    /// The receiver; the sender's own bare address when the stanza names none.
    pub(crate) to: Jid,
    /// What the receiver stands for.
    pub(crate) place: Place,
}

impl Session {
    /// A stanza of the other side.
    pub(crate) fn on_stanza(&mut self, mut stanza: Element, turn: &mut Turn<'_>) {
        let number = self.sm.receive();
        self.set_current(number);
        let Some(route) = self.route(&mut stanza, turn) else { return };
        let handled = match &*stanza.name {
            "message" => self.on_message(stanza, &route, turn),
            "presence" => {
                self.on_presence(&stanza, &route, turn);
                Handled::Now
            }
            "iq" => self.on_iq(stanza, &route, turn),
            other => {
                let text = format!("<{other}/> is no stanza");
                self.fail(StreamError::new("unsupported-stanza-type", text), turn);
                Handled::Now
            }
        };
        if handled == Handled::Now {
            self.stanza_done(number, turn);
        }
    }

    /// Finds sender and receiver, and writes the sender into the stanza.
    fn route(&mut self, stanza: &mut Element, turn: &mut Turn<'_>) -> Option<Route> {
        let from = stanza.get("from").map(Jid::parse);
        let from = if self.is_component() {
            from.flatten()
        } else {
            // RFC 6120, section 8.1.2.1.
            match from {
                None => Some(self.jid.clone()),
                Some(Some(jid)) if jid == self.jid || jid == self.jid.bare() => {
                    Some(self.jid.clone())
                }
                Some(_) => None,
            }
        };
        let Some(from) = from else {
            let text = "the sender of a stanza is not the one of its stream";
            self.fail(StreamError::new("invalid-from", text), turn);
            return None;
        };
        stanza.set("from", from.to_string());
        let to = match stanza.get("to").map(Jid::parse) {
            None => from.bare(),
            Some(Some(to)) => to,
            Some(None) => {
                let error = StanzaError::new("modify", "jid-malformed", "");
                self.send_error(stanza, &error, turn);
                self.stanza_done(self.current(), turn);
                return None;
            }
        };
        let place = self.shared.domains.place(&to);
        Some(Route { from, to, place })
    }

    fn on_iq(&mut self, iq: Element, route: &Route, turn: &mut Turn<'_>) -> Handled {
        let kind = iq.get("type").unwrap_or_default();
        if matches!(kind, "result" | "error") {
            self.pass_iq(iq, route, turn);
            return Handled::Now;
        }
        let payload = {
            let mut payloads = iq.elements();
            payloads.next().filter(|_| payloads.next().is_none()).cloned()
        };
        let is_request = matches!(kind, "get" | "set") && iq.get("id").is_some();
        let Some(payload) = payload.filter(|_| is_request) else {
            let text = "an <iq/> has an id, the type `get` or `set`, and one element in it";
            self.send_error(&iq, &StanzaError::bad_request(text), turn);
            return Handled::Now;
        };
        let is_own = !self.is_component() && route.to == route.from.bare();
        let answer = match &route.place {
            Place::Elsewhere => Err(StanzaError::new("cancel", "remote-server-not-found", "")),
            Place::User if is_own => self.on_account(&iq, &payload, turn),
            Place::User if !route.to.is_bare() => {
                self.pass_iq(iq, route, turn);
                return Handled::Now;
            }
            Place::User => Err(StanzaError::unavailable()),
            // A component has one address for all services.
            Place::Server if self.is_component() => match &*payload.ns {
                ns::PUBSUB | ns::PUBSUB_OWNER => {
                    return self.on_pubsub(iq, &payload, route, turn);
                }
                ns::COMMANDS => {
                    self.on_command(&iq, &payload, route, turn);
                    return Handled::Now;
                }
                _ => self.on_server(&iq, &payload, route, turn),
            },
            Place::Server => self.on_server(&iq, &payload, route, turn),
            Place::Named(Service::Rooms, room) if !route.to.is_bare() => {
                self.on_occupant_iq(&iq, &payload, route, room)
            }
            Place::Named(Service::Rooms, room) if payload.is(ns::MUC_OWNER, "query") => {
                self.on_room_owner(&iq, &payload, route, room)
            }
            Place::Service(service) | Place::Named(service, _) => match (&*payload.ns, service) {
                (ns::PUBSUB | ns::PUBSUB_OWNER, Service::Topics) => {
                    return self.on_pubsub(iq, &payload, route, turn);
                }
                (ns::COMMANDS, Service::Queues) => {
                    self.on_command(&iq, &payload, route, turn);
                    return Handled::Now;
                }
                _ => self.on_server(&iq, &payload, route, turn),
            },
        };
        match answer {
            Ok(Some(result)) => {
                let result = Some(result).filter(|result| result.ns != ns::CLIENT);
                self.send_result(&iq, result, turn);
            }
            Ok(None) => {}
            Err(error) => self.send_error(&iq, &error, turn),
        }
        Handled::Now
    }

    /// A request or an answer from one client to another.
    fn pass_iq(&mut self, iq: Element, route: &Route, turn: &mut Turn<'_>) {
        if let Place::Named(Service::Rooms, room) = &route.place {
            // An answer that nobody waits for any more is dropped.
            self.pass_in_room(&iq, route, room).ok();
            return;
        }
        let domain = self.shared.domains.base().to_owned();
        let user = user_of(&route.to, &domain).filter(|_| !self.is_component());
        let passed = user.map(|user| self.here().pass_to(&user, &route.to.resource, iq.clone()));
        match passed {
            Some(PassedTo::Passed) => {}
            Some(PassedTo::Full) => self.send_error(&iq, &StanzaError::too_much(), turn),
            Some(PassedTo::Nobody) | None => {
                self.send_error(&iq, &StanzaError::unavailable(), turn);
            }
        }
    }

    /// A request to the user's own account (RFC 6121, section 8.5.1).
    fn on_account(
        &mut self,
        iq: &Element,
        payload: &Element,
        turn: &mut Turn<'_>,
    ) -> Result<Option<Element>, StanzaError> {
        match (&*payload.ns, &*payload.name) {
            (ns::ROSTER, "query") => {
                self.on_roster(iq, payload, turn);
                Ok(None)
            }
            (ns::CARBONS, word @ ("enable" | "disable")) => {
                let (user, resource) = (&self.user, &self.jid.resource);
                self.here().set_carbons(user, resource, word == "enable");
                Ok(Some(empty()))
            }
            (ns::SESSION, "session") => Ok(Some(empty())),
            (ns::DISCO_INFO, "query") => Ok(Some(self.account_info(payload))),
            (ns::DISCO_ITEMS, "query") => Ok(Some(Element::new(ns::DISCO_ITEMS, "query"))),
            (ns::PING, "ping") => Ok(Some(empty())),
            _ => Err(StanzaError::unavailable()),
        }
    }

    /// A request to the server or one of its services.
    fn on_server(
        &mut self,
        iq: &Element,
        payload: &Element,
        route: &Route,
        turn: &mut Turn<'_>,
    ) -> Result<Option<Element>, StanzaError> {
        match (&*payload.ns, &*payload.name) {
            (ns::PING, "ping") => Ok(Some(empty())),
            (ns::SESSION, "session") => Ok(Some(empty())),
            (ns::VERSION, "query") => {
                let text = |name, text| Element::new(ns::VERSION, name).text(text);
                let query = Element::new(ns::VERSION, "query");
                let version = env!("CARGO_PKG_VERSION");
                Ok(Some(query.child(text("name", "PolyMQ")).child(text("version", version))))
            }
            (ns::DISCO_INFO, "query") => self.info(payload, route).map(Some),
            (ns::DISCO_ITEMS, "query") => self.items(iq, payload, route, turn),
            _ => Err(StanzaError::unavailable()),
        }
    }
}

/// Stands for a result without anything in it.
pub(crate) fn empty() -> Element {
    Element::new(ns::CLIENT, "nothing")
}
