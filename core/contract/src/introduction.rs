//! What people are shown of a connection.

use std::sync::atomic::{AtomicU64, Ordering};

use polymq_model::Table;

/// What a session knows of its client, for people who look at connections.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Introduction {
    /// Protocol and version as people call them: `AMQP 0-9-1`.
    pub protocol: &'static str,
    /// How the client has logged in: a SASL mechanism, or empty.
    pub mechanism: String,
    /// What the client says about itself.
    pub client_properties: Table,
    /// Its client id, where the protocol has one.
    pub client_id: String,
    /// The channels it may have; 0 where the protocol has none.
    pub channels_max: u16,
    /// The largest frame, in bytes; 0 where there is no such bound.
    pub frame_bytes_max: u32,
    /// Heartbeat or keep-alive in seconds, 0 for none.
    pub heartbeat_secs: u32,
}

/// What has gone over the socket of a connection. Only its task counts.
#[derive(Debug, Default)]
pub struct Traffic {
    bytes_in: AtomicU64,
    reads: AtomicU64,
    bytes_out: AtomicU64,
    writes: AtomicU64,
}

/// The traffic at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrafficCounts {
    /// Bytes received.
    pub bytes_in: u64,
    /// Reads that brought them.
    pub reads: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Writes that sent them.
    pub writes: u64,
}

impl Traffic {
    /// Counts a read.
    #[inline]
    pub fn received(&self, bytes: usize) {
        count(&self.bytes_in, bytes);
        count(&self.reads, 1);
    }

    /// Counts a write.
    #[inline]
    pub fn sent(&self, bytes: usize) {
        count(&self.bytes_out, bytes);
        count(&self.writes, 1);
    }

    /// Reads all counters.
    pub fn counts(&self) -> TrafficCounts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TrafficCounts {
            bytes_in: load(&self.bytes_in),
            reads: load(&self.reads),
            bytes_out: load(&self.bytes_out),
            writes: load(&self.writes),
        }
    }
}

/// One thread writes, so an addition needs no lock of the memory bus.
#[inline]
fn count(counter: &AtomicU64, more: usize) {
    let more = u64::try_from(more).unwrap_or(u64::MAX);
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}
