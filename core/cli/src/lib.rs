//! The client half of the binary `polymq`: commands that talk to a broker that runs.
//!
//! Every command is one or a few calls of the HTTP API under `/api/v1`, and `--show-request`
//! prints them, so that whatever is done here can be done by a script without this program.
#![forbid(unsafe_code)]

mod api;
mod arguments;
mod bench;
mod commands;
mod context;
mod decode;
mod destination;
mod failure;
mod help;
mod local;
mod messages;
mod output;
mod progress;
mod receiving;
mod reply;
mod resource;
mod sse;
mod template;
mod time;

use std::{io::Write, process::ExitCode};

pub use arguments::{Command, ConfigCommand};
use failure::Failure;
pub use output::{Format, Output};

/// Runs a command; what goes wrong is told on standard error.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 partly done, 4 not found, 5 denied, 6 the
/// broker cannot be reached.
pub fn run(command: Command, program: &mut clap::Command) -> ExitCode {
    told(commands::run(command, program))
}

/// Runs a command on the configuration of a broker that runs, as [`run`] does.
pub fn run_config(command: ConfigCommand) -> ExitCode {
    told(commands::run_config(command))
}

fn told(done: Result<ExitCode, Failure>) -> ExitCode {
    match done {
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

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser, Subcommand};

    use super::*;

    #[derive(Debug, Parser)]
    #[command(disable_help_subcommand = true)]
    struct Program {
        #[command(subcommand)]
        command: Whole,
    }

    #[derive(Debug, Subcommand)]
    enum Whole {
        #[command(subcommand)]
        Config(Box<ConfigCommand>),
        #[command(flatten)]
        Other(Box<Command>),
    }

    const GOOD: &[&str] = &[
        "top --every 1 -n 3 --sort name -o json",
        "drain --yes",
        "reload -o jsonl",
        "bench mix --proto mqtt --clients 2 --size 64 --duration 1 --rate 100 -o csv",
        "topic ls sensors.7",
        "topic forget a.b --yes",
        "limit set connections_max=5 --of-user ann --dry-run",
        "listener ls -o csv",
        "token create ann --scope read:*/* --expires-at 2030-01-31T12:00:00Z",
        "token delete ann 7 --yes",
        "ban create b --address 10.0.0.1",
        "config show listeners.amqp -o json",
        "config origin",
        "defs diff file.json",
        "health --check cert:30d",
        "health --check port:5672",
        "binding delete id --yes",
        "context ls -o json",
        "man --all-to /tmp",
        "perm ls -o json",
        "queue update q --arg x-max-length=5 --unset x-expires --dry-run",
        "dlq show q --origin a --reason expired",
        "dlq edit q 7 body -H a=b --remove-header c --via-exchange",
        "dlq park q --into r --filter x=1 --dry-run",
        "consumer cancel q ctag --connection 7",
        "reply queue:q --body x -n 1",
        "reply topic:a.# --exec cat",
        "help queue move",
        "completion nushell",
        "pub q {{n}} --template -n 3",
        "sub q --since 10m --decode cbor",
        "sub q --since 2030-01-31T12:00:00Z --decode proto",
        "limit delete --yes",
        "limit delete --of-user ann --yes",
        "scheduled move 7 2030-01-31T12:00:00Z --dry-run",
        "token create ann --dry-run",
        "job cancel 7 --dry-run",
        "token ls ann --user admin",
        "user set ann --tags monitoring",
        "perm set-topics ann amq.topic a.# b.* --syntax dot",
        "perm delete-topics ann amq.topic --yes",
        "perm topics -o json",
        "trace ls",
        "listener stop stomp --dry-run",
        "listener start stomp",
        "trace end 3",
        "defs import file.json --skip-conflicts",
    ];
    const BAD: &[&str] = &[
        "ban create b",
        "health --check cert:30",
        "bench mix --size 1",
        "limit set",
        "queue update q",
        "reply q",
        "reply q --body x --exec y",
        "dlq edit q 7 --via-exchange --to q",
        "sub q --since yesterday",
        "sub topi:x",
        "sub q -n 0",
        "user set ann",
        "perm set-topics ann amq.topic a b --syntax mqtt",
        "sub q --since 10m --no-ack",
        "sub q --decode proto=schema.bin:Type",
    ];

    fn is_read(line: &str) -> bool {
        Program::try_parse_from(["polymq"].into_iter().chain(line.split(' '))).is_ok()
    }

    /// The flags that one command takes and that all of a group share.
    fn check_flags(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        for flag in ["url", "user", "password_file", "token_file", "context", "vhost", "data_dir"] {
            let own = command.get_arguments().find(|argument| argument.get_id() == flag);
            assert!(
                own.is_none_or(clap::Arg::is_global_set) || path.ends_with("context add"),
                "{path}: `{flag}` is something else here than everywhere"
            );
        }
        command.get_subcommands().for_each(|inner| check_flags(inner, &path));
    }

    #[test]
    fn a_flag_of_all_commands_is_taken_by_each() {
        let mut program = Program::command();
        program.build();
        program
            .get_subcommands()
            .filter(|command| command.get_name() != "bench")
            .for_each(|command| check_flags(command, ""));
    }

    #[test]
    fn the_grammar_is_sound_and_reads_what_is_documented() {
        Program::command().debug_assert();
        for line in GOOD {
            assert!(is_read(line), "{line}");
        }
        for line in BAD {
            assert!(!is_read(line), "{line}");
        }
    }
}
