//! Secrets that are planted in every login show up nowhere.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
    process::Stdio,
};

use base64::{Engine, prelude::BASE64_STANDARD};

use super::Server;

/// What nobody may find anywhere, as passwords of good and of wrong logins, and as tokens.
const GOOD: &str = "planted-good-password-0123456789";
const WRONG: &str = "planted-wrong-password-0123456789";
const TOKEN: &str = "pmq_0123456789abcdef_plantedtokenplantedtokenplantedtoken";
const SIGNED: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJwbGFudGVkIn0.cGxhbnRlZHNpZ25hdHVyZQ";

fn planted() -> Vec<String> {
    let whole = [GOOD, WRONG, TOKEN, SIGNED].map(str::to_owned);
    let encoded = whole.clone().map(|secret| BASE64_STANDARD.encode(format!("admin:{secret}")));
    // The part of a token that proves it.
    let parts = ["plantedtoken", "cGxhbnRlZHNpZ25hdHVyZQ"].map(str::to_owned);
    [whole.as_slice(), &encoded, &parts].concat()
}

/// Logs in by MQTT, STOMP, AMQP and HTTP.
fn log_in(server: &Server, secret: &str) {
    server.mqtt_login(Some(("admin", secret)));
    let stomp =
        format!("CONNECT\naccept-version:1.2\nhost:/\nlogin:admin\npasscode:{secret}\n\n\0");
    say(server, "stomp", stomp.as_bytes());
    let plain = format!("\0admin\0{secret}");
    let mut start_ok = b"\0\x0a\0\x0b\0\0\0\0\x05PLAIN".to_vec();
    start_ok.extend(u32::try_from(plain.len()).unwrap().to_be_bytes());
    start_ok.extend(plain.as_bytes());
    start_ok.extend(b"\x05en_US");
    let mut amqp = b"AMQP\0\0\x09\x01\x01\0\0".to_vec();
    amqp.extend(u32::try_from(start_ok.len()).unwrap().to_be_bytes());
    amqp.extend(start_ok);
    amqp.push(0xce);
    say(server, "amqp", &amqp);
    let basic = BASE64_STANDARD.encode(format!("admin:{secret}"));
    for shown in [format!("Basic {basic}"), format!("Bearer {secret}")] {
        let request = format!(
            "GET /api/whoami HTTP/1.1\r\nHost: x\r\nAuthorization: {shown}\r\n\
             Connection: close\r\n\r\n"
        );
        say(server, "http", request.as_bytes());
    }
}

/// Sends bytes, and waits until the server has answered something.
fn say(server: &Server, listener: &str, bytes: &[u8]) {
    let mut socket = server.connect(listener);
    socket.write_all(bytes).unwrap();
    assert!(socket.read(&mut [0; 4096]).unwrap() > 0, "{listener} answers");
}

fn search(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            search(&entry.path(), found);
            continue;
        }
        let bytes = fs::read(entry.path()).unwrap();
        look(&entry.path().display().to_string(), &bytes, found);
    }
}

fn look(place: &str, bytes: &[u8], found: &mut Vec<String>) {
    let text = String::from_utf8_lossy(bytes);
    for secret in planted() {
        if text.contains(&secret) {
            found.push(format!("{secret} in {place}"));
        }
    }
}

#[test]
fn secrets_of_logins_are_in_no_log_no_metric_and_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    let file = fs::File::create(&log).unwrap();
    let server = Server::start_with(&data, &["--set", "logging.level=trace"], |command| {
        command.env("POLYMQ_ADMIN_PASSWORD", GOOD).stderr(Stdio::from(file));
    });
    assert_eq!(server.mqtt_login(Some(("admin", GOOD))), 0);
    for secret in [GOOD, WRONG, TOKEN, SIGNED] {
        log_in(&server, secret);
    }
    let mut found = Vec::new();
    for page in ["/metrics", "/health/ready", "/api/overview", "/api/v1/openapi.json"] {
        look(page, server.get(page).as_bytes(), &mut found);
    }
    assert_eq!(server.stop("-TERM"), Some(0));
    search(dir.path(), &mut found);
    assert_eq!(found, Vec::<String>::new());
    let log = fs::read_to_string(&log).unwrap();
    assert!(log.contains("\"event\":\"login_failed\""), "{log}");
}
