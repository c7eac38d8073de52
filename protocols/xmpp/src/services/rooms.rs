//! Rooms (XEP-0045): a room is a topic, and being in it a subscription that ends with the stream.

use std::collections::HashMap;

use polymq_contract::{
    Answer, BindQueue, CancelReason, Command, Consume, Counters, DeclareQueue, Refusal,
};
use polymq_model::{RequestId, address::TOPIC_EXCHANGE};

use super::{
    iq::{Handled, Route},
    state::PLACES_MAX,
};
use crate::{
    directory::{
        Word,
        room::{NO_MEMBER, OCCUPANTS_MAX, Occupant, Room, presence},
        tell,
    },
    error::StanzaError,
    jid::{Jid, Service, room_key},
    session::{Session, Source, Turn, consume_of},
    xml::{Element, ns},
};

/// Messages on their way to an occupant.
const PREFETCH: u32 = 1000;

/// The type of the form of a room.
const ROOM_CONFIG: &str = "http://jabber.org/protocol/muc#roomconfig";

/// Codes of statuses.
const SELF: &str = "110";
const NOT_ANONYMOUS: &str = "100";
const CREATED: &str = "201";
const NEW_NICK: &str = "303";
const KICKED: &str = "307";
const FAILED: &str = "333";

impl Session {
    /// Presence sent to a room.
    pub(super) fn on_room_presence(
        &mut self,
        stanza: &Element,
        route: &Route,
        room: &str,
        turn: &mut Turn<'_>,
    ) {
        match stanza.get("type") {
            None => {
                if let Err(error) = self.on_join(stanza, route, room, turn) {
                    self.send_error(stanza, &error, turn);
                }
            }
            Some("unavailable") => self.leave_room(&route.from, room, turn),
            Some("error") if is_gone(stanza) => self.leave_room(&route.from, room, turn),
            Some(_) => {}
        }
    }

    fn on_join(
        &mut self,
        stanza: &Element,
        route: &Route,
        room: &str,
        turn: &mut Turn<'_>,
    ) -> Result<(), StanzaError> {
        let nick = route.to.resource.as_str();
        if nick.is_empty() {
            return Err(StanzaError::new("modify", "jid-malformed", "a nickname is missing"));
        }
        let jid = self.shared.domains.address(Service::Rooms, room);
        if self.is_in_room(&route.from, room) {
            // A new nickname, or a new presence (XEP-0045, sections 7.6 and 7.7).
            let counters = &self.shared.counters;
            return self.rooms(|rooms| {
                let Some(there) = rooms.get_mut(room) else { return Ok(()) };
                if there.by_nick(nick).is_some_and(|other| other.jid != route.from) {
                    return Err(taken());
                }
                change(there, &jid, &route.from, nick, stanza, counters);
                Ok(())
            });
        }
        if self.consumers.len() >= PLACES_MAX {
            let text = format!("a stream is in at most {PLACES_MAX} places");
            return Err(StanzaError::new("wait", "resource-constraint", text));
        }
        let declare = DeclareQueue {
            request: RequestId(0),
            queue: String::new(),
            passive: false,
            durable: false,
            exclusive: true,
            auto_delete: false,
            arguments: Vec::new(),
        };
        let (stanza, who, room) = (stanza.clone(), route.from.clone(), room.to_owned());
        self.ask(
            turn,
            |request| Command::DeclareQueue(Box::new(DeclareQueue { request, ..declare })),
            move |session, answer, turn| match answer {
                Ok(Answer::QueueDeclared { queue, .. }) => {
                    let queue = queue.as_str().to_owned();
                    session.enter_room(stanza, who, room, queue, turn);
                }
                Ok(_) => {}
                Err(refusal) => session.send_error(&stanza, &StanzaError::from(refusal), turn),
            },
        );
        Ok(())
    }

    fn enter_room(
        &mut self,
        stanza: Element,
        who: Jid,
        room: String,
        queue: String,
        turn: &mut Turn<'_>,
    ) {
        let (exchange, key) = (TOPIC_EXCHANGE.to_owned(), room_key(&room));
        let bind = BindQueue {
            request: RequestId(0),
            queue: queue.clone(),
            exchange,
            key,
            arguments: Vec::new(),
        };
        self.ask(
            turn,
            |request| Command::BindQueue(Box::new(BindQueue { request, ..bind })),
            move |session, answer: Result<Answer, Refusal>, turn| match answer {
                Ok(_) => session.on_entered(&stanza, who, room, queue, turn),
                Err(refusal) => {
                    session.delete_own(queue, turn);
                    session.send_error(&stanza, &StanzaError::from(refusal), turn);
                }
            },
        );
    }

