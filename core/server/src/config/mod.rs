//! The configuration: one TOML file, the environment and flags, checked as a whole before
//! anything starts.
//!
//! Queues, users and permissions are not in it; they live in the store.

pub(crate) mod edit;
mod key;
mod listener;
mod mask;
mod problem;
mod reference;
mod schema;
mod section;
mod source;
#[cfg(test)]
mod tests;
pub(crate) mod value;

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use self::{key::Configured, source::Source};

pub(crate) use self::{
    listener::{Endpoint, EndpointProtocol},
    problem::FileText,
    reference::{reference, starter},
    schema::schema,
    section::{
        Amqp, Auth, AuthOauth, Component, DiskFree, DiskSlow, Http, Limits, Logging, Mqtt, Server,
        Stomp, Storage, StorageFile, StoragePassword, StoragePostgres, StorageSqlite, Tls, Tracing,
        Xmpp,
    },
    source::ENV_PREFIX,
};

/// Read when it exists and `--config` names no other.
const SYSTEM_FILE: &str = "/etc/polymq/polymq.toml";
/// Shorter, and a pause of the database would look like a dead owner; longer, and a standby
/// would be of no use.
const LEASE_MIN: Duration = Duration::from_secs(1);
const LEASE_MAX: Duration = Duration::from_secs(600);
/// A segment that small queues share is up to sixteen times as large, and a place in it has 32
/// bits.
const SEGMENT_BYTES: RangeInclusive<u64> = (1 << 20)..=(128 << 20);

/// The whole configuration; every value has been checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    pub(crate) server: Server,
    pub(crate) storage: Storage,
    pub(crate) storage_file: StorageFile,
    pub(crate) storage_sqlite: StorageSqlite,
    pub(crate) storage_postgres: StoragePostgres,
    pub(crate) storage_password: StoragePassword,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) tls: BTreeMap<String, Tls>,
    pub(crate) auth: Auth,
    pub(crate) auth_oauth: AuthOauth,
    pub(crate) limits: Limits,
    pub(crate) disk_free: DiskFree,
    pub(crate) disk_slow: DiskSlow,
    pub(crate) amqp: Amqp,
    pub(crate) mqtt: Mqtt,
    pub(crate) stomp: Stomp,
    pub(crate) xmpp: Xmpp,
    pub(crate) components: BTreeMap<String, Component>,
    pub(crate) http: Http,
    pub(crate) logging: Logging,
    pub(crate) tracing: Tracing,
}

/// Where values come from, weakest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    /// `--config`.
    pub(crate) file: Option<PathBuf>,
    /// The environment.
    pub(crate) env: Vec<(String, String)>,
    /// Pairs of setting (`key=value`) and the flag as the operator wrote it.
    pub(crate) flags: Vec<(String, String)>,
    /// What the listeners' ports become.
    pub(crate) ports: Ports,
}

impl Sources {
    /// The file, if there is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        let system = || Some(Path::new(SYSTEM_FILE)).filter(|path| path.exists());
        self.file.as_deref().or_else(system)
    }

    /// The file as it is now, when there is one.
    ///
    /// Errors: when it cannot be read.
    pub(crate) fn file_text(&self) -> Result<Option<String>, Mistakes> {
        let text = read_file(self.file.as_deref())?.text;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }
}

/// A change of all ports at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Ports {
    /// As configured.
    #[default]
    Configured,
    /// Each one higher by this.
    Offset(u16),
    /// Free ones on loopback.
    Free,
}

/// A configuration that was read, with what is to be told about it.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// Key, value and origin of everything.
    pub(crate) effective: Vec<(String, String, String)>,
    /// What is allowed but probably not wanted.
    pub(crate) warnings: Vec<String>,
}

/// All mistakes, ready to be printed.
#[derive(Debug, thiserror::Error)]
#[error("{shown}")]
pub(crate) struct Mistakes {
    /// Paragraphs for whoever has the files.
    pub(crate) shown: String,
    /// A line each, without those of the files, in which there may be secrets.
    pub(crate) brief: Vec<String>,
}

impl Config {
    /// Reads and checks everything.
    ///
    /// Errors: every mistake of every source at once.
    pub(crate) fn load(sources: &Sources) -> Result<Loaded, Mistakes> {
        Self::load_text(sources, read_file(sources.file.as_deref())?)
    }

    /// The same, with the mistakes that `open` finds in the files that it names.
    ///
    /// Errors: as those of [`load`](Self::load).
    pub(crate) fn load_and(
        sources: &Sources,
        open: impl Fn(&Self) -> Vec<(String, String)>,
    ) -> Result<Loaded, Mistakes> {
        Self::load_from(sources, read_file(sources.file.as_deref())?, open)
    }

    /// The same with another text in the file.
    ///
    /// Errors: as those of [`load`](Self::load).
    pub(crate) fn load_text(sources: &Sources, file: FileText) -> Result<Loaded, Mistakes> {
        Self::load_from(sources, file, |_| Vec::new())
    }

