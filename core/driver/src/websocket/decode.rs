//! Frames of a WebSocket client, taken apart where they lie (RFC 6455, section 5).
//!
//! Nothing is collected but control frames, which are short: payload moves to the front of the
//! buffer that it was read into, so a connection that waits holds no buffer, and a frame costs
//! memory only when the session keeps it.

use std::io::Cursor;

use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{CloseCode, Control, Data, OpCode},
};

use super::{Form, text::TextCheck};

/// The longest head of a frame.
pub(super) const HEAD_BYTES_MAX: usize = 14;
/// RFC 6455, section 5.5.
const CONTROL_BYTES_MAX: u64 = 125;
/// Bytes of a mask.
const MASK_BYTES: usize = 4;

/// What a client did wrong, with the close code for it (RFC 6455, section 7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: CloseCode,
    pub(super) text: &'static str,
}

const fn fault(code: CloseCode, text: &'static str) -> Fault {
    Fault { code, text }
}

const fn protocol(text: &'static str) -> Fault {
    fault(CloseCode::Protocol, text)
}

/// What control frames have said, until somebody has reacted to it.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Payload of the last ping; only the last one must be answered.
    pub(super) ping: Option<Vec<u8>>,
    /// The client closes, and why if it says so. Nothing behind it is looked at.
    pub(super) close: Option<Option<CloseCode>>,
}

/// The state between two reads.
#[derive(Debug)]
pub(super) struct Decoder {
    form: Form,
    message_bytes_max: u64,
    /// A head that has come in part.
    head: [u8; HEAD_BYTES_MAX],
    head_bytes: usize,
    frame: Option<Frame>,
    /// The message that is open: it holds text, and so many bytes have been announced.
    message: Option<(bool, u64)>,
    text: TextCheck,
    control: Vec<u8>,
    pub(super) heard: Heard,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    opcode: OpCode,
    is_final: bool,
    mask: [u8; MASK_BYTES],
    left: u64,
}

impl Decoder {
    pub(super) fn new(form: Form, message_bytes_max: usize) -> Self {
        Self {
            form,
            message_bytes_max: u64::try_from(message_bytes_max).unwrap_or(u64::MAX),
            head: [0; HEAD_BYTES_MAX],
            head_bytes: 0,
            frame: None,
            message: None,
            text: TextCheck::default(),
            control: Vec::new(),
            heard: Heard::default(),
        }
    }

    /// Room behind the part of a head that has come; `None` when none has, so that the next bytes
    /// may be read wherever they are wanted. What is read there is told by [`Decoder::head_grew`].
    pub(super) fn head_room(&mut self) -> Option<&mut [u8]> {
        if self.head_bytes == 0 {
            return None;
        }
        let wanted = head_wanted(self.head.get(..self.head_bytes).unwrap_or_default());
        self.head.get_mut(self.head_bytes..wanted)
    }

    /// So many bytes have come into [`Decoder::head_room`]. When the head is whole, what the
    /// session is to see of it goes to `kept`.
    pub(super) fn head_grew(&mut self, count: usize, kept: &mut Kept) -> Result<(), Fault> {
        self.head_bytes = self.head_bytes.saturating_add(count);
        let head = self.head;
        let head = head.get(..self.head_bytes).unwrap_or_default();
        if let Some((header, length, _)) = parse(head)? {
            self.head_bytes = 0;
            if self.begin(&header, length)? {
                *kept = unmasked(head);
            }
            self.end_if_done()?;
        }
        Ok(())
    }

    /// Takes what was read. What the session is to see stands at the front afterwards; returns how
    /// much.
    pub(super) fn decode(&mut self, raw: &mut [u8]) -> Result<usize, Fault> {
        let (mut read, mut written) = (0_usize, 0_usize);
        while read < raw.len() && self.heard.close.is_none() {
            let Some(frame) = self.frame else {
                let rest = raw.get(read..).unwrap_or_default();
                let Some((header, length, head_bytes)) = parse(rest)? else {
                    self.head_bytes = rest.len();
                    self.head.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
                    break;
                };
                let kept = unmasked(rest.get(..head_bytes).unwrap_or_default());
                read = read.saturating_add(head_bytes);
                if self.begin(&header, length)? {
                    // Without its mask a head is shorter, so it never reaches what is unread.
                    let kept = kept.as_slice();
                    let to = raw.get_mut(written..written.saturating_add(kept.len()));
                    to.unwrap_or_default().copy_from_slice(kept);
                    written = written.saturating_add(kept.len());
                }
                self.end_if_done()?;
                continue;
            };
            let left = usize::try_from(frame.left).unwrap_or(usize::MAX);
            let end = read.saturating_add(left).min(raw.len());
            let piece = raw.get_mut(read..end).unwrap_or_default();
            let count = piece.len();
            self.take_payload(frame, piece)?;
            if let OpCode::Data(_) = frame.opcode {
                raw.copy_within(read..end, written);
                written = written.saturating_add(count);
            }
            read = end;
            self.end_if_done()?;
        }
        Ok(written)
    }

    fn take_payload(&mut self, frame: Frame, piece: &mut [u8]) -> Result<(), Fault> {
        unmask(piece, frame.mask);
        let count = piece.len();
        let mut mask = frame.mask;
        mask.rotate_left(count % MASK_BYTES);
        let left = frame.left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        self.frame = Some(Frame { mask, left, ..frame });
        match frame.opcode {
            OpCode::Control(_) => self.control.extend_from_slice(piece),
            OpCode::Data(_) if self.message.is_some_and(|(is_text, _)| is_text) => {
                self.text.check(piece).map_err(|()| NOT_TEXT)?;
            }
            OpCode::Data(_) => {}
        }
        Ok(())
    }

