//! Calls of the HTTP API.

use std::{
    io::{Read, Write},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;
use ureq::{
    Agent, Body,
    http::{Request, Response},
    tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem},
    unversioned::resolver::DefaultResolver,
};

use crate::{
    context::{Login, Target},
    failure::Failure,
    local::Local,
};

/// Long enough for a receive that waits a minute.
const TIMEOUT: Duration = Duration::from_secs(90);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Rows asked for at a time.
const PAGE_ROWS: &str = "1000";
/// The longest answer that is held in memory; a message may be 16 MiB and more in base64.
const ANSWER_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// The API of one broker.
pub(crate) struct Api {
    agent: Agent,
    target: Target,
    shows_requests: bool,
}

/// One call.
pub(crate) struct Call<'c> {
    pub(crate) method: &'static str,
    /// Below `/api/v1`, percent-encoded.
    pub(crate) path: &'c str,
    pub(crate) query: &'c [(&'c str, String)],
    pub(crate) headers: &'c [(&'c str, String)],
    pub(crate) body: Content<'c>,
}

/// The body of a call.
pub(crate) enum Content<'c> {
    /// None.
    Nothing,
    /// JSON.
    Json(&'c Value),
    /// Bytes as they are.
    Bytes(&'c [u8]),
}

impl Content<'_> {
    /// The same once more.
    pub(crate) fn same(&self) -> Content<'_> {
        match self {
            Self::Nothing => Content::Nothing,
            Self::Json(body) => Content::Json(body),
            Self::Bytes(body) => Content::Bytes(body),
        }
    }
}

impl<'c> Call<'c> {
    pub(crate) fn new(method: &'static str, path: &'c str) -> Self {
        Self { method, path, query: &[], headers: &[], body: Content::Nothing }
    }

    pub(crate) fn query(self, query: &'c [(&'c str, String)]) -> Self {
        Self { query, ..self }
    }

    pub(crate) fn json(self, body: &'c Value) -> Self {
        Self { body: Content::Json(body), ..self }
    }
}

/// A body as it may be shown.
fn without_passwords(body: &Value) -> Value {
    let mut shown = body.clone();
    for field in ["password", "password_hash"] {
        if let Some(value) = shown.get_mut(field).filter(|value| !value.is_null()) {
            *value = Value::from("***");
        }
    }
    shown
}

