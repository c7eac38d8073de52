//! `polymq storage` on stores that the real broker has filled.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_polymq");
const MESSAGES: u16 = 120;

/// A broker for development. Dropping it ends the process.
struct Broker {
    child: Child,
    port: u16,
}

impl Broker {
    fn start(data: &Path, extra: &[&str]) -> Self {
        let flags = ["server", "--dev", "--port", "0", "--print-ports", "--data-dir"];
        let mut child = Command::new(PROGRAM)
            .args(flags)
            .arg(data)
            .args(extra)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ports: Value = serde_json::from_str(&line).unwrap();
        let port = u16::try_from(ports["mqtt"].as_u64().unwrap()).unwrap();
        Self { child, port }
    }

    fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }

    /// A client of MQTT 3.1.1 whose session stays.
    fn connect(&self, id: u8) -> TcpStream {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let head = b"\x10\x0d\x00\x04MQTT\x04\x00\x00\x3c\x00\x01";
        socket.write_all(&[&head[..], &[id]].concat()).unwrap();
        expect(&mut socket, 4, 0x20);
        socket
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn expect(socket: &mut TcpStream, len: usize, first: u8) -> Vec<u8> {
    let mut packet = vec![0; len];
    socket.read_exact(&mut packet).unwrap();
    assert_eq!(packet[0], first, "{packet:x?}");
    packet
}

/// A session that subscribes to `t` at quality of service 1 and is away, with messages waiting.
fn fill(data: &Path) {
    let broker = Broker::start(data, &[]);
    fill_through(&broker);
    broker.stop();
}

fn fill_through(broker: &Broker) {
    let mut subscriber = broker.connect(b's');
    subscriber.write_all(b"\x82\x06\x00\x01\x00\x01t\x01").unwrap();
    expect(&mut subscriber, 5, 0x90);
    subscriber.write_all(b"\xe0\x00").unwrap();
    assert_eq!(subscriber.read(&mut [0]).unwrap(), 0);
    let mut publisher = broker.connect(b'p');
    for number in 1..=MESSAGES {
        let [high, low] = number.to_be_bytes();
        publisher.write_all(&[0x32, 7, 0, 1, b't', high, low, high, low]).unwrap();
        expect(&mut publisher, 4, 0x40);
    }
}

/// The session comes back and is sent everything, in order.
fn drain(data: &Path) {
    drain_with(data, &[]);
}

fn drain_with(data: &Path, extra: &[&str]) {
    let broker = Broker::start(data, extra);
    let mut subscriber = broker.connect(b's');
    for number in 1..=MESSAGES {
        let packet = expect(&mut subscriber, 9, 0x32);
        assert_eq!(packet[7..], number.to_be_bytes());
        subscriber.write_all(&[0x40, 2, packet[5], packet[6]]).unwrap();
    }
    broker.stop();
}

fn storage(arguments: &[&str], data: &Path) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("storage").args(arguments).arg("--data-dir").arg(data).output().unwrap()
}

fn backup(arguments: &[&str], data: &Path, extra: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("backup").args(arguments).arg("--data-dir").arg(data).args(extra).output().unwrap()
}

#[track_caller]
fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

#[track_caller]
fn said(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn document(output: &Output) -> Value {
    serde_json::from_str(&said(output)).unwrap()
}

/// Every file of the store with its content.
fn files(data: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![data.join("store")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => {
                    found.insert(entry.path(), std::fs::read(entry.path()).unwrap());
                }
            }
        }
    }
    found
}

#[test]
fn nothing_is_made_where_there_is_no_store() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let output = storage(&["inspect"], &data);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("there is no store"), "{errors}");
    assert!(!data.exists());
}

