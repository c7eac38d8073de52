//! The brokers that can be compared: where they are found, what they speak, how they are started.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::link::Proto;

/// A broker to put under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
#[value(rename_all = "lower")]
pub enum Peer {
    /// This project.
    PolyMq,
    /// RabbitMQ with its plugins for MQTT and STOMP.
    RabbitMq,
    /// ActiveMQ Classic, as far as it speaks STOMP.
    ActiveMq,
    /// Eclipse Mosquitto.
    Mosquitto,
    /// LavinMQ.
    LavinMq,
    /// EMQX.
    Emqx,
    /// NATS with JetStream and MQTT.
    Nats,
    /// rumqttd.
    Rumqttd,
    /// Our relay of bytes: what the sockets and the generator cost without any broker.
    Relay,
}

/// How to start a broker once.
pub struct Launch {
    /// Processes that must run first, such as a name server.
    pub helpers: Vec<Command>,
    /// The broker itself.
    pub main: Command,
    /// Where it will listen; nothing when it chooses and prints its ports.
    pub ports: Option<Ports>,
}

/// Addresses of a broker's listeners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// AMQP 0-9-1.
    pub amqp: Option<SocketAddr>,
    /// MQTT.
    pub mqtt: Option<SocketAddr>,
    /// STOMP.
    pub stomp: Option<SocketAddr>,
    /// HTTP with messages and WebSocket.
    pub http: Option<SocketAddr>,
    /// XMPP.
    pub xmpp: Option<SocketAddr>,
}

