//! Names in paths, and the keys of bindings.

use std::fmt::Write;

use polymq_model::{Table, sha256};

/// The name, with its plus signs as they are or as spaces: whichever exists; as it was written when
/// neither does. Tools disagree on how a space is written in a path.
pub(super) fn known(name: &str, exists: impl Fn(&str) -> bool) -> String {
    if name.contains('+') && !exists(name) {
        let spaced = name.replace('+', " ");
        if exists(&spaced) {
            return spaced;
        }
    }
    name.to_owned()
}

/// The part of a path, decoded; `None` when it is not UTF-8 or has a broken escape.
pub(super) fn decode(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = rest.get(2..)?;
    }
    String::from_utf8(bytes).ok()
}

/// The text as a part of a path.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                encoded.push(char::from(byte));
            }
            // Writing to a String cannot fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

/// What tells a binding from others between the same two ends: `~` for an empty key without
/// arguments, the encoded key without arguments, and otherwise the key and a hash.
pub(super) fn properties_key(key: &str, arguments: &Table) -> String {
    // The tilde divides key and hash, so it is encoded inside the key.
    let encoded = encode(key);
    if !arguments.is_empty() {
        let mut names: Vec<String> =
            arguments.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        names.sort();
        let hash = sha256(names.join("\0").as_bytes());
        let mut text = format!("{encoded}~");
        for byte in hash.iter().take(9) {
            let _ = write!(text, "{byte:02x}");
        }
        return text;
    }
    if encoded.is_empty() { "~".to_owned() } else { encoded }
}

#[cfg(test)]
mod tests {
    use polymq_model::Value;

    use super::*;

    #[test]
    fn paths_are_decoded_once() {
        assert_eq!(decode("%2F").as_deref(), Some("/"));
        assert_eq!(decode("a%252Fb+c").as_deref(), Some("a%2Fb+c"));
        for bad in ["%", "%2", "%zz", "%ff", "%+1"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
        let name = "a/b c~ü+%";
        assert_eq!(decode(&encode(name)).as_deref(), Some(name));
    }

    #[test]
    fn a_plus_is_a_space_only_where_that_exists() {
        assert_eq!(known("a+b", |name| name == "a b"), "a b");
        assert_eq!(known("a+b", |_| true), "a+b");
        assert_eq!(known("a+b", |_| false), "a+b");
    }

    #[test]
    fn bindings_are_told_apart() {
        let none = Table::new();
        let some = vec![("k".to_owned(), Value::I64(1))];
        assert_eq!(properties_key("", &none), "~");
        assert_eq!(properties_key("a.b", &none), "a.b");
        assert_eq!(properties_key("a~b", &none), "a%7Eb");
        let hashed = properties_key("a", &some);
        assert!(hashed.starts_with("a~") && hashed.len() == 20, "{hashed}");
        assert_ne!(hashed, properties_key("a", &vec![("k".to_owned(), Value::I64(2))]));
    }
}
