//! A whole message as a JSON object.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{BadField, JsonProperties, Style};
use crate::{carry::is_text_encoding, message::Message};

/// How the payload of a JSON object stands for the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PayloadEncoding {
    /// The body is the text.
    #[default]
    String,
    /// The text is the base64 of the body.
    Base64,
    /// The body is the JSON that stands there, as it stands there.
    Json,
}

/// A message object that a client sends. Fields that only the broker writes are passed over, so
/// that a client may send on what it has received.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncomingMessage {
    /// The exchange.
    pub exchange: Option<String>,
    /// The routing key in dot form.
    pub routing_key: Option<String>,
    /// What is said about the message.
    #[serde(default)]
    pub properties: JsonProperties,
    /// The body.
    pub payload: Option<Box<RawValue>>,
    /// How it is written; unsaid is a text.
    #[serde(default)]
    pub payload_encoding: PayloadEncoding,
    #[serde(rename = "receipt")]
    _receipt: Option<IgnoredAny>,
    #[serde(rename = "seq")]
    _seq: Option<IgnoredAny>,
    #[serde(rename = "redelivered")]
    _redelivered: Option<IgnoredAny>,
    #[serde(rename = "delivery_count")]
    _delivery_count: Option<IgnoredAny>,
    #[serde(rename = "acquired_count")]
    _acquired_count: Option<IgnoredAny>,
    #[serde(rename = "death")]
    _death: Option<IgnoredAny>,
    #[serde(rename = "first_death")]
    _first_death: Option<IgnoredAny>,
    #[serde(rename = "last_death")]
    _last_death: Option<IgnoredAny>,
}

/// The bytes of a payload.
pub type Payload = Vec<u8>;

impl IncomingMessage {
    /// The body that the payload stands for; no payload is an empty body.
    ///
    /// Errors: the payload is not what its encoding says.
    pub fn body(&self) -> Result<Payload, BadField> {
        let Some(payload) = &self.payload else { return Ok(Vec::new()) };
        if self.payload_encoding == PayloadEncoding::Json {
            return Ok(payload.get().as_bytes().to_vec());
        }
        let text: Cow<'_, str> = serde_json::from_str::<BorrowedText<'_>>(payload.get())
            .map(|text| text.0)
            .map_err(|_| {
                let text = "it is no text; JSON has payload_encoding \"json\"";
                BadField::new("/payload", text)
            })?;
        match self.payload_encoding {
            PayloadEncoding::Base64 => STANDARD
                .decode(text.as_bytes())
                .map_err(|bad| BadField::new("/payload", format!("it is no base64: {bad}"))),
            PayloadEncoding::String | PayloadEncoding::Json => Ok(text.into_owned().into_bytes()),
        }
    }
}

#[derive(Deserialize)]
struct BorrowedText<'a>(#[serde(borrow)] Cow<'a, str>);

/// A number as text; one that is absent is not asked for.
fn as_text<S: serde::Serializer>(number: &Option<u64>, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(&number.unwrap_or_default())
}

/// A message object that a client receives.
#[derive(Debug, Serialize)]
pub struct Shown<'a> {
    /// What to settle it with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
    /// Its position in the queue, as text: the highest byte is the priority, and many readers of
    /// JSON lose numbers beyond 2^53.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text")]
    pub seq: Option<u64>,
    exchange: &'a str,
    routing_key: &'a str,
    properties: JsonProperties,
    payload: Cow<'a, str>,
    payload_encoding: PayloadEncoding,
    /// It has been delivered before.
    pub redelivered: bool,
    /// Failed deliveries.
    pub delivery_count: u16,
    /// Earlier deliveries that came back.
    pub acquired_count: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    death: Option<Vec<ShownDeath<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_death: Option<ShownRecord<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_death: Option<ShownRecord<'a>>,
}

/// A death of a message.
#[derive(Debug, Serialize)]
pub struct ShownDeath<'a> {
    queue: &'a str,
    reason: &'a str,
    count: u64,
    /// RFC 3339.
    time: String,
    exchange: &'a str,
    routing_keys: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    original_expiration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct ShownRecord<'a> {
    queue: &'a str,
    reason: &'a str,
    exchange: &'a str,
}

impl<'a> Shown<'a> {
    /// A message as it is now.
    pub fn new(message: &'a Message, unix_ms: u64, style: Style) -> Self {
        let annotations = message.annotations();
        let (payload, payload_encoding) = payload_text(message);
        let record = |record: &'a Option<(String, String, String)>| {
            let (queue, reason, exchange) = record.as_ref()?;
            Some(ShownRecord { queue, reason, exchange })
        };
        let deaths = annotations.map(|known| known.deaths.as_slice()).unwrap_or_default();
        let deaths: Vec<_> = deaths
            .iter()
            .map(|death| ShownDeath {
                queue: &death.queue,
                reason: &death.reason,
                count: death.count,
                time: JsonProperties::moment(death.time_ms),
                exchange: &death.exchange,
                routing_keys: &death.routing_keys,
                original_expiration: death.original_ttl_ms,
                detail: death.detail.as_deref(),
            })
            .collect();
        Self {
            receipt: None,
            seq: None,
            exchange: message.exchange(),
            routing_key: message.key(),
            properties: JsonProperties::of(message, unix_ms, style),
            payload,
            payload_encoding,
            redelivered: false,
            delivery_count: 0,
            acquired_count: 0,
            death: (!deaths.is_empty()).then_some(deaths),
            first_death: annotations.and_then(|known| record(&known.first_death)),
            last_death: annotations.and_then(|known| record(&known.last_death)),
        }
    }

    /// As JSON text.
    pub fn to_json(&self) -> String {
        // Writing to memory cannot fail, and every key is a string.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The body as a payload: a text where it is one and is not encoded, else base64.
pub fn payload_text(message: &Message) -> (Cow<'_, str>, PayloadEncoding) {
    let encoding = message.properties().content_encoding.as_deref();
    let is_plain = encoding.is_none() || is_text_encoding(encoding);
    match std::str::from_utf8(message.body()) {
        Ok(text) if is_plain => (Cow::Borrowed(text), PayloadEncoding::String),
        _ => (Cow::Owned(STANDARD.encode(message.body())), PayloadEncoding::Base64),
    }
}
