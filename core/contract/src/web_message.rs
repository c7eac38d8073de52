//! WebSocket messages as sessions see them on [`crate::Transport::Messages`].
//!
//! There the bytes of both directions are data frames of RFC 6455, section 5.2, without masks. The
//! driver has checked those that come, answers control frames itself, and puts its own between
//! those that leave.

use bytes::{BufMut, Bytes, BytesMut};

const FINAL: u8 = 0x80;
const TEXT: u8 = 1;
const BINARY: u8 = 2;

/// What a message claims to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// Text in UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

/// A whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebMessage {
    /// What it claims to hold.
    pub kind: MessageKind,
    /// What it holds.
    pub payload: Bytes,
}

/// A message is longer than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of more than {bytes_max} bytes")]
pub struct MessageTooLong {
    /// What is allowed.
    pub bytes_max: usize,
}

/// Appends the head of a message of `length` bytes, which follow.
pub fn put_head(kind: MessageKind, length: usize, out: &mut impl BufMut) {
    out.put_u8(match kind {
        MessageKind::Text => FINAL | TEXT,
        MessageKind::Binary => FINAL | BINARY,
    });
    match u16::try_from(length) {
        Ok(short @ 0..=125) => out.put_u8(short.to_be_bytes()[1]),
        Ok(short) => {
            out.put_u8(126);
            out.put_u16(short);
        }
        Err(_) => {
            out.put_u8(127);
            out.put_u64(u64::try_from(length).unwrap_or(u64::MAX));
        }
    }
}

/// Puts the frames of a connection together to messages.
#[derive(Debug, Default)]
pub struct WebMessages {
    /// What came of a message whose last frame is due.
    joined: Option<(MessageKind, BytesMut)>,
}

impl WebMessages {
    /// The next whole message from the front of `input`; `None` when more must come.
    ///
    /// Errors: [`MessageTooLong`], as soon as a head or the sum of the frames says so.
    pub fn next(
        &mut self,
        input: &mut BytesMut,
        bytes_max: usize,
    ) -> Result<Option<WebMessage>, MessageTooLong> {
        loop {
            let Some((first, head_bytes, length)) = head(input) else { return Ok(None) };
            let before = self.joined.as_ref().map_or(0, |(_, joined)| joined.len());
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if before.saturating_add(length) > bytes_max {
                return Err(MessageTooLong { bytes_max });
            }
            if input.len() < head_bytes.saturating_add(length) {
                return Ok(None);
            }
            let _ = input.split_to(head_bytes);
            let payload = input.split_to(length);
            let is_final = first & FINAL != 0;
            let kind = match first & 0xf {
                TEXT => MessageKind::Text,
                _ => MessageKind::Binary,
            };
            match (self.joined.take(), is_final) {
                (None, true) => return Ok(Some(WebMessage { kind, payload: payload.freeze() })),
                (None, false) => self.joined = Some((kind, payload)),
                (Some((kind, mut joined)), is_final) => {
                    joined.extend_from_slice(&payload);
                    if is_final {
                        return Ok(Some(WebMessage { kind, payload: joined.freeze() }));
                    }
                    self.joined = Some((kind, joined));
                }
            }
        }
    }
}

/// First byte, bytes of the head and of the payload of the frame at the front, once they are there.
fn head(input: &[u8]) -> Option<(u8, usize, u64)> {
    match *input {
        [first, 126, a, b, ..] => Some((first, 4, u16::from_be_bytes([a, b]).into())),
        [first, 127, a, b, c, d, e, f, g, h, ..] => {
            Some((first, 10, u64::from_be_bytes([a, b, c, d, e, f, g, h])))
        }
        [_, 126 | 127, ..] => None,
        [first, length, ..] => Some((first, 2, length.into())),
        [] | [_] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: MessageKind, payload: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::new();
        put_head(kind, payload.len(), &mut bytes);
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn what_is_written_is_read_again_however_it_is_cut() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
            let payload = vec![7; length];
            let written = message(MessageKind::Binary, &payload);
            for step in [1, 3, usize::MAX] {
                let (mut messages, mut input) = (WebMessages::default(), BytesMut::new());
                let mut found = None;
                for piece in written.chunks(step.min(written.len())) {
                    assert!(found.is_none());
                    input.extend_from_slice(piece);
                    found = messages.next(&mut input, 100_000).expect("small enough");
                }
                let found = found.expect("a message");
                assert_eq!((found.kind, found.payload.len()), (MessageKind::Binary, length));
            }
        }
    }

    #[test]
    fn fragments_are_joined() {
        let mut input = BytesMut::from(&b"\x01\x03abc\x00\x00\x80\x02de\x81\x01f"[..]);
        let mut messages = WebMessages::default();
        let first = messages.next(&mut input, 100).expect("small").expect("a message");
        assert_eq!((first.kind, &first.payload[..]), (MessageKind::Text, &b"abcde"[..]));
        let second = messages.next(&mut input, 100).expect("small").expect("a message");
        assert_eq!(&second.payload[..], b"f");
        assert_eq!(messages.next(&mut input, 100), Ok(None));
    }

    #[test]
    fn too_long_is_known_from_the_head() {
        let mut messages = WebMessages::default();
        let mut declared = BytesMut::from(&[0x82, 127, 0, 0, 1, 0, 0, 0, 0, 0][..]);
        assert_eq!(messages.next(&mut declared, 10), Err(MessageTooLong { bytes_max: 10 }));
        let mut fragments = BytesMut::from(&b"\x01\x06abcdef\x00\x06abcdef"[..]);
        assert!(messages.next(&mut fragments, 10).is_err());
    }
}
