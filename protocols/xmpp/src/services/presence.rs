//! Presence (RFC 6121, sections 3 and 4).

use polymq_contract::{Answer, Command, Consume};
use polymq_model::{UserName, Value, address::mailbox_key};

use super::{iq::Route, roster::ROSTER, state::PLACES_MAX};
use crate::{
    directory::{roster::Roster, user_of},
    error::StanzaError,
    jid::{Jid, Place, Service},
    session::{Session, Source, Turn, consume_of},
    xml::{Element, ns},
};

/// Chat messages on their way to a client.
const PREFETCH: u32 = 100;

pub(super) fn presence(kind: Option<&'static str>, from: &Jid) -> Element {
    Element::new(ns::CLIENT, "presence").maybe_attr("type", kind).attr("from", from.to_string())
}

impl Session {
    pub(super) fn on_presence(&mut self, stanza: &Element, route: &Route, turn: &mut Turn<'_>) {
        let kind = stanza.get("type");
        let is_room = matches!(route.place, Place::Named(Service::Rooms, _));
        if kind == Some("error") && !is_room {
            return;
        }
        if stanza.get("to").is_none() {
            return match kind {
                None => self.become_available(stanza, turn),
                Some("unavailable") => self.become_unavailable(Some(stanza), turn),
                Some(_) => {
                    let error = StanzaError::bad_request("presence of this type has a receiver");
                    self.send_error(stanza, &error, turn);
                }
            };
        }
        match (&route.place, kind) {
            (Place::Named(Service::Queues, queue), _) => {
                self.on_queue_presence(stanza, route, queue, turn);
            }
            (Place::Named(Service::Rooms, room), _) => {
                self.on_room_presence(stanza, route, room, turn);
            }
            (Place::User, _) if self.is_component() => {}
            (Place::User, None | Some("unavailable")) => self.send_directed(stanza, route),
            (
                Place::User,
                Some(kind @ ("subscribe" | "subscribed" | "unsubscribe" | "unsubscribed")),
            ) => self.on_subscription(kind.to_owned(), route, turn),
            (Place::Elsewhere, Some("subscribe")) => {
                let error = StanzaError::new("cancel", "remote-server-not-found", "");
                self.send_error(stanza, &error, turn);
            }
            _ => {}
        }
    }

    /// The client is there, or says more about how it is there.
    fn become_available(&mut self, stanza: &Element, turn: &mut Turn<'_>) {
        if self.is_component() {
            return;
        }
        let is_first = self.services.presence.is_none();
        self.services.presence = Some(stanza.clone());
        self.here().set_presence(&self.user, &self.jid.resource, Some(stanza.clone()));
        if !self.here().has_roster(&self.user) {
            let stanza = stanza.clone();
            let user = self.user.clone();
            return self.with_roster(user, turn, move |session, turn| {
                session.announce(&stanza, is_first, turn);
            });
        }
        self.announce(stanza, is_first, turn);
    }

    /// Tells those who may know, and hears of those who are there already.
    fn announce(&mut self, stanza: &Element, is_first: bool, turn: &mut Turn<'_>) {
        let directory = self.here();
        let domain = self.shared.domains.base();
        let contacts = directory.with_roster(&self.user, |roster| {
            let contacts = (roster.contacts(|item| item.from), roster.contacts(|item| item.to));
            let pending = roster.contacts(|item| item.pending_in);
            ((contacts.0, contacts.1, pending), Vec::new())
        });
        let (watchers, watched, pending) = contacts.unwrap_or_default();
        let mut shown = stanza.clone();
        shown.set("from", self.jid.to_string());
        let users = |jids: Vec<String>| {
            let jids = jids.into_iter().filter_map(|jid| Jid::parse(&jid));
            jids.filter_map(|jid| user_of(&jid, domain)).collect::<Vec<_>>()
        };
        for user in users(watchers) {
            directory.pass_to_available(&user, None, &shown);
        }
        // The user's own resources see each other; the client sees itself too.
        directory.pass_to_available(&self.user, None, &shown);
        if !is_first {
            return;
        }
        let own = directory.available(&self.user).into_iter();
        let mut others: Vec<(String, String, Element)> = own
            .filter(|(resource, _)| *resource != self.jid.resource)
            .map(|(resource, presence)| (self.user.clone(), resource, presence))
            .collect();
        for user in users(watched) {
            let there = directory.available(&user).into_iter();
            others.extend(there.map(|(resource, presence)| (user.clone(), resource, presence)));
        }
        let domain = domain.to_owned();
        for (user, resource, mut presence) in others {
            presence.set("from", Jid::of_user(&user, &domain).with_resource(resource).to_string());
            presence.set("to", self.jid.to_string());
            self.send(&presence, turn);
        }
        for jid in pending {
            let ask = Element::new(ns::CLIENT, "presence")
                .attr("type", "subscribe")
                .attr("from", jid)
                .attr("to", self.jid.bare().to_string());
            self.send(&ask, turn);
        }
    }

