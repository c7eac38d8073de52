//! Received bytes that the session has not taken, in buffers that only working connections hold.

use std::{
    cell::RefCell,
    io,
    pin::pin,
    task::{Context, Poll},
};

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What one read asks for.
const READ_BYTES: usize = 64 * 1024;
/// A buffer with less room than this is not read into.
const ROOM_BYTES_MIN: usize = 16 * 1024;
/// Larger buffers are freed instead of kept.
const SPARE_BYTES_MAX: usize = 256 * 1024;
/// Buffers that a thread keeps for its next readers.
const SPARES_MAX: usize = 4;
/// A partial frame of up to this size is moved into a buffer of its own size while its connection
/// sleeps.
const REST_BYTES_MAX: usize = 4096;

thread_local! {
    static SPARES: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// The front of the stream: what was read and not yet parsed.
#[derive(Debug, Default)]
pub(crate) struct Input {
    bytes: BytesMut,
}

impl Input {
    /// What the session parses from.
    pub(crate) fn bytes(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// One read of at most `bytes_max` bytes; 0 is the end of the stream.
    pub(crate) fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        socket: &mut S,
        bytes_max: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.make_room();
        let mut room = (&mut self.bytes).limit(bytes_max);
        // The future holds no state of its own, so a new one for each attempt loses nothing.
        pin!(socket.read_buf(&mut room)).poll(cx)
    }

    /// Gives the buffer back before the connection sleeps.
    pub(crate) fn rest(&mut self) {
        if self.bytes.capacity() == 0 {
            return;
        }
        if self.bytes.is_empty() {
            keep(std::mem::take(&mut self.bytes));
        } else if self.bytes.len() <= REST_BYTES_MAX && self.bytes.capacity() > 2 * REST_BYTES_MAX {
            let small = BytesMut::from(&self.bytes[..]);
            keep(std::mem::replace(&mut self.bytes, small));
        }
    }

    fn make_room(&mut self) {
        let held = self.bytes.len();
        if held == 0 && self.bytes.capacity() > 0 {
            self.bytes.clear();
            // Starts again at the front of the buffer, unless message bodies still share it.
            let _ = self.bytes.try_reclaim(READ_BYTES);
        }
        if self.bytes.capacity() - held >= ROOM_BYTES_MIN {
            return;
        }
        if held > READ_BYTES {
            // A frame larger than a read: grow by doubling, so that each byte is moved about once.
            self.bytes.reserve(held);
            return;
        }
        let mut roomy = spare(held + ROOM_BYTES_MIN);
        roomy.extend_from_slice(&self.bytes);
        keep(std::mem::replace(&mut self.bytes, roomy));
    }
}

/// An empty buffer for at least `bytes_min`.
fn spare(bytes_min: usize) -> BytesMut {
    let kept = SPARES.with_borrow_mut(|spares| spares.pop_if(|kept| kept.capacity() >= bytes_min));
    kept.unwrap_or_else(|| BytesMut::with_capacity(READ_BYTES.max(bytes_min.next_power_of_two())))
}

/// Keeps a buffer for the next reader of this thread when it is worth it.
fn keep(mut buffer: BytesMut) {
    buffer.clear();
    // Fails when message bodies share the buffer: then the rest of it may still be roomy enough.
    let _ = buffer.try_reclaim(READ_BYTES);
    if (ROOM_BYTES_MIN..=SPARE_BYTES_MAX).contains(&buffer.capacity()) {
        SPARES.with_borrow_mut(|spares| {
            if spares.len() < SPARES_MAX {
                spares.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests;
