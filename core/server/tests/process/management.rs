//! The command line against a broker that runs: messages are looked at and moved over `/api/v1`.

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};

use super::{PROGRAM, Server};

/// A command of the administrator.
pub(super) fn run(server: &Server, data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    command
        .env("POLYMQ_URL", format!("http://127.0.0.1:{}", server.ports["http"]))
        .env("POLYMQ_USER", "admin")
        .env("POLYMQ_PASSWORD_FILE", data.join("initial-admin-password"))
        .output()
        .unwrap()
}

/// A command of the administrator, which must succeed.
pub(super) fn polymq(server: &Server, data: &Path, arguments: &[&str]) -> String {
    let output = run(server, data, arguments);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {told}");
    assert!(!told.contains("ended early"), "{arguments:?}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

pub(super) fn told(server: &Server, data: &Path, arguments: &[&str]) -> Value {
    let text = polymq(server, data, &[arguments, &["-o", "json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{arguments:?}: {text}"))
}

fn bodies(server: &Server, data: &Path, queue: &str) -> Vec<Value> {
    let page = told(server, data, &["queue", "peek", queue]);
    page.as_array().unwrap().iter().map(|message| message["payload"].clone()).collect()
}

#[test]
fn messages_are_found_and_moved_from_the_command_line_and_stay_so_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    for queue in ["in", "out"] {
        polymq(&server, &data, &["queue", "create", queue]);
    }
    for (body, kind) in [("1", "kind=a"), ("2", "kind=b"), ("3", "kind=a")] {
        polymq(&server, &data, &["pub", "queue:in", body, "--header", kind]);
    }
    let filter = "headers.kind = 'a'";
    let found = polymq(&server, &data, &["queue", "search", "in", filter, "-o", "jsonl"]);
    assert_eq!(found.lines().count(), 2, "{found}");
    let work = ["queue", "move", "in", "queue:out", "--filter", filter];
    let dry = told(&server, &data, &[work.as_slice(), &["--dry-run"]].concat());
    assert_eq!((&dry["count"], &dry["dry_run"]), (&json!(2), &json!(true)));
    assert_eq!(bodies(&server, &data, "in"), ["1", "2", "3"], "a dry run moves nothing");
    let job = told(&server, &data, &work);
    assert_eq!((&job["state"], &job["progress"]["done"]), (&json!("done"), &json!(2)));
    assert_eq!(bodies(&server, &data, "in"), ["2"]);
    assert_eq!(bodies(&server, &data, "out"), ["1", "3"]);
    polymq(&server, &data, &["vhost", "create", "other"]);
    let audit = told(&server, &data, &["audit"]);
    let audit = audit.as_array().unwrap().last().unwrap();
    assert_eq!((&audit["user"], &audit["object"]), (&json!("admin"), &json!("/vhosts/other")));
    let route = polymq(&server, &data, &["route", "queue:in", "--header", "kind=a"]);
    assert!(route.contains("queue in: "), "{route}");
    server.stop("-KILL");

    let server = Server::start(&data, &[]);
    assert_eq!(bodies(&server, &data, "in"), ["2"]);
    assert_eq!(bodies(&server, &data, "out"), ["1", "3"]);
    let jobs = told(&server, &data, &["job", "ls"]);
    assert_eq!((&jobs[0]["kind"], &jobs[0]["state"]), (&json!("move"), &json!("done")));
}
