//! Topics as nodes of PubSub (XEP-0060). A node needs no creation: whoever publishes speaks of it.

use polymq_contract::{Answer, Command, Refusal};
use polymq_model::{RequestId, address::TOPIC_EXCHANGE};

use super::iq::{Handled, Route};
use crate::{
    error::StanzaError,
    jid::{Place, Service, name_from_resource, resource_from_name},
    message::{Form, Shown},
    session::{Kind, Session, Turn},
    xml::{Element, ns},
};

/// Asks for the last values of topics.
pub(super) fn recall(pattern: String, count_max: usize) -> impl FnOnce(RequestId) -> Command {
    let exchange = TOPIC_EXCHANGE.to_owned();
    move |request| Command::Recall { request, exchange, pattern, count_max }
}

pub(super) fn pubsub() -> Element {
    Element::new(ns::PUBSUB, "pubsub")
}

/// The routing key or pattern that a node is.
pub(super) fn key_of(element: &Element, route: &Route) -> Result<String, StanzaError> {
    let node = match (&route.place, element.get("node")) {
        (_, Some(node)) => name_from_resource(node),
        (Place::Named(Service::Topics, key), None) => Some(key.clone()),
        _ => None,
    };
    node.ok_or_else(|| {
        StanzaError::bad_request("the request names no node").of_pubsub("nodeid-required")
    })
}

impl Session {
    pub(super) fn on_pubsub(
        &mut self,
        iq: Element,
        payload: &Element,
        route: &Route,
        turn: &mut Turn<'_>,
    ) -> Handled {
        let is_set = iq.get("type") == Some("set");
        let Some(action) = payload.elements().next() else {
            self.send_error(&iq, &StanzaError::bad_request("the request is empty"), turn);
            return Handled::Now;
        };
        let done = match (&*action.name, is_set) {
            ("publish", true) => return self.on_publish_item(&iq, payload, action, route, turn),
            ("retract", true) => match self.on_retract(&iq, action, route, turn) {
                Ok(()) => return Handled::Later,
                Err(error) => Err(error),
            },
            ("subscribe", true) => self.on_subscribe(&iq, action, route, turn),
            ("unsubscribe", true) => self.on_unsubscribe(&iq, action, route, turn),
            ("items", false) => self.on_items(&iq, action, route, turn),
            ("subscriptions", false) => self.on_subscriptions(&iq, route, turn),
            ("affiliations", false) => {
                let none = pubsub().child(Element::new(ns::PUBSUB, "affiliations"));
                self.send_result(&iq, Some(none), turn);
                Ok(())
            }
            // Nodes exist by being spoken of, so there is nothing to make or to remove.
            ("create", true) => {
                let node = action.get("node").map(str::to_owned);
                let node = node.unwrap_or_else(|| self.shared.random_name());
                let created = pubsub().child(Element::new(ns::PUBSUB, "create").attr("node", node));
                self.send_result(&iq, Some(created), turn);
                Ok(())
            }
            ("configure" | "default", _) => {
                Err(StanzaError::not_implemented("nodes have no configuration of their own"))
            }
            ("delete" | "purge", true) => match key_of(action, route) {
                Ok(key) => {
                    self.take_away(iq, None, &key, &route.clone(), turn);
                    return Handled::Later;
                }
                Err(error) => Err(error),
            },
            _ => Err(StanzaError::not_implemented("").of_pubsub("unsupported")),
        };
        if let Err(error) = done {
            self.send_error(&iq, &error, turn);
        }
        Handled::Now
    }

    fn on_publish_item(
        &mut self,
        iq: &Element,
        payload: &Element,
        publish: &Element,
        route: &Route,
        turn: &mut Turn<'_>,
    ) -> Handled {
        let done = (|| {
            let key = key_of(publish, route)?;
            let mut items = publish.elements().filter(|child| child.name == "item");
            let item = items.next();
            if items.next().is_some() {
                let text = "one item is published at a time";
                return Err(StanzaError::bad_request(text).of_pubsub("max-items-exceeded"));
            }
            let mut stanza = Element::new(ns::CLIENT, "message");
            let given = item.and_then(|item| item.get("id")).filter(|id| !id.is_empty());
            let id = given.map_or_else(|| self.shared.random_name(), str::to_owned);
            stanza.set("id", id.clone());
            if let Some(item) = item {
                let mut elements = item.elements();
                stanza = stanza.children(elements.next().cloned());
                if elements.next().is_some() {
                    let text = "an item holds one element";
                    return Err(StanzaError::bad_request(text).of_pubsub("invalid-payload"));
                }
            }
            // What a message would hold beside its body stands beside the item.
            let others = payload.elements().filter(|child| child.ns != ns::PUBSUB);
            stanza = stanza.children(others.cloned());
            let draft = self.draft(stanza, &route.from.to_string(), Some(route))?;
            let draft = if wants_last_value(payload)? { draft.retained() } else { draft };
            Ok((key, id, draft))
        })();
        match done {
            Ok((key, id, draft)) => {
                let item = Element::new(ns::PUBSUB, "item").attr("id", id);
                let published = Element::new(ns::PUBSUB, "publish")
                    .attr("node", resource_from_name(&key))
                    .child(item);
                let answer = Kind::Iq(pubsub().child(published));
                self.publish(draft, (TOPIC_EXCHANGE, &key), (iq.clone(), answer), turn);
                Handled::Later
            }
            Err(error) => {
                self.send_error(iq, &error, turn);
                Handled::Now
            }
        }
    }

