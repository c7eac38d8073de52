//! The grammar of `polymq bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::output::Format;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub(crate) enum Load {
    /// Publish only: how fast the broker takes messages.
    Pub,
    /// Publish a backlog, then only consume: how fast it gives them away.
    Sub,
    /// One message at a time, there and back: how long it takes.
    Rtt,
    /// Publish and consume at once.
    Mix,
}

/// The protocol that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchProtocol {
    /// AMQP 0-9-1.
    Amqp,
    /// MQTT 3.1.1.
    Mqtt,
}

/// Flags of `polymq bench`.
#[derive(Debug, Args)]
pub struct Bench {
    #[command(subcommand)]
    pub(crate) load: Load,
    /// The protocol to speak
    #[arg(long, value_enum, global = true, default_value = "amqp")]
    pub(crate) proto: BenchProtocol,
    /// Where the broker is [default: 127.0.0.1:5672, with mqtt 127.0.0.1:1883]
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub(crate) addr: Option<String>,
    /// Publishers, and as many consumers, each with a connection
    #[arg(long, global = true, default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) clients: u16,
    /// Bytes of a body
    #[arg(long, global = true, default_value_t = 128,
          value_parser = clap::value_parser!(u32).range(8..=65_536))]
    pub(crate) size: u32,
    /// Seconds
    #[arg(long, global = true, default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) duration: u64,
    /// Messages a second of all publishers together, at most
    #[arg(long, global = true)]
    pub(crate) rate: Option<u32>,
    /// Persistent messages, durable queues and publisher confirms; over MQTT quality of service 1
    #[arg(long, global = true)]
    pub(crate) confirm: bool,
    /// Log in as this user
    #[arg(long, global = true, value_name = "USER", default_value = "guest")]
    pub(crate) user: String,
    /// File with the password [default: POLYMQ_PASSWORD_FILE, or the name of the user]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Virtual host, of AMQP
    #[arg(long, global = true, value_name = "NAME", default_value = "/")]
    pub(crate) vhost: String,
    /// table, json, jsonl or csv
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Format,
}
