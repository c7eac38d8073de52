//! The properties of a message as JSON.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};

use super::headers::{HeaderTable, Style};
use crate::{
    carry::{Field, expiry_shown_ms, ident_kind, ident_to_text, rfc3339_from_ms, seconds_down},
    delay::DELAY_HEADER,
    message::Message,
    value::Table,
};

/// Properties under the names that RabbitMQ gives them, and those that it has no name for. What is
/// `None` is unsaid.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct JsonProperties {
    /// MIME type of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Encoding of the body; the broker never applies it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// 2 is persistent, 1 is transient; unsaid is 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery_mode: Option<u8>,
    /// Priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Message id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// Correlation id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// What it is when it is no text: `uuid`, `ulong`, `binary` or `text`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_kind: Option<String>,
    /// Where answers go: `/queues/<name>`, `/exchanges/<exchange>/<key>`, `/jids/<jid>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// Milliseconds until the message expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<Millis>,
    /// When the message expires (RFC 3339); the earlier of the two counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// The expiry that the sender wrote, in ms, where `expiration` shows what is left of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u64>,
    /// The sender's clock, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
    /// The sender's clock in ms, where it is no whole second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp_ms: Option<i64>,
    /// The application's message type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// The user the sender says it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_id: Option<String>,
    /// Message group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_id: Option<String>,
    /// The sender asserts that the body is UTF-8 text, or that it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<bool>,
    /// Quality of service 2 of MQTT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos: Option<u8>,
    /// Kept as the last value of its topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retain: Option<bool>,
    /// Milliseconds after which the message is routed; below 0 in messages that were delayed, which
    /// delays nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<i64>,
    /// Headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<HeaderTable>,
    /// Headers as pairs of name and value, where names repeat.
    #[serde(skip_serializing_if = "Option::is_none", with = "super::headers::pairs")]
    pub header_list: Option<HeaderTable>,
    /// Types of headers that plain JSON cannot say, by JSON pointer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header_types: Option<BTreeMap<String, String>>,
    /// Of repeated names in `header_list` the first counts, and nobody reads the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_counts: Option<bool>,
}

impl JsonProperties {
    /// The properties of a message of any protocol, as they are now.
    pub fn of(message: &Message, unix_ms: u64, style: Style) -> Self {
        let props = message.properties();
        let shown = expiry_shown_ms(message.deadline_ms(), unix_ms, 1);
        let whole = props.timestamp_ms.filter(|ms| *ms >= 0 && ms % 1000 == 0);
        let seconds = props.timestamp_ms.and_then(seconds_down);
        let mut headers = props.headers.clone();
        let delayed = message.annotations().and_then(|known| known.delayed.as_ref());
        headers.retain(|(name, _)| delayed.is_none() || name != DELAY_HEADER);
        let (headers, header_list, header_types) = told(headers, style);
        Self {
            content_type: props.content_type.clone(),
            content_encoding: props.content_encoding.clone(),
            delivery_mode: Some(if message.is_durable() { 2 } else { 1 }),
            priority: props.priority,
            message_id: props.id.as_ref().map(ident_to_text),
            correlation_id: props.correlation.as_ref().map(ident_to_text),
            correlation_kind: props.correlation.as_ref().and_then(ident_kind).map(str::to_owned),
            reply_to: props.reply_to.as_ref().map(crate::address::Address::to_text),
            expiration: shown.map(Millis),
            expires_at: None,
            ttl: shown.and(props.ttl_ms).filter(|ttl| Some(*ttl) != shown),
            timestamp: seconds.and_then(|secs| i64::try_from(secs).ok()),
            timestamp_ms: props.timestamp_ms.filter(|_| whole.is_none()),
            r#type: props.kind.clone(),
            user_id: props.user_id.clone(),
            app_id: props.app_id.clone(),
            group_id: props.group_id.clone(),
            text: props.text,
            qos: (props.qos == 2).then_some(2),
            retain: props.retain.then_some(true),
            delay: delayed.map(|one| -i64::try_from(one.delay_ms).unwrap_or(i64::MAX)),
            headers,
            header_list,
            header_types,
            first_counts: props.first_counts.then_some(true),
        }
    }

    /// The names that [`JsonProperties`] may have for a carried field, for people who ask where it
    /// went.
    pub fn name_of(field: Field) -> Option<&'static str> {
        Some(match field {
            Field::Id => "message_id",
            Field::Encoding => "content_encoding",
            Field::Text => "text",
            Field::Qos => "qos",
            Field::Priority => "priority",
            Field::Ttl => "ttl",
            Field::Timestamp => "timestamp_ms",
            Field::Type => "type",
            Field::User => "user_id",
            Field::App => "app_id",
            Field::CorrelationKind => "correlation_kind",
            Field::ReplyTo => "reply_to",
            Field::Multi => "header_list",
            Field::Types => "header_types",
            Field::Extra | Field::Xmpp | Field::XmppType | Field::Lang => return None,
        })
    }

    /// The moment at which it expires, as RFC 3339 has it.
    pub fn moment(unix_ms: u64) -> String {
        rfc3339_from_ms(i64::try_from(unix_ms).unwrap_or(i64::MAX))
    }
}

type Told = (Option<HeaderTable>, Option<HeaderTable>, Option<BTreeMap<String, String>>);

/// Headers as a map, or as a list when names repeat, and their types.
fn told(table: Table, style: Style) -> Told {
    if table.is_empty() {
        return (None, None, None);
    }
    let headers = HeaderTable { table, style };
    let is_list = headers.has_repeats();
    let types = (style == Style::Bare).then(|| headers.types(is_list));
    let types = types.filter(|types| !types.is_empty());
    match is_list {
        true => (None, Some(headers), types),
        false => (Some(headers), None, types),
    }
}

/// Milliseconds; read from a number or from decimal text, as RabbitMQ has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Millis(pub u64);

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Numbers;
        impl Visitor<'_> for Numbers {
            type Value = Millis;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number of milliseconds")
            }

            fn visit_u64<E>(self, v: u64) -> Result<Millis, E> {
                Ok(Millis(v))
            }

            fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<Millis, E> {
                u64::try_from(v).map(Millis).map_err(|_| E::custom("less than 0 milliseconds"))
            }

            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<Millis, E> {
                let digits = !v.is_empty() && v.bytes().all(|byte| byte.is_ascii_digit());
                let number = digits.then(|| v.parse().ok()).flatten().map(Millis);
                number.ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(v), &self))
            }
        }
        input.deserialize_any(Numbers)
    }
}
