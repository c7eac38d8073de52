//! Sockets that the system does not watch while their connection looks at them itself.
//!
//! A watched socket wakes a thread of the runtime with every arrival, also when the connection's
//! task is awake and about to read. With one message per write that costs both sides more than the
//! message does.

use std::{
    cell::RefCell,
    io::{self, IoSlice, Read, Write},
    net,
    os::unix,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::server::TlsStream;

use polymq_contract::TlsPeer;

use crate::{ending::Ending, incoming::Incoming, tls::Tls};

/// The most bytes of one read while the socket is not watched.
const READ_BYTES: usize = 64 * 1024;

thread_local! {
    /// A plain read needs initialised memory; this is initialised once, and what was read is copied
    /// out of it.
    static ARRIVED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a connection talks over.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin {
    /// Ends the watching: a read that finds nothing is then `Pending` and wakes nobody.
    fn unwatch(&mut self) -> io::Result<()>;

    /// Watches again. True when that is new, so that the caller must look once more before it may
    /// rely on being woken.
    fn watch(&mut self) -> io::Result<bool>;

    /// True when the peer is known to send nothing more, whatever is unread. Only a watched socket
    /// knows.
    fn is_hung_up(&self) -> bool {
        false
    }

    /// Encrypts what goes over it from now on; `None` when that cannot be.
    fn encrypt(self, tls: &Arc<Tls>) -> Option<Handshake<Self>>
    where
        Self: Sized,
    {
        let _ = tls;
        None
    }

    /// True when the peer has broken the rules of the transport, so that no session may go on.
    fn has_fault(&self) -> bool {
        false
    }

    /// Prepares for the end. True when the peer is to see last bytes, and is waited for to take
    /// them.
    fn parts(&mut self, ending: &Ending, is_stopping: bool) -> bool {
        let _ = is_stopping;
        matches!(ending, Ending::Session(_))
    }

    /// Itself with what was read from it, for somebody else to serve; `None` when that cannot be.
    fn into_incoming(self, first: Bytes) -> Option<Incoming>
    where
        Self: Sized,
    {
        let _ = first;
        None
    }
}

/// A TLS handshake that is under way.
pub(crate) type Handshake<S> = Pin<Box<dyn Future<Output = Result<(S, TlsPeer), Ending>> + Send>>;

/// A stream of the operating system.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Sized {
    /// The same stream, unwatched. It does not block.
    type Plain: Read + Write + Unpin;

    fn into_plain(self) -> io::Result<Self::Plain>;
    fn from_plain(plain: Self::Plain) -> io::Result<Self>;
    /// What the runtime knows of it, without waiting for more.
    fn is_hung_up(&self) -> bool;
}

/// True when a stream is ready because its peer sends nothing more.
fn is_closed(ready: impl Future<Output = io::Result<Ready>>) -> bool {
    let mut now = Context::from_waker(Waker::noop());
    matches!(pin!(ready).poll(&mut now), Poll::Ready(Ok(ready)) if ready.is_read_closed())
}

impl Stream for TcpStream {
    type Plain = net::TcpStream;

    fn into_plain(self) -> io::Result<Self::Plain> {
        let plain = self.into_std()?;
        acknowledge_each(&plain, false);
        Ok(plain)
    }

    fn from_plain(plain: Self::Plain) -> io::Result<Self> {
        acknowledge_each(&plain, true);
        Self::from_std(plain)
    }

    fn is_hung_up(&self) -> bool {
        is_closed(self.ready(Interest::READABLE))
    }
}

/// Whether the system acknowledges each small segment at once, or several with our next read. The
/// first is its habit with peers that only send, and doubles what a write costs them.
#[cfg_attr(
    not(target_os = "linux"),
    expect(unused_variables, reason = "others have no such option")
)]
fn acknowledge_each(stream: &net::TcpStream, each: bool) {
    // Only a broken socket refuses, and the next read finds that out.
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(stream).set_tcp_quickack(each);
}

impl Stream for UnixStream {
    type Plain = unix::net::UnixStream;

    fn into_plain(self) -> io::Result<Self::Plain> {
        self.into_std()
    }

    fn from_plain(plain: Self::Plain) -> io::Result<Self> {
        Self::from_std(plain)
    }

    fn is_hung_up(&self) -> bool {
        is_closed(self.ready(Interest::READABLE))
    }
}

/// A stream of the operating system that can go unwatched.
pub(crate) enum Direct<S: Stream> {
    Watched(S),
    Unwatched(S::Plain),
    /// Lost between the two, because the system refused.
    Lost,
}