    /// The messages of the room come, so the user may be in it; now the others are told (XEP-0045,
    /// section 7.2.2). Who is there already is seen only from here on.
    fn on_entered(
        &mut self,
        stanza: &Element,
        who: Jid,
        name: String,
        queue: String,
        turn: &mut Turn<'_>,
    ) {
        let jid = self.shared.domains.address(Service::Rooms, &name);
        let nick = stanza.get("to").and_then(Jid::parse).map(|to| to.resource).unwrap_or_default();
        let outbox = self.outbox.clone();
        let counters = &self.shared.counters;
        let entered = self.rooms(|rooms| {
            let is_new = !rooms.contains_key(&name);
            let room = rooms.entry(name.clone()).or_default();
            if room.occupants.len() >= OCCUPANTS_MAX {
                // XEP-0045, section 7.2.9.
                let text = format!("a room has at most {OCCUPANTS_MAX} occupants");
                return Err(StanzaError::new("wait", "service-unavailable", text));
            }
            if room.by_nick(&nick).is_some() {
                return Err(taken());
            }
            let me = Occupant { nick, jid: who.clone(), outbox, presence: stanza.clone() };
            let of_others: Vec<_> =
                room.occupants.iter().map(|other| presence(&jid, other, &me, false, &[])).collect();
            room.tell_all(counters, |other| presence(&jid, &me, other, false, &[]));
            let mut codes = vec![NOT_ANONYMOUS, SELF];
            codes.extend(is_new.then_some(CREATED));
            let own = presence(&jid, &me, &me, false, &codes);
            room.occupants.push(me);
            Ok((of_others, own, room.subject.clone()))
        });
        let (of_others, own, subject) = match entered {
            Ok(entered) => entered,
            Err(error) => {
                self.delete_own(queue, turn);
                return self.send_error(stanza, &error, turn);
            }
        };
        for presence in of_others.iter().chain([&own]) {
            self.send(presence, turn);
        }
        let empty = || {
            let subject = Element::new(ns::CLIENT, "subject");
            Element::new(ns::CLIENT, "message").attr("from", jid.to_string()).child(subject)
        };
        let subject = subject.unwrap_or_else(empty).attr("type", "groupchat");
        self.send(&subject.attr("to", who.to_string()), turn);
        let consumer = self.next_consumer();
        let tag = who.to_string();
        let source = Source::Room { who, room: name, queue: queue.clone() };
        self.consumers.insert(consumer, source);
        let consume = Consume { prefetch: PREFETCH, tag, ..consume_of(queue, consumer, false) };
        self.ask(
            turn,
            |request| Command::Consume(Box::new(Consume { request, ..consume })),
            move |session, answer, turn| {
                if answer.is_err()
                    && let Some(Source::Room { who, room, queue }) =
                        session.consumers.remove(&consumer)
                {
                    session.be_removed(&who, &room, queue, CancelReason::QueueDeleted, turn);
                }
            },
        );
    }

    /// Works on the rooms of the virtual host.
    pub(super) fn rooms<R>(&self, work: impl FnOnce(&mut HashMap<String, Room>) -> R) -> R {
        self.here().rooms(work)
    }

    fn is_in_room(&self, who: &Jid, name: &str) -> bool {
        self.rooms(|rooms| rooms.get(name).is_some_and(|room| room.nick_of(who).is_some()))
    }

    /// Leaves a room; everybody is told.
    pub(super) fn leave_room(&mut self, who: &Jid, name: &str, turn: &mut Turn<'_>) {
        self.remove_occupant(who, name, None);
        let consumer = self.consumers.iter().find_map(|(consumer, source)| match source {
            Source::Room { who: of, room, .. } if of == who && room == name => Some(*consumer),
            _ => None,
        });
        if let Some(consumer) = consumer {
            self.end_consumer(consumer, turn);
        }
    }

