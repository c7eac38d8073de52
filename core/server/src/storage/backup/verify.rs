//! `polymq backup verify`: reads all of a backup, and touches nothing.

use std::{path::Path, process::ExitCode};

use anyhow::Context;
use polymq_log::LogConfig;
use polymq_store::{Close, OwnerId, ShardId, Store, copy::Progress, wait};

use super::{Description, say};
use crate::config::value::Backend;

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
pub(super) fn run(dir: &Path) -> anyhow::Result<ExitCode> {
    let description = Description::read(dir)?;
    let found = check(dir, &description)?;
    let name = dir.display();
    let mut text = String::new();
    for problem in &found.problems {
        text.push_str(&format!("{problem}\n"));
    }
    match found.problems.len() {
        0 => text.push_str(&format!(
            "the backup `{name}` is sound: {} store of PolyMQ {}, {} definitions, {} logs, {} \
             messages with {} bytes\n",
            description.backend()?,
            description.made_by,
            found.definitions,
            found.logs,
            found.messages,
            found.bytes
        )),
        count => text.push_str(&format!("the backup `{name}` is damaged at {count} places\n")),
    }
    say(&text)?;
    Ok(if found.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads everything.
///
/// Errors: a description that says nothing.
pub(super) fn check(dir: &Path, description: &Description) -> anyhow::Result<Checked> {
    let problems: Vec<_> = description.files.iter().filter_map(|file| file.problem(dir)).collect();
    if !problems.is_empty() {
        return Ok(Checked { problems, ..Checked::default() });
    }
    let store = dir.join(description.store()?);
    let checked = match description.backend()? {
        Backend::Sqlite => sqlite(&store),
        Backend::File | Backend::Memory | Backend::Postgres => file(&store),
    };
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

fn file(path: &Path) -> anyhow::Result<Checked> {
    let examined = polymq_log::examine(path, LogConfig::default())?;
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
