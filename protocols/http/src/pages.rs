//! The pages and their paths.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::{Extension, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::{
    Watched,
    health::{self, Report},
    metrics,
    serve::Audience,
};

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// The pages of a listener, below `path_prefix`.
pub(crate) fn router(watched: Arc<Watched>, audience: Audience, path_prefix: &str) -> Router {
    let pages = Router::new()
        .route("/", get(front))
        .route("/health/live", get(|| async { answer(health::live()) }))
        .route("/health/startup", get(startup))
        .route("/health/ready", get(ready))
        .route("/health", get(ready))
        .route("/metrics", get(metrics_page))
        .layer(Extension(audience))
        .with_state(watched);
    if path_prefix.is_empty() { pages } else { Router::new().nest(path_prefix, pages) }
}

async fn front(State(watched): State<Arc<Watched>>) -> String {
    format!(
        "This is `{}`, a PolyMQ message broker, version {}.\n\n\
         /health/live      the process answers\n\
         /health/startup   what was stored is back\n\
         /health/ready     messages are taken\n\
         /metrics          numbers for Prometheus\n",
        watched.name,
        env!("CARGO_PKG_VERSION"),
    )
}

async fn startup(State(watched): State<Arc<Watched>>) -> Response {
    answer(health::startup(&watched))
}

async fn ready(State(watched): State<Arc<Watched>>) -> Response {
    answer(health::ready(&watched))
}

fn answer(report: Report) -> Response {
    let status = if report.is_ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report.body)).into_response()
}

async fn metrics_page(
    State(watched): State<Arc<Watched>>,
    Extension(audience): Extension<Audience>,
    Extension(peer): Extension<Peer>,
) -> Response {
    if audience == Audience::Loopback && !peer.0.ip().to_canonical().is_loopback() {
        let text = "metrics leave this port towards loopback only; ask the metrics listener\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    ([(CONTENT_TYPE, METRICS_TYPE)], metrics::page(&watched)).into_response()
}
