//! The grammar of the command line.

mod access;
mod bench;
mod messages;
mod objects;
mod server;

use std::{path::PathBuf, str::FromStr};

use clap::{Args, Subcommand, ValueEnum};

pub use server::ConfigCommand;
pub(crate) use {
    access::{
        BanCommand, LimitCommand, PermCommand, PolicyCommand, TokenCommand, UserCommand,
        VhostCommand, Whose,
    },
    bench::{Bench, BenchProtocol, Load},
    messages::{Content, Decode, Publish, Reply, Request, Subscribe},
    objects::{
        BindingCommand, Cause, ChannelCommand, ConnCommand, ConsumerCommand, DlqCommand, DlqEdit,
        ExchangeCommand, JobCommand, Named, Paused, QueueCommand, Removed, ScheduledCommand,
        TopicCommand,
    },
    server::{
        ContextCommand, DefsCommand, Drain, ListenerCommand, Logs, Setting, Top, Trace,
        TraceCommand,
    },
};

use crate::{destination::Destination, output::Format};

/// Which broker, as whom, and how to answer. Every command takes these.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which broker, and how to answer")]
pub(crate) struct Common {
    /// Where its HTTP listener is [default: POLYMQ_URL, the context, http://127.0.0.1:15672]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Log in as this user [default: POLYMQ_USER, the context, admin]
    #[arg(long, global = true, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// File with the password [default: POLYMQ_PASSWORD_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// File with an API token [default: the token itself in POLYMQ_TOKEN]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Use this context instead of the current one
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Virtual host
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) vhost: Option<String>,
    /// PEM file with the authorities to trust for https
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Data directory of a broker on this machine [default: ./data, or /var/lib/polymq]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// table, json, jsonl or csv
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Format,
    /// Fields to show, as name,messages.ready
    #[arg(long, global = true, value_name = "FIELDS", value_delimiter = ',')]
    pub(crate) columns: Vec<String>,
    /// No line with the names of the columns
    #[arg(long, global = true)]
    pub(crate) no_headers: bool,
    /// Print every request of the HTTP API
    #[arg(long, global = true)]
    pub(crate) show_request: bool,
}

/// What is common to commands that change something.
#[derive(Debug, Clone, Copy, Args)]
pub struct Change {
    /// Check everything and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// What is there already, or is gone already, is a success
    #[arg(long)]
    pub(crate) idempotent: bool,
}

/// A confirmation that scripts give in advance.
#[derive(Debug, Clone, Copy, Args)]
pub struct Sure {
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

/// What an object is made with.
#[derive(Debug, Default, Args)]
pub struct Made {
    /// An argument, as x-max-length=1000; numbers, true and false are typed, text may be quoted
    #[arg(long = "arg", value_name = "KEY=VALUE")]
    pub(crate) arguments: Vec<String>,
    /// It does not survive a restart
    #[arg(long)]
    pub(crate) transient: bool,
    /// It goes with its last user
    #[arg(long)]
    pub(crate) auto_delete: bool,
}

/// Commands that talk to a broker that runs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What the broker is and does: version, totals, alarms.
    Status(Bare),
    /// Ask whether it is healthy; exit code 1 when it is not.
    Health(Health),
    /// What makes publishers wait.
    Alarms(Bare),
    /// What administrators have changed.
    Audit(Bare),
    /// Watch totals and the busiest queues.
    Top(Top),
    /// What the broker has logged.
    Logs(Logs),
    /// Follow messages through the broker: received, routed, delivered, settled.
    Trace(Trace),
    /// Have the broker read its configuration again; what changes is printed.
    Reload(Bare),
    /// Have the broker take nobody in any more, tell its clients, and end.
    Drain(Drain),
    /// Open ports.
    Listener(Group<ListenerCommand>),
    /// Put load on a broker and say how fast it is, over AMQP 0-9-1 or MQTT.
    Bench(Bench),
    /// Publish a message.
    Pub(Publish),
    /// Receive messages.
    Sub(Subscribe),
    /// Publish a message and wait for its reply.
    Req(Request),
    /// Answer requests, with a text or with what a program makes of each.
    Reply(Reply),
    /// Tell where a message would go, and why.
    Route(Route),
    /// Tell what of a message would be kept, changed or lost in another protocol.
    Convert(Convert),
    /// Queues and what is in them.
    Queue(Group<QueueCommand>),
    /// Exchanges.
    Exchange(Group<ExchangeCommand>),
    /// Bindings.
    Binding(Group<BindingCommand>),
    /// Delayed messages.
    Scheduled(Group<ScheduledCommand>),
    /// Dead letters by origin and reason.
    Dlq(Group<DlqCommand>),
    /// Long work: moves, copies, purges.
    Job(Group<JobCommand>),
    /// Connections.
    Conn(Group<ConnCommand>),
    /// Channels of AMQP connections.
    Channel(Group<ChannelCommand>),
    /// Topics and their last values.
    Topic(Group<TopicCommand>),
    /// Consumers.
    Consumer(Group<ConsumerCommand>),
    /// Virtual hosts.
    Vhost(Group<VhostCommand>),
    /// Users.
    #[command(name = "user")]
    User(Group<UserCommand>),
    /// What users may do.
    Perm(Group<PermCommand>),
    /// Policies.
    Policy(Group<PolicyCommand>),
    /// API tokens.
    Token(Group<TokenCommand>),
    /// Bounds of virtual hosts and users.
    Limit(Group<LimitCommand>),
    /// Who is kept out.
    Ban(Group<BanCommand>),
    /// Everything but messages, as one document.
    Defs(Group<DefsCommand>),
    /// Brokers by name, with what is needed to get in.
    #[command(subcommand)]
    Context(ContextCommand),
    /// Tell about a command, or about a topic; without either, list both.
    Help {
        /// A command, as queue move; or a topic: cheat, addresses, conditions, output, login, codes
        #[arg(value_name = "COMMAND OR TOPIC")]
        about: Vec<String>,
    },
    /// Print the completions of a shell.
    Completion {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Print the manual page, in the language of man.
    Man {
        /// Write a page for each command into this folder instead
        #[arg(long, value_name = "DIR")]
        all_to: Option<PathBuf>,
    },
}

/// A shell that completes commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU Bash.
    Bash,
    /// Zsh.
    Zsh,
    /// Fish.
    Fish,
    /// Nushell.
    Nushell,
    /// PowerShell.
    Powershell,
    /// Elvish.
    Elvish,
}

