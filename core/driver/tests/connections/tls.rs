//! TLS, with certificates made for the test.

use std::sync::Arc;

use polymq_driver::{CertificateField, ClientCertificates, Tls, server_config};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SanType,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    hasty::flood_and_talk,
    toy::{Client, House, any_port, listener, streamed},
};

/// An authority, and what it has signed.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

pub(crate) struct Signed {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("an authority") }
    }

    fn sign(&self, params: &CertificateParams) -> Signed {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Signed { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    pub(crate) fn server(&self) -> Signed {
        self.sign(&CertificateParams::new(vec!["localhost".to_owned()]).expect("a name"))
    }

    fn client(&self, common_name: &str, mail: &[&str]) -> Signed {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        for mail in mail {
            let mail = (*mail).try_into().expect("ASCII");
            params.subject_alt_names.push(SanType::Rfc822Name(mail));
        }
        self.sign(&params)
    }

    pub(crate) fn connector(&self, client: Option<&Signed>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("an authority");
        let builder = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let chain = CertificateDer::from_pem_slice(client.certificate.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(client.key.as_bytes());
                builder
                    .with_client_auth_cert(vec![chain.expect("PEM")], key.expect("PEM"))
                    .expect("a certificate")
            }
        };
        TlsConnector::from(Arc::new(config))
    }
}

/// Serves TLS with a certificate of `authority`.
fn serve(
    house: &House,
    authority: &Authority,
    clients: ClientCertificates<'_>,
    field: CertificateField,
) -> (std::net::SocketAddr, Arc<Tls>) {
    let server = authority.server();
    let config = server_config(server.certificate.as_bytes(), server.key.as_bytes(), clients);
    let tls = Arc::new(Tls::new(config.expect("settings"), Some(field)));
    let listener = listener(any_port(), Some(Arc::clone(&tls)));
    let address = listener.local_addr().expect("a TCP address");
    house.driver.serve(listener).expect("a runtime");
    (address, tls)
}

async fn connect(
    address: std::net::SocketAddr,
    connector: TlsConnector,
) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(address).await?;
    connector.connect(ServerName::try_from("localhost").expect("a name"), socket).await
}

async fn user_of(address: std::net::SocketAddr, connector: TlsConnector) -> Option<String> {
    let mut client = Client::new(connect(address, connector).await.ok()?);
    client.send("user\n").await;
    client.line().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_served_over_tls_to_the_last_byte() {
    let house = House::new();
    let authority = Authority::new();
    let (address, _) =
        serve(&house, &authority, ClientCertificates::Ignored, CertificateField::CommonName);
    let socket = connect(address, authority.connector(None)).await.expect("a handshake");
    let mut client = Client::new(socket);
    client.log_in().await;
    client.send("user\nstream 5000\n").await;
    client.expect("-").await;
    for number in 1..=5000 {
        client.expect(streamed(number).trim_end()).await;
    }
    client.send("bye\n").await;
    client.expect("bye").await;
    client.expect_end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_peer_that_sends_line_by_line_is_answered_in_order() {
    let house = House::new();
    let authority = Authority::new();
    let (address, _) =
        serve(&house, &authority, ClientCertificates::Ignored, CertificateField::CommonName);
    let socket = connect(address, authority.connector(None)).await.expect("a handshake");
    flood_and_talk(socket).await;
}

#[tokio::test]
async fn the_configured_field_of_a_client_certificate_names_its_user() {
    let house = House::new();
    let authority = Authority::new();
    let authority_pem = authority.issuer.pem();
    let clients = ClientCertificates::Optional(authority_pem.as_bytes());
    let (by_name, _) = serve(&house, &authority, clients, CertificateField::CommonName);
    let (by_mail, _) = serve(&house, &authority, clients, CertificateField::Email);
    let anna = authority.client("anna", &["anna@example.org"]);
    let user = |address| user_of(address, authority.connector(Some(&anna)));
    assert_eq!(user(by_name).await.as_deref(), Some("anna"));
    assert_eq!(user(by_mail).await.as_deref(), Some("anna@example.org"));
    assert_eq!(user_of(by_name, authority.connector(None)).await.as_deref(), Some("-"));

    let two = authority.client("two", &["a@example.org", "b@example.org"]);
    assert_eq!(user_of(by_mail, authority.connector(Some(&two))).await.as_deref(), Some("-"));
}

#[tokio::test]
async fn a_required_client_certificate_must_come_from_the_right_authority() {
    let house = House::new();
    let (authority, other) = (Authority::new(), Authority::new());
    let authority_pem = authority.issuer.pem();
    let clients = ClientCertificates::Required(authority_pem.as_bytes());
    let (address, _) = serve(&house, &authority, clients, CertificateField::CommonName);
    let wrong = other.client("anna", &[]);
    assert_eq!(user_of(address, authority.connector(Some(&wrong))).await, None);
    assert_eq!(user_of(address, authority.connector(None)).await, None);
    let right = authority.client("anna", &[]);
    let user = user_of(address, authority.connector(Some(&right))).await;
    assert_eq!(user.as_deref(), Some("anna"));
    assert_eq!(house.closed_by("handshake"), 2);
}

#[tokio::test]
async fn replaced_settings_hold_for_the_next_handshake() {
    let house = House::new();
    let (old, new) = (Authority::new(), Authority::new());
    let (address, tls) =
        serve(&house, &old, ClientCertificates::Ignored, CertificateField::CommonName);
    assert!(connect(address, new.connector(None)).await.is_err());
    let socket = connect(address, old.connector(None)).await.expect("a handshake");
    let mut earlier = Client::new(socket);
    let signed = new.server();
    let config = server_config(
        signed.certificate.as_bytes(),
        signed.key.as_bytes(),
        ClientCertificates::Ignored,
    );
    tls.replace(&Tls::new(config.expect("settings"), None));
    assert!(connect(address, old.connector(None)).await.is_err());
    assert!(connect(address, new.connector(None)).await.is_ok());
    earlier.log_in().await;
}

#[tokio::test]
async fn plain_bytes_on_a_tls_port_close_the_connection() {
    let house = House::new();
    let authority = Authority::new();
    let (address, _) =
        serve(&house, &authority, ClientCertificates::Ignored, CertificateField::CommonName);
    let mut socket = TcpStream::connect(address).await.expect("a connection");
    socket.write_all(b"hello\nhello\nhello\n").await.expect("an open connection");
    let mut client = Client::new(socket);
    while client.line().await.is_some() {}
    assert_eq!(house.closed_by("handshake"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_never_comes_is_cut_at_the_login_limit() {
    let house = House::new();
    let authority = Authority::new();
    let (address, _) =
        serve(&house, &authority, ClientCertificates::Ignored, CertificateField::CommonName);
    let socket = TcpStream::connect(address).await.expect("a connection");
    Client::new(socket).expect_end().await;
    assert_eq!(house.closed_by("login_timeout"), 1);
}

#[test]
fn unusable_settings_are_explained() {
    let error = server_config(b"nothing", b"nothing", ClientCertificates::Ignored);
    let error = error.expect_err("no certificate").to_string();
    assert_eq!(error, "there is no certificate in the certificate chain");
}
