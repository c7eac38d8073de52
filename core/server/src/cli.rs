//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use polymq_cli::Format;

use crate::config::{
    ENV_PREFIX, Ports, Sources,
    value::{Backend, Raw, Setting},
};

/// A message broker for clients that speak different protocols, and its command line.
#[derive(Debug, Parser)]
#[command(name = "polymq", version, arg_required_else_help = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the broker.
    Server(ServerArgs),
    /// Write a configuration to begin with, a unit for systemd, and, if wanted, a certificate.
    Init(InitArgs),
    /// Check a configuration, and print every value and where it comes from.
    Check(CheckArgs),
    /// Look for what keeps a broker on this machine from running well, and say what to do.
    Doctor(DoctorArgs),
    /// Tell about configuration, also of a broker that runs.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look at the store, check it, move what it holds. The broker must not run.
    #[command(subcommand)]
    Storage(StorageCommand),
    /// Copy the store while the broker runs, check such a copy, put one back.
    #[command(subcommand)]
    Backup(BackupCommand),
    #[command(flatten)]
    Client(Box<polymq_cli::Command>),
}

/// What to do with the store.
#[derive(Debug, Subcommand)]
pub(crate) enum StorageCommand {
    /// Print what the store says it holds, queue by queue.
    Inspect {
        #[command(flatten)]
        shown: Shown,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Read everything and compare it with what the store counts; exit code 1 when they differ.
    Verify {
        #[command(flatten)]
        shown: Shown,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// List exactly what is damaged and what would be lost; with --yes, copy that to quarantine
    /// and make the store whole without it.
    Repair {
        /// Do it; without this nothing is touched, and the exit code is 1 when something is damaged
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        shown: Shown,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Write everything as lines of JSON.
    Export {
        /// A file that does not exist yet, or - for standard output
        file: PathBuf,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Read an export into a store that is empty.
    Import {
        /// A file that `export` has written, or - for standard input
        file: PathBuf,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Copy everything into the empty store of another backend, and compare.
    Migrate {
        /// The backend to copy to: file, sqlite or postgres, as the configuration describes it
        #[arg(long, value_name = "BACKEND", value_parser = backend)]
        to: Backend,
        #[command(flatten)]
        store: StoreArgs,
    },
}

/// What to do with backups of the store.
#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Copy the store and the configuration into a new folder. The broker may run: the copy holds
    /// everything that was confirmed before, and always opens. Segments of a file store are hard
    /// links where the disk is the same, so copy the folder elsewhere afterwards.
    Create {
        /// A folder that does not exist yet
        dir: PathBuf,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Read all of a backup and check every checksum; exit code 1 when it is damaged.
    Verify {
        /// A folder that `create` has made
        dir: PathBuf,
        #[command(flatten)]
        shown: Shown,
    },
    /// Check a backup, and put its store into the data directory. The broker must not run.
    Restore {
        /// A folder that `create` has made
        dir: PathBuf,
        /// Take the place of a store that is there, which is kept under another name
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
}

impl BackupCommand {
    /// Where the configuration of the store comes from.
    pub(crate) fn sources(&self) -> Sources {
        match self {
            Self::Create { store, .. } | Self::Restore { store, .. } => store.sources(),
            Self::Verify { .. } => sources(None, &[]),
        }
    }
}

/// How a command that reads answers.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Shown {
    /// table, json, jsonl or csv
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Format,
}

/// Which store.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// Configuration file [default: /etc/polymq/polymq.toml when it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the broker keeps its data [default: ./data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Set a key, such as storage.backend=file
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

impl StorageCommand {
    /// Where the configuration of the store comes from.
    pub(crate) fn sources(&self) -> Sources {
        let (Self::Inspect { store, .. }
        | Self::Verify { store, .. }
        | Self::Repair { store, .. }
        | Self::Export { store, .. }
        | Self::Import { store, .. }
        | Self::Migrate { store, .. }) = self;
        store.sources()
    }
}

impl StoreArgs {
    fn sources(&self) -> Sources {
        let mut sources = sources(self.config.clone(), &self.settings);
        push_data_dir(&mut sources, self.data_dir.as_deref());
        sources
    }
}

fn backend(text: &str) -> Result<Backend, String> {
    Backend::read(&Raw::Text(text.to_owned()))
        .ok_or_else(|| format!("expected {}", Backend::expects()))
}

fn push_data_dir(sources: &mut Sources, data_dir: Option<&str>) {
    if let Some(data_dir) = data_dir {
        let flag = format!("--data-dir {data_dir}");
        sources.flags.push((format!("server.data_dir={data_dir}"), flag));
    }
}

/// What to tell about configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print a file with every key, its default and what it means.
    Docs,
    /// Print a JSON Schema of the file, for editors.
    Schema,
    #[command(flatten)]
    Running(Box<polymq_cli::ConfigCommand>),
}

/// Flags of `polymq server`.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    #[command(flatten)]
    file: ConfigFile,
    /// Where everything that must survive is kept [default: ./data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// For tutorials and tests: guest/guest, and MQTT without login, both from loopback only
    #[arg(long)]
    pub(crate) dev: bool,
    /// Wait while another broker has the store, and serve when it has gone
    #[arg(long)]
    pub(crate) standby: bool,
    /// Set a key, such as limits.connections=1000
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// 0 puts every listener on a free port of loopback
    #[arg(long, value_name = "0", conflicts_with = "port_offset",
          value_parser = clap::value_parser!(u16).range(0..=0))]
    port: Option<u16>,
    /// Add N to every port
    #[arg(long, value_name = "N")]
    port_offset: Option<u16>,
    /// When ready, print the ports as one line of JSON and nothing else
    #[arg(long)]
    pub(crate) print_ports: bool,
}

/// Flags of `polymq init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The folder; it may be there, but none of the files
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Make a certificate that signs itself, and listeners with TLS that use it
    #[arg(long)]
    pub(crate) tls: bool,
    /// Tell what would be written, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Flags of `polymq check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    file: ConfigFile,
    /// Set a key, such as limits.connections=1000
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// table, json, jsonl or csv
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Format,
}

