//! `polymq storage`: look at a store, check it, and move what it holds elsewhere. The broker must
//! not run on it meanwhile; every engine sees to that.

pub(crate) mod backup;
mod export;
mod progress;
mod repair;

use std::{io::Write, path::Path, process::ExitCode, sync::Arc};

use anyhow::{Context, bail};
use polymq_cli::{Format, Output};
use polymq_store::{
    Close, Committer, Opened, OpenedLog, ShardId, Store,
    copy::{LogSummary, Progress, Summary, Writer, summarise, visit},
    wait,
};
use serde_json::{Value, json};

use crate::{
    cli::StorageCommand,
    config::{Config, value::Backend},
    store::{self, OpenStore},
};
use progress::Bar;

/// Runs one command.
///
/// Errors: what keeps it from being done.
pub(crate) fn run(config: &Config, command: &StorageCommand) -> anyhow::Result<ExitCode> {
    match command {
        StorageCommand::Inspect { shown, .. } => inspect(config, shown.output),
        StorageCommand::Verify { shown, .. } => verify(config, shown.output),
        StorageCommand::Repair { yes, shown, .. } => repair::run(config, *yes, shown.output),
        StorageCommand::Export { file, .. } => export_to(config, file),
        StorageCommand::Import { file, .. } => import_from(config, file),
        StorageCommand::Migrate { to, .. } => migrate(config, *to),
    }
}

/// A store that this command has opened.
struct Session {
    store: Arc<dyn Store>,
    opened: Opened,
    name: String,
}

impl Session {
    fn open(config: &Config) -> anyhow::Result<Self> {
        let OpenStore { store, opened } = store::open(config)?;
        Ok(Self { store, opened, name: place(config) })
    }

    /// Opens a store that is only looked at.
    fn look(config: &Config) -> anyhow::Result<Self> {
        let OpenStore { store, opened } = store::open_to_read(config)?;
        Ok(Self { store, opened, name: place(config) })
    }

    /// Opens a store that something is to be written into.
    fn open_empty(config: &Config) -> anyhow::Result<Self> {
        let session = Self::open(config)?;
        if !session.opened.logs.is_empty() || !session.opened.metas.is_empty() {
            let name = session.name.clone();
            session.close()?;
            bail!("{name} is not empty; nothing was written");
        }
        Ok(session)
    }

    fn summary(&self, doing: &str) -> anyhow::Result<Summary> {
        let bar = Bar::new(doing, Progress::of_all(&self.opened));
        summarise(self.store.as_ref(), &self.opened, &mut |done| bar.show(done))
            .with_context(|| format!("{} cannot be read", self.name))
    }

    fn close(self) -> anyhow::Result<()> {
        wait(|reply| self.store.close(Close::Clean, reply))
            .with_context(|| format!("{} cannot be closed cleanly", self.name))
    }
}

/// Backend and place of a store, for people.
fn place(config: &Config) -> String {
    format!("the {} store `{}`", config.storage.backend, store::place(config))
}

/// Tells what a command has found: one document, or text for people.
fn tell(format: Format, document: &Value, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    match format {
        Format::Table => say(&text()),
        Format::Json | Format::JsonLines | Format::Csv => {
            Ok(Output::new(format).document(document)?)
        }
    }
}

/// Backend and place of a store as part of a document.
fn named(config: &Config) -> Value {
    json!({ "backend": config.storage.backend.to_string(), "place": store::place(config) })
}

const LOG_COLUMNS: &[&str] = &["log", "messages", "bytes", "floor", "next_seq", "queue"];

fn inspect(config: &Config, format: Format) -> anyhow::Result<ExitCode> {
    let session = Session::look(config)?;
    let opened = &session.opened;
    let all = Progress::of_all(opened);
    let row = |log: &OpenedLog| -> Value {
        json!({
            "log": log.id.0,
            "messages": log.live_count,
            "bytes": log.live_bytes,
            "floor": log.floor.0,
            "next_seq": log.next_seq.0,
            "queue": log.name,
        })
    };
    let rows: Vec<_> = opened.logs.iter().map(row).collect();
    match format {
        // Lines are about one kind of thing.
        Format::JsonLines | Format::Csv => Output::new(format).rows(&rows, LOG_COLUMNS)?,
        Format::Table | Format::Json => {
            let document = json!({
                "store": named(config),
                "epoch": opened.epoch.0,
                "last_batch": opened.last_batch.0,
                "definitions": opened.metas.len(),
                "messages": all.messages,
                "bytes": all.bytes,
                "logs": rows,
            });
            tell(format, &document, || inspected(&session, &all))?;
        }
    }
    session.close()?;
    Ok(ExitCode::SUCCESS)
}

