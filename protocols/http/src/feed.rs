//! Deliveries as a stream of server-sent events.
//!
//! The body is asked for more when the socket has taken what came before; so a slow reader gets
//! less, and its messages stay in their queue.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Bytes, HttpBody};
use hyper::body::Frame;
use polymq_contract::{CancelReason, Delivery, DeliveryRange, Outcome, Settlement};
use polymq_model::json_form::{Shown, Style};
use serde_json::json;
use tokio::time::{Instant, Sleep, sleep};

use crate::{
    Site,
    client::{Deliveries, Next},
    clock,
    socket::Busy,
    v1::Place,
};

/// A comment after this time of silence keeps proxies from closing the connection.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Bytes that are handed to the socket at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// What a browser waits before it connects again, in ms.
const OPENING: &[u8] = b"retry: 2000\n\n";

/// Where a reader was when it was lost: when the message arrived, and its place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EventId {
    arrived_ms: u64,
    seq: u64,
}

impl EventId {
    /// Reads `<arrival>-<place>`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (arrived, seq) = text.split_once('-')?;
        Some(Self { arrived_ms: arrived.parse().ok()?, seq: seq.parse().ok()? })
    }

    fn of(delivery: &Delivery) -> Self {
        Self { arrived_ms: delivery.message.arrived_ms(), seq: delivery.seq.0 }
    }

    /// True when the reader has had the message. A queue that was made again counts from the
    /// beginning, but its messages arrive later.
    fn covers(self, other: Self) -> bool {
        other.seq <= self.seq && other.arrived_ms <= self.arrived_ms
    }
}

/// A stream of events.
pub(crate) struct Feed {
    deliveries: Deliveries,
    style: Style,
    /// Deliveries that stay unsettled behind the last one, for a reader that comes back.
    window: u64,
    /// Where the reader was.
    last_seen: Option<EventId>,
    taken: u64,
    settled: u64,
    opening: Option<&'static [u8]>,
    heartbeat: Pin<Box<Sleep>>,
    is_over: bool,
    site: Arc<Site>,
    _busy: (Busy, Place),
}

impl Feed {
    /// A stream of these deliveries. A message is settled when the socket has taken it, or when
    /// `window` others are behind it.
    pub(crate) fn new(
        (site, deliveries): (Arc<Site>, Deliveries),
        style: Style,
        (window, last_seen): (u64, Option<EventId>),
        busy: (Busy, Place),
    ) -> Self {
        Self {
            site,
            deliveries,
            style,
            window,
            last_seen,
            taken: 0,
            settled: 0,
            opening: Some(OPENING),
            heartbeat: Box::pin(sleep(HEARTBEAT)),
            is_over: false,
            _busy: busy,
        }
    }

    /// Settles what the socket has taken, as far as nobody may ask for it again.
    fn settle(&mut self) {
        let last = self.taken.saturating_sub(self.window);
        if last > self.settled {
            let deliveries = DeliveryRange { first: self.settled + 1, last };
            self.settled = last;
            let consumer = self.deliveries.consumer();
            let settlement = Settlement::new(consumer, deliveries, Outcome::Accepted);
            self.deliveries.client().settle([settlement]);
        }
    }

    fn put(&mut self, delivery: &Delivery, out: &mut Vec<u8>) {
        self.taken = delivery.number;
        let id = EventId::of(delivery);
        if let Some(seen) = self.last_seen {
            if seen.covers(id) {
                return;
            }
            self.last_seen = None;
            let lost = id.seq.checked_sub(seen.seq + 1);
            if lost != Some(0) {
                put_event("gap", &json!({ "lost": lost }).to_string(), out);
            }
        }
        self.site.note_shown(&delivery.message);
        let mut shown = Shown::new(&delivery.message, clock::now().unix_ms, self.style);
        shown.seq = Some(id.seq);
        shown.redelivered = delivery.redelivered;
        shown.delivery_count = delivery.failed;
        shown.acquired_count = delivery.acquired;
        out.extend_from_slice(format!("id: {}-{}\n", id.arrived_ms, id.seq).as_bytes());
        put_event("message", &shown.to_json(), out);
    }

    /// Ends the stream with a last word: `cancelled` when this subscription is over, `closing` when
    /// the connection to the broker is.
    fn end(&mut self, name: &str, reason: &str, out: &mut Vec<u8>) {
        self.is_over = true;
        put_event(name, &json!({ "reason": reason }).to_string(), out);
    }
}

/// JSON has no line ends, so that its text is one line of data.
fn put_event(name: &str, data: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    out.extend_from_slice(data.as_bytes());
    out.extend_from_slice(b"\n\n");
}

impl HttpBody for Feed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        if let Some(opening) = this.opening.take() {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(opening)))));
        }
        this.settle();
        let mut out = Vec::new();
        while out.len() < CHUNK_BYTES && !this.is_over {
            match this.deliveries.poll_next(cx) {
                Poll::Ready(Next::Delivery(delivery)) => this.put(&delivery, &mut out),
                Poll::Ready(Next::Cancelled(reason)) => {
                    this.end("cancelled", words(reason), &mut out);
                }
                Poll::Ready(Next::Ended(ended)) => this.end("closing", &ended.reason, &mut out),
                Poll::Pending => break,
            }
        }
        if out.is_empty() && this.heartbeat.as_mut().poll(cx).is_ready() {
            out.extend_from_slice(b":\n\n");
        }
        if out.is_empty() {
            return Poll::Pending;
        }
        this.heartbeat.as_mut().reset(Instant::now() + HEARTBEAT);
        Poll::Ready(Some(Ok(Frame::data(out.into()))))
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // What may be asked for again goes back without counting as failed.
        let deliveries = DeliveryRange { first: self.settled + 1, last: self.taken };
        let consumer = self.deliveries.consumer();
        if deliveries.first <= deliveries.last {
            let settlement = Settlement::new(consumer, deliveries, Outcome::Returned);
            self.deliveries.client().settle([settlement]);
        }
    }
}

fn words(reason: CancelReason) -> &'static str {
    match reason {
        CancelReason::QueueDeleted => "the queue was deleted",
        CancelReason::Timeout => "a message was not settled in time",
        CancelReason::Denied => "the right to read was taken away",
        CancelReason::Administrator => "an administrator ended it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_is_read_as_it_is_written() {
        let id = EventId { arrived_ms: 1700, seq: 12 };
        assert_eq!(EventId::parse("1700-12"), Some(id));
        for bad in ["", "1700", "-12", "1700-", "x-1", "1700-12-3"] {
            assert_eq!(EventId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn queue_that_was_made_again_is_told_from_the_old_one() {
        let seen = EventId { arrived_ms: 1000, seq: 12 };
        assert!(seen.covers(EventId { arrived_ms: 990, seq: 11 }));
        assert!(!seen.covers(EventId { arrived_ms: 2000, seq: 1 }));
        assert!(!seen.covers(EventId { arrived_ms: 1000, seq: 13 }));
    }
}
