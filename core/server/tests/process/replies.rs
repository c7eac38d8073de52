//! Answering requests from the command line, and ending consumers of others.

use std::{
    io::{Read, Write},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::{
    PROGRAM, Server,
    management::{polymq, run, told},
};

fn login(command: &mut Command, server: &Server, data: &std::path::Path) {
    command
        .env("POLYMQ_URL", format!("http://127.0.0.1:{}", server.ports["http"]))
        .env("POLYMQ_USER", "admin")
        .env("POLYMQ_PASSWORD_FILE", data.join("initial-admin-password"));
}

#[test]
fn requests_are_answered_with_a_text_or_by_a_program() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    polymq(&server, &data, &["queue", "create", "r"]);
    for (how, value, answer) in [("--body", "pong", "pong\n"), ("--exec", "tr a-z A-Z", "PING\n")] {
        let mut asking = Command::new(PROGRAM);
        login(&mut asking, &server, &data);
        asking.args(["req", "queue:r", "ping"]);
        let asking = asking.stdout(Stdio::piped()).spawn().unwrap();
        polymq(&server, &data, &["reply", "queue:r", how, value, "-n", "1"]);
        let output = asking.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), answer, "{how}");
    }
    // Who says nowhere to answer gets none, and a program that fails loses nothing.
    polymq(&server, &data, &["pub", "queue:r", "no address"]);
    polymq(&server, &data, &["reply", "queue:r", "--body", "x", "-n", "1"]);
    assert_eq!(told(&server, &data, &["queue", "peek", "r"]), json!([]));
    let mut asking = Command::new(PROGRAM);
    login(&mut asking, &server, &data);
    asking.args(["req", "queue:r", "ping"]).stdout(Stdio::piped());
    let asking = asking.spawn().unwrap();
    let failed = run(&server, &data, &["reply", "queue:r", "--exec", "exit 9", "-n", "1"]);
    assert_eq!(failed.status.code(), Some(3), "{failed:?}");
    polymq(&server, &data, &["reply", "queue:r", "--body", "late", "-n", "1"]);
    assert_eq!(asking.wait_with_output().unwrap().stdout, b"late\n");
    let silent = run(&server, &data, &["reply", "queue:r", "--body", "x", "--wait", "1"]);
    assert!(silent.status.success(), "{silent:?}");
}

#[test]
fn a_consumer_of_somebody_else_is_ended_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    polymq(&server, &data, &["queue", "create", "q"]);
    let password = std::fs::read_to_string(data.join("initial-admin-password")).unwrap();
    let mut client = server.connect("stomp");
    let frames = format!(
        "CONNECT\nlogin:admin\npasscode:{}\n\n\0\
         SUBSCRIBE\nid:0\ndestination:/queue/q\nack:client\nreceipt:r\n\n\0",
        password.trim()
    );
    client.write_all(frames.as_bytes()).unwrap();
    let mut heard = String::new();
    let mut hear = |word: &str| {
        let mut part = [0; 4096];
        while !heard.contains(word) {
            let count = client.read(&mut part).unwrap();
            assert!(count > 0, "no {word} in {heard:?}");
            heard.push_str(&String::from_utf8_lossy(&part[..count]));
        }
    };
    hear("RECEIPT");
    polymq(&server, &data, &["pub", "queue:q", "held"]);
    hear("held");
    let consumers = told(&server, &data, &["consumer", "ls"]);
    let tag = consumers[0]["tag"].as_str().unwrap();
    let missing = run(&server, &data, &["consumer", "cancel", "q", "nobody"]);
    assert_eq!(missing.status.code(), Some(4), "{missing:?}");
    polymq(&server, &data, &["consumer", "cancel", "q", "nobody", "--idempotent"]);
    polymq(&server, &data, &["consumer", "cancel", "q", tag]);
    hear("an administrator ended it");
    assert_eq!(told(&server, &data, &["consumer", "ls"]), json!([]));
    let waiting = told(&server, &data, &["queue", "peek", "q"]);
    assert_eq!((&waiting[0]["payload"], &waiting[0]["state"]), (&json!("held"), &json!("ready")));
    let audit = told(&server, &data, &["audit"]);
    let is_ours = |row: &Value| row["action"] == "consumer.cancel";
    assert!(audit.as_array().unwrap().iter().any(is_ours), "{audit}");
}
