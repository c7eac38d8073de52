//! `<properties xmlns='urn:polymq:properties:1'>`: fields and headers that XMPP has no place for.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use polymq_model::{
    Ident, Properties, Table, Value,
    carry::{
        Field, ident_from_text, ident_kind, ident_to_text, rfc3339_to_ms, value_from_text,
        value_to_text,
    },
};

use crate::xml::{Element, is_legal, ns};

/// The element of an entry.
pub(super) const ENTRY: &str = "p";

fn is_illegal(c: char) -> bool {
    !is_legal(c)
}

/// An entry: `f` for a field, `n` for a header.
fn entry(attribute: &'static str, name: &str, value: &Value) -> Element {
    let (text, code) = value_to_text(value, is_illegal);
    Element::new(ns::PROPERTIES, ENTRY).attr(attribute, name).maybe_attr("t", code).text(text)
}

/// A header as an entry; a name that XML cannot hold is base64.
pub(super) fn header(name: &str, value: &Value) -> Element {
    match name.contains(is_illegal) {
        true => entry("n64", &BASE64_STANDARD.encode(name), value),
        false => entry("n", name, value),
    }
}

/// True for a list of entries: our own, or the headers of XEP-0131.
fn is_list(child: &Element) -> bool {
    child.is(ns::PROPERTIES, "properties") || child.is(ns::SHIM, "headers")
}

/// The entries of a stanza.
fn entries(stanza: &Element) -> impl Iterator<Item = &Element> {
    entries_of(stanza.elements())
}

/// The entries among the children of a stanza.
fn entries_of<'a>(
    children: impl Iterator<Item = &'a Element>,
) -> impl Iterator<Item = &'a Element> {
    children.filter(|child| is_list(child)).flat_map(Element::elements)
}

/// True when one of these children of a stanza holds such an entry.
pub(super) fn has(children: &[Element], test: impl Fn(&Element) -> bool) -> bool {
    entries_of(children.iter()).any(test)
}

/// The name of the header that an entry is.
fn name_of(entry: &Element) -> Option<String> {
    match entry.get("n64").filter(|_| entry.ns == ns::PROPERTIES) {
        Some(text) => String::from_utf8(BASE64_STANDARD.decode(text).ok()?).ok(),
        None => entry.get(if entry.ns == ns::SHIM { "name" } else { "n" }).map(str::to_owned),
    }
}

/// The name of the field that an entry is.
pub(super) fn field_of(entry: &Element) -> Option<&str> {
    entry.get("f").filter(|_| entry.ns == ns::PROPERTIES)
}

/// What an entry says.
fn value_of(entry: &Element) -> Value {
    let text = entry.content();
    let typed = entry.get("t").and_then(|code| value_from_text(&text, code));
    typed.unwrap_or(Value::String(text))
}

/// True for an entry that says that the message comes from somebody else than `user`.
pub(super) fn is_foreign(entry: &Element, user: &str) -> bool {
    let names_user =
        field_of(entry) == Some("user_id") || is_named(entry, |name| name == Field::User.key());
    names_user && value_of(entry).as_str() != Some(user)
}

/// True for a header with such a name.
pub(super) fn is_named(entry: &Element, test: impl Fn(&str) -> bool) -> bool {
    name_of(entry).is_some_and(|name| test(&name))
}

/// An identifier that XML cannot hold, as text of its own.
fn illegal(ident: &Option<Ident>) -> Option<Value> {
    let text = ident.as_ref().map(ident_to_text)?;
    text.contains(is_illegal).then_some(Value::String(text))
}

/// A field as an entry.
pub(super) fn field(name: &str, value: &Value) -> Element {
    entry("f", name, value)
}

