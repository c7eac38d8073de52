//! Every section of the configuration with its keys, their defaults and what they mean.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use polymq_store::Durability;

use super::{
    key::{Configured, Section, section},
    value::{
        Backend, Bind, ByteCount, CertificateUser, ClientAuth, ConsumerTimeout, Kept,
        ListenerProtocol, LogFormat, Mechanism, MemoryMark, OnDamage, PlainWithoutTls, Setting,
        Url, WebSocketProtocol,
    },
};

section! {
    /// The process.
    Server at "server" {
        /// Shown in metrics and told to clients.
        name: String = "polymq",
        /// Where everything that must survive is kept.
        data_dir: PathBuf = "./data",
        /// For every listener that names only a port.
        default_address: IpAddr = "127.0.0.1",
        /// Virtual host of clients that name none.
        default_vhost: String = "/",
        /// After SIGTERM: how long clients may take to finish.
        drain_timeout: Duration = "30s",
        /// Version told to AMQP clients: some switch on by it what RabbitMQ of that version has.
        amqp_version: String = "4.1.0",
    }
}

section! {
    /// What keeps the data.
    Storage at "storage" {
        /// "file": a log in the data directory. "postgres", "sqlite": a database. "memory":
        /// nothing survives the process.
        backend: Backend = "file",
        /// What the confirm of a persistent message means, in queues without `x-durability`.
        /// "sync": it is on the disk. "interval": it survives a crash of the broker, and the disk
        /// has it within `interval`. "os": the disk has it when the system likes.
        durability: Kept = "sync",
        /// The most that a power loss costs with durability "interval".
        interval: Duration = "50ms",
    }
}

impl Storage {
    /// What the confirm of a persistent message means.
    pub(crate) fn durability(&self) -> Durability {
        match self.durability {
            Kept::Sync => Durability::Sync,
            Kept::Os => Durability::Os,
            Kept::Interval => {
                let ms = u32::try_from(self.interval.as_millis()).unwrap_or(u32::MAX);
                Durability::SyncInterval { ms: ms.max(1) }
            }
        }
    }
}

section! {
    /// The log of backend "file".
    StorageFile at "storage.file" {
        /// Folder of the log, below the data directory unless it is absolute.
        path: PathBuf = "store",
        /// Size of its files. Smaller ones take less room at least, larger ones are flushed and
        /// merged less often.
        segment_size: ByteCount = "64MiB",
        /// Messages that are damaged on the disk are logged, counted and copied to the folder
        /// "quarantine" of the log. "stop": their queue is served up to them and waits for
        /// `polymq storage repair`. "skip": it goes on behind them, and they are gone. "refuse":
        /// everything is read before the start, and the broker does not start with damage.
        on_damage: OnDamage = "stop",
        /// How long it takes to read everything once, to find damage before a consumer does; "0s"
        /// for never.
        scrub_every: Duration = "7d",
        /// The most that is read a second for that.
        scrub_rate: ByteCount = "8MiB",
    }
}

section! {
    /// The database of backend "postgres"; version 14 or later.
    StoragePostgres at "storage.postgres" {
        /// "postgres://user@host:port/database"; "?host=/folder" at the end takes the socket in
        /// a folder. The database must exist and belong to the user.
        url: Url = "postgres://polymq@localhost/polymq",
        /// Connections: one that writes, the others read.
        pool_size: u16 = "16",
        /// How long another broker waits after the last sign of this one before it takes over.
        lease: Duration = "10s",
    }
}

section! {
    /// Its password, when it is not part of the URL.
    StoragePassword at "storage.postgres.password" {
        /// File that holds it.
        file: PathBuf = "",
        /// Variable of the environment that holds it.
        env: String = "",
    }
}

section! {
    /// The database of backend "sqlite".
    StorageSqlite at "storage.sqlite" {
        /// Its file, below the data directory unless it is absolute.
        path: PathBuf = "polymq.db",
    }
}