impl Peer {
    /// The name in the report.
    pub fn title(self) -> &'static str {
        match self {
            Self::PolyMq => "PolyMQ",
            Self::RabbitMq => "RabbitMQ",
            Self::ActiveMq => "ActiveMQ",
            Self::Mosquitto => "Mosquitto",
            Self::LavinMq => "LavinMQ",
            Self::Emqx => "EMQX",
            Self::Nats => "NATS",
            Self::Rumqttd => "rumqttd",
            Self::Relay => "relay",
        }
    }

    /// Whether this broker speaks a protocol.
    pub fn speaks(self, proto: Proto) -> bool {
        match self {
            Self::PolyMq => true,
            Self::RabbitMq => !matches!(proto, Proto::Http | Proto::WebMqtt | Proto::Xmpp),
            Self::ActiveMq => proto == Proto::Stomp,
            Self::LavinMq => matches!(proto, Proto::Amqp | Proto::Mqtt(_)),
            Self::Mosquitto | Self::Emqx | Self::Nats | Self::Rumqttd | Self::Relay => {
                matches!(proto, Proto::Mqtt(_))
            }
        }
    }

    /// Whether MQTT topics meet AMQP routing keys on `amq.topic`.
    pub fn bridges(self) -> bool {
        matches!(self, Self::PolyMq | Self::RabbitMq)
    }

    /// Whether an MQTT 5 client is welcome.
    pub fn speaks_mqtt5(self) -> bool {
        matches!(self, Self::PolyMq | Self::Mosquitto | Self::Emqx)
    }

    /// How destinations of STOMP begin that are queues which are there.
    pub fn stomp_queues(self) -> &'static str {
        if self == Self::ActiveMq { "/queue/" } else { STOMP_QUEUES }
    }

    /// Whether MQTT clients need no user.
    pub fn welcomes_anonymous(self) -> bool {
        self != Self::LavinMq
    }

    /// Finds the executable, or nothing when the broker is not installed.
    pub fn find(self, polymq: &Path) -> Option<PathBuf> {
        match self {
            Self::PolyMq => polymq.is_file().then(|| polymq.to_owned()),
            Self::RabbitMq => {
                let packaged = PathBuf::from("/usr/lib/rabbitmq/bin/rabbitmq-server");
                if packaged.exists() { Some(packaged) } else { on_path("rabbitmq-server") }
            }
            Self::ActiveMq => {
                let is_there = Path::new(ACTIVEMQ_JARS).join("activemq-stomp.jar").exists();
                on_path("java").filter(|_| is_there)
            }
            Self::Mosquitto => on_path("mosquitto"),
            Self::LavinMq => on_path("lavinmq"),
            Self::Emqx => on_path("emqx"),
            Self::Nats => on_path("nats-server"),
            Self::Rumqttd => on_path("rumqttd"),
            Self::Relay => std::env::current_exe().ok(),
        }
    }

    /// Writes what the broker needs below `dir` and says how to start it.
    ///
    /// Starting twice with the same `dir` keeps the broker's data.
    pub fn launch(self, program: &Path, dir: &Path) -> Result<Launch> {
        fs::create_dir_all(dir)?;
        match self {
            Self::PolyMq => Ok(polymq(program, dir)),
            Self::RabbitMq => rabbitmq(program, dir),
            Self::ActiveMq => activemq(program, dir),
            Self::Mosquitto => mosquitto(program, dir),
            Self::LavinMq => lavinmq(program, dir),
            Self::Emqx => emqx(program, dir),
            Self::Nats => nats(program, dir),
            Self::Rumqttd => rumqttd(program, dir),
            Self::Relay => relay(program),
        }
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Asks the kernel for a free port; nobody else is expected to take it in the next moment.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn local(port: u16) -> Option<SocketAddr> {
    Some(SocketAddr::from(([127, 0, 0, 1], port)))
}

fn write(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let file = dir.join(name);
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}

fn polymq(program: &Path, dir: &Path) -> Launch {
    let mut main = Command::new(program);
    main.args(["server", "--dev", "--data-dir"]).arg(dir.join("data"));
    main.args(["--port", "0", "--print-ports"]);
    Launch { helpers: Vec::new(), main, ports: None }
}

/// Reads the line of JSON in which PolyMQ announces its ports.
pub fn parse_ports(line: &str) -> Result<Ports> {
    #[derive(serde::Deserialize)]
    struct Printed {
        amqp: u16,
        mqtt: u16,
        stomp: u16,
        http: u16,
        xmpp: Option<u16>,
    }
    let printed: Printed =
        serde_json::from_str(line).with_context(|| format!("no ports in `{line}`"))?;
    let Printed { amqp, mqtt, stomp, http, xmpp } = printed;
    let (stomp, http, xmpp) = (local(stomp), local(http), xmpp.and_then(local));
    Ok(Ports { amqp: local(amqp), mqtt: local(mqtt), stomp, http, xmpp })
}

fn rabbitmq(program: &Path, dir: &Path) -> Result<Launch> {
    let (amqp, mqtt, stomp) = (free_port()?, free_port()?, free_port()?);
    let (dist, epmd) = (free_port()?, free_port()?);
    let config = write(
        dir,
        "rabbitmq.conf",
        &format!(
            "listeners.tcp.1 = 127.0.0.1:{amqp}\nmqtt.listeners.tcp.1 = 127.0.0.1:{mqtt}\n\
             stomp.listeners.tcp.1 = 127.0.0.1:{stomp}\nmqtt.allow_anonymous = true\n\
             log.file.level = warning\n"
        ),
    )?;
    let plugins = write(dir, "enabled_plugins", "[rabbitmq_mqtt,rabbitmq_stomp].\n")?;
    let environment = write(dir, "environment.conf", "")?;
    let mut names = Command::new("epmd");
    names.args(["-address", "127.0.0.1", "-port", &epmd.to_string()]);
    let mut main = Command::new(program);
    // The script replaces itself by the server only when it believes a supervisor started it;
    // otherwise it stays as a parent that tries to stop the server through the command line tool.
    main.env("RUNNING_UNDER_SYSTEMD", "true")
        .env("RABBITMQ_NODENAME", "polymq-bench@localhost")
        .env("RABBITMQ_DIST_PORT", dist.to_string())
        .env("RABBITMQ_MNESIA_BASE", dir.join("mnesia"))
        .env("RABBITMQ_LOG_BASE", dir.join("log"))
        .env("RABBITMQ_PID_FILE", dir.join("pid"))
        .env("RABBITMQ_CONFIG_FILE", config)
        .env("RABBITMQ_CONF_ENV_FILE", environment)
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", plugins)
        .env("RABBITMQ_GENERATED_CONFIG_DIR", dir.join("config"))
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}")
        .env("HOME", dir)
        .env("ERL_EPMD_PORT", epmd.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1");
    let (amqp, mqtt, stomp) = (local(amqp), local(mqtt), local(stomp));
    let ports = Some(Ports { amqp, mqtt, stomp, http: None, xmpp: None });
    Ok(Launch { helpers: vec![names], main, ports })
}

/// How destinations of STOMP begin, in RabbitMQ and here, that are queues which are there.
pub const STOMP_QUEUES: &str = "/amq/queue/";

/// Where Debian puts them.
const ACTIVEMQ_JARS: &str = "/usr/share/activemq/lib";

fn activemq(java: &Path, dir: &Path) -> Result<Launch> {
    let port = free_port()?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("activemq/ActiveMqStomp.java");
    let mut main = Command::new(java);
    main.arg("-cp").arg(format!("{ACTIVEMQ_JARS}/*")).arg(source);
    main.arg(dir.join("data")).arg(port.to_string());
    let ports = Some(Ports { stomp: local(port), ..Ports::default() });
    Ok(Launch { helpers: Vec::new(), main, ports })
}

fn mosquitto(program: &Path, dir: &Path) -> Result<Launch> {
    let port = free_port()?;
    let config = write(
        dir,
        "mosquitto.conf",
        &format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n\
             persistence false\nlog_dest none\n"
        ),
    )?;
    let mut main = Command::new(program);
    main.arg("-c").arg(config);
    mqtt_only(main, port)
}

