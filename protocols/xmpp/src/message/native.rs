//! The native form: the stanza as XML, without the part of it that is the message's body.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use polymq_model::{
    Format, Message, Properties, Value,
    address::Address,
    carry::{Field, event_from_prefixed_names, from_table_headers, ident_from_text, ident_to_text},
    format,
};

use super::fields;
use crate::xml::{self, Element, Node, ns};

/// Native form of XMPP.
pub static XMPP: Format = Format { id: format::XMPP, name: "xmpp", decode };

const VERSION: u8 = 1;
/// Depth of a stored stanza; what came in was shallower.
pub(super) const DEPTH_MAX: usize = 64;
/// The attribute that keeps the reply address in its canonical form.
const REPLY: &str = "reply";
/// The same for an address that XML cannot hold, in base64.
const REPLY_64: &str = "reply64";

/// Which child of a stanza is the body of its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// None.
    Nothing,
    /// `<body>`
    Body,
    /// `<json>`
    Json,
    /// `<data>` with text.
    Text,
    /// `<data encoding='base64'>`
    Base64,
    /// The element itself.
    Element,
}

impl Source {
    const ALL: [Self; 6] =
        [Self::Nothing, Self::Body, Self::Json, Self::Text, Self::Base64, Self::Element];
}

/// A stanza without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Native {
    /// Where the body came from.
    pub(super) source: Source,
    /// Its place among the nodes of the stanza.
    pub(super) place: u16,
    /// The stanza. What held the body is empty, or missing when the body is the element.
    pub(super) stanza: Element,
}

impl Native {
    pub(super) fn encode(&self) -> Vec<u8> {
        let kind = Source::ALL.iter().position(|kind| *kind == self.source).unwrap_or(0);
        let mut bytes = vec![VERSION, u8::try_from(kind).unwrap_or(0)];
        bytes.extend_from_slice(&self.place.to_be_bytes());
        let mut text = String::new();
        xml::write(&self.stanza, "", &mut text);
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let [VERSION, kind, high, low, text @ ..] = bytes else { return None };
        let source = *Source::ALL.get(usize::from(*kind))?;
        let stanza = xml::document(std::str::from_utf8(text).ok()?, DEPTH_MAX).ok()?;
        Some(Self { source, place: u16::from_be_bytes([*high, *low]), stanza })
    }

    /// The stanza with the body where it was.
    pub(super) fn restored(mut self, body: &[u8]) -> (Element, Option<usize>) {
        let place = usize::from(self.place);
        let text = || String::from_utf8_lossy(body).into_owned();
        if self.source == Source::Element {
            let element = xml::document(&text(), DEPTH_MAX).ok();
            let place = place.min(self.stanza.nodes.len());
            let found = element.map(|element| {
                self.stanza.nodes.insert(place, Node::Element(element));
                place
            });
            return (self.stanza, found);
        }
        let Some(Node::Element(holder)) = self.stanza.nodes.get_mut(place) else {
            return (self.stanza, None);
        };
        match self.source {
            Source::Body | Source::Json | Source::Text => holder.push_text(text()),
            Source::Base64 => holder.push_text(BASE64_STANDARD.encode(body)),
            Source::Nothing | Source::Element => return (self.stanza, None),
        }
        (self.stanza, Some(place))
    }

    /// What the source says of type and text, when nothing else does.
    pub(super) fn implied(&self) -> (Option<String>, Option<bool>) {
        let holder = match self.stanza.nodes.get(usize::from(self.place)) {
            Some(Node::Element(holder)) => Some(holder),
            _ => None,
        };
        let said = holder.and_then(|holder| holder.get("content-type")).map(str::to_owned);
        implied(self.source, said)
    }
}

/// What a form of the body says of its type, and whether it is text.
pub(super) fn implied(source: Source, said: Option<String>) -> (Option<String>, Option<bool>) {
    match source {
        Source::Nothing => (None, None),
        Source::Body => (Some("text/plain;charset=utf-8".to_owned()), Some(true)),
        Source::Json => (Some("application/json".to_owned()), Some(true)),
        Source::Text => (said, Some(true)),
        Source::Base64 => (said, None),
        Source::Element => (Some("application/xml".to_owned()), None),
    }
}

