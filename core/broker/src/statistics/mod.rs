//! What has happened to messages, counted where it happens, and samples of it for rates.
//!
//! A queue counts under its own lock; exchanges and channels count with one relaxed addition for
//! each run of messages. Nothing is sampled unless somebody has asked lately.

mod queues;
mod ring;
mod sampler;

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

pub(crate) use queues::{Counted, QueueSum, QueueSums};
pub(crate) use ring::{Ring, Tiers};
pub use ring::{Sample, Span};
pub(crate) use sampler::Sampling;
pub use sampler::Summary;

macro_rules! activity {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// What has happened to messages of a queue, an exchange, a channel, a virtual host or the
        /// whole broker. Every number only grows; what an object cannot have is 0.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Activity {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl Activity {
            /// Names and values, in a fixed order.
            pub fn read(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field),)*]
            }

            /// Takes what one part of a sum has become for what it was.
            pub(crate) fn replace(&mut self, was: &Self, is: &Self) {
                $(self.$field = self.$field.wrapping_add(is.$field).wrapping_sub(was.$field);)*
            }
        }

        impl std::ops::AddAssign for Activity {
            fn add_assign(&mut self, other: Self) {
                $(self.$field = self.$field.saturating_add(other.$field);)*
            }
        }

        /// The same numbers, for several threads.
        #[derive(Debug, Default)]
        pub(crate) struct ActivityCounters {
            $(pub(crate) $field: AtomicU64,)*
        }

        impl ActivityCounters {
            pub(crate) fn read(&self) -> Activity {
                Activity { $($field: self.$field.load(Ordering::Relaxed),)* }
            }

            /// Adds what is not 0.
            pub(crate) fn add(&self, more: &Activity) {
                $(crate::counters::add(&self.$field, more.$field);)*
            }
        }
    };
}

activity! {
    /// Messages that clients have published; those that came into a queue.
    published,
    /// Messages that an exchange has handed to queues, each queue counted.
    published_out,
    /// Publishes that were confirmed.
    confirmed,
    /// Mandatory messages that went back to their publishers.
    returned,
    /// Other messages that nobody was there to take.
    dropped,
    /// Deliveries to consumers that acknowledge.
    delivered,
    /// Deliveries to consumers that do not.
    delivered_no_ack,
    /// Messages that were got one by one and are to be acknowledged.
    got,
    /// Messages that were got one by one and are not.
    got_no_ack,
    /// Gets that found nothing.
    got_empty,
    /// Deliveries of messages that had been delivered before; they count above as well.
    redelivered,
    /// Deliveries that were acknowledged.
    acknowledged,
}

impl Activity {
    /// Messages that have left towards clients in any way.
    pub fn delivered_in_any_way(&self) -> u64 {
        self.delivered + self.delivered_no_ack + self.got + self.got_no_ack
    }
}

/// Bytes of connections that have gone.
#[derive(Debug, Default)]
pub(crate) struct PastTraffic {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl PastTraffic {
    pub(crate) fn add(&self, bytes_in: u64, bytes_out: u64) {
        crate::counters::add(&self.bytes_in, bytes_in);
        crate::counters::add(&self.bytes_out, bytes_out);
    }

    /// Bytes received and bytes sent.
    pub(crate) fn read(&self) -> (u64, u64) {
        (self.bytes_in.load(Ordering::Relaxed), self.bytes_out.load(Ordering::Relaxed))
    }
}

/// What is known of an exchange beside what it was declared with.
#[derive(Debug, Default)]
pub(crate) struct ExchangeStatistics {
    pub(crate) counters: ActivityCounters,
    pub(crate) history: Mutex<Ring>,
}
