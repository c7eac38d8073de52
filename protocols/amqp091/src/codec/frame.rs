//! The frame: one octet of type, two of channel, four of size, the payload, and the octet 0xCE.

use bytes::{BufMut, BytesMut};

use super::reader::Reader;

/// Method frame.
pub const METHOD: u8 = 1;
/// Content header frame.
pub const HEADER: u8 = 2;
/// Content body frame.
pub const BODY: u8 = 3;
/// Heartbeat frame.
pub const HEARTBEAT: u8 = 8;
/// The last octet of every frame.
pub const END: u8 = 0xCE;
/// Octets before the payload.
pub const HEAD_BYTES: usize = 7;
/// Octets of a frame beside its payload.
pub const OVERHEAD_BYTES: usize = 8;
/// The smallest `frame_max` that may be negotiated.
pub const FRAME_BYTES_MIN: u32 = 4096;
/// A heartbeat, ready to send.
pub const HEARTBEAT_FRAME: [u8; OVERHEAD_BYTES] = [HEARTBEAT, 0, 0, 0, 0, 0, 0, END];

/// A frame at the front of the input.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// One of the four types.
    pub kind: u8,
    /// The channel.
    pub channel: u16,
    /// What it carries.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// Octets of the whole frame.
    pub fn size(&self) -> usize {
        self.payload.len().saturating_add(OVERHEAD_BYTES)
    }
}

/// Why the input is not a frame. Each is answered with 501.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A type that does not exist.
    #[error("unknown frame type {0}")]
    Kind(u8),
    /// Larger than agreed.
    #[error("frame of {size} bytes is larger than the maximum of {size_max}")]
    TooLarge {
        /// Size of the whole frame.
        size: u64,
        /// What is allowed.
        size_max: usize,
    },
    /// The last octet is wrong.
    #[error("frame ends with octet {0}, expected 206")]
    End(u8),
}

/// The frame at the front of `input`, or `None` when it is not whole yet.
///
/// The declared size is checked against `size_max` before anything waits for it. Some clients take
/// that for the size of the payload, so they are allowed the [`OVERHEAD_BYTES`] more.
///
/// Errors: [`FrameError`].
#[inline]
pub fn split(input: &[u8], size_max: usize) -> Result<Option<Frame<'_>>, FrameError> {
    let mut reader = Reader::new(input);
    let Ok(kind) = reader.u8() else { return Ok(None) };
    if !matches!(kind, METHOD | HEADER | BODY | HEARTBEAT) {
        return Err(FrameError::Kind(kind));
    }
    let (Ok(channel), Ok(len)) = (reader.u16(), reader.u32()) else { return Ok(None) };
    let size = u64::from(len).saturating_add(8);
    if usize::try_from(len).map_or(true, |len| len > size_max) {
        return Err(FrameError::TooLarge { size, size_max });
    }
    let Ok(payload) = usize::try_from(len).map_or(Ok(&[][..]), |len| reader.take(len)) else {
        return Ok(None);
    };
    match reader.u8() {
        Ok(END) => Ok(Some(Frame { kind, channel, payload })),
        Ok(other) => Err(FrameError::End(other)),
        Err(_) => Ok(None),
    }
}

/// Appends the first seven octets of a frame.
#[inline]
pub fn put_head(out: &mut BytesMut, kind: u8, channel: u16, payload_bytes: usize) {
    let [c1, c0] = channel.to_be_bytes();
    // A payload is never larger than `frame_max`, which is a u32.
    let [s3, s2, s1, s0] = u32::try_from(payload_bytes).unwrap_or(u32::MAX).to_be_bytes();
    out.put_slice(&[kind, c1, c0, s3, s2, s1, s0]);
}

/// Appends a whole frame.
#[inline]
pub fn put(out: &mut BytesMut, kind: u8, channel: u16, payload: &[u8]) {
    put_head(out, kind, channel, payload.len());
    out.put_slice(payload);
    out.put_u8(END);
}

/// Appends a short string, cut to 255 bytes at a character when it is longer.
#[inline]
pub fn put_short(out: &mut impl BufMut, text: &str) {
    let text = clipped(text);
    out.put_u8(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.put_slice(text.as_bytes());
}

/// `text`, cut to at most 255 bytes at a character.
pub fn clipped(text: &str) -> &str {
    text.get(..text.floor_char_boundary(255)).unwrap_or("")
}
