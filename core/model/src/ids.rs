//! Numbers that name things inside one broker.

use std::time::Instant;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($kind:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $kind);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// One client connection; never reused while the process lives.
    ConnectionId(u64)
}
number! {
    /// A consumer of one connection. The protocol session chooses it, unique within its connection.
    ConsumerId(u32)
}
number! {
    /// A source of numbered publishes within one connection: a channel in AMQP, 0 in MQTT.
    PublisherId(u32)
}
number! {
    /// Ties a command to its answer; chosen by the protocol session.
    RequestId(u32)
}
number! {
    /// The position the core gives a message in its log. It only grows; a gap means "gone".
    Seq(u64)
}
number! {
    /// A log of the store. Never reused.
    LogId(u32)
}
number! {
    /// A durable client session, or a connection that has none; tells "mine" for no-local.
    ClientNumber(u64)
}

impl Seq {
    /// The position after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The present, handed in from outside so that a replay sees the same times.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Steady time, for timers.
    pub instant: Instant,
    /// Wall time in milliseconds since 1970, for expiry and display only.
    pub unix_ms: u64,
}
