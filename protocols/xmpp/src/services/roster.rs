//! The roster (RFC 6121, section 2), kept by the broker as a document of its user.

use polymq_contract::{Command, DeclareQueue};
use polymq_model::{RequestId, UserName};

use crate::{
    error::StanzaError,
    jid::Jid,
    session::{Session, Turn},
    xml::{Element, ns},
};

/// The name of the document.
pub(super) const ROSTER: &str = "roster";

/// Stores a roster.
pub(super) fn store(user: UserName, version: u64, text: String, turn: &mut Turn<'_>) {
    let (request, name) = (None, ROSTER.to_owned());
    turn.effects.commands.push(Command::WriteDocument { request, user, name, version, text });
}

/// Declares a mailbox.
pub(super) fn mailbox(queue: String) -> impl FnOnce(RequestId) -> Command {
    |request| {
        Command::DeclareQueue(Box::new(DeclareQueue {
            request,
            queue,
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: Vec::new(),
        }))
    }
}

impl Session {
    pub(super) fn on_roster(&mut self, iq: &Element, query: &Element, turn: &mut Turn<'_>) {
        let (iq, query, user) = (iq.clone(), query.clone(), self.user.clone());
        self.with_roster(user, turn, move |session, turn| match iq.get("type") {
            Some("get") => session.show_roster(&iq, &query, turn),
            _ => {
                if let Err(error) = session.set_roster(&iq, &query, turn) {
                    session.send_error(&iq, &error, turn);
                }
            }
        });
    }

    fn show_roster(&mut self, iq: &Element, query: &Element, turn: &mut Turn<'_>) {
        let (user, resource) = (&self.user, &self.jid.resource);
        let directory = self.here();
        directory.set_wants_roster(user, resource);
        let shown = directory.with_roster(user, |roster| {
            // RFC 6121, section 2.6: a client that has this version is told nothing.
            let is_known = query.get("ver") == Some(roster.version.to_string().as_str());
            ((!is_known).then(|| roster.query()), Vec::new())
        });
        self.send_result(iq, shown.flatten(), turn);
    }

    fn set_roster(
        &mut self,
        iq: &Element,
        query: &Element,
        turn: &mut Turn<'_>,
    ) -> Result<(), StanzaError> {
        let mut items = query.elements().filter(|child| child.is(ns::ROSTER, "item"));
        let (Some(item), None) = (items.next(), items.next()) else {
            return Err(StanzaError::bad_request("a roster is changed item by item"));
        };
        let jid = item.get("jid").and_then(Jid::parse).map(|jid| jid.bare());
        let jid = jid.ok_or_else(|| StanzaError::bad_request("the item has no address"))?;
        let text = jid.to_string();
        let directory = self.here();
        let is_removal = item.get("subscription") == Some("remove");
        let changed = directory.with_roster(&self.user, |roster| {
            let (removed, push) = match is_removal {
                true => match roster.remove(&text) {
                    Some((item, push)) => (Some(item), Some(push)),
                    None => (None, None),
                },
                false => (None, roster.put(&text, item)),
            };
            let result = push.is_some().then(|| (removed, roster.version, roster.to_text()));
            (result, push.into_iter().collect())
        });
        let Some((removed, version, stored)) = changed.flatten() else {
            return Err(match is_removal {
                true => StanzaError::not_found("the contact is not in the roster"),
                false => StanzaError::new("wait", "resource-constraint", "the roster is full"),
            });
        };
        if let Ok(user) = UserName::new(&self.user) {
            store(user, version, stored, turn);
        }
        self.send_result(iq, None, turn);
        if let Some(item) = removed {
            self.end_subscriptions(&jid, &item, turn);
        }
        Ok(())
    }

    /// Tells the client of a change (RFC 6121, section 2.1.6).
    pub(crate) fn push_roster(&mut self, item: &Element, version: u64, turn: &mut Turn<'_>) {
        let query =
            Element::new(ns::ROSTER, "query").attr("ver", version.to_string()).child(item.clone());
        let push = Element::new(ns::CLIENT, "iq")
            .attr("type", "set")
            .attr("id", format!("roster-{version}"))
            .attr("to", self.jid.to_string())
            .child(query);
        self.send(&push, turn);
    }
}
