//! What becomes of each field of a message in a stanza, read off the stanza that would be sent.

use polymq_model::{
    Message, Value,
    carry::{Explained, died_of, said_fields, stanza_part, value_to_text},
    format,
};

use super::{
    fields::{self, ENTRY},
    render::{Form, Rendered, Shown, render},
};
use crate::{jid::Domains, xml::ns};

/// Tells what becomes of each field that the message has, as the message of a queue.
///
/// Cost: that of writing the message once.
pub(crate) fn explain(message: &Message, unix_ms: u64, domains: &Domains) -> Vec<Explained> {
    let rendered = render(message, Form::Message, &Shown::default(), domains);
    let fields = said_fields(message, unix_ms).into_iter();
    let mut lines: Vec<_> =
        fields.map(|(name, value)| field(name, value, message, &rendered)).collect();
    let headers = message.properties().headers.iter();
    lines.extend(headers.map(|(name, value)| header(name, value, message, &rendered)));
    lines.extend(died_of(message).map(|value| line("death", "retyped", "<p n='x-death'>", value)));
    lines
}

fn line(field: &str, outcome: &'static str, shown_as: &str, value: String) -> Explained {
    let (field, shown_as) = (field.to_owned(), shown_as.to_owned());
    let why = (outcome == "dropped").then_some("no_place");
    Explained { field, outcome, shown_as, value, why }
}

fn field(name: &'static str, value: String, message: &Message, rendered: &Rendered) -> Explained {
    let entry = match name {
        "message_id" => "id",
        "correlation_id" => "correlation",
        other => other,
    };
    if fields::has(&rendered.rest, |one| fields::field_of(one) == Some(entry)) {
        return line(name, "kept", &format!("<{ENTRY} f='{entry}'>"), value);
    }
    let child = |ns: &str, name: &str| rendered.rest.iter().any(|child| child.is(ns, name));
    let shown_as = match name {
        "message_id" if rendered.id.is_some() => "id",
        "message_id" if child(ns::ORIGIN_ID, "origin-id") => "<origin-id>",
        "correlation_id" if child(ns::CLIENT, "thread") => "<thread>",
        "reply_to" if rendered.reply_to.is_some() => "<address type='replyto'>",
        "expiration" if child(ns::AMP, "amp") => "<amp> expire-at",
        // What nothing is said about is stored.
        "durable" if message.is_durable() => "<message>",
        "durable" if rendered.rest.iter().any(|child| child.ns == ns::HINTS) => "<no-store>",
        // The form of the body says both.
        "content_type" | "text" => match &rendered.payload {
            Some(payload) => return line(name, "renamed", &format!("<{}>", payload.name), value),
            None => return elsewhere(name, value, message),
        },
        _ => return elsewhere(name, value, message),
    };
    line(name, "renamed", shown_as, value)
}

fn header(name: &str, value: &Value, message: &Message, rendered: &Rendered) -> Explained {
    let (text, _) = value_to_text(value, |_| false);
    if let Some(part) = stanza_part(name) {
        return line(part, "kept", "<message>", text);
    }
    let field = format!("header {name}");
    let is_subject = |one: &crate::xml::Element| one.is(ns::CLIENT, "subject");
    if name == "subject" && rendered.rest.iter().any(is_subject) {
        return line(&field, "renamed", "<subject>", text);
    }
    if fields::has(&rendered.rest, |one| fields::is_named(one, |known| known == name)) {
        return line(&field, "kept", &format!("<{ENTRY} n='{name}'>"), text);
    }
    elsewhere(&field, text, message)
}

/// What no place was found for. Stanzas go on as they came, whatever was read from them.
fn elsewhere(field: &str, value: String, message: &Message) -> Explained {
    match message.format().id {
        format::XMPP => line(field, "kept", "<message>", value),
        _ => line(field, "dropped", "", value),
    }
}
