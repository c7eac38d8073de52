//! The handshake of WebSocket, and what leads to it.

use std::io::{Read, Write};

use crate::Server;

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
const VERSION: &str = "Sec-WebSocket-Version: 13";
const UPGRADE: &str = "Upgrade: websocket";
const CONNECTION: &str = "Connection: keep-alive, Upgrade";

/// The head of the answer to a request with these lines.
fn answer(server: &Server, first: &str, lines: &[&str]) -> String {
    let mut socket = server.connect("http");
    let lines = lines.join("\r\n");
    write!(socket, "{first} HTTP/1.1\r\nHost: mq.example:1\r\n{lines}\r\n\r\n").unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap().to_lowercase()
}

#[test]
fn handshakes_are_checked_as_rfc_6455_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let origins = "http.cors_origins=https://app.example";
    let server = Server::start(dir.path(), &["--dev", "--set", origins]);
    let good = [KEY, VERSION, UPGRADE, CONNECTION];
    let with = |more: &'static str| [&good[..], &[more]].concat();
    let cases: [(&str, &str, Vec<&str>, u16); 16] = [
        ("in order", "GET /ws/mqtt", good.to_vec(), 101),
        ("a subprotocol", "GET /ws/mqtt", with("Sec-WebSocket-Protocol: x, mqtt"), 101),
        ("a page of this host", "GET /ws/json", with("Origin: http://mq.example:1"), 101),
        ("a page that is listed", "GET /ws/json", with("Origin: https://app.example"), 101),
        ("a page of another host", "GET /ws/json", with("Origin: https://other.example"), 403),
        ("a page of nowhere", "GET /ws/json", with("Origin: null"), 403),
        ("other subprotocols", "GET /ws/mqtt", with("Sec-WebSocket-Protocol: stomp"), 400),
        ("no upgrade", "GET /ws/mqtt", vec![KEY, VERSION], 426),
        ("no connection", "GET /ws/mqtt", vec![KEY, VERSION, UPGRADE], 426),
        (
            "another version",
            "GET /ws/mqtt",
            vec![KEY, "Sec-WebSocket-Version: 8", UPGRADE, CONNECTION],
            426,
        ),
        ("no version", "GET /ws/mqtt", vec![KEY, UPGRADE, CONNECTION], 426),
        ("no key", "GET /ws/mqtt", vec![VERSION, UPGRADE, CONNECTION], 400),
        (
            "a short key",
            "GET /ws/mqtt",
            vec!["Sec-WebSocket-Key: YQ==", VERSION, UPGRADE, CONNECTION],
            400,
        ),
        ("a wrong login", "GET /ws/json", with("Authorization: Digest x"), 401),
        ("a post", "POST /ws/mqtt", with("Content-Length: 0"), 405),
        ("another path", "GET /ws/other", good.to_vec(), 404),
    ];
    for (what, first, lines, status) in cases {
        let head = answer(&server, first, &lines);
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{what}: {head}");
        match status {
            // RFC 6455, section 1.3.
            101 => assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=")),
            426 => assert!(head.contains("sec-websocket-version: 13"), "{what}: {head}"),
            _ => {}
        }
        let chosen = head.contains("sec-websocket-protocol: mqtt");
        assert_eq!(chosen, what == "a subprotocol", "{what}: {head}");
    }
}

#[test]
fn what_no_listener_speaks_and_what_is_not_listed_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [
        "--set",
        "listeners.xmpp.bind=",
        "--set",
        "http.web_sockets=mqtt,xmpp",
        "--set",
        "http.path_prefix=/mq",
    ];
    let server = Server::start(dir.path(), &flags);
    let good = [KEY, VERSION, UPGRADE, CONNECTION];
    for (path, status) in [
        ("/mq/ws/mqtt", 101),
        ("/ws/mqtt", 404),
        ("/mq/ws/xmpp", 404),
        ("/mq/ws/stomp", 404),
        ("/mq/ws/json", 404),
        ("/.well-known/host-meta", 404),
    ] {
        let head = answer(&server, &format!("GET {path}"), &good);
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{path}: {head}");
    }
}

#[test]
fn clients_of_xmpp_find_their_web_socket() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "http.path_prefix=/mq"]);
    let json = server.get("/.well-known/host-meta.json");
    assert!(json.contains(r#""href":"ws://x/mq/ws/xmpp""#), "{json}");
    assert!(json.contains(r#""rel":"urn:xmpp:alt-connections:websocket""#), "{json}");
    assert!(json.to_lowercase().contains("access-control-allow-origin: *"), "{json}");
    let xml = server.get("/.well-known/host-meta");
    assert!(xml.contains("href='ws://x/mq/ws/xmpp'"), "{xml}");
}

#[test]
fn one_connection_too_many_is_told_to_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--dev", "--set", "limits.connections=1"]);
    let mut only = server.connect("mqtt");
    only.write_all(&crate::mqtt_connect(None)).unwrap();
    only.read_exact(&mut [0; 4]).unwrap();
    let head = answer(&server, "GET /ws/mqtt", &[KEY, VERSION, UPGRADE, CONNECTION]);
    assert!(head.starts_with("http/1.1 503 ") && head.contains("retry-after: "), "{head}");
}
