//! What leaves over a WebSocket: payload with its frame heads, and control frames between them.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use polymq_contract::{MessageKind, web_message::put_head};
use tokio::io::AsyncWrite;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::Form;

/// Pieces of one write.
const SLICES_MAX: usize = 64;
/// The longest head that we write.
const HEAD_BYTES_MAX: usize = 10;

const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const CLOSE: u8 = 0x88;

/// Where the stream of frames stands.
#[derive(Debug)]
pub(super) struct Sender {
    form: Form,
    /// The head of the frame that is on its way, and how much of it has left or was seen.
    head: Vec<u8>,
    head_at: usize,
    /// Payload of that frame which is still to leave.
    left: u64,
    /// A control frame that is leaving.
    control: Vec<u8>,
    control_at: usize,
    pong: Option<Vec<u8>>,
    wants_ping: bool,
    close: Option<(CloseCode, String)>,
    /// Nothing leaves behind a close frame.
    is_closed: bool,
}

impl Sender {
    pub(super) fn new(form: Form) -> Self {
        Self {
            form,
            head: Vec::new(),
            head_at: 0,
            left: 0,
            control: Vec::new(),
            control_at: 0,
            pong: None,
            wants_ping: false,
            close: None,
            is_closed: false,
        }
    }

    /// Answers a ping, in place of an earlier one that is not answered yet.
    pub(super) fn pong(&mut self, payload: Vec<u8>) {
        self.pong = Some(payload);
    }

    pub(super) fn ping(&mut self) {
        self.wants_ping = true;
    }

    /// Closes behind what is under way; the first reason counts.
    pub(super) fn close(&mut self, code: CloseCode, reason: &str) {
        if !self.is_closed && self.close.is_none() {
            self.close = Some((code, reason.to_owned()));
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.is_closed || self.close.is_some()
    }

    /// Writes control frames as far as they may go now. Ready when none waits, or a frame of the
    /// session must be finished first.
    pub(super) fn poll_control<S: AsyncWrite + Unpin>(
        &mut self,
        socket: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            while self.control_at < self.control.len() {
                let rest = self.control.get(self.control_at..).unwrap_or_default();
                match ready!(Pin::new(&mut *socket).poll_write(cx, rest))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    count => self.control_at = self.control_at.saturating_add(count),
                }
            }
            self.control_at = 0;
            self.control = Vec::new();
            if !self.is_between_frames() || self.is_closed || !self.next_control() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn next_control(&mut self) -> bool {
        let (first, payload) = if let Some(payload) = self.pong.take() {
            (PONG, payload)
        } else if std::mem::take(&mut self.wants_ping) {
            (PING, Vec::new())
        } else if let Some((code, reason)) = self.close.take() {
            self.is_closed = true;
            let mut payload = u16::from(code).to_be_bytes().to_vec();
            payload.extend(reason.bytes().take(123));
            (CLOSE, payload)
        } else {
            return false;
        };
        // No control frame is longer than 125 bytes.
        self.control = vec![first, u8::try_from(payload.len()).unwrap_or(0)];
        self.control.extend(payload);
        true
    }

    fn is_between_frames(&self) -> bool {
        self.left == 0 && self.head_at == 0
    }

    /// One write of payload, or of the frames of a session that writes its own.
    pub(super) fn poll_payload<S: AsyncWrite + Unpin>(
        &mut self,
        socket: &mut S,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_control(socket, cx))?;
        if self.is_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.form.keeps_frames() {
            let count = ready!(Pin::new(socket).poll_write_vectored(cx, bufs))?;
            self.follow(bufs, count);
            return Poll::Ready(Ok(count));
        }
        if self.left == 0 {
            self.announce(bufs);
        }
        loop {
            let (slices, filled) = self.framed(bufs);
            let slices = slices.get(..filled).unwrap_or_default();
            let Poll::Ready(written) = Pin::new(&mut *socket).poll_write_vectored(cx, slices)
            else {
                if self.head_at == 0 && !self.head.is_empty() {
                    // Nothing of the frame has left, so the next attempt may announce more.
                    self.left = 0;
                    self.head.clear();
                }
                return Poll::Pending;
            };
            let written = written?;
            if written == 0 {
                return Poll::Ready(Ok(0));
            }
            let of_head = written.min(self.head.len().saturating_sub(self.head_at));
            self.head_at = self.head_at.saturating_add(of_head);
            if self.head_at >= self.head.len() {
                self.head.clear();
                self.head_at = 0;
            }
            let payload = written.saturating_sub(of_head);
            self.left = self.left.saturating_sub(u64::try_from(payload).unwrap_or(u64::MAX));
            if payload > 0 {
                return Poll::Ready(Ok(payload));
            }
        }
    }

    /// Begins a frame of all that waits.
    fn announce(&mut self, bufs: &[IoSlice<'_>]) {
        let taken = || bufs.iter().take(SLICES_MAX);
        let length: usize = taken().map(|slice| slice.len()).sum();
        let is_text =
            self.form == Form::Text && taken().all(|slice| std::str::from_utf8(slice).is_ok());
        let kind = if is_text { MessageKind::Text } else { MessageKind::Binary };
        put_head(kind, length, &mut self.head);
        self.left = u64::try_from(length).unwrap_or(u64::MAX);
    }

    /// What is to leave of the frame that is under way.
    fn framed<'a>(&'a self, bufs: &'a [IoSlice<'a>]) -> ([IoSlice<'a>; SLICES_MAX + 1], usize) {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX + 1];
        let head = self.head.get(self.head_at..).unwrap_or_default();
        let mut left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let mut filled = 0;
        let payload = bufs.iter().map(|slice| {
            let piece = slice.get(..left.min(slice.len())).unwrap_or_default();
            left = left.saturating_sub(piece.len());
            piece
        });
        let all = std::iter::once(head).chain(payload).filter(|piece| !piece.is_empty());
        for (slot, piece) in slices.iter_mut().zip(all) {
            *slot = IoSlice::new(piece);
            filled += 1;
        }
        (slices, filled)
    }

    /// Notes where the frames of the session end, because control frames go between them.
    fn follow(&mut self, bufs: &[IoSlice<'_>], mut count: usize) {
        for slice in bufs {
            let mut rest = slice.get(..count.min(slice.len())).unwrap_or_default();
            count = count.saturating_sub(rest.len());
            while !rest.is_empty() {
                let left = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
                if left > 0 {
                    self.left = self.left.saturating_sub(u64::try_from(left).unwrap_or(u64::MAX));
                    rest = rest.get(left..).unwrap_or_default();
                    continue;
                }
                let Some((byte, behind)) = rest.split_first() else { break };
                self.head.push(*byte);
                rest = behind;
                if let Some(length) = announced(&self.head) {
                    self.left = length;
                    self.head.clear();
                }
                self.head_at = self.head.len();
            }
        }
    }
}

/// The length that a whole head announces.
fn announced(head: &[u8]) -> Option<u64> {
    debug_assert!(head.len() <= HEAD_BYTES_MAX, "a head that is whole is taken");
    match *head {
        [_, length @ 0..=125] => Some(length.into()),
        [_, 126, a, b] => Some(u16::from_be_bytes([a, b]).into()),
        [_, 127, a, b, c, d, e, f, g, h] => Some(u64::from_be_bytes([a, b, c, d, e, f, g, h])),
        _ => None,
    }
}
