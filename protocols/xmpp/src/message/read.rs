//! From a stanza to a message.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use polymq_contract::Pair;
use polymq_model::{
    Message, Value,
    address::Address,
    carry::{Outcome, is_reserved, rfc3339_to_ms},
    delay::{BadDelay, Delay, DelayHeaders},
    message::{Body, NewMessage},
};

use super::{
    fields,
    native::{Native, Source, XMPP, is_field, keep_reply},
};
use crate::{
    error::StanzaError,
    jid::{Domains, Jid},
    xml::{Element, Node, ns, write},
};

/// Who sends, as far as messages tell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender<'a> {
    /// The user it acts as.
    pub(crate) user: &'a str,
    /// It may send messages in the name of others.
    pub(crate) impersonator: bool,
}

/// A message that has everything but its address.
#[derive(Debug)]
pub(crate) struct Draft {
    native: Native,
    body: Vec<u8>,
    durable: bool,
    priority: Option<u8>,
    qos: u8,
    retain: bool,
    deadline_ms: u64,
    delay: Option<Delay>,
}

/// Takes a stanza apart. `from` is what the receiver sees as its sender; `reply_to` is where
/// answers go when the stanza does not say.
///
/// Errors: what in it cannot be understood.
pub(crate) fn read(
    mut stanza: Element,
    from: &str,
    reply_to: Option<&Jid>,
    sender: Sender<'_>,
    domains: &Domains,
    entering: &Pair,
) -> Result<Draft, StanzaError> {
    stanza.attributes.retain(|attribute| {
        // What the stored form keeps for itself is not for clients to say.
        matches!(&*attribute.name, "id" | "type" | "from" | "lang")
    });
    stanza.set("from", from);
    let reserved = |entry: &Element| fields::is_named(entry, is_reserved);
    let removed = fields::remove(&mut stanza, reserved);
    entering.dropped("header", Outcome::Reserved, removed);
    if !sender.impersonator {
        let foreign = |entry: &Element| fields::is_foreign(entry, sender.user);
        let removed = fields::remove(&mut stanza, foreign);
        entering.dropped("user_id", Outcome::NotAllowed, removed);
    }
    let reply = match fields::find(&stanza, "reply_to") {
        Some(text) => text.as_str().map(Address::parse),
        None => {
            reply_jid(&stanza).or_else(|| reply_to.cloned()).map(|jid| domains.reply_address(&jid))
        }
    };
    let hint = |name| stanza.find(ns::HINTS, name).is_some();
    let durable = !hint("no-store") && !hint("no-permanent-store");
    let number = |name| fields::find(&stanza, name).and_then(|value| value.as_i64());
    let priority = number("priority").and_then(|value| u8::try_from(value).ok());
    let qos = match number("qos") {
        Some(2) => 2,
        _ => u8::from(durable),
    };
    let retain = fields::find(&stanza, "retain").and_then(|v: Value| v.as_bool()) == Some(true);
    let deadline_ms = deadline_ms(&stanza)?;
    let delay = take_delay(&mut stanza)?;
    let (mut native, body) = take_body(stanza)?;
    if let Some(reply) = reply {
        keep_reply(&mut native.stanza, &reply);
    }
    Ok(Draft { native, body, durable, priority, qos, retain, deadline_ms, delay })
}

impl Draft {
    /// Keeps the message as the last value of its topic.
    pub(crate) fn retained(mut self) -> Self {
        self.retain = true;
        self
    }

    /// The message may be lost with the broker.
    pub(crate) fn transient(mut self) -> Self {
        self.durable = false;
        self
    }

    /// When it is to be routed, if not now.
    pub(crate) fn delay(&self) -> Option<Delay> {
        self.delay
    }

    /// Bytes of the body.
    pub(crate) fn body_len(&self) -> usize {
        self.body.len()
    }

    /// The message, sent to an exchange and key.
    pub(crate) fn addressed(self, exchange: &str, key: &str, unix_ms: u64) -> Message {
        let props = self.native.encode();
        NewMessage {
            format: &XMPP,
            exchange,
            key,
            props: &props,
            body: Body::Shared(self.body.into()),
            durable: self.durable,
            priority: self.priority,
            qos: self.qos,
            retain: self.retain,
            deadline_ms: self.deadline_ms,
            arrived_ms: unix_ms,
            extra_keys: Vec::new(),
        }
        .build(&mut Vec::new())
    }
}

