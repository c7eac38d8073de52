//! Subscriptions of topics (XEP-0060, section 6). That of a bare address is a binding of the user's
//! mailbox and survives absence; that of a full one is a queue of the stream.

use polymq_contract::{Answer, BindQueue, Command, Consume, DeclareQueue};
use polymq_model::{
    RequestId,
    address::{TOPIC_EXCHANGE, mailbox_key},
};

use super::{
    iq::Route,
    state::PLACES_MAX,
    topics::{key_of, pubsub, recall},
};
use crate::{
    error::StanzaError,
    jid::{Jid, Service, resource_from_name},
    message::Shown,
    session::{Session, Source, Turn, consume_of},
    xml::{Element, ns},
};

/// Retained messages that one request may bring.
const RECALLED_MAX: usize = 1000;
/// Topics that the mailbox of a user is bound to.
const SUBSCRIPTIONS_MAX: usize = 1000;
/// Events on their way to a subscriber whose subscription ends with its stream.
const PREFETCH: u32 = 1000;

fn subscription(node: &str, jid: &Jid, state: &'static str) -> Element {
    Element::new(ns::PUBSUB, "subscription")
        .attr("node", resource_from_name(node))
        .attr("jid", jid.to_string())
        .attr("subscription", state)
}

impl Session {
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

    pub(super) fn on_subscribe(
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
        // What a subscription adds is counted before the next one is read.
        self.ask_and_wait(
            turn,
            |request| Command::DeclareQueue(Box::new(DeclareQueue { request, ..declare })),
            move |session, answer, turn| match answer {
                Ok(Answer::QueueDeclared { queue, .. }) => {
                    let queue = queue.as_str().to_owned();
                    match is_mailbox {
                        true => session.bind_mailbox(iq, queue, pattern, who, turn),
                        false => session.bind_topic(iq, queue, pattern, (who, false), turn),
                    }
                }
                Ok(_) => {}
                Err(refusal) => session.send_error(&iq, &StanzaError::from(refusal), turn),
            },
        );
        Ok(())
    }

    /// Binds a mailbox, unless it has as many subscriptions as one may have.
    fn bind_mailbox(
        &mut self,
        iq: Element,
        queue: String,
        pattern: String,
        who: Jid,
        turn: &mut Turn<'_>,
    ) {
        let of = queue.clone();
        self.ask_and_wait(
            turn,
            |request| Command::ListBindings { request, queue: of },
            move |session, answer, turn| {
                let bindings = match answer {
                    Ok(Answer::Bindings(bindings)) => bindings,
                    Ok(_) => Vec::new(),
                    Err(refusal) => {
                        return session.send_error(&iq, &StanzaError::from(refusal), turn);
                    }
                };
                let topics = || bindings.iter().filter(|b| b.exchange == TOPIC_EXCHANGE);
                let is_new = !topics().any(|binding| binding.key == pattern);
                if is_new && topics().count() >= SUBSCRIPTIONS_MAX {
                    // XEP-0060, section 6.1.3.9.
                    let text = format!("a user has at most {SUBSCRIPTIONS_MAX} subscriptions");
                    let error = StanzaError::new("wait", "policy-violation", text);
                    let error = error.of_pubsub("too-many-subscriptions");
                    return session.send_error(&iq, &error, turn);
                }
                session.bind_topic(iq, queue, pattern, (who, true), turn);
            },
        );
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
        self.ask_and_wait(
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

    /// Tells the client of a subscription that has ended by itself.
    pub(crate) fn be_unsubscribed(&mut self, who: &Jid, pattern: &str, turn: &mut Turn<'_>) {
        let event = Element::new(ns::PUBSUB_EVENT, "event")
            .child(Element { ns: ns::PUBSUB_EVENT.into(), ..subscription(pattern, who, "none") });
        let message = Element::new(ns::CLIENT, "message")
            .attr("from", self.shared.domains.service(Service::Topics))
            .attr("to", who.to_string())
            .attr("type", "headline")
            .child(event);
        self.send(&message, turn);
    }

    pub(super) fn on_unsubscribe(
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

    pub(super) fn on_subscriptions(
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
                let kept = topics.map(|binding| subscription(&binding.key, &who, "subscribed"));
                let mut own: Vec<_> = session
                    .consumers
                    .iter()
                    .filter_map(|(consumer, source)| {
                        let Source::Topic { who, pattern, .. } = source else { return None };
                        Some((consumer.0, subscription(pattern, who, "subscribed")))
                    })
                    .collect();
                own.sort_unstable_by_key(|(consumer, _)| *consumer);
                let all = kept.chain(own.into_iter().map(|(_, own)| own));
                let list = Element::new(ns::PUBSUB, "subscriptions").children(all);
                session.send_result(&iq, Some(pubsub().child(list)), turn);
            },
        );
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
