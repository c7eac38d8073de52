//! Tokens in the real binary: one that an identity provider has signed opens a connection, bounds
//! it, and closes it with its end.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use polymq_model::carry::rfc3339_from_ms;
use serde_json::{Value, json};

use super::Server;

/// CONNACK of MQTT 5, without its properties.
const ACCEPTED: u8 = 0;
const NOT_AUTHORIZED: u8 = 0x87;

struct Issuer(EcdsaKeyPair);

impl Issuer {
    /// Makes a key and publishes it in a file.
    fn publish(file: &Path) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = key.public_key().as_ref();
        let (x, y) = (encoded(&point[1..33]), encoded(&point[33..]));
        let keys = json!({ "keys": [{ "kty": "EC", "crv": "P-256", "kid": "1", "x": x, "y": y }] });
        fs::write(file, keys.to_string()).unwrap();
        Self(key)
    }

    /// A token for `svc` with these scopes that ends so many seconds from now.
    fn token(&self, scope: &str, secs: i64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let exp = i64::try_from(now).unwrap() + secs;
        let claims = json!({ "aud": "polymq", "sub": "svc", "exp": exp, "scope": scope });
        let header = json!({ "alg": "ES256", "kid": "1" });
        let part = |value: &Value| encoded(value.to_string().as_bytes());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", encoded(signature.as_ref()))
    }
}

fn encoded(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn put(out: &mut Vec<u8>, text: &str) {
    out.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    out.extend(text.as_bytes());
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut rest = body.len();
    loop {
        let more = rest >= 128;
        out.push(u8::try_from(rest % 128).unwrap() | if more { 128 } else { 0 });
        rest /= 128;
        if !more {
            break;
        }
    }
    out.extend(body);
    out
}

/// First byte and body of the next packet.
fn next(socket: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    socket.read_exact(&mut head).unwrap();
    assert!(head[1] < 128, "a short packet");
    let mut body = vec![0; usize::from(head[1])];
    socket.read_exact(&mut body).unwrap();
    (head[0], body)
}

/// Connects by MQTT 5; the second value is the reason code.
fn connect(server: &Server, user: &str, password: &str) -> (TcpStream, u8) {
    let mut body = b"\0\x04MQTT\x05\xc2\0\0\0\0\x02id".to_vec();
    put(&mut body, user);
    put(&mut body, password);
    let mut socket = server.connect("mqtt");
    socket.write_all(&packet(0x10, &body)).unwrap();
    let mut head = [0; 2];
    socket.read_exact(&mut head).unwrap();
    let mut connack = vec![0; usize::from(head[1])];
    socket.read_exact(&mut connack).unwrap();
    (socket, connack[1])
}

/// Publishes with quality of service 1; the reason code.
fn publish(socket: &mut TcpStream, topic: &str) -> u8 {
    let mut body = Vec::new();
    put(&mut body, topic);
    body.extend([0, 1, 0, b'm']);
    socket.write_all(&packet(0x32, &body)).unwrap();
    let (first, body) = next(socket);
    assert_eq!(first, 0x40, "PUBACK");
    body.get(2).copied().unwrap_or(0)
}

#[test]
fn a_signed_token_opens_bounds_and_closes_a_connection() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys.json");
    let issuer = Issuer::publish(&keys);
    let setting = format!("auth.oauth2.jwks={}", keys.display());
    let server = Server::start(&dir.path().join("data"), &["--set", &setting]);

    let token = issuer.token("write:%2F/amq.topic/a.*", 3);
    let (mut socket, reason) = connect(&server, "svc", &token);
    assert_eq!(reason, ACCEPTED);
    assert!(publish(&mut socket, "a/b") < 0x80);
    assert_eq!(publish(&mut socket, "b/a"), NOT_AUTHORIZED);
    // Its user may be left out, and nobody else's be put in.
    assert_eq!(connect(&server, "", &issuer.token("read:*/*", 60)).1, ACCEPTED);
    assert_ne!(connect(&server, "admin", &issuer.token("read:*/*", 60)).1, ACCEPTED);
    // Without a scope for the virtual host there is nothing to open.
    assert_eq!(connect(&server, "svc", &issuer.token("read:other/*", 60)).1, NOT_AUTHORIZED);
    assert_ne!(connect(&server, "svc", &issuer.token("read:*/*", -1)).1, ACCEPTED);
    let stranger = Issuer::publish(&dir.path().join("other.json"));
    assert_ne!(connect(&server, "svc", &stranger.token("read:*/*", 60)).1, ACCEPTED);

    let (mut socket, _) = connect(&server, "svc", &issuer.token("write:*/*", 2));
    let (first, _) = next(&mut socket);
    assert_eq!(first, 0xe0, "DISCONNECT once the token has ended");
    assert_eq!(socket.read(&mut [0; 1]).unwrap(), 0);
}