    /// Checks a head; true when the session is to see it.
    fn begin(&mut self, header: &FrameHeader, length: u64) -> Result<bool, Fault> {
        let mask = header.mask.ok_or(protocol("a client masks its frames"))?;
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(protocol("no extension was agreed on"));
        }
        if length > i64::MAX.unsigned_abs() {
            return Err(protocol("a length has its highest bit set"));
        }
        match header.opcode {
            OpCode::Control(_) if !header.is_final || length > CONTROL_BYTES_MAX => {
                return Err(protocol("a control frame is short and in one piece"));
            }
            OpCode::Control(_) => {}
            OpCode::Data(data) => self.begin_data(data, length)?,
        }
        let (opcode, is_final) = (header.opcode, header.is_final);
        self.frame = Some(Frame { opcode, is_final, mask, left: length });
        Ok(matches!(opcode, OpCode::Data(_)) && self.form.keeps_frames())
    }

    fn begin_data(&mut self, data: Data, length: u64) -> Result<(), Fault> {
        let (is_text, before) = match (data, self.message) {
            (Data::Continue, Some(open)) => open,
            (Data::Continue, None) => {
                return Err(protocol("there is no message to go on with"));
            }
            (_, Some(_)) => {
                return Err(protocol("a message begins inside another one"));
            }
            (Data::Text, None) => (true, 0),
            (_, None) => (false, 0),
        };
        if !self.form.takes(is_text) {
            return Err(fault(CloseCode::Unsupported, self.form.refusal()));
        }
        let announced = before.saturating_add(length);
        if announced > self.message_bytes_max {
            return Err(fault(CloseCode::Size, "a message is too long"));
        }
        self.message = Some((is_text, announced));
        Ok(())
    }

    /// Ends a frame of which nothing is left.
    fn end_if_done(&mut self) -> Result<(), Fault> {
        let Some(frame) = self.frame.take_if(|frame| frame.left == 0) else { return Ok(()) };
        match frame.opcode {
            OpCode::Data(_) if frame.is_final => {
                self.message = None;
                self.text.end().map_err(|()| NOT_TEXT)
            }
            OpCode::Data(_) => Ok(()),
            OpCode::Control(control) => {
                let payload = std::mem::take(&mut self.control);
                match control {
                    Control::Ping => self.heard.ping = Some(payload),
                    Control::Close => self.heard.close = Some(close_code(&payload)?),
                    Control::Pong | Control::Reserved(_) => {}
                }
                Ok(())
            }
        }
    }
}

const NOT_TEXT: Fault = fault(CloseCode::Invalid, "a text is not UTF-8");

/// RFC 6455, section 7.4.
fn close_code(payload: &[u8]) -> Result<Option<CloseCode>, Fault> {
    match payload {
        [] => Ok(None),
        [high, low, reason @ ..] => {
            let code = CloseCode::from(u16::from_be_bytes([*high, *low]));
            if !code.is_allowed() {
                return Err(protocol("a close code means nothing"));
            }
            std::str::from_utf8(reason).map_err(|_| NOT_TEXT)?;
            Ok(Some(code))
        }
        [_] => Err(protocol("half a close code")),
    }
}

/// A head at the front of `bytes`: what it says, the length of the payload, its own length.
fn parse(bytes: &[u8]) -> Result<Option<(FrameHeader, u64, usize)>, Fault> {
    let mut cursor = Cursor::new(bytes);
    let parsed =
        FrameHeader::parse(&mut cursor).map_err(|_| protocol("an unknown kind of frame"))?;
    let Some((header, length)) = parsed else { return Ok(None) };
    let head_bytes = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
    if header.len(length) != head_bytes {
        return Err(protocol("a length is written longer than it needs to be"));
    }
    Ok(Some((header, length, head_bytes)))
}

/// How long the head that begins so is as far as can be known.
fn head_wanted(head: &[u8]) -> usize {
    let Some(second) = head.get(1) else { return 2 };
    let mask = if second & 0x80 == 0 { 0 } else { MASK_BYTES };
    let length = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    mask.saturating_add(length).saturating_add(2)
}

/// A head as a session sees it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Kept {
    bytes: [u8; HEAD_BYTES_MAX],
    length: usize,
}

impl Kept {
    pub(super) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// Moves the front of it into `to`; returns how much.
    pub(super) fn take(&mut self, to: &mut [u8]) -> usize {
        let count = self.length.min(to.len());
        to.iter_mut().zip(self.bytes).for_each(|(to, from)| *to = from);
        self.bytes.copy_within(count..self.length, 0);
        self.length = self.length.saturating_sub(count);
        count
    }
}

fn unmasked(head: &[u8]) -> Kept {
    let mut kept = Kept { length: head.len().saturating_sub(MASK_BYTES), ..Kept::default() };
    kept.bytes.iter_mut().zip(head).for_each(|(to, from)| *to = *from);
    if let Some(second) = kept.bytes.get_mut(1) {
        *second &= 0x7f;
    }
    kept
}

fn unmask(piece: &mut [u8], mask: [u8; MASK_BYTES]) {
    let (words, rest) = piece.as_chunks_mut::<MASK_BYTES>();
    for word in words {
        word.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }
    rest.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}
