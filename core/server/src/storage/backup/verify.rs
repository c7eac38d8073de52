//! `polymq backup verify`: reads all of a backup, and touches nothing.

use std::{path::Path, process::ExitCode};

use anyhow::Context;
use polymq_cli::Format;
use polymq_log::LogConfig;
use polymq_store::{Close, OwnerId, ShardId, Store, copy::Progress, wait};
use serde_json::json;

use super::Description;
use crate::{
    config::value::Backend,
    storage::{progress::Bar, tell},
};

/// What is in a backup, and what is wrong with it.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) definitions: u64,
    pub(super) logs: u64,
    pub(super) messages: u64,
    pub(super) bytes: u64,
    /// Empty when the backup is sound.
    pub(super) problems: Vec<String>,
}

/// Says whether a backup is sound; exit code 1 when it is not.
///
/// Errors: when there is no backup.
pub(super) fn run(dir: &Path, format: Format) -> anyhow::Result<ExitCode> {
    let description = Description::read(dir)?;
    let found = check(dir, &description)?;
    let (backend, is_sound) = (description.backend()?, found.problems.is_empty());
    let document = json!({
        "backup": dir.display().to_string(),
        "sound": is_sound,
        "backend": backend.to_string(),
        "made_by": description.made_by,
        "made_at_unix_secs": description.made_at_unix_secs,
        "definitions": found.definitions,
        "logs": found.logs,
        "messages": found.messages,
        "bytes": found.bytes,
        "problems": found.problems,
    });
    tell(format, &document, || {
        let (name, mut text) = (dir.display(), String::new());
        for problem in &found.problems {
            text.push_str(&format!("{problem}\n"));
        }
        let last = match found.problems.len() {
            0 => format!(
                "the backup `{name}` is sound: {backend} store of PolyMQ {}, {} definitions, {} \
                 logs, {} messages with {} bytes\n",
                description.made_by, found.definitions, found.logs, found.messages, found.bytes
            ),
            count => format!("the backup `{name}` is damaged at {count} places\n"),
        };
        text + &last
    })?;
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads everything.
///
/// Errors: a description that says nothing.
pub(super) fn check(dir: &Path, description: &Description) -> anyhow::Result<Checked> {
    let bar = Bar::of_bytes("verifying");
    let (mut problems, mut done) = (Vec::new(), 0);
    for file in &description.files {
        bar.show_bytes(done, description.bytes());
        problems.extend(file.problem(dir));
        done += file.bytes;
    }
    if !problems.is_empty() {
        return Ok(Checked { problems, ..Checked::default() });
    }
    let store = dir.join(description.store()?);
    let checked = match description.backend()? {
        Backend::Sqlite => sqlite(&store),
        Backend::File | Backend::Memory | Backend::Postgres => file(&store, &bar),
    };
    drop(bar);
    // A store that cannot be read at all is damaged, too.
    Ok(checked.unwrap_or_else(|error| Checked {
        problems: vec![format!("{error:#}")],
        ..Checked::default()
    }))
}

fn sqlite(path: &Path) -> anyhow::Result<Checked> {
    let found = polymq_sql::examine_sqlite(path)?;
    Ok(Checked {
        definitions: found.definitions,
        logs: found.logs,
        messages: found.messages,
        bytes: found.bytes,
        problems: found.problems,
    })
}

fn file(path: &Path, bar: &Bar) -> anyhow::Result<Checked> {
    let mut progress = |done, all| bar.show_bytes(done, all);
    let examined = polymq_log::examine(path, LogConfig::default(), &mut progress)?;
    let problems: Vec<_> = examined.findings.iter().map(ToString::to_string).collect();
    let store = polymq_log::LogStore::untouched(path, LogConfig::default())?;
    // Nothing is written, so nobody is the owner.
    let opened = wait(|reply| store.open(ShardId::default(), OwnerId(0), reply))
        .with_context(|| format!("`{}`", path.display()));
    let opened = match opened {
        Err(_) if !problems.is_empty() => return Ok(Checked { problems, ..Checked::default() }),
        opened => opened?,
    };
    wait(|reply| store.close(Close::Abandon, reply))?;
    let all = Progress::of_all(&opened);
    Ok(Checked {
        definitions: opened.metas.len() as u64,
        logs: opened.logs.len() as u64,
        messages: all.messages,
        bytes: all.bytes,
        problems,
    })
}
