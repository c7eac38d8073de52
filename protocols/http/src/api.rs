//! The routes below `/api/v1`. Each is registered together with what is told about it, and what is
//! told is enforced: a parameter that is not declared is refused.

use std::sync::Arc;

use axum::{
    Router,
    extract::{RawPathParams, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{MethodFilter, on},
};
use serde_json::{Value, json};

use crate::{Site, call::Call, openapi, problem::Problem, schema::Schemas};

/// Where the API begins.
pub(crate) const ROOT: &str = "/api/v1";

/// How a route is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "the data plane needs three of them")]
pub(crate) enum Method {
    Get,
    Put,
    Post,
    Patch,
    Delete,
}

impl Method {
    /// As OpenAPI writes it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::Post => "post",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }

    fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Put => MethodFilter::PUT,
            Self::Post => MethodFilter::POST,
            Self::Patch => MethodFilter::PATCH,
            Self::Delete => MethodFilter::DELETE,
        }
    }
}

/// What a parameter of the query or a header may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any text.
    Text,
    /// A whole number of 0 or more.
    Number,
    /// A whole number of 0 or more, or this word.
    NumberOr(&'static str),
    /// `true` or `false`.
    Flag,
    /// A time with its unit (`ms`, `s`, `m`, `h`, `d`), such as `30s`.
    Time,
    /// One of these words.
    Word(&'static [&'static str]),
}

/// A parameter of the query, or a header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) about: &'static str,
}

/// A body, by content type.
#[derive(Clone, Copy)]
pub(crate) struct Media {
    pub(crate) content_type: &'static str,
    /// Its schema; `None` for any bytes.
    pub(crate) schema: Option<fn(&mut Schemas) -> Value>,
}

impl Media {
    /// JSON of a type.
    pub(crate) const fn json(schema: fn(&mut Schemas) -> Value) -> Self {
        Self { content_type: "application/json", schema: Some(schema) }
    }

    /// Bytes that mean nothing to the API.
    pub(crate) const fn bytes(content_type: &'static str) -> Self {
        Self { content_type, schema: None }
    }
}

/// An answer; those that are problems need no mention of their bodies.
#[derive(Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) about: &'static str,
    pub(crate) media: &'static [Media],
}

/// A route and all that is told about it.
pub(crate) struct Operation {
    pub(crate) method: Method,
    /// Below [`ROOT`]; parts in braces are parameters.
    pub(crate) path: &'static str,
    /// A name for it, unique among all.
    pub(crate) id: &'static str,
    /// The group it belongs to.
    pub(crate) tag: &'static str,
    /// A sentence without a full stop.
    pub(crate) summary: &'static str,
    /// The right that the broker asks for.
    pub(crate) permission: &'static str,
    pub(crate) query: &'static [Parameter],
    pub(crate) headers: &'static [Parameter],
    /// The bodies that are taken; none for no body.
    pub(crate) body: &'static [Media],
    pub(crate) answers: &'static [Answer],
}

/// The routes, as they are registered.
pub(crate) struct Api {
    router: Router<Arc<Site>>,
    operations: Vec<&'static Operation>,
}

impl Api {
    pub(crate) fn new() -> Self {
        Self { router: Router::new(), operations: Vec::new() }
    }

    /// Serves an operation from now on.
    pub(crate) fn route<H, F, R>(mut self, operation: &'static Operation, handler: H) -> Self
    where
        H: Fn(Call) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<R, Problem>> + Send + 'static,
        R: IntoResponse,
    {
        let serve = move |State(site): State<Arc<Site>>, request: Request| {
            let handler = handler.clone();
            async move {
                match Call::read(site, operation, request).await {
                    Ok(call) => handler(call).await.into_response(),
                    Err(problem) => problem.into_response(),
                }
            }
        };
        let route = on(operation.method.filter(), serve);
        self.router = self.router.route(operation.path, route);
        self.operations.push(operation);
        self
    }

    /// The OpenAPI document of what has been registered.
    pub(crate) fn document(&self) -> Value {
        openapi::document(&self.operations)
    }

    /// The routes, with the document among them.
    pub(crate) fn router(self) -> Router<Arc<Site>> {
        let document = Arc::new(self.document());
        let show = move |State(site): State<Arc<Site>>| {
            let mut document = Value::clone(&document);
            async move {
                let prefix = &site.settings().path_prefix;
                if !prefix.is_empty() {
                    document["servers"] = json!([{ "url": prefix }]);
                }
                let json = [(axum::http::header::CONTENT_TYPE, "application/json")];
                (json, format!("{document:#}"))
            }
        };
        self.router
            .route("/openapi.json", axum::routing::get(show))
            .fallback(not_found)
            // Before the API of RabbitMQ, which has everything else below `/api`.
            .route("/{*path}", axum::routing::any(not_found))
            .method_not_allowed_fallback(not_allowed)
    }
}

/// Reads the parts of a path.
///
/// Errors: one is no UTF-8.
pub(crate) async fn path_params(
    parts: &mut axum::http::request::Parts,
) -> Result<Vec<(String, String)>, Problem> {
    use axum::extract::FromRequestParts;
    let params = RawPathParams::from_request_parts(parts, &()).await;
    let params = params.map_err(|error| Problem::bad("bad_path", error.to_string()))?;
    Ok(params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// What is below `/api/v1` and is not there.
pub(crate) async fn not_found() -> Response {
    let text = "there is no such path; see /api/v1/openapi.json";
    Problem::new(StatusCode::NOT_FOUND, "path_not_found", text).into_response()
}

async fn not_allowed() -> Response {
    let text = "the path is not asked with this method";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", text).into_response()
}
