//! A message as headers and body of HTTP: the body is the message's, byte for byte.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Response, header},
};
use bytes::Bytes;
use polymq_model::{
    Message, Table, Value,
    carry::{Outcome, rfc3339_to_ms},
    json_form::{HeaderTable, JsonProperties, Millis, Style},
};

use crate::{Site, events, json, problem::Problem};

/// Headers that are properties.
const NAMES: [&str; 17] = [
    "mq-app-id",
    "mq-correlation-id",
    "mq-correlation-kind",
    "mq-delay",
    "mq-expiration",
    "mq-group-id",
    "mq-headers",
    "mq-message-id",
    "mq-persistent",
    "mq-priority",
    "mq-qos",
    "mq-reply-to",
    "mq-retain",
    "mq-text",
    "mq-timestamp",
    "mq-type",
    "mq-user-id",
];

/// Headers that are headers of the message under the same name.
const TRACE: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// The properties that the headers of a request say.
///
/// Errors: a header that cannot be what it is, or one of ours that does not exist.
pub(crate) fn properties(headers: &HeaderMap) -> Result<JsonProperties, Problem> {
    let mut said = JsonProperties::default();
    let mut table = Vec::new();
    for (name, value) in headers {
        let name = name.as_str();
        let is_trace = TRACE.contains(&name);
        let is_ours = name.starts_with("mq-") || is_trace;
        if !is_ours && *name != header::CONTENT_TYPE && *name != header::CONTENT_ENCODING {
            continue;
        }
        let text = text(name, value)?;
        if is_trace {
            table.push((name.to_owned(), Value::String(text.to_owned())));
        } else {
            take(&mut said, name, text)?;
        }
    }
    events::from_headers(headers, &mut table)?;
    if let Some(headers) = &mut said.headers {
        table.append(&mut headers.table);
    }
    said.headers = (!table.is_empty()).then_some(HeaderTable { table, style: Style::Typed });
    Ok(said)
}

fn text<'a>(name: &str, value: &'a HeaderValue) -> Result<&'a str, Problem> {
    std::str::from_utf8(value.as_bytes()).map_err(|_| bad(name, "it is no UTF-8"))
}

fn bad(name: &str, text: &str) -> Problem {
    Problem::bad("bad_header", format!("`{name}`: {text}")).at(name)
}

fn take(said: &mut JsonProperties, name: &str, text: &str) -> Result<(), Problem> {
    let owned = || Some(text.to_owned());
    let flag = || text.parse().map(Some).map_err(|_| bad(name, "it is neither true nor false"));
    match name {
        "content-type" => said.content_type = owned(),
        "content-encoding" => said.content_encoding = owned(),
        "mq-app-id" => said.app_id = owned(),
        "mq-correlation-id" => said.correlation_id = owned(),
        "mq-correlation-kind" => said.correlation_kind = owned(),
        "mq-delay" => said.delay = Some(number(name, text)?),
        "mq-expiration" => said.expiration = Some(Millis(number(name, text)?)),
        "mq-group-id" => said.group_id = owned(),
        "mq-headers" => {
            said.headers =
                Some(json::read(text.as_bytes()).map_err(|problem| bad(name, problem.detail()))?);
        }
        "mq-message-id" => said.message_id = owned(),
        "mq-persistent" => {
            said.delivery_mode = flag()?.map(|is: bool| if is { 2 } else { 1 });
        }
        "mq-priority" => said.priority = Some(number(name, text)?),
        "mq-qos" => said.qos = Some(number(name, text)?),
        "mq-reply-to" => said.reply_to = owned(),
        "mq-retain" => said.retain = flag()?,
        "mq-text" => said.text = flag()?,
        "mq-timestamp" => match text.parse() {
            Ok(seconds) => said.timestamp = Some(seconds),
            Err(_) => {
                let ms = rfc3339_to_ms(text);
                let ms = ms.ok_or_else(|| bad(name, "it is no time: seconds, or RFC 3339"))?;
                said.timestamp_ms = Some(ms);
            }
        },
        "mq-type" => said.r#type = owned(),
        "mq-user-id" => said.user_id = owned(),
        _ => {
            let near = json::nearest(name, NAMES.into_iter());
            let meant = near.map(|near| format!("; is `{near}` meant?")).unwrap_or_default();
            return Err(bad(name, &format!("there is no such header{meant}")));
        }
    }
    Ok(())
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|_| bad(name, "it is no whole number in its range"))
}

/// The header that says a property, by the property's name in JSON.
pub(crate) fn header_of(property: &str) -> String {
    match property {
        "content_type" | "content_encoding" => property.replace('_', "-"),
        "delivery_mode" => "mq-persistent".to_owned(),
        "timestamp_ms" => "mq-timestamp".to_owned(),
        // Headers of a message have one header for all of them.
        name if name.starts_with("header") => "mq-headers".to_owned(),
        name => format!("mq-{}", name.replace('_', "-")),
    }
}

