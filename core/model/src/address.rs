//! Addresses of places inside the broker, as reply addresses carry them.

/// A place a message can be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A queue, by name.
    Queue(String),
    /// An exchange and a routing key in dot form.
    Exchange {
        /// The exchange.
        exchange: String,
        /// The key; `None` when the address has none.
        key: Option<String>,
    },
    /// An XMPP entity.
    Jid(String),
    /// Text that only the application understands.
    Opaque(String),
}
