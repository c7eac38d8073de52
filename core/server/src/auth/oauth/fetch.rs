//! Where keys are read: a file, or a URL that the configuration names and no other.

use std::{
    fs,
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use super::jwks::Keys;
use crate::config::AuthOauth;

/// Longest answer in bytes.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;
/// How long a step of a request may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where keys are read.
pub(super) enum KeySource {
    File(PathBuf),
    Url(Box<Url>),
}

/// A URL, and how its server proves itself.
pub(super) struct Url {
    host: String,
    port: u16,
    path: String,
    /// `None` for a server on this machine without TLS.
    tls: Option<Arc<ClientConfig>>,
}

impl KeySource {
    /// Errors: a URL that is none or is not safe; authorities that cannot be read.
    pub(super) fn new(settings: &AuthOauth) -> anyhow::Result<Self> {
        let text = settings.jwks.0.as_str();
        let (rest, has_tls) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (rest, true),
            (None, Some(rest)) => (rest, false),
            (None, None) => return Ok(Self::File(PathBuf::from(text))),
        };
        let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
        let default_port = if has_tls { 443 } else { 80 };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().context("its port")?),
            Some(_) | None => (place, default_port),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        ensure!(!host.is_empty() && !host.contains('@'), "it names no host");
        ensure!(text.bytes().all(|byte| byte.is_ascii_graphic()), "it holds other characters");
        if !has_tls && !matches!(host, "localhost" | "127.0.0.1" | "::1") {
            bail!("keys come over https, or from this machine");
        }
        let tls = has_tls.then(|| client_config(settings)).transpose()?;
        let (host, path) = (host.to_owned(), format!("/{path}"));
        Ok(Self::Url(Box::new(Url { host, port, path, tls })))
    }

    pub(super) fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// How long to wait before the next read.
    pub(super) fn pause(&self, of_url: Duration) -> Duration {
        // A file costs nobody anything.
        if self.is_file() { Duration::from_secs(1) } else { of_url }
    }

    /// Reads the keys. Blocks.
    ///
    /// Errors: when they cannot be read, or are none.
    pub(super) fn read(&self) -> anyhow::Result<Keys> {
        match self {
            Self::File(path) => {
                let text = fs::read(path)
                    .with_context(|| format!("`{}` cannot be read", path.display()))?;
                Keys::read(&text).with_context(|| format!("`{}`", path.display()))
            }
            Self::Url(url) => {
                let text = url.get().with_context(|| format!("`{}` does not answer", url.host))?;
                Keys::read(&text).with_context(|| format!("the answer of `{}`", url.host))
            }
        }
    }
}

fn client_config(settings: &AuthOauth) -> anyhow::Result<Arc<ClientConfig>> {
    let path = &settings.ca_file;
    let read = || -> anyhow::Result<RootCertStore> {
        let pem = fs::read(path)?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate?)?;
        }
        ensure!(!roots.is_empty(), "it holds no certificate");
        Ok(roots)
    };
    let roots = read().with_context(|| format!("auth.oauth2.ca_file `{}`", path.display()))?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

impl Url {
    /// The body of the answer. Redirects are not followed.
    fn get(&self) -> anyhow::Result<Vec<u8>> {
        let address = (self.host.as_str(), self.port).to_socket_addrs()?.next();
        let address = address.context("its name has no address")?;
        let socket = TcpStream::connect_timeout(&address, STEP_TIMEOUT)?;
        socket.set_read_timeout(Some(STEP_TIMEOUT))?;
        socket.set_write_timeout(Some(STEP_TIMEOUT))?;
        let answer = match &self.tls {
            None => self.ask(socket)?,
            Some(config) => {
                let name = ServerName::try_from(self.host.clone())?;
                let connection = ClientConnection::new(Arc::clone(config), name)?;
                self.ask(StreamOwned::new(connection, socket))?
            }
        };
        body_of(&answer)
    }

    fn ask(&self, mut stream: impl Read + Write) -> anyhow::Result<Vec<u8>> {
        // HTTP/1.0, so that the answer ends with the connection and is sent in one piece.
        let request = format!(
            "GET {} HTTP/1.0\r\nHost: {}\r\nAccept: application/json\r\n\r\n",
            self.path, self.host
        );
        stream.write_all(request.as_bytes())?;
        stream.flush()?;
        let (mut answer, ends) = (Vec::new(), Instant::now() + TIMEOUT);
        let mut piece = [0; 16 * 1024];
        loop {
            ensure!(Instant::now() < ends, "it takes too long");
            let count = match stream.read(&mut piece) {
                Ok(count) => count,
                // A server that closes without a word of TLS; the JSON tells whether it was all.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
                Err(error) => return Err(error.into()),
            };
            let Some(piece) = piece.get(..count).filter(|piece| !piece.is_empty()) else { break };
            answer.extend_from_slice(piece);
            ensure!(answer.len() as u64 <= ANSWER_BYTES_MAX, "its answer is too long");
        }
        Ok(answer)
    }
}

/// Errors: an answer that is none, or not 200.
fn body_of(answer: &[u8]) -> anyhow::Result<Vec<u8>> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = end.and_then(|at| answer.split_at_checked(at)).context("no HTTP")?;
    let head = String::from_utf8_lossy(head);
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(head.starts_with("HTTP/1.") && status == "200", "its status is {status}");
    Ok(body.get(4..).unwrap_or_default().to_vec())
}
