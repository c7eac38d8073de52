//! The headers of a message as they are kept: the sender's lines in order, as STOMP 1.2 writes
//! them, without those that belong to the server.

use std::borrow::Cow;

use memchr::{memchr2, memchr3};

use crate::codec::{Version, put_escaped, unescape};

/// Appends a line as a client of `version` wrote it.
pub(crate) fn put_line(name: &str, value: &str, version: Version, out: &mut Vec<u8>) {
    let is_plain = memchr3(b'\\', b':', b'\r', value.as_bytes()).is_none()
        && memchr2(b'\\', b'\r', name.as_bytes()).is_none();
    if is_plain {
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        out.extend_from_slice(value.as_bytes());
    } else {
        put_part(name, version, out);
        out.push(b':');
        put_part(value, version, out);
    }
    out.push(b'\n');
}

/// A part with something in it that may be written in another way.
fn put_part(text: &str, version: Version, out: &mut Vec<u8>) {
    // Escapes were looked at when the frame was read.
    let meant = unescape(text, version).unwrap_or(Cow::Borrowed(text));
    put_escaped(&meant, Version::V12, out);
}

/// The kept lines, as they stand.
pub(crate) fn lines(native: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    let text = std::str::from_utf8(native).unwrap_or_default();
    text.split_terminator('\n').filter_map(|line| line.split_once(':'))
}

/// Takes away the lines of some headers.
pub(crate) fn remove(native: &mut Vec<u8>, is_one: impl Fn(&str) -> bool) {
    let all = std::mem::take(native);
    for (name, value) in lines(&all).filter(|(name, _)| !is_one(name)) {
        native.extend_from_slice(name.as_bytes());
        native.push(b':');
        native.extend_from_slice(value.as_bytes());
        native.push(b'\n');
    }
}

/// True when a client of `version` can be sent the lines as they are kept.
pub(crate) fn is_verbatim(native: &[u8], version: Version) -> bool {
    match version {
        Version::V12 => true,
        // The escape of a carriage return, and perhaps a backslash before an `r`.
        Version::V11 => memchr::memmem::find(native, b"\\r").is_none(),
        Version::V10 => memchr::memchr(b'\\', native).is_none(),
    }
}
