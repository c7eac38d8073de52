//! What administrators do with the server itself over `/api/v1`: its configuration, its listeners,
//! and what a web page does with the cookie of its session.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::Server;

/// An answer: its head, and its body as JSON.
struct Answer {
    head: String,
    body: Value,
}

impl Answer {
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

/// An administrator.
struct Admin<'s> {
    server: &'s Server,
    password: String,
}

impl<'s> Admin<'s> {
    fn new(server: &'s Server, data: &Path) -> Self {
        let password = fs::read_to_string(data.join("initial-admin-password")).unwrap();
        Self { server, password: password.trim().to_owned() }
    }

    fn ask(&self, line: &str, body: &Value) -> Answer {
        let mut socket = self.server.connect("http");
        let login = BASE64_STANDARD.encode(format!("admin:{}", self.password));
        let body = body.to_string();
        write!(
            socket,
            "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Basic {login}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        Answer { head: head.to_owned(), body: serde_json::from_str(body).unwrap_or_default() }
    }
}

#[test]
fn values_are_written_into_the_file_they_come_from_and_hold_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("polymq.toml"));
    let before = "# ours\n[limits]\nmessage_size = \"2MiB\" # enough\n";
    fs::write(&file, before).unwrap();
    let flags = ["--config", file.to_str().unwrap(), "--set", "limits.prefetch_max=7"];
    let server = Server::start(&data, &flags);
    let admin = Admin::new(&server, &data);
    let size = |value: Value| json!({ "values": { "limits.message_size": value } });

    let dry = admin.ask("PATCH /api/v1/config?dry_run=true", &size(json!("1MiB")));
    assert_eq!((dry.status(), &dry.body["changes"][0]["to"]), (200, &json!("\"1MiB\"")));
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    let done = admin.ask("PATCH /api/v1/config", &size(json!("1MiB")));
    assert_eq!((done.status(), &done.body["changes"][0]["needs_restart"]), (200, &json!(false)));
    assert_eq!(fs::read_to_string(&file).unwrap(), before.replace("2MiB", "1MiB"));
    let shown = admin.ask("GET /api/v1/server", &Value::Null).body;
    assert_eq!(shown["limits"]["message_bytes_max"], 1 << 20);

    let wrong = admin.ask("PATCH /api/v1/config", &size(json!("plenty")));
    assert_eq!((wrong.status(), &wrong.body["code"]), (422, &json!("config_invalid")));
    for (key, why) in [("server.name", "restart"), ("limits.prefetch_max", "flag --set")] {
        let kept = admin.ask("PATCH /api/v1/config", &json!({ "values": { key: "9" } }));
        assert_eq!((kept.status(), &kept.body["code"]), (409, &json!("config_read_only")));
        assert!(kept.body["detail"].as_str().unwrap().contains(why), "{}", kept.body);
        assert!(!kept.body["params"]["lines"].as_array().unwrap().is_empty());
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), before.replace("2MiB", "1MiB"));

    let level = json!({ "values": { "logging.level": "debug", "limits.message_size": null } });
    assert_eq!(admin.ask("PATCH /api/v1/config", &level).status(), 200);
    let after = fs::read_to_string(&file).unwrap();
    assert_eq!(after, "# ours\n[limits]\n\n[logging]\nlevel = \"debug\"\n");
}

#[test]
fn a_file_that_others_keep_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    let admin = Admin::new(&server, &data);
    let level = json!({ "values": { "logging.level": "debug" } });
    let refused = admin.ask("PATCH /api/v1/config", &level);
    assert_eq!((refused.status(), &refused.body["code"]), (409, &json!("config_read_only")));
    assert_eq!(refused.body["params"]["lines"], json!(["[logging] level = \"debug\""]));
}

/// Waits until nobody, or somebody, listens there.
fn wait_for(port: u16, is_open: bool) {
    let since = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_ok() != is_open {
        assert!(since.elapsed() < Duration::from_secs(20), "port {port}");
    }
}

#[test]
fn a_listener_stops_and_goes_on_while_its_clients_stay() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &["--dev"]);
    let admin = Admin::new(&server, &data);
    let mut client = server.connect("stomp");
    let mut answer = [0; 9];
    client.write_all(b"CONNECT\nlogin:guest\npasscode:guest\n\n\0").unwrap();
    client.read_exact(&mut answer).unwrap();
    let port = u16::try_from(server.ports["stomp"].as_u64().unwrap()).unwrap();

    let stopped = admin.ask("PUT /api/v1/listeners/stomp", &json!({ "running": false }));
    assert_eq!((stopped.status(), &stopped.body["running"]), (200, &json!(false)));
    wait_for(port, false);
    server.signal("-HUP");
    let check = server.get(&format!("/api/health/checks/port-listener/{port}"));
    assert!(check.contains("401"), "{check}");
    let path = format!("GET /api/health/checks/port-listener/{port}");
    assert_eq!(admin.ask(&path, &Value::Null).status(), 503);
    // Whoever was there stays.
    client.write_all(b"SEND\ndestination:/queue/q\nreceipt:r\n\nx\0").unwrap();
    let mut text = String::new();
    while !text.contains("RECEIPT") {
        let mut some = [0; 200];
        let count = client.read(&mut some).unwrap();
        assert!(count > 0, "closed after {text:?}");
        text.push_str(&String::from_utf8_lossy(&some[..count]));
    }

    let started = admin.ask("PUT /api/v1/listeners/stomp", &json!({ "running": true }));
    assert_eq!((started.status(), &started.body["running"]), (200, &json!(true)));
    wait_for(port, true);
    assert_eq!(admin.ask(&path, &Value::Null).status(), 200);
    let own = admin.ask("PUT /api/v1/listeners/http", &json!({ "running": false }));
    assert_eq!((own.status(), &own.body["code"]), (409, &json!("in_use")));
}

