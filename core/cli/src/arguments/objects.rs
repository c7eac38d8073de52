//! The commands on what messages pass: queues, exchanges, connections.

use clap::{Args, Subcommand};

use super::{Change, Ls, Made, Sure, Work};
use crate::destination::Destination;

/// Something by its name, or by its id where a list shows ids.
#[derive(Debug, Args)]
pub struct Named {
    /// Its name, or its id
    pub(crate) name: String,
}

/// A queue or a listener that stands still, or goes on.
#[derive(Debug, Args)]
pub struct Paused {
    /// Its name
    pub(crate) name: String,
    /// Check everything and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Something that goes, once somebody is sure.
#[derive(Debug, Args)]
pub struct Removed {
    /// Its name, or its id
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) change: Change,
    #[command(flatten)]
    pub(crate) sure: Sure,
}

/// Commands on queues.
#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// List queues.
    Ls(Ls),
    /// Show a queue.
    Show(Named),
    /// Declare a queue.
    Create {
        /// Its name
        name: String,
        #[command(flatten)]
        made: Made,
        #[command(flatten)]
        change: Change,
    },
    /// Change arguments of a queue while it is there.
    Update {
        /// Its name
        name: String,
        /// An argument, as x-max-length=1000; those that are not named stay
        #[arg(long = "arg", value_name = "KEY=VALUE", required_unless_present = "unset")]
        arguments: Vec<String>,
        /// An argument that goes
        #[arg(long, value_name = "KEY")]
        unset: Vec<String>,
        /// Check everything and change nothing
        #[arg(long)]
        dry_run: bool,
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
    Pause(Paused),
    /// Go on delivering.
    Resume(Paused),
    /// Who holds which messages without having acknowledged them.
    Unacked {
        /// Its name
        name: String,
        /// As many at most
        #[arg(long, default_value_t = 100)]
        limit: u64,
    },
    /// Who consumes from it.
    Consumers(Named),
    /// What feeds it.
    Bindings(Named),
}

/// Commands on exchanges.
#[derive(Debug, Subcommand)]
pub enum ExchangeCommand {
    /// List exchanges.
    Ls(Ls),
    /// Show an exchange.
    Show(Named),
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
    Delete(Removed),
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
        /// Check everything and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Take one back.
    Cancel(Removed),
}

/// Which dead letters of a queue.
#[derive(Debug, Args)]
pub struct Cause {
    /// Only those that died in this queue
    #[arg(long, value_name = "QUEUE")]
    pub(crate) origin: Option<String>,
    /// Only those that died of this: rejected, expired, maxlen, delivery_limit, ...
    #[arg(long)]
    pub(crate) reason: Option<String>,
}

/// Commands on dead letters.
#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// List groups of dead letters.
    Ls(Ls),
    /// Look at the dead letters in a queue: where each died, of what, and how often.
    Show {
        /// The queue that holds them
        name: String,
        #[command(flatten)]
        cause: Cause,
        /// Only those of which this is true, too
        #[arg(long, value_name = "CONDITION")]
        filter: Option<String>,
        /// As many at most
        #[arg(long, default_value_t = 20)]
        limit: u64,
        /// Whole bodies
        #[arg(long)]
        full: bool,
    },
    /// Send the dead letters in a queue back to where they died.
    Retry {
        /// The queue that holds them
        name: String,
        /// Through the exchange again, not straight to the queue
        #[arg(long)]
        via_exchange: bool,
        #[command(flatten)]
        cause: Cause,
        #[command(flatten)]
        work: Work,
    },
    /// Change one dead letter, and send it back to where it died or elsewhere.
    Edit(DlqEdit),
    /// Move dead letters out of the way, into a queue that nothing reads.
    Park {
        /// The queue that holds them
        name: String,
        /// The queue that they are moved to, made when it is missing [default: NAME.parked]
        #[arg(long, value_name = "QUEUE")]
        into: Option<String>,
        #[command(flatten)]
        cause: Cause,
        #[command(flatten)]
        work: Work,
    },
}

/// What changes of a dead letter.
#[derive(Debug, Args)]
pub struct DlqEdit {
    /// The queue that holds it
    pub(crate) name: String,
    /// Its position, as `dlq show` and `queue peek` show it
    pub(crate) seq: String,
    /// Another body: text, @FILE, or - for standard input
    pub(crate) body: Option<String>,
    /// A header that it gets, as tenant=a
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE")]
    pub(crate) headers: Vec<String>,
    /// A header that it loses
    #[arg(long, value_name = "NAME")]
    pub(crate) remove_header: Vec<String>,
    /// Another type of the body
    #[arg(long, value_name = "TYPE")]
    pub(crate) content_type: Option<String>,
    /// Another routing key
    #[arg(long, value_name = "KEY")]
    pub(crate) routing_key: Option<String>,
    /// Through the exchange again, not straight to the queue
    #[arg(long, conflicts_with = "to")]
    pub(crate) via_exchange: bool,
    /// Not back, but to queue:NAME, topic:KEY or exchange:NAME/KEY
    #[arg(long, value_name = "DEST")]
    pub(crate) to: Option<Destination>,
    /// Check everything and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Commands on jobs.
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// List the last jobs.
    Ls(Ls),
    /// Show a job.
    Show(Named),
    /// Follow a job to its end.
    Watch(Named),
    /// End a job between two batches.
    Cancel {
        /// Its id
        id: String,
        #[command(flatten)]
        change: Change,
    },
}

/// Commands on connections.
#[derive(Debug, Subcommand)]
pub enum ConnCommand {
    /// List connections.
    Ls(Ls),
    /// Show a connection and its channels.
    Show(Named),
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

/// Commands on consumers.
#[derive(Debug, Subcommand)]
pub enum ConsumerCommand {
    /// List consumers.
    Ls(Ls),
    /// End a consumer: its client is told, and what it has not settled goes back to the queue.
    Cancel {
        /// The queue
        queue: String,
        /// Its tag, as `consumer ls` shows it
        tag: String,
        /// Its connection, where several consumers have the tag
        #[arg(long, value_name = "ID")]
        connection: Option<String>,
        #[command(flatten)]
        change: Change,
    },
}

/// Commands on channels.
#[derive(Debug, Subcommand)]
pub enum ChannelCommand {
    /// List channels of AMQP connections.
    Ls(Ls),
}

/// Commands on topics and their last values.
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// List one level of the tree of topics.
    Ls {
        /// The level above, as sensors.7; the top of the tree without it
        prefix: Option<String>,
        #[command(flatten)]
        ls: Ls,
    },
    /// Show the last value of a topic.
    Retained(Named),
    /// Forget the last value of a topic.
    Forget(Removed),
}
