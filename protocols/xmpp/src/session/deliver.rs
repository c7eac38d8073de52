//! Messages on their way to the other side.

use polymq_contract::{CancelReason, Delivery};
use polymq_model::{
    Message,
    address::{MAILBOX_PREFIX, TOPIC_EXCHANGE},
    carry::rfc3339_from_ms,
};

use super::{Session, Turn, send::Settle};
use crate::{
    jid::{Jid, Service, resource_from_name},
    message::{Form, Rendered, Shown, XMPP, render},
    services::carbons,
    xml::{Element, ns},
};

/// What a consumer is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// What is sent to this resource.
    Resource,
    /// The user's mailbox, since this wall time in ms.
    Mailbox(u64),
    /// A queue, for somebody.
    Queue {
        /// Who.
        who: Jid,
        /// Its name.
        queue: String,
        /// How deliveries are settled.
        ack: Ack,
    },
    /// A subscription of PubSub that ends with its stream.
    Topic {
        /// Who.
        who: Jid,
        /// To what.
        pattern: String,
        /// The queue of this subscription alone.
        queue: String,
    },
    /// A room.
    Room {
        /// Who.
        who: Jid,
        /// Its name.
        room: String,
        /// The queue of this occupant alone.
        queue: String,
    },
}

/// How deliveries of a queue are settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ack {
    /// By the acknowledgements of the stream, or when written without stream management.
    Stream,
    /// Each by a receipt or an error.
    Individual,
}

impl Session {
    pub(super) fn on_delivery(&mut self, delivery: &Delivery, turn: &mut Turn<'_>) {
        let Some(source) = self.consumers.get(&delivery.consumer).cloned() else { return };
        let settle = Settle { consumer: delivery.consumer, number: delivery.number };
        let message = &delivery.message;
        let counts = Shown { acquired: delivery.acquired, failed: delivery.failed, queue: None };
        match source {
            Source::Resource | Source::Mailbox(_) if is_event(message) => {
                let stanza = self.event(message, &self.jid.clone(), &counts);
                self.send_settling(&stanza, Some(settle), turn);
            }
            Source::Resource | Source::Mailbox(_) => {
                let stanza = self.direct(message, &source, &counts);
                carbons::received(self, &stanza);
                self.send_settling(&stanza, Some(settle), turn);
            }
            Source::Queue { who, queue, ack } => {
                let shown = Shown { queue: Some(&queue), ..counts };
                let mut stanza = self.of_queue(message, &who, &queue, &shown);
                if ack == Ack::Individual {
                    let id = self.services.await_receipt(settle);
                    if let Some(origin) = stanza.get("id").map(str::to_owned) {
                        let origin = Element::new(ns::ORIGIN_ID, "origin-id").attr("id", origin);
                        stanza = stanza.child(origin);
                    }
                    stanza.set("id", id);
                    stanza = stanza.child(Element::new(ns::RECEIPTS, "request"));
                    return self.send(&stanza, turn);
                }
                self.send_settling(&stanza, Some(settle), turn);
            }
            Source::Topic { who, .. } => {
                let stanza = self.event(message, &who, &counts);
                self.send_settling(&stanza, Some(settle), turn);
            }
            Source::Room { who, room, .. } => {
                let stanza = self.of_room(message, &who, &room, &counts);
                self.note_subject(&stanza, &who, &room);
                self.send_settling(&stanza, Some(settle), turn);
            }
        }
    }

    /// A message from one user to another, or from another protocol to a user.
    fn direct(&self, message: &Message, source: &Source, shown: &Shown<'_>) -> Element {
        let domains = &self.shared.domains;
        let rendered = self.rendered(message, Form::Message, shown);
        let is_ours = rendered.from.is_some();
        let from = rendered.from.clone().or_else(|| rendered.reply_to.clone());
        let kind = rendered.kind.clone().unwrap_or_else(|| "normal".to_owned());
        let stored = matches!(source, Source::Mailbox(since) if message.arrived_ms() < *since);
        let mut stanza = rendered
            .into_message()
            .attr("from", from.unwrap_or_else(|| domains.base().to_owned()))
            .attr("to", self.jid.to_string())
            .attr("type", kind);
        // RFC 6121, section 5.2.2: a stanza without a type is a normal one.
        if is_ours && stanza.get("type") == Some("normal") {
            stanza.unset("type");
        }
        if stored {
            stanza = stanza.child(delay(message, domains.base()));
        }
        stanza
    }

    /// A message as a stanza would hold it.
    pub(crate) fn rendered(&self, message: &Message, form: Form, shown: &Shown<'_>) -> Rendered {
        let pair = self.shared.counters.conversions.pair(message.format(), &XMPP);
        pair.messages.add(usize::from(message.format().id != XMPP.id));
        render(message, form, shown, &self.shared.domains)
    }