/// Flags of `polymq doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    file: ConfigFile,
    /// Where the broker keeps its data [default: ./data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Set a key, such as limits.connections=1000
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// A warning makes the exit code 1, too
    #[arg(long)]
    pub(crate) strict: bool,
    /// table, json, jsonl or csv
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Format,
}

/// A configuration file, with or without the name of the flag.
#[derive(Debug, Args)]
struct ConfigFile {
    /// Configuration file [default: /etc/polymq/polymq.toml when it exists]
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// The same
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigFile {
    fn path(&self) -> Option<PathBuf> {
        self.file.clone().or_else(|| self.config.clone())
    }
}

impl ServerArgs {
    pub(crate) fn sources(&self) -> Sources {
        let mut sources = sources(self.file.path(), &self.settings);
        push_data_dir(&mut sources, self.data_dir.as_deref());
        sources.ports = match (self.port, self.port_offset) {
            (Some(_), _) => Ports::Free,
            (None, Some(offset)) => Ports::Offset(offset),
            (None, None) => Ports::Configured,
        };
        sources
    }
}

impl CheckArgs {
    pub(crate) fn sources(&self) -> Sources {
        sources(self.file.path(), &self.settings)
    }
}

impl DoctorArgs {
    pub(crate) fn sources(&self) -> Sources {
        let mut sources = sources(self.file.path(), &self.settings);
        push_data_dir(&mut sources, self.data_dir.as_deref());
        sources
    }
}

fn sources(file: Option<PathBuf>, settings: &[String]) -> Sources {
    let ours = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        let name = name.into_string().ok().filter(|name| name.starts_with(ENV_PREFIX))?;
        Some((name, value.to_string_lossy().into_owned()))
    };
    Sources {
        file,
        env: std::env::vars_os().filter_map(ours).collect(),
        flags: settings.iter().map(|set| (set.clone(), format!("--set {set}"))).collect(),
        ports: Ports::Configured,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(arguments: &[&str]) -> ServerArgs {
        let all = ["polymq", "server"].iter().chain(arguments);
        match Cli::try_parse_from(all).unwrap().command {
            Command::Server(args) => args,
            _ => unreachable!("the command is `server`"),
        }
    }

    #[test]
    fn declarations_are_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn data_dir_is_a_setting_like_any_other() {
        let sources = server(&["--set", "limits.connections=1", "--data-dir", "/x"]).sources();
        let flags: Vec<_> = sources.flags.iter().map(|(setting, _)| setting.as_str()).collect();
        assert_eq!(flags, ["limits.connections=1", "server.data_dir=/x"]);
    }

    #[test]
    fn the_file_is_named_with_or_without_a_flag() {
        for arguments in [&["x.toml"][..], &["--config", "x.toml"]] {
            assert_eq!(server(arguments).sources().file, Some(PathBuf::from("x.toml")));
        }
        let both = ["polymq", "server", "x.toml", "--config", "x.toml"];
        assert!(Cli::try_parse_from(both).is_err());
    }

    #[test]
    fn ports_move_by_an_offset_or_all_become_free() {
        assert_eq!(server(&[]).sources().ports, Ports::Configured);
        assert_eq!(server(&["--port", "0"]).sources().ports, Ports::Free);
        assert_eq!(server(&["--port-offset", "7"]).sources().ports, Ports::Offset(7));
        let both = ["polymq", "server", "--port", "0", "--port-offset", "7"];
        assert!(Cli::try_parse_from(both).is_err());
        assert!(Cli::try_parse_from(["polymq", "server", "--port", "5672"]).is_err());
    }

    /// The words of a line of a shell up to a comment, a pipe or a redirection.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
        for character in line.chars() {
            match (quote, character) {
                (Some(open), close) if open == close => quote = None,
                (None, '\'' | '"') => {
                    quote = Some(character);
                    word.get_or_insert_default();
                }
                (None, ' ') => words.extend(word.take()),
                (None, '#' | '|' | '>' | '&' | ';') if word.is_none() => break,
                (_, character) => word.get_or_insert_default().push(character),
            }
        }
        words.extend(word);
        words
    }

