//! Monotonic counters. Rates are derived by whoever reads them.

use std::sync::atomic::{AtomicU64, Ordering};

use polymq_contract::RefusalKind;

/// The protocols that have counters of their own; anything else counts as the last.
pub const PROTOCOLS: [&str; 7] = ["amqp", "mqtt", "stomp", "xmpp", "http", "json", "other"];

macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: AtomicU64,)*
        }

        impl $name {
            /// Names and values, in a fixed order.
            pub fn read(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field.load(Ordering::Relaxed)),)*]
            }
        }
    };
}

counters! {
    /// Counters of one protocol.
    ProtocolCounters {
        /// Connections accepted.
        connections_opened,
        /// Connections gone.
        connections_closed,
        /// Messages published by clients.
        messages_received,
        /// Bytes of their bodies.
        bytes_received,
        /// Publishes confirmed.
        messages_confirmed,
        /// Messages handed to clients, direct ones included.
        messages_delivered,
        /// Deliveries acknowledged.
        messages_acknowledged,
        /// Deliveries returned.
        messages_returned,
        /// Deliveries rejected.
        messages_rejected,
        /// Messages no queue or subscriber took.
        messages_unrouted,
        /// Publishes refused.
        publishes_refused,
        /// Logins that succeeded.
        logins,
        /// Logins that failed.
        logins_failed,
    }
}

counters! {
    /// Counters of the whole broker.
    TotalCounters {
        /// Messages sent to direct subscribers and to those who wait for a reply, without a queue.
        delivered_direct,
        /// Messages dropped because they expired.
        dropped_expired,
        /// Messages dropped because a queue was full.
        dropped_maxlen,
        /// Messages rejected by consumers and not dead-lettered.
        dropped_rejected,
        /// Messages not delivered because the user may not read their topic.
        dropped_permission,
        /// Direct deliveries dropped because the subscriber was too slow.
        dropped_slow_consumer,
        /// Dead letters that no queue took.
        dead_letter_unroutable,
        /// Messages dead-lettered.
        dead_lettered,
        /// Those of them that had expired.
        dead_lettered_expired,
        /// Those for which their queue was too full.
        dead_lettered_maxlen,
        /// Those that were rejected.
        dead_lettered_rejected,
        /// Those that had been delivered too often.
        dead_lettered_delivery_limit,
        /// Delayed messages that were routed when they were due.
        delayed_released,
        /// Delayed messages that no queue or subscriber took when they were due.
        delayed_unroutable,
        /// Queues declared.
        queues_created,
        /// Queues deleted.
        queues_deleted,
        /// Wills published.
        wills_published,
        /// Channels opened, of protocols that have them.
        channels_opened,
        /// Such channels that are gone.
        channels_closed,
        /// Publishes that asked for a confirm.
        publishes_to_confirm,
    }
}

/// The upper bounds, in bytes, of the classes by which the sizes of bodies are counted; larger
/// ones are a class of their own.
pub const SIZE_BOUNDS: [usize; 8] =
    [100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 50_000_000, 100_000_000];
/// How many classes there are.
pub(crate) const SIZE_CLASSES: usize = SIZE_BOUNDS.len() + 1;

/// The class of a body of so many bytes.
#[inline]
pub(crate) fn size_class(bytes: usize) -> usize {
    SIZE_BOUNDS.iter().take_while(|bound| bytes > **bound).count()
}

/// All counters.
#[derive(Debug, Default)]
pub struct Counters {
    protocols: [ProtocolCounters; PROTOCOLS.len()],
    sizes: [AtomicU64; SIZE_CLASSES],
    /// Counters of the whole broker.
    pub total: TotalCounters,
    /// Refusals told to clients, in the order of [`RefusalKind::ALL`].
    refusals: [AtomicU64; RefusalKind::ALL.len()],
}

impl TotalCounters {
    /// A message has gone to a dead letter exchange, for this reason.
    pub(crate) fn note_dead_letter(&self, reason: &str) {
        add(&self.dead_lettered, 1);
        let of_reason = match reason {
            "expired" => &self.dead_lettered_expired,
            "maxlen" => &self.dead_lettered_maxlen,
            "rejected" => &self.dead_lettered_rejected,
            "delivery_limit" => &self.dead_lettered_delivery_limit,
            _ => return,
        };
        add(of_reason, 1);
    }
}

impl Counters {
    /// The counters of a protocol.
    pub fn protocol(&self, name: &str) -> &ProtocolCounters {
        &self.protocols[protocol_index(name)]
    }

    /// Messages published by clients, by the class of the size of their bodies: one number for each
    /// of [`SIZE_BOUNDS`], and one for those beyond.
    pub fn sizes(&self) -> [u64; SIZE_CLASSES] {
        std::array::from_fn(|class| self.sizes[class].load(Ordering::Relaxed))
    }

    pub(crate) fn add_sizes(&self, sizes: &[u32; SIZE_CLASSES]) {
        for (counter, count) in self.sizes.iter().zip(sizes) {
            add(counter, u64::from(*count));
        }
    }

    /// Requests and publishes of clients that were refused, by kind.
    pub fn refusals(&self) -> impl Iterator<Item = (RefusalKind, u64)> {
        let counts = self.refusals.iter().map(|count| count.load(Ordering::Relaxed));
        RefusalKind::ALL.into_iter().zip(counts)
    }

    pub(crate) fn add_refusals(&self, kind: RefusalKind, count: u64) {
        let place = RefusalKind::ALL.iter().position(|known| *known == kind);
        if let Some(counter) = place.and_then(|place| self.refusals.get(place)) {
            add(counter, count);
        }
    }

    pub(crate) fn at(&self, index: usize) -> &ProtocolCounters {
        &self.protocols[index.min(PROTOCOLS.len() - 1)]
    }
}

pub(crate) fn protocol_index(name: &str) -> usize {
    PROTOCOLS.iter().position(|known| *known == name).unwrap_or(PROTOCOLS.len() - 1)
}

/// Adds when there is something to add, so that idle counters stay out of the cache.
pub(crate) fn add(counter: &AtomicU64, count: u64) {
    if count > 0 {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_in_the_class_whose_bound_it_reaches() {
        let sizes = [0, 100, 101, 1_000, 100_000_000, 100_000_001];
        assert_eq!(sizes.map(size_class), [0, 0, 1, 1, 7, 8]);
    }
}
