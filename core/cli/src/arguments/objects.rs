//! The commands on each kind of object.

use std::path::PathBuf;

use clap::Subcommand;

use super::{Change, Ls, Made, Sure, Work};
use crate::destination::Destination;

/// Commands on queues.
#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// List queues.
    Ls(Ls),
    /// Show a queue.
    Show {
        /// Its name
        name: String,
    },
    /// Declare a queue.
    Create {
        /// Its name
        name: String,
        #[command(flatten)]
        made: Made,
        #[command(flatten)]
        change: Change,
    },
    /// Delete a queue and what is in it.
    Delete {
        /// Its name
        name: String,
        /// Only when it holds nothing
        #[arg(long)]
        if_empty: bool,
        /// Only when nobody consumes from it
        #[arg(long)]
        if_unused: bool,
        #[command(flatten)]
        change: Change,
        #[command(flatten)]
        sure: Sure,
    },
    /// Look at messages without taking them.
    Peek {
        /// Its name
        name: String,
        /// head, tail, seq:N or time:RFC3339
        #[arg(long, default_value = "head")]
        from: String,
        /// As many at most
        #[arg(long, default_value_t = 10)]
        limit: u64,
        /// Only those of which this is true
        #[arg(long, value_name = "CONDITION")]
        filter: Option<String>,
        /// Whole bodies
        #[arg(long)]
        full: bool,
    },
    /// Search messages; hits are shown as they are found.
    Search {
        /// Its name
        name: String,
        /// What must be true of them
        filter: String,
        /// As many at most
        #[arg(long, default_value_t = 100)]
        limit: u64,
    },
    /// Remove messages.
    Purge {
        /// Its name
        name: String,
        #[command(flatten)]
        work: Work,
        #[command(flatten)]
        sure: Sure,
    },
    /// Move messages to another queue or exchange.
    Move {
        /// The queue
        name: String,
        /// Where to: queue:NAME, topic:KEY or exchange:NAME/KEY
        to: Destination,
        #[command(flatten)]
        work: Work,
    },
    /// Copy messages to another queue or exchange.
    Copy {
        /// The queue
        name: String,
        /// Where to: queue:NAME, topic:KEY or exchange:NAME/KEY
        to: Destination,
        #[command(flatten)]
        work: Work,
    },
    /// Send dead letters back to where they died.
    Retry {
        /// The queue that holds them
        name: String,
        /// Through the exchange again, not straight to the queue
        #[arg(long)]
        via_exchange: bool,
        #[command(flatten)]
        work: Work,
    },
    /// Deliver nothing for a while.
    Pause {
        /// Its name
        name: String,
    },
    /// Go on delivering.
    Resume {
        /// Its name
        name: String,
    },
    /// Who consumes from it.
    Consumers {
        /// Its name
        name: String,
    },
    /// What feeds it.
    Bindings {
        /// Its name
        name: String,
    },
}

/// Commands on exchanges.
#[derive(Debug, Subcommand)]
pub enum ExchangeCommand {
    /// List exchanges.
    Ls(Ls),
    /// Show an exchange.
    Show {
        /// Its name
        name: String,
    },
    /// Declare an exchange.
    Create {
        /// Its name
        name: String,
        /// direct, fanout, topic, headers, x-consistent-hash, ...
        #[arg(long = "type", default_value = "direct")]
        kind: String,
        /// Clients cannot publish to it
        #[arg(long)]
        internal: bool,
        #[command(flatten)]
        made: Made,
        #[command(flatten)]
        change: Change,
    },
    /// Delete an exchange.
    Delete {
        /// Its name
        name: String,
        /// Only when nothing is bound to it
        #[arg(long)]
        if_unused: bool,
        #[command(flatten)]
        change: Change,
        #[command(flatten)]
        sure: Sure,
    },
}

