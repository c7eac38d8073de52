//! What the command line says when something is not as somebody thinks, and the exit code of it.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    PROGRAM, Server,
    management::{polymq, run, told},
    reload::{logged, start},
};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_import_says_what_it_leaves_out() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    polymq(&server, &data, &["queue", "create", "rq"]);
    let file = dir.path().join("definitions.json");
    let queue = |name: &str, arguments: Value| {
        json!({
            "name": name, "vhost": "/", "durable": true, "auto_delete": false,
            "arguments": arguments,
        })
    };
    let all =
        json!({ "queues": [queue("rq", json!({ "x-max-length": 7 })), queue("new", json!({}))] });
    fs::write(&file, all.to_string()).unwrap();
    let file = file.to_str().unwrap();

    let dry = run(&server, &data, &["defs", "import", file, "--dry-run"]);
    assert_eq!(dry.status.code(), Some(1), "{dry:?}");
    let refused = run(&server, &data, &["defs", "import", file]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(said(&refused).contains("queue 'rq' in vhost '/': "), "{refused:?}");
    assert_eq!(run(&server, &data, &["queue", "show", "new"]).status.code(), Some(4));
    let partly = run(&server, &data, &["defs", "import", file, "--skip-conflicts"]);
    assert_eq!(partly.status.code(), Some(3), "{partly:?}");
    assert!(said(&partly).contains("created 1") && said(&partly).contains("rq"), "{partly:?}");
    told(&server, &data, &["queue", "show", "new"]);
    let refused = run(&server, &data, &["defs", "export", "-o", "csv"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}

#[test]
fn a_move_of_which_some_is_refused_is_partly_done() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    let full = ["--arg", "x-max-length=2", "--arg", "x-overflow=reject-publish"];
    polymq(&server, &data, &[["queue", "create", "full"].as_slice(), &full].concat());
    polymq(&server, &data, &["queue", "create", "from"]);
    polymq(&server, &data, &["pub", "from", "x", "-n", "4"]);
    let moved = run(&server, &data, &["queue", "move", "from", "queue:full"]);
    assert_eq!(moved.status.code(), Some(3), "{moved:?}");
    assert!(said(&moved).contains("2 of 4 stay where they are"), "{moved:?}");
    let moved = run(&server, &data, &["queue", "move", "from", "queue:full"]);
    assert_eq!(moved.status.code(), Some(1), "{moved:?}");
}

#[test]
fn what_is_there_is_made_once_more_only_by_whoever_does_not_mind() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    for line in [
        "queue create a",
        "exchange create a",
        "vhost create a",
        "user create a --tags monitoring",
        "ban create a --address 10.9.9.9",
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        polymq(&server, &data, &arguments);
        let again = run(&server, &data, &arguments);
        assert_eq!(again.status.code(), Some(1), "{line}: {again:?}");
        assert!(said(&again).contains("is there already"), "{line}: {again:?}");
        polymq(&server, &data, &[arguments.as_slice(), &["--idempotent"]].concat());
    }
    polymq(&server, &data, &["user", "set", "a", "--tags", "management"]);
    assert_eq!(told(&server, &data, &["user", "show", "a"])["tags"], json!(["management"]));
    let missing = run(&server, &data, &["user", "set", "b", "--tags", "management"]);
    assert_eq!(missing.status.code(), Some(4), "{missing:?}");

    // Somebody else's tokens, and topics.
    let token = told(&server, &data, &["token", "create", "a"]);
    let tokens = told(&server, &data, &["token", "ls", "a"]);
    assert_eq!(tokens[0]["id"], token["id"]);
    let topics = ["perm", "set-topics", "a", "amq.topic", "a.#", "b.*", "--syntax", "dot"];
    polymq(&server, &data, &topics);
    let topics = told(&server, &data, &["perm", "topics"]);
    assert_eq!((&topics[0]["write"], &topics[0]["syntax"]), (&json!("a.#"), &json!("dot")));
    polymq(&server, &data, &["perm", "delete-topics", "a", "amq.topic", "--yes"]);
    assert_eq!(told(&server, &data, &["perm", "topics"]), json!([]));
    let wrong = run(&server, &data, &["queue", "ls", "--columns", "nme"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    assert!(said(&wrong).contains("no field `nme`"), "{wrong:?}");
    for (line, code) in [
        ("status --columns version,totals.nope", 2),
        ("status --columns version,totals", 0),
        ("config show nosuch", 4),
        ("route topic:a.b --publisher nosuch", 4),
        ("top -n 1 -o jsonl", 0),
        ("listener stop stomp", 0),
        ("listener start stomp", 0),
        ("listener stop nosuch", 4),
    ] {
        let output = run(&server, &data, &line.split(' ').collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(code), "{line}: {output:?}");
    }
}

#[test]
fn lists_that_end_are_one_document_and_others_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    polymq(&server, &data, &["queue", "create", "q"]);
    polymq(&server, &data, &["pub", "q", "x", "-n", "2"]);
    for (line, count) in [
        ("logs", None),
        ("queue search q true", Some(2)),
        ("queue search q false", Some(0)),
        ("sub q --since 1h -n 2", Some(2)),
        ("sub q -n 2", Some(2)),
    ] {
        let rows = told(&server, &data, &line.split(' ').collect::<Vec<_>>());
        let rows = rows.as_array().unwrap();
        assert!(count.is_none_or(|count| count == rows.len()), "{line}: {rows:?}");
    }
    for line in ["logs -f", "sub q", "trace", "top"] {
        let arguments: Vec<&str> = line.split(' ').chain(["-o", "json"]).collect();
        let refused = run(&server, &data, &arguments);
        assert_eq!(refused.status.code(), Some(2), "{line}: {refused:?}");
    }
}

#[test]
fn a_trace_ends_with_the_command_that_has_begun_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    let mut tracing = Command::new(PROGRAM)
        .arg("trace")
        .env("POLYMQ_URL", format!("http://127.0.0.1:{}", server.ports["http"]))
        .env("POLYMQ_USER", "admin")
        .env("POLYMQ_PASSWORD_FILE", data.join("initial-admin-password"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let since = Instant::now();
    let wait_for = |count: usize| {
        loop {
            let traces = told(&server, &data, &["trace", "ls"]);
            let running = |one: &&Value| one["state"] == "running";
            let found: Vec<_> = traces.as_array().unwrap().iter().filter(running).collect();
            if found.len() == count {
                return found.first().map(|one| one["id"].as_str().unwrap().to_owned());
            }
            assert!(since.elapsed() < Duration::from_secs(60), "{traces}");
        }
    };
    let id = wait_for(1).unwrap();
    // Its reader is there once the command has shown something.
    polymq(&server, &data, &["queue", "create", "q"]);
    polymq(&server, &data, &["pub", "q", "x"]);
    let mut first = String::new();
    BufReader::new(tracing.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let pid = tracing.id().to_string();
    // A shell may have its children ignore an interrupt, which ends a command in the same way.
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    tracing.wait().unwrap();
    wait_for(0);
    let gone = run(&server, &data, &["trace", "end", &id]);
    assert!(matches!(gone.status.code(), Some(0 | 4)), "{gone:?}");
}

#[test]
fn contexts_hold_from_any_folder() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("pw"), "x\n").unwrap();
    let call = |folder: &Path, line: &str| {
        Command::new(PROGRAM)
            .args(line.split(' '))
            .current_dir(folder)
            .env("XDG_CONFIG_HOME", dir.path())
            .output()
            .unwrap()
    };
    let added =
        call(dir.path(), "context add prod http://127.0.0.1:1 --user bob --password-file pw");
    assert!(added.status.success(), "{added:?}");
    let unreachable = call(Path::new("/"), "queue ls");
    assert_eq!(unreachable.status.code(), Some(6), "{unreachable:?}");
    assert_eq!(call(dir.path(), "context add bad notaurl").status.code(), Some(2));
    assert_eq!(call(dir.path(), "context use nosuch").status.code(), Some(4));
    assert_eq!(call(dir.path(), "context rm nosuch").status.code(), Some(4));
}

#[test]
fn files_that_cannot_be_used_are_told_at_once_and_with_their_places() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("polymq.toml");
    let text = "[tls.a]\ncert_file = \"/nope\"\nkey_file = \"/nope\"\n\
                [tls.b]\ncert_file = \"/nope3\"\nkey_file = \"/nope3\"\n\
                client_auth = \"sometimes\"\n\
                [auth.oauth2]\njwks = \"http://plain.example/keys\"\n\
                [storage.postgres.password]\nvalue = \"PLANTED\"\n\
                [listeners.amqp]\nbind = [\"0.0.0.0:5672\"]\n\
                [listeners.mq]\nprotocol = \"mqtt\"\nbind = [\":5672\"]\n\
                [http]\ncors_origins = [\"example.com\"]\n";
    fs::write(&file, text).unwrap();
    let output = Command::new(PROGRAM).arg("check").arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = said(&output);
    for expected in [
        "certificate `a`: `/nope` cannot be read",
        "polymq.toml:2:",
        "certificate `b`: `/nope3` cannot be read",
        "polymq.toml:5:",
        "client_auth = \"sometimes\"",
        "polymq.toml:9:",
        "value = ***",
        "`mq` and `amqp` both listen on 127.0.0.1:5672",
        "`example.com` is no origin",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    assert!(!told.contains("PLANTED"), "{told}");
    let planned = Command::new(PROGRAM)
        .args(["check", "--set", "tls.a.min_version=1.3"])
        .args(["--set", "listeners.amqp.proxy_protocol_from=10.0.0.0/8"])
        .output()
        .unwrap();
    assert_eq!(said(&planned).matches("planned and not available yet").count(), 2, "{planned:?}");
}

#[test]
fn a_certificate_that_was_renewed_is_in_the_difference() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("polymq.toml"));
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let renew = || {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        fs::write(&cert, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    };
    renew();
    fs::write(&file, format!("[tls.own]\ncert_file = {cert:?}\nkey_file = {key:?}\n")).unwrap();
    let (server, mut log) = start(&data, &file);
    assert_eq!(told(&server, &data, &["reload"]), json!([]));
    logged(&mut log, "configuration_reloaded");
    renew();
    let diff = run(&server, &data, &["config", "diff", "-o", "json"]);
    assert_eq!(diff.status.code(), Some(1), "{diff:?}");
    let changes = told(&server, &data, &["reload"]);
    assert_eq!(changes[0]["key"], "tls.own", "{changes}");
    assert!(changes[0]["to"].as_str().unwrap().starts_with("certificate "), "{changes}");
    assert_eq!(told(&server, &data, &["reload"]), json!([]));
    fs::write(&file, "[tls.own]\ncert = 1\n").unwrap();
    let trouble = run(&server, &data, &["config", "diff"]);
    assert_eq!(trouble.status.code(), Some(2), "{trouble:?}");
}
