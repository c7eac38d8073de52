//! ETags: which state of an object a change is meant for.

use std::hash::{DefaultHasher, Hasher};

use axum::http::{HeaderMap, HeaderValue, header};
use serde_json::Value;

use super::problems::etag_mismatch;
use crate::problem::Problem;

/// The tag of an object: of what people set of it, and not of what happens to it.
pub(super) fn of(set: &Value) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(set.to_string().as_bytes());
    format!("\"{:016x}\"", hasher.finish())
}

/// The header of an answer.
pub(super) fn header(tag: &str) -> (header::HeaderName, HeaderValue) {
    let value = HeaderValue::from_str(tag);
    (header::ETAG, value.unwrap_or_else(|_| HeaderValue::from_static("\"\"")))
}

/// Whether a change is meant for the object as it is; `current` is `None` when it is not there.
///
/// Errors: it is not.
pub(super) fn check(headers: &HeaderMap, current: Option<&str>) -> Result<(), Problem> {
    let listed = |name| {
        let value: Option<&HeaderValue> = headers.get(name);
        value.and_then(|value| value.to_str().ok())
    };
    let names =
        |list: &str, tag: &str| list.split(',').map(str::trim).any(|one| one == "*" || one == tag);
    let wrong = || Err(etag_mismatch(current.unwrap_or("none")));
    if let Some(list) = listed(header::IF_MATCH)
        && !current.is_some_and(|tag| names(list, tag))
    {
        return wrong();
    }
    if let Some(list) = listed(header::IF_NONE_MATCH)
        && current.is_some_and(|tag| names(list, tag))
    {
        return wrong();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_is_meant_for_one_state() {
        let tag = of(&json!({ "durable": true }));
        assert_ne!(tag, of(&json!({ "durable": false })));
        let with = |name, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_str(value).unwrap());
            headers
        };
        let none = HeaderMap::new();
        assert!(check(&none, None).is_ok() && check(&none, Some(&tag)).is_ok());
        assert!(check(&with(header::IF_MATCH, &tag), Some(&tag)).is_ok());
        assert!(check(&with(header::IF_MATCH, "\"other\""), Some(&tag)).is_err());
        assert!(check(&with(header::IF_MATCH, "*"), None).is_err());
        assert!(check(&with(header::IF_NONE_MATCH, "*"), None).is_ok());
        assert!(check(&with(header::IF_NONE_MATCH, "*"), Some(&tag)).is_err());
    }
}
