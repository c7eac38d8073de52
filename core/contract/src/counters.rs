//! What a protocol counts of all its sessions. Counters only grow; rates are derived by whoever
//! reads them.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{conversions::Conversions, output::Output};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds when there is something to add, so that idle counters stay out of the cache.
    pub fn add(&self, count: usize) {
        if count > 0 {
            self.0.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// The number.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What one protocol counts, beside what the broker counts of it. Every protocol has all of
        /// them; those that it has no use for stay 0.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: Counter,)*
            /// Messages that change their form, and what they lose.
            pub conversions: Conversions,
        }

        impl Counters {
            /// Every counter by name, in a fixed order.
            pub fn read(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.value()),)*]
            }
        }
    };
}

counters! {
    /// Frames, packets or stanzas that clients sent.
    frames_in,
    /// Frames, packets or stanzas for clients.
    frames_out,
    /// Connections or channels closed for an error of the client.
    faults,
    /// Publishes that were accepted and dropped, because the protocol version cannot say no.
    publishes_dropped,
    /// Deliveries that the client's limit did not allow.
    too_large,
    /// Messages that nobody was there for and that are not kept.
    not_kept,
    /// Streams that went on over another connection.
    resumed,
}

impl Counters {
    /// Notes what one call of a session has read and written.
    #[inline]
    pub fn moved(&self, frames_in: usize, out: &mut Output) {
        self.frames_in.add(frames_in);
        self.frames_out.add(out.take_frames());
    }
}
