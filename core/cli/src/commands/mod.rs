//! From a command to its calls.

mod access;
mod contexts;
mod dead_letters;
mod live;
mod objects;
mod queues;
mod server;

use std::{
    io::{Read, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::Context as _;
use clap_complete::{Generator, shells};
use serde_json::{Value, json};

use self::{
    access::{ban, limit, permission, policy, token, user, vhost},
    contexts::context,
    dead_letters::dead_letters,
    objects::{binding, channel, connection, consumer, exchange, scheduled, topic},
    queues::{job, queue},
};
use crate::{
    api::{Call, segment},
    arguments::{
        Change, Check, Command, ConfigCommand, Convert, ListenerCommand, Ls, Paused, Route, Shell,
    },
    bench,
    destination::Destination,
    failure::Failure,
    help, messages,
    output::Format,
    receiving, reply,
    resource::{Session, headers},
};

type Done = Result<(), Failure>;

const JOB_COLUMNS: &[&str] =
    &["id", "kind", "state", "progress.done", "progress.total", "by", "started_at"];
const BINDING_COLUMNS: &[&str] =
    &["id", "source", "destination", "destination_type", "routing_key"];
const CONSUMER_COLUMNS: &[&str] =
    &["queue", "tag", "connection", "protocol", "user", "prefetch", "unacked", "active"];

const LISTENER_COLUMNS: &[&str] = &["name", "protocol", "address", "tls", "certificate_expires_at"];

const PLAIN: Change = Change { dry_run: false, idempotent: false };

fn dry(dry_run: bool) -> Change {
    Change { dry_run, idempotent: false }
}

pub(crate) fn run(command: Command, program: &mut clap::Command) -> Result<ExitCode, Failure> {
    let done = match command {
        Command::Status(bare) => status(&Session::new(&bare.common)?),
        Command::Health(health) => return check(&Session::new(&health.common)?, &health.check),
        Command::Alarms(bare) => Session::new(&bare.common)?.list(
            "alarms",
            &Ls::default(),
            &["id", "severity", "detail"],
        ),
        Command::Audit(bare) => Session::new(&bare.common)?.list(
            "audit",
            &Ls::default(),
            &["at", "user", "from", "action", "object"],
        ),
        Command::Top(wanted) => live::top(&Session::new(&wanted.common)?, &wanted),
        Command::Logs(wanted) => live::logs(&Session::new(&wanted.common)?, &wanted),
        Command::Trace(wanted) => live::trace(&Session::new(&wanted.common)?, &wanted),
        Command::Reload(bare) => server::reload(&Session::new(&bare.common)?),
        Command::Drain(wanted) => server::drain(&Session::new(&wanted.common)?, &wanted),
        Command::Listener(group) => listener(&Session::new(&group.common)?, &group.command),
        Command::Bench(wanted) => bench::run(&wanted),
        Command::Pub(wanted) => messages::publish(&Session::new(&wanted.common)?, &wanted),
        Command::Sub(wanted) => receiving::subscribe(&Session::new(&wanted.common)?, &wanted),
        Command::Req(wanted) => messages::request(&Session::new(&wanted.common)?, &wanted),
        Command::Reply(wanted) => reply::reply(&Session::new(&wanted.common)?, &wanted),
        Command::Route(wanted) => route(&Session::new(&wanted.common)?, &wanted),
        Command::Convert(wanted) => convert(&Session::new(&wanted.common)?, &wanted),
        Command::Queue(group) => queue(&Session::new(&group.common)?, group.command),
        Command::Exchange(group) => exchange(&Session::new(&group.common)?, group.command),
        Command::Binding(group) => binding(&Session::new(&group.common)?, group.command),
        Command::Scheduled(group) => scheduled(&Session::new(&group.common)?, group.command),
        Command::Dlq(group) => dead_letters(&Session::new(&group.common)?, group.command),
        Command::Job(group) => job(&Session::new(&group.common)?, group.command),
        Command::Conn(group) => connection(&Session::new(&group.common)?, group.command),
        Command::Channel(group) => channel(&Session::new(&group.common)?, &group.command),
        Command::Topic(group) => topic(&Session::new(&group.common)?, group.command),
        Command::Consumer(group) => consumer(&Session::new(&group.common)?, group.command),
        Command::Vhost(group) => vhost(&Session::new(&group.common)?, group.command),
        Command::User(group) => user(&Session::new(&group.common)?, group.command),
        Command::Perm(group) => permission(&Session::new(&group.common)?, group.command),
        Command::Policy(group) => policy(&Session::new(&group.common)?, group.command),
        Command::Token(group) => token(&Session::new(&group.common)?, group.command),
        Command::Limit(group) => limit(&Session::new(&group.common)?, group.command),
        Command::Ban(group) => ban(&Session::new(&group.common)?, group.command),
        Command::Defs(group) => {
            let session = Session::new(&group.common)?;
            return server::definitions(&session, group.command);
        }
        Command::Context(command) => context(command),
        Command::Help { about } => help::tell(&without_help(program.clone()), &about),
        Command::Completion { shell } => complete(shell, program),
        Command::Man { all_to } => manual(program, all_to.as_deref()),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// Runs a command on the configuration of a broker that runs.
pub(crate) fn run_config(command: ConfigCommand) -> Result<ExitCode, Failure> {
    server::config(command)
}

/// The program without the commands that print help of each group of commands, which would be as
/// many once more.
fn without_help(program: clap::Command) -> clap::Command {
    program.disable_help_subcommand(true).mut_subcommands(without_help)
}

fn complete(shell: Shell, program: &clap::Command) -> Done {
    let mut program = without_help(program.clone());
    program.set_bin_name(program.get_name().to_owned());
    program.build();
    let generator: &dyn Generator = match shell {
        Shell::Bash => &shells::Bash,
        Shell::Zsh => &shells::Zsh,
        Shell::Fish => &shells::Fish,
        Shell::Nushell => &clap_complete_nushell::Nushell,
        Shell::Powershell => &shells::PowerShell,
        Shell::Elvish => &shells::Elvish,
    };
    Ok(generator.try_generate(&program, &mut std::io::stdout())?)
}

fn manual(program: &clap::Command, all_to: Option<&Path>) -> Done {
    let mut program = without_help(program.clone());
    program.build();
    match all_to {
        None => Ok(clap_mangen::Man::new(program).render(&mut std::io::stdout())?),
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            let written = clap_mangen::generate_to(program, folder);
            Ok(written.with_context(|| folder.display().to_string())?)
        }
    }
}

fn listener(session: &Session, command: &ListenerCommand) -> Done {
    let (Paused { name, dry_run }, running) = match command {
        ListenerCommand::Ls(ls) => return session.list("listeners", ls, LISTENER_COLUMNS),
        ListenerCommand::Stop(paused) => (paused, false),
        ListenerCommand::Start(paused) => (paused, true),
    };
    let path = format!("listeners/{}", segment(name));
    session.put(&path, &json!({ "running": running }), dry(*dry_run))
}

fn status(session: &Session) -> Done {
    let mut server = session.api.call(&Call::new("GET", "server"))?;
    let overview = session.api.call(&Call::new("GET", "overview"))?;
    if let (Some(server), Value::Object(overview)) = (server.as_object_mut(), overview) {
        server.extend(overview);
    }
    Ok(session.output.document(&server)?)
}

fn check(session: &Session, check: &Check) -> Result<ExitCode, Failure> {
    let path = match check {
        Check::Live => "/health/live".to_owned(),
        Check::Startup => "/health/startup".to_owned(),
        Check::Ready => "/health/ready".to_owned(),
        Check::Alarms => "/api/health/checks/alarms".to_owned(),
        Check::Certificates(hours) => {
            format!("/api/health/checks/certificate-expiration/{hours}/hours")
        }
        Check::Port(port) => format!("/api/health/checks/port-listener/{port}"),
    };
    match session.api.call(&Call::new("GET", &path)) {
        Ok(answer) => {
            session.output.document(&answer)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(Failure::Refused { status: 503, problem }) => {
            session.output.document(&problem)?;
            Ok(ExitCode::FAILURE)
        }
        Err(failure) => Err(failure),
    }
}

fn route(session: &Session, wanted: &Route) -> Done {
    let (exchange, key) = match &wanted.destination {
        Destination::Queue(name) => (String::new(), name.clone()),
        Destination::Exchange(name, key) => (name.clone(), key.clone()),
    };
    let named = headers(&wanted.headers)?;
    let properties = if named.is_empty() { json!({}) } else { json!({ "headers": named }) };
    let message = json!({ "exchange": exchange, "routing_key": key, "properties": properties });
    let mut body = json!({ "message": message });
    if let Some(user) = &wanted.publisher {
        // Somebody who is not there may do nothing, which would look like an answer.
        let path = format!("users/{}", segment(user));
        match session.api.call(&Call::new("GET", &path)) {
            Err(failure @ Failure::Refused { status: 404, .. }) => return Err(failure),
            _ => body["user"] = json!(user),
        }
    }
    let path = session.api.in_vhost("routing:explain");
    let answer = session.api.call(&Call::new("POST", &path).json(&body))?;
    if session.output.format != Format::Table {
        return Ok(session.output.document(&answer)?);
    }
    let mut text = String::new();
    for step in answer.get("steps").and_then(Value::as_array).into_iter().flatten() {
        tell_step(step, 0, &mut text);
    }
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn tell_step(step: &Value, depth: usize, text: &mut String) {
    let word = |name: &str| step.get(name).and_then(Value::as_str).unwrap_or_default();
    let code = step.pointer("/reason/code").and_then(Value::as_str).unwrap_or_default();
    let indent = "  ".repeat(depth);
    let (kind, object, outcome) = (word("kind"), word("object").escape_debug(), word("outcome"));
    text.push_str(&format!("{indent}{kind} {object}: {outcome}"));
    if !code.is_empty() && code != outcome {
        text.push_str(&format!(" ({code})"));
    }
    text.push('\n');
    for child in step.get("children").and_then(Value::as_array).into_iter().flatten() {
        tell_step(child, depth + 1, text);
    }
}

/// A file, or standard input for `-`.
fn read(file: &str) -> Result<String, Failure> {
    if file == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    Ok(std::fs::read_to_string(file).with_context(|| file.to_owned())?)
}

fn read_json(file: &str) -> Result<Value, Failure> {
    serde_json::from_str(&read(file)?)
        .map_err(|error| Failure::Usage(format!("{file} is not JSON: {error}")))
}

fn convert(session: &Session, wanted: &Convert) -> Done {
    let body = json!({ "message": read_json(&wanted.file)?, "to": wanted.to });
    let answer = session.api.call(&Call::new("POST", "convert:explain").json(&body))?;
    let columns = &["field", "to", "outcome", "as", "value"];
    match answer.get("lines").and_then(Value::as_array) {
        Some(rows) => Ok(session.output.rows(rows, columns)?),
        None => Ok(session.output.document(&answer)?),
    }
}
