//! Escapes of header names and values, by version.
//!
//! Specification: value encoding, in STOMP 1.1 and 1.2; version 1.0 has none.

use std::borrow::Cow;

use bytes::BufMut;
use memchr::{memchr, memchr3};

use super::Version;

/// A backslash with another character behind it than those of the version, which the specification
/// calls fatal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("undefined escape in a header")]
pub struct BadEscape;

/// Decodes a header name or value; borrows when there is nothing to decode.
///
/// Errors: [`BadEscape`] for an escape that the version does not define.
pub fn unescape(raw: &str, version: Version) -> Result<Cow<'_, str>, BadEscape> {
    if version == Version::V10 {
        return Ok(Cow::Borrowed(raw));
    }
    let mut out = String::new();
    let mut rest = raw;
    while let Some(at) = memchr(b'\\', rest.as_bytes()) {
        let (plain, escape) = rest.split_at(at);
        out.push_str(plain);
        let mut chars = escape.chars();
        chars.next();
        out.push(match chars.next() {
            Some('n') => '\n',
            Some('c') => ':',
            Some('\\') => '\\',
            Some('r') if version == Version::V12 => '\r',
            _ => return Err(BadEscape),
        });
        rest = chars.as_str();
    }
    if out.is_empty() && rest.len() == raw.len() {
        return Ok(Cow::Borrowed(raw));
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

/// Appends a header name or value as the version writes it. What it cannot write must not be in
/// `text`, see the targets in `polymq_model::carry`.
pub fn put_escaped(text: &str, version: Version, out: &mut impl BufMut) {
    let mut rest = text.as_bytes();
    if version == Version::V10 {
        return out.put_slice(rest);
    }
    while let Some(at) = next_special(rest, version) {
        let (plain, special) = rest.split_at(at);
        out.put_slice(plain);
        let Some((byte, tail)) = special.split_first() else { break };
        out.put_slice(match byte {
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b':' => b"\\c",
            _ => b"\\\\",
        });
        rest = tail;
    }
    out.put_slice(rest);
}

fn next_special(bytes: &[u8], version: Version) -> Option<usize> {
    let at = memchr3(b'\n', b':', b'\\', bytes);
    if version != Version::V12 {
        return at;
    }
    let before = at.and_then(|at| bytes.get(..at)).unwrap_or(bytes);
    memchr(b'\r', before).or(at)
}
