//! Secrets that are planted in every login show up nowhere.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
    process::{Command, Output, Stdio},
};

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    PROGRAM, Server,
    management::{run, told},
};

/// What nobody may find anywhere, as passwords of good and of wrong logins, and as tokens.
const GOOD: &str = "planted-good-password-0123456789";
const WRONG: &str = "planted-wrong-password-0123456789";
const TOKEN: &str = "pmq_0123456789abcdef_plantedtokenplantedtokenplantedtoken";
const SIGNED: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJwbGFudGVkIn0.cGxhbnRlZHNpZ25hdHVyZQ";

fn planted() -> Vec<String> {
    let whole = [GOOD, WRONG, TOKEN, SIGNED].map(str::to_owned);
    let basic = whole.clone().map(|secret| BASE64_STANDARD.encode(format!("admin:{secret}")));
    let plain = whole.clone().map(|secret| BASE64_STANDARD.encode(format!("\0admin\0{secret}")));
    // The part of a token that proves it.
    let parts = ["plantedtoken", "cGxhbnRlZHNpZ25hdHVyZQ"].map(str::to_owned);
    [whole.as_slice(), &basic, &plain, &parts].concat()
}

/// Logs in by MQTT, STOMP, AMQP, XMPP and HTTP; no answer repeats the secret.
fn log_in(server: &Server, secret: &str) {
    server.mqtt_login(Some(("admin", secret)));
    let header = "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
                  xmlns:stream='http://etherx.jabber.org/streams'>";
    let plain = BASE64_STANDARD.encode(format!("\0admin\0{secret}"));
    let auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>";
    say(server, "xmpp", format!("{header}{auth}{plain}</auth>").as_bytes());
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
    let mut answer = [0; 4096];
    let count = socket.read(&mut answer).unwrap();
    assert!(count > 0, "{listener} answers");
    let mut found = Vec::new();
    look(listener, &answer[..count], &mut found);
    assert_eq!(found, Vec::<String>::new());
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
    look_for(&planted(), place, bytes, found);
}

fn look_for(secrets: &[String], place: &str, bytes: &[u8], found: &mut Vec<String>) {
    let text = String::from_utf8_lossy(bytes);
    let seen = secrets.iter().filter(|secret| text.contains(secret.as_str()));
    found.extend(seen.map(|secret| format!("{secret} in {place}")));
}