    /// The client is not there any more.
    pub(crate) fn become_unavailable(&mut self, stanza: Option<&Element>, turn: &mut Turn<'_>) {
        let directed = std::mem::take(&mut self.services.directed);
        let was_there = self.services.presence.take().is_some();
        let domain = self.shared.domains.base();
        let mut shown = stanza.cloned().unwrap_or_else(|| presence(Some("unavailable"), &self.jid));
        shown.set("from", self.jid.to_string());
        let directory = self.here();
        let mut told: Vec<String> =
            directed.iter().filter_map(|jid| user_of(jid, domain)).collect();
        if was_there {
            directory.set_presence(&self.user, &self.jid.resource, None);
            let watchers = directory
                .with_roster(&self.user, |roster| (roster.contacts(|item| item.from), Vec::new()))
                .unwrap_or_default();
            let watchers = watchers.iter().filter_map(|jid| Jid::parse(jid));
            told.extend(watchers.filter_map(|jid| user_of(&jid, domain)));
            told.push(self.user.clone());
        }
        told.sort();
        told.dedup();
        for user in told {
            let but = (user == self.user).then_some(self.jid.resource.as_str());
            directory.pass_to_available(&user, but, &shown);
        }
        // RFC 6121, section 4.5.2: places that got a presence of their own hear of the end as well.
        self.leave_services(turn);
    }

    /// Leaves queues and rooms.
    pub(crate) fn leave_services(&mut self, turn: &mut Turn<'_>) {
        let mut rooms = Vec::new();
        let mut queues = Vec::new();
        for (consumer, source) in &self.consumers {
            match source {
                Source::Room { who, room, .. } => rooms.push((who.clone(), room.clone())),
                Source::Queue { .. } => queues.push(*consumer),
                Source::Resource | Source::Mailbox(_) | Source::Topic { .. } => {}
            }
        }
        for (who, room) in rooms {
            self.leave_room(&who, &room, turn);
        }
        for consumer in queues {
            self.end_consumer(consumer, turn);
        }
    }

    /// Presence to one user (RFC 6121, section 4.6).
    fn send_directed(&mut self, stanza: &Element, route: &Route) {
        let Some(user) = user_of(&route.to, self.shared.domains.base()) else { return };
        let directory = self.here();
        match route.to.is_bare() {
            true => {
                directory.pass_to_available(&user, None, stanza);
            }
            false => {
                directory.pass_to(&user, &route.to.resource, stanza.clone());
            }
        }
        let directed = &mut self.services.directed;
        directed.retain(|jid| *jid != route.to);
        if stanza.get("type").is_none() && directed.len() < PLACES_MAX {
            directed.push(route.to.clone());
        }
    }

    /// The mailbox is ours now, or no longer.
    pub(crate) fn on_mailbox(&mut self, is_ours: bool, turn: &mut Turn<'_>) {
        if !is_ours {
            if let Some(consumer) = self.services.mailbox.take() {
                self.ask(turn, |request| Command::Cancel { request, consumer }, |_, _, _| {});
            }
            return;
        }
        if self.services.mailbox.is_some() {
            return;
        }
        let queue = mailbox_key(&self.jid.bare().to_string());
        let consumer = self.next_consumer();
        self.consumers.insert(consumer, Source::Mailbox(turn.now.unix_ms));
        self.services.mailbox = Some(consumer);
        let declare = super::roster::mailbox(queue.clone());
        self.ask(turn, declare, |_, _, _| {});
        // Its name tells it from the consumer of the resource.
        let tag = self.jid.bare().to_string();
        // Whoever reads the mailbox without being a client of XMPP comes second.
        let arguments = vec![("x-priority".to_owned(), Value::I64(1))];
        let consume = consume_of(queue, consumer, false);
        let consume = Consume { prefetch: PREFETCH, tag, arguments, ..consume };
        self.ask(
            turn,
            |request| Command::Consume(Box::new(Consume { request, ..consume })),
            move |session, answer, _| {
                if let Err(refusal) = answer {
                    tracing::warn!(event = "mailbox_refused", user = session.user, %refusal);
                    session.consumers.remove(&consumer);
                    session.services.mailbox = None;
                }
            },
        );
    }

    /// Has the roster of a user here, then goes on.
    pub(super) fn with_roster(
        &mut self,
        user: String,
        turn: &mut Turn<'_>,
        then: impl for<'a> FnOnce(&mut Self, &mut Turn<'a>) + Send + 'static,
    ) {
        if self.here().has_roster(&user) {
            return then(self, turn);
        }
        let Ok(name) = UserName::new(&user) else { return };
        self.ask(
            turn,
            |request| Command::ReadDocument { request, user: name, name: ROSTER.to_owned() },
            move |session, answer, turn| {
                if let Ok(Answer::Document { version, text }) = answer {
                    let roster = Roster::from_text(version, &text);
                    session.here().load_roster(&user, roster);
                    then(session, turn);
                    session.here().forget(&user);
                }
            },
        );
    }
}
