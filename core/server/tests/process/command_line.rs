//! What the command line shows of a broker that runs, and how it ends one.

use std::process::Command;

use serde_json::{Value, json};

use super::{
    PROGRAM, Server,
    management::{polymq, run, told},
};

/// Every command that reads, with what is made for it before.
const READING: [&str; 32] = [
    "status",
    "health",
    "health --check alarms",
    "alarms",
    "audit",
    "top -n 1",
    "listener ls",
    "queue ls",
    "queue show q",
    "queue peek q",
    "queue unacked q",
    "queue consumers q",
    "queue bindings q",
    "exchange ls",
    "exchange show amq.topic",
    "binding ls",
    "scheduled ls",
    "dlq ls",
    "dlq show q",
    "job ls",
    "conn ls",
    "channel ls",
    "consumer ls",
    "topic ls",
    "vhost ls",
    "user ls",
    "perm ls",
    "perm show admin",
    "policy ls",
    "token ls admin",
    "limit show",
    "ban ls",
];

#[test]
fn every_reading_command_answers_as_json_as_lines_and_as_csv() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    polymq(&server, &data, &["queue", "create", "q"]);
    polymq(&server, &data, &["pub", "queue:q", "x"]);
    for line in READING {
        let arguments: Vec<&str> = line.split(' ').collect();
        told(&server, &data, &arguments);
        let lines = polymq(&server, &data, &[arguments.as_slice(), &["-o", "jsonl"]].concat());
        let is_json = |line: &str| serde_json::from_str::<Value>(line).is_ok();
        assert!(lines.lines().all(is_json), "{line}: {lines}");
        polymq(&server, &data, &[arguments.as_slice(), &["-o", "csv"]].concat());
    }
}

#[test]
fn bounds_tokens_bans_and_last_values_are_set_and_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    let call = |line: &str| polymq(&server, &data, &line.split(' ').collect::<Vec<_>>());
    call("limit set queues_max=7");
    call("limit set connections_max=9");
    let bounds = told(&server, &data, &["limit", "show"]);
    assert_eq!((&bounds["queues_max"], &bounds["connections_max"]), (&json!(7), &json!(9)));
    call("limit set channels_max=3 --of-user admin");
    let refused = run(&server, &data, &["limit", "delete"]);
    assert_eq!(refused.status.code(), Some(2), "nobody is sure: {refused:?}");
    call("limit delete --dry-run");
    assert_eq!(told(&server, &data, &["limit", "show"])["queues_max"], 7);
    call("limit delete --yes");
    assert_eq!(told(&server, &data, &["limit", "show"])["queues_max"], Value::Null);

    let dry = told(&server, &data, &["token", "create", "admin", "--dry-run", "--name", "a"]);
    assert_eq!(
        (&dry["dry_run"], &dry["token"], &dry["id"]),
        (&json!(true), &Value::Null, &Value::Null)
    );
    let refused = run(&server, &data, &["token", "create", "admin", "--dry-run", "--scope", "x"]);
    assert_eq!(refused.status.code(), Some(1), "no scope: {refused:?}");
    assert_eq!(told(&server, &data, &["token", "ls", "admin"]), json!([]));
    let token = told(&server, &data, &["token", "create", "admin", "--scope", "read:*/*"]);
    assert!(token["token"].is_string(), "{token}");
    let id = token["id"].as_str().unwrap();
    call(&format!("token delete admin {id} --yes"));
    assert_eq!(told(&server, &data, &["token", "ls", "admin"]), json!([]));

    call("ban create b --address 10.1.2.3 --reason noise");
    assert_eq!(told(&server, &data, &["ban", "show", "b"])["address"], "10.1.2.3");
    call("ban delete b --yes");

    call("pub topic:a.b hello --retain");
    assert_eq!(told(&server, &data, &["topic", "retained", "a.b"])["payload"], "hello");
    call("topic forget a.b --yes");
    let gone = run(&server, &data, &["topic", "retained", "a.b"]);
    assert_eq!(gone.status.code(), Some(4), "{gone:?}");
}