/// Looks at what a command says, wherever it says it.
fn look_at(secrets: &[String], output: &Output, place: &str, found: &mut Vec<String>) {
    look_for(secrets, place, &output.stdout, found);
    look_for(secrets, place, &output.stderr, found);
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

/// What a configuration may hold that lets somebody in somewhere.
const DATABASE: &str = "planted-database-password";
const KEYS: &str = "planted-token-for-keys";
const COMPONENT: &str = "planted-component-secret";

/// A configuration with a secret in everything that can have one, and what may be shown nowhere.
fn configuration(dir: &Path) -> (String, Vec<String>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = made.signing_key.serialize_pem();
    let (cert_file, key_file) = (dir.join("cert.pem"), dir.join("key.pem"));
    fs::write(&cert_file, made.cert.pem()).unwrap();
    fs::write(&key_file, &key).unwrap();
    let (component, database) = (dir.join("component"), dir.join("database"));
    fs::write(&component, COMPONENT).unwrap();
    fs::write(&database, format!("{DATABASE}-of-the-file")).unwrap();
    let text = format!(
        "[storage.postgres]\nurl = \"postgres://u:{DATABASE}@127.0.0.1:1/d\"\n\
         password = {{ file = {database:?} }}\n\
         [auth.oauth2]\njwks = \"http://127.0.0.1:1/keys?access_token={KEYS}\"\n\
         [listeners]\namqps = {{ protocol = \"amqp\", bind = [\":0\"], tls = \"own\" }}\n\
         [tls.own]\ncert_file = {cert_file:?}\nkey_file = {key_file:?}\n\
         [components.c]\naddress = \"127.0.0.1:1\"\ndomain = \"c.localhost\"\n\
         secret_file = {component:?}\nuser = \"admin\"\n"
    );
    let lines = key.lines().filter(|line| line.len() > 20 && !line.starts_with('-'));
    let planted = [DATABASE, KEYS, COMPONENT, GOOD].map(str::to_owned);
    (text, planted.into_iter().chain(lines.map(str::to_owned)).collect())
}

#[test]
fn secrets_of_the_configuration_are_shown_by_no_command_and_no_page() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file, log) =
        (dir.path().join("data"), dir.path().join("polymq.toml"), dir.path().join("log"));
    let (text, secrets) = configuration(dir.path());
    fs::write(&file, &text).unwrap();
    let mut found = Vec::new();
    let local =
        |arguments: &[&str]| Command::new(PROGRAM).args(arguments).arg(&file).output().unwrap();
    for arguments in
        [&["check"][..], &["check", "-o", "json"], &["doctor"], &["doctor", "-o", "json"]]
    {
        look_at(&secrets, &local(arguments), &format!("{arguments:?}"), &mut found);
    }
    let out = fs::File::create(&log).unwrap();
    let flags = ["--config", file.to_str().unwrap(), "--set", "logging.level=trace"];
    let server = Server::start_with(&data, &flags, |command| {
        command.env("POLYMQ_ADMIN_PASSWORD", GOOD).stderr(Stdio::from(out));
    });
    fs::write(data.join("initial-admin-password"), GOOD).unwrap();
    for line in [
        "config show",
        "config origin -o json",
        "config diff",
        "status -o json",
        "audit -o json",
        "logs -o jsonl",
        "listener ls -o json",
        "user show admin",
        "defs export",
        "status --show-request",
    ] {
        let output = run(&server, &data, &line.split(' ').collect::<Vec<_>>());
        look_at(&secrets, &output, line, &mut found);
        assert!(output.status.success(), "{line}: {output:?}");
    }
    for page in ["/metrics", "/api/v1/config", "/api/config/effective"] {
        look_for(&secrets, page, server.get(page).as_bytes(), &mut found);
    }
    // A mistake beside a secret, at a reload and at a start.
    let wrong = text.replace("url = ", "urll = ");
    fs::write(&file, format!("{wrong}[storage.postgres.x]\npassword = \"{DATABASE}\"\n")).unwrap();
    let refused = run(&server, &data, &["reload"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    look_at(&secrets, &refused, "a refused reload", &mut found);
    let refused = local(&["check"]);
    let told_text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told_text.contains("urll = \"postgres://u:***@127.0.0.1:1/d\""), "{told_text}");
    look_at(&secrets, &refused, "a refused start", &mut found);
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.child.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    assert_eq!(server.stop("-TERM"), Some(0));
    look_for(&secrets, "the log", &fs::read(&log).unwrap(), &mut found);
    look_for(&secrets, "the audit", &fs::read(data.join("audit.jsonl")).unwrap(), &mut found);
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn new_passwords_and_tokens_are_shown_once_or_never() {
    let dir = tempfile::tempdir().unwrap();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    let out = fs::File::create(&log).unwrap();
    let server = Server::start_with(&data, &["--set", "logging.level=trace"], |command| {
        command.stderr(Stdio::from(out));
    });
    let secret = dir.path().join("new");
    fs::write(&secret, WRONG).unwrap();
    let made = told(&server, &data, &["token", "create", "admin"]);
    let token = made["token"].as_str().unwrap();
    let proof = token.rsplit('_').next().unwrap();
    let secrets = [WRONG.to_owned(), token.to_owned(), proof.to_owned()];
    let create = ["user", "create", "ann", "--new-password-file", secret.to_str().unwrap()];
    let created = run(&server, &data, &[create.as_slice(), &["--show-request"]].concat());
    assert!(created.status.success(), "{created:?}");
    let mut found = Vec::new();
    look_at(&secrets, &created, "a shown request", &mut found);
    assert_eq!(server.mqtt_login(Some(("ann", WRONG))), 5, "it has no rights yet");
    assert_eq!(server.mqtt_login(Some(("", token))), 0);
    for line in ["token ls admin -o json", "audit -o json", "user ls -o json", "defs export"] {
        let output = run(&server, &data, &line.split(' ').collect::<Vec<_>>());
        look_at(&secrets, &output, line, &mut found);
    }
    let bearer = format!(
        "GET /api/v1/overview HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Connection: close\r\n\r\n"
    );
    let mut socket = server.connect("http");
    socket.write_all(bearer.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    look_for(&secrets, "an answer", answer.as_bytes(), &mut found);
    assert_eq!(server.stop("-TERM"), Some(0));
    look_for(&secrets, "the log", &fs::read(&log).unwrap(), &mut found);
    let mut files = vec![data];
    while let Some(path) = files.pop() {
        match path.is_dir() {
            true => files.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path())),
            false => {
                let place = path.display().to_string();
                look_for(&secrets, &place, &fs::read(&path).unwrap(), &mut found);
            }
        }
    }
    assert_eq!(found, Vec::<String>::new());
}
