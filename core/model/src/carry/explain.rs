//! What becomes of each field of a message in another protocol, told by the writers themselves.

use super::{
    keys::{Field, GROUP_ID, Outcome, RETAIN},
    number::{expiry_shown_ms, remaining_ms, rfc3339_from_ms},
    text::{code_of, value_to_text},
    write::{MQTT5, STOMP10, STOMP11, STOMP12, TextTarget, Writing},
    write::{to_table_headers, to_text_headers},
};
use crate::{format, message::Message, properties::Properties, value::Value};

/// A protocol that a message may be delivered over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// AMQP 0-9-1.
    Amqp091,
    /// MQTT 3.1 and 3.1.1.
    Mqtt311,
    /// MQTT 5.
    Mqtt5,
    /// STOMP 1.0.
    Stomp10,
    /// STOMP 1.1.
    Stomp11,
    /// STOMP 1.2.
    Stomp12,
    /// JSON over HTTP and WebSocket.
    Http,
}

/// Each target with its name.
pub const TARGETS: [(&str, Target); 7] = [
    ("amqp091", Target::Amqp091),
    ("mqtt311", Target::Mqtt311),
    ("mqtt5", Target::Mqtt5),
    ("stomp10", Target::Stomp10),
    ("stomp11", Target::Stomp11),
    ("stomp12", Target::Stomp12),
    ("http", Target::Http),
];

/// One field of a message in another protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The canonical field, or `header <name>`.
    pub field: String,
    /// `kept`, `renamed`, `carried`, `rounded`, `retyped` or `dropped`.
    pub outcome: &'static str,
    /// Its name in the protocol; empty for a field that is dropped.
    pub shown_as: String,
    /// What the receiver sees, or what was dropped.
    pub value: String,
    /// Why it was dropped.
    pub why: Option<&'static str>,
}

/// A canonical field that the message has.
struct Said {
    name: &'static str,
    /// What carries it where there is no place for it.
    carried_by: Option<Field>,
    value: String,
}

