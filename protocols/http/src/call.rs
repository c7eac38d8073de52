//! One request to the API: its parameters, its body, and who asks.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, Method, StatusCode, Uri, header},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use polymq_model::{BadName, ExchangeName, QueueName};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::{
    Site,
    api::{self, Kind, Operation},
    client::Client,
    clock, json,
    origin::Origin,
    problem::Problem,
    schema::Schema,
    sessions,
    socket::{Shown, Socket},
};

/// In paths, this stands for the virtual host `/`, because proxies decode `%2F`.
const DEFAULT_VHOST: &str = "~";
/// Bytes of a body that is not a message.
pub(crate) const BODY_BYTES_MAX: usize = 1024 * 1024;
/// How long a body may stand still.
const BODY_TIMEOUT: Duration = clock::seconds(30);
/// What is set aside for a body before it has come.
const BODY_BYTES_FIRST: usize = 64 * 1024;

/// A request whose parameters are those that its operation declares.
pub(crate) struct Call {
    pub(crate) site: Arc<Site>,
    pub(crate) socket: Arc<Socket>,
    pub(crate) headers: HeaderMap,
    pub(crate) origin: Origin,
    method: Method,
    operation: &'static Operation,
    path: Vec<(String, String)>,
    query: Vec<(String, String)>,
    /// Behind a lock only so that the request can be shared between threads.
    body: Mutex<Body>,
}

