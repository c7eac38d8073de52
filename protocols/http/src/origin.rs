//! Requests that a web page sends: from where they may come, and what its browser is told.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header},
};

use crate::problem::Problem;

/// How long a browser may remember what a preflight was answered, in seconds.
const PREFLIGHT_AGE_SECS: &str = "600";
/// Headers that a page may read beside the usual ones.
const EXPOSED: &str = "ETag, Link, Location, Polymq-Receipt, Retry-After, X-Request-Id";

/// What the `Origin` of a request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It has none: no web page of another host sends it.
    None,
    /// A page of this host.
    Same,
    /// A page of a host in `http.cors_origins`.
    Listed,
    /// A page of any other host.
    Foreign,
}

/// Where a request comes from. `listed` are the origins of the configuration; `*` is all of them.
pub(crate) fn of(headers: &HeaderMap, uri: &Uri, listed: &[String]) -> Origin {
    let Some(origin) = headers.get(header::ORIGIN) else { return Origin::None };
    let Ok(origin) = origin.to_str() else { return Origin::Foreign };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| uri.authority().map(|authority| authority.as_str()));
    let of_origin = origin.split_once("://").map(|(_, host)| host);
    if let (Some(a), Some(b)) = (of_origin, host)
        && a.eq_ignore_ascii_case(b)
    {
        return Origin::Same;
    }
    let is_listed = |known: &String| known == "*" || known.eq_ignore_ascii_case(origin);
    if listed.iter().any(is_listed) { Origin::Listed } else { Origin::Foreign }
}

/// Errors: a page of another host wants to change something.
pub(crate) fn check(origin: Origin, method: &Method) -> Result<(), Problem> {
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
    if origin != Origin::Foreign || reads {
        return Ok(());
    }
    let text = "a page of another origin asks; list it in http.cors_origins if it may";
    Err(Problem::new(StatusCode::FORBIDDEN, "origin_denied", text).at("Origin"))
}

/// The answer to a browser that asks whether it may ask; `None` when this is no such question.
pub(crate) fn preflight(
    origin: Origin,
    method: &Method,
    headers: &HeaderMap,
) -> Option<Response<Body>> {
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    if method != Method::OPTIONS || origin != Origin::Listed {
        return None;
    }
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let told = answer.headers_mut();
    told.insert(header::ACCESS_CONTROL_ALLOW_METHODS, asked.clone());
    if let Some(wanted) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        told.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    let age = HeaderValue::from_static(PREFLIGHT_AGE_SECS);
    told.insert(header::ACCESS_CONTROL_MAX_AGE, age);
    Some(answer)
}

/// Tells the browser of a listed page that the page may read the answer.
pub(crate) fn allow(headers: &mut HeaderMap, origin: &HeaderValue) {
    let mut put = |name: HeaderName, value: HeaderValue| headers.insert(name, value);
    put(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    put(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(origin: &str, host: &str, listed: &[&str]) -> Origin {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        let listed: Vec<_> = listed.iter().map(|one| (*one).to_owned()).collect();
        of(&headers, &Uri::from_static("/"), &listed)
    }

    #[test]
    fn origin_is_compared_with_the_host() {
        assert_eq!(asked("http://mq:15672", "mq:15672", &[]), Origin::Same);
        assert_eq!(asked("http://mq:80", "mq:15672", &[]), Origin::Foreign);
        assert_eq!(asked("null", "mq", &[]), Origin::Foreign);
        assert_eq!(asked("https://app", "mq", &["https://app"]), Origin::Listed);
        assert_eq!(asked("https://app", "mq", &["*"]), Origin::Listed);
        assert_eq!(of(&HeaderMap::new(), &Uri::from_static("/"), &[]), Origin::None);
    }

    #[test]
    fn pages_of_others_may_not_write() {
        assert!(check(Origin::Foreign, &Method::POST).is_err());
        assert!(check(Origin::Foreign, &Method::GET).is_ok());
        for origin in [Origin::None, Origin::Same, Origin::Listed] {
            assert!(check(origin, &Method::DELETE).is_ok());
        }
    }
}