    /// The broker has ended what brought the messages of a room, so its occupant is none any more.
    pub(crate) fn be_removed(
        &mut self,
        who: &Jid,
        name: &str,
        queue: String,
        reason: CancelReason,
        turn: &mut Turn<'_>,
    ) {
        let code = match reason {
            CancelReason::Denied => NO_MEMBER,
            CancelReason::Administrator => KICKED,
            CancelReason::QueueDeleted | CancelReason::Timeout => FAILED,
        };
        self.remove_occupant(who, name, Some(code));
        self.delete_own(queue, turn);
    }

    /// Takes an occupant out of a room, and tells everybody, with the code of why, if there is one.
    fn remove_occupant(&self, who: &Jid, name: &str, code: Option<&'static str>) {
        let jid = self.shared.domains.address(Service::Rooms, name);
        let counters = &self.shared.counters;
        let of_all: Vec<_> = code.into_iter().collect();
        let own = [&[SELF], &*of_all].concat();
        self.rooms(|rooms| {
            let Some(room) = rooms.get_mut(name) else { return };
            let at = room.occupants.iter().position(|occupant| occupant.jid == *who);
            let Some(me) = at.map(|at| room.occupants.remove(at)) else { return };
            tell(counters, &me.outbox, Word::Stanza(presence(&jid, &me, &me, true, &own)));
            room.tell_all(counters, |other| presence(&jid, &me, other, true, &of_all));
            if room.occupants.is_empty() {
                rooms.remove(name);
            }
        });
    }

    /// Keeps the subject of a room for those who come later: the one who has set it does, once the
    /// room has got it, because then they may.
    pub(crate) fn note_subject(&self, stanza: &Element, who: &Jid, name: &str) {
        let is_subject = stanza.find(ns::CLIENT, "subject").is_some()
            && stanza.find(ns::CLIENT, "body").is_none();
        let from = stanza.get("from").and_then(Jid::parse).filter(|_| is_subject);
        let Some(from) = from else { return };
        self.rooms(|rooms| {
            let Some(room) = rooms.get_mut(name) else { return };
            if room.nick_of(who) == Some(&from.resource) {
                room.subject = Some(stanza.clone());
            }
        });
    }

    /// A message to a room, or to one of its occupants.
    pub(super) fn on_to_room(
        &mut self,
        stanza: &Element,
        route: &Route,
        name: &str,
        turn: &mut Turn<'_>,
    ) -> Result<Handled, StanzaError> {
        if stanza.get("type") == Some("error") {
            if is_gone(stanza) {
                self.leave_room(&route.from, name, turn);
            } else if !route.to.is_bare() {
                self.pass_in_room(stanza, route, name).ok();
            }
            return Ok(Handled::Now);
        }
        let jid = self.shared.domains.address(Service::Rooms, name);
        let nick = self.rooms(|rooms| {
            rooms.get(name).and_then(|room| room.nick_of(&route.from)).map(str::to_owned)
        });
        let not_in = || StanzaError::new("modify", "not-acceptable", "only occupants may speak");
        let nick = nick.ok_or_else(not_in)?;
        let from = jid.with_resource(nick).to_string();
        if !route.to.is_bare() {
            return self.pass_in_room(stanza, route, name).map(|()| Handled::Now);
        }
        if stanza.get("type") != Some("groupchat") {
            let text = "messages to a room have the type `groupchat`";
            return Err(StanzaError::bad_request(text));
        }
        let draft = self.draft(stanza.clone(), &from, None)?.transient();
        let to = (TOPIC_EXCHANGE, &*room_key(name));
        Ok(self.publish_stanza(stanza, draft, to, None, turn))
    }

    /// Passes a stanza from one occupant to another (XEP-0045, sections 7.5 and 17.4).
    pub(super) fn pass_in_room(
        &self,
        stanza: &Element,
        route: &Route,
        name: &str,
    ) -> Result<(), StanzaError> {
        let jid = self.shared.domains.address(Service::Rooms, name);
        let counters = &self.shared.counters;
        self.rooms(|rooms| {
            let room = rooms.get(name);
            let not_in = || StanzaError::new("cancel", "not-acceptable", "only occupants may");
            let nick = room.and_then(|room| room.nick_of(&route.from)).ok_or_else(not_in)?;
            let missing = || StanzaError::not_found("there is no such occupant");
            let occupant = room.and_then(|room| room.by_nick(&route.to.resource));
            let occupant = occupant.ok_or_else(missing)?;
            let mut passed = stanza.clone();
            passed.set("from", jid.with_resource(nick.to_owned()).to_string());
            passed.set("to", occupant.jid.to_string());
            match tell(counters, &occupant.outbox, Word::Stanza(passed)) {
                true => Ok(()),
                false => Err(StanzaError::too_much()),
            }
        })
    }