    /// Every line of a shell in a document that begins with our name.
    fn commands(text: &str) -> Vec<String> {
        let (mut found, mut in_shell) = (Vec::new(), false);
        for line in text.lines() {
            match line.trim() {
                "```sh" => in_shell = true,
                "```" => in_shell = false,
                line if in_shell && line.starts_with("polymq ") => found.push(line.to_owned()),
                _ => {}
            }
        }
        found
    }

    #[test]
    fn every_command_in_the_documents_is_one() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut folders = vec![root];
        let mut count = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let (path, name) = (entry.path(), entry.file_name());
                let is_ours = name != "target" && name != ".git";
                if path.is_dir() && is_ours {
                    folders.push(path);
                } else if path.extension().is_some_and(|end| end == "md") {
                    for line in commands(&std::fs::read_to_string(&path).unwrap()) {
                        let read = Cli::try_parse_from(words(&line));
                        assert!(read.is_ok(), "{}: {line}: {read:?}", path.display());
                        count += 1;
                    }
                }
            }
        }
        assert!(count > 10, "{count} commands are found");
        let cheat = include_str!("../../cli/src/help/cheat.txt");
        for line in cheat.lines().filter_map(|line| line.strip_prefix("  polymq ")) {
            // What it does stands behind two spaces.
            let line = format!("polymq {}", line.split("   ").next().unwrap_or(line));
            let read = Cli::try_parse_from(words(&line));
            assert!(read.is_ok(), "{line}: {read:?}");
        }
    }
}
