//! Percent-encoding, in the two strengths that addresses need.

use std::{borrow::Cow, fmt::Write as _};

/// Encodes every byte that is not unreserved in RFC 3986.
pub(super) fn encode_reserved(text: &str, out: &mut String) {
    encode(text, out, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~'));
}

/// Encodes what one level of an MQTT topic cannot hold, and the `%` itself.
pub(super) fn encode_level(text: &str, out: &mut String) {
    encode(text, out, |c| !matches!(c, '%' | '/' | '+' | '#' | '\0'));
}

/// Encodes what one part of a STOMP destination cannot hold, and the `%` itself.
pub(super) fn encode_part(text: &str, out: &mut String) {
    encode(text, out, |c| matches!(c, ' '..='~') && !matches!(c, '%' | '/'));
}

fn encode(text: &str, out: &mut String, is_plain: impl Fn(char) -> bool) {
    for c in text.chars() {
        if is_plain(c) {
            out.push(c);
            continue;
        }
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// Decodes a segment of a canonical text; `None` when a `%` begins no escape, a `/` is left, or the
/// bytes are no text.
pub(super) fn decode_strict(text: &str) -> Option<String> {
    let stray = text.split('%').skip(1).any(|tail| hex_pair(tail.as_bytes()).is_none());
    if stray || text.contains('/') {
        return None;
    }
    decode(text).map(Cow::into_owned)
}

/// Decodes every escape; a `%` that begins none is text. `None` when the bytes are no text.
pub(crate) fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match hex_pair(tail).filter(|_| byte == b'%') {
            Some(decoded) => {
                out.push(decoded);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => out.push(byte),
        }
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

fn hex_pair(bytes: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}
