//! What is done with every request before its route and after it: its id, its origin, and the
//! bodies of problems.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Response, StatusCode, Version, header},
    response::IntoResponse,
};
use hyper::{Request, body::Incoming, service::Service};
use hyper_util::service::TowerToHyperService;

use crate::{
    Site,
    origin::{self, Origin},
    problem::{self, Problem},
    rabbitmq::Failure,
    socket::Socket,
    times,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is taken over from a client.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Numbers requests; the start is random, so that two servers do not make the same ids.
pub(crate) struct RequestIds(AtomicU64);

impl RequestIds {
    pub(crate) fn new(start: u64) -> Self {
        Self(AtomicU64::new(start))
    }

    fn next(&self) -> HeaderValue {
        // Multiplied by an odd number, so that neighbours look different to people.
        let number = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut text = String::with_capacity(16);
        // Writing to a String cannot fail.
        let _ = write!(text, "{number:016x}");
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("-"))
    }
}

/// Answers a request.
pub(crate) async fn answer(
    site: &Arc<Site>,
    routes: &TowerToHyperService<axum::Router>,
    socket: Arc<Socket>,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let began = Instant::now();
    let route = times::route_of(&site.settings().path_prefix, request.uri().path());
    let request_id = match request.headers().get(&REQUEST_ID).filter(|id| is_usable(id)) {
        Some(id) => id.clone(),
        None => site.request_ids.next(),
    };
    let origin = origin::of(request.headers(), request.uri(), &site.settings().cors_origins);
    let page = request.headers().get(header::ORIGIN).filter(|_| origin == Origin::Listed).cloned();
    let (method, version) = (request.method().clone(), request.version());
    let early = match origin::check(origin, &method) {
        Err(problem) => Some(refused(site, request.uri().path(), problem)),
        Ok(()) => origin::preflight(origin, &method, request.headers()),
    };
    let log = tracing::enabled!(tracing::Level::DEBUG).then(|| request.uri().path().to_owned());
    let mut response = match early {
        Some(response) => response,
        None => {
            request.extensions_mut().insert(socket);
            request.extensions_mut().insert(origin);
            match routes.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
    };
    site.times.note(route, began.elapsed());
    let id = request_id.to_str().unwrap_or("-");
    problem::render(&mut response, id);
    if let Some(path) = log {
        let status = response.status().as_u16();
        tracing::debug!(event = "http_request", id, %method, path, status);
    }
    if let Some(page) = page {
        origin::allow(response.headers_mut(), &page);
    }
    response.headers_mut().insert(REQUEST_ID, request_id);
    let is_upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if version < Version::HTTP_2 && site.traffic.is_draining() && !is_upgraded {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A refusal in the words of the API that was asked.
fn refused(site: &Site, path: &str, problem: Problem) -> Response<Body> {
    let path = path.strip_prefix(site.settings().path_prefix.as_str()).unwrap_or(path);
    match path.starts_with("/api/") && !path.starts_with("/api/v1/") {
        true => Failure::origin(&problem).into_response(),
        false => problem.into_response(),
    }
}

/// Ids go to the log, so they are short and plain.
fn is_usable(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    (1..=REQUEST_ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}
