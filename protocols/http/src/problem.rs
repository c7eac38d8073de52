//! Errors as RFC 9457 has them: a status, a stable code with its values, and a sentence.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use polymq_contract::{Refusal, RefusalKind};
use serde_json::{Map, Value, json};

/// Seconds after which it is worth to try again what found no room.
const RETRY_AFTER_SECS: &str = "1";

/// Why a request failed. Its body is written by [`render`], which knows the request's id.
#[derive(Debug, Clone)]
pub(crate) struct Problem(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    status: StatusCode,
    code: &'static str,
    detail: String,
    params: Map<String, Value>,
    at: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// All mistakes, this one among them, when there are several.
    errors: Vec<Problem>,
}

impl Problem {
    /// A problem with a code that never changes, and a sentence for people.
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            status,
            code,
            detail: detail.into(),
            params: Map::new(),
            at: None,
            headers: Vec::new(),
            errors: Vec::new(),
        }))
    }

    /// Several mistakes of one request: the first, with all of them in its `errors`; `None` when
    /// there is none.
    pub(crate) fn together(mut mistakes: Vec<Self>) -> Option<Self> {
        let mut first = mistakes.first()?.clone();
        if mistakes.len() > 1 {
            first.0.errors.append(&mut mistakes);
        }
        Some(first)
    }

    /// The client sent something that cannot be.
    pub(crate) fn bad(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// Where in the request: a JSON pointer, or the name of a parameter or header.
    pub(crate) fn at(mut self, at: impl Into<String>) -> Self {
        self.0.at = Some(at.into());
        self
    }

    /// A value of the sentence, for clients that translate it.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.params.insert(name.to_owned(), value.into());
        self
    }

    /// A header of the answer.
    pub(crate) fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.0.headers.push((name, HeaderValue::from_static(value)));
        self
    }

    /// The refusal of something that concerns `object`, such as `queue`.
    ///
    /// This is the one table from [`RefusalKind`] to status and code.
    pub(crate) fn refused(refusal: &Refusal, object: &str) -> Self {
        let (status, code) = match refusal.kind {
            RefusalKind::NotFound => {
                let about = refusal.about.as_deref().map(|about| about.kind.as_str());
                (StatusCode::NOT_FOUND, not_found(about.unwrap_or(object)))
            }
            RefusalKind::Denied => (StatusCode::FORBIDDEN, "permission_denied"),
            RefusalKind::Banned => (StatusCode::FORBIDDEN, "banned"),
            RefusalKind::Reserved => (StatusCode::FORBIDDEN, "name_reserved"),
            RefusalKind::Conflict => (StatusCode::CONFLICT, "conflict"),
            RefusalKind::Locked => (StatusCode::CONFLICT, "exclusive_owner"),
            RefusalKind::Invalid => (StatusCode::BAD_REQUEST, "invalid_argument"),
            RefusalKind::Limit => (StatusCode::TOO_MANY_REQUESTS, "limit_reached"),
            RefusalKind::Full => (StatusCode::TOO_MANY_REQUESTS, "queue_full"),
            RefusalKind::TooManyLogins => (StatusCode::TOO_MANY_REQUESTS, "too_many_logins"),
            RefusalKind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "message_too_large"),
            RefusalKind::NotAvailable => (StatusCode::NOT_IMPLEMENTED, "not_available"),
            RefusalKind::StoreFailed => (StatusCode::GATEWAY_TIMEOUT, "outcome_unknown"),
            RefusalKind::LoginFailed => return Self::login_failed(&refusal.text),
        };
        let mut problem = Self::new(status, code, refusal.text.clone());
        if let Some(about) = &refusal.about {
            problem = problem.with("object", about.kind.as_str()).with("name", about.name.as_str());
            if let Some(right) = about.right {
                problem = problem.with("right", right);
            }
        }
        match status {
            StatusCode::TOO_MANY_REQUESTS => problem.retry(),
            _ => problem,
        }
    }

    /// It may work a little later.
    pub(crate) fn retry(self) -> Self {
        self.header(header::RETRY_AFTER, RETRY_AFTER_SECS)
    }

    /// A message is larger than it may be.
    pub(crate) fn too_large(text: String) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "message_too_large", text)
    }

    /// Nobody has logged in, and somebody must.
    pub(crate) fn login_required() -> Self {
        let text = "log in with `Authorization: Basic` or `Authorization: Bearer`";
        Self::new(StatusCode::UNAUTHORIZED, "login_required", text).challenge()
    }

    /// The login was wrong.
    pub(crate) fn login_failed(text: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "login_failed", text).challenge()
    }

    /// The token was good, and is over.
    pub(crate) fn token_expired() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "token_expired", "the token has expired").challenge()
    }

    /// Without the header at which a browser asks for a password by itself.
    pub(crate) fn without_challenge(mut self) -> Self {
        self.0.headers.retain(|(name, _)| name != header::WWW_AUTHENTICATE);
        self
    }

    fn challenge(self) -> Self {
        self.header(header::WWW_AUTHENTICATE, "Basic realm=\"PolyMQ\", charset=\"UTF-8\"")
    }

    /// The code.
    pub(crate) fn code(&self) -> &'static str {
        self.0.code
    }

    /// The sentence.
    pub(crate) fn detail(&self) -> &str {
        &self.0.detail
    }

    /// Where it is; empty when that is not said.
    pub(crate) fn place(&self) -> &str {
        self.0.at.as_deref().unwrap_or_default()
    }

    /// The same problem of a part of something larger, which is at `prefix` of it.
    pub(crate) fn below(mut self, prefix: &str) -> Self {
        self.0.at = Some(format!("{prefix}{}", self.0.at.as_deref().unwrap_or_default()));
        self
    }

    /// The status.
    pub(crate) fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The body.
    pub(crate) fn to_json(&self) -> Value {
        let parts = &*self.0;
        let mut body = self.mistake();
        body["type"] = json!(format!("urn:polymq:problem:{}", parts.code));
        body["title"] = json!(parts.status.canonical_reason().unwrap_or("Error"));
        body["status"] = json!(parts.status.as_u16());
        if !parts.errors.is_empty() {
            body["errors"] = parts.errors.iter().map(Self::mistake).collect();
        }
        body
    }

    /// What tells it from others of its request.
    fn mistake(&self) -> Value {
        let parts = &*self.0;
        let mut told = json!({ "code": parts.code, "detail": parts.detail });
        if !parts.params.is_empty() {
            told["params"] = Value::Object(parts.params.clone());
        }
        if let Some(at) = &parts.at {
            told["at"] = json!(at);
        }
        told
    }
}

fn not_found(object: &str) -> &'static str {
    match object {
        "queue" => "queue_not_found",
        "exchange" => "exchange_not_found",
        "vhost" => "vhost_not_found",
        "message" => "message_not_found",
        "user" => "user_not_found",
        "permission" => "permission_not_found",
        "policy" => "policy_not_found",
        "parameter" => "parameter_not_found",
        "consumer" => "consumer_not_found",
        "job" => "job_not_found",
        "trace" => "trace_not_found",
        "token" => "token_not_found",
        "ban" => "ban_not_found",
        _ => "not_found",
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.0.status.into_response();
        response.headers_mut().extend(self.0.headers.iter().cloned());
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the body of an answer that is a problem.
pub(crate) fn render(response: &mut Response, request_id: &str) {
    let Some(problem) = response.extensions_mut().remove::<Problem>() else { return };
    let mut body = problem.to_json();
    body["request_id"] = json!(request_id);
    let content_type = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response.headers_mut().remove(header::CONTENT_LENGTH);
    *response.body_mut() = Body::from(body.to_string());
}
