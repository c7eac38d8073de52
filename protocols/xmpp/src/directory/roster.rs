//! A roster: contacts, and who sees whose presence (RFC 6121, sections 2 and 3).

use std::collections::BTreeMap;

use crate::xml::{self, Element, ns};

/// Contacts of one user.
pub(crate) const ITEMS_MAX: usize = 10_000;

/// The contacts of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Roster {
    /// Grows with each change.
    pub(crate) version: u64,
    items: BTreeMap<String, Item>,
}

/// A contact.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Item {
    name: Option<String>,
    groups: Vec<String>,
    /// The user sees the contact's presence.
    pub(crate) to: bool,
    /// The contact sees the user's presence.
    pub(crate) from: bool,
    /// The user has asked to see the contact's.
    pub(crate) ask: bool,
    /// The contact has asked to see the user's; not shown in the roster.
    pub(crate) pending_in: bool,
    /// The user has put it into the roster, or it was seen there because of a subscription.
    shown: bool,
}

impl Item {
    fn subscription(&self) -> &'static str {
        match (self.to, self.from) {
            (false, false) => "none",
            (true, false) => "to",
            (false, true) => "from",
            (true, true) => "both",
        }
    }

    fn element(&self, jid: &str) -> Element {
        let group = |name: &String| Element::new(ns::ROSTER, "group").text(name.clone());
        Element::new(ns::ROSTER, "item")
            .attr("jid", jid)
            .maybe_attr("name", self.name.clone())
            .attr("subscription", self.subscription())
            .maybe_attr("ask", self.ask.then_some("subscribe"))
            .children(self.groups.iter().map(group))
    }

    /// Takes over name and groups of `<item/>`.
    fn describe(&mut self, element: &Element) {
        self.name = element.get("name").filter(|name| !name.is_empty()).map(str::to_owned);
        let groups = element.elements().filter(|child| child.is(ns::ROSTER, "group"));
        self.groups = groups.map(Element::content).filter(|name| !name.is_empty()).collect();
        self.groups.sort();
        self.groups.dedup();
    }
}

impl Roster {
    /// Reads what [`Roster::to_text`] wrote; what cannot be read is left out.
    pub(crate) fn from_text(version: u64, text: &str) -> Self {
        let mut roster = Self { version, items: BTreeMap::new() };
        let Ok(query) = xml::document(text, 8) else { return roster };
        for element in query.elements() {
            let Some(jid) = element.get("jid") else { continue };
            let subscription = element.get("subscription").unwrap_or_default();
            let mut item = Item {
                to: matches!(subscription, "to" | "both"),
                from: matches!(subscription, "from" | "both"),
                ask: element.get("ask").is_some(),
                pending_in: element.get("pending").is_some(),
                shown: element.get("hidden").is_none(),
                ..Item::default()
            };
            item.describe(element);
            roster.items.insert(jid.to_owned(), item);
        }
        roster
    }

    /// All of it as text, for the store.
    pub(crate) fn to_text(&self) -> String {
        let items = self.items.iter().map(|(jid, item)| {
            item.element(jid)
                .maybe_attr("pending", item.pending_in.then_some("in"))
                .maybe_attr("hidden", (!item.shown).then_some("true"))
        });
        let mut text = String::new();
        xml::write(&Element::new(ns::ROSTER, "query").children(items), "", &mut text);
        text
    }

    /// `<query/>` with what the user sees.
    pub(crate) fn query(&self) -> Element {
        let shown = self.items.iter().filter(|(_, item)| item.shown);
        Element::new(ns::ROSTER, "query")
            .attr("ver", self.version.to_string())
            .children(shown.map(|(jid, item)| item.element(jid)))
    }

    /// The contact, if it is there.
    pub(crate) fn get(&self, jid: &str) -> Option<&Item> {
        self.items.get(jid)
    }

    /// Contacts for which something holds.
    pub(crate) fn contacts(&self, wants: impl Fn(&Item) -> bool) -> Vec<String> {
        self.items.iter().filter(|(_, item)| wants(item)).map(|(jid, _)| jid.clone()).collect()
    }

    /// Adds or changes a contact as `<item/>` says; returns what is pushed, or `None` when the
    /// roster is full.
    pub(crate) fn put(&mut self, jid: &str, element: &Element) -> Option<Element> {
        if !self.items.contains_key(jid) && self.items.len() >= ITEMS_MAX {
            return None;
        }
        self.version = self.version.wrapping_add(1);
        let item = self.items.entry(jid.to_owned()).or_default();
        item.describe(element);
        item.shown = true;
        Some(item.element(jid))
    }

    /// Removes a contact; returns what it was, and what is pushed.
    pub(crate) fn remove(&mut self, jid: &str) -> Option<(Item, Element)> {
        let item = self.items.remove(jid)?;
        self.version = self.version.wrapping_add(1);
        let push = Element::new(ns::ROSTER, "item").attr("jid", jid).attr("subscription", "remove");
        Some((item, push))
    }

    /// Changes the subscriptions of a contact, which is added when it is not there; returns what is
    /// pushed when the user can see the change.
    pub(crate) fn change(&mut self, jid: &str, change: impl FnOnce(&mut Item)) -> Option<Element> {
        if !self.items.contains_key(jid) && self.items.len() >= ITEMS_MAX {
            return None;
        }
        let before = self.items.get(jid).cloned().unwrap_or_default();
        let item = self.items.entry(jid.to_owned()).or_default();
        change(item);
        item.shown |= item.to || item.from || item.ask;
        let is_nothing = *item == Item::default();
        let is_seen = item.shown && (before.element(jid) != item.element(jid) || !before.shown);
        let push = is_seen.then(|| item.element(jid));
        if is_nothing {
            self.items.remove(jid);
        }
        if self.items.get(jid).cloned().unwrap_or_default() != before {
            self.version = self.version.wrapping_add(1);
        }
        push
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roster_survives_its_text_form() {
        let mut roster = Roster::default();
        let group = Element::new(ns::ROSTER, "group").text("Friends");
        let item = Element::new(ns::ROSTER, "item").attr("name", "An & n").child(group);
        assert!(roster.put("ann@d", &item).is_some());
        roster.change("ann@d", |item| item.to = true);
        assert!(roster.change("bob@d", |item| item.pending_in = true).is_none(), "is not shown");
        let again = Roster::from_text(roster.version, &roster.to_text());
        assert_eq!(again, roster);
        assert_eq!(again.query().elements().count(), 1);
    }

    #[test]
    fn change_that_changes_nothing_keeps_the_version() {
        let mut roster = Roster::default();
        roster.change("ann@d", |item| item.ask = false);
        assert_eq!((roster.version, roster.get("ann@d")), (0, None));
        assert!(roster.change("ann@d", |item| item.ask = true).is_some());
        assert_eq!(roster.version, 1);
        assert!(roster.remove("ann@d").is_some());
        assert!(roster.remove("ann@d").is_none());
    }
}
