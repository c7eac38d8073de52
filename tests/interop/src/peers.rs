//! How each broker is started: PolyMQ, and the two whose behaviour the scripts are checked against.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    Speaks,
    broker::{Ports, await_port, first_json_line, free_port, spawn_logged},
    target_dir,
};

const RABBITMQ: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// The broker under test, chosen by `INTEROP_PEER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Ours: `POLYMQ_BIN`, else the release build in the target directory.
    Polymq,
    /// Debian's `rabbitmq-server`, with its plugins for MQTT and STOMP.
    Rabbitmq,
    /// Debian's `mosquitto`.
    Mosquitto,
}

impl Peer {
    pub(crate) fn chosen() -> Result<Self> {
        match env::var("INTEROP_PEER").as_deref() {
            Err(_) | Ok("" | "polymq") => Ok(Self::Polymq),
            Ok("rabbitmq") => Ok(Self::Rabbitmq),
            Ok("mosquitto") => Ok(Self::Mosquitto),
            Ok(other) => bail!("INTEROP_PEER is `{other}`; use polymq, rabbitmq or mosquitto"),
        }
    }

    /// The word scripts know this peer by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Polymq => "polymq",
            Self::Rabbitmq => "rabbitmq",
            Self::Mosquitto => "mosquitto",
        }
    }

    /// The program that must be installed, for the peers that are not ours.
    #[must_use]
    pub fn program(self) -> Option<&'static str> {
        match self {
            Self::Polymq => None,
            Self::Rabbitmq => Some(RABBITMQ),
            Self::Mosquitto => Some("/usr/sbin/mosquitto"),
        }
    }

    pub(crate) fn can_speak(self, speaks: Speaks) -> bool {
        match self {
            Self::Polymq => true,
            // Its MQTT of this version has neither QoS 2 nor MQTT 5; Mosquitto is the oracle.
            Self::Rabbitmq => {
                !matches!(speaks, Speaks::Mqtt | Speaks::All | Speaks::Xmpp | Speaks::Http)
            }
            Self::Mosquitto => speaks == Speaks::Mqtt,
        }
    }

    pub(crate) fn launch(self, dir: &Path, settings: &[String]) -> Result<(Vec<Child>, Ports)> {
        match self {
            Self::Polymq => launch_polymq(dir, settings),
            Self::Rabbitmq => launch_rabbitmq(dir),
            Self::Mosquitto => launch_mosquitto(dir),
        }
    }
}

/// The broker's program.
pub(crate) fn program() -> PathBuf {
    env::var_os("POLYMQ_BIN").map_or_else(|| target_dir().join("release/polymq"), PathBuf::from)
}

fn launch_polymq(dir: &Path, settings: &[String]) -> Result<(Vec<Child>, Ports)> {
    let program = program();
    let mut command = Command::new(&program);
    command.args(["server", "--dev", "--port", "0", "--print-ports", "--data-dir"]);
    command.arg(dir.join("data"));
    let (certificate, key) = certificate(dir)?;
    for (setting, value) in [
        ("listeners.xmpp.starttls", "interop"),
        ("tls.interop.cert_file", &certificate),
        ("tls.interop.key_file", &key),
        ("logging.level", "info,polymq_xmpp=debug"),
    ] {
        command.arg("--set").arg(format!("{setting}={value}"));
    }
    for setting in settings {
        command.arg("--set").arg(setting);
    }
    // A second user beside `guest`.
    command.env("POLYMQ_ADMIN_USER", "admin").env("POLYMQ_ADMIN_PASSWORD", "admin");
    let mut child = spawn_logged(&mut command, dir, Stdio::piped())
        .context("build it with `cargo build --release -p polymq-server`")?;
    let ports = ready_ports(&mut child);
    if ports.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    Ok((vec![child], ports?))
}

/// The file with the certificate, in the broker's folder.
pub(crate) const CERTIFICATE: &str = "certificate.pem";

/// A certificate for `localhost` that signs itself, and its key; the same after a restart.
fn certificate(dir: &Path) -> Result<(String, String)> {
    let (certificate, key) = (dir.join(CERTIFICATE), dir.join("key.pem"));
    if !certificate.exists() {
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names)?;
        fs::write(&certificate, made.cert.pem())?;
        fs::write(&key, made.signing_key.serialize_pem())?;
    }
    Ok((certificate.display().to_string(), key.display().to_string()))
}