#[test]
fn a_store_is_inspected_and_verified() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let before = files(dir.path());
    let shown = said(&storage(&["inspect"], dir.path()));
    let queue = shown.lines().find(|line| line.ends_with("mqtt-subscription-sqos1")).unwrap();
    assert!(queue.contains(&format!(" {MESSAGES} ")), "{shown}");
    let verified = said(&storage(&["verify"], dir.path()));
    assert!(verified.contains("is sound") && verified.contains(" 120 messages"), "{verified}");
    let shown = document(&storage(&["inspect", "-o", "json"], dir.path()));
    assert_eq!((&shown["messages"], &shown["store"]["backend"]), (&120.into(), &"file".into()));
    let is_queue = |log: &&Value| log["queue"].as_str().unwrap().ends_with("sqos1");
    let queue = shown["logs"].as_array().unwrap().iter().find(is_queue).unwrap();
    assert_eq!(queue["messages"], MESSAGES);
    let lines = said(&storage(&["inspect", "-o", "csv"], dir.path()));
    assert!(lines.starts_with("log,messages,bytes,floor,next_seq,queue\r\n"), "{lines}");
    for command in ["verify", "repair"] {
        let shown = document(&storage(&[command, "-o", "json"], dir.path()));
        assert_eq!(shown["sound"], true, "{shown}");
    }
    assert!(files(dir.path()) == before, "a store that is looked at is not touched");
    drain(dir.path());
}

#[test]
fn an_export_is_imported_into_an_empty_store_only() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fill(&from);
    let file = dir.path().join("export.jsonl");
    let file = file.to_str().unwrap();
    said(&storage(&["export", file], &from));
    assert!(!storage(&["export", file], &from).status.success(), "the file is there");
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.starts_with("{\"polymq_export\":1}\n"), "{text}");
    said(&storage(&["import", file], &to));
    let again = storage(&["import", file], &to);
    assert!(String::from_utf8_lossy(&again.stderr).contains("is not empty"), "{again:?}");
    assert_eq!(said(&storage(&["inspect"], &from)).lines().count(), {
        said(&storage(&["inspect"], &to)).lines().count()
    });
    drain(&to);
    drain(&from);
}

#[test]
fn an_export_that_is_not_whole_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fill(&from);
    let file = dir.path().join("export.jsonl");
    said(&storage(&["export", file.to_str().unwrap()], &from));
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<_> = text.lines().collect();
    for (name, broken, told) in [
        ("end", lines[..lines.len() - 1].join("\n"), "ends before its end"),
        ("head", lines[1..].join("\n"), "no export"),
        ("json", text.replacen("\"message\"", "\"massage\"", 1), "unknown variant"),
        (
            "lost",
            [&lines[..lines.len() - 3], &lines[lines.len() - 1..]].concat().join("\n"),
            "differs",
        ),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, broken).unwrap();
        let data = dir.path().join(format!("to-{name}"));
        let output = storage(&["import", path.to_str().unwrap()], &data);
        assert!(!output.status.success(), "{name}");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(told), "{name}: {errors}");
    }
}

#[test]
fn a_store_in_use_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let _broker = Broker::start(dir.path(), &[]);
    let output = storage(&["inspect"], dir.path());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("held by process"), "{errors}");
}

#[test]
fn a_store_moves_to_another_backend_and_back() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let told = said(&storage(&["migrate", "--to", "sqlite"], dir.path()));
    assert!(told.contains("Set storage.backend = \"sqlite\""), "{told}");
    let again = storage(&["migrate", "--to", "sqlite"], dir.path());
    assert!(String::from_utf8_lossy(&again.stderr).contains("is not empty"), "{again:?}");
    let back = ["--set", "storage.backend=sqlite", "--set", "storage.file.path=new"];
    said(&storage(&[&["migrate", "--to", "file"], &back[..]].concat(), dir.path()));
    drain_with(dir.path(), &["--set", "storage.file.path=new"]);
    drain_with(dir.path(), &["--set", "storage.backend=sqlite"]);
    drain(dir.path());
}

#[test]
fn a_migration_that_makes_no_sense_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (to, told) in [("file", "already"), ("memory", "nothing would be left")] {
        let output = storage(&["migrate", "--to", to], dir.path());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(told), "{errors}");
    }
}

