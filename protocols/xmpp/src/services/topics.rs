//! Topics as nodes of PubSub (XEP-0060). A node needs no creation: whoever publishes speaks of it.

use polymq_contract::{Answer, BindQueue, Command, Consume, DeclareQueue, Refusal};
use polymq_model::{
    RequestId,
    address::{TOPIC_EXCHANGE, mailbox_key},
};

use super::{
    iq::{Handled, Route},
    state::PLACES_MAX,
};
use crate::{
    error::StanzaError,
    jid::{Jid, Place, Service, name_from_resource, resource_from_name},
    message::{Form, Shown},
    session::{Kind, Session, Source, Turn, consume_of},
    xml::{Element, ns},
};

/// Retained messages that one request may bring.
const RECALLED_MAX: usize = 1000;
/// Events on their way to a subscriber whose subscription ends with its stream.
const PREFETCH: u32 = 1000;

/// Asks for the last values of topics.
pub(super) fn recall(pattern: String, count_max: usize) -> impl FnOnce(RequestId) -> Command {
    let exchange = TOPIC_EXCHANGE.to_owned();
    move |request| Command::Recall { request, exchange, pattern, count_max }
}

fn pubsub() -> Element {
    Element::new(ns::PUBSUB, "pubsub")
}

/// The routing key or pattern that a node is.
fn key_of(element: &Element, route: &Route) -> Result<String, StanzaError> {
    let node = match (&route.place, element.get("node")) {
        (_, Some(node)) => name_from_resource(node),
        (Place::Named(Service::Topics, key), None) => Some(key.clone()),
        _ => None,
    };
    node.ok_or_else(|| {
        StanzaError::bad_request("the request names no node").of_pubsub("nodeid-required")
    })
}

