//! The handshake of WebSocket (RFC 6455, section 4.2). The driver has the connection afterwards,
//! and a session of the protocol that the path names.

use std::{io::Write, sync::Arc};

use axum::{
    Extension, Router,
    body::Body,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode, Version,
        header::{
            AUTHORIZATION, CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
            SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
        },
    },
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::{rt::TokioIo, server::conn::auto::upgrade::downcast};
use polymq_broker::Principal;
use polymq_contract::{Login, Protocol};
use polymq_driver::{Driver, Form, HttpsStream, Incoming};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{
    handshake::derive_accept_key,
    protocol::frame::{
        FrameHeader,
        coding::{Data, OpCode},
    },
};

use crate::{
    Phase, Site, identity,
    origin::{self, Origin},
    problem::Problem,
    sessions,
    socket::{Noted, Socket},
};

/// Makes the first message of a client from what `Authorization` and `?vhost=` say.
pub type Greeting = fn(&Login, Option<&str>) -> Option<Vec<u8>>;

/// A protocol over WebSocket.
#[derive(Clone)]
pub struct WebSocketRoute {
    /// Its path, below the configured prefix.
    pub path: &'static str,
    /// Names that clients may ask for; a client that asks for none is served too.
    pub subprotocols: &'static [&'static str],
    /// How it travels.
    pub form: Form,
    /// What is spoken.
    pub protocol: Arc<dyn Protocol>,
    /// Says in its place what a client that has shown its login in the request would say first.
    pub greeting: Option<Greeting>,
}

/// Where connections go that are WebSockets.
pub struct WebSockets {
    /// Serves them.
    pub driver: Driver,
    /// What they may speak.
    pub routes: Vec<WebSocketRoute>,
}

/// The paths of all protocols.
pub(crate) fn routes(site: &Site) -> Router<Arc<Site>> {
    let mut router = Router::new();
    let settings = site.settings();
    for (driver, route) in settings.web_sockets.iter().flat_map(WebSockets::all) {
        let path = route.path;
        let upgrade = move |State(site): State<Arc<Site>>,
                            Extension(socket): Extension<Arc<Socket>>,
                            Extension(origin): Extension<Origin>,
                            request: Request| async move {
            let refused = match site.watched.phase.now() {
                Phase::Serving if driver.has_room() => {
                    return upgrade((&driver, &route), (&site, &socket, origin), request);
                }
                Phase::Serving => ("limit_reached", "there are too many connections"),
                Phase::Recovering | Phase::Draining => {
                    ("not_serving", "nobody is let in before the start is over, or while it stops")
                }
            };
            let (code, text) = refused;
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, text).retry().into_response()
        };
        router = router.route(path, get(upgrade));
    }
    router
}

impl WebSockets {
    fn all(&self) -> impl Iterator<Item = (Driver, WebSocketRoute)> {
        self.routes.iter().map(|route| (self.driver.clone(), route.clone()))
    }
}

/// Answers the handshake, and has the driver serve what comes of it.
fn upgrade(
    (driver, route): (&Driver, &WebSocketRoute),
    (site, socket, origin): (&Site, &Socket, Origin),
    mut request: Request,
) -> Response {
    let checked = check(route, origin, &request).and_then(|accepted| {
        let known = of_session(site, route, &request)?;
        let first = first_message(route, &request, known.is_some())?;
        Ok((accepted, known, first))
    });
    let (accepted, known, first) = match checked {
        Ok(checked) => checked,
        Err(problem) => return refuse(problem),
    };
    let Some(upgrading) = request.extensions_mut().remove::<OnUpgrade>() else {
        return refuse(Problem::new(
            StatusCode::BAD_REQUEST,
            "bad_header",
            "this connection cannot become a WebSocket",
        ));
    };
    let (driver, route) = (driver.clone(), route.clone());
    let mut peer = socket.peer.as_ref().clone();
    peer.account = known.map(|who| who.account());
    tokio::spawn(async move {
        match upgrading.await {
            Ok(upgraded) => {
                let mut incoming = incoming(upgraded);
                incoming.put_back(&first);
                driver.adopt_web_socket(incoming, route.form, route.protocol, peer);
            }
            Err(error) => tracing::debug!(event = "websocket_upgrade_failed", %error),
        }
    });
    accepted.into_response()
}

/// What is answered to a handshake that is in order.
struct Accepted {
    key: String,
    subprotocol: Option<&'static str>,
}

impl IntoResponse for Accepted {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        // Base64 is always a header.
        if let Ok(key) = HeaderValue::from_str(&self.key) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, key);
        }
        if let Some(name) = self.subprotocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
        }
        response
    }
}

