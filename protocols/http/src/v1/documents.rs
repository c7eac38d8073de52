//! The bodies of the data plane, for the document.

use serde_json::{Value, json};

use crate::{
    api::{Kind, Parameter},
    schema::{Schema, Schemas, record},
};

const fn header(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    Parameter { name, kind, about }
}

/// The headers that are properties of a message.
pub(super) const PROPERTY_HEADERS: &[Parameter] = &[
    header("Mq-Message-Id", Kind::Text, "Message id."),
    header("Mq-Correlation-Id", Kind::Text, "Correlation id."),
    header("Mq-Reply-To", Kind::Text, "Where answers go, such as `/queues/replies`."),
    header("Mq-Type", Kind::Text, "The application's message type."),
    header("Mq-App-Id", Kind::Text, "The application."),
    header("Mq-User-Id", Kind::Text, "The sender; it must be the user who has logged in."),
    header("Mq-Group-Id", Kind::Text, "Message group."),
    header("Mq-Priority", Kind::Number, "Priority, 0 to 255."),
    header("Mq-Timestamp", Kind::Text, "The sender's clock: seconds since 1970, or RFC 3339."),
    header("Mq-Expiration", Kind::Number, "Milliseconds until the message expires."),
    header("Mq-Delay", Kind::Number, "Milliseconds until the message is routed."),
    header(
        "Mq-Persistent",
        Kind::Flag,
        "`false` for a message that need not survive; usual: true.",
    ),
    header("Mq-Retain", Kind::Flag, "Keep it as the last value of its topic."),
    header("Mq-Text", Kind::Flag, "The body is UTF-8 text, or it is not."),
    header("Mq-Qos", Kind::Number, "2 for the quality of service 2 of MQTT."),
    header("Mq-Headers", Kind::Text, "All headers of the message as one JSON object."),
];

record! {
    /// How a publish ended.
    Outcome {
        /// `stored`, `routed` (its queues have it), `unrouted` (no queue took it) or `refused`.
        outcome: String,
        /// A queue or subscriber took it.
        routed: bool,
        /// How many queues took it; subscribers without a queue do not count.
        queues: Option<u64>,
        /// Of a delayed message: under this id it waits in `/vhosts/{vhost}/scheduled`.
        schedule_id: Option<String>,
        /// The message's id, where it has one.
        id: Option<String>,
        /// Why it was refused.
        error: Option<Value>,
    }
}

record! {
    /// How publishes ended, in order.
    Outcomes {
        /// One for each message.
        results: Vec<Outcome>,
    }
}

record! {
    /// Receipts of leased messages.
    Receipts {
        /// The receipts.
        receipts: Vec<String>,
    }
}

record! {
    /// What came of a receipt.
    ReceiptResult {
        /// `ok`, `expired` (the lease has ended, or it was settled before) or `unknown`.
        outcome: String,
    }
}

record! {
    /// What came of receipts, in order.
    ReceiptsResult {
        /// One for each receipt.
        results: Vec<ReceiptResult>,
    }
}

/// Messages that were received.
pub(super) struct Messages;

impl Schema for Messages {
    fn schema(all: &mut Schemas) -> Value {
        let messages = json!({ "type": "array", "items": MessageDocument::schema(all) });
        json!({ "type": "object", "properties": { "messages": messages } })
    }
}

/// A message object, in both directions.
pub(crate) struct MessageDocument;

