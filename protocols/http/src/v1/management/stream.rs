//! Bodies that are written while they are sent. Their writer waits for the reader, and ends when
//! the reader has gone.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::Frame;
use tokio::sync::mpsc;

/// Pieces that wait for a slow reader.
const WAITING: usize = 2;

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
