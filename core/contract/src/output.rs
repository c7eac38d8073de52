//! Encoded bytes on their way to a socket.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// Slices at least this long leave by reference instead of being copied behind the small frames.
pub const SHARED_BYTES_MIN: usize = 4096;

/// Frames in order: small ones copied together, large ones by reference, written with one vectored
/// write.
#[derive(Debug, Default)]
pub struct Output {
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
    chunk_bytes: usize,
    frames: usize,
}

impl Output {
    /// The buffer that small frames are appended to.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// The same buffer, for a frame, packet or stanza that counts.
    #[inline]
    pub fn frame(&mut self) -> &mut BytesMut {
        self.frames += 1;
        &mut self.tail
    }

    /// Counts frames that were written in another way.
    #[inline]
    pub fn add_frames(&mut self, count: usize) {
        self.frames += count;
    }

    /// Frames since the last call.
    #[inline]
    pub fn take_frames(&mut self) -> usize {
        std::mem::take(&mut self.frames)
    }

    /// Appends bytes that others share, by reference when they are long.
    pub fn push_shared(&mut self, bytes: Bytes) {
        if bytes.len() < SHARED_BYTES_MIN {
            self.tail.extend_from_slice(&bytes);
            return;
        }
        if !self.tail.is_empty() {
            let tail = self.tail.split().freeze();
            self.chunk_bytes += tail.len();
            self.chunks.push_back(tail);
        }
        self.chunk_bytes += bytes.len();
        self.chunks.push_back(bytes);
    }

    /// Bytes waiting.
    pub fn len(&self) -> usize {
        self.chunk_bytes + self.tail.len()
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `slices` with what comes next and returns how many were filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let all = self.chunks.iter().map(|c| &c[..]).chain(std::iter::once(&self.tail[..]));
        let mut filled = 0;
        for (slot, bytes) in slices.iter_mut().zip(all.filter(|bytes| !bytes.is_empty())) {
            *slot = IoSlice::new(bytes);
            filled += 1;
        }
        filled
    }

    /// Forgets the first `count` bytes: they are written.
    pub fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let Some(front) = self.chunks.front_mut() else {
                self.tail.advance(count.min(self.tail.len()));
                break;
            };
            let step = count.min(front.len());
            front.advance(step);
            self.chunk_bytes -= step;
            count -= step;
            if front.is_empty() {
                self.chunks.pop_front();
            }
        }
        if self.tail.is_empty() && self.chunks.is_empty() {
            self.tail.clear();
        }
    }

    /// Gives memory back when nothing waits; for connections that go idle.
    pub fn shrink(&mut self) {
        if self.is_empty() {
            self.tail = BytesMut::new();
            self.chunks = VecDeque::new();
        }
    }

    /// Everything that waits, as one piece; for tests of sessions.
    pub fn take_all(&mut self) -> Bytes {
        let mut all = BytesMut::new();
        for chunk in self.chunks.drain(..) {
            all.extend_from_slice(&chunk);
        }
        self.chunk_bytes = 0;
        all.extend_from_slice(&self.tail.split());
        all.freeze()
    }
}