/// Sends a request; the status and the body of the answer.
fn ask(server: &Server, request: &str, by: &str, body: &str) -> (u16, String) {
    let mut socket = server.connect("http");
    write!(
        socket,
        "{request} HTTP/1.1\r\nHost: x\r\nAuthorization: {by}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[test]
fn an_api_token_made_over_http_is_good_everywhere_until_it_is_revoked_and_both_are_audited() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &["--dev"]);
    let guest = format!("Basic {}", base64::prelude::BASE64_STANDARD.encode("guest:guest"));
    let scopes = r#"{"name":"sensor","scopes":["write:%2F/amq.topic/a.*"]}"#;
    let tokens = "/api/v1/users/guest/tokens";
    let (status, body) = ask(&server, &format!("POST {tokens}"), &guest, scopes);
    assert_eq!(status, 201, "{body}");
    let made: Value = serde_json::from_str(&body).unwrap();
    let (id, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());

    let (mut socket, reason) = connect(&server, "guest", token);
    assert_eq!(reason, ACCEPTED);
    assert!(publish(&mut socket, "a/b") < 0x80);
    assert_eq!(publish(&mut socket, "b/a"), NOT_AUTHORIZED);
    // It manages nothing, because it has no tag.
    let bearer = format!("Bearer {token}");
    assert_eq!(ask(&server, &format!("GET {tokens}"), &bearer, "").0, 403);

    let (status, body) = ask(&server, &format!("DELETE {tokens}/{id}"), &guest, "");
    assert_eq!(status, 204, "{body}");
    assert_eq!(next(&mut socket).0, 0xe0, "DISCONNECT once the token is revoked");
    assert_ne!(connect(&server, "guest", token).1, ACCEPTED);

    assert_eq!(server.stop("-TERM"), Some(0));
    let audit = fs::read_to_string(data.join("audit.jsonl")).unwrap();
    let lines = audit.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let told: Vec<_> = lines.map(|line| line["action"].as_str().unwrap().to_owned()).collect();
    assert_eq!(told, ["token.make", "token.revoke"]);
    assert!(audit.contains("\"user\":\"guest\"") && !audit.contains(token), "{audit}");
}

#[test]
fn a_token_that_has_expired_is_told_apart_from_a_wrong_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &["--dev"]);
    let guest = format!("Basic {}", base64::prelude::BASE64_STANDARD.encode("guest:guest"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(3);
    let ends = rfc3339_from_ms(i64::try_from(now.as_millis()).unwrap());
    let new = json!({ "expires_at": ends }).to_string();
    let (status, body) = ask(&server, "POST /api/v1/users/guest/tokens", &guest, &new);
    assert_eq!(status, 201, "{body}");
    let made: Value = serde_json::from_str(&body).unwrap();
    let token = made["token"].as_str().unwrap();
    let (mut socket, reason) = connect(&server, "guest", token);
    assert_eq!(reason, ACCEPTED);
    assert_eq!(next(&mut socket).0, 0xe0, "DISCONNECT once the token is over");
    for (shown, code) in [(token, "token_expired"), (&token[..40], "login_failed")] {
        let (status, body) = ask(&server, "GET /api/v1/session", &format!("Bearer {shown}"), "");
        let told: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, told["code"].as_str()), (401, Some(code)), "{body}");
        assert!(!told["detail"].to_string().contains("password"), "{body}");
    }
    assert_eq!(server.stop("-TERM"), Some(0));
}
