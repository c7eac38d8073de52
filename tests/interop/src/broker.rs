//! The life of one broker process under test.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

use crate::{Peer, Relay, last_lines, peers::CERTIFICATE, prosody::Prosody};

/// What a test wants to talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// AMQP 0-9-1.
    Amqp,
    /// MQTT 3.1, 3.1.1 and 5.
    Mqtt,
    /// STOMP 1.0, 1.1 and 1.2.
    Stomp,
    /// AMQP and MQTT, over one set of queues and topics.
    Both,
    /// All of them, over one set of queues and topics.
    All,
    /// XMPP, with the others beside it.
    Xmpp,
    /// HTTP, with the others beside it.
    Http,
}

/// Ports of one run of the broker; 0 for a protocol it does not speak.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ports {
    pub(crate) amqp: u16,
    pub(crate) mqtt: u16,
    pub(crate) stomp: u16,
    pub(crate) xmpp: u16,
    pub(crate) http: u16,
    pub(crate) metrics: u16,
}

/// One started broker, its data and its addresses. Dropping it ends the process.
pub struct Broker {
    peer: Peer,
    amqp: Relay,
    mqtt: Relay,
    stomp: Relay,
    xmpp: Relay,
    http: Relay,
    /// The port of metrics itself, as nobody is cut off there.
    metrics: u16,
    processes: Vec<Child>,
    dir: TempDir,
    /// Settings of ours beside the usual ones.
    settings: Vec<String>,
    /// What runs beside it and ends with it.
    prosody: Option<Prosody>,
}

impl Broker {
    /// Starts the peer chosen by `INTEROP_PEER`; none when it cannot speak what is asked.
    ///
    /// Errors: when the program is missing, ends early or is not ready in time.
    pub fn start(speaks: Speaks) -> Result<Option<Self>> {
        let peer = Peer::chosen()?;
        if !peer.can_speak(speaks) {
            return Ok(None);
        }
        Self::start_peer(peer).map(Some)
    }

    /// Starts this peer.
    ///
    /// Errors: as [`Broker::start`].
    pub fn start_peer(peer: Peer) -> Result<Self> {
        let mut broker = Self {
            peer,
            amqp: Relay::open()?,
            mqtt: Relay::open()?,
            stomp: Relay::open()?,
            xmpp: Relay::open()?,
            http: Relay::open()?,
            metrics: 0,
            processes: Vec::new(),
            dir: tempfile::tempdir()?,
            settings: Vec::new(),
            prosody: None,
        };
        broker.launch()?;
        Ok(broker)
    }

