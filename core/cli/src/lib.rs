//! The client half of the binary `polymq`: commands that talk to a broker that runs.
//!
//! Every command is one or a few calls of the HTTP API under `/api/v1`, and `--show-request`
//! prints them, so that whatever is done here can be done by a script without this program.
#![forbid(unsafe_code)]

mod api;
mod arguments;
mod commands;
mod context;
mod destination;
mod failure;
mod messages;
mod output;
mod resource;
mod sse;

use std::{io::Write, process::ExitCode};

pub use arguments::Command;
use failure::Failure;

/// Runs a command; what goes wrong is told on standard error.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 partly done, 4 not found, 5 denied, 6 the
/// broker cannot be reached.
pub fn run(command: Command, program: &mut clap::Command) -> ExitCode {
    match commands::run(command, program) {
        Ok(code) => code,
        // Whoever reads our output has seen enough.
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "polymq: {failure}");
            failure.exit_code()
        }
    }
}
