//! The pages and their paths.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Extension, RawQuery, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::{
    Site, api,
    health::{self, Report},
    host_meta, metrics, rabbitmq,
    serve::Audience,
    socket::Socket,
    v1, websocket,
};

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that is served, below the configured prefix.
pub(crate) fn router(site: &Arc<Site>) -> Router {
    let pages = Router::new()
        .route("/", get(front))
        .route("/health/live", get(|| async { answer(health::live()) }))
        .route("/health/startup", get(startup))
        .route("/health/ready", get(ready))
        .route("/health", get(ready))
        .route("/metrics", get(metrics_page))
        .route("/metrics/per-object", get(objects_page))
        .route("/metrics/detailed", get(objects_page))
        .nest(api::ROOT, v1::api().router())
        .merge(websocket::routes(site))
        .merge(rabbitmq::router())
        .with_state(Arc::clone(site));
    let pages = match site.settings().path_prefix.as_str() {
        "" => pages,
        prefix => Router::new().nest(prefix, pages),
    };
    pages.merge(host_meta::routes(site))
}

async fn front(State(site): State<Arc<Site>>) -> String {
    format!(
        "This is `{}`, a PolyMQ message broker, version {}.\n\n\
         /health/live      the process answers\n\
         /health/startup   what was stored is back\n\
         /health/ready     messages are taken\n\
         /metrics          numbers for Prometheus\n\
         /api/v1           messages over HTTP; described in /api/v1/openapi.json\n\
         /api              management for tools of RabbitMQ\n\
         /ws/json          JSON over WebSocket; also /ws/mqtt, /ws/stomp, /ws/amqp, /ws/xmpp\n",
        site.watched.name,
        env!("CARGO_PKG_VERSION"),
    )
}

async fn startup(State(site): State<Arc<Site>>) -> Response {
    answer(health::startup(&site.watched))
}

async fn ready(State(site): State<Arc<Site>>) -> Response {
    answer(health::ready(&site.watched))
}

fn answer(report: Report) -> Response {
    let status = if report.is_ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report.body)).into_response()
}

type PageError = (StatusCode, String);

/// Errors: whoever asks may not read them here.
fn may_read(socket: &Socket) -> Result<(), PageError> {
    if socket.audience != Audience::Loopback || socket.peer.is_loopback {
        return Ok(());
    }
    let text = "metrics leave this port towards loopback only; ask the metrics listener\n";
    Err((StatusCode::FORBIDDEN, text.to_owned()))
}

async fn metrics_page(
    State(site): State<Arc<Site>>,
    Extension(socket): Extension<Arc<Socket>>,
    RawQuery(query): RawQuery,
) -> Result<Response, PageError> {
    may_read(&socket)?;
    let prefix = query.as_deref().and_then(|query| query.strip_prefix("prefix="));
    if query.is_some() && !matches!(prefix, Some("polymq" | "rabbitmq")) {
        let text = "the only parameter is prefix=polymq or prefix=rabbitmq\n";
        return Err((StatusCode::BAD_REQUEST, text.to_owned()));
    }
    let prefix = prefix.map(str::to_owned);
    let text = made(move || metrics::page(&site, prefix.as_deref())).await?;
    Ok(([(CONTENT_TYPE, METRICS_TYPE)], text).into_response())
}

/// Makes a page of many objects on a thread that may take its time.
async fn made<T: Send + 'static>(
    page: impl FnOnce() -> T + Send + 'static,
) -> Result<T, PageError> {
    tokio::task::spawn_blocking(page).await.map_err(|error| {
        tracing::error!(event = "request_failed", %error);
        (StatusCode::INTERNAL_SERVER_ERROR, "this is an error of ours\n".to_owned())
    })
}

async fn objects_page(
    State(site): State<Arc<Site>>,
    Extension(socket): Extension<Arc<Socket>>,
    RawQuery(query): RawQuery,
) -> Result<Response, PageError> {
    may_read(&socket)?;
    let refused = |text: String| (StatusCode::BAD_REQUEST, text);
    let wanted = metrics::Wanted::parse(query.as_deref().unwrap_or_default()).map_err(refused)?;
    let text = made(move || metrics::page_of_objects(&site.watched, &wanted)).await?;
    let text = text.map_err(refused)?;
    Ok(([(CONTENT_TYPE, METRICS_TYPE)], text).into_response())
}
