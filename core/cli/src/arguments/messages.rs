//! The commands that publish messages, receive them, and answer them.

use clap::{ArgGroup, Args, ValueEnum};

use super::Common;
use crate::{destination::Destination, time};

/// A message on the command line.
#[derive(Debug, Args)]
pub(crate) struct Content {
    /// Body: text, @FILE, or - for standard input
    #[arg(default_value = "")]
    pub(crate) body: String,
    /// A header, as tenant=a or tenant:a
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE")]
    pub(crate) headers: Vec<String>,
    /// Type of the body, as application/json
    #[arg(long, value_name = "TYPE")]
    pub(crate) content_type: Option<String>,
    /// 0 to 255
    #[arg(long)]
    pub(crate) priority: Option<u8>,
    /// It expires after this many milliseconds
    #[arg(long, value_name = "MS")]
    pub(crate) expiration: Option<u64>,
    /// It is delayed by this many milliseconds
    #[arg(long, value_name = "MS")]
    pub(crate) delay: Option<u64>,
    /// It need not survive a restart
    #[arg(long)]
    pub(crate) transient: bool,
    /// It is kept as the last value of its topic
    #[arg(long)]
    pub(crate) retain: bool,
}

/// Flags of `polymq pub`.
#[derive(Debug, Args)]
pub struct Publish {
    /// queue:NAME, topic:KEY or exchange:NAME/KEY; a bare name is a queue
    pub(crate) destination: Destination,
    #[command(flatten)]
    pub(crate) content: Content,
    /// How often
    #[arg(short = 'n', long, default_value_t = 1)]
    pub(crate) count: u64,
    /// Messages a second, at most
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// What to wait for: stored, routed or none
    #[arg(long, value_parser = ["stored", "routed", "none"])]
    pub(crate) confirm: Option<String>,
    /// A message that no queue takes is an error
    #[arg(long)]
    pub(crate) mandatory: bool,
    /// In body, headers and key {{n}}, {{time}}, {{unix_ms}}, {{uuid}}, {{random 1 100}} and
    /// {{text 20}} are something else in each message
    #[arg(long)]
    pub(crate) template: bool,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// How bodies are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Decode {
    /// Text if it is text, else hexadecimal digits.
    Auto,
    /// Text, with a mark for what is none.
    Text,
    /// Indented JSON.
    Json,
    /// Hexadecimal digits.
    Hex,
    /// CBOR, in its diagnostic notation.
    Cbor,
    /// Protocol Buffers without their schema: fields by number.
    Proto,
}

/// Flags of `polymq sub`.
#[derive(Debug, Args)]
pub struct Subscribe {
    /// queue:NAME, topic:PATTERN or exchange:NAME/PATTERN; a bare name is a queue
    pub(crate) destination: Destination,
    /// End after this many
    #[arg(short = 'n', long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Give the messages of a queue back instead of acknowledging them
    #[arg(long)]
    pub(crate) no_ack: bool,
    /// Show what lies in a queue since then, and what comes, and take none of it: a time as
    /// 2030-01-31T12:00:00Z, or how long ago it was, as 10m
    #[arg(long, value_name = "TIME", value_parser = time::since, conflicts_with = "no_ack")]
    pub(crate) since: Option<String>,
    /// How to show bodies
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) decode: Decode,
    /// Bodies only
    #[arg(long)]
    pub(crate) raw: bool,
    /// End when nothing has come for this many seconds
    #[arg(long, value_name = "SECONDS")]
    pub(crate) wait: Option<u64>,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Flags of `polymq req`.
#[derive(Debug, Args)]
pub struct Request {
    /// queue:NAME, topic:KEY or exchange:NAME/KEY; a bare name is a queue
    pub(crate) destination: Destination,
    #[command(flatten)]
    pub(crate) content: Content,
    /// Seconds to wait for the reply
    #[arg(long, default_value_t = 10)]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Flags of `polymq reply`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("answer").required(true).args(["body", "exec"]))]
pub struct Reply {
    /// queue:NAME, topic:PATTERN or exchange:NAME/PATTERN; a bare name is a queue
    pub(crate) destination: Destination,
    /// Answer every request with this text
    #[arg(long, value_name = "TEXT")]
    pub(crate) body: Option<String>,
    /// Answer with what this command of the shell prints; the request is its standard input
    #[arg(long, value_name = "COMMAND")]
    pub(crate) exec: Option<String>,
    /// Type of the answers, as application/json
    #[arg(long, value_name = "TYPE")]
    pub(crate) content_type: Option<String>,
    /// End after this many
    #[arg(short = 'n', long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// End when nothing has come to the queue for this many seconds
    #[arg(long, value_name = "SECONDS")]
    pub(crate) wait: Option<u64>,
    #[command(flatten)]
    pub(crate) common: Common,
}