impl<S: Stream> Direct<S> {
    /// The stream as the runtime knows it.
    fn watched(&mut self) -> io::Result<&mut S> {
        self.watch()?;
        match self {
            Self::Watched(stream) => Ok(stream),
            Self::Unwatched(_) | Self::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl<S: Stream> Socket for Direct<S> {
    fn unwatch(&mut self) -> io::Result<()> {
        if let Self::Watched(_) = self
            && let Self::Watched(stream) = std::mem::replace(self, Self::Lost)
        {
            *self = Self::Unwatched(stream.into_plain()?);
        }
        Ok(())
    }

    fn watch(&mut self) -> io::Result<bool> {
        if let Self::Unwatched(_) = self
            && let Self::Unwatched(plain) = std::mem::replace(self, Self::Lost)
        {
            *self = Self::Watched(S::from_plain(plain)?);
            return Ok(true);
        }
        Ok(false)
    }

    fn is_hung_up(&self) -> bool {
        matches!(self, Self::Watched(stream) if stream.is_hung_up())
    }
}

impl<S: Stream> AsyncRead for Direct<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Watched(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unwatched(plain) => look(plain, buf),
            Self::Lost => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

fn look(plain: &mut impl Read, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    ARRIVED.with_borrow_mut(|arrived| {
        arrived.resize(READ_BYTES, 0);
        let room = buf.remaining().min(READ_BYTES);
        let arrived = arrived.get_mut(..room).unwrap_or_default();
        loop {
            match plain.read(arrived) {
                Ok(count) => {
                    buf.put_slice(arrived.get(..count).unwrap_or_default());
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    })
}

impl<S: Stream> AsyncWrite for Direct<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        while let Self::Unwatched(plain) = &mut *self {
            let written = match bufs {
                [whole] => plain.write(whole),
                parts => plain.write_vectored(parts),
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Only a watched socket says when there is room.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.watch()?;
                }
                done => return Poll::Ready(done),
            }
        }
        // What is in one piece takes the shorter way through the system.
        match bufs {
            [whole] => Pin::new(self.watched()?).poll_write(cx, whole),
            parts => Pin::new(self.watched()?).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The system holds what was written.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.watched()?).poll_shutdown(cx)
    }
}

impl<S: Stream> Socket for TlsStream<Direct<S>> {
    fn unwatch(&mut self) -> io::Result<()> {
        self.get_mut().0.unwatch()
    }

    fn watch(&mut self) -> io::Result<bool> {
        self.get_mut().0.watch()
    }

    fn is_hung_up(&self) -> bool {
        self.get_ref().0.is_hung_up()
    }
}

/// A stream that somebody else watches.
pub(crate) struct Adopted<S>(pub(crate) S);

impl<S: AsyncRead + AsyncWrite + Unpin> Socket for Adopted<S> {
    fn unwatch(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn watch(&mut self) -> io::Result<bool> {
        Ok(false)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Adopted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Adopted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
    };

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[derive(Default)]
    struct Calls(AtomicUsize);

    impl Wake for Calls {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn pair() -> (Direct<UnixStream>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        (Direct::Watched(ours), theirs)
    }

    /// Reads once; `None` when there was nothing.
    fn read(socket: &mut Direct<UnixStream>, waker: &Waker) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        match pin!(socket.read_buf(&mut bytes)).poll(&mut Context::from_waker(waker)) {
            Poll::Ready(count) => count.ok().map(|_| bytes),
            Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn unwatched_socket_is_read_and_wakes_nobody() {
        let (mut ours, mut theirs) = pair();
        ours.unwatch().expect("a socket");
        let calls = Arc::<Calls>::default();
        let waker = Waker::from(Arc::clone(&calls));
        assert_eq!(read(&mut ours, &waker), None);
        theirs.write_all(b"one").await.expect("room");
        tokio::task::yield_now().await;
        assert_eq!(read(&mut ours, &waker).as_deref(), Some(&b"one"[..]));
        assert_eq!(calls.0.load(Ordering::SeqCst), 0);
        drop(theirs);
        assert_eq!(read(&mut ours, &waker).as_deref(), Some(&b""[..]), "the end is seen");
    }

    #[tokio::test]
    async fn socket_that_is_watched_again_tells_what_came_meanwhile() {
        let (mut ours, mut theirs) = pair();
        ours.unwatch().expect("a socket");
        theirs.write_all(b"one").await.expect("room");
        assert!(ours.watch().expect("a socket"), "it is newly watched");
        assert!(!ours.watch().expect("a socket"), "it is watched already");
        let mut bytes = [0; 3];
        ours.read_exact(&mut bytes).await.expect("bytes");
        assert_eq!(&bytes, b"one");
    }

    #[tokio::test]
    async fn end_is_known_behind_what_is_unread() {
        let (ours, mut theirs) = pair();
        theirs.write_all(b"unread").await.expect("room");
        assert!(!ours.is_hung_up());
        drop(theirs);
        let Direct::Watched(stream) = &ours else { panic!("it is watched") };
        // The runtime hears of the end on its next look at all sockets.
        while !ours.is_hung_up() {
            let _ = stream.readable().await;
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn full_socket_is_watched_again_and_everything_leaves() {
        let (mut ours, mut theirs) = pair();
        ours.unwatch().expect("a socket");
        let sent = vec![7; 4 << 20];
        let length = sent.len();
        let writing = tokio::spawn(async move { ours.write_all(&sent).await.map(|()| ours) });
        let mut received = vec![0; length];
        theirs.read_exact(&mut received).await.expect("bytes");
        assert!(received.iter().all(|byte| *byte == 7));
        let mut ours = writing.await.expect("a task").expect("all is written");
        assert!(matches!(ours, Direct::Watched(_)));
        ours.unwatch().expect("a socket");
        ours.shutdown().await.expect("a socket");
        assert_eq!(theirs.read(&mut received).await.expect("an end"), 0);
    }
}
