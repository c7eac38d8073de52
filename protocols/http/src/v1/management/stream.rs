//! Bodies that are written while they are sent. Their writer waits for the reader, and ends when
//! the reader has gone.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use hyper::body::Frame;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use crate::call::Call;

/// Pieces that wait for a slow reader.
const WAITING: usize = 2;
/// How often an event or a sign of life is sent, so that proxies keep the connection.
const BEAT_EVERY: Duration = Duration::from_secs(15);
/// How long a reader of events may take no bytes.
const STUCK: Duration = Duration::from_secs(60);
/// What a reader of events is told when the server stops.
pub(super) const CLOSING: &str = "event: closing\ndata: {\"reason\":\"the server stops\"}\n\n";
/// What a reader of events is told when nothing more can come.
pub(super) const END: &str = "event: end\ndata: {}\n\n";

/// Where the writer puts the pieces.
pub(super) struct Writer(mpsc::Sender<Bytes>);

impl Writer {
    /// Hands a piece over once there is room. False when nobody reads any more.
    pub(super) async fn write(&self, piece: impl Into<Bytes>) -> bool {
        self.0.send(piece.into()).await.is_ok()
    }

    /// Ends when nobody reads any more.
    pub(super) async fn is_left(&self) {
        self.0.closed().await;
    }
}

/// A body and its writer.
pub(super) fn body() -> (Writer, Body) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Writer(sender), Body::new(Pieces(receiver)))
}

/// Server-sent events to one reader.
pub(crate) struct Events {
    writer: Writer,
    beat: Instant,
}

impl Events {
    /// Hands over what is written down in `text` and leaves it empty; after long silence, a sign of
    /// life. False when the reader has gone or takes nothing.
    pub(crate) async fn send(&mut self, text: &mut String) -> bool {
        if text.is_empty() && self.beat.elapsed() >= BEAT_EVERY {
            text.push_str(": still here\n\n");
        }
        if text.is_empty() {
            return true;
        }
        self.beat = Instant::now();
        timeout(STUCK, self.writer.write(std::mem::take(text))).await.unwrap_or(false)
    }

    /// Ends when nobody reads any more.
    pub(crate) async fn is_left(&self) {
        self.writer.is_left().await;
    }
}

/// Server-sent events and the answer that carries them.
pub(crate) fn events() -> (Events, Response) {
    let (writer, body) = body();
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (Events { writer, beat: Instant::now() }, (headers, body).into_response())
}

/// The number of the last event that the reader has seen of an earlier connection.
pub(super) fn last_seen(call: &Call) -> Option<u64> {
    call.headers.get("Last-Event-ID")?.to_str().ok()?.parse().ok()
}

/// What a reader is told in place of events that are no longer there; nothing when none is missing.
pub(super) fn write_gap(text: &mut String, lost: u64) {
    if lost > 0 {
        text.push_str(&format!("event: gap\ndata: {{\"lost\":{lost}}}\n\n"));
    }
}

struct Pieces(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