section! {
    /// A port that clients connect to. The table's name is its protocol, unless `protocol` says
    /// otherwise. `amqp`, `mqtt`, `stomp`, `xmpp`, `http` and `metrics` exist without being
    /// mentioned; an empty `bind` switches one off.
    Listener at "listeners.*" {
        /// "amqp", "mqtt", "stomp", "xmpp", "http" or "metrics"; or "auto": all but metrics, and
        /// the first bytes of each connection decide.
        protocol: ListenerProtocol = "",
        /// Addresses and ports; ":5672" takes `server.default_address`.
        bind: Vec<Bind> = "",
        /// Name of a table below `tls`; empty for clear text. With "auto" clients may speak TLS or
        /// clear text, and `auth.plain_without_tls` says what the latter may do.
        tls: String = "",
        /// Name of a table below `tls` with which XMPP clients may switch to TLS (STARTTLS).
        starttls: String = "",
        /// Virtual host of clients that name none; empty takes `server.default_vhost`.
        vhost: String = "",
    }
}

section! {
    /// A certificate for listeners, under a name that they refer to.
    Tls at "tls.*" {
        /// PEM file with the certificate and its chain.
        cert_file: PathBuf = "",
        /// PEM file with the private key.
        key_file: PathBuf = "",
        /// PEM file with the authorities that client certificates must come from.
        client_ca_file: PathBuf = "",
        /// "none", "optional" or "required": whether clients show a certificate.
        client_auth: ClientAuth = "none",
        /// Part of a client certificate that names its user: "cn", "dns", "email" or "uri".
        client_user: CertificateUser = "cn",
        /// How long before its end the log, `/health/ready` and `polymq doctor` speak of it.
        expiry_warning: Duration = "30d",
    }
}

section! {
    /// Who may come in.
    Auth at "auth" {
        /// Ways to log in. PLAIN stands for every clear password: SASL PLAIN and AMQPLAIN, and
        /// user name and password of MQTT and STOMP.
        mechanisms: Vec<Mechanism> = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-1,EXTERNAL",
        /// Clear passwords on connections without TLS: "allow", "loopback" or "never".
        plain_without_tls: PlainWithoutTls = "allow",
        /// The user that clients without credentials become; empty refuses them.
        anonymous_user: String = "",
        /// From accepting a connection to the end of its login.
        login_timeout: Duration = "10s",
        /// Failed logins of one user from one address, over all protocols; 0 for no bound.
        login_failures_per_minute: u32 = "20",
        /// Failed logins from one address, whoever is named; beyond it nobody there may try with a
        /// password for the rest of the minute. 0 for no bound.
        login_failures_per_address: u32 = "0",
    }
}

section! {
    /// Tokens of an identity provider (OAuth 2.0, OpenID Connect), as Bearer over HTTP and as
    /// password everywhere else. Their scopes say what they allow, as in RabbitMQ:
    /// "read:vhost/queue", "write:vhost/exchange/routing-key", "configure:*/*", "tag:monitoring".
    AuthOauth at "auth.oauth2" {
        /// The provider's keys (JWKS): a file, or a URL that begins with https; empty for no such
        /// tokens.
        jwks: Url = "",
        /// The provider as its tokens name it (`iss`); empty for any whose key is in `jwks`.
        issuer: String = "",
        /// This broker as tokens name it (`aud`).
        audience: String = "polymq",
        /// What scopes for this broker begin with, such as "polymq."; others are passed over.
        scope_prefix: String = "",
        /// The claim that holds scopes.
        scope_claim: String = "scope",
        /// The claim that names the user.
        user_claim: String = "sub",
        /// How often keys are read again. A token with an unknown key has them read at once.
        refresh: Duration = "1h",
        /// PEM file with the authorities that the URL's certificate must come from.
        ca_file: PathBuf = "/etc/ssl/certs/ca-certificates.crt",
    }
}

