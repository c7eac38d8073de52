//! From a request to its route and back.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use polymq_broker::Manager;
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use super::{
    call::{Call, Needs},
    names::decode,
    rates::Spans,
    routes::{Does, ROUTES, Route},
    wire::{Failure, Outcome},
};
use crate::{Site, api, problem::Problem, socket::Socket};

/// The largest body, in bytes.
const BODY_BYTES_MAX: usize = 20_000_000;
/// How long a body may stand still.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Lists that are made at a time, over all connections.
static LOOKS: Semaphore = Semaphore::const_new(8);
/// How long a request waits for its turn.
const LOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// Everything below `/api` that is not ours alone.
pub(crate) fn router() -> Router<Arc<Site>> {
    Router::new().route("/api/", any(serve)).route("/api/{*path}", any(serve))
}

async fn serve(State(site): State<Arc<Site>>, request: Request) -> Response {
    answer(site, request).await.unwrap_or_else(IntoResponse::into_response)
}

/// The part of the path behind `/api/`, in its parts.
fn parts_of(site: &Site, path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix(site.settings().path_prefix.as_str()).unwrap_or(path);
    let path = path.strip_prefix("/api/")?;
    // Flower asks for `queues//` when the virtual host is `/`.
    let path = path.trim_end_matches('/');
    path.split('/').map(decode).collect()
}

async fn answer(site: Arc<Site>, request: Request) -> Outcome {
    let (mut parts, body) = request.into_parts();
    let path = parts_of(&site, parts.uri.path()).ok_or_else(Failure::not_found)?;
    if path.first().is_some_and(|first| first == "v1") {
        return Ok(api::not_found().await);
    }
    let matching: Vec<&'static Route> =
        ROUTES.iter().filter(|route| route.matches(&path).is_some()).collect();
    // The first in the table is the most exact.
    let first = matching.first().ok_or_else(Failure::not_found)?;
    let of_path = || matching.iter().filter(|route| route.path == first.path);
    let wanted = if parts.method == Method::HEAD { Method::GET } else { parts.method.clone() };
    let Some(route) = of_path().find(|route| route.method == wanted) else {
        let methods = of_path().map(|route| route.method.clone());
        return Ok(other_method(&parts.method, methods.collect()));
    };
    let Some(socket) = parts.extensions.remove::<Arc<Socket>>() else {
        return Err(Failure::internal("the request came from nowhere"));
    };
    let query = parts.uri.query().unwrap_or_default();
    let query: Vec<_> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    if let (Needs::Nobody, Does::Free(free)) = (route.needs, route.does) {
        return free();
    }
    let manager = manager(&site, &socket, &parts.headers).await?;
    let parts_of_path = route.matches(&path).unwrap_or_default();
    let is_look = route.method == Method::GET;
    let mut call = Call {
        site,
        socket,
        headers: parts.headers,
        tags: manager.tags(),
        manager,
        path: parts_of_path,
        spans: Spans::of(&query)?,
        query,
        body: Bytes::new(),
        is_look,
    };
    if let Err(denied) = call.check(route.needs) {
        if !is_look {
            let object = format!("/{}", path.join("/"));
            call.manager.audit_refused(route.method.as_str(), object);
        }
        return Err(denied);
    }
    call.body = read_body(body).await?;
    if let Does::Act(act) = route.does {
        return act(call).await;
    }
    look(call, route).await
}

/// Makes a list on a thread that may take its time.
async fn look(call: Call, route: &'static Route) -> Outcome {
    let Does::Look(look) = route.does else { return Err(Failure::not_found()) };
    let busy = || Failure::unavailable("too many lists are asked for at the same time");
    let place = timeout(LOOK_TIMEOUT, LOOKS.acquire()).await;
    let _place = place.map_err(|_| busy())?.map_err(|_| busy())?;
    let looked = spawn_blocking(move || {
        if !call.has_flag("disable_stats") {
            call.broker().watch(crate::clock::now());
        }
        look(&call)
    });
    looked.await.unwrap_or_else(|error| {
        tracing::error!(event = "request_failed", %error);
        Err(Failure::internal("an error of the server; its log says more"))
    })
}

/// OPTIONS, or a method that the path does not have.
fn other_method(method: &Method, mut known: Vec<Method>) -> Response {
    if known.contains(&Method::GET) {
        known.insert(0, Method::HEAD);
    }
    known.push(Method::OPTIONS);
    let names: Vec<_> = known.iter().map(Method::as_str).collect();
    let names = names.join(", ");
    let mut response = match *method {
        Method::OPTIONS => StatusCode::OK.into_response(),
        _ => Failure::other_method(method, &names).into_response(),
    };
    if let Ok(allow) = HeaderValue::try_from(names) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

/// Logs in whoever asks. The cookie of the console is never looked at, so that a web page cannot
/// use somebody's login.
async fn manager(
    site: &Arc<Site>,
    socket: &Socket,
    headers: &axum::http::HeaderMap,
) -> Result<Manager, Failure> {
    let client = socket.client(site, headers, None).await;
    let client = client.map_err(|problem: Problem| match problem.status() {
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Failure::login(),
        _ => Failure::from(problem),
    })?;
    let from = socket.origin();
    Ok(site.watched.broker.manage(client.principal(), from))
}

/// Errors: the body is too large, does not come, or ends too early.
async fn read_body(mut body: Body) -> Result<Bytes, Failure> {
    let mut read = BytesMut::new();
    loop {
        let frame = match timeout(BODY_TIMEOUT, body.frame()).await {
            Ok(None) => return Ok(read.freeze()),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(Failure::bad(error.to_string())),
            Err(_) => return Err(Failure::bad("the body does not come")),
        };
        let Ok(bytes) = frame.into_data() else { continue };
        if read.len().saturating_add(bytes.len()) > BODY_BYTES_MAX {
            return Err(Failure::too_large(BODY_BYTES_MAX));
        }
        read.extend_from_slice(&bytes);
    }
}
