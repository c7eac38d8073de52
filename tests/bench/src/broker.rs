//! A broker process under our care: started in its own directory, ready when it accepts a client,
//! ended with everything it started.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail};

use crate::mqtt::Version;
use crate::peers::{Launch, Peer, Ports, parse_ports};
use crate::process::{Tree, terminate};
use crate::work::Target;
use crate::{amqp, mqtt, stomp};

/// How long a broker may take to accept its first client.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// How long an orderly stop may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// Processes and directories to clear away when a signal ends the run.
static CARE: Mutex<Vec<(u32, PathBuf)>> = Mutex::new(Vec::new());

fn care() -> MutexGuard<'static, Vec<(u32, PathBuf)>> {
    CARE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends every process started here and removes its directory; for the signal handler.
pub fn clear_all() {
    for (pid, dir) in care().drain(..) {
        Tree::of(&[pid]).kill();
        // The directory is only scratch space; what cannot be removed stays behind.
        let _ = fs::remove_dir_all(dir);
    }
}

/// A running broker.
pub struct Broker {
    children: Vec<Child>,
    tree: Tree,
    ports: Ports,
    stomp_queues: &'static str,
    mqtt_login: Option<amqp::Login>,
    /// From the start of its process to the first accepted client.
    pub ready_after: Duration,
}

impl Broker {
    /// Starts a broker whose files live below `dir` and waits until it accepts a client.
    pub fn start(peer: Peer, program: &Path, dir: &Path, cpus: Option<&str>) -> Result<Self> {
        let Launch { helpers, main, ports } = peer.launch(program, dir)?;
        let log = dir.join("output.log");
        let mut children = Vec::new();
        for mut helper in helpers {
            quiet(&mut helper, &log)?;
            children.push(spawn(helper, dir)?);
        }
        let mut main = pinned(main, cpus);
        quiet(&mut main, &log)?;
        if ports.is_none() {
            main.stdout(Stdio::piped());
        }
        let started = Instant::now();
        children.push(spawn(main, dir)?);
        let (tree, ports, early) = (Tree::default(), ports.unwrap_or_default(), ports.is_some());
        let mqtt_login = (!peer.welcomes_anonymous()).then(amqp::Login::default);
        let (stomp_queues, ready_after) = (peer.stomp_queues(), Duration::ZERO);
        let mut broker = Self { children, tree, ports, stomp_queues, mqtt_login, ready_after };
        let ready = broker.wait_until_ready(early, started);
        ready.with_context(|| {
            let output = fs::read_to_string(&log).unwrap_or_default();
            let tail: Vec<&str> = output.lines().rev().take(12).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            format!("{} did not start; its last words:\n{}", peer.title(), tail.join("\n"))
        })?;
        broker.ready_after = started.elapsed();
        // Helpers are part of the tree that is ended, but not of what is measured.
        let main = broker.children.last().map(Child::id);
        broker.tree = Tree::of(main.as_slice());
        Ok(broker)
    }

    fn wait_until_ready(&mut self, ports_known: bool, started: Instant) -> Result<()> {
        if !ports_known {
            let line = self.first_line()?;
            self.ports = parse_ports(&line)?;
        }
        let target = self.target();
        loop {
            let Err(error) = greet(&target) else { return Ok(()) };
            let main = self.children.last_mut().context("no process")?;
            if let Some(status) = main.try_wait()? {
                bail!("it ended with {status}");
            }
            if started.elapsed() > START_TIMEOUT {
                return Err(error.context("it accepts no client"));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for the first line on the standard output and lets the rest run into the void.
    fn first_line(&mut self) -> Result<String> {
        let output = self.children.last_mut().and_then(|child| child.stdout.take());
        let output = output.context("the standard output is not piped")?;
        let (line_out, line_in) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Nobody listens after the first line.
                let _ = line_out.send(line);
            }
        });
        line_in.recv_timeout(START_TIMEOUT).context("it printed no ports")
    }

    /// Where clients connect.
    pub fn target(&self) -> Target {
        let Ports { amqp, mqtt, stomp, http, xmpp } = self.ports;
        let mqtt_login = self.mqtt_login.clone();
        let (stomp_queues, login) = (self.stomp_queues, amqp::Login::default());
        Target { amqp, mqtt, stomp, http, xmpp, stomp_queues, login, mqtt_login }
    }

    /// The processes to measure.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Takes the CPU away while another broker is measured.
    pub fn pause(&self) {
        self.tree.pause();
    }

    /// Gives the CPU back and waits until a client is served again.
    pub fn resume(&self) -> Result<()> {
        self.tree.resume();
        greet(&self.target())
    }

    /// Asks the broker to stop in an orderly way and waits for it.
    pub fn stop(mut self) -> Result<()> {
        let main = self.children.last_mut().context("no process")?;
        terminate(main.id());
        let asked = Instant::now();
        while main.try_wait()?.is_none() {
            if asked.elapsed() > STOP_TIMEOUT {
                bail!("the broker did not stop within {STOP_TIMEOUT:?}");
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let roots: Vec<u32> = self.children.iter().map(Child::id).collect();
        // A child that was waited for has given its process id back; it must not be signalled.
        let alive = |child: &mut Child| matches!(child.try_wait(), Ok(None));
        let pids: Vec<u32> =
            self.children.iter_mut().filter_map(|child| alive(child).then(|| child.id())).collect();
        Tree::of(&pids).kill();
        for child in &mut self.children {
            let _ = child.wait();
        }
        care().retain(|(pid, _)| !roots.contains(pid));
    }
}

fn spawn(mut command: Command, dir: &Path) -> Result<Child> {
    let child = command.spawn().with_context(|| format!("starting {:?}", command.get_program()))?;
    care().push((child.id(), dir.to_owned()));
    Ok(child)
}

fn quiet(command: &mut Command, log: &Path) -> Result<()> {
    let file = File::options().create(true).append(true).open(log)?;
    command.stdin(Stdio::null()).stderr(file.try_clone()?).stdout(file);
    Ok(())
}

/// Puts `taskset` in front of a command; the process id stays the broker's own.
fn pinned(command: Command, cpus: Option<&str>) -> Command {
    let Some(cpus) = cpus else { return command };
    let mut outer = Command::new("taskset");
    outer.args(["-c", cpus]).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            outer.env(key, value);
        }
    }
    outer
}

/// Opens and closes one connection per protocol.
fn greet(target: &Target) -> Result<()> {
    if let Some(addr) = target.amqp {
        amqp::Connection::open(addr, &target.login)?.close()?;
    }
    if let Some(addr) = target.stomp {
        stomp::Connection::open(addr, &target.login)?;
    }
    if let Some(addr) = target.mqtt {
        mqtt::Connection::open(addr, Version::V4, "greeter", target.mqtt_login())?;
    }
    Ok(())
}