fn check(route: &WebSocketRoute, origin: Origin, request: &Request) -> Result<Accepted, Problem> {
    // A handshake is a GET, and what follows it writes.
    origin::check(origin, &Method::POST)?;
    let headers = request.headers();
    let asks = has_word(headers, UPGRADE.as_str(), "websocket")
        && has_word(headers, CONNECTION.as_str(), "upgrade");
    if request.version() != Version::HTTP_11 || !asks {
        let text = "this path speaks WebSocket over HTTP/1.1; ask for an upgrade";
        return Err(Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", text));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let text = "only version 13 of WebSocket is served";
        let problem = Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", text);
        return Err(problem.at("Sec-WebSocket-Version"));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if STANDARD.decode(key).map_or(true, |key| key.len() != 16) {
        let text = "the key is not the base64 of 16 bytes";
        let problem = Problem::new(StatusCode::BAD_REQUEST, "bad_header", text);
        return Err(problem.at("Sec-WebSocket-Key"));
    }
    let subprotocol = subprotocol(route, headers)?;
    Ok(Accepted { key: derive_accept_key(key), subprotocol })
}

/// The first of the client's subprotocols that is served here.
fn subprotocol(
    route: &WebSocketRoute,
    headers: &HeaderMap,
) -> Result<Option<&'static str>, Problem> {
    let offered: Vec<_> = words(headers, SEC_WEBSOCKET_PROTOCOL.as_str()).collect();
    if offered.is_empty() {
        return Ok(None);
    }
    let known = |name: &&str| route.subprotocols.iter().find(|known| *known == name).copied();
    let found = offered.iter().find_map(known);
    found.map(Some).ok_or_else(|| {
        let text = format!("served here: {}", route.subprotocols.join(", "));
        let problem = Problem::new(StatusCode::BAD_REQUEST, "subprotocol_unknown", text);
        problem.at("Sec-WebSocket-Protocol")
    })
}

fn words<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

fn has_word(headers: &HeaderMap, name: &str, word: &str) -> bool {
    words(headers, name).any(|one| one.eq_ignore_ascii_case(word))
}

/// Who a page is by the cookie of its session; whatever `Authorization` shows comes first.
///
/// Errors: the session is over, which a page is told whose first message is made of its login. One
/// of another protocol may have a login of its own.
fn of_session(
    site: &Site,
    route: &WebSocketRoute,
    request: &Request,
) -> Result<Option<Principal>, Problem> {
    let headers = request.headers();
    let Some(id) = sessions::id_of(headers).filter(|_| !headers.contains_key(AUTHORIZATION)) else {
        return Ok(None);
    };
    let idle = site.settings().login_idle;
    match site.sessions.find(&id, &site.watched.broker, idle) {
        Ok(who) => Ok(Some(who)),
        Err(_) if route.greeting.is_none() => Ok(None),
        Err(over) => Err(over),
    }
}

/// The frame that says who a client is that has said so in the request; empty for none.
fn first_message(
    route: &WebSocketRoute,
    request: &Request,
    is_known: bool,
) -> Result<Vec<u8>, Problem> {
    let Some(greeting) = route.greeting else { return Ok(Vec::new()) };
    let login = match request.headers().get(AUTHORIZATION) {
        Some(shown) => identity::login(Some(shown))?,
        None if is_known => Login::Anonymous,
        None => return Ok(Vec::new()),
    };
    let query = request.uri().query().unwrap_or_default().as_bytes();
    let vhost = form_urlencoded::parse(query).find(|(name, _)| name == "vhost");
    let vhost = vhost.as_ref().map(|(_, vhost)| vhost.as_ref());
    let message = greeting(&login, vhost).unwrap_or_default();
    let header = FrameHeader {
        opcode: OpCode::Data(Data::Text),
        mask: Some([0; 4]),
        ..FrameHeader::default()
    };
    let mut frame = Vec::new();
    let length = u64::try_from(message.len()).unwrap_or(u64::MAX);
    // Writing to memory cannot fail.
    let _ = header.format(length, &mut frame).map(|()| frame.write_all(&message));
    Ok(frame)
}

/// The connection as the driver knows it: the socket that it was before HTTP, whose buffers go.
fn incoming(upgraded: Upgraded) -> Incoming {
    let upgraded = match downcast::<TokioIo<Noted<Incoming>>>(upgraded) {
        Ok(parts) => return with(parts.io.into_inner().socket, &parts.read_buf),
        Err(upgraded) => upgraded,
    };
    let upgraded = match downcast::<TokioIo<Noted<TcpStream>>>(upgraded) {
        Ok(parts) => return with(Incoming::tcp(parts.io.into_inner().socket), &parts.read_buf),
        Err(upgraded) => upgraded,
    };
    match downcast::<TokioIo<Noted<HttpsStream>>>(upgraded) {
        Ok(parts) => with(Incoming::other(parts.io.into_inner().socket), &parts.read_buf),
        Err(upgraded) => Incoming::other(TokioIo::new(upgraded)),
    }
}

fn with(mut incoming: Incoming, read: &[u8]) -> Incoming {
    incoming.put_back(read);
    incoming
}

fn refuse(problem: Problem) -> Response {
    let mut response = problem.into_response();
    if response.status() == StatusCode::UPGRADE_REQUIRED {
        let headers = response.headers_mut();
        // RFC 9110, section 15.5.22, and RFC 6455, section 4.4.
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    response
}