    /// An event of PubSub (XEP-0060, section 7.1.2).
    pub(crate) fn event(&self, message: &Message, to: &Jid, shown: &Shown<'_>) -> Element {
        let domains = &self.shared.domains;
        let mut rendered = self.rendered(message, Form::Item, shown);
        let node = resource_from_name(message.key());
        let id = rendered.id.take();
        let items = Element::new(ns::PUBSUB_EVENT, "items").attr("node", node);
        // An empty body takes the last value of the topic away.
        let items = match &rendered.payload {
            None if message.retain() => {
                items.child(Element::new(ns::PUBSUB_EVENT, "retract").maybe_attr("id", id))
            }
            _ => {
                let publisher = rendered.from.clone();
                let item = Element::new(ns::PUBSUB_EVENT, "item")
                    .maybe_attr("id", id)
                    .maybe_attr("publisher", publisher)
                    .children(rendered.payload.take());
                items.child(item)
            }
        };
        rendered.payload = Some(Element::new(ns::PUBSUB_EVENT, "event").child(items));
        rendered.kind = None;
        add_addresses(&mut rendered, false);
        rendered
            .into_message()
            .attr("from", domains.service(Service::Topics))
            .attr("to", to.to_string())
            .attr("type", "headline")
    }

    fn of_queue(&self, message: &Message, to: &Jid, queue: &str, shown: &Shown<'_>) -> Element {
        let domains = &self.shared.domains;
        let mut rendered = self.rendered(message, Form::Message, shown);
        add_addresses(&mut rendered, true);
        rendered
            .into_message()
            .attr("from", domains.address(Service::Queues, queue).to_string())
            .attr("to", to.to_string())
            .attr("type", "normal")
    }

    /// A message of a room; senders of other protocols are named by what they say of themselves.
    fn of_room(&self, message: &Message, to: &Jid, room: &str, shown: &Shown<'_>) -> Element {
        let domains = &self.shared.domains;
        let mut rendered = self.rendered(message, Form::Message, shown);
        let room = domains.address(Service::Rooms, room);
        let from = rendered.from.take().unwrap_or_else(|| {
            let props = message.properties();
            let said = props.app_id.as_deref().or(props.user_id.as_deref());
            let nick = said.unwrap_or_else(|| message.format().name);
            room.with_resource(resource_from_name(nick)).to_string()
        });
        let is_xmpp = message.format().id == polymq_model::format::XMPP;
        if !is_xmpp {
            add_addresses(&mut rendered, true);
        }
        rendered
            .into_message()
            .attr("from", from)
            .attr("to", to.to_string())
            .attr("type", "groupchat")
    }

    pub(super) fn on_consumer_cancelled(
        &mut self,
        consumer: polymq_model::ConsumerId,
        reason: CancelReason,
        turn: &mut Turn<'_>,
    ) {
        let (who, queue) = match self.consumers.remove(&consumer) {
            Some(Source::Queue { who, queue, .. }) => (who, queue),
            Some(Source::Room { who, room, queue }) => {
                return self.be_removed(&who, &room, queue, reason, turn);
            }
            Some(Source::Topic { who, pattern, queue }) => {
                self.delete_own(queue, turn);
                return self.be_unsubscribed(&who, &pattern, turn);
            }
            Some(Source::Resource | Source::Mailbox(_)) | None => return,
        };
        let (reason, text) = match reason {
            CancelReason::QueueDeleted => ("queue-deleted", "the queue was deleted"),
            CancelReason::Timeout => ("timeout", "a delivery was not settled in time"),
            CancelReason::Denied => ("denied", "the right to read the queue is gone"),
            CancelReason::Administrator => ("administrator", "an administrator ended it"),
        };
        // An <error/> would make it a presence of the type `error`, which ends nothing.
        let presence = Element::new(ns::CLIENT, "presence")
            .attr("from", self.shared.domains.address(Service::Queues, &queue).to_string())
            .attr("to", who.to_string())
            .attr("type", "unavailable")
            .child(Element::new(ns::CLIENT, "status").text(text))
            .child(Element::new(ns::QUEUE, "cancelled").attr("reason", reason));
        self.send(&presence, turn);
    }
}

/// True for a message that came to a mailbox by a subscription.
fn is_event(message: &Message) -> bool {
    message.exchange() == TOPIC_EXCHANGE && !message.key().starts_with(MAILBOX_PREFIX)
}

/// When a message came that had to wait (XEP-0203).
pub(crate) fn delay(message: &Message, domain: &str) -> Element {
    let arrived = i64::try_from(message.arrived_ms()).unwrap_or(i64::MAX);
    Element::new(ns::DELAY, "delay").attr("from", domain).attr("stamp", rfc3339_from_ms(arrived))
}

/// Where answers go, and who it was (XEP-0033), for stanzas that come from a service.
fn add_addresses(rendered: &mut Rendered, with_sender: bool) {
    let sender = rendered.from.clone().filter(|_| with_sender);
    let address = |kind, jid: String| {
        Element::new(ns::ADDRESSES, "address").attr("type", kind).attr("jid", jid)
    };
    let replies = rendered.reply_to.clone().map(|jid| address("replyto", jid));
    let senders = sender.map(|jid| address("ofrom", jid));
    let new: Vec<_> = replies.into_iter().chain(senders).collect();
    if new.is_empty() {
        return;
    }
    let found = rendered.rest.iter().position(|child| child.is(ns::ADDRESSES, "addresses"));
    let kept = found.map(|at| rendered.rest.remove(at));
    let kept = kept.into_iter().flat_map(|list| list.nodes).filter_map(|node| match node {
        crate::xml::Node::Element(child) => Some(child),
        crate::xml::Node::Text(_) => None,
    });
    let kept = kept.filter(|child| !matches!(child.get("type"), Some("replyto" | "ofrom")));
    let list = Element::new(ns::ADDRESSES, "addresses").children(kept).children(new);
    rendered.rest.push(list);
}