#[test]
fn messages_are_made_of_templates_read_again_and_decoded() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    let call = |arguments: &[&str]| polymq(&server, &data, arguments);
    call(&["queue", "create", "q"]);
    call(&["binding", "create", "amq.topic", "q", "sensors.#"]);
    let body = r#"{"n":{{n}},"a":{"b":"{{random 3 3}}"}}"#;
    call(&["pub", "topic:sensors.{{n}}", body, "-H", "id=m{{n}}", "-n", "3", "--template"]);
    let seen = call(&["sub", "q", "--since", "1h", "-n", "3", "-o", "jsonl"]);
    let seen: Vec<Value> = seen.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (n, message) in (1..).zip(&seen) {
        assert_eq!(message["routing_key"], json!(format!("sensors.{n}")), "{message}");
        assert_eq!(message["payload"], json!(format!(r#"{{"n":{n},"a":{{"b":"3"}}}}"#)));
        assert!(message.to_string().contains(&format!("\"m{n}\"")), "{message}");
    }
    let none = call(&["sub", "q", "--since", "2100-01-01T00:00:00Z", "--wait", "0"]);
    assert_eq!(none, "");
    let refused = run(&server, &data, &["sub", "topic:a", "--since", "1h"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let refused = run(&server, &data, &["pub", "q", "{{nonsense}}", "--template"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    // All of it has only been looked at.
    assert_eq!(call(&["sub", "q", "-n", "3", "--raw"]).matches("\"n\"").count(), 3);

    let file = dir.path().join("body");
    let file_argument = format!("@{}", file.display());
    for (bytes, decode, expected) in [
        ([0xa1, 0x61, b'a', 1].as_slice(), "cbor", "{\"a\": 1}"),
        (&[0x08, 0x96, 0x01, 0x12, 1, b'x'], "proto", "1: 150\n2: \"x\""),
        (&[0x82], "cbor", "not CBOR at byte 1: it is cut off: 82"),
    ] {
        std::fs::write(&file, bytes).unwrap();
        call(&["pub", "q", &file_argument]);
        let shown = call(&["sub", "q", "-n", "1", "--decode", decode]);
        assert_eq!(shown, format!("q  {expected}\n"));
    }
}

#[test]
fn a_dry_run_moves_no_delayed_message_and_ends_no_job() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    polymq(&server, &data, &["queue", "create", "q"]);
    let delayed = told(&server, &data, &["pub", "q", "x", "--delay", "3600000"]);
    let id = delayed["schedule_id"].as_str().unwrap();
    let due = || told(&server, &data, &["scheduled", "ls"])[0]["due_at"].clone();
    let before = due();
    let (late, work) = ("2100-01-31T12:00:00Z", ["scheduled", "move", id]);
    polymq(&server, &data, &[work.as_slice(), &[late, "--dry-run"]].concat());
    assert_eq!(due(), before);
    polymq(&server, &data, &[work.as_slice(), &[late]].concat());
    assert_ne!(due(), before);

    polymq(&server, &data, &["queue", "purge", "q", "--yes"]);
    let jobs = || told(&server, &data, &["job", "ls"]);
    let id = jobs()[0]["id"].as_str().unwrap().to_owned();
    let dry = told(&server, &data, &["job", "cancel", &id, "--dry-run"]);
    assert_eq!(dry["job"]["id"], json!(id));
    assert_eq!(jobs()[0]["id"], json!(id));
    polymq(&server, &data, &["job", "cancel", &id]);
    assert_eq!(jobs(), json!([]));
    polymq(&server, &data, &["job", "cancel", &id, "--idempotent"]);
}

#[test]
fn the_configuration_the_log_and_the_ways_of_messages_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &["--set", "limits.connections=77"]);
    let shown = told(&server, &data, &["config", "show", "limits.connections"]);
    assert_eq!(
        (&shown[0]["value"], &shown[0]["origin"]),
        (&json!("77"), &json!("flag --set limits.connections"))
    );
    told(&server, &data, &["config", "origin"]);
    assert_eq!(told(&server, &data, &["config", "diff"]), json!([]));
    assert_eq!(told(&server, &data, &["reload"]), json!([]));
    let lines = polymq(&server, &data, &["logs", "--event", "ready", "-o", "jsonl"]);
    assert_eq!(lines.lines().count(), 1, "{lines}");
    let export = dir.path().join("definitions.json");
    polymq(&server, &data, &["defs", "export", export.to_str().unwrap()]);
    let diff = told(&server, &data, &["defs", "diff", export.to_str().unwrap()]);
    assert_eq!(diff, json!([]));

    let mut trace = Command::new(PROGRAM)
        .args(["trace", "-n", "1", "-o", "json"])
        .env("POLYMQ_URL", format!("http://127.0.0.1:{}", server.ports["http"]))
        .env("POLYMQ_USER", "admin")
        .env("POLYMQ_PASSWORD_FILE", data.join("initial-admin-password"))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    polymq(&server, &data, &["queue", "create", "q"]);
    while trace.try_wait().unwrap().is_none() {
        polymq(&server, &data, &["pub", "queue:q", "x"]);
    }
    let output = trace.wait_with_output().unwrap();
    let steps: Value = serde_json::from_slice(&output.stdout).unwrap();
    let step = &steps[0];
    assert!(step["event"].is_string() && step["message"].is_number(), "{step}");
}

#[test]
fn a_broker_that_is_drained_ends_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::start(&data, &[]);
    let refused = run(&server, &data, &["drain"]);
    assert_eq!(refused.status.code(), Some(2), "nobody is sure: {refused:?}");
    let drained = run(&server, &data, &["drain", "--yes"]);
    assert!(drained.status.success(), "{drained:?}");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    let gone = run(&server, &data, &["health"]);
    assert_eq!(gone.status.code(), Some(6), "{gone:?}");
}

#[test]
fn a_load_test_measures_over_amqp_and_mqtt() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    let password = data.join("initial-admin-password");
    for (load, proto, confirm) in [
        ("mix", "amqp", true),
        ("mix", "mqtt", false),
        ("rtt", "mqtt", true),
        ("rtt", "amqp", false),
        ("pub", "amqp", true),
        ("sub", "amqp", false),
    ] {
        let mut command = Command::new(PROGRAM);
        command.args(["bench", load, "--proto", proto, "--duration", "1", "--rate", "2000"]);
        command.args(["--user", "admin", "-o", "json", "--addr"]);
        command.arg(format!("127.0.0.1:{}", server.ports[proto]));
        command.arg("--password-file").arg(&password);
        if confirm {
            command.arg("--confirm");
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{load} {proto}: {output:?}");
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(told["messages"].as_u64().unwrap() > 0, "{load} {proto}: {told}");
        assert_eq!(told["lost"], 0, "{load} {proto}: {told}");
        assert_eq!(told["p99_ms"].is_number(), load != "pub", "{load} {proto}: {told}");
    }
    assert_eq!(told(&server, &data, &["queue", "ls"]), json!([]), "nothing is left behind");
}

#[test]
fn manual_pages_and_completions_are_written_for_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let written = Command::new(PROGRAM).args(["man", "--all-to"]).arg(dir.path()).status();
    assert!(written.unwrap().success());
    let text = std::fs::read_to_string(dir.path().join("polymq-queue-move.1")).unwrap();
    assert!(text.contains(".TH") && text.contains("filter"), "{text}");
    let names = std::fs::read_dir(dir.path()).unwrap();
    let names: Vec<_> =
        names.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!names.iter().any(|name| name.contains("-help-")), "{names:?}");
    for command in ["init", "reply", "queue-update", "dlq-edit", "consumer-cancel", "config-schema"]
    {
        assert!(names.contains(&format!("polymq-{command}.1")), "{command}: {names:?}");
    }
    for shell in ["bash", "zsh", "fish", "nushell", "powershell", "elvish"] {
        let output = Command::new(PROGRAM).args(["completion", shell]).output().unwrap();
        assert!(output.status.success() && output.stdout.len() > 10_000, "{shell}");
    }
}

#[test]
fn the_doctor_has_advice_for_what_it_finds() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("polymq.toml");
    std::fs::write(&file, "[limits]\nconections = 1\n").unwrap();
    let output = Command::new(PROGRAM).arg("doctor").arg(&file).args(["-o", "json"]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told[0]["check"], "configuration");
    assert!(told[0]["advice"].as_str().unwrap().contains("polymq check"), "{told}");
}
