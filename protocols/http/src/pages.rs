//! The pages and their paths.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Extension, RawQuery, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};

use polymq_broker::Role;

use crate::{
    Site, api,
    health::{self, Report},
    host_meta, metrics,
    problem::Problem,
    rabbitmq,
    serve::Audience,
    socket::Socket,
    v1, websocket,
};

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that is served, below the configured prefix.
pub(crate) fn router(site: &Arc<Site>) -> Router {
    let pages = watching()
        .route("/", get(front))
        .nest(api::ROOT, v1::api().router())
        .merge(websocket::routes(site))
        .merge(rabbitmq::router())
        .with_state(Arc::clone(site));
    below_prefix(site, pages).merge(host_meta::routes(site))
}

/// What is served to whoever can reach a listener of metrics, below the configured prefix.
pub(crate) fn open(site: &Arc<Site>) -> Router {
    below_prefix(site, watching().fallback(nothing_else).with_state(Arc::clone(site)))
}

/// Health and metrics, which need no login.
fn watching() -> Router<Arc<Site>> {
    Router::new()
        .route("/health/live", get(|| async { answer(health::live()) }))
        .route("/health/startup", get(startup))
        .route("/health/ready", get(ready))
        .route("/health", get(ready))
        .route("/metrics", get(metrics_page))
        .route("/metrics/per-object", get(objects_page))
        .route("/metrics/detailed", get(objects_page))
}

fn below_prefix(site: &Site, pages: Router) -> Router {
    match site.settings().path_prefix.as_str() {
        "" => pages,
        prefix => Router::new().nest(prefix, pages),
    }
}

async fn nothing_else() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "this listener has /metrics and /health; http has everything else\n")
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

/// Whether whoever asks may read the metrics here: with the tag `monitoring`, or on a listener that
/// has them for everybody.
///
/// Errors: nobody is shown, the login is wrong, or the tag is missing.
async fn may_read(site: &Site, socket: &Socket, headers: &HeaderMap) -> Result<(), Problem> {
    if socket.audience == Audience::Everybody {
        return Ok(());
    }
    let client = socket.client(site, headers, None).await?;
    let manager = site.watched.broker.manage(client.principal(), "");
    manager.require(Role::Monitoring).map_err(|refusal| Problem::refused(&refusal, "metrics"))
}

fn bad_query(text: String) -> Problem {
    Problem::bad("bad_parameter", text)
}

async fn metrics_page(
    State(site): State<Arc<Site>>,
    Extension(socket): Extension<Arc<Socket>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    may_read(&site, &socket, &headers).await?;
    let prefix = query.as_deref().and_then(|query| query.strip_prefix("prefix="));
    if query.is_some() && !matches!(prefix, Some("polymq" | "rabbitmq")) {
        let text = "the only parameter is prefix=polymq or prefix=rabbitmq";
        return Err(bad_query(text.to_owned()));
    }
    let prefix = prefix.map(str::to_owned);
    let text = made(move || metrics::page(&site, prefix.as_deref())).await?;
    Ok(([(CONTENT_TYPE, METRICS_TYPE)], text).into_response())
}

/// Makes a page of many objects on a thread that may take its time.
async fn made<T: Send + 'static>(page: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(page).await.map_err(|error| {
        tracing::error!(event = "request_failed", %error);
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Problem::new(status, "internal", "this is an error of ours")
    })
}

async fn objects_page(
    State(site): State<Arc<Site>>,
    Extension(socket): Extension<Arc<Socket>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    may_read(&site, &socket, &headers).await?;
    let wanted = metrics::Wanted::parse(query.as_deref().unwrap_or_default()).map_err(bad_query)?;
    let text = made(move || metrics::page_of_objects(&site.watched, &wanted)).await?;
    let text = text.map_err(bad_query)?;
    Ok(([(CONTENT_TYPE, METRICS_TYPE)], text).into_response())
}
