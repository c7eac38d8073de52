//! What a running server does with a changed configuration, and what its manager hears.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::net::UnixDatagram,
    path::Path,
    process::{ChildStderr, Stdio},
    time::Duration,
};

use serde_json::Value;

use super::Server;

/// Reads the log up to a line with this event.
pub(crate) fn logged(log: &mut BufReader<ChildStderr>, event: &str) -> Vec<Value> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "no {event} in {lines:?}");
        let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
        let is_last = line["event"] == event;
        lines.push(line);
        if is_last {
            return lines;
        }
    }
}

fn start(data: &Path, config: &Path) -> (Server, BufReader<ChildStderr>) {
    let flags = ["--config", config.to_str().unwrap()];
    let mut server = Server::start_with(data, &flags, |command| {
        command.stderr(Stdio::piped());
    });
    let log = BufReader::new(server.child.stderr.take().unwrap());
    (server, log)
}

#[test]
fn a_changed_file_is_applied_as_far_as_it_goes_and_a_broken_one_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("polymq.toml"));
    fs::write(&file, "[auth]\nmechanisms = [\"SCRAM-SHA-256\"]\n").unwrap();
    let (server, mut log) = start(&data, &file);
    let password = fs::read_to_string(data.join("initial-admin-password")).unwrap();
    let login = || server.mqtt_login(Some(("admin", password.trim())));
    assert_ne!(login(), 0, "passwords are off");

    fs::write(&file, "[server]\nname = \"other\"\n[auth]\nmechanisms = [\"PLAIN\"]\n").unwrap();
    server.signal("-HUP");
    let told = logged(&mut log, "configuration_reloaded");
    let told_of = |event: &str, key: &str| {
        told.iter().any(|line| line["event"] == event && line["key"] == key)
    };
    assert!(told_of("configuration_changed", "auth.mechanisms"), "{told:?}");
    assert!(told_of("configuration_waits", "server.name"), "{told:?}");
    assert_eq!(login(), 0);

    fs::write(&file, "[auth]\nanonymous_user = \"nobody\"\n").unwrap();
    server.signal("-HUP");
    let told = logged(&mut log, "configuration_refused");
    let text = told.last().unwrap()["error"].as_str().unwrap();
    assert!(text.contains("there is no user `nobody`"), "{text}");
    assert_eq!(login(), 0, "nothing has changed");

    fs::write(&file, "[auth]\nmechanism = [\"PLAIN\"]\n").unwrap();
    server.signal("-HUP");
    let told = logged(&mut log, "configuration_refused");
    let text = told.last().unwrap()["error"].as_str().unwrap();
    assert!(text.contains("polymq.toml:2:1") && text.contains("mechanisms"), "{text}");
    assert_eq!(login(), 0);
}

#[test]
fn the_service_manager_hears_of_start_reload_and_stop() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let hear = || {
        let mut heard = [0; 200];
        let count = manager.recv(&mut heard).unwrap();
        String::from_utf8_lossy(&heard[..count]).into_owned()
    };
    let server = Server::start_with(&dir.path().join("data"), &[], |command| {
        command.env("NOTIFY_SOCKET", &socket);
    });
    assert_eq!(hear(), "READY=1");
    server.signal("-HUP");
    assert!(hear().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(hear(), "READY=1");
    assert_eq!(server.stop("-TERM"), Some(0));
    assert_eq!(hear(), "STOPPING=1");
}
