//! One port for every protocol: `protocol = "auto"`.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::aws_lc_rs,
    pki_types::ServerName,
};

use crate::{Server, mqtt_connect};

const SETTINGS: [&str; 4] =
    ["--set", "listeners.all.protocol=auto", "--set", "listeners.all.bind=127.0.0.1:0"];

/// What each client says first, and how the answer begins.
fn greetings() -> Vec<(&'static str, Vec<u8>, &'static [u8])> {
    let stomp = |word: &str| format!("{word}\naccept-version:1.2\nhost:/\n\n\0").into_bytes();
    let xmpp = "<?xml version='1.0'?><stream:stream to='localhost' version='1.0' \
                xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
    let upgrade = "GET /ws/mqtt HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    vec![
        ("amqp", b"AMQP\0\0\x09\x01".to_vec(), &[1, 0, 0]),
        ("mqtt", mqtt_connect(None), &[0x20, 2, 0, 0]),
        ("stomp", stomp("CONNECT"), b"CONNECTED\n"),
        ("stomp 1.2", stomp("STOMP"), b"CONNECTED\n"),
        ("stomp behind line feeds", [b"\n\n".to_vec(), stomp("CONNECT")].concat(), b"CONNECTED\n"),
        ("xmpp", xmpp.as_bytes().to_vec(), b"<?xml version='1.0'?><stream:stream "),
        ("http", b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), b"HTTP/1.1 200 OK"),
        ("http post", b"POST / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), b"HTTP/1.1 4"),
        ("websocket", upgrade.as_bytes().to_vec(), b"HTTP/1.1 101 "),
    ]
}

/// Says it in pieces of `step`, and looks at the beginning of the answer.
fn greet(socket: &mut (impl Read + Write), step: usize, first: &[u8], answer: &[u8], name: &str) {
    for piece in first.chunks(step) {
        socket.write_all(piece).unwrap();
        socket.flush().unwrap();
    }
    let mut found = vec![0; answer.len()];
    socket.read_exact(&mut found).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(answer), "{name}");
}

/// Upgrades, and logs in behind the handshake in the same write.
fn speaks_mqtt_over_web_socket(socket: &mut (impl Read + Write)) {
    let (_, mut first, _) = greetings().pop().unwrap();
    let connect = mqtt_connect(None);
    first.extend([0x82, 0x80 | u8::try_from(connect.len()).unwrap(), 0, 0, 0, 0]);
    first.extend(connect);
    socket.write_all(&first).unwrap();
    let (mut answer, connack) = (Vec::new(), [0x82, 4, 0x20, 2, 0, 0]);
    while !answer.ends_with(&connack) {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
}

#[test]
fn every_protocol_is_known_by_its_first_bytes_however_slowly_they_come() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[&["--dev"], &SETTINGS[..]].concat());
    for step in [1, 3, usize::MAX] {
        for (name, first, answer) in greetings() {
            let mut socket = server.connect("all");
            socket.set_nodelay(true).unwrap();
            greet(&mut socket, step.min(first.len()), &first, answer, name);
        }
    }
}

#[test]
fn garbage_is_cut_and_silence_too() {
    let dir = tempfile::tempdir().unwrap();
    let more = ["--dev", "--set", "auth.login_timeout=300ms"];
    let server = Server::start(dir.path(), &[&more[..], &SETTINGS[..]].concat());
    let garbage: [&[u8]; 8] = [
        b"\0\0\0\0",
        b"HELO there\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\n\r\n",
        b"AMQX\0\0\x09\x01",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc",
        b"<html>",
        b"\x30\0",
        b"GE",
    ];
    for bytes in garbage.into_iter().chain([&b""[..], &[b'\n'; 20_000]]) {
        let mut socket = server.connect("all");
        // The server may have cut the connection before everything is written.
        let _ = socket.write_all(bytes);
        let mut answer = Vec::new();
        let ended = socket.read_to_end(&mut answer);
        let is_cut = ended.is_ok() || ended.is_err_and(|error| is_reset(&error));
        assert!(is_cut && answer.is_empty(), "{bytes:?}: {answer:?}");
    }
}

fn is_reset(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::ConnectionReset
}

#[test]
fn with_a_certificate_the_port_speaks_tls_and_clear_text() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let cert_file = format!("tls.all.cert_file={}", cert.display());
    let key_file = format!("tls.all.key_file={}", key.display());
    let more = ["--dev", "--set", &cert_file, "--set", &key_file, "--set", "listeners.all.tls=all"];
    let https = [
        "--set",
        "listeners.https.protocol=http",
        "--set",
        "listeners.https.bind=127.0.0.1:0",
        "--set",
        "listeners.https.tls=all",
    ];
    let flags = [&more[..], &https, &SETTINGS].concat();
    let server = Server::start(&dir.path().join("data"), &flags);
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    let encrypted = |socket: TcpStream| {
        let host = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::clone(&config), host).unwrap();
        StreamOwned::new(session, socket)
    };
    for listener in ["all", "https"] {
        speaks_mqtt_over_web_socket(&mut encrypted(server.connect(listener)));
    }
    speaks_mqtt_over_web_socket(&mut server.connect("all"));
    for (name, first, answer) in greetings() {
        greet(&mut encrypted(server.connect("all")), 1, &first, answer, name);
        greet(&mut server.connect("all"), 1, &first, answer, name);
    }
}