/// What a writer has written into headers, and what it has left out.
#[derive(Default)]
struct Written {
    headers: Vec<(String, String, &'static str)>,
    dropped: Vec<(&'static str, Outcome)>,
}

/// Tells what becomes of each field that the message has.
///
/// Cost: that of writing the message once.
pub fn explain(message: &Message, target: Target, unix_ms: u64) -> Vec<Explained> {
    let props = message.properties();
    let unit_ms = if target == Target::Mqtt5 { 1000 } else { 1 };
    let shown_ms = expiry_shown_ms(message.deadline_ms(), unix_ms, unit_ms);
    let written = write(props, target, shown_ms);
    let mut said = said(message, unix_ms);
    // What the sender wrote of its expiry is a field of its own only where it is not what is shown.
    let has_ttl = !is_native(message, target)
        && shown_ms.is_some_and(|shown_ms| props.ttl_ms != Some(shown_ms));
    said.retain(|said| said.name != "ttl" || has_ttl);
    let mut lines: Vec<_> = said.into_iter().map(|said| field(said, target, &written)).collect();
    if let Some(shown_ms) = shown_ms
        && remaining_ms(message.deadline_ms(), unix_ms).is_some_and(|left| left != shown_ms)
        && let Some(line) = lines.iter_mut().find(|line| line.field == "expiration")
        && line.outcome != "dropped"
    {
        (line.outcome, line.value) = ("rounded", shown_ms.to_string());
    }
    lines.extend(props.headers.iter().map(|(name, value)| header(name, value, target, &written)));
    lines.extend(death(message, target));
    lines
}

/// The canonical fields that a message has, each with its value as text. Headers are no fields.
pub fn said_fields(message: &Message, unix_ms: u64) -> Vec<(&'static str, String)> {
    said(message, unix_ms).into_iter().map(|said| (said.name, said.value)).collect()
}

/// What has happened to a dead letter.
fn death(message: &Message, target: Target) -> Option<Explained> {
    let value = died_of(message)?;
    let (outcome, shown_as, why) = match target {
        Target::Amqp091 => ("kept", "x-death", None),
        Target::Http => ("kept", "death", None),
        Target::Mqtt311 => ("dropped", "", Some(Outcome::NoPlace.label())),
        Target::Mqtt5 | Target::Stomp10 | Target::Stomp11 | Target::Stomp12 => {
            ("retyped", "x-death", None)
        }
    };
    let (field, shown_as) = ("death".to_owned(), shown_as.to_owned());
    Some(Explained { field, outcome, shown_as, value, why })
}

/// Of what a dead letter died last, and where; `None` for other messages.
pub fn died_of(message: &Message) -> Option<String> {
    let death = message.annotations()?.deaths.first()?;
    Some(format!("{} in {}", death.reason, death.queue))
}

/// The name of a header that is a part of an XMPP stanza.
pub fn stanza_part(header: &str) -> Option<&'static str> {
    match Field::from_key(header)? {
        Field::Xmpp => Some("xmpp_children"),
        Field::XmppType => Some("xmpp_type"),
        Field::Lang => Some("xmpp_lang"),
        _ => None,
    }
}

/// True for a message that goes on as it came, with what is left of its expiry.
fn is_native(message: &Message, target: Target) -> bool {
    let native = match target {
        Target::Amqp091 => format::AMQP091,
        Target::Mqtt5 => format::MQTT5,
        Target::Stomp10 | Target::Stomp11 | Target::Stomp12 => format::STOMP,
        // JSON has a name for it, MQTT 3 for nothing.
        Target::Mqtt311 | Target::Http => return false,
    };
    message.format().id == native
}

fn write(props: &Properties, target: Target, expiry_shown_ms: Option<u64>) -> Written {
    let mut written = Written::default();
    let writing = Writing { expiry_shown_ms, ..Writing::default() };
    let Written { headers, dropped } = &mut written;
    let mut tell = |field, outcome| dropped.push((field, outcome));
    match target {
        Target::Amqp091 => {
            for (name, value) in to_table_headers(props, &writing, &mut tell) {
                headers.push((name, value_to_text(&value, |_| false).0, code_of(&value)));
            }
        }
        Target::Mqtt5 | Target::Stomp10 | Target::Stomp11 | Target::Stomp12 => {
            let texts = to_text_headers(props, text_target(target), &writing, &mut tell);
            headers.extend(texts.into_iter().map(|(name, text)| (name, text, "str")));
        }
        Target::Mqtt311 | Target::Http => {}
    }
    written
}

fn text_target(target: Target) -> &'static TextTarget {
    static TARGET_12: TextTarget = STOMP12;
    match target {
        Target::Stomp10 => &STOMP10,
        Target::Stomp11 => &STOMP11,
        Target::Stomp12 => &TARGET_12,
        _ => &MQTT5,
    }
}

/// The fields that the message has.
fn said(message: &Message, unix_ms: u64) -> Vec<Said> {
    let props = message.properties();
    let mut all = Vec::new();
    let mut add = |name, carried_by, value: Option<String>| {
        all.extend(value.map(|value| Said { name, carried_by, value }));
    };
    let ident = super::ident_to_text;
    let left = remaining_ms(message.deadline_ms(), unix_ms);
    add("durable", None, props.durable.map(|is| is.to_string()));
    add("priority", Some(Field::Priority), props.priority.map(|it| it.to_string()));
    add("expiration", None, left.map(|ms| ms.to_string()));
    add("ttl", Some(Field::Ttl), props.ttl_ms.map(|ms| ms.to_string()));
    add("content_type", None, props.content_type.clone());
    add("content_encoding", Some(Field::Encoding), props.content_encoding.clone());
    add("text", Some(Field::Text), props.text.map(|is| is.to_string()));
    add("message_id", Some(Field::Id), props.id.as_ref().map(ident));
    add("correlation_id", None, props.correlation.as_ref().map(ident));
    add("reply_to", Some(Field::ReplyTo), props.reply_to.as_ref().map(|to| to.to_text()));
    add("timestamp", Some(Field::Timestamp), props.timestamp_ms.map(rfc3339_from_ms));
    add("type", Some(Field::Type), props.kind.clone());
    add("user_id", Some(Field::User), props.user_id.clone());
    add("app_id", Some(Field::App), props.app_id.clone());
    add("group_id", None, props.group_id.clone());
    add("retain", None, props.retain.then(|| "true".to_owned()));
    add("qos", Some(Field::Qos), (props.qos == 2).then(|| "2".to_owned()));
    all
}

