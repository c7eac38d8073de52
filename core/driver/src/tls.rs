//! TLS: its settings, which can be replaced while connections run, and the handshake.

use std::{
    io,
    sync::{Arc, atomic::AtomicU64},
};

use parking_lot::RwLock;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use polymq_contract::{ChannelBindings, TlsPeer};

use crate::{
    certificate::{CertificateField, end_point_hash, not_after},
    ending::Ending,
    said,
    socket::Direct,
};

/// RFC 9266, section 2.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// When a failed handshake was last said.
static SAID: AtomicU64 = AtomicU64::new(0);

/// An encrypted connection of HTTP.
pub type HttpsStream = TlsStream<TcpStream>;

/// TLS settings of a listener, shared with who reloads them.
pub struct Tls(RwLock<Settings>);

#[derive(Clone)]
struct Settings {
    config: Arc<ServerConfig>,
    user_field: Option<CertificateField>,
    /// What `tls-server-end-point` is; empty when it is not known.
    end_point: Arc<[u8]>,
    /// When the first certificate of the chain to end ends, in seconds since 1970.
    expires_unix_secs: Option<u64>,
}

/// Whether clients show certificates.
#[derive(Debug, Clone, Copy)]
pub enum ClientCertificates<'a> {
    /// They are not asked.
    Ignored,
    /// A client may show one; it must then be signed by these authorities (PEM).
    Optional(&'a [u8]),
    /// Each client must show one signed by these authorities (PEM).
    Required(&'a [u8]),
}

/// TLS settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM text holds no such thing, or is broken.
    #[error("cannot read the {what}: {error}")]
    Pem {
        /// What was looked for.
        what: &'static str,
        /// What is wrong.
        error: pem::Error,
    },
    /// A PEM text holds no certificate.
    #[error("there is no certificate in the {0}")]
    Empty(&'static str),
    /// Certificate and key do not fit, or the authorities cannot be used.
    #[error("the TLS settings do not work: {0}")]
    Settings(String),
}

/// Settings for [`Tls`] from PEM texts: TLS 1.2 and 1.3, no early data.
pub fn server_config(
    certificates_pem: &[u8],
    key_pem: &[u8],
    clients: ClientCertificates<'_>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(certificates_pem, "certificate chain")?;
    let key = PrivateKeyDer::from_pem_slice(key_pem)
        .map_err(|error| TlsError::Pem { what: "private key", error })?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Settings(error.to_string()))?;
    let authorities = match clients {
        ClientCertificates::Ignored => None,
        ClientCertificates::Optional(pem) | ClientCertificates::Required(pem) => Some(pem),
    };
    let builder = match authorities {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(pem, "client authorities")? {
                roots.add(authority).map_err(|error| TlsError::Settings(error.to_string()))?;
            }
            let mut verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            if matches!(clients, ClientCertificates::Optional(_)) {
                verifier = verifier.allow_unauthenticated();
            }
            let verifier =
                verifier.build().map_err(|error| TlsError::Settings(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    builder
        .with_single_cert(chain, key)
        .map(Arc::new)
        .map_err(|error| TlsError::Settings(error.to_string()))
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::Pem { what, error })?;
    if found.is_empty() { Err(TlsError::Empty(what)) } else { Ok(found) }
}

impl Tls {
    /// TLS with these settings. `user_field` names the part of a client certificate that is its
    /// user, if any.
    pub fn new(config: Arc<ServerConfig>, user_field: Option<CertificateField>) -> Self {
        let (end_point, expires_unix_secs) = (Arc::default(), None);
        Self(RwLock::new(Settings { config, user_field, end_point, expires_unix_secs }))
    }

    /// The same, with its certificates: the first of a PEM text is the one that logins may be tied
    /// to, and the first that ends counts for all.
    pub fn with_certificates(mut self, certificates_pem: &[u8]) -> Self {
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(certificates_pem).filter_map(Result::ok).collect();
        let settings = self.0.get_mut();
        settings.end_point =
            chain.first().map(|der| end_point_hash(der)).unwrap_or_default().into();
        settings.expires_unix_secs = chain.iter().filter_map(|der| not_after(der)).min();
        self
    }

    /// When its certificates end, in seconds since 1970; `None` when it is not known.
    pub fn expires_unix_secs(&self) -> Option<u64> {
        self.0.read().expires_unix_secs
    }

    /// The hash of its first certificate (RFC 5929, section 4); empty when it is not known.
    pub fn fingerprint(&self) -> Arc<[u8]> {
        Arc::clone(&self.0.read().end_point)
    }

    /// Uses the settings of another for all handshakes from now on; connections that stand keep
    /// theirs.
    pub fn replace(&self, other: &Self) {
        let settings = other.0.read().clone();
        *self.0.write() = settings;
    }

    pub(crate) async fn accept(
        &self,
        socket: Direct<TcpStream>,
    ) -> Result<(TlsStream<Direct<TcpStream>>, TlsPeer), Ending> {
        let settings = self.0.read().clone();
        let stream = TlsAcceptor::from(Arc::clone(&settings.config)).accept(socket).await.map_err(
            |error: io::Error| {
                if said::is_due(&SAID) {
                    tracing::info!(event = "tls_handshake_failed", %error);
                }
                Ending::Handshake
            },
        )?;
        let facts = settings.facts(&stream);
        Ok((stream, facts))
    }

    /// The handshake of a connection that speaks HTTP/2 or HTTP/1.1, whichever its client prefers.
    ///
    /// Errors: what the handshake failed of.
    pub async fn accept_http(&self, socket: TcpStream) -> io::Result<(HttpsStream, TlsPeer)> {
        let settings = self.0.read().clone();
        let mut config = ServerConfig::clone(&settings.config);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let stream = TlsAcceptor::from(Arc::new(config)).accept(socket).await?;
        let facts = settings.facts(&stream);
        Ok((stream, facts))
    }
}

impl Settings {
    fn facts<S>(&self, stream: &TlsStream<S>) -> TlsPeer {
        let (_, session) = stream.get_ref();
        let version = match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "",
        };
        let cipher = session
            .negotiated_cipher_suite()
            .and_then(|suite| suite.suite().as_str())
            .unwrap_or_default();
        let shown = session.peer_certificates().unwrap_or_default();
        let certificate = shown.first();
        let until_secs = shown.iter().filter_map(|der| not_after(der)).min();
        let certificate_user = self.user_field.zip(certificate).and_then(|(f, c)| f.user_in(c));
        // Before version 1.3 what is exported need not be of this handshake alone (RFC 9266).
        let exporter = (version == "TLSv1.3")
            .then(|| session.export_keying_material([0; 32], EXPORTER_LABEL, Some(&[])).ok());
        let bindings = ChannelBindings {
            exporter: exporter.flatten(),
            server_end_point: self.end_point.to_vec(),
        };
        TlsPeer {
            version: version.to_owned(),
            cipher: cipher.to_owned(),
            certificate_user,
            certificate_until_ms: until_secs.map(|secs| secs.saturating_mul(1000)),
            bindings,
        }
    }
}