/// Opens a WebSocket with a cookie; the socket behind the head of the answer, if it is let in.
fn upgrade(server: &Server, path: &str, cookie: &str) -> Result<TcpStream, String> {
    let mut socket = server.connect("http");
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Cookie: {cookie}\r\n\r\n"
    )
    .unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    if head.starts_with("HTTP/1.1 101 ") { Ok(socket) } else { Err(head) }
}

/// The payload of the next frame, which is a short one.
fn frame(socket: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 2];
    socket.read_exact(&mut head).unwrap();
    let length = match head[1] {
        126 => {
            let mut long = [0; 2];
            socket.read_exact(&mut long).unwrap();
            u16::from_be_bytes(long).into()
        }
        short => usize::from(short),
    };
    let mut payload = vec![0; length];
    socket.read_exact(&mut payload).unwrap();
    payload
}

/// A short frame of a client.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    [&[0x80 | opcode, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0], payload].concat()
}

/// What comes up to a text.
fn until(socket: &mut TcpStream, wanted: &str) -> String {
    let mut text = String::new();
    while !text.contains(wanted) {
        text.push_str(&String::from_utf8_lossy(&frame(socket)));
    }
    text
}

/// The cookie of a session that begins.
fn cookie_of(admin: &Admin<'_>) -> String {
    let login = json!({ "user": "admin", "password": admin.password });
    let begun = admin.ask("POST /api/v1/session", &login);
    let set = begun.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    set.split(';').next().unwrap().to_owned()
}

#[test]
fn the_cookie_of_a_session_is_the_login_that_sasl_external_names() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    let admin = Admin::new(&server, &data);
    let cookie = &cookie_of(&admin);

    let mut amqp = upgrade(&server, "/ws/amqp", cookie).unwrap();
    amqp.write_all(&masked(2, b"AMQP\0\0\x09\x01")).unwrap();
    until(&mut amqp, "PLAIN AMQPLAIN EXTERNAL");
    let method = b"\0\x0a\0\x0b\0\0\0\0\x08EXTERNAL\0\0\0\0\x05en_US";
    let length = u32::try_from(method.len()).unwrap().to_be_bytes();
    let start_ok = [&[1, 0, 0][..], &length, method, &[0xce]].concat();
    amqp.write_all(&masked(2, &start_ok)).unwrap();
    let tune = frame(&mut amqp);
    assert_eq!(tune[7..11], [0, 10, 0, 30], "the session's user: {tune:?}");

    let open = b"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>";
    let external = "<mechanism>EXTERNAL</mechanism>";
    let auth = b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>";
    let mut xmpp = upgrade(&server, "/ws/xmpp", cookie).unwrap();
    xmpp.write_all(&masked(1, open)).unwrap();
    until(&mut xmpp, external);
    xmpp.write_all(&masked(1, auth)).unwrap();
    assert!(until(&mut xmpp, "/>").starts_with("<success"));

    let mut stranger = upgrade(&server, "/ws/xmpp", "polymq_session=nothing").unwrap();
    stranger.write_all(&masked(1, open)).unwrap();
    let offered = until(&mut stranger, "</mechanisms>");
    assert!(!offered.contains(external), "{offered}");
}

#[test]
fn a_page_is_known_to_web_sockets_by_the_cookie_of_its_session() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    let admin = Admin::new(&server, &data);
    let cookie = &cookie_of(&admin);

    let mut json = upgrade(&server, "/ws/json?vhost=/", cookie).unwrap();
    let said: Value = serde_json::from_slice(&frame(&mut json)).unwrap();
    assert_eq!((&said["op"], &said["user"]), (&json!("connected"), &json!("admin")), "{said}");
    let mut mqtt = upgrade(&server, "/ws/mqtt", cookie).unwrap();
    let packet = super::mqtt_connect(None);
    let masked = [&[0x82, 0x80 | u8::try_from(packet.len()).unwrap(), 0, 0, 0, 0][..], &packet];
    mqtt.write_all(&masked.concat()).unwrap();
    assert_eq!(frame(&mut mqtt), [0x20, 2, 0, 0], "the session's user, without a password");

    let over = "polymq_session=nothing";
    let refused = upgrade(&server, "/ws/json", over).unwrap_err();
    assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
    // A client of another protocol has a login of its own, or is nobody.
    let mut mqtt = upgrade(&server, "/ws/mqtt", over).unwrap();
    mqtt.write_all(&masked.concat()).unwrap();
    assert_eq!(frame(&mut mqtt), [0x20, 2, 0, 4]);
}
