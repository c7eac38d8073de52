//! What the driver has done since it started.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::ending::Ending;

/// Counters that only grow, apart from `open`. Rates are for the reader to derive.
#[derive(Debug, Default)]
pub struct DriverCounters {
    accepted: AtomicU64,
    refused: AtomicU64,
    too_fast: AtomicU64,
    open: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    accept_errors: AtomicU64,
    endings: [AtomicU64; Ending::WORDS.len()],
}

/// The counters at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CounterValues {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections closed at once because there were too many.
    pub refused: u64,
    /// Connections closed at once because their address opens too many a second.
    pub too_fast: u64,
    /// Connections that are open now, with those that have not logged in.
    pub open: u64,
    /// Bytes received. A connection adds its own now and then, and at its end.
    pub bytes_in: u64,
    /// Bytes sent, added likewise.
    pub bytes_out: u64,
    /// Times that the system refused to accept, as for want of file descriptors.
    pub accept_errors: u64,
    /// Connections ended, by cause.
    pub closed: Vec<(&'static str, u64)>,
}

impl CounterValues {
    /// Connections that ended for `cause`.
    pub fn closed_by(&self, cause: &str) -> u64 {
        self.closed.iter().find(|(word, _)| *word == cause).map_or(0, |(_, count)| *count)
    }
}

impl DriverCounters {
    /// Reads all counters.
    pub fn values(&self) -> CounterValues {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CounterValues {
            accepted: load(&self.accepted),
            refused: load(&self.refused),
            too_fast: load(&self.too_fast),
            open: load(&self.open),
            bytes_in: load(&self.bytes_in),
            bytes_out: load(&self.bytes_out),
            accept_errors: load(&self.accept_errors),
            closed: Ending::WORDS.into_iter().zip(self.endings.iter().map(load)).collect(),
        }
    }

    /// Counts a connection in and returns how many are open with it.
    pub(crate) fn opened(&self) -> u64 {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Counts a connection out and returns how many are left.
    pub(crate) fn closed(&self) -> u64 {
        self.open.fetch_sub(1, Ordering::AcqRel).saturating_sub(1)
    }

    pub(crate) fn open(&self) -> u64 {
        self.open.load(Ordering::Acquire)
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn too_fast(&self) {
        self.too_fast.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn accept_failed(&self) {
        self.accept_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn ended(&self, ending: &Ending) {
        if let Some(counter) = self.endings.get(ending.index()) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn moved(&self, bytes_in: u64, bytes_out: u64) {
        self.bytes_in.fetch_add(bytes_in, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes_out, Ordering::Relaxed);
    }
}
