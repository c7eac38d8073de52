//! Connections that never run out of work, and the others on their thread.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::toy::{House, peer, protocols};

/// Reads in a row: a link takes 16 turns with a read each before others have theirs, and the
/// runtime may run a task twice before another.
const IN_A_ROW_MAX: usize = 2 * 16;
/// After so many moves a peer falls silent, so that a link that never yields fails the test and
/// does not hang it.
const MOVES_MAX: usize = 10_000;

/// Reads or writes of a peer.
#[derive(Default)]
struct Moves {
    all: AtomicUsize,
    in_a_row: AtomicUsize,
    most: AtomicUsize,
    /// Turns of another task when the last one was made.
    turns: AtomicUsize,
}

impl Moves {
    /// Notes one; `turns` is how many another task has had.
    fn note(&self, turns: usize) {
        let is_first = self.turns.swap(turns, Ordering::Relaxed) != turns;
        let before = if is_first { 0 } else { self.in_a_row.load(Ordering::Relaxed) };
        self.in_a_row.store(before + 1, Ordering::Relaxed);
        self.most.fetch_max(before + 1, Ordering::Relaxed);
        self.all.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Counts {
    turns: AtomicUsize,
    reads: Moves,
    writes: Moves,
}

/// A peer that logs in, asks, and then has another line whenever it is read from, or none; and that
/// takes whatever is written.
struct Busy {
    counts: Arc<Counts>,
    opening: &'static [u8],
    line: Option<Vec<u8>>,
}

impl AsyncRead for Busy {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let counts = Arc::clone(&self.counts);
        if !self.opening.is_empty() {
            buf.put_slice(std::mem::take(&mut self.opening));
            return Poll::Ready(Ok(()));
        }
        let Some(line) = &self.line else { return Poll::Pending };
        if counts.reads.all.load(Ordering::Relaxed) >= MOVES_MAX {
            return Poll::Pending;
        }
        counts.reads.note(counts.turns.load(Ordering::Relaxed));
        while buf.remaining() >= line.len() {
            buf.put_slice(line);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Busy {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let counts = &self.counts;
        if counts.writes.all.load(Ordering::Relaxed) >= MOVES_MAX {
            return Poll::Pending;
        }
        counts.writes.note(counts.turns.load(Ordering::Relaxed));
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What a busy peer has moved while another, on the same thread, had ten answers.
async fn beside_another(opening: &'static [u8], line: Option<Vec<u8>>) -> Arc<Counts> {
    let house = House::new();
    let counts = Arc::<Counts>::default();
    let witness = tokio::spawn({
        let counts = Arc::clone(&counts);
        async move {
            loop {
                counts.turns.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    let busy = Busy { counts: Arc::clone(&counts), opening, line };
    house.driver.adopt(busy, protocols(), peer());
    let mut other = house.client(4096);
    other.log_in().await;
    for _ in 0..10 {
        other.send("say hi\n").await;
        other.expect("hi").await;
    }
    witness.abort();
    counts
}

#[tokio::test]
async fn a_connection_handles_a_bounded_number_of_frames_per_turn() {
    let line = [b"length ".as_slice(), &[b'x'; 4000], b"\n"].concat();
    let counts = beside_another(b"hello\n", Some(line)).await;
    let (all, most) = (&counts.reads.all, &counts.reads.most);
    assert!(all.load(Ordering::Relaxed) > 100, "it was read from all the time");
    assert!(most.load(Ordering::Relaxed) <= IN_A_ROW_MAX, "{most:?}");
}

#[tokio::test]
async fn a_connection_is_given_a_bounded_number_of_messages_per_turn() {
    let counts = beside_another(b"hello\nstream 4000000000\n", None).await;
    let (all, most) = (&counts.writes.all, &counts.writes.most);
    assert!(all.load(Ordering::Relaxed) > 100, "it was written to all the time");
    assert!(most.load(Ordering::Relaxed) <= 2 * IN_A_ROW_MAX, "{most:?} with two writes each");
}