    /// A request to one occupant, or about oneself (XEP-0410): true when the answer comes later.
    pub(super) fn on_occupant_iq(
        &self,
        iq: &Element,
        payload: &Element,
        route: &Route,
        name: &str,
    ) -> Result<Option<Element>, StanzaError> {
        let is_own = self.rooms(|rooms| {
            let room = rooms.get(name);
            room.and_then(|room| room.nick_of(&route.from)) == Some(route.to.resource.as_str())
        });
        if is_own && payload.is(ns::PING, "ping") {
            return Ok(Some(super::iq::empty()));
        }
        self.pass_in_room(iq, route, name).map(|()| None)
    }

    /// The form of a room, which has nothing to be filled in (XEP-0045, section 10.1).
    pub(super) fn on_room_owner(
        &self,
        iq: &Element,
        query: &Element,
        route: &Route,
        name: &str,
    ) -> Result<Option<Element>, StanzaError> {
        if !self.is_in_room(&route.from, name) {
            return Err(StanzaError::new("auth", "forbidden", "only occupants may"));
        }
        if iq.get("type") == Some("get") {
            let kind = Element::new(ns::DATA_FORMS, "value").text(ROOM_CONFIG);
            let kind = Element::new(ns::DATA_FORMS, "field")
                .attr("var", "FORM_TYPE")
                .attr("type", "hidden")
                .child(kind);
            let form = Element::new(ns::DATA_FORMS, "x").attr("type", "form").child(kind);
            return Ok(Some(Element::new(ns::MUC_OWNER, "query").child(form)));
        }
        let Some(form) = query.find(ns::DATA_FORMS, "x") else {
            return Err(StanzaError::not_implemented("rooms end with their last occupant"));
        };
        let mut named = form.elements().filter_map(|field| field.get("var"));
        match named.find(|name| *name != "FORM_TYPE") {
            Some(field) => {
                let text = format!("rooms have no setting `{field}`");
                Err(StanzaError::new("modify", "not-acceptable", text))
            }
            None => Ok(Some(super::iq::empty())),
        }
    }
}

fn taken() -> StanzaError {
    StanzaError::new("cancel", "conflict", "the nickname is taken")
}

/// True for an error that says that its sender is not there any more (XEP-0045, section 7.14).
fn is_gone(stanza: &Element) -> bool {
    let error = stanza.find(ns::CLIENT, "error");
    error.is_some_and(|error| {
        error.elements().any(|condition| {
            condition.ns == ns::STANZA_ERRORS
                && matches!(
                    &*condition.name,
                    "gone"
                        | "item-not-found"
                        | "recipient-unavailable"
                        | "redirect"
                        | "remote-server-not-found"
                        | "remote-server-timeout"
                )
        })
    })
}

/// Gives an occupant another nickname or presence.
fn change(
    room: &mut Room,
    jid: &Jid,
    who: &Jid,
    nick: &str,
    stanza: &Element,
    counters: &Counters,
) {
    let Some(at) = room.occupants.iter().position(|occupant| occupant.jid == *who) else { return };
    let mut me = room.occupants.remove(at);
    if me.nick != nick {
        let mut gone = presence(jid, &me, &me, true, &[NEW_NICK, SELF]);
        name_new(&mut gone, nick);
        tell(counters, &me.outbox, Word::Stanza(gone));
        room.tell_all(counters, |other| {
            let mut gone = presence(jid, &me, other, true, &[NEW_NICK]);
            name_new(&mut gone, nick);
            gone
        });
        me.nick = nick.to_owned();
    }
    me.presence = stanza.clone();
    room.tell_all(counters, |other| presence(jid, &me, other, false, &[]));
    tell(counters, &me.outbox, Word::Stanza(presence(jid, &me, &me, false, &[SELF])));
    room.occupants.push(me);
}

/// Says the new nickname of an occupant who had another.
fn name_new(presence: &mut Element, nick: &str) {
    for node in &mut presence.nodes {
        let crate::xml::Node::Element(user) = node else { continue };
        for node in &mut user.nodes {
            if let crate::xml::Node::Element(item) = node
                && item.name == "item"
            {
                item.set("nick", nick);
            }
        }
    }
}
