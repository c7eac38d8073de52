//! Commands on the machine of the broker, over the Unix socket in its data directory.

use std::{
    fs,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
        process::CommandExt,
    },
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use super::{PROGRAM, Server};

/// A command of somebody who shows nothing.
fn command(data: &Path, home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).arg("--data-dir").arg(data).env("HOME", home);
    for variable in ["POLYMQ_URL", "POLYMQ_USER", "POLYMQ_TOKEN", "POLYMQ_PASSWORD_FILE"] {
        command.env_remove(variable);
    }
    command.env_remove("XDG_CONFIG_HOME");
    command
}

fn run(data: &Path, home: &Path, arguments: &[&str]) -> Output {
    command(data, home, arguments).output().unwrap()
}

fn told(data: &Path, home: &Path, arguments: &[&str]) -> Value {
    let output = run(data, home, &[arguments, &["-o", "json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn on_the_machine_of_the_broker_its_user_needs_no_password() {
    let dir = tempfile::tempdir().unwrap();
    let (data, home) = (dir.path().join("data"), dir.path());
    let server = Server::start(&data, &[]);
    fs::remove_file(data.join("initial-admin-password")).unwrap();
    let socket = data.join("control.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o077, 0);

    let made = run(&data, home, &["queue", "create", "q", "--show-request"]);
    assert!(made.status.success(), "{made:?}");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(said.contains("/queues/q  (over ") && said.contains("control.sock"), "{said}");
    run(&data, home, &["pub", "q", "hello"]);
    let output = run(&data, home, &["sub", "q", "-n", "1", "--raw"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello");
    // As `rabbitmqctl` does where somebody has lost the password.
    let password = dir.path().join("password");
    fs::write(&password, "another\n").unwrap();
    let password = password.to_str().unwrap();
    let arguments = ["user", "set", "admin", "--new-password-file", password];
    assert!(run(&data, home, &arguments).status.success());
    assert_eq!(server.mqtt_login(Some(("admin", "another"))), 0);
    let audit = told(&data, home, &["audit"]);
    let last = audit.as_array().unwrap().last().unwrap();
    assert_eq!(
        (last["user"].as_str(), last["from"].as_str()),
        (Some("admin"), Some("unix socket"))
    );

    // Somebody who names a user or a broker means that, and not the socket.
    let refused = run(&data, home, &["status", "--user", "ann"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let url = format!("http://127.0.0.1:{}", server.ports["http"]);
    let refused = run(&data, home, &["queue", "ls", "--url", &url]);
    assert_eq!(refused.status.code(), Some(5), "{refused:?}");

    let drained = run(&data, home, &["drain", "--yes"]);
    assert!(drained.status.success(), "{drained:?}");
    assert!(!socket.exists(), "it goes with its broker");
}

#[test]
fn a_socket_that_was_left_behind_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (data, home) = (dir.path().join("data"), dir.path());
    Server::start(&data, &[]).stop("-KILL");
    assert!(data.join("control.sock").exists());
    let server = Server::start(&data, &[]);
    assert!(run(&data, home, &["queue", "ls"]).status.success());
    assert_eq!(server.stop("-TERM"), Some(0));
    assert!(!data.join("control.sock").exists());
}

#[test]
fn a_path_that_is_too_long_for_a_socket_keeps_nobody_from_serving() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("d".repeat(120));
    assert!(UnixListener::bind(data.join("control.sock")).is_err());
    let server = Server::start(&data, &[]);
    assert!(server.get("/health/ready").starts_with("HTTP/1.1 200"));
}

#[test]
fn another_user_of_the_machine_is_not_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let (data, home) = (dir.path().join("data"), dir.path());
    let _server = Server::start(&data, &[]);
    let socket = data.join("control.sock");
    // Only root can try as somebody else, and only a careless one opens these up.
    if !is_root(&data) {
        return;
    }
    for (path, mode) in [(dir.path(), 0o755), (&data, 0o755), (&socket, 0o666)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    UnixStream::connect(&socket).unwrap();
    let program = dir.path().join("polymq");
    fs::copy(PROGRAM, &program).unwrap();
    let output = Command::new(&program)
        .args(["queue", "ls", "--data-dir"])
        .arg(&data)
        .env("HOME", home)
        .uid(65_534)
        .gid(65_534)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(6), "{output:?}");
}

/// Whatever we make belongs to us.
fn is_root(ours: &Path) -> bool {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata(ours).unwrap()) == 0
}