/// The entries of a message that came over another protocol. `implied` is what the form of its body
/// says already.
pub(super) fn write(
    props: &Properties,
    implied: (Option<&str>, Option<bool>),
    headers: &Table,
) -> Vec<Element> {
    let text = |text: &Option<String>| text.clone().map(Value::String);
    let said = |value: Option<Value>| Some(value.unwrap_or(Value::Null));
    let content_type = props.content_type.as_deref() != implied.0;
    let is_text = props.text != implied.1;
    // A thread is a text without saying so.
    let kind = props.correlation.as_ref().and_then(ident_kind).filter(|kind| *kind != "text");
    let fields = [
        ("id", illegal(&props.id)),
        ("correlation", illegal(&props.correlation)),
        ("content_type", said(text(&props.content_type)).filter(|_| content_type)),
        ("text", said(props.text.map(Value::Bool)).filter(|_| is_text)),
        ("content_encoding", text(&props.content_encoding)),
        ("durable", props.durable.is_none().then_some(Value::Null)),
        ("priority", props.priority.map(Value::U8)),
        ("ttl", props.ttl_ms.map(Value::U64)),
        ("timestamp", props.timestamp_ms.map(Value::Timestamp)),
        ("type", text(&props.kind)),
        ("user_id", text(&props.user_id)),
        ("app_id", text(&props.app_id)),
        ("group_id", text(&props.group_id)),
        ("qos", (props.qos == 2).then_some(Value::U8(2))),
        ("retain", props.retain.then_some(Value::Bool(true))),
        ("first_counts", props.first_counts.then_some(Value::Bool(true))),
        ("correlation_kind", kind.map(|kind| Value::String(kind.to_owned()))),
        ("reply_to", props.reply_to.as_ref().map(|address| Value::String(address.to_text()))),
    ];
    let fields = fields.into_iter().filter_map(|(name, value)| Some(field(name, &value?)));
    fields.chain(headers.iter().map(|(name, value)| header(name, value))).collect()
}

/// Reads the entries of a stanza: fields into `props`, headers into `headers`. Returns the kind of
/// the correlation.
pub(super) fn read(
    stanza: &Element,
    props: &mut Properties,
    headers: &mut Table,
) -> Option<String> {
    let mut kind = None;
    for entry in entries(stanza) {
        let value = value_of(entry);
        match (field_of(entry), name_of(entry)) {
            (Some("correlation_kind"), _) => kind = value.as_str().map(str::to_owned),
            (Some(name), _) => read_field(name, &value, props),
            (None, Some(name)) => headers.push((name, value)),
            (None, None) => {}
        }
    }
    kind
}

fn read_field(name: &str, value: &Value, props: &mut Properties) {
    let text = || value.as_str().map(str::to_owned);
    match name {
        "id" => props.id = text().map(|text| ident_from_text(&text, None)),
        "correlation" => props.correlation = text().map(|text| ident_from_text(&text, None)),
        "content_type" => props.content_type = text(),
        "text" => props.text = value.as_bool(),
        "durable" if *value == Value::Null => props.durable = None,
        "content_encoding" => props.content_encoding = text(),
        "priority" => props.priority = value.as_i64().and_then(|v| u8::try_from(v).ok()),
        "ttl" => props.ttl_ms = value.as_i64().and_then(|v| u64::try_from(v).ok()),
        "timestamp" => {
            props.timestamp_ms = match value {
                Value::Timestamp(ms) => Some(*ms),
                other => other.as_str().and_then(rfc3339_to_ms),
            }
        }
        "type" => props.kind = text(),
        "user_id" => props.user_id = text(),
        "app_id" => props.app_id = text(),
        "group_id" => props.group_id = text(),
        "qos" if value.as_i64() == Some(2) => props.qos = 2,
        "retain" => props.retain = value.as_bool() == Some(true),
        "first_counts" => props.first_counts = value.as_bool() == Some(true),
        _ => {}
    }
}

/// The headers of a stanza that has just come.
pub(super) fn headers(stanza: &Element) -> Table {
    let named = entries(stanza).filter_map(|entry| Some((name_of(entry)?, value_of(entry))));
    named.collect()
}

/// The text of a field of a stanza that has just come.
pub(super) fn find(stanza: &Element, name: &str) -> Option<Value> {
    entries(stanza).find(|entry| field_of(entry) == Some(name)).map(value_of)
}

/// Removes entries that a client may not write; returns how many.
pub(super) fn remove(stanza: &mut Element, is_wrong: impl Fn(&Element) -> bool) -> usize {
    let mut removed: usize = 0;
    for node in &mut stanza.nodes {
        let crate::xml::Node::Element(list) = node else { continue };
        if !is_list(list) {
            continue;
        }
        let before = list.nodes.len();
        list.nodes.retain(|node| match node {
            crate::xml::Node::Element(entry) => !is_wrong(entry),
            crate::xml::Node::Text(_) => true,
        });
        removed = removed.saturating_add(before.saturating_sub(list.nodes.len()));
    }
    removed
}
