//! Facts about parser packages that decide how far this project relies on each.
//!
//! `mqttbytes` and `stomp-parser` are oracles in tests and nowhere else; `amq-protocol` is used
//! behind guards. When a new version changes one of these facts, its test fails and the decision
//! is looked at again.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "card_packages/amq_protocol.rs"]
mod amq_protocol;
#[path = "card_packages/mqttbytes.rs"]
mod mqttbytes;
#[path = "card_packages/oracle.rs"]
mod oracle;
#[path = "card_packages/stomp_parser.rs"]
mod stomp_parser;

use std::process::{Command, Output};

/// Set in a child process that is to run one test's dangerous part.
const CHILD: &str = "POLYMQ_CARD_PACKAGES_CHILD";

/// Runs this very test again in a child process; `None` in that child.
///
/// `test` is the test's whole path, as the test harness prints it.
fn in_child(test: &str) -> Option<Output> {
    if std::env::var_os(CHILD).is_some() {
        return None;
    }
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    Some(command.env(CHILD, "1").output().unwrap())
}
