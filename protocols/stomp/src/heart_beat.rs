//! Heart-beats both ways: STOMP 1.1 and 1.2, section Heart-beating.

use std::time::{Duration, Instant};

/// Shorter intervals are not agreed to: they cost both sides more than they tell.
const INTERVAL_MS_MIN: u32 = 100;
/// The longest interval that is agreed to, so that dates cannot overflow.
const INTERVAL_MS_MAX: u32 = 24 * 60 * 60 * 1000;
/// A peer is gone after so many of its intervals; the specification asks for a margin.
const SILENCE_INTERVALS: u32 = 2;

/// The clocks of one connection.
#[derive(Debug)]
pub(crate) struct HeartBeat {
    sends: Duration,
    expects: Duration,
    last_sent: Instant,
    last_received: Instant,
}

impl HeartBeat {
    /// No heart-beats, as before CONNECTED.
    pub(crate) fn off(now: Instant) -> Self {
        Self { sends: Duration::ZERO, expects: Duration::ZERO, last_sent: now, last_received: now }
    }

    /// Agrees to what the client can send and wants to have, in ms; returns what the server sends
    /// and expects.
    pub(crate) fn start(&mut self, client: (u32, u32), now: Instant) -> (u32, u32) {
        let agreed = |ms: u32| match ms {
            0 => 0,
            ms => ms.clamp(INTERVAL_MS_MIN, INTERVAL_MS_MAX),
        };
        let (can, wants) = client;
        let (sends, expects) = (agreed(wants), agreed(can));
        let interval = |ms: u32| Duration::from_millis(u64::from(ms));
        *self = Self {
            sends: interval(sends),
            expects: interval(expects.max(can)),
            last_sent: now,
            last_received: now,
        };
        (sends, expects)
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
        self.next_send().is_some_and(|at| now >= at)
    }

    /// True when the client has been silent for too long.
    pub(crate) fn is_client_gone(&self, now: Instant) -> bool {
        self.gone_at().is_some_and(|at| now >= at)
    }

    /// When to look again.
    pub(crate) fn next(&self) -> Option<Instant> {
        [self.next_send(), self.gone_at()].into_iter().flatten().min()
    }

    /// Half an interval before the client would miss it.
    fn next_send(&self) -> Option<Instant> {
        (!self.sends.is_zero()).then(|| self.last_sent + self.sends / 2)
    }

    fn gone_at(&self) -> Option<Instant> {
        (!self.expects.is_zero()).then(|| self.last_received + self.expects * SILENCE_INTERVALS)
    }
}

/// Reads the header `heart-beat`: what the client can send and wants to have, in ms.
pub(crate) fn parse(text: &str) -> Option<(u32, u32)> {
    let (can, wants) = text.split_once(',')?;
    let number = |text: &str| {
        let text = text.trim();
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().unwrap_or(u32::MAX))
    };
    Some((number(can)?, number(wants)?))
}
