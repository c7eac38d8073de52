//! Message carbons (XEP-0280): the other resources of a user see what one of them sends and
//! receives.

use crate::{
    Shared,
    jid::Jid,
    xml::{Element, ns},
};

/// True for messages that are copied.
fn is_copied(stanza: &Element) -> bool {
    let is_chat = stanza.get("type") == Some("chat");
    let is_private = stanza.find(ns::CARBONS, "private").is_some()
        || stanza.find(ns::HINTS, "no-copy").is_some();
    is_chat && !is_private
}

fn copy(user: &str, shared: &Shared, word: &'static str, stanza: &Element) -> Element {
    let mut inner = stanza.clone();
    inner.nodes.retain(|node| !matches!(node, crate::xml::Node::Element(e) if e.ns == ns::CARBONS));
    let forwarded = Element::new(ns::FORWARD, "forwarded").child(inner);
    Element::new(ns::CLIENT, "message")
        .attr("from", Jid::of_user(user, shared.domains.base()).to_string())
        .attr("type", "chat")
        .child(Element::new(ns::CARBONS, word).child(forwarded))
}

/// Copies a message that a resource of the user receives.
pub(crate) fn received(shared: &Shared, user: &str, receiver: &Jid, stanza: &Element) {
    if is_copied(stanza) {
        let copy = copy(user, shared, "received", stanza);
        shared.directory.pass_carbon(user, &receiver.resource, &copy);
    }
}

/// Copies a message that a resource of the user sends.
pub(crate) fn sent(shared: &Shared, user: &str, sender: &Jid, stanza: &Element) {
    if is_copied(stanza) {
        let copy = copy(user, shared, "sent", stanza);
        shared.directory.pass_carbon(user, &sender.resource, &copy);
    }
}
