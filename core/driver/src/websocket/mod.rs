//! WebSocket (RFC 6455) behind the handshake, as one more kind of socket.
//!
//! The heads of frames, the opcodes and the close codes are those of tungstenite. Its own stream is
//! not used: it reserves what a head announces, holds a read buffer for each connection, and copies
//! each message twice. Here payload is taken apart in the buffer that the session reads from, and
//! leaves with one vectored write.

mod decode;
mod send;
#[cfg(test)]
mod tests;
mod text;

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use polymq_model::Limits;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::{clock, ending::Ending, socket::Socket, timer::Timer};

use decode::{Decoder, Fault, Kept};
use send::Sender;

/// What a message of WebSocket may be longer than the largest message of the broker: properties,
/// and frames in front of it.
const MESSAGE_ROOM_BYTES: usize = 1024 * 1024;
/// Control frames in a row before others are to run.
const CONTROL_FRAMES_MAX: usize = 32;

/// How a protocol travels over WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As a stream of bytes, whose cuts mean nothing, in binary messages only (MQTT, AMQP).
    Binary,
    /// As a stream of bytes that is mostly text, in messages of either kind (STOMP).
    Text,
    /// In text messages whose boundaries the session sees, see `polymq_contract::web_message`
    /// (XMPP).
    TextMessages,
    /// In messages of either kind whose boundaries the session sees.
    Messages,
}

impl Form {
    /// True when the session reads and writes frames.
    pub fn keeps_frames(self) -> bool {
        matches!(self, Self::TextMessages | Self::Messages)
    }

    fn takes(self, is_text: bool) -> bool {
        match self {
            Self::Binary => !is_text,
            Self::TextMessages => is_text,
            Self::Text | Self::Messages => true,
        }
    }

    fn refusal(self) -> &'static str {
        match self {
            Self::Binary => "this protocol travels in binary messages",
            _ => "this protocol travels in text messages",
        }
    }
}

/// What the frames of a client come to when they are read in pieces of `step` bytes: what a session
/// would see, or the close code of the first mistake. For tests.
///
/// Errors: the code.
pub fn read_frames(form: Form, mut bytes: &[u8], step: usize) -> Result<Vec<u8>, u16> {
    let mut decoder = Decoder::new(form, MESSAGE_ROOM_BYTES);
    let (mut seen, code) = (Vec::new(), |fault: Fault| u16::from(fault.code));
    while !bytes.is_empty() && decoder.heard.close.is_none() {
        if let Some(room) = decoder.head_room() {
            let count = room.len().min(step).min(bytes.len());
            let (piece, rest) = bytes.split_at(count);
            room.iter_mut().zip(piece).for_each(|(to, from)| *to = *from);
            bytes = rest;
            let mut kept = Kept::default();
            decoder.head_grew(count, &mut kept).map_err(code)?;
            seen.extend_from_slice(kept.as_slice());
            continue;
        }
        let (piece, rest) = bytes.split_at(step.min(bytes.len()));
        bytes = rest;
        let mut piece = piece.to_vec();
        let count = decoder.decode(&mut piece).map_err(code)?;
        seen.extend_from_slice(piece.get(..count).unwrap_or_default());
    }
    Ok(seen)
}

/// A WebSocket over another socket.
pub(crate) struct WebSocket<S> {
    socket: S,
    decoder: Decoder,
    sender: Sender,
    /// A head that the session is still to read.
    kept: Kept,
    silence: Silence,
    /// The client has broken the rules of WebSocket.
    fault: Option<Fault>,
    /// The client has closed, or its stream is at its end.
    is_over: bool,
    is_gone: bool,
    /// Only the end of the stream is waited for.
    is_parting: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    pub(crate) fn new(socket: S, form: Form, limits: &Limits) -> Self {
        Self {
            socket,
            decoder: Decoder::new(form, message_bytes_max(form, limits)),
            sender: Sender::new(form),
            kept: Kept::default(),
            silence: Silence::new(limits.web_socket_silence),
            fault: None,
            is_over: false,
            is_gone: false,
            is_parting: false,
        }
    }

    fn fail(&mut self, fault: Fault) -> io::Error {
        self.fault = Some(fault);
        self.is_over = true;
        self.sender.close(fault.code, fault.text);
        io::Error::new(io::ErrorKind::InvalidData, fault.text)
    }

    /// Answers pings and a close.
    fn react(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(ping) = self.decoder.heard.ping.take() {
            self.sender.pong(ping);
        }
        if let Some(code) = self.decoder.heard.close {
            self.is_over = true;
            self.sender.close(code.unwrap_or(CloseCode::Normal), "");
        }
        self.push_control(cx)
    }

    /// Writes control frames if they may leave now; otherwise the task is woken for it.
    fn push_control(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Poll::Ready(written) = self.sender.poll_control(&mut self.socket, cx) {
            written?;
            if let Poll::Ready(flushed) = Pin::new(&mut self.socket).poll_flush(cx) {
                flushed?;
            }
        }
        Ok(())
    }

