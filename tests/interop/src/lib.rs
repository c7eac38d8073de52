//! Starts a broker and lets the client libraries people use talk to it.
//!
//! Every test owns a broker of its own: a process on free loopback ports with an empty data
//! directory. Clients reach it through a [`Relay`], so the address they know stays the same when
//! the broker is killed and started again, and so that a test can cut every connection at once.
//!
//! This crate holds no expectations; those are in the client scripts and in `tests/clients`.
//! It does not build the broker and does not install clients, `setup.sh` does.

#![forbid(unsafe_code)]

mod broker;
mod peers;
mod prosody;
mod relay;
mod script;

pub use broker::{Broker, Speaks};
pub use peers::Peer;
pub use relay::Relay;
pub use script::{Client, run_script, run_script_beside_prosody, run_script_beside_rabbitmq};

use std::{env, path::PathBuf};

/// Folder of everything built: `CARGO_TARGET_DIR`, else `target` of the workspace.
#[must_use]
pub fn target_dir() -> PathBuf {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => workspace.join(dir),
        None => workspace.join("target"),
    }
}

/// True where a missing client is an error and not a skipped test.
#[must_use]
pub fn clients_are_required() -> bool {
    env::var("CI").is_ok_and(|value| value == "true")
        || env::var("POLYMQ_INTEROP_REQUIRED").is_ok_and(|value| value == "1")
}

/// The end of a long text, which is where the reason of a failure stands.
fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
