//! The binary `polymq`: reads the configuration, puts the crates together, starts and stops them.
//!
//! It holds no rule of a protocol, a queue or a store.
#![forbid(unsafe_code)]

mod accounts;
mod alarm;
mod audit;
mod auth;
mod banner;
mod cli;
mod config;
mod data_dir;
mod doctor;
mod facts;
mod first_admin;
mod housekeeping;
mod http;
mod init;
mod limits;
mod live_log;
mod local;
mod log_lines;
mod logging;
mod opening;
#[cfg(feature = "otel")]
mod otel;
mod ports;
mod process;
mod protocols;
mod reload;
mod server;
mod service;
mod signals;
mod slow_store;
mod storage;
mod store;
mod tls;
mod xmpp;

use std::{io::Write, process::ExitCode, sync::Arc, time::Instant};

use clap::{CommandFactory, Parser};
use polymq_cli::{Format, Output};

use crate::{
    cli::{CheckArgs, Cli, Command, ConfigCommand, ServerArgs},
    config::Config,
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let started = Instant::now();
    let result = match Cli::parse().command {
        Command::Server(args) => serve(&args, started),
        Command::Init(args) => init::run(&args),
        Command::Check(args) => check(&args),
        Command::Doctor(args) => doctor::run(&args.sources(), args.output, args.strict),
        Command::Config(ConfigCommand::Docs) => say(&config::reference()),
        Command::Config(ConfigCommand::Schema) => say(&format!("{:#}\n", config::schema())),
        Command::Config(ConfigCommand::Running(command)) => Ok(polymq_cli::run_config(*command)),
        Command::Storage(command) => Config::load(&command.sources())
            .map_err(anyhow::Error::from)
            .and_then(|loaded| storage::run(&loaded.config, &command)),
        Command::Backup(command) => storage::backup::run(&command),
        Command::Client(command) => Ok(polymq_cli::run(*command, &mut Cli::command())),
    };
    logging::flush();
    result.unwrap_or_else(|error| {
        // Mistakes of the configuration are paragraphs of their own.
        let text = match error.downcast_ref::<config::Mistakes>() {
            Some(mistakes) => mistakes.to_string(),
            None => format!("polymq: {error:#}\n"),
        };
        let _ = std::io::stderr().write_all(text.as_bytes());
        ExitCode::FAILURE
    })
}

fn serve(args: &ServerArgs, started: Instant) -> anyhow::Result<ExitCode> {
    let sources = args.sources();
    let loaded = Config::load_and(&sources, opening::mistakes)?;
    logging::start(&loaded.config.logging)?;
    for warning in &loaded.warnings {
        tracing::warn!(event = "configuration_warning", "{warning}");
    }
    data_dir::make_files_private();
    process::leave_no_core_dump();
    let mode = server::Mode {
        sources,
        is_dev: args.dev,
        print_ports: args.print_ports,
        is_standby: args.standby,
        started,
        stop: Arc::default(),
    };
    server::run(&loaded, mode)
}

fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let loaded = Config::load_and(&args.sources(), opening::mistakes)?;
    if args.output != Format::Table {
        let row = |row: &(String, String, String)| {
            let (key, value, origin) = row;
            serde_json::json!({ "key": key, "value": value, "origin": origin })
        };
        let rows: Vec<_> = loaded.effective.iter().map(row).collect();
        Output::new(args.output).rows(&rows, &["key", "value", "origin"])?;
        for warning in &loaded.warnings {
            writeln!(std::io::stderr(), "warning: {warning}")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let width = loaded.effective.iter().map(|(key, value, _)| key.len() + value.len()).max();
    let width = width.unwrap_or(0).min(60) + 3;
    let mut text = String::new();
    for (key, value, origin) in &loaded.effective {
        let setting = format!("{key} = {value}");
        text.push_str(&format!("{setting:width$}  # {origin}\n"));
    }
    for warning in &loaded.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    say(&text)
}

fn say(text: &str) -> anyhow::Result<ExitCode> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
