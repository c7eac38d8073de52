//! Identifiers as text and as bytes.
//!
//! Bytes that are not plain text are written `b64:` and base64. A text is escaped the same way only
//! when it would otherwise be taken for such an escape, so both directions are the identity.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::text::{uuid_from_text, uuid_to_text};
use crate::properties::Ident;

const ESCAPE: &str = "b64:";
const UUID_PREFIX: &str = "urn:uuid:";

/// The identifier in a protocol where it is text. [`ident_kind`] says what must be carried beside
/// it.
pub fn ident_to_text(ident: &Ident) -> String {
    match ident {
        Ident::Text(text) if escaped_bytes(text).is_none() => text.clone(),
        Ident::Text(text) => escape(text.as_bytes()),
        Ident::Binary(bytes) => match plain(bytes) {
            Some(text) if escaped_bytes(text).is_none() => text.to_owned(),
            _ => escape(bytes),
        },
        Ident::Uuid(bytes) => format!("{UUID_PREFIX}{}", uuid_to_text(bytes)),
        Ident::Ulong(number) => number.to_string(),
    }
}

/// Reads an identifier from a protocol where it is text; `kind` is the carried kind.
pub fn ident_from_text(text: &str, kind: Option<&str>) -> Ident {
    match escaped_bytes(text) {
        Some(bytes) => ident_from_bytes(&bytes, kind),
        None => with_kind(text, kind),
    }
}

/// The identifier in a protocol where it is bytes.
pub fn ident_to_bytes(ident: &Ident) -> Vec<u8> {
    match ident {
        Ident::Text(text) => text.clone().into_bytes(),
        Ident::Binary(bytes) => bytes.clone(),
        Ident::Uuid(_) | Ident::Ulong(_) => ident_to_text(ident).into_bytes(),
    }
}

/// Reads an identifier from a protocol where it is bytes: text when it is plain text, unless its
/// kind says otherwise.
pub fn ident_from_bytes(bytes: &[u8], kind: Option<&str>) -> Ident {
    let text = match kind {
        Some("text") => std::str::from_utf8(bytes).ok(),
        _ => plain(bytes),
    };
    match text {
        Some(text) => with_kind(text, kind),
        None => Ident::Binary(bytes.to_vec()),
    }
}

/// The kind that must be carried for the identifier to be read back as what it is.
pub fn ident_kind(ident: &Ident) -> Option<&'static str> {
    match ident {
        Ident::Text(text) => plain(text.as_bytes()).is_none().then_some("text"),
        Ident::Binary(bytes) => plain(bytes).map(|_| "binary"),
        Ident::Uuid(_) => Some("uuid"),
        Ident::Ulong(_) => Some("ulong"),
    }
}

fn with_kind(text: &str, kind: Option<&str>) -> Ident {
    let read = match kind {
        Some("uuid") => text.strip_prefix(UUID_PREFIX).and_then(uuid_from_text).map(Ident::Uuid),
        Some("ulong") => text.parse().ok().map(Ident::Ulong),
        Some("binary") => Some(Ident::Binary(text.as_bytes().to_vec())),
        _ => None,
    };
    read.unwrap_or_else(|| Ident::Text(text.to_owned()))
}

fn escape(bytes: &[u8]) -> String {
    format!("{ESCAPE}{}", STANDARD.encode(bytes))
}

/// The bytes behind a text that is an escape; `None` when the text means itself.
///
/// Only bytes that need it are ever escaped, so a text like `b64:YWJj` (the word `abc`) means
/// itself.
fn escaped_bytes(text: &str) -> Option<Vec<u8>> {
    let bytes = STANDARD.decode(text.strip_prefix(ESCAPE)?).ok()?;
    let needed = plain(&bytes).is_none_or(|inner| escaped_bytes(inner).is_some());
    needed.then_some(bytes)
}

/// Bytes as plain text: UTF-8 without control characters.
fn plain(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.contains(char::is_control))
}
