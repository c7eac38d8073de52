//! CloudEvents over HTTP. In binary mode the attributes are headers `ce-<name>`, and a message has
//! them as headers `cloudEvents_<name>`; in structured mode the event is the body, and stays as it
//! is; a batch is split into such bodies.
//!
//! Specification: CloudEvents 1.0.2, HTTP protocol binding.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use polymq_model::{Message, Value, carry::ident_to_text, value::Table};
use serde_json::{Map, json, value::RawValue};

use crate::problem::Problem;

/// One event in a body.
pub(crate) const STRUCTURED: &str = "application/cloudevents+json";
/// A list of events in a body.
pub(crate) const BATCH: &str = "application/cloudevents-batch+json";

const HEADER_PREFIX: &str = "ce-";
const TABLE_PREFIX: &str = "cloudEvents_";
const VERSION: &str = "cloudEvents_specversion";

/// Takes the attributes of an event out of the headers of a request.
///
/// Errors: an attribute that is no UTF-8, a version that does not exist.
pub(crate) fn from_headers(headers: &HeaderMap, table: &mut Table) -> Result<(), Problem> {
    let Some(version) = headers.get("ce-specversion") else { return Ok(()) };
    if version != "1.0" && version != "0.3" {
        let text = "`ce-specversion` is not 1.0";
        return Err(Problem::bad("bad_header", text).at("ce-specversion"));
    }
    for (name, value) in headers {
        let Some(attribute) = name.as_str().strip_prefix(HEADER_PREFIX) else { continue };
        let Some(text) = decode(value.as_bytes()) else {
            let text = format!("`{name}` is no UTF-8 after percent-decoding");
            return Err(Problem::bad("bad_header", text).at(name.as_str()));
        };
        table.push((format!("{TABLE_PREFIX}{attribute}"), Value::String(text)));
    }
    for required in ["id", "source", "type"] {
        if !headers.contains_key(format!("{HEADER_PREFIX}{required}")) {
            let text = format!("an event has an attribute `{required}`");
            let problem = Problem::bad("bad_header", text);
            return Err(problem.at(format!("{HEADER_PREFIX}{required}")));
        }
    }
    Ok(())
}

/// Moves the attributes of an event out of a message's headers into those of HTTP.
pub(crate) fn to_headers(table: &mut Table, out: &mut HeaderMap) {
    if !table.iter().any(|(name, _)| name == VERSION) {
        return;
    }
    table.retain(|(name, value)| {
        let Some((name, text)) = attribute(name, value) else { return true };
        // Section 3.1 of the specification; what is no such name would change as a header of HTTP.
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if !name.bytes().all(is_plain) {
            return true;
        }
        let name = HeaderName::from_bytes(format!("{HEADER_PREFIX}{name}").as_bytes());
        match (name, HeaderValue::from_str(&encode(&text))) {
            (Ok(name), Ok(value)) => {
                out.insert(name, value);
                false
            }
            _ => true,
        }
    });
}

fn attribute(name: &str, value: &Value) -> Option<(String, String)> {
    let name = name.strip_prefix(TABLE_PREFIX)?;
    let text = match value {
        Value::String(text) => text.clone(),
        value => polymq_model::carry::value_to_text(value, |_| false).0,
    };
    Some((name.to_owned(), text))
}

/// The events of a batch, each as the JSON that stands there.
///
/// Errors: it is no list of JSON objects.
pub(crate) fn split(body: &[u8]) -> Result<Vec<Box<RawValue>>, Problem> {
    let events: Vec<Box<RawValue>> = crate::json::read(body)?;
    match events.iter().position(|event| !event.get().starts_with('{')) {
        None => Ok(events),
        Some(place) => {
            let text = "an event is an object";
            Err(Problem::bad("wrong_type", text).at(format!("/{place}")))
        }
    }
}

/// A message as an event in structured mode: one that is an event in binary mode is wrapped, one
/// whose body is an event stays as it is. `None` for messages that are no events.
pub(crate) fn wrapped(message: &Message) -> Option<Vec<u8>> {
    let props = message.properties();
    let content_type = props.content_type.as_deref().unwrap_or_default();
    if content_type.starts_with(STRUCTURED) {
        return Some(message.body().to_vec());
    }
    if !props.headers.iter().any(|(name, _)| name == VERSION) {
        return None;
    }
    let mut event = Map::new();
    for (name, text) in props.headers.iter().filter_map(|(name, value)| attribute(name, value)) {
        event.insert(name, json!(text));
    }
    let id = props.id.as_ref().map(ident_to_text);
    for (name, field) in [("id", id), ("type", props.kind.clone())] {
        if let Some(field) = field {
            event.entry(name).or_insert_with(|| json!(field));
        }
    }
    if !content_type.is_empty() {
        event.insert("datacontenttype".to_owned(), json!(content_type));
    }
    let body = message.body();
    let is_json = content_type.contains("json");
    let (name, data) = match std::str::from_utf8(body) {
        Ok(_) if body.is_empty() => return Some(text(event)),
        Ok(_) if is_json && serde_json::from_slice::<&RawValue>(body).is_ok() => {
            ("data", serde_json::from_slice(body).unwrap_or_default())
        }
        Ok(text) => ("data", json!(text)),
        Err(_) => {
            use base64::{Engine as _, engine::general_purpose::STANDARD};
            ("data_base64", json!(STANDARD.encode(body)))
        }
    };
    event.insert(name.to_owned(), data);
    Some(text(event))
}

fn text(event: Map<String, serde_json::Value>) -> Vec<u8> {
    serde_json::Value::Object(event).to_string().into_bytes()
}

/// Section 3.1.3.2: spaces, quotes, percent signs and all beyond printable ASCII are encoded.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'%' | b' ' => out.push_str(&format!("%{byte:02X}")),
            0x21..=0x7e => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn decode(value: &[u8]) -> Option<String> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        let digits = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let coded = digits.filter(|_| *byte == b'%');
        match coded.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(coded) => {
                out.push(coded);
                rest = behind.get(2..).unwrap_or_default();
            }
            None => out.push(*byte),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_percent_encoded() {
        for text in ["plain", "a b", "100%", "\"é\"", "%41"] {
            assert_eq!(decode(encode(text).as_bytes()).as_deref(), Some(text));
        }
        assert_eq!(encode("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
    }

    #[test]
    fn what_is_no_name_of_an_attribute_stays_where_names_are_exact() {
        let text = |text: &str| Value::String(text.to_owned());
        let odd = ["cloudEvents_FooBar", "cloudEvents_a-b", "cloudEvents_é", "other"];
        let mut table: Table = odd.map(|name| (name.to_owned(), text("x"))).into();
        let kept = table.clone();
        table.push((VERSION.to_owned(), text("1.0")));
        let mut out = HeaderMap::new();
        to_headers(&mut table, &mut out);
        assert_eq!(table, kept);
        assert_eq!((out.len(), out.get("ce-specversion").unwrap().as_bytes()), (1, &b"1.0"[..]));
    }

    #[test]
    fn event_needs_its_attributes() {
        let mut headers = HeaderMap::new();
        headers.insert("ce-specversion", HeaderValue::from_static("1.0"));
        let mut table = Table::new();
        assert_eq!(from_headers(&headers, &mut table).unwrap_err().code(), "bad_header");
        for name in ["ce-id", "ce-source", "ce-type"] {
            headers.insert(name, HeaderValue::from_static("x%20y"));
        }
        table.clear();
        from_headers(&headers, &mut table).unwrap();
        assert!(table.contains(&("cloudEvents_id".into(), Value::String("x y".into()))));
    }
}