/// A message as an answer. What a header cannot hold is left out, and counted.
pub(crate) fn response(site: &Site, message: &Message, unix_ms: u64) -> Response<Body> {
    let body = match message.large_body() {
        Some(bytes) => bytes.clone(),
        None => Bytes::copy_from_slice(message.body()),
    };
    let mut response = Response::new(Body::from(body));
    headers(message, unix_ms, response.headers_mut(), &mut |field| {
        site.conversion_of(message).dropped(field, Outcome::NoPlace, 1);
    });
    response
}

/// The properties of a message as headers. `dropped` hears of each field with a control character,
/// which no header can hold.
pub(crate) fn headers(
    message: &Message,
    unix_ms: u64,
    out: &mut HeaderMap,
    dropped: &mut dyn FnMut(&'static str),
) {
    put_properties(out, &JsonProperties::of(message, unix_ms, Style::Typed), dropped);
}

/// The field of a message, as metrics name it, that a header says.
fn field(name: &str) -> &'static str {
    match name {
        "content-type" => "content_type",
        "content-encoding" => "content_encoding",
        "mq-app-id" => "app_id",
        "mq-correlation-id" => "correlation",
        "mq-group-id" => "group_id",
        "mq-message-id" => "id",
        "mq-reply-to" => "reply_to",
        "mq-type" => "type",
        "mq-user-id" => "user_id",
        _ => "header",
    }
}

fn put_properties(
    out: &mut HeaderMap,
    said: &JsonProperties,
    dropped: &mut dyn FnMut(&'static str),
) {
    let mut put = |name: &'static str, value: Option<&str>| {
        let Some(text) = value else { return };
        match HeaderValue::from_bytes(text.as_bytes()) {
            Ok(value) => {
                out.insert(HeaderName::from_static(name), value);
            }
            Err(_) => dropped(field(name)),
        }
    };
    let default_type = Some("application/octet-stream");
    put("content-type", said.content_type.as_deref().or(default_type));
    put("content-encoding", said.content_encoding.as_deref());
    put("mq-app-id", said.app_id.as_deref());
    put("mq-correlation-id", said.correlation_id.as_deref());
    put("mq-correlation-kind", said.correlation_kind.as_deref());
    put("mq-group-id", said.group_id.as_deref());
    put("mq-message-id", said.message_id.as_deref());
    put("mq-reply-to", said.reply_to.as_deref());
    put("mq-type", said.r#type.as_deref());
    put("mq-user-id", said.user_id.as_deref());
    let flag = |is: bool| if is { "true" } else { "false" };
    put("mq-persistent", said.delivery_mode.map(|mode| flag(mode == 2)));
    put("mq-retain", said.retain.map(flag));
    put("mq-text", said.text.map(flag));
    put("mq-priority", said.priority.map(|priority| priority.to_string()).as_deref());
    put("mq-qos", said.qos.map(|qos| qos.to_string()).as_deref());
    put("mq-expiration", said.expiration.map(|ms| ms.0.to_string()).as_deref());
    let exact = said.timestamp_ms.map(polymq_model::carry::rfc3339_from_ms);
    put("mq-timestamp", exact.or_else(|| said.timestamp.map(|secs| secs.to_string())).as_deref());
    let table = said.headers.as_ref().or(said.header_list.as_ref()).cloned();
    let mut table = table.unwrap_or_default().table;
    table.retain(|(name, value)| {
        let trace = TRACE.into_iter().find(|known| known == name);
        match (trace, value) {
            // Text that no header can hold stays where JSON holds it.
            (Some(name), Value::String(text))
                if HeaderValue::from_bytes(text.as_bytes()).is_ok() =>
            {
                put(name, Some(text));
                false
            }
            _ => true,
        }
    });
    events::to_headers(&mut table, out);
    if !table.is_empty() {
        match table_value(table) {
            Some(value) => {
                out.insert(HeaderName::from_static("mq-headers"), value);
            }
            None => dropped("header"),
        }
    }
}

/// Headers of a message as one header of HTTP. JSON escapes all control characters but DEL, which
/// a header cannot hold either, and which stands in strings only.
fn table_value(table: Table) -> Option<HeaderValue> {
    let headers = HeaderTable { table, style: Style::Typed };
    let mut text = serde_json::to_string(&headers).ok()?;
    if text.contains('\u{7f}') {
        text = text.replace('\u{7f}', "\\u007f");
    }
    HeaderValue::from_bytes(text.as_bytes()).ok()
}
