//! The end of a socket: the last bytes leave, and the peer gets to see them.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite};

use polymq_contract::Output;

use crate::{clock, gate::Gate, input::Input, timer::Timer};

/// Time for the last bytes, and for the peer to close its side.
const PARTING_TIMEOUT: Duration = Duration::from_secs(5);
/// Pieces of one vectored write.
const SLICES_MAX: usize = 64;

/// One vectored write of what waits in `out`, which is not empty.
pub(crate) fn poll_output<S: AsyncWrite + Unpin>(
    socket: &mut S,
    out: &mut Output,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let filled = out.slices(&mut slices);
    let written =
        ready!(Pin::new(socket).poll_write_vectored(cx, slices.get(..filled).unwrap_or(&[])))?;
    out.advance(written);
    if written == 0 {
        Poll::Ready(Err(io::ErrorKind::WriteZero.into()))
    } else {
        Poll::Ready(Ok(written))
    }
}

/// Writes `out`, shuts the writing side, and reads until the peer closes: a socket closed with
/// bytes unread makes the system send a reset, which can overtake our last frame.
pub(crate) async fn part<S>(mut socket: S, mut out: Output, gate: &Gate)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let deadline = clock::now().instant + PARTING_TIMEOUT;
    let mut timer = Timer::default();
    let mut is_shut = false;
    poll_fn(|cx| {
        if gate.is_cut() || timer.poll(Some(deadline), clock::now().instant, cx) {
            return Poll::Ready(());
        }
        if !is_shut {
            if ready!(poll_farewell(&mut socket, &mut out, cx)).is_err() {
                return Poll::Ready(());
            }
            is_shut = true;
        }
        poll_drained(&mut socket, cx)
    })
    .await;
}

fn poll_farewell<S: AsyncWrite + Unpin>(
    socket: &mut S,
    out: &mut Output,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while !out.is_empty() {
        ready!(poll_output(socket, out, cx))?;
    }
    Pin::new(socket).poll_shutdown(cx)
}

fn poll_drained<S: AsyncRead + Unpin>(socket: &mut S, cx: &mut Context<'_>) -> Poll<()> {
    let mut input = Input::default();
    loop {
        let read = input.poll_read(socket, usize::MAX, cx);
        input.bytes().clear();
        match read {
            Poll::Ready(Ok(count)) if count > 0 => {}
            Poll::Ready(_) => return Poll::Ready(()),
            Poll::Pending => {
                input.rest();
                return Poll::Pending;
            }
        }
    }
}