    /// Takes the item of a node away, when it is the one that is named.
    fn on_retract(
        &mut self,
        iq: &Element,
        retract: &Element,
        route: &Route,
        turn: &mut Turn<'_>,
    ) -> Result<(), StanzaError> {
        let key = key_of(retract, route)?;
        let id = retract.elements().find_map(|item| item.get("id")).map(str::to_owned);
        let Some(id) = id else {
            let text = "the request names no item";
            return Err(StanzaError::bad_request(text).of_pubsub("item-required"));
        };
        let (iq, route, number) = (iq.clone(), route.clone(), self.current());
        self.ask(turn, recall(key.clone(), 1), move |session, answer, turn| {
            session.set_current(number);
            let error = match answer {
                Ok(Answer::Recalled(messages)) => {
                    let shown = Shown::default();
                    let is_it = |message| {
                        session.rendered(message, Form::Item, &shown).id.as_deref() == Some(&*id)
                    };
                    if messages.iter().any(is_it) {
                        return session.take_away(iq, Some(id), &key, &route, turn);
                    }
                    StanzaError::not_found("there is no such item")
                }
                Ok(_) => StanzaError::not_found("there is no such item"),
                Err(refusal) => StanzaError::from(refusal),
            };
            session.send_error(&iq, &error, turn);
            session.stanza_done(number, turn);
        });
        Ok(())
    }

    /// Takes the last value of a topic away: an empty message that is to be kept.
    fn take_away(
        &mut self,
        iq: Element,
        id: Option<String>,
        key: &str,
        route: &Route,
        turn: &mut Turn<'_>,
    ) {
        let stanza = Element::new(ns::CLIENT, "message").maybe_attr("id", id);
        match self.draft(stanza, &route.from.to_string(), Some(route)) {
            Ok(draft) => {
                let answer = Kind::Iq(super::iq::empty());
                self.publish(draft.retained(), (TOPIC_EXCHANGE, key), (iq, answer), turn);
            }
            Err(error) => {
                self.send_error(&iq, &error, turn);
                self.stanza_done(self.current(), turn);
            }
        }
    }

    /// Answers a request with what came of it.
    pub(super) fn finish(
        &mut self,
        iq: &Element,
        answer: Result<Answer, Refusal>,
        turn: &mut Turn<'_>,
    ) {
        match answer {
            Ok(_) => self.send_result(iq, None, turn),
            Err(refusal) => self.send_error(iq, &StanzaError::from(refusal), turn),
        }
    }

    fn on_items(
        &mut self,
        iq: &Element,
        items: &Element,
        route: &Route,
        turn: &mut Turn<'_>,
    ) -> Result<(), StanzaError> {
        let key = key_of(items, route)?;
        if key.split('.').any(|level| matches!(level, "*" | "#")) {
            let text = "items are those of one node, not of a pattern";
            return Err(StanzaError::bad_request(text));
        }
        let named = items.elements().filter(|child| child.name == "item");
        let named: Vec<String> = named.filter_map(|item| Some(item.get("id")?.into())).collect();
        let iq = iq.clone();
        self.ask(turn, recall(key.clone(), 1), move |session, answer, turn| match answer {
            Ok(Answer::Recalled(messages)) => {
                let rendered = messages
                    .iter()
                    .map(|message| session.rendered(message, Form::Item, &Shown::default()));
                let is_named = |id: &Option<String>| {
                    named.is_empty() || id.as_ref().is_some_and(|id| named.contains(id))
                };
                let found: Vec<_> = rendered.filter(|item| is_named(&item.id)).collect();
                if found.is_empty() && !named.is_empty() {
                    let error = StanzaError::not_found("there is no such item");
                    return session.send_error(&iq, &error, turn);
                }
                let list = found.into_iter().map(|rendered| {
                    Element::new(ns::PUBSUB, "item")
                        .maybe_attr("id", rendered.id)
                        .maybe_attr("publisher", rendered.from)
                        .children(rendered.payload)
                });
                let list = Element::new(ns::PUBSUB, "items")
                    .attr("node", resource_from_name(&key))
                    .children(list);
                session.send_result(&iq, Some(pubsub().child(list)), turn);
            }
            Ok(_) => session.send_result(&iq, None, turn),
            Err(refusal) => session.send_error(&iq, &StanzaError::from(refusal), turn),
        });
        Ok(())
    }
}

/// Whether the options of a publish ask for the item to be kept: `pubsub#persist_items` with at
/// most one item, which is the last value.
///
/// Errors: options that nobody here can keep to.
fn wants_last_value(payload: &Element) -> Result<bool, StanzaError> {
    let Some(options) = payload.find(ns::PUBSUB, "publish-options") else { return Ok(false) };
    let Some(form) = options.find(ns::DATA_FORMS, "x") else { return Ok(false) };
    let mut is_kept = false;
    for field in form.elements().filter(|field| field.name == "field") {
        let value = field.content_of(ns::DATA_FORMS, "value").unwrap_or_default();
        match field.get("var").unwrap_or_default() {
            "pubsub#persist_items" => is_kept = matches!(value.as_str(), "true" | "1"),
            "pubsub#max_items" if !matches!(value.as_str(), "" | "1" | "max") => {
                let text = format!("a node keeps one item, not {value}");
                return Err(
                    StanzaError::new("cancel", "conflict", text).of_pubsub("precondition-not-met")
                );
            }
            _ => {}
        }
    }
    Ok(is_kept)
}