section! {
    /// Bounds on what peers may ask for.
    Limits at "limits" {
        /// Largest message body.
        message_size: ByteCount = "16MiB",
        /// Connections in total.
        connections: u32 = "50_000",
        /// Connections from one address, or from one network of 64 bits of IPv6; 0 for no bound.
        connections_per_address: u32 = "0",
        /// New connections a second, beyond which they wait for their turn; 0 for no bound.
        connection_rate: u32 = "0",
        /// New connections a second from one address, beyond which they are closed at once; 0 for
        /// no bound.
        connection_rate_per_address: u32 = "0",
        /// Channels of one AMQP connection.
        channels_per_connection: u16 = "2_047",
        /// Most unsettled deliveries of a consumer.
        prefetch_max: u16 = "65_535",
        /// What a peer may send before it has logged in, half of it in one frame, packet or
        /// stanza; a large MQTT will or a long token needs more.
        login_size: ByteCount = "16KiB",
        /// Publishers wait while the process uses more: a share of what it may use, or a size.
        memory_high: MemoryMark = "60%",
        /// How long a publish may wait for that, or for the disk, before it is refused.
        publish_block_timeout: Duration = "30s",
        /// How long a consumer may take to settle a delivery, where neither it, nor its queue, nor
        /// a policy says; "0s" for no bound. "default" is 30 minutes for queues of type quorum and
        /// no bound for others. The queues of MQTT sessions have none.
        consumer_timeout: ConsumerTimeout = "default",
    }
}

section! {
    /// Publishers wait while the disk of the data directory has less than `low` free, until it
    /// has `resume`.
    DiskFree at "limits.disk_free" {
        /// Below this they wait.
        low: ByteCount = "2GiB",
        /// Above this they go on.
        resume: ByteCount = "3GiB",
    }
}

section! {
    /// How long the store may leave a write unanswered, because its disk is slow or hangs.
    DiskSlow at "limits.disk_slow" {
        /// Longer than this is logged.
        warn: Duration = "1s",
        /// Longer than this makes publishers wait, and `/health/ready` says why.
        degraded: Duration = "30s",
        /// Longer than this closes every connection and ends the process.
        close: Duration = "2m",
    }
}

section! {
    /// AMQP 0-9-1.
    Amqp at "amqp" {
        /// Largest frame offered to clients.
        frame_size: ByteCount = "128KiB",
        /// Heartbeat offered to clients; "0s" for none.
        heartbeat: Duration = "60s",
    }
}

section! {
    /// MQTT 3.1, 3.1.1 and 5.
    Mqtt at "mqtt" {
        /// The exchange behind topics.
        exchange: String = "amq.topic",
        /// How long a shared subscription keeps its messages without any member.
        share_expiry: Duration = "1d",
        /// Longest time the broker keeps a session for a client that is away; "0s" for no bound.
        session_expiry_max: Duration = "0s",
        /// Longest keep-alive a client may ask for; "0s" for no bound.
        keep_alive_max: Duration = "0s",
        /// Unacknowledged messages of quality of service 1 and 2 a client may have on the way.
        receive_max: u16 = "1_024",
        /// Topic aliases a client may use.
        topic_alias_max: u16 = "32",
        /// Subscriptions of one client.
        subscriptions_max: u32 = "10_000",
        /// Messages kept for one client, oldest dropped first; 0 for no bound.
        session_messages_max: u32 = "0",
        /// How long a publish of MQTT 3 that finds no room waits before its connection closes.
        refused_publish_wait: Duration = "30s",
    }
}

section! {
    /// STOMP 1.0, 1.1 and 1.2.
    Stomp at "stomp" {
        /// The exchange behind /topic/.
        exchange: String = "amq.topic",
        /// A header `host` that names no virtual host is refused. Otherwise it is taken for the
        /// name of the machine, as the specification has it, and means the listener's.
        strict_host: bool = "false",
        /// NACK without `requeue` gives a message back; otherwise it rejects it.
        nack_requeues: bool = "true",
        /// Headers of one frame.
        headers_max: u16 = "128",
        /// What they take together.
        header_size: ByteCount = "64KiB",
        /// Transactions a client may have open at once.
        transactions_max: u16 = "100",
        /// Subscriptions of one client.
        subscriptions_max: u32 = "10_000",
    }
}

