//! Connections that somebody else serves for a while, or for good.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use polymq_contract::{Peer, Recognised};

use crate::{
    socket::{Direct, Socket},
    wire::Wire,
};

/// Serves connections in its own way, beside the sessions of a listener, as HTTP does.
pub trait Guest: Send + Sync {
    /// Looks at the first bytes of a connection, for ports that serve several protocols.
    fn recognise(&self, first: &[u8]) -> Recognised;
    /// Serves a connection from its first byte on. It does not count as one of the driver's.
    fn serve(&self, incoming: Incoming, peer: Peer);
}

/// A connection with bytes that were read from it and are to be read again.
pub struct Incoming {
    first: Bytes,
    wire: Wire,
}

impl Incoming {
    pub(crate) fn new(wire: Wire, first: Bytes) -> Self {
        Self { first, wire }
    }

    /// A TCP connection that somebody else has accepted.
    pub fn tcp(stream: TcpStream) -> Self {
        // Fails only on a socket that is broken already, which the first read finds out.
        let _ = stream.set_nodelay(true);
        Self { first: Bytes::new(), wire: Wire::Plain(Direct::Watched(stream)) }
    }

    /// A connection of any other kind, as one inside a stream that somebody else keeps.
    pub fn other(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        Self { first: Bytes::new(), wire: Wire::Other(Box::new(stream)) }
    }

    /// Bytes that whoever had the connection has read and not used come again.
    pub fn put_back(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut first = BytesMut::from(bytes);
        first.extend_from_slice(&self.first);
        self.first = first.freeze();
    }
}

impl AsyncRead for Incoming {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.wire).poll_read(cx, buf);
        }
        let count = self.first.len().min(buf.remaining());
        buf.put_slice(self.first.get(..count).unwrap_or_default());
        self.first.advance(count);
        if self.first.is_empty() {
            self.first = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Incoming {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}

impl Socket for Incoming {
    fn unwatch(&mut self) -> io::Result<()> {
        self.wire.unwatch()
    }

    fn watch(&mut self) -> io::Result<bool> {
        self.wire.watch()
    }

    fn is_hung_up(&self) -> bool {
        self.wire.is_hung_up()
    }
}
