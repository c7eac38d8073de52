//! What a newcomer begins with: files that are written, and help.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use super::{PROGRAM, Server, refused};

fn polymq(arguments: &[&str], dir: &Path) -> Output {
    Command::new(PROGRAM).args(arguments).current_dir(dir).output().unwrap()
}

#[test]
fn a_configuration_to_begin_with_is_written_once_and_serves() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("polymq");
    let dry = polymq(&["init", "polymq", "--tls", "--dry-run"], dir.path());
    assert!(dry.status.success() && !home.exists(), "{dry:?}");
    let made = polymq(&["init", "polymq", "--tls"], dir.path());
    assert!(made.status.success(), "{made:?}");
    assert_eq!(made.stdout, dry.stdout);
    let next = String::from_utf8_lossy(&made.stderr);
    assert!(next.contains("chgrp polymq ") && next.contains("/tls/key.pem"), "{next}");
    for (file, mode) in [
        ("polymq.toml", 0o644),
        ("polymq.service", 0o644),
        ("tls/cert.pem", 0o644),
        ("tls/key.pem", 0o600),
    ] {
        let found = fs::metadata(home.join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found & !0o022, mode & !0o022, "{file}: {found:o}");
    }
    let again = refused(&polymq(&["init", "polymq"], dir.path()));
    assert!(again.contains("is there already"), "{again}");

    let file = home.join("polymq.toml");
    let file = file.to_str().unwrap();
    let checked = polymq(&["check", file], dir.path());
    assert!(checked.status.success(), "{checked:?}");
    let server = Server::start(&dir.path().join("data"), &[file]);
    let url = format!("https://localhost:{}", server.ports["https"]);
    let ask = |ca_file: &[&str]| {
        let arguments = [&["health", "--url", &url], ca_file].concat();
        polymq(&arguments, dir.path()).status.code()
    };
    assert_eq!(ask(&["--ca-file", home.join("tls/cert.pem").to_str().unwrap()]), Some(0));
    assert_eq!(ask(&[]), Some(6), "nobody else vouches for the certificate");
}

#[test]
fn without_anything_set_the_file_is_the_defaults() {
    let dir = tempfile::tempdir().unwrap();
    assert!(polymq(&["init"], dir.path()).status.success());
    let output = polymq(&["check", "polymq.toml", "-o", "jsonl"], dir.path());
    let told = String::from_utf8(output.stdout).unwrap();
    let origins = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let set: Vec<_> = origins.filter(|row| row["origin"] != "default").collect();
    assert_eq!(set, Vec::<Value>::new());
}

#[test]
fn help_is_about_commands_and_topics() {
    let dir = tempfile::tempdir().unwrap();
    for (about, expected) in [
        (&["help"][..], "Topics"),
        (&["help", "cheat"], "polymq dlq retry"),
        (&["help", "conditions"], "json('$.total')"),
        (&["help", "queue", "move"], "Usage: polymq queue move"),
        (&["help", "storage", "inspect"], "Usage: polymq storage inspect"),
    ] {
        let output = polymq(about, dir.path());
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && told.contains(expected), "{about:?}: {output:?}");
    }
    let output = polymq(&["help", "qeue"], dir.path());
    assert_eq!(output.status.code(), Some(2));
    assert!(refused(&output).contains("topics are cheat"), "{output:?}");
}

#[test]
fn editors_are_given_a_schema() {
    let dir = tempfile::tempdir().unwrap();
    let output = polymq(&["config", "schema"], dir.path());
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    let backend = &schema["properties"]["storage"]["properties"]["backend"];
    assert_eq!(backend["enum"][0], "file", "{backend}");
}