impl Schema for MessageDocument {
    fn schema(all: &mut Schemas) -> Value {
        all.named("Message", |all| {
            let properties = all.named("Properties", |_| properties_schema());
            json!({
                "type": "object",
                "description": "A message. What only the server writes is passed over when it is \
                                sent.",
                "properties": {
                    "exchange": { "type": "string", "description": "Empty is the default one." },
                    "routing_key": { "type": "string", "description": "In dot form." },
                    "properties": properties,
                    "payload": { "description": "The body, as `payload_encoding` says." },
                    "payload_encoding": {
                        "type": "string", "enum": ["string", "base64", "json"],
                        "description": "How the payload stands for the body.",
                    },
                    "receipt": { "type": "string", "description": "What to settle it with." },
                    "seq": { "type": "string", "description": "Position in the queue." },
                    "redelivered": { "type": "boolean" },
                    "delivery_count": { "type": "integer" },
                    "acquired_count": { "type": "integer" },
                    "death": { "type": "array", "items": { "type": "object" } },
                    "first_death": { "type": "object" },
                    "last_death": { "type": "object" },
                },
                "additionalProperties": false,
            })
        })
    }
}

/// A list of messages.
pub(super) fn messages_schema(all: &mut Schemas) -> Value {
    json!({
        "type": "array", "maxItems": 1000, "items": MessageDocument::schema(all),
    })
}

fn properties_schema() -> Value {
    let text = |about: &str| json!({ "type": "string", "description": about });
    let number = |about: &str| json!({ "type": "integer", "description": about });
    json!({
        "type": "object",
        "description": "What is said about a message; what is left out is unsaid.",
        "properties": {
            "content_type": text("MIME type of the body."),
            "content_encoding": text("Encoding of the body, which the server never applies."),
            "delivery_mode": { "type": "integer", "enum": [1, 2],
                "description": "2 is persistent, 1 transient; unsaid is 2." },
            "priority": { "type": "integer", "minimum": 0, "maximum": 255 },
            "message_id": text("Message id."),
            "correlation_id": text("Correlation id."),
            "correlation_kind": { "type": "string", "enum": ["text", "uuid", "ulong", "binary"] },
            "reply_to": text("Where answers go, such as `/queues/replies`."),
            "expiration": { "type": ["integer", "string"],
                "description": "Milliseconds until it expires." },
            "expires_at": text("When it expires (RFC 3339)."),
            "ttl": number("The expiry that the sender wrote, in ms."),
            "timestamp": number("The sender's clock, in seconds since 1970."),
            "timestamp_ms": number("The same in ms, where it is no whole second."),
            "type": text("The application's message type."),
            "user_id": text("The user the sender says it is."),
            "app_id": text("The application."),
            "group_id": text("Message group."),
            "text": { "type": "boolean", "description": "The body is UTF-8 text, or it is not." },
            "qos": number("2 for the quality of service 2 of MQTT."),
            "retain": { "type": "boolean", "description": "The last value of its topic." },
            "delay": number("Milliseconds until it is routed."),
            "headers": { "type": "object" },
            "header_list": { "type": "array", "items": { "type": "array" },
                "description": "Headers as pairs of name and value, where names repeat." },
            "header_types": { "type": "object", "additionalProperties": { "type": "string" },
                "description": "Types of headers that plain JSON cannot say, by JSON pointer." },
            "first_counts": { "type": "boolean",
                "description": "Of repeated names in `header_list` the first counts." },
        },
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use polymq_model::json_form::{IncomingMessage, PayloadEncoding};

    use super::*;

    /// The document names what is read: neither more nor less.
    #[test]
    fn message_document_is_what_is_read() {
        let mut all = Schemas::default();
        MessageDocument::schema(&mut all);
        let all = all.into_json();
        for name in all["Message"]["properties"].as_object().unwrap().keys() {
            let text = format!("{{\"{name}\":null}}");
            let read = serde_json::from_str::<IncomingMessage>(&text);
            let told = read.map(|_| ()).map_err(|error| error.to_string());
            assert!(!told.is_err_and(|text| text.contains("unknown field")), "{name}");
        }
        for name in all["Properties"]["properties"].as_object().unwrap().keys() {
            let text = format!("{{\"properties\":{{\"{name}\":null}}}}");
            let read = serde_json::from_str::<IncomingMessage>(&text);
            assert!(read.is_ok(), "{name}: {read:?}");
        }
        assert_eq!(serde_json::to_value(PayloadEncoding::Base64).unwrap(), "base64");
    }
}
