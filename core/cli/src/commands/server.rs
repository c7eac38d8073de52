//! The broker as a whole: its configuration, its definitions, its end.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{Done, read_json};
use crate::{
    api::Call,
    arguments::{ConfigCommand, DefsCommand, Drain, Setting, Sure},
    failure::Failure,
    output::{Format, one_line},
    progress::Bar,
    resource::{Session, confirm, say},
};

const CHANGE_COLUMNS: &[&str] = &["key", "from", "to", "origin", "needs_restart"];
const DIFFERENCE_COLUMNS: &[&str] = &["kind", "name", "change", "detail"];
/// How often a broker that drains is looked at.
const DRAIN_PAUSE: Duration = Duration::from_millis(300);

pub(super) fn definitions(session: &Session, command: DefsCommand) -> Result<ExitCode, Failure> {
    match command {
        DefsCommand::Export { file } => {
            let all = session.api.call(&Call::new("GET", "definitions"))?;
            let text = match session.output.format {
                Format::Table | Format::Json => format!("{all:#}\n"),
                Format::JsonLines => format!("{all}\n"),
                Format::Csv => {
                    let text = "definitions are no table: -o json or -o jsonl";
                    return Err(Failure::Usage(text.to_owned()));
                }
            };
            match file.as_str() {
                "-" => std::io::stdout().write_all(text.as_bytes())?,
                file => std::fs::write(file, text).with_context(|| file.to_owned())?,
            }
        }
        DefsCommand::Import { file, dry_run: false, skip_conflicts } => {
            import(session, &read_json(&file)?, skip_conflicts)?;
        }
        DefsCommand::Import { file, dry_run: true, skip_conflicts } => {
            let answer = difference(session, &file)?;
            left_out(&answer, skip_conflicts)?;
        }
        DefsCommand::Diff { file } => {
            let answer = difference(session, &file)?;
            left_out(&answer, false)?;
            return differs(!rows_of(&answer).is_empty());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// As `diff` has it: no difference is a success.
fn differs(does: bool) -> Result<ExitCode, Failure> {
    Ok(if does { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Shows what an import would change.
fn difference(session: &Session, file: &str) -> Result<Value, Failure> {
    let all = read_json(file)?;
    let answer = session.api.call(&Call::new("POST", "definitions:diff").json(&all))?;
    session.output.rows(&rows_of(&answer), DIFFERENCE_COLUMNS)?;
    Ok(answer)
}

/// Imports all of a document or, if that is wanted, all but what is there with other settings.
fn import(session: &Session, all: &Value, skips: bool) -> Done {
    let query: &[_] = if skips { &[("on_conflict", "skip".to_owned())] } else { &[] };
    let call = Call::new("POST", "definitions:import").query(query).json(all);
    let answer = session.api.call(&call)?;
    let count = |of: &str| answer.pointer(&format!("/counts/{of}")).and_then(Value::as_u64);
    let of = |of: &str| count(of).unwrap_or(0);
    say(&format!(
        "created {}, changed {}, as they were {}",
        of("create"),
        of("change"),
        of("unchanged")
    ))?;
    left_out(&answer, skips)
}

/// Errors: something is there with other settings, or would be wrong.
fn left_out(answer: &Value, skips: bool) -> Done {
    let wrong = answer.get("wrong").and_then(Value::as_array).into_iter().flatten();
    let wrong: Vec<_> = wrong.filter_map(Value::as_str).collect();
    if !wrong.is_empty() {
        return Err(Failure::Other(anyhow::anyhow!("nothing is imported: {}", wrong.join("; "))));
    }
    let word = |row: &Value, name: &str| {
        one_line(row.get(name).and_then(Value::as_str).unwrap_or_default())
    };
    let rows = rows_of(answer);
    let left: Vec<_> = rows.iter().filter(|row| word(row, "change") == "conflict").collect();
    if left.is_empty() {
        return Ok(());
    }
    let line = |row: &&Value| format!("\n  {}: {}", word(row, "name"), word(row, "detail"));
    let lines: String = left.iter().map(line).collect();
    if skips {
        return Err(Failure::Partly(format!("{} left out as they are there:{lines}", left.len())));
    }
    let text = format!("{} are there with other settings (--skip-conflicts):{lines}", left.len());
    Err(Failure::Other(anyhow::anyhow!(text)))
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
            // As with `diff`, 1 is different, and trouble is 2.
            let answer =
                session.api.call(&Call::new("POST", "config:check")).map_err(|failure| {
                    match failure {
                        Failure::Refused { status: 400 | 422, .. } => {
                            Failure::Usage(failure.to_string())
                        }
                        failure => failure,
                    }
                })?;
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
        return Err(Failure::Missing(format!("no key begins with `{}`", setting.key)));
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
    // A broker that has ended answers nothing. The first question may go over a connection that was
    // kept, and that the broker has closed by now; the second opens one.
    let answers = || session.api.call_whatever_status("/health/live").is_ok();
    let mut rounds = 0;
    while answers() || answers() {
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
