//! The broker as a whole: its configuration, its definitions, its end.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{Done, PLAIN, read_json};
use crate::{
    api::Call,
    arguments::{ConfigCommand, DefsCommand, Drain, Setting, Sure},
    failure::Failure,
    output::Format,
    progress::Bar,
    resource::{Session, confirm, say},
};

/// The path of definitions, which have the form of RabbitMQ.
const DEFINITIONS: &str = "/api/definitions";
const CHANGE_COLUMNS: &[&str] = &["key", "from", "to", "origin", "needs_restart"];
const DIFFERENCE_COLUMNS: &[&str] = &["kind", "name", "change", "detail"];
/// How often a broker that drains is looked at.
const DRAIN_PAUSE: Duration = Duration::from_millis(300);

pub(super) fn definitions(session: &Session, command: DefsCommand) -> Result<ExitCode, Failure> {
    match command {
        DefsCommand::Export { file } => {
            let all = session.api.call(&Call::new("GET", DEFINITIONS))?;
            let text = format!("{all:#}\n");
            match file.as_str() {
                "-" => std::io::stdout().write_all(text.as_bytes())?,
                file => std::fs::write(file, text).with_context(|| file.to_owned())?,
            }
        }
        DefsCommand::Import { file, dry_run: false } => {
            let all = read_json(&file)?;
            session.change(&Call::new("POST", DEFINITIONS).json(&all), PLAIN)?;
        }
        DefsCommand::Import { file, dry_run: true } => {
            difference(session, &file)?;
        }
        DefsCommand::Diff { file } => return differs(difference(session, &file)?),
    }
    Ok(ExitCode::SUCCESS)
}

/// As `diff` has it: no difference is a success.
fn differs(does: bool) -> Result<ExitCode, Failure> {
    Ok(if does { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Shows what an import would change; true when that is anything.
fn difference(session: &Session, file: &str) -> Result<bool, Failure> {
    let all = read_json(file)?;
    let answer = session.api.call(&Call::new("POST", "definitions:diff").json(&all))?;
    let rows = rows_of(&answer);
    session.output.rows(&rows, DIFFERENCE_COLUMNS)?;
    Ok(!rows.is_empty())
}

/// The list in an answer, whatever it is called.
fn rows_of(answer: &Value) -> Vec<Value> {
    let named = ["changes", "items"].iter().find_map(|name| answer.get(*name));
    named.unwrap_or(answer).as_array().cloned().unwrap_or_default()
}

pub(super) fn reload(session: &Session) -> Done {
    let answer = session.api.call(&Call::new("POST", "config:reload"))?;
    told(session, &answer)?;
    Ok(())
}

/// Shows the difference that a reload makes, and says what waits for a restart.
fn told(session: &Session, answer: &Value) -> Result<bool, Failure> {
    let rows = rows_of(answer);
    session.output.rows(&rows, CHANGE_COLUMNS)?;
    let waits = |row: &&Value| row.get("needs_restart") == Some(&json!(true));
    match (rows.len(), rows.iter().filter(waits).count()) {
        (0, _) => say("nothing has changed")?,
        (_, 0) => {}
        (_, count) => say(&format!("{count} of these wait for a restart"))?,
    }
    Ok(!rows.is_empty())
}

pub(super) fn config(command: ConfigCommand) -> Result<ExitCode, Failure> {
    match command {
        ConfigCommand::Show(setting) => settings(&setting, &["key", "value", "origin"])?,
        ConfigCommand::Origin(setting) => settings(&setting, &["key", "origin"])?,
        ConfigCommand::Diff(bare) => {
            let session = Session::new(&bare.common)?;
            let answer = session.api.call(&Call::new("POST", "config:check"))?;
            return differs(told(&session, &answer)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn settings(setting: &Setting, columns: &[&str]) -> Done {
    let session = Session::new(&setting.common)?;
    let mut rows = session.api.list("config", &[], None)?;
    let is_wanted = |row: &Value| {
        let key = row.get("key").and_then(Value::as_str).unwrap_or_default();
        key.starts_with(&setting.key)
    };
    rows.retain(is_wanted);
    if rows.is_empty() {
        return Err(Failure::Usage(format!("no key begins with `{}`", setting.key)));
    }
    Ok(session.output.rows(&rows, columns)?)
}

/// Ends a broker as its service manager would, and waits until it is gone.
pub(super) fn drain(session: &Session, wanted: &Drain) -> Done {
    let server = session.api.call(&Call::new("GET", "server"))?;
    let name = server.get("name").and_then(Value::as_str).unwrap_or("polymq");
    confirm(name, Sure { yes: wanted.yes })?;
    session.api.call(&Call::new("POST", "server:drain"))?;
    if wanted.detach {
        return say("the broker drains");
    }
    let mut bar = Bar::new();
    // What answers is closed by its answer, and a broker that has ended answers nothing.
    let mut rounds = 0;
    while session.api.call_whatever_status("/health/live").is_ok() {
        rounds += 1;
        bar.show("draining", rounds, None)?;
        thread::sleep(DRAIN_PAUSE);
    }
    bar.end()?;
    if session.output.format == Format::Table || std::io::stdout().is_terminal() {
        return say("the broker has ended");
    }
    Ok(session.output.document(&json!({ "name": name, "state": "ended" }))?)
}
