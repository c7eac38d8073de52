//! The real binary: start, first administrator, restart, stop.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

#[path = "process/command_line.rs"]
mod command_line;
#[path = "process/dead_letters.rs"]
mod dead_letters;
#[path = "process/https.rs"]
mod https;
#[path = "process/init.rs"]
mod init;
#[path = "process/local.rs"]
mod local;
#[path = "process/management.rs"]
mod management;
#[path = "process/mechanisms.rs"]
mod mechanisms;
#[path = "process/mistakes.rs"]
mod mistakes;
#[path = "process/operation.rs"]
mod operation;
#[path = "process/reload.rs"]
mod reload;
#[path = "process/replies.rs"]
mod replies;
#[path = "process/secrets.rs"]
mod secrets;
#[path = "process/shared_port.rs"]
mod shared_port;
#[path = "process/sql_store.rs"]
mod sql_store;
#[path = "process/tokens.rs"]
mod tokens;
#[cfg(feature = "otel")]
#[path = "process/traces.rs"]
mod traces;
#[path = "process/web_socket.rs"]
mod web_socket;

const PROGRAM: &str = env!("CARGO_BIN_EXE_polymq");

/// A started server. Dropping it ends the process.
struct Server {
    child: Child,
    ports: Value,
}

impl Server {
    fn start(data_dir: &Path, flags: &[&str]) -> Self {
        Self::start_with(data_dir, flags, |_| {})
    }

    fn start_with(data_dir: &Path, flags: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = command(data_dir, &["--port", "0", "--print-ports"]);
        command.args(flags).stdout(Stdio::piped()).stderr(Stdio::null());
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ports = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no ports: {line:?}"));
        Self { child, ports }
    }

    fn connect(&self, listener: &str) -> TcpStream {
        let port = u16::try_from(self.ports[listener].as_u64().unwrap()).unwrap();
        let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        socket
    }

    fn get(&self, path: &str) -> String {
        let mut socket = self.connect(if path == "/metrics" { "metrics" } else { "http" });
        write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Logs in by MQTT 3.1.1 and returns the return code.
    fn mqtt_login(&self, credentials: Option<(&str, &str)>) -> u8 {
        let mut socket = self.connect("mqtt");
        socket.write_all(&mqtt_connect(credentials)).unwrap();
        let mut answer = [0; 4];
        socket.read_exact(&mut answer).unwrap();
        assert_eq!(answer[..2], [0x20, 2]);
        answer[3]
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    fn stop(mut self, signal: &str) -> Option<i32> {
        self.signal(signal);
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(data_dir: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("server").arg("--data-dir").arg(data_dir).args(flags);
    for variable in ["POLYMQ_ADMIN_USER", "POLYMQ_ADMIN_PASSWORD", "POLYMQ_ADMIN_PASSWORD_FILE"] {
        command.env_remove(variable);
    }
    command
}

fn mqtt_connect(credentials: Option<(&str, &str)>) -> Vec<u8> {
    let mut body = vec![0, 4];
    body.extend_from_slice(b"MQTT\x04");
    body.push(if credentials.is_some() { 0xc2 } else { 0x02 });
    body.extend_from_slice(&[0, 60, 0, 1, b'c']);
    for text in credentials.iter().flat_map(|(user, password)| [user, password]) {
        body.extend_from_slice(&u16::try_from(text.len()).unwrap().to_be_bytes());
        body.extend_from_slice(text.as_bytes());
    }
    let mut packet = vec![0x10, u8::try_from(body.len()).unwrap()];
    packet.append(&mut body);
    packet
}

fn refused(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn first_administrator_logs_in_with_the_kept_password_also_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    let file = data.join("initial-admin-password");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let password = fs::read_to_string(&file).unwrap();
    let login = Some(("admin", password.trim()));
    assert_eq!(server.mqtt_login(login), 0);
    assert_ne!(server.mqtt_login(Some(("admin", "wrong"))), 0);
    assert_ne!(server.mqtt_login(Some(("guest", "guest"))), 0);
    assert_ne!(server.mqtt_login(None), 0);
    server.stop("-KILL");

    let server = Server::start(&data, &[]);
    assert_eq!(fs::read_to_string(&file).unwrap(), password);
    assert_eq!(server.mqtt_login(login), 0);
}

#[test]
fn guest_of_development_is_gone_without_the_flag() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &["--dev"]);
    assert_eq!(server.mqtt_login(None), 0);
    assert_eq!(server.mqtt_login(Some(("guest", "guest"))), 0);
    assert_eq!(server.stop("-TERM"), Some(0));

    let server = Server::start(&data, &[]);
    assert_ne!(server.mqtt_login(Some(("guest", "guest"))), 0);
}

#[test]
fn password_of_the_environment_is_taken_and_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let secret = dir.path().join("secret");
    fs::write(&secret, "from a file\n").unwrap();
    let mut child = command(&data, &["--port", "0", "--print-ports"])
        .env("POLYMQ_ADMIN_USER", "root")
        .env("POLYMQ_ADMIN_PASSWORD_FILE", &secret)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let server = Server { child, ports: serde_json::from_str(&line).unwrap() };
    assert_eq!(server.mqtt_login(Some(("root", "from a file"))), 0);
    assert!(!data.join("initial-admin-password").exists());
}

#[test]
fn the_file_of_the_first_password_goes_when_the_password_changes() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let file = dir.path().join("initial-admin-password");
    let password = fs::read_to_string(&file).unwrap();
    let login = BASE64_STANDARD.encode(format!("admin:{}", password.trim_end()));
    let body = r#"{"password":"another"}"#;
    let mut socket = server.connect("http");
    write!(
        socket,
        "PUT /api/v1/users/admin HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {login}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!file.exists());
    assert_eq!(server.mqtt_login(Some(("admin", "another"))), 0);
}

#[test]
fn a_lost_password_is_replaced_by_that_of_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    Server::start(dir.path(), &[]).stop("-TERM");
    let password = dir.path().join("password");
    fs::write(&password, "another\n").unwrap();
    let server = Server::start_with(dir.path(), &[], |command| {
        command.env("POLYMQ_ADMIN_PASSWORD_FILE", &password);
    });
    assert_eq!(server.mqtt_login(Some(("admin", "another"))), 0);
}