fn field(said: Said, target: Target, written: &Written) -> Explained {
    let Said { name, carried_by, value } = said;
    let line = |outcome, shown_as: &str, value, why| {
        let (field, shown_as) = (name.to_owned(), shown_as.to_owned());
        Explained { field, outcome, shown_as, value, why }
    };
    if let Some(carrier) = carried_by {
        let found = written.headers.iter().find(|(header, ..)| header == carrier.key());
        if let Some((key, text, _)) = found {
            return line("carried", key, text.clone(), None);
        }
        if let Some((_, why)) = written.dropped.iter().find(|(at, _)| *at == carrier.label()) {
            return line("dropped", "", value, Some(why.label()));
        }
    }
    match native_name(name, target) {
        Some(native) if native.replace('-', "_") == name => line("kept", native, value, None),
        Some(native) => line("renamed", native, value, None),
        None => line("dropped", "", value, Some(Outcome::NoPlace.label())),
    }
}

/// What the protocol itself calls a field.
fn native_name(field: &'static str, target: Target) -> Option<&'static str> {
    match target {
        Target::Amqp091 => Some(match field {
            "durable" => "delivery-mode",
            "priority" => "priority",
            "expiration" => "expiration",
            "content_type" => "content-type",
            "content_encoding" | "text" => "content-encoding",
            "message_id" => "message-id",
            "correlation_id" => "correlation-id",
            "reply_to" => "reply-to",
            "timestamp" => "timestamp",
            "type" => "type",
            "user_id" => "user-id",
            "app_id" => "app-id",
            "group_id" => GROUP_ID,
            "retain" => RETAIN,
            _ => return None,
        }),
        Target::Mqtt311 => Some(match field {
            "durable" | "qos" => "QoS",
            "retain" => "RETAIN",
            _ => return None,
        }),
        Target::Mqtt5 => Some(match field {
            "durable" | "qos" => "QoS",
            "retain" => "RETAIN",
            "expiration" => "Message Expiry Interval",
            "content_type" => "Content Type",
            "text" => "Payload Format Indicator",
            "correlation_id" => "Correlation Data",
            "reply_to" => "Response Topic",
            "group_id" => GROUP_ID,
            _ => return None,
        }),
        Target::Stomp10 | Target::Stomp11 | Target::Stomp12 => Some(match field {
            "durable" => "persistent",
            "priority" => "priority",
            "expiration" => "expiration",
            "content_type" => "content-type",
            "content_encoding" | "text" => "content-encoding",
            "message_id" => "amqp-message-id",
            "correlation_id" => "correlation-id",
            "reply_to" => "reply-to",
            "timestamp" => "timestamp",
            "type" => "type",
            "user_id" => "user-id",
            "app_id" => "app-id",
            "group_id" => "JMSXGroupID",
            "retain" => RETAIN,
            _ => return None,
        }),
        Target::Http if field == "durable" => Some("delivery_mode"),
        Target::Http => Some(field),
    }
}

fn header(name: &str, value: &Value, target: Target, written: &Written) -> Explained {
    let stanza_part = stanza_part(name);
    let field = stanza_part.map_or_else(|| format!("header {name}"), str::to_owned);
    let text = value_to_text(value, |_| false).0;
    let line = |outcome, shown_as: &str, value, why| {
        let (field, shown_as) = (field.clone(), shown_as.to_owned());
        Explained { field, outcome, shown_as, value, why }
    };
    match target {
        Target::Mqtt311 => return line("dropped", "", text, Some(Outcome::NoPlace.label())),
        Target::Http if stanza_part.is_none() => return line("kept", name, text, None),
        _ if stanza_part.is_some() => return line("carried", name, text, None),
        _ => {}
    }
    let has = |key: Field| written.headers.iter().any(|(known, ..)| known == key.key());
    let carried = |text| line("carried", Field::Extra.key(), text, None);
    let mut namesakes = written.headers.iter().filter(|(known, ..)| known == name).peekable();
    let Some((shown_as, shown, code)) = namesakes.peek() else {
        let why = written.dropped.iter().find(|(at, _)| *at == "header").map(|(_, why)| *why);
        return match why {
            None if has(Field::Extra) => carried(text),
            why => line("dropped", "", text, Some(why.unwrap_or(Outcome::NoPlace).label())),
        };
    };
    let (shown_as, shown, has_type) = (shown_as, shown.clone(), code_of(value) == *code);
    if namesakes.any(|(_, shown, code)| *shown == text && code_of(value) == *code) {
        return line("kept", name, text, None);
    }
    match has_type && has(Field::Extra) && !has(Field::Multi) {
        // The name is there for another one.
        true => carried(text),
        false => line("retyped", shown_as, shown, None),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        json_form::{NewJsonMessage, Sender},
        limits::Limits,
        message::Body,
    };

    const NOW_MS: u64 = 1_700_000_000_000;

    fn told(properties: serde_json::Value, target: Target) -> Vec<(String, &'static str, String)> {
        let new = NewJsonMessage {
            exchange: "",
            key: "q",
            properties: serde_json::from_value(properties).unwrap(),
            body: Body::Slice(b""),
            sender: Sender { user: "u", impersonator: false },
        };
        let (message, _) = new.build(NOW_MS, &Limits::default(), &mut Vec::new()).unwrap();
        let lines = explain(&message, target, NOW_MS).into_iter();
        lines.map(|line| (line.field, line.outcome, line.shown_as)).collect()
    }

    fn line(field: &str, outcome: &'static str, shown_as: &str) -> (String, &'static str, String) {
        (field.to_owned(), outcome, shown_as.to_owned())
    }

    #[test]
    fn each_field_of_the_message_has_a_line() {
        let said = json!({
            "priority": 7, "expiration": 1500, "content_type": "a/b", "type": "t",
            "headers": { "n": 5, "s": "x" },
        });
        assert_eq!(
            told(said.clone(), Target::Mqtt5),
            [
                line("durable", "renamed", "QoS"),
                line("priority", "carried", "x-mq-priority"),
                line("expiration", "rounded", "Message Expiry Interval"),
                line("ttl", "carried", "x-mq-ttl"),
                line("content_type", "renamed", "Content Type"),
                line("type", "carried", "x-mq-type"),
                line("header n", "retyped", "n"),
                line("header s", "kept", "s"),
            ]
        );
        assert_eq!(
            told(said.clone(), Target::Amqp091),
            [
                line("durable", "renamed", "delivery-mode"),
                line("priority", "kept", "priority"),
                line("expiration", "kept", "expiration"),
                line("content_type", "kept", "content-type"),
                line("type", "kept", "type"),
                line("header n", "kept", "n"),
                line("header s", "kept", "s"),
            ]
        );
        let lost = told(said.clone(), Target::Mqtt311);
        assert_eq!(lost.iter().filter(|line| line.1 == "dropped").count(), 6);
        let kept = told(said, Target::Http);
        assert_eq!(kept.iter().filter(|line| line.1 == "kept").count(), 6);
    }

    #[test]
    fn what_does_not_fit_is_extra_or_dropped() {
        let long = "n".repeat(300);
        let said = json!({ "headers": { (long.clone()): "x" } });
        let in_amqp = told(said, Target::Amqp091);
        assert!(in_amqp.contains(&line(&format!("header {long}"), "carried", "x-mq-extra")));
        let said = json!({ "app_id": "a\0b" });
        assert!(told(said, Target::Stomp12).contains(&line("app_id", "carried", "x-mq-app")));
    }
}
