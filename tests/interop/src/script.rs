//! Runs a client script beside a broker and judges what it prints.
//!
//! A script prints `ok <case>`, `not ok <case>: why` or `skip <case>: why`, one line each. A line
//! `ctl <order>` asks for something to happen to the broker; the answer `done` on the script's
//! standard input says that it has. Orders: `kill` and `restart` (back up when answered), `cut`.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Signal, kill_process_group};

use crate::{
    Broker, Peer, Speaks,
    broker::{pid_of, wait_at_most},
    clients_are_required, last_lines, peers,
    prosody::Prosody,
    target_dir,
};

/// What a script may take: many times what it does take, since the machine may be busy with others,
/// and RabbitMQ needs several seconds for each restart. One that hangs ends all the same.
const SCRIPT_LIMIT: Duration = Duration::from_secs(180);

/// One client script and how it is started.
#[derive(Clone, Copy, Debug)]
pub enum Client {
    /// A file of `python/`, in the virtual environment of `setup.sh`.
    Python(&'static str),
    /// The same, for a program that `setup.sh` installs at this place.
    PythonFor(&'static str, &'static str),
    /// A file of `node/`.
    Node(&'static str),
    /// A program of `go/cmd/`.
    Go(&'static str),
    /// A class of `java/`.
    Java(&'static str),
    /// A file of `perl/`, with the modules of Debian's packages named here.
    Perl(&'static str, &'static str),
}

impl Client {
    /// The program to run and the file whose absence means that `setup.sh` has not run.
    fn command(self) -> (Command, PathBuf) {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
        let built = target_dir().join("interop");
        match self {
            Self::Python(script) | Self::PythonFor(script, _) => {
                let python = built.join("venv/bin/python");
                let mut command = Command::new(&python);
                command.arg("-u").arg(sources.join("python").join(script));
                command.env("PYTHONDONTWRITEBYTECODE", "1");
                let needed = match self {
                    Self::PythonFor(_, program) => built.join(program),
                    _ => python,
                };
                (command, needed)
            }
            Self::Node(script) => {
                let script = built.join("node").join(script);
                let mut command = Command::new("node");
                command.arg(&script);
                (command, built.join("node/node_modules"))
            }
            Self::Go(program) => {
                let program = built.join("go").join(program);
                (Command::new(&program), program)
            }
            Self::Java(class) => {
                let built = built.join("java");
                let mut command = Command::new("java");
                command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]);
                command.arg(format!("{0}/classes:{0}/lib/*", built.display())).arg(class);
                (command, built.join("classes"))
            }
            Self::Perl(script, module) => {
                let mut command = Command::new("perl");
                command.arg(sources.join("perl").join(script));
                (command, Path::new("/usr/share/perl5").join(module))
            }
        }
    }
}

/// Runs the script against a fresh broker; a peer that cannot speak its protocol is passed over.
///
/// Errors: when a case fails, the script ends badly or late, or the client is missing in CI.
pub fn run_script(client: Client, speaks: Speaks) -> Result<()> {
    let (command, needed) = client.command();
    if !needed.exists() {
        return skip(&format!("{client:?} is not installed; run tests/interop/setup.sh"));
    }
    match Broker::start(speaks)? {
        Some(broker) => Run::start(command, broker)?.judge(client),
        None => say(&format!("passed over: {client:?}, the chosen peer does not speak {speaks:?}")),
    }
}

/// Runs the script against PolyMQ with RabbitMQ beside it, whose port it gets as `ORACLE_PORT`.
///
/// Errors: as [`run_script`]; a missing RabbitMQ counts as a missing client.
pub fn run_script_beside_rabbitmq(client: Client) -> Result<()> {
    let (mut command, needed) = client.command();
    if !needed.exists() {
        return skip(&format!("{client:?} is not installed; run tests/interop/setup.sh"));
    }
    if Peer::Rabbitmq.program().is_some_and(|program| !Path::new(program).exists()) {
        return skip(&format!("{client:?} needs Debian's package rabbitmq-server"));
    }
    let oracle = Broker::start_peer(Peer::Rabbitmq)?;
    command.env("ORACLE_PORT", oracle.amqp_port().to_string());
    Run::start(command, Broker::start_peer(Peer::Polymq)?)?.judge(client)
}

/// Runs the script against PolyMQ as a component of a Prosody, whose port it gets as
/// `PROSODY_PORT`.
///
/// Errors: as [`run_script`]; a missing Prosody counts as a missing client.
pub fn run_script_beside_prosody(client: Client) -> Result<()> {
    let (mut command, needed) = client.command();
    if !needed.exists() {
        return skip(&format!("{client:?} is not installed; run tests/interop/setup.sh"));
    }
    if !Prosody::is_installed() {
        return skip(&format!("{client:?} needs Debian's package prosody"));
    }
    let broker = Broker::start_beside_prosody()?;
    command.env("PROSODY_PORT", broker.prosody_port().unwrap_or_default().to_string());
    Run::start(command, broker)?.judge(client)
}

/// Errors: where nothing may be missing.
fn skip(text: &str) -> Result<()> {
    if clients_are_required() {
        bail!("{text}");
    }
    say(&format!("SKIPPED: {text}"))
}

/// Writes past the capturing of the test runner, so that a skipped test is seen.
fn say(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stderr(), "{text}")?)
}