fn ready_ports(child: &mut Child) -> Result<Ports> {
    let line = first_json_line(child, Duration::from_secs(60))?;
    let port = |name: &str| {
        line.get(name)
            .and_then(serde_json::Value::as_u64)
            .and_then(|port| u16::try_from(port).ok())
            .with_context(|| format!("no `{name}` in {line}"))
    };
    Ok(Ports {
        amqp: port("amqp")?,
        mqtt: port("mqtt")?,
        stomp: port("stomp")?,
        xmpp: port("xmpp")?,
        http: port("http")?,
        metrics: port("metrics")?,
    })
}

/// A node with its own name, port mapper, cookie and database, so nothing of the machine's is used.
fn launch_rabbitmq(dir: &Path) -> Result<(Vec<Child>, Ports)> {
    let (amqp, mqtt, stomp) = (free_port()?, free_port()?, free_port()?);
    let ports = Ports { amqp, mqtt, stomp, ..Ports::default() };
    let (mapper, distribution) = (free_port()?, free_port()?);
    let home = dir.join("home");
    fs::create_dir_all(&home)?;
    fs::write(dir.join("enabled_plugins"), "[rabbitmq_mqtt,rabbitmq_stomp].\n")?;
    fs::write(
        dir.join("rabbitmq.conf"),
        format!(
            "listeners.tcp.1 = 127.0.0.1:{}\nmqtt.listeners.tcp.1 = 127.0.0.1:{}\n\
             stomp.listeners.tcp.1 = 127.0.0.1:{}\nmqtt.allow_anonymous = true\n\
             log.console = true\nlog.console.level = info\n",
            ports.amqp, ports.mqtt, ports.stomp
        ),
    )?;
    let mut epmd = Command::new("epmd");
    epmd.args(["-address", "127.0.0.1", "-port"]).arg(mapper.to_string());
    let epmd = spawn_logged(&mut epmd, dir, Stdio::null())?;

    let mut command = Command::new(RABBITMQ);
    command
        .env("HOME", &home)
        .env("ERL_EPMD_PORT", mapper.to_string())
        // The node's name is part of its data's path, so it must outlive a restart.
        .env("RABBITMQ_NODENAME", "interop@localhost")
        .env("RABBITMQ_DIST_PORT", distribution.to_string())
        .env("RABBITMQ_MNESIA_BASE", dir.join("mnesia"))
        .env("RABBITMQ_LOG_BASE", dir.join("log"))
        .env("RABBITMQ_LOGS", "-")
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("enabled_plugins"))
        .env("RABBITMQ_CONFIG_FILE", dir.join("rabbitmq"))
        .env("RABBITMQ_PID_FILE", dir.join("pid"))
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null");
    let log = fs::File::create(dir.join("rabbitmq.out"))?;
    let mut children = vec![epmd];
    children.push(spawn_logged(&mut command, dir, log.into())?);
    for port in [ports.amqp, ports.mqtt, ports.stomp] {
        if let Some(node) = children.last_mut() {
            await_port(port, node, Duration::from_secs(60))?;
        }
    }
    Ok((children, ports))
}

fn launch_mosquitto(dir: &Path) -> Result<(Vec<Child>, Ports)> {
    let ports = Ports { mqtt: free_port()?, ..Ports::default() };
    let passwords = dir.join("passwords");
    if !passwords.exists() {
        fs::write(&passwords, "guest:guest\n")?;
        let hashed = Command::new("mosquitto_passwd").arg("-U").arg(&passwords).status()?;
        if !hashed.success() {
            bail!("mosquitto_passwd ended with {hashed}");
        }
    }
    // It runs as root here; without `user root` it would drop to a user who cannot read the folder.
    let config = format!(
        "user root\nlistener {} 127.0.0.1\nallow_anonymous true\npassword_file {}\n\
         persistence true\npersistence_location {}/\nautosave_on_changes true\n\
         autosave_interval 1\nmax_queued_messages 10000\nset_tcp_nodelay true\n",
        ports.mqtt,
        passwords.display(),
        dir.display()
    );
    fs::write(dir.join("mosquitto.conf"), config)?;
    let mut command = Command::new("/usr/sbin/mosquitto");
    command.arg("-c").arg(dir.join("mosquitto.conf"));
    let mut child = spawn_logged(&mut command, dir, Stdio::null())?;
    await_port(ports.mqtt, &mut child, Duration::from_secs(60))?;
    Ok((vec![child], ports))
}