#[test]
fn a_default_password_keeps_a_broker_on_loopback() {
    let dir = tempfile::tempdir().unwrap();
    let with = |password: &str, flags: &[&str]| {
        let mut command = command(dir.path(), flags);
        command.env("POLYMQ_ADMIN_PASSWORD", password);
        command
    };
    let bound = |name: &str| match name {
        "amqp" => "--set=listeners.amqp.bind=0.0.0.0:0".to_owned(),
        name => format!("--set=listeners.{name}.bind=127.0.0.1:0"),
    };
    let open = ["amqp", "mqtt", "stomp", "xmpp", "http", "metrics"].map(bound);
    let open = open.each_ref().map(String::as_str);
    let told = refused(&with("changeme", &open).output().unwrap());
    assert!(told.contains("the password of `admin` is a default one"), "{told}");
    assert!(told.contains("listener `amqp` is open beyond loopback"), "{told}");
    // It is stored now, and no better without the variable.
    let told = refused(&command(dir.path(), &open).output().unwrap());
    assert!(told.contains("(`changeme`)"), "{told}");
    let server = Server::start(dir.path(), &[]);
    assert_eq!(server.mqtt_login(Some(("admin", "changeme"))), 0);
}

#[test]
fn hang_up_does_not_end_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    server.signal("-HUP");
    assert!(server.get("/health/live").starts_with("HTTP/1.1 200"));
    assert_eq!(server.stop("-TERM"), Some(0));
}

#[test]
fn anonymous_user_that_does_not_exist_keeps_the_server_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--port", "0", "--set", "auth.anonymous_user=ghost"];
    let told = refused(&command(dir.path(), &flags).output().unwrap());
    assert!(told.contains("no user `ghost`"), "{told}");
}

#[test]
fn stop_signals_end_the_server_cleanly_and_tell_its_clients() {
    for signal in ["-TERM", "-INT"] {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::start(&dir.path().join("data"), &["--dev"]);
        let mut client = server.connect("mqtt");
        client.write_all(&mqtt_connect(None)).unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
        server.signal(signal);
        // MQTT 3.1.1 has no packet for it; the connection ends.
        assert_eq!(client.read(&mut [0; 1]).unwrap_or(0), 0);
        drop(client);
        assert_eq!(server.child.wait().unwrap().code(), Some(0), "{signal}");
    }
}

