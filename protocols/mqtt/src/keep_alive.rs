//! The three clocks of a connection: login, keep alive, and the time a refused publish of MQTT 3 is
//! held.

use std::time::{Duration, Instant};

use polymq_contract::Timeout;

/// The clocks of one connection.
#[derive(Debug)]
pub(crate) struct KeepAlive {
    login_until: Instant,
    last_packet: Instant,
    /// One and a half keep alive intervals [MQTT-3.1.2-22].
    silence_max: Option<Duration>,
    is_paused: bool,
    stalled_until: Option<Instant>,
}

impl KeepAlive {
    pub(crate) fn new(now: Instant, login: Duration) -> Self {
        Self {
            login_until: now + login,
            last_packet: now,
            silence_max: None,
            is_paused: false,
            stalled_until: None,
        }
    }

    /// Starts the keep alive with the interval that holds; 0 switches it off.
    pub(crate) fn start(&mut self, secs: u16, now: Instant) {
        self.last_packet = now;
        self.silence_max = (secs > 0).then(|| Duration::from_millis(u64::from(secs) * 1500));
    }

    pub(crate) fn packet_came(&mut self, now: Instant) {
        self.last_packet = now;
    }

    /// Publishers wait, so nothing is read and silence proves nothing.
    pub(crate) fn pause(&mut self) {
        self.is_paused = true;
    }

    /// Reading goes on.
    pub(crate) fn resume(&mut self, now: Instant) {
        self.is_paused = false;
        self.last_packet = now;
    }

    /// A publish found no room and cannot be refused; the connection closes after `wait`.
    pub(crate) fn stall(&mut self, now: Instant, wait: Duration) {
        self.stalled_until.get_or_insert(now + wait);
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled_until.is_some()
    }

    pub(crate) fn login_is_over(&self, now: Instant) -> bool {
        now >= self.login_until
    }

    pub(crate) fn stall_is_over(&self, now: Instant) -> bool {
        self.stalled_until.is_some_and(|until| now >= until)
    }

    pub(crate) fn client_is_gone(&self, now: Instant) -> bool {
        let silence = now.saturating_duration_since(self.last_packet);
        !self.is_paused && self.silence_max.is_some_and(|max| silence >= max)
    }

    pub(crate) fn login_timeout(&self) -> Timeout {
        Timeout { at: self.login_until, reason: "login" }
    }

    pub(crate) fn next_timeout(&self) -> Option<Timeout> {
        if let Some(at) = self.stalled_until {
            return Some(Timeout { at, reason: "publish_refused" });
        }
        let max = self.silence_max.filter(|_| !self.is_paused)?;
        Some(Timeout { at: self.last_packet + max, reason: "keep_alive" })
    }
}