/// What the headers say about a delay. A message that is delayed loses them, so that it is not
/// delayed again.
fn take_delay(stanza: &mut Element) -> Result<Option<Delay>, StanzaError> {
    let mut delays = DelayHeaders::default();
    for (name, value) in fields::headers(stanza) {
        delays.add(&name, &value);
    }
    let delay = delays.delay().map_err(|bad| match bad {
        BadDelay::NotANumber(_) => StanzaError::bad_request(bad.to_string()),
        BadDelay::NotAvailable(_) => StanzaError::not_implemented(bad.to_string()),
    })?;
    if delay.is_some() {
        let delays =
            |entry: &Element| fields::is_named(entry, |name| DelayHeaders::is_one(name.as_bytes()));
        fields::remove(stanza, delays);
    }
    Ok(delay)
}

/// The `replyto` of XEP-0033.
fn reply_jid(stanza: &Element) -> Option<Jid> {
    let addresses = stanza.find(ns::ADDRESSES, "addresses")?;
    let mut replies = addresses.elements().filter(|address| address.get("type") == Some("replyto"));
    Jid::parse(replies.next()?.get("jid")?)
}

/// The moment at which XEP-0079 has the message dropped; 0 for never.
fn deadline_ms(stanza: &Element) -> Result<u64, StanzaError> {
    let Some(amp) = stanza.find(ns::AMP, "amp") else { return Ok(0) };
    let mut expiring = amp.elements().filter(|rule| rule.get("condition") == Some("expire-at"));
    let Some(rule) = expiring.find(|rule| rule.get("action") == Some("drop")) else {
        return Ok(0);
    };
    let value = rule.get("value").unwrap_or_default();
    let moment = rfc3339_to_ms(value).and_then(|ms| u64::try_from(ms).ok());
    moment.map(|ms| ms.max(1)).ok_or_else(|| {
        StanzaError::bad_request(format!("`{value}` is no moment: it is written as in XEP-0082"))
    })
}

/// Takes the body out of the stanza.
fn take_body(mut stanza: Element) -> Result<(Native, Vec<u8>), StanzaError> {
    let place_of = |stanza: &Element, ns: &str, name: &str| {
        stanza.nodes.iter().position(|node| match node {
            Node::Element(child) => child.is(ns, name),
            Node::Text(_) => false,
        })
    };
    // Text between children says nothing, and would move what stands behind it.
    stanza.nodes.retain(|node| matches!(node, Node::Element(_)));
    let data = place_of(&stanza, ns::DATA, "data");
    let json = || place_of(&stanza, ns::JSON, "json");
    let body = || place_of(&stanza, ns::CLIENT, "body");
    let (place, source) = if let Some(place) = data {
        (place, Source::Text)
    } else if let Some(place) = json() {
        (place, Source::Json)
    } else if let Some(place) = body() {
        (place, Source::Body)
    } else {
        match only_other(&stanza) {
            Some(place) => (place, Source::Element),
            None => (0, Source::Nothing),
        }
    };
    let short = u16::try_from(place)
        .map_err(|_| StanzaError::bad_request("the stanza has too many children"))?;
    let native = |source, stanza| Native { source, place: short, stanza };
    if source == Source::Nothing {
        return Ok((native(source, stanza), Vec::new()));
    }
    if source == Source::Element {
        let Node::Element(child) = stanza.nodes.remove(place) else {
            return Ok((native(Source::Nothing, stanza), Vec::new()));
        };
        let mut text = String::new();
        write(&child, "", &mut text);
        return Ok((native(source, stanza), text.into_bytes()));
    }
    let Some(Node::Element(holder)) = stanza.nodes.get_mut(place) else {
        return Ok((native(Source::Nothing, stanza), Vec::new()));
    };
    let text = holder.content();
    holder.nodes.clear();
    if source == Source::Text && holder.get("encoding") == Some("base64") {
        let packed: String = text.split_ascii_whitespace().collect();
        let bytes = BASE64_STANDARD
            .decode(packed)
            .map_err(|_| StanzaError::bad_request("<data/> is not base64"))?;
        return Ok((native(Source::Base64, stanza), bytes));
    }
    Ok((native(source, stanza), text.into_bytes()))
}

/// The place of the only child that is no field and no hint.
fn only_other(stanza: &Element) -> Option<usize> {
    let mut others = stanza.nodes.iter().enumerate().filter(|(_, node)| match node {
        Node::Element(child) => !is_field(child) && child.ns != ns::HINTS,
        Node::Text(_) => false,
    });
    let (place, _) = others.next()?;
    others.next().is_none().then_some(place)
}
