//! From a message to a stanza.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use polymq_model::{
    Ident, Message, Properties, Table, Value,
    carry::{Field, annotation_text_headers, ident_to_text, rfc3339_from_ms},
    format,
};

use super::{
    fields,
    native::{DEPTH_MAX, Native, Source, implied, take_reply},
};
use crate::{
    jid::Domains,
    xml::{self, Element, Node, is_legal, ns},
};

/// Where the payload will stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// In a message.
    Message,
    /// In an item of PubSub.
    Item,
}

/// What is shown besides what the sender wrote.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Shown<'a> {
    /// Earlier deliveries.
    pub(crate) acquired: u16,
    /// Failed deliveries.
    pub(crate) failed: u16,
    /// The plain queue it comes from.
    pub(crate) queue: Option<&'a str>,
}

/// A message as a stanza would hold it.
#[derive(Debug)]
pub(crate) struct Rendered {
    /// The body.
    pub(crate) payload: Option<Element>,
    /// Everything else.
    pub(crate) rest: Vec<Element>,
    /// Its id.
    pub(crate) id: Option<String>,
    /// The type of the stanza it was.
    pub(crate) kind: Option<String>,
    /// `xml:lang`.
    pub(crate) lang: Option<String>,
    /// Its sender on XMPP.
    pub(crate) from: Option<String>,
    /// Where answers go.
    pub(crate) reply_to: Option<String>,
}

impl Rendered {
    /// Puts everything into a stanza.
    pub(crate) fn into_message(self) -> Element {
        let mut stanza = Element::new(ns::CLIENT, "message");
        if let Some(lang) = self.lang {
            let (ns, name) = (ns::XML.into(), "lang".into());
            stanza.attributes.push(xml::Attribute { ns, name, value: lang });
        }
        stanza.maybe_attr("id", self.id).children(self.payload).children(self.rest)
    }
}

/// Renders a message.
pub(crate) fn render(
    message: &Message,
    form: Form,
    shown: &Shown<'_>,
    domains: &Domains,
) -> Rendered {
    let mut rendered = match message.format().id {
        format::XMPP => native(message, form, domains),
        _ => converted(message, form, domains),
    };
    let mut entries: Vec<_> = message
        .annotations()
        .map(annotation_text_headers)
        .unwrap_or_default()
        .into_iter()
        .map(|(name, text)| fields::header(&name, &Value::String(text)))
        .collect();
    for (name, count) in [("acquired_count", shown.acquired), ("delivery_count", shown.failed)] {
        if count > 0 {
            entries.push(fields::field(name, &Value::U16(count)));
        }
    }
    if let Some(queue) = shown.queue {
        let origin = [
            ("x-source-queue", queue),
            ("x-exchange", message.exchange()),
            ("x-routing-key", message.key()),
        ];
        let text = |text: &str| Value::String(text.to_owned());
        entries.extend(origin.into_iter().map(|(n, v)| fields::header(n, &text(v))));
    }
    add_entries(&mut rendered.rest, entries);
    let is_converted = message.format().id != format::XMPP;
    let has_hint = || rendered.rest.iter().any(|child| child.ns == ns::HINTS);
    if is_converted && message.properties().durable == Some(false) && !has_hint() {
        rendered.rest.push(Element::new(ns::HINTS, "no-store"));
    }
    rendered
}

fn add_entries(rest: &mut Vec<Element>, entries: Vec<Element>) {
    if entries.is_empty() {
        return;
    }
    match rest.iter_mut().find(|child| child.is(ns::PROPERTIES, "properties")) {
        Some(list) => list.nodes.extend(entries.into_iter().map(Node::Element)),
        None => rest.push(Element::new(ns::PROPERTIES, "properties").children(entries)),
    }
}

/// A message that came over XMPP: its children as they were.
fn native(message: &Message, form: Form, domains: &Domains) -> Rendered {
    let Some(mut native) = Native::decode(message.native_props()) else {
        return converted(message, form, domains);
    };
    let reply_to = take_reply(&mut native.stanza).and_then(|address| domains.jid_of(&address));
    let source = native.source;
    let (mut stanza, place) = native.restored(message.body());
    let text = |name: &str| stanza.get(name).map(str::to_owned);
    let (id, kind, from) = (text("id"), text("type"), text("from"));
    let lang = stanza.lang().map(str::to_owned);
    let mut payload = None;
    if form == Form::Item
        && let Some(place) = place
    {
        let Node::Element(child) = stanza.nodes.remove(place) else {
            return converted(message, form, domains);
        };
        // The text of a message is no payload: an item holds an element of its own namespace.
        payload = Some(match source {
            Source::Body => Element::new(ns::DATA, "data")
                .attr("content-type", "text/plain;charset=utf-8")
                .text(child.content()),
            _ => child,
        });
    }
    let elements = stanza.nodes.into_iter().filter_map(|node| match node {
        Node::Element(child) => Some(child),
        Node::Text(_) => None,
    });
    let rest = elements.collect();
    Rendered { payload, rest, id, kind, lang, from, reply_to }
}