impl Call {
    /// Errors: a path that cannot be read, a parameter that the operation does not have.
    pub(crate) async fn read(
        site: Arc<Site>,
        operation: &'static Operation,
        request: Request,
    ) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        check_encoding(&parts.uri)?;
        let path = api::path_params(&mut parts).await?;
        let query = query(&parts.uri, operation)?;
        let (Some(socket), Some(origin)) =
            (parts.extensions.remove::<Arc<Socket>>(), parts.extensions.remove::<Origin>())
        else {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            return Err(Problem::new(status, "internal", "the request came from nowhere"));
        };
        Ok(Self {
            site,
            socket,
            headers: parts.headers,
            origin,
            method: parts.method,
            operation,
            path,
            query,
            body: Mutex::new(body),
        })
    }

    /// A part of the path, decoded.
    pub(crate) fn path(&self, name: &str) -> &str {
        let found = self.path.iter().find(|(known, _)| known == name);
        debug_assert!(found.is_some(), "the path has no part `{name}`");
        found.map_or("", |(_, value)| value)
    }

    /// True when the operation only reads.
    pub(crate) fn is_look(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }

    /// The name of the operation.
    pub(crate) fn id(&self) -> &'static str {
        self.operation.id
    }

    /// The path of something in the API, as clients ask for it.
    pub(crate) fn location(&self, path: &str) -> String {
        format!("{}{}{path}", self.site.settings().path_prefix, api::ROOT)
    }

    /// What is asked for, for the audit file: the operation and its path.
    pub(crate) fn asked(&self) -> (&'static str, String) {
        let part = |part: &str| match part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
            Some(name) => self.path_as_sent(name),
            None => part.to_owned(),
        };
        let parts: Vec<_> = self.operation.path.split('/').map(part).collect();
        (self.operation.id, parts.join("/"))
    }

    /// The right that the operation says it needs.
    pub(crate) fn permission(&self) -> &'static str {
        self.operation.permission
    }

    /// A part of the path as the client has written it.
    pub(crate) fn path_as_sent(&self, name: &str) -> String {
        match (name, self.path(name)) {
            ("vhost", "/") => DEFAULT_VHOST.to_owned(),
            (_, part) => form_urlencoded::byte_serialize(part.as_bytes()).collect(),
        }
    }

    /// The virtual host of the path.
    pub(crate) fn vhost(&self) -> &str {
        match self.path("vhost") {
            DEFAULT_VHOST => "/",
            name => name,
        }
    }

    /// The queue of the path.
    ///
    /// Errors: it is no name.
    pub(crate) fn queue(&self) -> Result<QueueName, Problem> {
        QueueName::new(self.path("queue")).map_err(|bad| bad_name("queue", &bad))
    }

    /// The exchange of the path; `amq.default` stands for the one without a name.
    ///
    /// Errors: it is no name.
    pub(crate) fn exchange(&self) -> Result<String, Problem> {
        match self.path("exchange") {
            "amq.default" => Ok(String::new()),
            name => match ExchangeName::new(name) {
                Ok(name) => Ok(name.as_str().to_owned()),
                Err(bad) => Err(bad_name("exchange", &bad)),
            },
        }
    }

    /// A parameter of the query.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        debug_assert!(self.operation.query.iter().any(|one| one.name == name), "`{name}`");
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// True when the operation has such a parameter of the query.
    pub(crate) fn has_query(&self, name: &str) -> bool {
        self.operation.query.iter().any(|one| one.name == name)
    }

    /// A parameter that is a flag; absent is false, and present without a value is true.
    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.query(name), Some("" | "true"))
    }

    /// A parameter that is a number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        // What is no number was refused when the request was read.
        self.query(name).and_then(|text| text.parse().ok())
    }

    /// A parameter that is a time.
    pub(crate) fn time(&self, name: &str) -> Option<Duration> {
        self.query(name).and_then(parse_time)
    }

    /// The client of whoever asks, in the virtual host of the path.
    ///
    /// Errors: nobody is shown, or the login is refused.
    pub(crate) async fn client(&self) -> Result<Arc<Client>, Problem> {
        self.client_in(self.vhost()).await
    }

    /// The client of whoever asks, in a virtual host.
    ///
    /// Errors: nobody is shown, or the login is refused.
    pub(crate) async fn client_in(&self, vhost: &str) -> Result<Arc<Client>, Problem> {
        self.socket.client_of(&self.site, &self.shown()?, Some(vhost)).await
    }

    /// The client of whoever asks, in no virtual host.
    ///
    /// Errors: nobody is shown, or the login is refused.
    pub(crate) async fn identity(&self) -> Result<Arc<Client>, Problem> {
        self.socket.client_of(&self.site, &self.shown()?, None).await
    }

    /// A client that nobody shares, in the virtual host of the path. `changes` says whether the
    /// request changes something although it is a GET.
    ///
    /// Errors: as for [`client`](Self::client).
    pub(crate) async fn own_client(&self, changes: bool) -> Result<Client, Problem> {
        let shown = self.shown()?;
        if let (Shown::Session(id, _), true) = (&shown, changes) {
            sessions::check_csrf(id, &Method::POST, &self.headers)?;
        }
        self.socket.connect_shown(&self.site, &shown, Some(self.vhost())).await
    }

    /// Errors: the request shows nobody, or a session that is over.
    pub(crate) fn require_login(&self) -> Result<(), Problem> {
        self.shown().map(drop)
    }

    /// True when the request shows nothing but the cookie of a session.
    pub(crate) fn is_by_cookie(&self) -> bool {
        !self.headers.contains_key(header::AUTHORIZATION)
            && sessions::id_of(&self.headers).is_some()
    }

    /// What the request shows of whoever sends it: a header, or the cookie of a session.
    ///
    /// Errors: it shows nothing; the session is over, or changes something without its token.
    pub(crate) fn shown(&self) -> Result<Shown, Problem> {
        if !self.is_by_cookie() {
            return Shown::of(&self.headers, &self.socket.peer);
        }
        let id = sessions::id_of(&self.headers).ok_or_else(Problem::login_required)?;
        let who = {
            let (broker, idle) = (&self.site.watched.broker, self.site.settings().login_idle);
            self.site.sessions.find(&id, broker, idle)?
        };
        sessions::check_csrf(&id, &self.method, &self.headers)?;
        Ok(Shown::Session(id, who))
    }

    /// The content type without its parameters, in lower case.
    pub(crate) fn content_type(&self) -> Option<String> {
        let value = self.headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let (kind, _) = value.split_once(';').unwrap_or((value, ""));
        Some(kind.trim().to_ascii_lowercase())
    }

    /// The bytes of the body. They are counted while they come; what the client declares is not
    /// trusted.
    ///
    /// Errors: there are more than `bytes_max`, they do not come, or the client went away.
    pub(crate) async fn bytes(&mut self, bytes_max: usize) -> Result<Bytes, Problem> {
        let body = std::mem::take(self.body.get_mut());
        read_body(body, bytes_max).await
    }

    /// The body as JSON.
    ///
    /// Errors: it is none, or not that of a `T`; every one names its place.
    pub(crate) async fn json<T: DeserializeOwned + Schema>(&mut self) -> Result<T, Problem> {
        self.expect_content_type(&["application/json"])?;
        self.expect_plain()?;
        let bytes = self.bytes(BODY_BYTES_MAX).await?;
        json::read_record(&bytes)
    }

    /// The body as JSON of somebody who has not logged in yet, and so gets little room and time.
    ///
    /// Errors: those of [`json`](Self::json).
    pub(crate) async fn json_of_login<T: DeserializeOwned + Schema>(
        &mut self,
    ) -> Result<T, Problem> {
        self.expect_content_type(&["application/json"])?;
        self.expect_plain()?;
        let limits = self.site.limits();
        let bytes = timeout(limits.login_timeout, self.bytes(limits.login_bytes_max)).await;
        json::read_record(&bytes.map_err(|_| too_slow())??)
    }

    /// Errors: the body is compressed, and it is one that has to be read.
    pub(crate) fn expect_plain(&self) -> Result<(), Problem> {
        if !self.headers.contains_key(header::CONTENT_ENCODING) {
            return Ok(());
        }
        let text = "the body must not be compressed";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Err(Problem::new(status, "unsupported_media_type", text).at("Content-Encoding"))
    }

    /// Errors: the content type is none of these.
    pub(crate) fn expect_content_type(&self, known: &[&str]) -> Result<(), Problem> {
        let found = self.content_type();
        if found.as_deref().is_some_and(|found| known.contains(&found)) {
            return Ok(());
        }
        let text = format!("the body must be {}", known.join(" or "));
        let problem =
            Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", text);
        Err(problem.at("Content-Type").with("found", found))
    }
}

