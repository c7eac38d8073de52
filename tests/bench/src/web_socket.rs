//! WebSocket (RFC 6455) as the generator speaks it: a handshake, a frame around each packet as
//! clients' libraries write them, and a scan that takes the heads of frames out of what came.

use std::io::Write;
use std::net::SocketAddr;

use anyhow::{Result, bail};

use crate::wire::Wire;

/// A key that is not zero, so that unmasking is no shorter than for others.
const MASK: [u8; 4] = [0x5A, 0xA5, 0x3C, 0xC3];

/// Opens a connection and asks for a subprotocol.
pub fn open(addr: SocketAddr, path: &str, subprotocol: &str) -> Result<Wire> {
    let mut wire = Wire::connect(addr)?;
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
    );
    wire.stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.extend(wire.take(1)?);
    }
    if !answer.starts_with(b"HTTP/1.1 101") {
        bail!("the broker answered `{}`", String::from_utf8_lossy(&answer));
    }
    wire.speak_frames();
    Ok(wire)
}

/// A packet in a frame of its own.
pub fn frame(packet: &[u8]) -> Vec<u8> {
    let mut out = vec![0x82];
    match u8::try_from(packet.len()) {
        Ok(length) if length < 126 => out.push(0x80 | length),
        _ => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(packet.len() as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(packet.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// Where in the frames of a server the bytes stand that come next.
#[derive(Debug, Default)]
pub struct Frames {
    head: Vec<u8>,
    left: usize,
    is_control: bool,
}

impl Frames {
    /// Takes heads and control frames out of what has come; returns how many bytes are left, at
    /// the start.
    pub fn strip(&mut self, bytes: &mut [u8]) -> usize {
        let (mut from, mut to) = (0, 0);
        while from < bytes.len() {
            if self.left > 0 {
                let count = self.left.min(bytes.len() - from);
                if !self.is_control {
                    bytes.copy_within(from..from + count, to);
                    to += count;
                }
                from += count;
                self.left -= count;
                continue;
            }
            self.head.push(bytes[from]);
            from += 1;
            let length = match self.head[..] {
                [_, length] if length < 126 => Some(usize::from(length)),
                [_, 126, high, low] => Some(usize::from(high) << 8 | usize::from(low)),
                [_, 127, .., a, b, c, d] if self.head.len() == 10 => {
                    Some(u32::from_be_bytes([a, b, c, d]) as usize)
                }
                _ => None,
            };
            if let Some(length) = length {
                self.is_control = self.head[0] & 0x08 != 0;
                self.left = length;
                self.head.clear();
            }
        }
        to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_a_server_are_taken_apart_however_they_are_split() {
        let mut wire = vec![0x82, 3, b'a', b'b', b'c', 0x89, 2, b'x', b'x', 0x82, 126, 0, 200];
        wire.extend([b'd'; 200]);
        wire.extend([0x82, 127, 0, 0, 0, 0, 0, 0, 0, 1, b'e']);
        let expected = [b"abc".as_slice(), &[b'd'; 200], b"e"].concat();
        for cut in 0..=wire.len() {
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            for part in [&wire[..cut], &wire[cut..]] {
                let mut part = part.to_vec();
                let count = frames.strip(&mut part);
                found.extend_from_slice(&part[..count]);
            }
            assert_eq!(found, expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_packet_is_masked() {
        assert_eq!(frame(b"\0")[..], [0x82, 0x81, 0x5A, 0xA5, 0x3C, 0xC3, 0x5A]);
        assert_eq!(frame(&[0; 200])[..4], [0x82, 0xFE, 0, 200]);
    }
}