/// A command with nothing of its own.
#[derive(Debug, Args)]
pub struct Bare {
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Commands on one kind of object.
#[derive(Debug, Args)]
pub struct Group<C: Subcommand> {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: C,
}

/// Which question about health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Check {
    /// The process answers.
    Live,
    /// What was stored is back.
    Startup,
    /// Messages are taken.
    Ready,
    /// Nothing keeps publishers waiting.
    Alarms,
    /// No certificate ends within so many hours.
    Certificates(u64),
    /// A listener has this port.
    Port(u16),
}

impl FromStr for Check {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hours = |time: &str| -> Option<u64> {
            let unit = time.chars().last()?;
            let number: u64 = time.strip_suffix(unit)?.parse().ok()?;
            match unit {
                'd' => number.checked_mul(24),
                'h' => Some(number),
                _ => None,
            }
        };
        let known = match text.split_once(':') {
            None => match text {
                "live" => Some(Self::Live),
                "startup" => Some(Self::Startup),
                "ready" => Some(Self::Ready),
                "alarms" => Some(Self::Alarms),
                "cert" => Some(Self::Certificates(30 * 24)),
                _ => None,
            },
            Some(("cert", time)) => hours(time).map(Self::Certificates),
            Some(("port", port)) => port.parse().ok().map(Self::Port),
            Some(_) => None,
        };
        let expected = "expected live, startup, ready, alarms, cert:30d or port:5672";
        known.ok_or_else(|| expected.to_owned())
    }
}

/// Flags of `polymq health`.
#[derive(Debug, Args)]
pub struct Health {
    /// live, startup, ready, alarms, cert:30d or port:5672; the last three need a login
    #[arg(long, value_name = "CHECK", default_value = "ready")]
    pub(crate) check: Check,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Flags of `polymq route`.
#[derive(Debug, Args)]
pub struct Route {
    /// queue:NAME, topic:KEY or exchange:NAME/KEY; a bare name is a queue
    pub(crate) destination: Destination,
    /// A header, as tenant=a
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE")]
    pub(crate) headers: Vec<String>,
    /// The publisher, if it is not you
    #[arg(long, value_name = "USER")]
    pub(crate) publisher: Option<String>,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Flags of `polymq convert`.
#[derive(Debug, Args)]
pub struct Convert {
    /// File with a message as JSON, or - for standard input
    pub(crate) file: String,
    /// Protocols to convert to, of amqp, mqtt, stomp, xmpp and http; or one version, as mqtt311
    #[arg(long, value_delimiter = ',', required = true)]
    pub(crate) to: Vec<String>,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Which of them.
#[derive(Debug, Default, Args)]
#[group(skip)]
pub struct Ls {
    /// Only those of which this is true, as "name LIKE 'a%' AND messages.ready > 0"
    #[arg(long, value_name = "CONDITION")]
    pub(crate) filter: Option<String>,
    /// Order by this field; -FIELD for the other way round
    #[arg(long, value_name = "FIELD", allow_hyphen_values = true)]
    pub(crate) sort: Option<String>,
    /// As many at most
    #[arg(long)]
    pub(crate) limit: Option<usize>,
}

/// Which messages of a queue.
#[derive(Debug, Args)]
pub(crate) struct Selection {
    /// Those of which this is true, as "priority > 3 AND json('$.total') > 100"
    #[arg(long, value_name = "CONDITION")]
    pub(crate) filter: Option<String>,
    /// These positions, as `queue peek` shows them
    #[arg(long, value_delimiter = ',', conflicts_with = "filter")]
    pub(crate) seq: Vec<String>,
    /// As many at most
    #[arg(long)]
    pub(crate) limit: Option<u64>,
}

/// Work that goes on after the call.
#[derive(Debug, Args)]
pub struct Work {
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Messages a second, at most
    #[arg(long)]
    pub(crate) rate: Option<u32>,
    /// Count what would be done and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not wait for the end
    #[arg(long)]
    pub(crate) detach: bool,
}