fn too_slow() -> Problem {
    Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", "the body does not come")
}

async fn read_body(mut body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
    let too_large = || {
        let text = format!("the body has more than {bytes_max} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", text).with("max", bytes_max)
    };
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    loop {
        let frame = match timeout(BODY_TIMEOUT, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) if rest.is_empty() => return Ok(first),
            Ok(None) => return Ok(rest.freeze()),
            Ok(Some(Err(error))) => {
                return Err(Problem::bad("body_incomplete", error.to_string()));
            }
            Err(_) => return Err(too_slow()),
        };
        let Ok(bytes) = frame.into_data() else { continue };
        if first.len().max(rest.len()).saturating_add(bytes.len()) > bytes_max {
            return Err(too_large());
        }
        if first.is_empty() && rest.is_empty() {
            first = bytes;
            continue;
        }
        if rest.is_empty() {
            rest.reserve(BODY_BYTES_FIRST.min(bytes_max));
            rest.extend_from_slice(&first);
        }
        rest.extend_from_slice(&bytes);
    }
}

/// Errors: a percent sign without two digits behind it.
fn check_encoding(uri: &Uri) -> Result<(), Problem> {
    let mut path = uri.path().as_bytes();
    while let Some(at) = memchr::memchr(b'%', path) {
        let digits = path.get(at + 1..at + 3).unwrap_or_default();
        if digits.len() != 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(Problem::bad("bad_path", "`%` in a path stands before two hex digits"));
        }
        path = path.get(at + 3..).unwrap_or_default();
    }
    Ok(())
}

fn query(uri: &Uri, operation: &Operation) -> Result<Vec<(String, String)>, Problem> {
    let Some(text) = uri.query() else { return Ok(Vec::new()) };
    let mut found: Vec<(String, String)> = Vec::new();
    let mut mistakes = Vec::new();
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        match mistake(&name, &value, operation, &found) {
            // A head has no room for more than some hundreds.
            Some(mistake) => mistakes.push(mistake.at(name.into_owned())),
            None => found.push((name.into_owned(), value.into_owned())),
        }
    }
    Problem::together(mistakes).map_or(Ok(found), Err)
}

/// What is wrong with a parameter that stands behind others.
fn mistake(
    name: &str,
    value: &str,
    operation: &Operation,
    before: &[(String, String)],
) -> Option<Problem> {
    let Some(parameter) = operation.query.iter().find(|known| known.name == name) else {
        let text = format!("there is no parameter `{name}`");
        return Some(match json::nearest(name, operation.query.iter().map(|known| known.name)) {
            Some(near) => Problem::bad("unknown_parameter", format!("{text}; is `{near}` meant?"))
                .with("nearest", near),
            None => Problem::bad("unknown_parameter", text),
        });
    };
    if before.iter().any(|(known, _)| *known == name) {
        let text = format!("the parameter `{name}` is there twice");
        return Some(Problem::bad("repeated_parameter", text));
    }
    let expected = check(parameter.kind, value).err()?;
    let text = format!("`{name}` is `{value}`; it must be {expected}");
    Some(Problem::bad("wrong_type", text))
}

/// Errors: what the value must be.
fn check(kind: Kind, value: &str) -> Result<(), String> {
    let is_right = match kind {
        Kind::Text => true,
        Kind::Number => value.parse::<u64>().is_ok(),
        Kind::NumberOr(word) => value == word || value.parse::<u64>().is_ok(),
        Kind::Flag => matches!(value, "" | "true" | "false"),
        Kind::Time => parse_time(value).is_some(),
        Kind::Word(words) => words.contains(&value),
    };
    if is_right {
        return Ok(());
    }
    Err(match kind {
        Kind::Text => "text".to_owned(),
        Kind::Number => "a whole number of 0 or more".to_owned(),
        Kind::NumberOr(word) => format!("a whole number of 0 or more, or {word}"),
        Kind::Flag => "true or false".to_owned(),
        Kind::Time => "a time with its unit (ms, s, m, h, d), such as 30s".to_owned(),
        Kind::Word(words) => format!("one of {}", words.join(", ")),
    })
}

/// Reads a time with its unit, such as `30s`.
pub(crate) fn parse_time(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text.get(..digits)?.parse().ok()?;
    let unit_ms = match text.get(digits..)? {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit_ms).map(Duration::from_millis)
}

fn bad_name(what: &'static str, bad: &BadName) -> Problem {
    Problem::bad("bad_name", format!("the name of the {what}: {bad}")).at(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(parse_time("1500ms"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_time("30s"), Some(Duration::from_secs(30)));
        assert_eq!(parse_time("2d"), Some(Duration::from_secs(2 * 86_400)));
        for bad in ["", "30", "s", "-1s", "1.5s", "1w", "99999999999999999999s"] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn percent_signs_stand_before_two_digits() {
        for (path, is_right) in [("/a%2Fb", true), ("/%", false), ("/%2", false), ("/%zz", false)] {
            let uri: Uri = path.parse().unwrap();
            assert_eq!(check_encoding(&uri).is_ok(), is_right, "{path}");
        }
    }
}