    /// Starts PolyMQ as a component of a Prosody.
    ///
    /// Errors: as [`Broker::start`], for both.
    pub fn start_beside_prosody() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let prosody = Prosody::start(dir.path())?;
        let mut broker = Self {
            peer: Peer::Polymq,
            amqp: Relay::open()?,
            mqtt: Relay::open()?,
            stomp: Relay::open()?,
            xmpp: Relay::open()?,
            http: Relay::open()?,
            metrics: 0,
            processes: Vec::new(),
            settings: prosody.settings(dir.path()),
            prosody: Some(prosody),
            dir,
        };
        broker.launch()?;
        Ok(broker)
    }

    /// Port of the Prosody beside it, for clients.
    #[must_use]
    pub fn prosody_port(&self) -> Option<u16> {
        self.prosody.as_ref().map(|prosody| prosody.client_port)
    }

    /// Which program this is.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Loopback port for HTTP clients, the same for the whole test.
    #[must_use]
    pub fn http_port(&self) -> u16 {
        self.http.port()
    }

    /// Loopback port of metrics, another after a restart.
    #[must_use]
    pub fn metrics_port(&self) -> u16 {
        self.metrics
    }

    /// Loopback port for AMQP clients, the same for the whole test.
    #[must_use]
    pub fn amqp_port(&self) -> u16 {
        self.amqp.port()
    }

    /// Loopback port for MQTT clients, the same for the whole test.
    #[must_use]
    pub fn mqtt_port(&self) -> u16 {
        self.mqtt.port()
    }

    /// Loopback port for STOMP clients, the same for the whole test.
    #[must_use]
    pub fn stomp_port(&self) -> u16 {
        self.stomp.port()
    }

    /// Loopback port for XMPP clients, the same for the whole test.
    #[must_use]
    pub fn xmpp_port(&self) -> u16 {
        self.xmpp.port()
    }

    /// The certificate of the broker, which signs itself.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join(CERTIFICATE)
    }

    /// Folder of everything that belongs to this broker.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Address of the default virtual host for the user `guest`.
    #[must_use]
    pub fn amqp_url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.amqp_port())
    }

    /// Ends all connections at once and leaves the broker running.
    pub fn cut_connections(&self) {
        self.amqp.cut();
        self.mqtt.cut();
        self.stomp.cut();
        self.xmpp.cut();
        self.http.cut();
    }

    /// SIGKILL, then a start on the same data.
    ///
    /// Only ours promises to survive this: Mosquitto saves after it has answered, and RabbitMQ
    /// may forget a queue declared just before. The peers are therefore asked to stop.
    ///
    /// Errors: as [`Broker::start`].
    pub fn kill_and_restart(&mut self) -> Result<()> {
        self.end(if self.peer == Peer::Polymq { Signal::KILL } else { Signal::TERM })?;
        self.launch()
    }

    /// SIGTERM, wait for the clean end, then a start on the same data.
    ///
    /// Errors: as [`Broker::start`], and when the broker does not stop in time.
    pub fn stop_and_restart(&mut self) -> Result<()> {
        self.end(Signal::TERM)?;
        self.launch()
    }

    /// The end of what the broker logged, for a failed test.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = fs::read(self.dir.path().join("broker.log")).unwrap_or_default();
        last_lines(&String::from_utf8_lossy(&log), 60)
    }

    fn launch(&mut self) -> Result<()> {
        let started = self.peer.launch(self.dir.path(), &self.settings);
        let (processes, ports) = started.with_context(|| {
            format!("{:?} did not start; its log ends:\n{}", self.peer, self.log_tail())
        })?;
        self.processes = processes;
        self.amqp.lead_to(ports.amqp);
        self.mqtt.lead_to(ports.mqtt);
        self.stomp.lead_to(ports.stomp);
        self.xmpp.lead_to(ports.xmpp);
        self.http.lead_to(ports.http);
        self.metrics = ports.metrics;
        Ok(())
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        self.amqp.lead_to(0);
        self.mqtt.lead_to(0);
        self.stomp.lead_to(0);
        self.xmpp.lead_to(0);
        self.http.lead_to(0);
        let result = end_processes(&mut self.processes, signal);
        self.processes.clear();
        // A dead broker's connections are gone; the relay must not keep half of them open.
        self.cut_connections();
        result
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.end(Signal::KILL);
    }
}

/// The broker is the last process; those before it are its helpers and end after it.
fn end_processes(processes: &mut [Child], signal: Signal) -> Result<()> {
    let mut result = Ok(());
    for child in processes.iter_mut().rev() {
        let pid = pid_of(child);
        if signal == Signal::TERM {
            let _ = kill_process(pid, Signal::TERM);
            if wait_at_most(child, Duration::from_secs(30)).is_none() {
                result = Err(anyhow::anyhow!("process {pid:?} did not stop on SIGTERM"));
            }
        }
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = child.wait();
    }
    result
}

/// Waits by polling, since the standard library has no wait with a time limit.
pub(crate) fn wait_at_most(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(10));
    }
    None
}

pub(crate) fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Starts `command` as a process group of its own, with its talk in `broker.log`.
pub(crate) fn spawn_logged(command: &mut Command, dir: &Path, stdout: Stdio) -> Result<Child> {
    use std::os::unix::process::CommandExt;
    let log = fs::OpenOptions::new().create(true).append(true).open(dir.join("broker.log"))?;
    command
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(log)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {:?}", command.get_program()))
}

/// Reads lines of a child until one is a JSON object, and drains the rest in the background.
pub(crate) fn first_json_line(child: &mut Child, limit: Duration) -> Result<serde_json::Value> {
    let stdout = child.stdout.take().context("the child has no stdout pipe")?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Ok(value @ serde_json::Value::Object(_)) = serde_json::from_str(&line) {
                let _ = sender.send(value);
            }
        }
    });
    receiver.recv_timeout(limit).context("no line with the ports")
}

/// A port nobody listens on at this moment, for peers that cannot choose one themselves.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Waits until the port accepts, or the process that should open it has ended.
pub(crate) fn await_port(port: u16, child: &mut Child, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if let Some(status) = child.try_wait()? {
            bail!("ended with {status} before it was ready");
        }
        if Instant::now() > deadline {
            bail!("port {port} did not open within {limit:?}");
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