impl Api {
    pub(crate) fn new(target: Target, shows_requests: bool) -> Result<Self, Failure> {
        // The second of two providers in one process would be ambiguous.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut tls = TlsConfig::builder().provider(TlsProvider::Rustls);
        if let Some(file) = &target.ca_file {
            let pem = std::fs::read(file)
                .map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))?;
            let certificates: Vec<_> = parse_pem(&pem)
                .filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    Ok(_) | Err(_) => None,
                })
                .collect();
            if certificates.is_empty() {
                return Err(Failure::Usage(format!("{} has no certificate", file.display())));
            }
            tls = tls.root_certs(RootCerts::new_with_certs(&certificates));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(TIMEOUT))
            .tls_config(tls.build())
            .user_agent(concat!("polymq-cli/", env!("CARGO_PKG_VERSION")))
            .build();
        let agent = match &target.login {
            Login::Local(socket) => {
                Agent::with_parts(config, Local(socket.clone()), DefaultResolver::default())
            }
            Login::None | Login::Token(_) | Login::Password(..) => config.new_agent(),
        };
        Ok(Self { agent, target, shows_requests })
    }

    pub(crate) fn vhost(&self) -> &str {
        &self.target.vhost
    }

    /// The path of something in the virtual host.
    pub(crate) fn in_vhost(&self, rest: &str) -> String {
        format!("vhosts/{}/{rest}", vhost_segment(self.vhost()))
    }

    /// Calls, and returns the answer's JSON; null when it has none.
    pub(crate) fn call(&self, call: &Call<'_>) -> Result<Value, Failure> {
        self.call_for_status(call).map(|(_, value)| value)
    }

    /// As [`call`](Self::call), with the status.
    pub(crate) fn call_for_status(&self, call: &Call<'_>) -> Result<(u16, Value), Failure> {
        let answer = self.send(call)?;
        let status = answer.status().as_u16();
        let value = self.json(answer)?;
        Ok((status, value))
    }

    /// Asks for a page of health, which speaks also when it is not well.
    ///
    /// Errors: no answer at all.
    pub(crate) fn call_whatever_status(&self, path: &str) -> Result<Value, Failure> {
        match self.call(&Call::new("GET", path)) {
            Err(Failure::Refused { problem, .. }) => Ok(problem),
            other => other,
        }
    }

    /// Calls, and returns the answer's body as it comes.
    pub(crate) fn stream(&self, call: &Call<'_>) -> Result<impl Read + use<>, Failure> {
        Ok(self.send(call)?.into_body().into_reader())
    }

    /// A whole list, page by page.
    pub(crate) fn list(
        &self,
        path: &str,
        query: &[(&str, String)],
        limit: Option<usize>,
    ) -> Result<Vec<Value>, Failure> {
        let mut rows = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let mut query = query.to_vec();
            query.push(("limit", PAGE_ROWS.to_owned()));
            query.extend(after.take().map(|after| ("after", after)));
            let mut page = self.call(&Call::new("GET", path).query(&query))?;
            match page.get_mut("items").map(Value::take) {
                Some(Value::Array(items)) => rows.extend(items),
                // Some lists are short and come as they are.
                Some(_) | None => match page {
                    Value::Array(items) => return Ok(items),
                    other => return Ok(vec![other]),
                },
            }
            after = page.get("next").and_then(Value::as_str).map(str::to_owned);
            let is_enough = limit.is_some_and(|limit| rows.len() >= limit);
            if after.is_none() || is_enough {
                rows.truncate(limit.unwrap_or(usize::MAX));
                return Ok(rows);
            }
        }
    }

    fn send(&self, call: &Call<'_>) -> Result<Response<Body>, Failure> {
        let url = self.url(call);
        if self.shows_requests {
            let body = match &call.body {
                Content::Json(body) => format!("\n{}", without_passwords(body)),
                Content::Bytes(body) => format!("\n({} bytes)", body.len()),
                Content::Nothing => String::new(),
            };
            let over = match &self.target.login {
                Login::Local(socket) => format!("  (over {})", socket.display()),
                Login::None | Login::Token(_) | Login::Password(..) => String::new(),
            };
            let _ = writeln!(std::io::stderr(), "{} {url}{over}{body}", call.method);
        }
        let mut request = Request::builder().method(call.method).uri(&url);
        for (name, value) in call.headers {
            request = request.header(*name, value);
        }
        request = match &self.target.login {
            Login::None | Login::Local(_) => request,
            Login::Token(token) => request.header("authorization", format!("Bearer {token}")),
            Login::Password(user, password) => {
                let both = BASE64_STANDARD.encode(format!("{user}:{password}"));
                request.header("authorization", format!("Basic {both}"))
            }
        };
        let usage = |error: ureq::http::Error| Failure::Usage(format!("{url}: {error}"));
        let answer = match &call.body {
            // Without a length the end of nothing would be written after the head, to a broker that
            // may have answered and gone by then.
            Content::Nothing if matches!(call.method, "POST" | "PUT" | "PATCH") => {
                self.agent.run(request.body("").map_err(usage)?)
            }
            Content::Nothing => self.agent.run(request.body(()).map_err(usage)?),
            Content::Json(body) => {
                let request = request.header("content-type", "application/json");
                self.agent.run(request.body(body.to_string()).map_err(usage)?)
            }
            Content::Bytes(body) => self.agent.run(request.body(*body).map_err(usage)?),
        };
        let answer =
            answer.map_err(|error| Failure::Unreachable { url, error: error.to_string() })?;
        let status = answer.status().as_u16();
        if (200..300).contains(&status) {
            return Ok(answer);
        }
        Err(Failure::Refused { status, problem: self.json(answer).unwrap_or(Value::Null) })
    }

    fn json(&self, answer: Response<Body>) -> Result<Value, Failure> {
        let mut bytes = Vec::new();
        let mut body = answer.into_body().into_reader().take(ANSWER_BYTES_MAX);
        body.read_to_end(&mut bytes).map_err(|error| self.broken(&error))?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|error| self.broken(&error))
    }

    fn broken(&self, error: &dyn std::fmt::Display) -> Failure {
        Failure::Other(anyhow::anyhow!("the answer of {} is broken: {error}", self.target.url))
    }

    fn url(&self, call: &Call<'_>) -> String {
        let mut url = match call.path.strip_prefix('/') {
            Some(whole) => format!("{}/{whole}", self.target.url),
            None => format!("{}/api/v1/{}", self.target.url, call.path),
        };
        for (index, (name, value)) in call.query.iter().enumerate() {
            url.push(if index == 0 { '?' } else { '&' });
            url.push_str(&format!("{name}={}", segment(value)));
        }
        url
    }
}

/// A name as one segment of a path (RFC 3986, section 2.3).
pub(crate) fn segment(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

/// A virtual host in a path, where `~` stands for `/`.
pub(crate) fn vhost_segment(vhost: &str) -> String {
    if vhost == "/" { "~".to_owned() } else { segment(vhost) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_segment() {
        assert_eq!(segment("a/b c%é"), "a%2Fb%20c%25%C3%A9");
        assert_eq!(vhost_segment("/"), "~");
        assert_eq!(vhost_segment("a/b"), "a%2Fb");
    }
}
