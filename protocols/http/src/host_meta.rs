//! Where clients of XMPP find the WebSocket of their domain (XEP-0156).

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    extract::State,
    http::{
        HeaderMap, StatusCode,
        header::{ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_TYPE, HOST},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;

use crate::{Site, socket::Socket};

const RELATION: &str = "urn:xmpp:alt-connections:websocket";
const PATH: &str = "/ws/xmpp";

/// Both documents, when XMPP is spoken over WebSocket. Their paths are fixed, whatever the prefix
/// of others is.
pub(crate) fn routes(site: &Arc<Site>) -> Router {
    let settings = site.settings();
    let web_sockets = settings.web_sockets.iter();
    if !web_sockets.flat_map(|web_sockets| &web_sockets.routes).any(|route| route.path == PATH) {
        return Router::new();
    }
    Router::new()
        .route("/.well-known/host-meta", get(xml))
        .route("/.well-known/host-meta.json", get(json))
        .with_state(Arc::clone(site))
}

async fn xml(
    State(site): State<Arc<Site>>,
    Extension(socket): Extension<Arc<Socket>>,
    headers: HeaderMap,
) -> Response {
    let Some(place) = place(&site, &socket, &headers) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let text = format!(
        "<?xml version='1.0' encoding='utf-8'?>\n\
         <XRD xmlns='http://docs.oasis-open.org/ns/xri/xrd-1.0'>\n  \
         <Link rel='{RELATION}' href='{place}'/>\n</XRD>\n"
    );
    let kind = "application/xrd+xml; charset=utf-8";
    ([(CONTENT_TYPE, kind), (ACCESS_CONTROL_ALLOW_ORIGIN, "*")], text).into_response()
}

async fn json(
    State(site): State<Arc<Site>>,
    Extension(socket): Extension<Arc<Socket>>,
    headers: HeaderMap,
) -> Response {
    let Some(place) = place(&site, &socket, &headers) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let links = json!({ "links": [{ "rel": RELATION, "href": place }] });
    ([(ACCESS_CONTROL_ALLOW_ORIGIN, "*")], Json(links)).into_response()
}

/// The WebSocket as this client reaches it; `None` when its `Host` is no host.
fn place(site: &Site, socket: &Socket, headers: &HeaderMap) -> Option<String> {
    let host = headers.get(HOST)?.to_str().ok()?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_plain) {
        return None;
    }
    let scheme = if socket.peer.tls.is_some() { "wss" } else { "ws" };
    Some(format!("{scheme}://{host}{}{PATH}", site.settings().path_prefix))
}