/// The children that are fields, and so not carried as XML to other protocols.
pub(super) fn is_field(child: &Element) -> bool {
    match &*child.ns {
        ns::CLIENT => matches!(&*child.name, "thread" | "subject" | "error"),
        ns::PROPERTIES | ns::ADDRESSES | ns::AMP | ns::DELAY | ns::SHIM => true,
        ns::ORIGIN_ID => child.name == "origin-id" || child.name == "stanza-id",
        _ => false,
    }
}

/// The hint that stands for a message which is not durable (XEP-0334).
fn is_no_store(child: &Element) -> bool {
    child.is(ns::HINTS, "no-store") && child.attributes.is_empty()
}

/// Keeps the reply address of a stanza.
pub(super) fn keep_reply(stanza: &mut Element, address: &Address) {
    let text = address.to_text();
    match text.chars().all(xml::is_legal) {
        true => stanza.set(REPLY, text),
        false => stanza.set(REPLY_64, BASE64_STANDARD.encode(text)),
    }
}

/// The reply address of a stored stanza, taken out of it.
pub(super) fn take_reply(stanza: &mut Element) -> Option<Address> {
    let coded = stanza.get(REPLY_64).and_then(|text| BASE64_STANDARD.decode(text).ok());
    let coded = coded.and_then(|bytes| String::from_utf8(bytes).ok());
    let text = coded.or_else(|| stanza.get(REPLY).map(str::to_owned));
    stanza.unset(REPLY);
    stanza.unset(REPLY_64);
    text.as_deref().map(Address::parse)
}

/// Reads the canonical fields of a stored stanza.
fn decode(message: &Message) -> Properties {
    let mut props = Properties::of_head(message);
    let Some(mut native) = Native::decode(message.native_props()) else { return props };
    let (content_type, text) = native.implied();
    props.qos = 0;
    props.content_type = content_type;
    props.text = text;
    props.reply_to = take_reply(&mut native.stanza);
    let stanza = &native.stanza;
    let origin = stanza.find(ns::ORIGIN_ID, "origin-id").and_then(|origin| origin.get("id"));
    let mut headers = Vec::new();
    let kind = fields::read(stanza, &mut props, &mut headers);
    let id = origin.or_else(|| stanza.get("id")).map(|id| ident_from_text(id, None));
    props.id = props.id.take().or(id);
    let thread = props.correlation.take().map(|said| ident_to_text(&said));
    let thread = thread.or_else(|| stanza.content_of(ns::CLIENT, "thread"));
    props.correlation = thread.map(|thread| ident_from_text(&thread, kind.as_deref()));
    if let Some(subject) = stanza.content_of(ns::CLIENT, "subject") {
        headers.push(("subject".to_owned(), Value::String(subject)));
    }
    let mut put = |field: Field, text: String| {
        if !text.is_empty() {
            headers.push((field.key().to_owned(), Value::String(text)));
        }
    };
    put(Field::Xmpp, carried_children(&native));
    // RFC 6121, section 5.2.2: what has no type is normal.
    let kind = stanza.get("type").filter(|kind| *kind != "normal").unwrap_or_default();
    put(Field::XmppType, kind.to_owned());
    put(Field::Lang, stanza.lang().unwrap_or_default().to_owned());
    from_table_headers(headers, &mut props, &mut |field, outcome| {
        tracing::debug!(event = "field_dropped", field, outcome = outcome.label(), "field dropped");
    });
    event_from_prefixed_names(&mut props);
    props.qos = props.qos.max(message.qos());
    props.retain |= message.retain();
    props
}

/// The children that have no field, as XML that stands for itself.
fn carried_children(native: &Native) -> String {
    let mut text = String::new();
    let nodes = &native.stanza.nodes;
    let last = nodes.iter().rposition(|node| match node {
        Node::Element(child) => !is_field(child),
        Node::Text(_) => false,
    });
    for (place, node) in nodes.iter().enumerate() {
        // At the end stands what says that the message is not durable, which is a field.
        if Some(place) == last && matches!(node, Node::Element(child) if is_no_store(child)) {
            continue;
        }
        let is_body = match native.source {
            Source::Nothing | Source::Element => false,
            _ => place == usize::from(native.place),
        };
        if let Node::Element(child) = node
            && !is_body
            && !is_field(child)
        {
            xml::write(child, "", &mut text);
        }
    }
    text
}