    fn load_from(
        sources: &Sources,
        file: FileText,
        open: impl Fn(&Self) -> Vec<(String, String)>,
    ) -> Result<Loaded, Mistakes> {
        let mut source = Source::new(section::SECTIONS, section::PLANNED, file);
        source.add_env(sources.env.iter().cloned());
        for (setting, flag) in &sources.flags {
            source.add_flag(setting, flag);
        }
        let config = Self::read(&mut source, sources.ports);
        config.check(&mut source);
        for (path, message) in open(&config) {
            source.note_at(&path, message, None);
        }
        if !source.problems.is_empty() {
            let shown: Vec<_> =
                source.problems.iter().map(|problem| problem.render(&source.file)).collect();
            let brief = source.problems.iter().map(|problem| problem.brief(&source.file)).collect();
            return Err(Mistakes { shown: shown.join("\n"), brief });
        }
        let warnings = config.warnings();
        Ok(Loaded { config, effective: source.effective(), warnings })
    }

    fn read(source: &mut Source, ports: Ports) -> Self {
        let server = Server::read(source, "server");
        let storage = Storage::read(source, "storage");
        let storage_file = StorageFile::read(source, "storage.file");
        let storage_sqlite = StorageSqlite::read(source, "storage.sqlite");
        let storage_postgres = StoragePostgres::read(source, "storage.postgres");
        let storage_password = StoragePassword::read(source, "storage.postgres.password");
        let endpoints = listener::endpoints(source, &server, ports);
        let names = source.names("tls");
        let tls = names
            .into_iter()
            .map(|name| (name.clone(), Tls::read(source, &format!("tls.{name}"))))
            .collect();
        let names = source.names("components");
        let components = names
            .into_iter()
            .map(|name| (name.clone(), Component::read(source, &format!("components.{name}"))))
            .collect();
        Self {
            server,
            storage,
            storage_file,
            storage_sqlite,
            storage_postgres,
            storage_password,
            endpoints,
            tls,
            auth: Auth::read(source, "auth"),
            auth_oauth: AuthOauth::read(source, "auth.oauth2"),
            limits: Limits::read(source, "limits"),
            disk_free: DiskFree::read(source, "limits.disk_free"),
            disk_slow: DiskSlow::read(source, "limits.disk_slow"),
            amqp: Amqp::read(source, "amqp"),
            mqtt: Mqtt::read(source, "mqtt"),
            stomp: Stomp::read(source, "stomp"),
            xmpp: Xmpp::read(source, "xmpp"),
            components,
            http: Http::read(source, "http"),
            logging: Logging::read(source, "logging"),
            tracing: Tracing::read(source, "tracing"),
        }
    }

    /// Notes values that fit their keys and not each other.
    fn check(&self, source: &mut Source) {
        let lease = self.storage_postgres.lease;
        if !(LEASE_MIN..=LEASE_MAX).contains(&lease) {
            let help = Some("use 1s to 10m".to_owned());
            let message = "`storage.postgres.lease` is out of range".to_owned();
            source.note_at("storage.postgres.lease", message, help);
        }
        if !SEGMENT_BYTES.contains(&self.storage_file.segment_size.0) {
            let help = Some("use 1MiB to 128MiB".to_owned());
            let message = "`storage.file.segment_size` is out of range".to_owned();
            source.note_at("storage.file.segment_size", message, help);
        }
        let slow = &self.disk_slow;
        if !(slow.warn <= slow.degraded && slow.degraded <= slow.close) {
            let message = "`limits.disk_slow.close` comes before what precedes it".to_owned();
            let help = Some("let `warn`, `degraded` and `close` ascend".to_owned());
            source.note_at("limits.disk_slow.close", message, help);
        }
        if self.disk_free.resume < self.disk_free.low {
            source.note_at(
                "limits.disk_free.resume",
                "`limits.disk_free.resume` is below `limits.disk_free.low`".to_owned(),
                Some("publishers would never go on; make it at least as large".to_owned()),
            );
        }
        // AMQP 0-9-1, 4.2.3: a peer must accept frames of 4096 bytes.
        if !(4096..=1 << 30).contains(&self.amqp.frame_size.0) {
            let help = Some("use 4KiB to 1GiB".to_owned());
            source.note_at("amqp.frame_size", "`amqp.frame_size` is out of range".to_owned(), help);
        }
        self.check_xmpp(source);
        self.check_tracing(source);
        let prefix = &self.http.path_prefix;
        if !prefix.is_empty() && (!prefix.starts_with('/') || prefix.ends_with('/')) {
            let help = Some("write it as \"/polymq\"".to_owned());
            let message = "`http.path_prefix` begins with a slash and ends with none".to_owned();
            source.note_at("http.path_prefix", message, help);
        }
        if self.http.web_socket_ping < Duration::from_secs(1) {
            let help = Some("use 1s or more".to_owned());
            let message = "`http.web_socket_ping` is out of range".to_owned();
            source.note_at("http.web_socket_ping", message, help);
        }
        let is_origin = |origin: &String| {
            let parts = origin.split_once("://");
            origin == "*" || parts.is_some_and(|(_, host)| !host.is_empty() && !host.contains('/'))
        };
        if let Some(bad) = self.http.cors_origins.iter().find(|origin| !is_origin(origin)) {
            let message = format!("`{bad}` is no origin");
            let help = Some("write it as \"https://app.example\", or \"*\" for all".to_owned());
            source.note_at("http.cors_origins", message, help);
        }
        if self.server.default_vhost.is_empty() {
            source.note_at("server.default_vhost", "a vhost has a name".to_owned(), None);
        }
        if self.limits.connections == 0 {
            let help = Some("leave it out for the default".to_owned());
            let message = "`limits.connections` is 0: nobody could connect".to_owned();
            source.note_at("limits.connections", message, help);
        }
        if let Some(wrong) = crate::logging::wrong_directive(&self.logging.level) {
            let help = "use off, error, warn, info, debug or trace, also for a part of the broker: \
                        info,polymq_mqtt=debug";
            let message = format!("`logging.level`: `{wrong}` is no level");
            source.note_at("logging.level", message, Some(help.to_owned()));
        }
        listener::check_addresses(source, &self.endpoints);
        listener::check_tls(source, &self.endpoints, &self.tls);
    }

