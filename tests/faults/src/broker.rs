//! The broker as a process: started on free ports, killed or stopped, and looked at from outside.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

/// How long a start or a stop may take before the broker counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);
/// Name of the file beside the data that takes the broker's standard error.
const LOG_FILE: &str = "stderr.log";

/// Ports of a running broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// AMQP 0-9-1.
    pub amqp: u16,
    /// MQTT.
    pub mqtt: u16,
    /// STOMP.
    pub stomp: u16,
    /// XMPP.
    pub xmpp: u16,
    /// HTTP.
    pub http: u16,
}

/// Stops a process, and waits until each of its threads has come back from what it had asked of the
/// system.
///
/// Errors: when the process is gone, when a thread does not stop.
pub(crate) fn stop_threads(process: u32) -> Result<()> {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
    kill_process(pid.context("a process has a number")?, Signal::STOP)?;
    let began = Instant::now();
    while !is_stopped(process)? {
        ensure!(began.elapsed() < PATIENCE, "a thread of the broker does not stop");
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Whether each thread of a process is stopped, by a signal or by a tracer: `T` or `t` behind the
/// name in its `stat` (`proc_pid_stat(5)`).
fn is_stopped(process: u32) -> Result<bool> {
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        // One that ends meanwhile runs no more.
        let stat = fs::read_to_string(task?.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").map_or("T", |(_, rest)| rest.get(..1).unwrap_or("T"));
        if !["T", "t"].contains(&state) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A broker that we started; killed when dropped.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    /// Where it listens.
    pub ports: Ports,
    /// The same by the names of the listeners.
    listeners: serde_json::Value,
    /// From the start of the process to its ready line.
    pub ready_after: Duration,
}

/// A directory for one broker, with its data and its log; gone when dropped.
#[derive(Debug)]
pub struct Home {
    dir: tempfile::TempDir,
    data: PathBuf,
    /// What the program is started by: `strace` and its arguments, a limiter.
    wrapper: Vec<String>,
    /// Arguments of every start.
    flags: Vec<String>,
    /// Where standard error goes instead of the usual file.
    log_file: Option<PathBuf>,
}

impl Home {
    /// Makes an empty one.
    pub fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("polymq-faults-").tempdir()?;
        let data = dir.path().join("data");
        Ok(Self { dir, data, wrapper: Vec::new(), flags: Vec::new(), log_file: None })
    }

    /// Makes an empty one whose data are elsewhere.
    pub fn with_data(data: PathBuf) -> Result<Self> {
        Ok(Self { data, ..Self::new()? })
    }

    /// Starts the program by another one from now on, which must become it: the process keeps its
    /// number.
    pub fn wrap(&mut self, wrapper: &[&str]) {
        self.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
    }

    /// Adds an argument to every start from now on.
    pub fn always(&mut self, flags: &[&str]) {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// A file beside the data, for what a wrapper writes.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Lets brokers say on this file what they say on standard error.
    pub fn log_to(&mut self, file: PathBuf) {
        self.log_file = Some(file);
    }

    /// What brokers of this home have said on standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join(LOG_FILE)).unwrap_or_default()
    }

    /// Keeps the directory for a look at it, and says where it is.
    pub fn keep(self) -> PathBuf {
        self.dir.keep()
    }

    /// Starts the program without waiting for it.
    ///
    /// Errors: when there is no program to start.
    pub fn spawn(&self, extra: &[&str]) -> Result<Child> {
        let log = self.log_file.clone().unwrap_or_else(|| self.dir.path().join(LOG_FILE));
        let log = File::options().create(true).append(true).open(log)?;
        let program = program()?;
        let mut command = match self.wrapper.split_first() {
            Some((wrapper, arguments)) => {
                let mut command = Command::new(wrapper);
                command.args(arguments).arg(&program);
                command
            }
            None => Command::new(&program),
        };
        command
            .args(["server", "--dev", "--port", "0", "--print-ports", "--data-dir"])
            .arg(self.data())
            .args(&self.flags)
            .args(extra)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("`{}` cannot be started", program.display()))
    }

    /// Runs `polymq storage` with these words on the data, to its end.
    ///
    /// Errors: when there is no program to start.
    pub fn storage(&self, words: &[&str]) -> Result<Output> {
        let mut command = Command::new(program()?);
        command.arg("storage").args(words).arg("--data-dir").arg(self.data()).args(&self.flags);
        Ok(command.output()?)
    }

    /// Runs `polymq backup` with these words on the data, to its end.
    ///
    /// Errors: when there is no program to start.
    pub fn backup(&self, words: &[&str]) -> Result<Output> {
        let mut command = Command::new(program()?);
        command.arg("backup").args(words).arg("--data-dir").arg(self.data()).args(&self.flags);
        Ok(command.output()?)
    }

    /// Starts a broker and waits for its ready line.
    ///
    /// Errors: with the end of its log when it ends or hangs instead.
    pub fn start(&self) -> Result<Broker> {
        self.start_with(&[])
    }

    /// As [`Home::start`] with further arguments.
    ///
    /// Errors: with the end of its log when it ends or hangs instead.
    pub fn start_with(&self, extra: &[&str]) -> Result<Broker> {
        let started = Instant::now();
        let mut child = self.spawn(extra)?;
        match ready_line(&mut child).and_then(|line| ports(&line)) {
            Ok((ports, listeners)) => {
                Ok(Broker { child, ports, listeners, ready_after: started.elapsed() })
            }
            Err(error) => {
                end(&mut child);
                let log = self.log();
                let tail: Vec<_> = log.lines().rev().take(10).collect();
                let tail: Vec<_> = tail.into_iter().rev().collect();
                Err(error.context(format!("its last words:\n{}", tail.join("\n"))))
            }
        }
    }
}

/// The binary under test: `POLYMQ_BIN`, or the release build of this workspace.
fn program() -> Result<PathBuf> {
    // Tests run in the folder of their package, and people in that of the workspace.
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    if let Some(path) = std::env::var_os("POLYMQ_BIN") {
        return Ok(workspace.join(path));
    }
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(path) => workspace.join(path),
        None => workspace.join("target"),
    };
    let path = target.join("release/polymq");
    if !path.exists() {
        let path = path.display();
        bail!("there is no `{path}`: run `cargo build --release -p polymq-server`");
    }
    Ok(path)
}

