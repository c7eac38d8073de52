//! HTTP over TLS: both versions, client certificates, and a certificate that is replaced.

use std::{
    fs,
    io::{BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{ChildStderr, Stdio},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::{Server, reload::logged};

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// An authority, and the files of a server that it has signed for.
struct Files {
    folder: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
struct Signed {
    certificate: String,
    key: String,
}

impl Files {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the authority");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let files = Self { folder: tempfile::tempdir().unwrap(), authority };
        fs::write(files.path("ca.pem"), files.authority.pem()).unwrap();
        files.renew();
        files
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn sign(&self, params: &CertificateParams) -> Signed {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        Signed { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// Another certificate for the server.
    fn renew(&self) {
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let signed = self.sign(&params);
        fs::write(self.path("cert.pem"), signed.certificate).unwrap();
        fs::write(self.path("key.pem"), signed.key).unwrap();
    }

    fn certificate_of(&self, user: &str) -> Signed {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        self.sign(&params)
    }

    fn start(&self, data: &Path) -> (Server, BufReader<ChildStderr>) {
        let files =
            [("cert_file", "cert.pem"), ("key_file", "key.pem"), ("client_ca_file", "ca.pem")];
        let files =
            files.map(|(key, name)| format!("tls.test.{key}={}", self.path(name).display()));
        let listener = ["protocol=http", "bind=127.0.0.1:0", "tls=test"];
        let listener = listener.map(|setting| format!("listeners.https.{setting}"));
        let settings = files.into_iter().chain(listener);
        let settings = settings.chain(["tls.test.client_auth=optional".to_owned()]);
        let mut flags = vec!["--dev".to_owned()];
        flags.extend(settings.flat_map(|setting| ["--set".to_owned(), setting]));
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let mut server = Server::start_with(data, &flags, |command| {
            command.stderr(Stdio::piped());
        });
        let log = BufReader::new(server.child.stderr.take().unwrap());
        (server, log)
    }

    fn connect(&self, server: &Server, alpn: &[u8], shown: Option<&Signed>) -> Tls {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(self.authority.pem().as_bytes()).unwrap();
        roots.add(authority).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some(Signed { certificate, key }) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        let name = "localhost".try_into().unwrap();
        let client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut tls = StreamOwned::new(client, server.connect("https"));
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock).unwrap();
        }
        tls
    }

    /// Status and body of an answer over HTTP/1.1.
    fn get(
        &self,
        server: &Server,
        path: &str,
        head: &str,
        shown: Option<&Signed>,
    ) -> (u16, String) {
        let mut tls = self.connect(server, b"http/1.1", shown);
        ask(&mut tls, path, head)
    }
}

fn ask(tls: &mut Tls, path: &str, head: &str) -> (u16, String) {
    write!(tls, "GET {path} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n").unwrap();
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !answer.ends_with(b"\r\n\r\n") {
        tls.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    let head = String::from_utf8(answer).unwrap().to_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    tls.read_exact(&mut body).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, String::from_utf8(body).unwrap())
}

/// A frame of HTTP/2 (RFC 9113, section 4.1) of stream 0 or 1.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[kind, flags, 0, 0, 0, stream]);
    frame.extend_from_slice(payload);
    frame
}

#[test]
fn http_1_and_2_are_spoken_over_tls() {
    let (dir, files) = (tempfile::tempdir().unwrap(), Files::new());
    let (server, _log) = files.start(dir.path());
    assert_eq!(files.get(&server, "/health/live", "", None).0, 200);

    let mut tls = files.connect(&server, b"h2", None);
    assert_eq!(tls.conn.alpn_protocol(), Some(&b"h2"[..]));
    // GET, https, and two literals without indexing (RFC 7541): path and authority.
    let mut head = vec![0x82, 0x87, 0x04, 12];
    head.extend_from_slice(b"/health/live");
    head.extend_from_slice(&[0x01, 9]);
    head.extend_from_slice(b"localhost");
    let settings = frame(4, 0, 0, &[]);
    let begun = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], &frame(1, 5, 1, &head)];
    tls.write_all(&begun.concat()).unwrap();
    loop {
        let mut head = [0; 9];
        tls.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        tls.read_exact(&mut payload).unwrap();
        if head[3] == 1 {
            assert_eq!(payload[0], 0x88, "status 200");
            break;
        }
    }
}

#[test]
fn a_client_certificate_is_a_login() {
    let (dir, files) = (tempfile::tempdir().unwrap(), Files::new());
    let (server, _log) = files.start(dir.path());
    let (guest, nobody) = (files.certificate_of("guest"), files.certificate_of("nobody"));
    for path in ["/api/v1/session", "/api/whoami"] {
        let (status, body) = files.get(&server, path, "", Some(&guest));
        assert_eq!(status, 200, "{path}: {body}");
        assert!(body.contains("\"guest\""), "{body}");
        assert_eq!(files.get(&server, path, "", Some(&nobody)).0, 401, "{path}");
        assert_eq!(files.get(&server, path, "", None).0, 401, "{path}");
        // What a request shows itself comes first.
        let wrong = "Authorization: Basic Z3Vlc3Q6d3Jvbmc=\r\n";
        assert_eq!(files.get(&server, path, wrong, Some(&guest)).0, 401, "{path}");
    }
    let mut kept = files.connect(&server, b"http/1.1", Some(&guest));
    let queues = "/api/v1/vhosts/~/queues";
    assert_eq!(ask(&mut kept, queues, "").0, 200);
    // A write by a page of another host does not ride on it.
    let foreign = "Origin: https://other.example\r\n";
    write!(kept, "PUT {queues}/q HTTP/1.1\r\nHost: localhost\r\n{foreign}").unwrap();
    write!(kept, "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}").unwrap();
    let mut status = [0; 12];
    kept.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 403");
}

#[test]
fn a_certificate_is_replaced_without_a_stop() {
    let (dir, files) = (tempfile::tempdir().unwrap(), Files::new());
    let (server, mut log) = files.start(dir.path());
    let shown = |tls: &Tls| tls.conn.peer_certificates().unwrap()[0].clone().into_owned();
    let mut before = files.connect(&server, b"http/1.1", None);
    files.renew();
    server.signal("-HUP");
    logged(&mut log, "configuration_reloaded");
    let after = files.connect(&server, b"http/1.1", None);
    assert_ne!(shown(&before), shown(&after));
    assert_eq!(ask(&mut before, "/health/live", "").0, 200, "who is there stays");
}
