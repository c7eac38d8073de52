//! A room: who is in it, and what it is about (XEP-0045).

use std::sync::Arc;

use polymq_contract::{Counters, Outbox};

use super::{Word, tell};
use crate::{
    jid::Jid,
    xml::{Element, ns},
};

/// Occupants of one room.
pub(crate) const OCCUPANTS_MAX: usize = 10_000;

/// Code of a status: somebody may not be in the room any more (XEP-0045, section 9.4).
pub(crate) const NO_MEMBER: &str = "321";

/// A room that somebody is in.
#[derive(Default)]
pub(crate) struct Room {
    pub(crate) occupants: Vec<Occupant>,
    /// The last message with a subject.
    pub(crate) subject: Option<Element>,
}

/// Somebody in a room.
pub(crate) struct Occupant {
    pub(crate) nick: String,
    pub(crate) jid: Jid,
    pub(crate) outbox: Arc<Outbox>,
    /// The presence as it came.
    pub(crate) presence: Element,
}

impl Room {
    /// Who has this nickname.
    pub(crate) fn by_nick(&self, nick: &str) -> Option<&Occupant> {
        self.occupants.iter().find(|occupant| occupant.nick == nick)
    }

    /// The nickname of somebody.
    pub(crate) fn nick_of(&self, jid: &Jid) -> Option<&str> {
        self.occupants.iter().find(|o| o.jid == *jid).map(|occupant| occupant.nick.as_str())
    }

    /// Tells all of them something, each with `make` for the reader.
    pub(crate) fn tell_all(&self, counters: &Counters, make: impl Fn(&Occupant) -> Element) {
        for occupant in &self.occupants {
            tell(counters, &occupant.outbox, Word::Stanza(make(occupant)));
        }
    }
}

/// The presence of an occupant for another one.
pub(crate) fn presence(
    room: &Jid,
    of: &Occupant,
    to: &Occupant,
    is_leaving: bool,
    codes: &[&'static str],
) -> Element {
    let affiliation = if codes.contains(&NO_MEMBER) { "none" } else { "member" };
    let role = if is_leaving { "none" } else { "participant" };
    let item = Element::new(ns::MUC_USER, "item")
        .attr("affiliation", affiliation)
        .attr("role", role)
        .attr("jid", of.jid.to_string());
    let codes = codes.iter().map(|code| Element::new(ns::MUC_USER, "status").attr("code", *code));
    let user = Element::new(ns::MUC_USER, "x").child(item).children(codes);
    let kept =
        of.presence.elements().filter(|child| child.ns != ns::MUC && child.ns != ns::MUC_USER);
    Element::new(ns::CLIENT, "presence")
        .attr("from", room.with_resource(of.nick.clone()).to_string())
        .attr("to", to.jid.to_string())
        .maybe_attr("type", is_leaving.then_some("unavailable"))
        .children(kept.filter(|_| !is_leaving).cloned())
        .child(user)
}
