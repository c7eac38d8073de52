//! The real binary on a database.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStdout, Stdio},
};

use polymq_sql::testing::PostgresServer;

use super::{Server, command, mqtt_connect};

const PUBLISH: &[u8] = b"\x33\x09\x00\x01t\x00\x01kept";
const PUBACK: &[u8] = &[0x40, 2, 0, 1];
const SUBSCRIBE: &[u8] = b"\x82\x06\x00\x02\x00\x01t\x01";

fn mqtt(server: &Server, password: &str) -> TcpStream {
    let mut socket = server.connect("mqtt");
    socket.write_all(&mqtt_connect(Some(("admin", password)))).unwrap();
    let mut answer = [0; 4];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0]);
    socket
}

/// Publishes a retained message of quality of service 1 and waits for its acknowledgement.
fn publish(server: &Server, password: &str) {
    let mut socket = mqtt(server, password);
    socket.write_all(PUBLISH).unwrap();
    let mut answer = [0; 4];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(answer, PUBACK);
}

fn assert_is_kept(server: &Server, password: &str) {
    let mut socket = mqtt(server, password);
    socket.write_all(SUBSCRIBE).unwrap();
    let mut seen = Vec::new();
    while !seen.windows(4).any(|four| four == b"kept") {
        let mut some = [0; 64];
        let count = socket.read(&mut some).unwrap();
        assert!(count > 0, "the server closed the connection after {seen:?}");
        seen.extend_from_slice(&some[..count]);
    }
}

fn password(data: &Path) -> String {
    fs::read_to_string(data.join("initial-admin-password")).unwrap().trim().to_owned()
}

#[test]
fn sqlite_keeps_users_and_messages_over_a_crash_and_a_clean_stop() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--set", "storage.backend=sqlite", "--set", "storage.sqlite.path=kept.db"];
    let server = Server::start(dir.path(), &flags);
    let password = password(dir.path());
    publish(&server, &password);
    server.stop("-KILL");
    assert!(dir.path().join("kept.db").is_file());
    let server = Server::start(dir.path(), &flags);
    assert_is_kept(&server, &password);
    assert_eq!(server.stop("-TERM"), Some(0));
    assert_is_kept(&Server::start(dir.path(), &flags), &password);
}

#[test]
fn postgres_keeps_users_and_messages_and_its_password_is_not_told() {
    let postgres = PostgresServer::shared();
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, "s3cret-of-the-database\n").unwrap();
    let settings = [
        "storage.backend=postgres".to_owned(),
        format!("storage.postgres.url={}", postgres.new_database()),
        format!("storage.postgres.password.file={}", secret.display()),
        "storage.postgres.lease=1s".to_owned(),
        "logging.level=trace".to_owned(),
    ];
    let flags: Vec<_> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let data = dir.path().join("data");
    let log = dir.path().join("log");
    let with_log = |command: &mut std::process::Command| {
        let file = fs::File::options().create(true).append(true).open(&log).unwrap();
        command.stderr(file);
    };
    let server = Server::start_with(&data, &flags, with_log);
    let password = password(&data);
    publish(&server, &password);
    server.stop("-KILL");
    // The lease of the killed one is waited for.
    let server = Server::start_with(&data, &flags, with_log);
    assert_is_kept(&server, &password);
    assert_eq!(server.stop("-TERM"), Some(0));
    assert_is_kept(&Server::start_with(&data, &flags, with_log), &password);
    let told = fs::read_to_string(&log).unwrap();
    assert!(told.contains("store_opened") && !told.contains("s3cret"), "{told}");
}

/// A broker that stands by; dropping it ends the process.
struct Standby {
    child: Option<Child>,
    ports: BufReader<ChildStdout>,
}

impl Standby {
    /// Starts it, and waits until it says that another broker has the store.
    fn start(data: &Path, flags: &[&str]) -> Self {
        let mut command = command(data, &["--port", "0", "--print-ports"]);
        command.arg("--standby").args(flags).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let ports = BufReader::new(child.stdout.take().unwrap());
        let standby = Self { child: Some(child), ports };
        let mut line = String::new();
        while !line.contains("standing_by") {
            line.clear();
            assert!(errors.read_line(&mut line).unwrap() > 0, "the standby has ended");
        }
        // Nobody reads on, and a full pipe would stop it.
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        standby
    }

    /// The server that it becomes.
    fn serving(mut self) -> Server {
        let mut line = String::new();
        self.ports.read_line(&mut line).unwrap();
        let ports = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no ports: {line:?}"));
        Server { child: self.child.take().unwrap(), ports }
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn standby_serves_at_once_when_the_first_broker_stops() {
    let postgres = PostgresServer::shared();
    let dir = tempfile::tempdir().unwrap();
    let url = format!("storage.postgres.url={}", postgres.new_database());
    let lease = "storage.postgres.lease=15s";
    let flags = ["--set", "storage.backend=postgres", "--set", &url, "--set", lease];
    let data = dir.path().join("first");
    let first = Server::start(&data, &flags);
    let password = password(&data);
    publish(&first, &password);
    let standby = Standby::start(&dir.path().join("second"), &flags);
    assert_eq!(first.stop("-TERM"), Some(0));
    assert_is_kept(&standby.serving(), &password);
}

#[test]
fn owner_that_slept_longer_than_its_lease_ends_and_the_standby_serves() {
    let postgres = PostgresServer::shared();
    let dir = tempfile::tempdir().unwrap();
    let url = format!("storage.postgres.url={}", postgres.new_database());
    let lease = "storage.postgres.lease=3s";
    let flags = ["--set", "storage.backend=postgres", "--set", &url, "--set", lease];
    let data = dir.path().join("first");
    let mut first = Server::start(&data, &flags);
    let password = password(&data);
    publish(&first, &password);
    let standby = Standby::start(&dir.path().join("second"), &flags);
    first.signal("-STOP");
    let second = standby.serving();
    assert_is_kept(&second, &password);
    first.signal("-CONT");
    assert_eq!(first.child.wait().unwrap().code(), Some(74));
    publish(&second, &password);
}

#[test]
fn standby_stops_when_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--set", "storage.backend=sqlite"];
    let _first = Server::start(dir.path(), &flags);
    let mut standby = Standby::start(dir.path(), &flags);
    let child = standby.child.as_mut().unwrap();
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
