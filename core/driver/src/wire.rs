//! A connection, with or without TLS: one type, so that it can become encrypted on the way and
//! move from one session to another.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use crate::{
    incoming::Incoming,
    socket::{Direct, Handshake, Socket},
    tls::Tls,
};

/// A connection.
pub(crate) enum Wire {
    /// In clear text.
    Plain(Direct<TcpStream>),
    /// Encrypted.
    Tls(Box<TlsStream<Direct<TcpStream>>>),
    /// What somebody else has brought, who watches it.
    Other(Box<dyn Stream>),
}

/// A stream of any kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Socket for Wire {
    fn unwatch(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.unwatch(),
            Self::Tls(socket) => socket.unwatch(),
            Self::Other(_) => Ok(()),
        }
    }

    fn watch(&mut self) -> io::Result<bool> {
        match self {
            Self::Plain(socket) => socket.watch(),
            Self::Tls(socket) => socket.watch(),
            Self::Other(_) => Ok(false),
        }
    }

    fn is_hung_up(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_hung_up(),
            Self::Tls(socket) => socket.is_hung_up(),
            Self::Other(_) => false,
        }
    }

    fn encrypt(self, tls: &Arc<Tls>) -> Option<Handshake<Self>> {
        let Self::Plain(mut socket) = self else { return None };
        // A handshake sleeps until bytes come.
        socket.watch().ok()?;
        let tls = Arc::clone(tls);
        Some(Box::pin(async move {
            let (stream, facts) = tls.accept(socket).await?;
            Ok((Self::Tls(Box::new(stream)), facts))
        }))
    }

    fn into_incoming(self, first: Bytes) -> Option<Incoming> {
        Some(Incoming::new(self, first))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Other(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tls(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Other(socket) => Pin::new(socket).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Self::Tls(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Self::Other(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_write_vectored(),
            Self::Tls(socket) => socket.is_write_vectored(),
            Self::Other(socket) => socket.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(socket) => Pin::new(socket).poll_flush(cx),
            Self::Other(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Other(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
