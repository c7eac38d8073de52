//! Queues that change, and dead letters, from the command line.

use serde_json::{Value, json};

use super::{
    Server,
    management::{polymq, run, told},
};

#[test]
fn arguments_of_a_queue_change_while_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    polymq(&server, &data, &["queue", "create", "q", "--arg", "x-expires=100000"]);
    let update = ["queue", "update", "q", "--arg", "x-max-length=5", "--unset", "x-expires"];
    let dry = told(&server, &data, &[update.as_slice(), &["--dry-run"]].concat());
    assert_eq!(dry["after"], json!({ "x-max-length": 5 }), "{dry}");
    let arguments =
        |server: &Server| told(server, &data, &["queue", "show", "q"])["arguments"].take();
    assert_eq!(arguments(&server), json!({ "x-expires": 100_000 }));
    polymq(&server, &data, &update);
    assert_eq!(arguments(&server), json!({ "x-max-length": 5 }));
    let fixed = run(&server, &data, &["queue", "update", "q", "--arg", "x-max-priority=3"]);
    assert_eq!(fixed.status.code(), Some(1), "{fixed:?}");
}

#[test]
fn dead_letters_are_seen_changed_and_moved_out_of_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    let call = |line: &str| polymq(&server, &data, &line.split(' ').collect::<Vec<_>>());
    let list = |line: &str| told(&server, &data, &line.split(' ').collect::<Vec<_>>());
    call("queue create dead");
    call(
        "queue create work --arg x-max-length=1 --arg x-dead-letter-exchange= \
         --arg x-dead-letter-routing-key=dead",
    );
    for body in ["one", "two", "three", "four"] {
        call(&format!("pub queue:work {body} -H tenant=a"));
    }
    call("pub queue:dead alive");
    let shown = list("dlq show dead --origin work --reason maxlen");
    let bodies: Vec<_> = shown.as_array().unwrap().iter().map(|row| &row["payload"]).collect();
    assert_eq!(bodies, ["one", "two", "three"], "{shown}");
    assert_eq!(list("dlq show dead --reason expired"), json!([]));
    let table = call("dlq show dead");
    assert!(table.contains("DEATH.0.REASON") && table.contains(" maxlen "), "{table}");

    let seq = shown[0]["seq"].as_str().unwrap();
    let edit = format!("dlq edit dead {seq} fixed -H tenant=b --to queue:other");
    call("queue create other");
    list(&format!("{edit} --dry-run"));
    assert_eq!(list("queue peek other"), json!([]));
    list(&edit);
    let moved = list("queue peek other");
    assert_eq!(
        (&moved[0]["payload"], &moved[0]["properties"]["headers"]["tenant"]),
        (&json!("fixed"), &json!("b")),
        "{moved}"
    );
    let nothing = run(&server, &data, &["dlq", "edit", "dead", seq]);
    assert_eq!(nothing.status.code(), Some(2), "{nothing:?}");

    let dry = list("dlq park dead --dry-run");
    assert_eq!(dry["count"], 2, "{dry}");
    let missing = run(&server, &data, &["queue", "show", "dead.parked"]);
    assert_eq!(missing.status.code(), Some(4), "a dry run makes no queue");
    list("dlq park dead");
    let parked: Value = list("queue peek dead.parked");
    assert_eq!(parked.as_array().unwrap().len(), 2, "{parked}");
    assert_eq!(list("queue peek dead")[0]["payload"], "alive", "it never died");
}