#[test]
fn a_backup_of_a_running_broker_is_checked_and_restored() {
    for extra in [&[][..], &["--set", "storage.backend=sqlite"]] {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let folder = dir.path().join("backup");
        let folder = folder.to_str().unwrap();
        let broker = Broker::start(&from, extra);
        fill_through(&broker);
        said(&backup(&["create", folder], &from, extra));
        assert!(refused(&backup(&["create", folder], &from, extra)).contains("is there already"));
        assert!(refused(&backup(&["restore", folder], &from, extra)).contains("in use"));
        broker.stop();
        let verify = || Command::new(PROGRAM).args(["backup", "verify", folder]).output().unwrap();
        let told = said(&verify());
        assert!(told.contains("is sound") && told.contains(" 120 messages"), "{told}");
        let json = ["backup", "verify", folder, "-o", "json"];
        let shown = document(&Command::new(PROGRAM).args(json).output().unwrap());
        assert_eq!((&shown["sound"], &shown["messages"]), (&true.into(), &120.into()), "{shown}");
        said(&backup(&["restore", folder], &to, extra));
        drain_with(&to, extra);
        assert!(refused(&backup(&["restore", folder], &to, extra)).contains("--replace"));
        let told = said(&backup(&["restore", folder, "--replace"], &to, extra));
        assert!(told.contains(".before-"), "{told}");
        drain_with(&to, extra);
        // What was backed up, and the backup, are as they were.
        said(&verify());
        drain_with(&from, extra);
        assert_only_for_the_owner(Path::new(folder));
    }
}

fn assert_only_for_the_owner(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert!(mode == 0o600 || mode == 0o700, "{}: {mode:o}", entry.path().display());
        if entry.path().is_dir() {
            assert_only_for_the_owner(&entry.path());
        }
    }
}

#[test]
fn a_backup_that_is_damaged_is_not_restored() {
    for extra in [&[][..], &["--set", "storage.backend=sqlite"]] {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let folder = dir.path().join("backup");
        let broker = Broker::start(&from, extra);
        fill_through(&broker);
        broker.stop();
        let config = dir.path().join("polymq.toml");
        std::fs::write(&config, "[limits]\nconnections = 77\n").unwrap();
        let path = folder.to_str().unwrap();
        let create = ["create", path, "--config", config.to_str().unwrap()];
        said(&backup(&create, &from, extra));
        let kept = std::fs::read_to_string(folder.join("polymq.toml")).unwrap();
        assert!(kept.contains("connections = 77"), "{kept}");
        let store = match extra {
            [] => {
                let mut logs = std::fs::read_dir(folder.join("store/wal")).unwrap().flatten();
                logs.next().unwrap().path()
            }
            _ => folder.join("polymq.db"),
        };
        let mut bytes = std::fs::read(&store).unwrap();
        bytes[4096 + 80] ^= 1;
        std::fs::write(&store, bytes).unwrap();
        let verify = Command::new(PROGRAM).args(["backup", "verify", path]).output().unwrap();
        assert!(refused(&verify).contains("damaged"), "{verify:?}");
        let json = Command::new(PROGRAM).args(["backup", "verify", path, "-o", "json"]).output();
        let shown: Value = serde_json::from_str(&refused(&json.unwrap())).unwrap();
        assert!(!shown["problems"].as_array().unwrap().is_empty(), "{shown}");
        assert!(refused(&backup(&["restore", path], &to, extra)).contains("nothing was written"));
        let left: Vec<_> = std::fs::read_dir(&to).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_backup_that_makes_no_sense_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (data, folder) = (dir.path().join("data"), dir.path().join("backup"));
    let create = |backend: &str| {
        let setting = format!("storage.backend={backend}");
        refused(&backup(&["create", folder.to_str().unwrap()], &data, &["--set", &setting]))
    };
    assert!(create("postgres").contains("pg_dump"));
    assert!(create("memory").contains("keeps nothing"));
    assert!(create("file").contains("there is no store"));
    fill(&data);
    let inside = data.join("store/backup");
    let output = backup(&["create", inside.to_str().unwrap()], &data, &[]);
    assert!(refused(&output).contains("inside of the store"));
    assert!(!inside.exists() && !folder.exists());
    said(&backup(&["create", folder.to_str().unwrap()], &data, &[]));
    let other = ["--set", "storage.backend=sqlite"];
    let to = dir.path().join("to");
    let output = backup(&["restore", folder.to_str().unwrap()], &to, &other);
    assert!(refused(&output).contains("polymq storage migrate"));
    let none = backup(&["restore", data.to_str().unwrap()], &to, &[]);
    assert!(refused(&none).contains("is no backup"));
}