/// Lets this process, and the broker it starts, open `files` files. False when it may not.
pub fn allow_files(files: u64) -> bool {
    let limits = getrlimit(Resource::Nofile);
    let has = |limit: Option<u64>| limit.is_none_or(|limit| limit >= files);
    if has(limits.current) {
        return true;
    }
    let maximum = if has(limits.maximum) { limits.maximum } else { Some(files) };
    setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum }).is_ok()
}

fn ready_line(child: &mut Child) -> Result<String> {
    let stdout = child.stdout.take().context("standard output is not piped")?;
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        // Nobody listens any more when the patience has ended.
        let _ = send.send(read.map(|_| line));
    });
    let line = receive.recv_timeout(PATIENCE).context("the broker says nothing")??;
    if line.is_empty() {
        bail!("the broker ended instead of getting ready");
    }
    Ok(line)
}

fn port_of(listeners: &serde_json::Value, name: &str) -> Result<u16> {
    let number = listeners.get(name).and_then(serde_json::Value::as_u64);
    number.and_then(|port| u16::try_from(port).ok()).with_context(|| format!("port of {name}"))
}

fn ports(line: &str) -> Result<(Ports, serde_json::Value)> {
    let listeners: serde_json::Value = serde_json::from_str(line).context(line.to_owned())?;
    let port = |name: &str| port_of(&listeners, name);
    let ports = Ports {
        amqp: port("amqp")?,
        mqtt: port("mqtt")?,
        stomp: port("stomp")?,
        xmpp: port("xmpp")?,
        http: port("http")?,
    };
    Ok((ports, listeners))
}

/// The answer to a GET of a page that needs no login: status and body.
fn get(port: u16, path: &str) -> Result<(u16, String)> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|number| number.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    status.zip(body).context("no answer of HTTP")
}

/// Kills a child and waits for its end.
pub fn end(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

/// Waits for a child to end by itself.
///
/// Errors: when it takes too long.
pub fn wait_for_end(child: &mut Child) -> Result<ExitStatus> {
    if let Some(status) = ended_within(child, PATIENCE)? {
        return Ok(status);
    }
    end(child);
    bail!("the process did not end in {PATIENCE:?}")
}

fn ended_within(child: &mut Child, time: Duration) -> Result<Option<ExitStatus>> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(None)
}

impl Broker {
    /// The port of a listener that the configuration names.
    ///
    /// Errors: when there is none of this name.
    pub fn port(&self, listener: &str) -> Result<u16> {
        port_of(&self.listeners, listener)
    }

    /// `kill -9`, and the wait until the process is gone.
    pub fn kill(mut self) {
        end(&mut self.child);
    }

    /// Asks for a clean stop and does not wait for it.
    ///
    /// Errors: when the process is gone.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Stops the process without telling it; nothing runs in it until [`Broker::go_on`], and
    /// nothing that it had asked the disk for is under way.
    ///
    /// Errors: when the process is gone, when the disk does not let a thread go.
    pub fn pause(&self) -> Result<()> {
        stop_threads(self.child.id())
    }

    /// Ends a pause.
    ///
    /// Errors: when the process is gone.
    pub fn go_on(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.context("a process has a number")?, signal)?)
    }

    /// How it ended by itself; `None` when it lives on for this time.
    ///
    /// Errors: those of the system.
    pub fn ended_within(&mut self, time: Duration) -> Result<Option<ExitStatus>> {
        ended_within(&mut self.child, time)
    }

    /// The answer to a GET: status and body.
    ///
    /// Errors: when there is none.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        get(self.ports.http, path)
    }

    /// A number of the metrics page.
    ///
    /// Errors: when there is none of this name.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let (_, page) = get(port_of(&self.listeners, "metrics")?, "/metrics")?;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).with_context(|| format!("no metric {name}"))
    }

    /// Waits for the end after [`Broker::terminate`].
    ///
    /// Errors: when it takes too long.
    pub fn wait(mut self) -> Result<ExitStatus> {
        wait_for_end(&mut self.child)
    }

    /// A clean stop.
    ///
    /// Errors: when it takes too long.
    pub fn stop(self) -> Result<ExitStatus> {
        self.terminate()?;
        self.wait()
    }

    /// Number of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// True while the process lives.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// CPU time taken so far, in ms, as exact as the 10 ms that the kernel counts in.
    ///
    /// Errors: when the process is gone.
    pub fn cpu_ms(&self) -> Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields = stat.rsplit_once(')').context("no name")?.1;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        Ok(ticks.sum::<Result<u64, _>>()? * 10)
    }

    /// Resident memory.
    ///
    /// Errors: when the process is gone.
    pub fn resident_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        number.and_then(|kib| kib.parse().ok()).context("no VmRSS")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