#[test]
fn banner_shows_the_password_once_and_nothing_else_ever_does() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut first = command(&data, &["--port", "0", "--set", "logging.level=trace"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(first.stdout.take().unwrap()).lines();
    let end_of_box = |line: &String| line.starts_with("+----");
    let shown: Vec<_> = lines.by_ref().map(Result::unwrap).take_while(|l| !end_of_box(l)).collect();
    let password = fs::read_to_string(data.join("initial-admin-password")).unwrap();
    assert!(shown.iter().any(|line| line.contains(password.trim())), "{shown:?}");
    let pid = first.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let output = first.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("\"event\":\"ready\""), "{log}");
    assert!(!log.contains(password.trim()), "the log has the password");
}

#[test]
fn health_and_metrics_answer_when_the_ports_are_printed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &["--dev"]);
    assert!(server.get("/health/ready").starts_with("HTTP/1.1 200"));
    assert_eq!(server.mqtt_login(None), 0);
    let metrics = server.get("/metrics");
    let login = "polymq_auth_attempts_total{protocol=\"mqtt\",result=\"ok\"} 1\n";
    assert!(metrics.contains(login), "{metrics}");
    let disk = metrics.lines().find_map(|line| line.strip_prefix("polymq_store_disk_bytes "));
    // The first file of the log alone has 4 MiB.
    assert!(disk.unwrap().parse::<u64>().unwrap() > 4 << 20, "{metrics}");
    assert!(metrics.contains("polymq_store_recovered_percent 100\n"), "{metrics}");
}

#[test]
fn misspelt_key_keeps_the_server_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("polymq.toml");
    fs::write(&file, "[limits]\nconections = 5\n").unwrap();
    let data = dir.path().join("data");
    let output = command(&data, &["--config"]).arg(&file).output().unwrap();
    let told = refused(&output);
    assert!(told.contains("polymq.toml:2:1"), "{told}");
    assert!(told.contains("did you mean `limits.connections`?"), "{told}");
    assert!(!data.exists());
}

#[test]
fn missing_exchange_of_mqtt_is_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--port", "0", "--print-ports", "--set", "mqtt.exchange=nowhere"];
    let mut server = command(&dir.path().join("data"), &flags)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ports = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut ports).unwrap();
    let pid = server.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let output = server.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("\"event\":\"mqtt_exchange_missing\""), "{log}");
    assert!(log.contains("\"exchange\":\"nowhere\""), "{log}");
}

#[test]
fn check_prints_values_and_their_origins() {
    let output = Command::new(PROGRAM)
        .args(["check", "--set", "limits.connections=5"])
        .env("POLYMQ__SERVER__NAME", "here")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success());
    let line = |start: &str| told.lines().find(|line| line.starts_with(start)).unwrap_or("");
    assert!(line("limits.connections = 5 ").ends_with("# flag --set limits.connections"));
    assert!(line("server.name = \"here\"").ends_with("# env POLYMQ__SERVER__NAME"));
    assert!(line("auth.login_timeout = \"10s\"").ends_with("# default"));
}

#[test]
fn check_opens_the_files_that_the_configuration_names() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("polymq.toml");
    for (text, told) in [
        ("[tls.own]\ncert_file = \"none\"\nkey_file = \"none\"\n", "none"),
        ("[auth.oauth2]\njwks = \"/none/keys\"\n", "/none/keys"),
        (
            "[components.c]\ndomain = \"c\"\nuser = \"u\"\nsecret_file = \"/none/secret\"\n",
            "/none/secret",
        ),
    ] {
        fs::write(&file, text).unwrap();
        let output = Command::new(PROGRAM).arg("check").arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(refused(&output).contains(told), "{output:?}");
    }
}

#[test]
fn data_directory_of_another_server_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let _first = Server::start(&data, &[]);
    let output = command(&data, &["--port", "0"]).output().unwrap();
    let told = refused(&output);
    assert!(told.contains("held by process"), "{told}");
}

#[test]
fn port_in_use_is_named_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = format!("listeners.amqp.bind={}", socket.local_addr().unwrap());
    let data = dir.path().join("data");
    let output = command(&data, &["--set", &bind]).output().unwrap();
    let told = refused(&output);
    assert!(told.contains("`amqp` cannot listen on 127.0.0.1:"), "{told}");
    assert!(!data.join("store").exists());
}