section! {
    /// XMPP.
    Xmpp at "xmpp" {
        /// The domain of its users: `guest` is guest@localhost. Queues, topics and rooms have the
        /// domains below it that begin with "queues.", "topics." and "rooms.".
        domain: String = "localhost",
        /// Largest stanza; messages larger than this reach no client.
        stanza_size: ByteCount = "1MiB",
        /// How long a client that was lost may take to come back to its stream; "0s" for never.
        resume_timeout: Duration = "5m",
        /// A client is asked whether it is there after this time of silence, and lost after
        /// twice as long; "0s" for never.
        ping_after: Duration = "5m",
    }
}

section! {
    /// Servers of XMPP that this broker joins as an external component (XEP-0114): the local parts
    /// of their domain begin with "q+" for queues, "t+" for topics, "r+" for rooms.
    Component at "components.*" {
        /// Address and port where the server takes components.
        address: String = "127.0.0.1:5347",
        /// The domain that the server gives us.
        domain: String = "",
        /// File with the secret that the server knows.
        secret_file: PathBuf = "",
        /// The user whose permissions those of the server's users are.
        user: String = "",
        /// Virtual host; empty takes `server.default_vhost`.
        vhost: String = "",
    }
}

section! {
    /// The HTTP listeners.
    Http at "http" {
        /// First part of every path, such as "/polymq", when a proxy forwards one.
        path_prefix: String = "",
        /// Origins of web pages of other hosts that may use the API, such as
        /// "https://app.example.com"; "*" for all.
        cors_origins: Vec<String> = "",
        /// What is spoken over WebSocket below "/ws/". A protocol that no listener speaks is not
        /// served there either; "json" is for browsers.
        web_sockets: Vec<WebSocketProtocol> = "amqp,mqtt,stomp,xmpp,json",
        /// A WebSocket client that is silent for so long is sent a ping, and is lost when it stays
        /// silent for as long again.
        web_socket_ping: Duration = "30s",
        /// Connections of all HTTP listeners together.
        connections: u32 = "4_096",
        /// A web page that has logged in by a cookie and is silent for so long must do it again.
        login_idle: Duration = "8h",
    }
}

section! {
    /// What the process tells about itself, on standard error.
    Logging at "logging" {
        /// "error", "warn", "info", "debug" or "trace"; or by module: "info,polymq_mqtt=debug".
        level: String = "info",
        /// "text", "json" or "auto": text on a terminal, otherwise json.
        format: LogFormat = "auto",
        /// What administrators change, one line of JSON each: a file below the data directory, or
        /// an absolute path; empty for none. At 16 MiB it is renamed, with ".1" behind its name.
        audit_file: PathBuf = "audit.jsonl",
    }
}

section! {
    /// Spans for a collector of OpenTelemetry, in a program that is built with the feature `otel`.
    /// They continue traces that publishers have begun (`traceparent`) and sampled.
    Tracing at "tracing" {
        /// Where the collector takes OTLP over HTTP, such as "http://127.0.0.1:4318"; empty for no
        /// spans.
        endpoint: Url = "",
        /// Of so many sampled traces one is kept, all of it.
        one_in: u32 = "1",
    }
}

/// Every section, in the order of the reference file.
pub(crate) static SECTIONS: &[Section] = &[
    Server::SECTION,
    Storage::SECTION,
    StorageFile::SECTION,
    StoragePostgres::SECTION,
    StoragePassword::SECTION,
    StorageSqlite::SECTION,
    Listener::SECTION,
    Tls::SECTION,
    Auth::SECTION,
    AuthOauth::SECTION,
    Limits::SECTION,
    DiskFree::SECTION,
    DiskSlow::SECTION,
    Amqp::SECTION,
    Mqtt::SECTION,
    Stomp::SECTION,
    Xmpp::SECTION,
    Component::SECTION,
    Http::SECTION,
    Logging::SECTION,
    Tracing::SECTION,
];

/// Keys of releases to come, so that they are told apart from typing mistakes.
pub(crate) static PLANNED: &[&str] = &[
    "include",
    "plugins",
    "plugin",
    "metrics",
    "server.definitions_file",
    "listeners.*.proxy_protocol_from",
    "tls.*.min_version",
    "storage.file.body_cache",
    "mqtt.queue_missing",
    "http.trusted_proxies",
    "http.definitions_size",
    "http.webhook_targets",
    "http.console",
    "logging.output",
];