fn subscription(node: &str, jid: &Jid, state: &'static str) -> Element {
    Element::new(ns::PUBSUB, "subscription")
        .attr("node", resource_from_name(node))
        .attr("jid", jid.to_string())
        .attr("subscription", state)
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

    /// The subscriber of a request, who must be the one who asks.
    fn subscriber(&self, action: &Element, route: &Route) -> Result<Jid, StanzaError> {
        let jid = match action.get("jid") {
            None => Some(route.from.bare()),
            Some(text) => Jid::parse(text),
        };
        let is_own = |jid: &Jid| *jid == route.from || *jid == route.from.bare();
        jid.filter(is_own).ok_or_else(|| {
            StanzaError::bad_request("the subscriber is not the sender").of_pubsub("invalid-jid")
        })
    }

    fn on_subscribe(
        &mut self,
        iq: &Element,
        subscribe: &Element,
        route: &Route,
        turn: &mut Turn<'_>,
    ) -> Result<(), StanzaError> {
        let pattern = key_of(subscribe, route)?;
        let who = self.subscriber(subscribe, route)?;
        // A bare address is a mailbox, which survives absence; users of other servers have none.
        let queue = match who.is_bare() && !self.is_component() {
            true => mailbox_key(&who.to_string()),
            false => String::new(),
        };
        let is_mailbox = !queue.is_empty();
        if !is_mailbox && self.consumers.len() >= PLACES_MAX {
            let text = format!("a stream is in at most {PLACES_MAX} places");
            return Err(StanzaError::new("wait", "resource-constraint", text));
        }
        let iq = iq.clone();
        let declare = DeclareQueue {
            request: RequestId(0),
            queue,
            passive: false,
            durable: is_mailbox,
            exclusive: !is_mailbox,
            auto_delete: false,
            arguments: Vec::new(),
        };
        self.ask(
            turn,
            |request| Command::DeclareQueue(Box::new(DeclareQueue { request, ..declare })),
            move |session, answer, turn| match answer {
                Ok(Answer::QueueDeclared { queue, .. }) => {
                    let queue = queue.as_str().to_owned();
                    session.bind_topic(iq, queue, pattern, (who, is_mailbox), turn);
                }
                Ok(_) => {}
                Err(refusal) => session.send_error(&iq, &StanzaError::from(refusal), turn),
            },
        );
        Ok(())
    }

    fn bind_topic(
        &mut self,
        iq: Element,
        queue: String,
        pattern: String,
        (who, is_mailbox): (Jid, bool),
        turn: &mut Turn<'_>,
    ) {
        let bind = binding(queue.clone(), pattern.clone());
        self.ask(
            turn,
            |request| Command::BindQueue(Box::new(BindQueue { request, ..bind })),
            move |session, answer, turn| match answer {
                Ok(_) => {
                    let done = pubsub().child(subscription(&pattern, &who, "subscribed"));
                    session.send_result(&iq, Some(done), turn);
                    if !is_mailbox {
                        session.consume_topic(queue, &pattern, &who, turn);
                    }
                    session.send_last_values(pattern, who, turn);
                }
                Err(refusal) => {
                    if !is_mailbox {
                        session.delete_own(queue, turn);
                    }
                    session.send_error(&iq, &StanzaError::from(refusal), turn);
                }
            },
        );
    }

    fn consume_topic(&mut self, queue: String, pattern: &str, who: &Jid, turn: &mut Turn<'_>) {
        let consumer = self.next_consumer();
        let (who, pattern) = (who.clone(), pattern.to_owned());
        let tag = who.to_string();
        self.consumers.insert(consumer, Source::Topic { who, pattern, queue: queue.clone() });
        let consume = Consume { prefetch: PREFETCH, tag, ..consume_of(queue, consumer, false) };
        self.ask(
            turn,
            |request| Command::Consume(Box::new(Consume { request, ..consume })),
            move |session, answer, turn| {
                if answer.is_err()
                    && let Some(Source::Topic { queue, .. }) = session.consumers.remove(&consumer)
                {
                    session.delete_own(queue, turn);
                }
            },
        );
    }

    /// The retained messages of a new subscription.
    fn send_last_values(&mut self, pattern: String, who: Jid, turn: &mut Turn<'_>) {
        self.ask(turn, recall(pattern, RECALLED_MAX), move |session, answer, turn| {
            let Ok(Answer::Recalled(messages)) = answer else { return };
            let to =
                if who.is_bare() && !session.is_component() { session.jid.clone() } else { who };
            for message in &messages {
                let delay = crate::session::delay(message, session.shared.domains.base());
                let event = session.event(message, &to, &Shown::default()).child(delay);
                session.send(&event, turn);
            }
        });
    }

    fn on_unsubscribe(
        &mut self,
        iq: &Element,
        unsubscribe: &Element,
        route: &Route,
        turn: &mut Turn<'_>,
    ) -> Result<(), StanzaError> {
        let pattern = key_of(unsubscribe, route)?;
        let who = self.subscriber(unsubscribe, route)?;
        if !who.is_bare() || self.is_component() {
            let found: Vec<_> = self
                .consumers
                .iter()
                .filter(|(_, source)| {
                    matches!(source, Source::Topic { who: of, pattern: to, .. }
                        if *of == who && *to == pattern)
                })
                .map(|(consumer, _)| *consumer)
                .collect();
            for consumer in found {
                self.end_consumer(consumer, turn);
            }
            self.send_result(iq, None, turn);
            return Ok(());
        }
        let bind = binding(mailbox_key(&who.to_string()), pattern);
        let iq = iq.clone();
        self.ask(
            turn,
            |request| Command::UnbindQueue(Box::new(BindQueue { request, ..bind })),
            move |session, answer, turn| session.finish(&iq, answer, turn),
        );
        Ok(())
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

    fn on_subscriptions(
        &mut self,
        iq: &Element,
        route: &Route,
        turn: &mut Turn<'_>,
    ) -> Result<(), StanzaError> {
        if self.is_component() {
            let none = pubsub().child(Element::new(ns::PUBSUB, "subscriptions"));
            self.send_result(iq, Some(none), turn);
            return Ok(());
        }
        let who = route.from.bare();
        let queue = mailbox_key(&who.to_string());
        let iq = iq.clone();
        self.ask(
            turn,
            |request| Command::ListBindings { request, queue },
            move |session, answer, turn| {
                let bindings = match answer {
                    Ok(Answer::Bindings(bindings)) => bindings,
                    // Who has no mailbox yet has no subscription.
                    Ok(_) | Err(_) => Vec::new(),
                };
                let topics = bindings.iter().filter(|b| b.exchange == TOPIC_EXCHANGE);
                let list = topics.map(|binding| subscription(&binding.key, &who, "subscribed"));
                let list = Element::new(ns::PUBSUB, "subscriptions").children(list);
                session.send_result(&iq, Some(pubsub().child(list)), turn);
            },
        );
        Ok(())
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

fn binding(queue: String, key: String) -> BindQueue {
    BindQueue {
        request: RequestId(0),
        queue,
        exchange: TOPIC_EXCHANGE.to_owned(),
        key,
        arguments: Vec::new(),
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
