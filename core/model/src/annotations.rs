//! What the broker writes about a message.

/// What the broker itself knows about a message. Clients cannot write it.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Annotations {
    /// Dead-letter record, newest first, one entry per queue and reason.
    pub deaths: Vec<Death>,
    /// Queue, reason and exchange of the first death.
    pub first_death: Option<(String, String, String)>,
    /// Queue, reason and exchange of the latest death.
    pub last_death: Option<(String, String, String)>,
    /// How the message was delayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delayed: Option<Delayed>,
}

/// How a message was delayed.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Delayed {
    /// When it is, or was, to be routed, in ms since 1970.
    pub due_ms: u64,
    /// How long that was after it was published, in ms.
    pub delay_ms: u64,
    /// The client id of its publisher, for subscriptions that want nothing of their own client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publisher: Option<String>,
}

/// One entry of the dead-letter record.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Death {
    /// The queue in which the message died.
    pub queue: String,
    /// `rejected`, `expired`, `maxlen`, `delivery_limit` or `too_large`.
    pub reason: String,
    /// How often it died there for this reason.
    pub count: u64,
    /// When it last died there, in ms since 1970.
    pub time_ms: u64,
    /// The exchange it had been published to.
    pub exchange: String,
    /// The routing keys it had been published with.
    pub routing_keys: Vec<String>,
    /// The expiry it had, in ms; the dead letter has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_ttl_ms: Option<u64>,
    /// Why, in the words of the consumer that gave it back last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}