    fn check_tracing(&self, source: &mut Source) {
        let (endpoint, key) = (self.tracing.endpoint.0.as_str(), "tracing.endpoint");
        if !endpoint.is_empty() && !cfg!(feature = "otel") {
            let help = Some("build it with `--features otel`".to_owned());
            source.note_at(key, "this program was built without traces".to_owned(), help);
        } else if !endpoint.is_empty()
            && !["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme))
        {
            let help = Some("write it as \"http://127.0.0.1:4318\"".to_owned());
            source.note_at(key, format!("`{}` is no URL of HTTP", mask::urls(endpoint)), help);
        }
        if self.tracing.one_in == 0 {
            let help = Some("use 1 for all of them".to_owned());
            source.note_at("tracing.one_in", "`tracing.one_in` is 0".to_owned(), help);
        }
    }

    fn check_xmpp(&self, source: &mut Source) {
        let is_domain = |domain: &str| {
            polymq_xmpp::jid::Jid::parse(domain).is_some_and(|jid| jid.to_string() == domain)
                && !domain.contains(['@', '/'])
        };
        if !is_domain(&self.xmpp.domain) {
            let message = format!("`{}` is no domain in lower case", self.xmpp.domain);
            source.note_at("xmpp.domain", message, None);
        }
        if !(10_000..=1 << 30).contains(&self.xmpp.stanza_size.0) {
            let help = Some("use 10KB to 1GiB".to_owned());
            source.note_at(
                "xmpp.stanza_size",
                "`xmpp.stanza_size` is out of range".to_owned(),
                help,
            );
        }
        for (name, component) in &self.components {
            let missing = [
                ("domain", !is_domain(&component.domain)),
                ("secret_file", component.secret_file.as_os_str().is_empty()),
                ("user", component.user.is_empty()),
                ("address", component.address.is_empty()),
            ];
            for (key, _) in missing.iter().filter(|(_, is_missing)| *is_missing) {
                let path = format!("components.{name}.{key}");
                source.note_at(&path, format!("`{path}` is missing or cannot be used"), None);
            }
        }
    }

    fn warnings(&self) -> Vec<String> {
        if self.endpoints.is_empty() {
            return vec!["no listener has an address, so nobody can connect".to_owned()];
        }
        let is_open = |endpoint: &&Endpoint| {
            (endpoint.tls.is_none() || endpoint.protocol == EndpointProtocol::Auto)
                && endpoint.is_open()
        };
        let warn = |endpoint: &Endpoint| {
            format!(
                "listener `{}` takes logins in clear text beyond loopback; give it `tls`, or set \
                 auth.plain_without_tls = \"never\"",
                endpoint.name
            )
        };
        self.endpoints.iter().filter(is_open).map(warn).collect()
    }
}

fn read_file(named: Option<&Path>) -> Result<FileText, Mistakes> {
    let path = match named {
        Some(path) => path,
        None if Path::new(SYSTEM_FILE).exists() => Path::new(SYSTEM_FILE),
        None => return Ok(FileText::default()),
    };
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(FileText { name: path.display().to_string(), text }),
        Err(error) => {
            let text = format!("the configuration `{}` cannot be read: {error}", path.display());
            Err(Mistakes { shown: format!("error: {text}\n"), brief: vec![text] })
        }
    }
}