struct Run {
    broker: Broker,
    child: Child,
    orders: ChildStdin,
    lines: Receiver<String>,
    talk: Receiver<String>,
    deadline: Instant,
    seen: Vec<String>,
}

impl Run {
    fn start(mut command: Command, broker: Broker) -> Result<Self> {
        let mut child = command
            .env("PEER", broker.peer().name())
            .env("AMQP_URL", broker.amqp_url())
            .env("AMQP_HOST", "127.0.0.1")
            .env("AMQP_PORT", broker.amqp_port().to_string())
            .env("MQTT_HOST", "127.0.0.1")
            .env("MQTT_PORT", broker.mqtt_port().to_string())
            .env("STOMP_HOST", "127.0.0.1")
            .env("STOMP_PORT", broker.stomp_port().to_string())
            .env("XMPP_HOST", "127.0.0.1")
            .env("XMPP_PORT", broker.xmpp_port().to_string())
            .env("HTTP_PORT", broker.http_port().to_string())
            .env("METRICS_PORT", broker.metrics_port().to_string())
            .env("XMPP_CA", broker.certificate())
            .env("NODE_EXTRA_CA_CERTS", broker.certificate())
            .env("POLYMQ_BIN", peers::program())
            .env("USER", "guest")
            .env("PASS", "guest")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let orders = child.stdin.take().context("no stdin")?;
        let stdout = child.stdout.take().context("no stdout")?;
        let mut stderr = child.stderr.take().context("no stderr")?;
        let (line_sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line_sender.send(line).is_err() {
                    break;
                }
            }
        });
        let (talk_sender, talk) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stderr.read_to_end(&mut bytes);
            let _ = talk_sender.send(String::from_utf8_lossy(&bytes).into_owned());
        });
        let deadline = Instant::now() + SCRIPT_LIMIT;
        Ok(Self { broker, child, orders, lines, talk, deadline, seen: Vec::new() })
    }

    fn judge(mut self, client: Client) -> Result<()> {
        let problem = self.follow().err();
        let patience = if problem.is_none() { 30 } else { 0 };
        let status = wait_at_most(&mut self.child, Duration::from_secs(patience));
        // Whatever the script started and left behind ends with it.
        let _ = kill_process_group(pid_of(&self.child), Signal::KILL);
        let _ = self.child.wait();
        let passed = self.seen.iter().any(|line| line.starts_with("ok "));
        let failed = self.seen.iter().any(|line| line.starts_with("not ok "));
        if problem.is_none() && passed && !failed && status.is_some_and(|s| s.success()) {
            return Ok(());
        }
        let talk = self.talk.recv_timeout(Duration::from_secs(2)).unwrap_or_default();
        let talk = last_lines(&talk, 60);
        bail!(
            "{client:?} against {:?}: {}, ended with {status:?}\n{}\n--- its stderr\n{talk}\n\
             --- end of the broker's log\n{}",
            self.broker.peer(),
            problem.map_or_else(|| "cases failed".to_owned(), |problem| format!("{problem:#}")),
            self.seen.join("\n"),
            self.broker.log_tail(),
        )
    }

    /// Reads until the script closes its output, and does what it orders.
    fn follow(&mut self) -> Result<()> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let line = match self.lines.recv_timeout(left) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => bail!("the script ran too long"),
            };
            match line.strip_prefix("ctl ") {
                Some(order) => {
                    self.obey(order)?;
                    self.orders.write_all(b"done\n")?;
                }
                None => self.seen.push(line),
            }
        }
    }

    fn obey(&mut self, order: &str) -> Result<()> {
        match order {
            "kill" => self.broker.kill_and_restart(),
            "restart" => self.broker.stop_and_restart(),
            "cut" => {
                self.broker.cut_connections();
                Ok(())
            }
            other => bail!("the script ordered `{other}`, which is unknown"),
        }
    }
}
