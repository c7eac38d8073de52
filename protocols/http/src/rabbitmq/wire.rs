//! Answers and errors as RabbitMQ's management plugin writes them.

use axum::{
    body::Body,
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use polymq_contract::{Refusal, RefusalKind};
use serde_json::{Value, json};

use crate::problem::Problem;

/// The RabbitMQ whose API this is, for clients that look at the version.
pub(crate) const RABBITMQ_VERSION: &str = "4.1.0";

/// What comes of a request.
pub(super) type Outcome = Result<Response, Failure>;

/// Why a request failed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    error: &'static str,
    reason: Value,
}

impl Failure {
    /// The reason as text.
    pub(crate) fn reason(&self) -> String {
        self.reason.as_str().map_or_else(|| self.reason.to_string(), str::to_owned)
    }

    fn new(status: StatusCode, error: &'static str, reason: impl Into<Value>) -> Self {
        Self { status, error, reason: reason.into() }
    }

    /// There is no such path, or no such object.
    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Object Not Found", "Not Found")
    }

    /// The path is there, and not asked like this.
    pub(super) fn other_method(method: &Method, known: &str) -> Self {
        let text = format!("this path has no {method}; it has {known}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", text)
    }

    /// An object that the request needs is missing.
    pub(super) fn missing(reason: impl Into<Value>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", reason)
    }

    /// The request is wrong.
    pub(super) fn bad(reason: impl Into<Value>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", reason)
    }

    /// A page, or a size of pages, that can never be.
    pub(super) fn page_invalid(page: i64, size: i64) -> Self {
        let text = format!("Invalid pagination parameters: page {page}, page size {size}");
        Self::new(StatusCode::BAD_REQUEST, "invalid_pagination_parameters", text)
    }

    /// A page of another host asks for a change.
    pub(crate) fn origin(problem: &Problem) -> Self {
        Self::new(problem.status(), "not_authorised", problem.to_json()["detail"].clone())
    }

    /// A page that there is not.
    pub(super) fn page_out_of_range(page: usize, size: usize, count: usize) -> Self {
        let text = format!("Page out of range, page: {page} page size: {size}, len: {count}");
        Self::new(StatusCode::BAD_REQUEST, "page_out_of_range", text)
    }

    /// Whoever asks may not do this. RabbitMQ says 401 here, not 403.
    pub(super) fn denied(reason: impl Into<Value>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "not_authorised", reason)
    }

    /// The login itself fails.
    pub(super) fn login() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "not_authorized", "Login failed")
    }

    /// The state of an object does not permit this.
    pub(super) fn precondition(reason: impl Into<Value>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", reason)
    }

    /// It may work later.
    pub(super) fn unavailable(reason: impl Into<Value>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", reason)
    }

    /// The body is larger than it may be.
    pub(super) fn too_large(bytes_max: usize) -> Self {
        let text = format!("the body has more than {bytes_max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "bad_request", text)
    }

    /// A mistake of ours.
    pub(super) fn internal(reason: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_server_error", reason)
    }

    /// A refusal of the broker where a missing object is an error of the request.
    pub(super) fn bad_if_missing(refusal: &Refusal) -> Self {
        match refusal.kind {
            RefusalKind::NotFound => Self::bad(refusal.text.clone()),
            _ => Self::from(refusal.clone()),
        }
    }
}

/// The one table from refusals of the broker to statuses of this API.
impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.text;
        match refusal.kind {
            RefusalKind::NotFound => Self::missing(text),
            RefusalKind::Denied | RefusalKind::Banned | RefusalKind::Reserved => Self::denied(text),
            RefusalKind::LoginFailed | RefusalKind::TooManyLogins => Self::login(),
            RefusalKind::StoreFailed => Self::unavailable(text),
            RefusalKind::Conflict
            | RefusalKind::Invalid
            | RefusalKind::Locked
            | RefusalKind::Limit
            | RefusalKind::Full
            | RefusalKind::TooLarge
            | RefusalKind::NotAvailable => Self::bad(text),
        }
    }
}

/// Problems of logging in and of opening a virtual host, in this API's words.
impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let text = problem.to_json()["detail"].clone();
        match problem.status() {
            StatusCode::UNAUTHORIZED => Self::login(),
            StatusCode::FORBIDDEN => Self::denied("User not authorised to access virtual host"),
            StatusCode::NOT_FOUND => Self::missing("vhost_not_found"),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                Self::unavailable(text)
            }
            _ => Self::bad(text),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.error, "reason": self.reason });
        let mut response = with_body(self.status, body.to_string().into_bytes());
        if self.error == "not_authorized" {
            let realm = HeaderValue::from_static("Basic realm=\"PolyMQ Management\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
        }
        response
    }
}

fn with_body(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    // Numbers that change must not come out of a cache.
    let no_cache = HeaderValue::from_static("no-cache");
    response.headers_mut().insert(header::CACHE_CONTROL, no_cache);
    response
}

/// JSON that is written already.
pub(super) fn written(body: Vec<u8>) -> Outcome {
    Ok(with_body(StatusCode::OK, body))
}

/// JSON.
pub(super) fn ok(body: &Value) -> Outcome {
    written(body.to_string().into_bytes())
}

/// JSON with a status of its own.
pub(super) fn ok_with(status: StatusCode, body: &Value) -> Outcome {
    Ok(with_body(status, body.to_string().into_bytes()))
}

/// Made, or there already.
pub(super) fn put(is_new: bool) -> Outcome {
    let status = if is_new { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
    Ok(status.into_response())
}

/// Done; there is nothing to say.
pub(super) fn done() -> Outcome {
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Made, and this is where it is.
pub(super) fn created_at(location: &str) -> Outcome {
    let location = HeaderValue::try_from(location).map_err(|_| Failure::internal("no location"))?;
    let mut response = StatusCode::CREATED.into_response();
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}
