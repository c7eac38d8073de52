//! The commands on the broker as a whole, and on brokers by name.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Bare, Common, Ls, Named, objects::Paused};
use crate::{destination::Destination, output::Format};

/// Commands on definitions.
#[derive(Debug, Subcommand)]
pub enum DefsCommand {
    /// Write everything but messages to a file, as RabbitMQ does.
    Export {
        /// The file, or - for standard output
        #[arg(default_value = "-")]
        file: String,
    },
    /// Read an export, of RabbitMQ too; all of it or nothing. What is there stays.
    Import {
        /// The file, or - for standard input
        file: String,
        /// Check everything, tell what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// What is there with other settings stays as it is, and everything else is imported; exit
        /// code 3 when there is such
        #[arg(long)]
        skip_conflicts: bool,
    },
    /// Tell what an import would add and change; exit code 1 when it would do anything.
    Diff {
        /// The file, or - for standard input
        file: String,
    },
}

/// Commands on contexts.
#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// List contexts; the current one is marked.
    Ls {
        /// table, json, jsonl or csv
        #[arg(short, long, value_name = "FORMAT", default_value = "table")]
        output: Format,
    },
    /// Add a context, or change it.
    Add {
        /// Its name
        name: String,
        /// Where the HTTP listener of the broker is
        url: String,
        /// Log in as this user
        #[arg(long)]
        user: Option<String>,
        /// File with the password
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// File with an API token
        #[arg(long, value_name = "FILE", conflicts_with_all = ["user", "password_file"])]
        token_file: Option<PathBuf>,
        /// Virtual host
        #[arg(long)]
        vhost: Option<String>,
        /// PEM file with the authorities to trust for https
        #[arg(long, value_name = "FILE")]
        ca_file: Option<PathBuf>,
    },
    /// Make a context the current one.
    Use(Named),
    /// Forget a context.
    Rm(Named),
}

/// Commands on listeners.
#[derive(Debug, Subcommand)]
pub enum ListenerCommand {
    /// List open ports, with the time at which their certificates end.
    Ls(Ls),
    /// Let nobody in by a listener, until it is started or the broker starts again; connections
    /// that are there go on.
    Stop(Paused),
    /// Let clients in by a listener that was stopped.
    Start(Paused),
}

/// Commands on the configuration of a broker that runs.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every value that holds, and where it comes from.
    Show(Setting),
    /// Print where values come from: a line of the file, the environment, a flag.
    Origin(Setting),
    /// Tell what a reload would change, and change nothing; exit code 1 when it would change
    /// anything.
    Diff(Bare),
}

/// Which settings.
#[derive(Debug, Args)]
pub struct Setting {
    /// Only keys that begin so, as listeners.amqp
    #[arg(default_value = "")]
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Flags of `polymq top`.
#[derive(Debug, Args)]
pub struct Top {
    /// Seconds between two looks
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) every: u64,
    /// End after this many looks
    #[arg(short = 'n', long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// As many queues at most
    #[arg(long, default_value_t = 20)]
    pub(crate) queues: usize,
    /// Order queues by this field; -FIELD for the largest first
    #[arg(
        long,
        value_name = "FIELD",
        default_value = "-messages.ready",
        allow_hyphen_values = true
    )]
    pub(crate) sort: String,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Flags of `polymq drain`.
#[derive(Debug, Args)]
pub struct Drain {
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// Do not wait until the broker has ended
    #[arg(long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Flags of `polymq logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// Go on with what is logged from now on
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// error, warn, info, debug or trace: this level and worse ones
    #[arg(long, value_name = "LEVEL")]
    pub(crate) level: Option<String>,
    /// Only this event
    #[arg(long)]
    pub(crate) event: Option<String>,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Commands on traces that run.
#[derive(Debug, Subcommand)]
pub(crate) enum TraceCommand {
    /// List traces that run, and the last ones that are over.
    Ls(Ls),
    /// End a trace.
    End(Named),
}

/// Flags of `polymq trace`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Trace {
    #[command(subcommand)]
    pub(crate) command: Option<TraceCommand>,
    /// Only messages of this client id
    #[arg(long)]
    pub(crate) client: Option<String>,
    /// Only messages that this user publishes
    #[arg(long, value_name = "USER")]
    pub(crate) publisher: Option<String>,
    /// Only messages that come by this protocol
    #[arg(long)]
    pub(crate) protocol: Option<String>,
    /// Only messages for queue:NAME, topic:PATTERN or exchange:NAME/PATTERN
    #[arg(long, value_name = "DEST")]
    pub(crate) address: Option<Destination>,
    /// End after this many events
    #[arg(short = 'n', long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Messages a second, at most; others are only counted
    #[arg(long)]
    pub(crate) rate: Option<u32>,
    /// Show the first bytes of bodies, of messages that one may read
    #[arg(long)]
    pub(crate) payload: bool,
    #[command(flatten)]
    pub(crate) common: Common,
}
