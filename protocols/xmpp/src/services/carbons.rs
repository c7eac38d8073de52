//! Message carbons (XEP-0280): the other resources of a user see what one of them sends and
//! receives.

use crate::{
    Shared,
    jid::Jid,
    session::Session,
    xml::{Element, ns},
};

/// What belongs to a conversation beside its text.
const OF_CHATS: [&str; 4] = [
    ns::RECEIPTS,
    "http://jabber.org/protocol/chatstates",
    "urn:xmpp:chat-markers:0",
    "jabber:x:conference",
];

/// True for messages that are copied (XEP-0280, section 6.1).
fn is_copied(stanza: &Element) -> bool {
    let has_chat = || {
        let of_chat = |child: &Element| OF_CHATS.contains(&&*child.ns);
        stanza.find(ns::CLIENT, "body").is_some() || stanza.elements().any(of_chat)
    };
    let is_chat = match stanza.get("type").unwrap_or("normal") {
        "chat" => true,
        // Errors hold what they answer, when they say what that was.
        "normal" | "error" => has_chat(),
        _ => false,
    };
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

/// Copies a message that the client receives for the other resources of its user.
pub(crate) fn received(session: &Session, stanza: &Element) {
    pass_copy(session, "received", stanza);
}

/// Copies a message that the client sends.
pub(crate) fn sent(session: &Session, stanza: &Element) {
    pass_copy(session, "sent", stanza);
}

fn pass_copy(session: &Session, word: &'static str, stanza: &Element) {
    if is_copied(stanza) {
        let copy = copy(&session.user, &session.shared, word, stanza);
        session.here().pass_carbon(&session.user, &session.jid.resource, &copy);
    }
}