fn inspected(session: &Session, all: &Progress) -> String {
    let opened = &session.opened;
    let mut text = format!(
        "{}\nepoch {}, last batch {}, {} definitions, {} messages with {} bytes\n\n",
        session.name,
        opened.epoch,
        opened.last_batch,
        opened.metas.len(),
        all.messages,
        all.bytes
    );
    text.push_str("   log      messages         bytes         floor      next seq  queue\n");
    for log in &opened.logs {
        text.push_str(&format!(
            "{:>6} {:>13} {:>13} {:>13} {:>13}  {}\n",
            log.id.0,
            log.live_count,
            log.live_bytes,
            log.floor.0,
            log.next_seq.0,
            printable(&log.name)
        ));
    }
    text
}

/// Reads everything, and compares what was read with what the store counts.
fn verify(config: &Config, format: Format) -> anyhow::Result<ExitCode> {
    let session = Session::look(config)?;
    let summary = session.summary("verifying")?;
    let pairs = summary.logs.iter().zip(&session.opened.logs);
    let differing = pairs.filter(|(log, opened)| {
        (log.messages, log.bytes) != (opened.live_count, opened.live_bytes)
    });
    let problem = |(log, opened): (&LogSummary, &OpenedLog)| {
        format!(
            "log {} (`{}`) holds {} messages with {} bytes and says {} with {}",
            log.id,
            printable(&log.name),
            log.messages,
            log.bytes,
            opened.live_count,
            opened.live_bytes
        )
    };
    let problems: Vec<_> = differing.map(problem).collect();
    let is_sound = problems.is_empty();
    let all = Progress::of_all(&session.opened);
    let (definitions, logs) = (summary.definitions, summary.logs.len());
    let document = json!({
        "store": named(config),
        "sound": is_sound,
        "definitions": definitions,
        "logs": logs,
        "messages": all.messages,
        "bytes": all.bytes,
        "problems": problems,
    });
    tell(format, &document, || match is_sound {
        true => format!(
            "{} is sound: {definitions} definitions, {logs} logs, {} messages with {} bytes\n",
            session.name, all.messages, all.bytes
        ),
        false => problems.join("\n") + "\n",
    })?;
    session.close()?;
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn export_to(config: &Config, file: &Path) -> anyhow::Result<ExitCode> {
    let session = Session::look(config)?;
    let bar = Bar::new("exporting", Progress::of_all(&session.opened));
    export::write(file, session.store.as_ref(), &session.opened, &mut |done| bar.show(done))?;
    drop(bar);
    session.close()?;
    Ok(ExitCode::SUCCESS)
}

fn import_from(config: &Config, file: &Path) -> anyhow::Result<ExitCode> {
    let session = Session::open_empty(config)?;
    let committer = Committer::new(session.store.clone(), ShardId::default(), &session.opened);
    let expected = export::read(file, Writer::new(committer))?;
    session.close()?;
    let session = Session::look(config)?;
    let found = session.summary("checking")?;
    session.close()?;
    check(&expected, &found)
}

fn migrate(config: &Config, to: Backend) -> anyhow::Result<ExitCode> {
    if to == config.storage.backend {
        bail!("the store is a {to} store already (storage.backend)");
    }
    if to == Backend::Memory {
        bail!("nothing would be left of a memory store");
    }
    let mut target = config.clone();
    target.storage.backend = to;
    let source = Session::look(config)?;
    let destination = Session::open_empty(&target)?;
    let committer =
        Committer::new(destination.store.clone(), ShardId::default(), &destination.opened);
    let mut writer = Writer::new(committer);
    {
        let bar = Bar::new("copying", Progress::of_all(&source.opened));
        visit(source.store.as_ref(), &source.opened, &mut writer, &mut |done| bar.show(done))?;
    }
    writer.finish(source.opened.next_log)?;
    destination.close()?;
    let destination = Session::look(&target)?;
    let expected = source.summary("reading the source again")?;
    let found = destination.summary("checking the copy")?;
    let (from, into) = (source.name.clone(), destination.name.clone());
    source.close()?;
    destination.close()?;
    let code = check(&expected, &found)?;
    say(&format!(
        "{into} holds what {from} holds. Set storage.backend = \"{to}\" and start the broker; the \
         old store was not changed.\n"
    ))?;
    Ok(code)
}

/// Errors: when the two differ, and in which log.
fn check(expected: &Summary, found: &Summary) -> anyhow::Result<ExitCode> {
    if let Some((log, _)) = expected.logs.iter().zip(&found.logs).find(|(a, b)| a != b) {
        bail!("the copy of log {} (`{}`) differs", log.id, printable(&log.name));
    }
    if expected != found {
        bail!("the copy has other definitions or another number of logs");
    }
    Ok(ExitCode::SUCCESS)
}

/// A name without what would move the cursor.
fn printable(name: &str) -> String {
    name.escape_debug().to_string()
}

fn say(text: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}
