//! Heartbeats: one is sent when nothing else was for half the interval; two missed ones end the
//! connection.

use std::time::{Duration, Instant};

/// The clock of one connection's heartbeats.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heartbeat {
    interval: Duration,
    last_received: Instant,
    last_sent: Instant,
}

impl Heartbeat {
    /// No heartbeats, as before tuning.
    pub(crate) fn off(now: Instant) -> Self {
        Self { interval: Duration::ZERO, last_received: now, last_sent: now }
    }

    /// Starts with the agreed interval; zero means no heartbeats.
    pub(crate) fn start(&mut self, interval: Duration, now: Instant) {
        *self = Self { interval, last_received: now, last_sent: now };
    }

    /// Bytes came in.
    pub(crate) fn received(&mut self, now: Instant) {
        self.last_received = now;
    }

    /// Bytes go out.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.last_sent = now;
    }

    /// True when it is time to send one.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        !self.interval.is_zero() && now >= self.next_send()
    }

    /// True when the peer has missed two.
    pub(crate) fn is_peer_gone(&self, now: Instant) -> bool {
        !self.interval.is_zero() && now >= self.last_received + self.interval * 2
    }

    /// When to look again.
    pub(crate) fn next(&self) -> Option<Instant> {
        let gone = self.last_received + self.interval * 2;
        (!self.interval.is_zero()).then(|| self.next_send().min(gone))
    }

    fn next_send(&self) -> Instant {
        self.last_sent + self.interval / 2
    }
}