    /// One read of the socket; what of it is payload is in `buf` afterwards. True at the end of the
    /// stream.
    fn poll_frames(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<bool>> {
        if let Some(room) = self.decoder.head_room() {
            let mut head = ReadBuf::new(room);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut head))?;
            let count = head.filled().len();
            self.decoder.head_grew(count, &mut self.kept).map_err(|fault| self.fail(fault))?;
            return Poll::Ready(Ok(count == 0));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        let raw = buf.filled_mut().get_mut(before..).unwrap_or_default();
        let is_end = raw.is_empty();
        match self.decoder.decode(raw) {
            Ok(payload) => {
                buf.set_filled(before.saturating_add(payload));
                Poll::Ready(Ok(is_end))
            }
            Err(fault) => {
                buf.set_filled(before);
                Poll::Ready(Err(self.fail(fault)))
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Reads and forgets until the client has answered the close frame, or its stream ends.
    fn poll_rest(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        for _ in 0..CONTROL_FRAMES_MAX {
            if self.decoder.heard.close.is_some() {
                return Poll::Ready(Ok(()));
            }
            if self.fault.is_some() {
                ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
                if buf.filled().len() == before {
                    return Poll::Ready(Ok(()));
                }
            } else if let Ok(true) = ready!(self.poll_frames(cx, buf)) {
                return Poll::Ready(Ok(()));
            }
            buf.set_filled(before);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.is_parting {
            return this.poll_rest(cx, buf);
        }
        this.push_control(cx)?;
        for _ in 0..CONTROL_FRAMES_MAX {
            let kept = this.kept.take(buf.initialize_unfilled());
            if kept > 0 {
                buf.advance(kept);
                return Poll::Ready(Ok(()));
            }
            if this.is_over {
                return Poll::Ready(Ok(()));
            }
            let before = buf.filled().len();
            match this.poll_frames(cx, buf) {
                Poll::Ready(Ok(is_end)) => {
                    this.silence.broken();
                    this.is_over |= is_end;
                    this.is_gone |= is_end;
                    this.react(cx)?;
                    if buf.filled().len() > before {
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Ready(Err(error)) => {
                    this.is_gone |= this.fault.is_none();
                    this.push_control(cx)?;
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => match this.silence.poll(cx) {
                    Silent::No => return Poll::Pending,
                    Silent::Ask => {
                        this.sender.ping();
                        this.push_control(cx)?;
                    }
                    Silent::Lost => return Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                },
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
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
        let this = &mut *self;
        this.sender.poll_payload(&mut this.socket, cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.sender.poll_control(&mut this.socket, cx))?;
        Pin::new(&mut this.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.sender.close(CloseCode::Normal, "");
        ready!(this.sender.poll_control(&mut this.socket, cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

/// In a box, because the task of a connection has room for its socket at each place where it may
/// wait.
impl<S: Socket> Socket for Box<WebSocket<S>> {
    fn unwatch(&mut self) -> io::Result<()> {
        self.socket.unwatch()
    }

    fn watch(&mut self) -> io::Result<bool> {
        self.socket.watch()
    }

    fn is_hung_up(&self) -> bool {
        self.socket.is_hung_up()
    }

    fn has_fault(&self) -> bool {
        self.fault.is_some()
    }

    fn parts(&mut self, ending: &Ending, is_stopping: bool) -> bool {
        if self.is_gone || matches!(ending, Ending::HandedOver) {
            return false;
        }
        if !self.sender.is_closing() {
            let (code, text) = close_of(ending, is_stopping);
            self.sender.close(code, text);
        }
        self.is_parting = true;
        true
    }
}

/// What a client may announce as one message.
fn message_bytes_max(form: Form, limits: &Limits) -> usize {
    // As JSON a body may be base64.
    let factor = if form == Form::Messages { 2 } else { 1 };
    limits.message_bytes_max.saturating_mul(factor).saturating_add(MESSAGE_ROOM_BYTES)
}

/// RFC 6455, section 7.4.1, and codes registered since.
fn close_of(ending: &Ending, is_stopping: bool) -> (CloseCode, &'static str) {
    match ending {
        Ending::Shutdown => (CloseCode::Away, "the server stops"),
        Ending::Session(_) if is_stopping => (CloseCode::Away, "the server stops"),
        Ending::Session(close) => match close.cause {
            "client" | "session" | "shutdown" | "system-shutdown" => (CloseCode::Normal, ""),
            "protocol_error" | "frame_error" | "syntax_error" => (CloseCode::Protocol, close.cause),
            "message_too_long" | "packet_too_large" => (CloseCode::Size, close.cause),
            "not_text" => (CloseCode::Invalid, close.cause),
            "limit" => (CloseCode::Again, close.cause),
            "bug" => (CloseCode::Error, ""),
            cause => (CloseCode::Policy, cause),
        },
        Ending::LoginTimeout => (CloseCode::Policy, "no login in time"),
        Ending::LoginBytes => (CloseCode::Policy, "too much before the login"),
        Ending::Refused => (CloseCode::Again, "too many connections"),
        Ending::Panic => (CloseCode::Error, ""),
        Ending::PeerGone
        | Ending::Fault
        | Ending::Evicted
        | Ending::Handshake
        | Ending::Unrecognised
        | Ending::HandedOver => (CloseCode::Policy, ending.word()),
    }
}

/// How long the client has said nothing. Time in which nothing is read does not count.
#[derive(Debug)]
struct Silence {
    bound: Duration,
    timer: Timer,
    /// When it is looked at again.
    at: Option<Instant>,
    was_broken: bool,
    is_asked: bool,
}

enum Silent {
    No,
    Ask,
    Lost,
}

impl Silence {
    fn new(bound: Duration) -> Self {
        Self { bound, timer: Timer::default(), at: None, was_broken: false, is_asked: false }
    }

    fn broken(&mut self) {
        self.was_broken = true;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Silent {
        let now = clock::now().instant;
        loop {
            let at = *self.at.get_or_insert_with(|| now + self.bound);
            if !self.timer.poll(Some(at), now, cx) {
                return Silent::No;
            }
            self.at = Some(now + self.bound);
            if std::mem::take(&mut self.was_broken) {
                self.is_asked = false;
            } else if std::mem::replace(&mut self.is_asked, true) {
                return Silent::Lost;
            } else {
                return Silent::Ask;
            }
        }
    }
}