fn mqtt_only(main: Command, port: u16) -> Result<Launch> {
    let ports = Some(Ports { mqtt: local(port), ..Ports::default() });
    Ok(Launch { helpers: Vec::new(), main, ports })
}

fn lavinmq(program: &Path, dir: &Path) -> Result<Launch> {
    let (amqp, mqtt, http, metrics) = (free_port()?, free_port()?, free_port()?, free_port()?);
    let mut main = Command::new(program);
    main.arg(format!("--data-dir={}", dir.join("data").display()));
    main.arg("--bind=127.0.0.1");
    main.arg(format!("--amqp-port={amqp}")).arg(format!("--mqtt-port={mqtt}"));
    main.arg(format!("--http-port={http}")).arg(format!("--metrics-http-port={metrics}"));
    let ports = Some(Ports { amqp: local(amqp), mqtt: local(mqtt), ..Ports::default() });
    Ok(Launch { helpers: Vec::new(), main, ports })
}

fn emqx(program: &Path, dir: &Path) -> Result<Launch> {
    let port = free_port()?;
    let mut main = Command::new(program);
    main.arg("foreground")
        .env("EMQX_NODE__NAME", "polymq-bench@127.0.0.1")
        .env("EMQX_NODE__DATA_DIR", dir)
        .env("EMQX_LISTENERS__TCP__DEFAULT__BIND", format!("127.0.0.1:{port}"))
        .env("EMQX_LISTENERS__SSL__DEFAULT__ENABLE", "false")
        .env("EMQX_LISTENERS__WS__DEFAULT__ENABLE", "false")
        .env("EMQX_LISTENERS__WSS__DEFAULT__ENABLE", "false")
        .env("EMQX_DASHBOARD__LISTENERS__HTTP__BIND", format!("127.0.0.1:{}", free_port()?));
    mqtt_only(main, port)
}

fn nats(program: &Path, dir: &Path) -> Result<Launch> {
    let (port, client) = (free_port()?, free_port()?);
    let config = write(
        dir,
        "nats.conf",
        &format!(
            "server_name: polymq-bench\nlisten: \"127.0.0.1:{client}\"\n\
             jetstream {{ store_dir: {:?} }}\nmqtt {{ listen: \"127.0.0.1:{port}\" }}\n",
            dir.join("data")
        ),
    )?;
    let mut main = Command::new(program);
    main.arg("-c").arg(config);
    mqtt_only(main, port)
}

fn rumqttd(program: &Path, dir: &Path) -> Result<Launch> {
    let port = free_port()?;
    let config = write(
        dir,
        "rumqttd.toml",
        &format!(
            "id = 0\n[router]\nid = 0\nmax_connections = 10010\nmax_outgoing_packet_count = 200\n\
             max_segment_size = 104857600\nmax_segment_count = 10\n[v4.1]\nname = \"v4-1\"\n\
             listen = \"127.0.0.1:{port}\"\nnext_connection_delay_ms = 1\n\
             [v4.1.connections]\nconnection_timeout_ms = 60000\nmax_payload_size = 20480\n\
             max_inflight_count = 100\ndynamic_filters = true\n"
        ),
    )?;
    let mut main = Command::new(program);
    main.arg("-q").arg("-c").arg(config);
    mqtt_only(main, port)
}

fn relay(program: &Path) -> Result<Launch> {
    let port = free_port()?;
    let mut main = Command::new(program);
    main.args(["relay", "--port", &port.to_string()]);
    mqtt_only(main, port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_ports_are_read_and_others_ignored() {
        let ports = parse_ports(r#"{"amqp":40001,"mqtt":40002,"http":40003,"stomp":40004}"#);
        let (amqp, mqtt, stomp) = (local(40001), local(40002), local(40004));
        assert_eq!(ports.unwrap(), Ports { amqp, mqtt, stomp, http: local(40003), xmpp: None });
        assert!(parse_ports("ready").is_err());
    }

    #[test]
    fn mosquitto_gets_its_configuration_below_the_given_directory() {
        let dir = tempfile::tempdir().unwrap();
        let launch = Peer::Mosquitto.launch(Path::new("mosquitto"), dir.path()).unwrap();
        let port = launch.ports.unwrap().mqtt.unwrap().port();
        let config = fs::read_to_string(dir.path().join("mosquitto.conf")).unwrap();
        assert!(config.contains(&format!("listener {port} 127.0.0.1")));
    }
}