/// Commands on bindings.
#[derive(Debug, Subcommand)]
pub enum BindingCommand {
    /// List bindings.
    Ls(Ls),
    /// Bind a queue, or an exchange.
    Create {
        /// The exchange that messages come from
        source: String,
        /// The queue that they go to
        destination: String,
        /// Binding key
        #[arg(default_value = "")]
        key: String,
        /// The destination is an exchange
        #[arg(long)]
        to_exchange: bool,
        /// An argument, as x-match=all
        #[arg(long = "arg", value_name = "KEY=VALUE")]
        arguments: Vec<String>,
        /// Check everything and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove a binding.
    Delete {
        /// Its id, as `binding ls` shows it
        id: String,
        #[command(flatten)]
        change: Change,
    },
}

/// Commands on delayed messages.
#[derive(Debug, Subcommand)]
pub enum ScheduledCommand {
    /// List them in the order in which they leave.
    Ls(Ls),
    /// Have one leave at another time.
    Move {
        /// Its id
        id: String,
        /// When, as 2030-01-31T12:00:00Z
        due_at: String,
    },
    /// Take one back.
    Cancel {
        /// Its id
        id: String,
        #[command(flatten)]
        change: Change,
        #[command(flatten)]
        sure: Sure,
    },
}

/// Commands on dead letters.
#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// List groups of dead letters.
    Ls(Ls),
    /// Send the dead letters in a queue back to where they died.
    Retry {
        /// The queue that holds them
        name: String,
        /// Through the exchange again, not straight to the queue
        #[arg(long)]
        via_exchange: bool,
        #[command(flatten)]
        work: Work,
    },
}

/// Commands on jobs.
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// List the last jobs.
    Ls(Ls),
    /// Show a job.
    Show {
        /// Its id
        id: String,
    },
    /// Follow a job to its end.
    Watch {
        /// Its id
        id: String,
    },
    /// End a job between two batches.
    Cancel {
        /// Its id
        id: String,
    },
}

/// Commands on connections.
#[derive(Debug, Subcommand)]
pub enum ConnCommand {
    /// List connections.
    Ls(Ls),
    /// Show a connection and its channels.
    Show {
        /// Its id
        id: String,
    },
    /// Close a connection.
    Close {
        /// Its id
        id: String,
        /// What its client is told
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        change: Change,
    },
}

/// Commands on virtual hosts.
#[derive(Debug, Subcommand)]
pub enum VhostCommand {
    /// List virtual hosts.
    Ls(Ls),
    /// Show a virtual host.
    Show {
        /// Its name
        name: String,
    },
    /// Make a virtual host.
    Create {
        /// Its name
        name: String,
        /// What it is for
        #[arg(long)]
        description: Option<String>,
        /// It cannot be deleted until this is taken back
        #[arg(long)]
        protected: bool,
        #[command(flatten)]
        change: Change,
    },
    /// Delete a virtual host and everything in it.
    Delete {
        /// Its name
        name: String,
        #[command(flatten)]
        change: Change,
        #[command(flatten)]
        sure: Sure,
    },
}

/// Commands on users.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// List users.
    Ls(Ls),
    /// Show a user.
    Show {
        /// Its name
        name: String,
    },
    /// Make a user, or change it.
    Create {
        /// Its name
        name: String,
        /// administrator, monitoring, policymaker, management, impersonator
        #[arg(long, value_delimiter = ',')]
        tags: Vec<String>,
        /// File with its password; without one the user cannot log in with a password
        #[arg(long, value_name = "FILE")]
        new_password_file: Option<PathBuf>,
        #[command(flatten)]
        change: Change,
    },
    /// Delete a user.
    Delete {
        /// Its name
        name: String,
        #[command(flatten)]
        change: Change,
        #[command(flatten)]
        sure: Sure,
    },
}

/// Commands on permissions.
#[derive(Debug, Subcommand)]
pub enum PermCommand {
    /// What a user may do in the virtual host.
    Show {
        /// The user
        name: String,
    },
    /// Set what a user may do in the virtual host: three regular expressions.
    Set {
        /// The user
        name: String,
        /// Names that it may declare and delete
        configure: String,
        /// Names that it may publish to
        write: String,
        /// Names that it may consume from
        read: String,
        /// Check everything and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Take the permissions of a user in the virtual host back.
    Delete {
        /// The user
        name: String,
        #[command(flatten)]
        change: Change,
    },
}

/// Commands on policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// List policies.
    Ls(Ls),
    /// Show a policy and what it matches.
    Show {
        /// Its name
        name: String,
    },
    /// Set a policy.
    Set {
        /// Its name
        name: String,
        /// Regular expression on names
        pattern: String,
        /// What it says, as JSON
        definition: String,
        /// queues, exchanges, all, ...
        #[arg(long)]
        apply_to: Option<String>,
        /// The highest wins
        #[arg(long)]
        priority: Option<i64>,
        /// Check everything and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete a policy.
    Delete {
        /// Its name
        name: String,
        #[command(flatten)]
        change: Change,
    },
}

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
    },
}

/// Commands on contexts.
#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// List contexts; the current one is marked.
    Ls,
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
    Use {
        /// Its name
        name: String,
    },
    /// Forget a context.
    Rm {
        /// Its name
        name: String,
    },
}
