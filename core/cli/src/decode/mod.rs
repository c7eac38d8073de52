//! How bodies are shown to people.

mod cbor;
mod protobuf;

use serde_json::Value;

use crate::arguments::Decode;

/// Items within items, before a body is taken for damage.
const DEPTH_MAX: usize = 32;

/// Why a body is not what somebody took it for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mistake {
    /// Bytes before the mistake.
    at: usize,
    why: &'static str,
}

/// A body as text that a terminal does not obey.
pub(crate) fn decoded(how: Decode, body: &[u8]) -> String {
    let hex = || hex(body);
    match how {
        Decode::Hex => hex(),
        Decode::Text => safe(&String::from_utf8_lossy(body)),
        Decode::Json => match serde_json::from_slice::<Value>(body) {
            Ok(value) => safe(&format!("{value:#}")),
            Err(_) => safe(&String::from_utf8_lossy(body)),
        },
        Decode::Auto => std::str::from_utf8(body).map_or_else(|_| hex(), safe),
        Decode::Cbor => told("CBOR", cbor::notation(body), body),
        Decode::Proto => told("Protocol Buffers", protobuf::fields(body), body),
    }
}

fn told(what: &str, read: Result<String, Mistake>, body: &[u8]) -> String {
    match read {
        Ok(text) => text,
        Err(Mistake { at, why }) => format!("not {what} at byte {at}: {why}: {}", hex(body)),
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// A terminal would obey what strangers send.
fn safe(text: &str) -> String {
    let is_plain = |c: char| !c.is_control() || c == '\n' || c == '\t';
    if text.chars().all(is_plain) { text.to_owned() } else { text.escape_debug().to_string() }
}

/// Text in double quotes, on one line.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_shown_without_harm() {
        assert_eq!(decoded(Decode::Auto, "é\n".as_bytes()), "é\n");
        assert_eq!(decoded(Decode::Auto, &[0xff, 1]), "ff01");
        assert_eq!(decoded(Decode::Auto, b"\x1b[2J"), "\\u{1b}[2J");
        assert_eq!(decoded(Decode::Json, b"{\"a\":1}"), "{\n  \"a\": 1\n}");
        assert_eq!(quoted("a\"\u{1b}\u{9b}"), "\"a\\\"\\u001b\\u009b\"");
    }

    #[test]
    fn what_is_something_else_is_said_and_shown_as_it_is() {
        let told = decoded(Decode::Cbor, &[0x82, 1]);
        assert_eq!(told, "not CBOR at byte 2: it is cut off: 8201");
        let told = decoded(Decode::Proto, &[0x0a, 9, 1]);
        assert_eq!(told, "not Protocol Buffers at byte 2: it is cut off: 0a0901");
    }
}
