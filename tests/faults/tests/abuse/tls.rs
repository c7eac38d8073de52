//! Case A12: certificates that are no good, handshakes that do not end, and keys without end.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use polymq_faults::{
    broker::{Broker, Home},
    report::say,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

use crate::served::Honest;

/// An authority with a name, and a key of its own.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
struct Signed {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the authority");
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn sign(&self, params: &CertificateParams) -> Signed {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Signed { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A certificate of the user `guest`, valid until this year.
    fn guest(&self, until: i32) -> Signed {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "guest");
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        self.sign(&params)
    }
}

/// The files of a listener with certificates, and who signs for it.
pub(crate) struct Files {
    folder: tempfile::TempDir,
    authority: Authority,
}

impl Files {
    pub(crate) fn new() -> Self {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let server = authority.sign(&server);
        for (name, text) in [
            ("cert.pem", &server.certificate),
            ("key.pem", &server.key),
            ("ca.pem", &authority.0.pem()),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Self { folder, authority }
    }

    /// The table `tls.test` of the configuration.
    pub(crate) fn flags(&self) -> Vec<String> {
        let files =
            [("cert_file", "cert.pem"), ("key_file", "key.pem"), ("client_ca_file", "ca.pem")];
        let settings = files.map(|(key, name)| {
            format!("tls.test.{key}={}", self.folder.path().join(name).display())
        });
        let settings = settings.into_iter().chain(["tls.test.client_auth=optional".to_owned()]);
        settings.flat_map(|setting| ["--set".to_owned(), setting]).collect()
    }

    /// A broker whose AMQP port is encrypted.
    fn start(&self, home: &mut Home) -> Broker {
        let flags = self.flags();
        home.always(&flags.iter().map(String::as_str).collect::<Vec<_>>());
        home.always(&[
            "--set",
            "listeners.amqps.protocol=amqp",
            "--set",
            "listeners.amqps.bind=127.0.0.1:0",
            "--set",
            "listeners.amqps.tls=test",
        ]);
        home.start().unwrap()
    }

    fn client(&self, certificate: Option<&Signed>, port: u16) -> Tls {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.0.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match certificate {
            None => builder.with_no_client_auth(),
            Some(signed) => {
                let chain = CertificateDer::from_pem_slice(signed.certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![chain], key).unwrap()
            }
        };
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
        StreamOwned::new(session, socket)
    }
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// The broker's answer to the header of AMQP; an error when there is no connection.
fn start(client: &mut Tls) -> std::io::Result<String> {
    client.write_all(polymq_faults::amqp::PROTOCOL_HEADER)?;
    let mut head = [0; 7];
    client.read_exact(&mut head)?;
    let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    let mut frame = vec![0; length as usize + 1];
    client.read_exact(&mut frame)?;
    Ok(String::from_utf8_lossy(&frame).into_owned())
}

#[test]
fn a12_certificates_that_are_no_good_are_refused() {
    let (files, mut home) = (Files::new(), Home::new().unwrap());
    let mut broker = files.start(&mut home);
    let port = broker.port("amqps").unwrap();
    let mut honest = Honest::new(&broker);
    let good = files.authority.guest(2100);
    let said = start(&mut files.client(Some(&good), port)).unwrap();
    assert!(said.contains("EXTERNAL"), "{said}");
    let said = start(&mut files.client(None, port)).unwrap();
    assert!(!said.contains("EXTERNAL"), "who shows no certificate is no user: {said}");
    // Its name is the same, its key is not.
    let foreign = Authority::new().guest(2100);
    for (name, bad) in [("expired", files.authority.guest(2001)), ("foreign", foreign)] {
        let error = start(&mut files.client(Some(&bad), port)).unwrap_err();
        say(&format!("A12: a certificate that is {name}: {error}"));
        honest.is_served();
    }
    assert!(broker.is_alive());
}

#[test]
fn a12_handshakes_that_do_not_end_hold_up_nobody() {
    const STRANGERS: usize = 300;
    let (files, mut home) = (Files::new(), Home::new().unwrap());
    let mut broker = files.start(&mut home);
    let port = broker.port("amqps").unwrap();
    let strangers: Vec<_> = (0..STRANGERS)
        .map(|number| {
            let mut stranger = TcpStream::connect(("127.0.0.1", port)).unwrap();
            // Nothing, or the beginning of a ClientHello.
            if number % 2 == 0 {
                stranger.write_all(&[0x16, 3, 1, 2, 0, 1, 0]).unwrap();
            }
            stranger
        })
        .collect();
    let began = Instant::now();
    start(&mut files.client(None, port)).unwrap();
    let took = began.elapsed();
    say(&format!("A12: a handshake beside {STRANGERS} half ones takes {} ms", took.as_millis()));
    assert!(took < Duration::from_secs(3), "{took:?}");
    drop(strangers);
    assert!(broker.is_alive());
}

/// `openssl s_client` asks for new keys where a line says `K`.
#[test]
fn a12_new_keys_without_end_do_not_hold_up_others() {
    if !polymq_faults::disk::has("openssl") {
        return polymq_faults::report::skip("A12", "there is no openssl");
    }
    const ROUNDS: usize = 2000;
    let (files, mut home) = (Files::new(), Home::new().unwrap());
    let mut broker = files.start(&mut home);
    let mut honest = Honest::new(&broker);
    honest.is_served();
    let before = broker.resident_kib().unwrap();
    let address = format!("127.0.0.1:{}", broker.port("amqps").unwrap());
    let mut openssl = Command::new("openssl")
        .args(["s_client", "-tls1_3", "-connect", &address])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut input = openssl.stdin.take().unwrap();
    for _ in 0..ROUNDS {
        // The broker may have closed long ago.
        if input.write_all(b"K\n").is_err() {
            break;
        }
        honest.is_served();
    }
    let grown = broker.resident_kib().unwrap().saturating_sub(before);
    say(&format!(
        "A12: {ROUNDS} new keys: {grown} KiB; slowest honest round trip {} ms",
        honest.slowest.as_millis()
    ));
    polymq_faults::broker::end(&mut openssl);
    assert!(grown < 8 * 1024, "{grown} KiB");
    assert!(broker.is_alive());
}