/// A message of another protocol.
fn converted(message: &Message, form: Form, domains: &Domains) -> Rendered {
    let props = message.properties();
    let (payload, source) = payload(message.body(), props, form);
    let mut headers = props.headers.clone();
    let kind = take(&mut headers, Field::XmppType);
    let lang = take(&mut headers, Field::Lang);
    let children = take(&mut headers, Field::Xmpp).map(|text| carried(&text));
    let mut rest = Vec::new();
    if let Some(correlation) = props.correlation.as_ref().and_then(legal_text) {
        rest.push(Element::new(ns::CLIENT, "thread").text(correlation));
    }
    let subject = headers.iter().position(|(name, value)| {
        name == "subject" && value.as_str().is_some_and(|text| text.chars().all(is_legal))
    });
    if let Some((_, Value::String(subject))) = subject.map(|at| headers.remove(at)) {
        rest.push(Element::new(ns::CLIENT, "subject").text(subject));
    }
    let children = children.unwrap_or_default();
    rest.extend(children);
    if message.deadline_ms() != 0 {
        let at = rfc3339_from_ms(i64::try_from(message.deadline_ms()).unwrap_or(i64::MAX));
        let rule = Element::new(ns::AMP, "rule")
            .attr("condition", "expire-at")
            .attr("action", "drop")
            .attr("value", at);
        rest.push(Element::new(ns::AMP, "amp").child(rule));
    }
    let reply_to = props.reply_to.as_ref().and_then(|address| domains.jid_of(address));
    let said = payload.as_ref().and_then(|payload| payload.get("content-type"));
    let (content_type, text) = implied(source, said.map(str::to_owned));
    let mut shown = Properties::clone(props);
    if reply_to.is_some() {
        shown.reply_to = None;
    }
    let entries = fields::write(&shown, (content_type.as_deref(), text), &headers);
    add_entries(&mut rest, entries);
    let id = props.id.as_ref().and_then(legal_text);
    Rendered { payload, rest, id, kind, lang, from: None, reply_to }
}

/// Takes a carried text out of the headers.
fn take(headers: &mut Table, field: Field) -> Option<String> {
    let at = headers.iter().position(|(name, value)| {
        name == field.key() && value.as_str().is_some_and(|text| text.chars().all(is_legal))
    })?;
    match headers.remove(at) {
        (_, Value::String(text)) => Some(text),
        _ => None,
    }
}

/// Children of a stanza that have come back; those that cannot be read are left out.
fn carried(text: &str) -> Vec<Element> {
    let whole = xml::document(&format!("<x>{text}</x>"), DEPTH_MAX);
    let nodes = whole.map(|whole| whole.nodes).unwrap_or_default();
    let elements = nodes.into_iter().filter_map(|node| match node {
        // A client of another protocol is not to speak as the stream itself.
        Node::Element(child) if !child.ns.is_empty() && child.ns != ns::STREAM => Some(child),
        _ => None,
    });
    elements.collect()
}

/// An identifier as text, where XML can hold that.
fn legal_text(ident: &Ident) -> Option<String> {
    Some(ident_to_text(ident)).filter(|text| text.chars().all(is_legal))
}

/// The body as an element, by the first rule that fits.
fn payload(body: &[u8], props: &Properties, form: Form) -> (Option<Element>, Source) {
    let content_type = props.content_type.as_deref().unwrap_or_default();
    let bare = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_coded = props.content_encoding.as_deref().is_some_and(|encoding| {
        !encoding.eq_ignore_ascii_case("utf-8") && !encoding.eq_ignore_ascii_case("us-ascii")
    });
    let text = std::str::from_utf8(body).ok().filter(|text| text.chars().all(is_legal));
    let text = text.filter(|_| !is_coded);
    if body.is_empty() && content_type.is_empty() && props.text.is_none() {
        return (None, Source::Nothing);
    }
    let is_xml = bare == "application/xml" || bare == "text/xml" || bare.ends_with("+xml");
    if let Some(text) = text.filter(|_| is_xml)
        && let Ok(element) = xml::document(text, DEPTH_MAX)
        && !element.ns.is_empty()
        && element.ns != ns::CLIENT
    {
        return (Some(element), Source::Element);
    }
    let is_json = bare == "application/json" || bare.ends_with("+json");
    // A number or a word is JSON too; only what cannot be JSON goes on as bytes.
    if let Some(text) = text.filter(|text| is_json && is_json_text(text)) {
        return (Some(Element::new(ns::JSON, "json").text(text)), Source::Json);
    }
    let data = || {
        let said = props.content_type.clone().filter(|said| said.chars().all(is_legal));
        Element::new(ns::DATA, "data").maybe_attr("content-type", said)
    };
    let is_text = bare.starts_with("text/") || props.text == Some(true);
    match (text.filter(|_| is_text), form) {
        (Some(text), Form::Message) => {
            (Some(Element::new(ns::CLIENT, "body").text(text)), Source::Body)
        }
        (Some(text), Form::Item) => (Some(data().text(text)), Source::Text),
        (None, _) => {
            let coded = data().attr("encoding", "base64").text(BASE64_STANDARD.encode(body));
            (Some(coded), Source::Base64)
        }
    }
}

/// True when the text is one value of JSON.
fn is_json_text(text: &str) -> bool {
    polymq_model::carry::value_from_json(text).is_some()
}
