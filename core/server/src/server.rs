//! Puts the parts together: store, broker, protocols, driver, HTTP; and takes them apart again.

use std::{
    collections::BTreeSet,
    io::Write,
    path::Path,
    process::ExitCode,
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::{Duration, Instant},
};

use anyhow::Context;
use parking_lot::Mutex;
use polymq_broker::{BrokerHandle, Parts};
use polymq_driver::{Driver, Outgoing};
use polymq_http::{Http, Phase, SharedPhase};
use polymq_log::EXIT_CODE_STORE_FAILED;
use polymq_model::{Limits, UserName, VhostName};
use polymq_store::{Committer, Opened, ShardId, Store};
use tokio::{
    runtime::Runtime,
    sync::{Notify, oneshot},
};

use crate::{
    accounts,
    alarm::{Alarms, Marks},
    audit::{self, AuditFile},
    auth::{self, Logins, Policy},
    banner::{self, Bound},
    config::{Config, Endpoint, EndpointProtocol, Loaded, Sources, value::OnDamage},
    first_admin::{self, FirstAdmin},
    housekeeping::{self, Watch},
    http,
    limits::limits,
    local::LocalSocket,
    logging,
    ports::Ports,
    process,
    protocols::Protocols,
    reload::Reload,
    service::Service,
    signals::{Asked, Signals},
    store::{self, OpenStore},
    tls, xmpp,
};

/// A database may be away for longer than anybody waits for a stop.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(60);
/// What clients may take to hear that the store is lost.
const LOST_TIMEOUT: Duration = Duration::from_secs(1);

/// How the operator wants this run.
#[derive(Debug, Clone)]
pub(crate) struct Mode {
    /// Where the configuration came from.
    pub(crate) sources: Sources,
    pub(crate) is_dev: bool,
    pub(crate) print_ports: bool,
    /// Wait until no other broker has the store.
    pub(crate) is_standby: bool,
    pub(crate) started: Instant,
    /// Told by an administrator when the server is to stop.
    pub(crate) stop: Arc<Notify>,
}

/// Runs the server until it is told to stop.
///
/// Errors: what keeps it from starting, or from stopping cleanly.
pub(crate) fn run(loaded: &Loaded, mode: Mode) -> anyhow::Result<ExitCode> {
    let config = &loaded.config;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot start")?;
    let lost = runtime.block_on(async {
        // Before anybody is told that the server is ready, so that every stop is a clean one.
        let mut signals = Signals::listen()?;
        let service = Service::from_env();
        let mut ours = None;
        if mode.is_standby {
            // No port is open before our turn, so that nobody takes us for the owner.
            tokio::select! {
                open = store::open_as_standby(config) => ours = Some(open?),
                () = signals.stop() => return Ok(None),
            }
        }
        let mut running = Running::start(loaded, &mode, ours)?;
        service.ready();
        if let Some(every) = service.sign_of_life_every() {
            tokio::spawn(housekeeping::show_signs_of_life(service.clone(), every));
        }
        loop {
            tokio::select! {
                asked = signals.next() => match asked {
                    Asked::Stop => break,
                    Asked::Reload => {
                        service.reloading(process::monotonic_micros());
                        // What came of it is in the log.
                        let _ = running.reload.run_and_tell();
                        service.ready();
                    }
                },
                () = mode.stop.notified() => break,
                () = running.store_is_lost() => return Ok(Some(running)),
            }
        }
        service.stopping();
        running.stop(config.server.drain_timeout, &mut signals).await.map(|()| None)
    })?;
    match lost {
        None => Ok(ExitCode::SUCCESS),
        Some(running) => running.give_up(runtime),
    }
}

/// A server that serves.
struct Running {
    broker: BrokerHandle,
    driver: Driver,
    http: Http,
    ports: Arc<Ports>,
    phase: Arc<SharedPhase>,
    /// Answers when the store is lost, which is after this time of silence.
    lost: Option<oneshot::Receiver<Duration>>,
    audit: Option<AuditFile>,
    reload: Arc<Reload>,
    local: Option<LocalSocket>,
}

impl Running {
    /// Starts on the store `ours`, or opens it.
    fn start(loaded: &Loaded, mode: &Mode, ours: Option<OpenStore>) -> anyhow::Result<Self> {
        let config = &loaded.config;
        let data_dir = store::data_dir(config);
        let protocols = Protocols::new(config);
        #[cfg(feature = "otel")]
        let protocols = protocols.traced(config)?;
        let protocols = Arc::new(protocols);
        let ports = Ports::bind(config, Arc::clone(&protocols), tls::load(&config.tls)?)?;
        let components = xmpp::components(config)?;
        let logins = Arc::new(Logins::start(policy(config, mode.is_dev)?, &config.auth_oauth)?);
        let OpenStore { store, opened } = match ours {
            Some(ours) => ours,
            None => store::open(config)?,
        };
        let limits = Arc::new(limits(config));
        let committer = committer(&store, &opened);
        let broker = broker(config, committer, &protocols, &logins, &limits);
        let driver = Driver::new(Arc::new(broker.clone()), Arc::clone(&limits));
        let allowed = process::memory_allowed_bytes();
        let marks = Marks::new(config.limits.memory_high, &config.disk_free, allowed);
        let phase = Arc::new(SharedPhase::default());
        let joined = components.iter().map(|component| Arc::clone(&component.protocol));
        let spoken = protocols.all().into_iter().chain(joined).collect();
        let (brokers, states) = ((&broker, &driver, spoken), (&marks, &phase));
        let reload = Arc::new(Reload {
            sources: mode.sources.clone(),
            is_dev: mode.is_dev,
            ports: Arc::clone(&ports),
            broker: broker.clone(),
            logins: Arc::clone(&logins),
            marks: Arc::clone(&marks),
            running: Mutex::new(loaded.effective.clone()),
            waiting: Mutex::default(),
            is_refused: AtomicBool::default(),
        });
        let of_server = (mode, Arc::clone(&reload) as _, protocols.spans.clone());
        let watched = http::watched(config, of_server, brokers, &store, states, &ports);
        let http = Http::new(watched, http::settings(config, limits, (&protocols, &driver)));
        ports.serve_pages(&driver, &http)?;
        let audit = audit_file(config, data_dir.as_deref(), &broker)?;
        let default_vhost = VhostName::new(&config.server.default_vhost)?;
        let local = LocalSocket::serve(&config.server.data_dir, &default_vhost, &http);
        let mut running =
            Self { broker, driver, http, ports, phase, lost: None, audit, reload, local };

        let admin = running.recover(config, mode, &store, &opened)?;
        drop(opened);
        if let (Some(admin), Some(data_dir)) = (&admin, &data_dir) {
            admin.keep(data_dir)?;
        }
        logins.find_users_in(running.broker.clone());
        let watched = Watch {
            store: Arc::clone(&store),
            alarms: Alarms::new(marks),
            disk: store::disk(config),
            disk_slow: config.disk_slow.clone(),
        };
        running.lost = Some(housekeeping::start(&running.broker, watched, mode.started));
        running.let_in(components)?;
        let vhost = config.server.default_vhost.as_str();
        let first = admin.as_ref().filter(|admin| admin.is_made).map(|admin| {
            let folder = data_dir.as_deref().map(Path::to_string_lossy);
            banner::first_start(admin, &running.ports.bound(), vhost, folder.as_deref())
        });
        announce(mode, &running.ports.bound(), &store::place(config), first.as_deref());
        Ok(running)
    }

    /// Opens the doors for clients.
    fn let_in(&self, components: Vec<Outgoing>) -> anyhow::Result<()> {
        self.ports.let_in()?;
        tokio::spawn(housekeeping::look_at_certificates(Arc::clone(&self.ports)));
        for component in components {
            self.driver.keep(component);
        }
        self.phase.enter(Phase::Serving);
        Ok(())
    }

    /// Brings back what was stored, and adds what every start needs. Returns the administrator
    /// when it is the first.
    fn recover(
        &self,
        config: &Config,
        mode: &Mode,
        store: &Arc<dyn Store>,
        opened: &Opened,
    ) -> anyhow::Result<Option<FirstAdmin>> {
        let recovered = self
            .broker
            .recover(opened, store, housekeeping::now())
            .context("the store cannot be read")?;
        tracing::info!(
            event = "recovered",
            queues = recovered.queues,
            messages = recovered.messages,
            skipped = recovered.skipped
        );
        let vhosts = vhosts(config)?;
        for vhost in &vhosts {
            self.broker.create_vhost(vhost.clone());
        }
        warn_of_missing_exchange(config, &self.broker);
        let admin = accounts::prepare(&self.broker, &vhosts, mode.is_dev)?;
        check_anonymous(config, |user| self.broker.access().user(user).is_some())?;
        accounts::check_passwords(config, &self.broker)?;
        Ok(admin)
    }

    /// Returns when the store has not answered for so long that nobody can be served.
    async fn store_is_lost(&mut self) {
        let is_lost = match self.lost.as_mut() {
            Some(lost) => lost.await.is_ok(),
            None => false,
        };
        if !is_lost {
            // Nobody watches; that is no reason to stop.
            std::future::pending().await
        }
    }

    /// Closes every socket and ends the process. A thread that hangs in the system may keep the
    /// process, and with it every socket that is not closed before; so nothing is waited for here
    /// that waits for the store.
    fn give_up(&self, runtime: Runtime) -> ! {
        tracing::error!(event = "store_lost", "connections are closed, and the process ends");
        self.phase.enter(Phase::Draining);
        self.ports.close();
        self.broker.announce_stop("the store does not answer");
        runtime.block_on(async {
            tokio::join!(self.driver.shutdown(LOST_TIMEOUT), self.http.shutdown(LOST_TIMEOUT))
        });
        runtime.shutdown_timeout(LOST_TIMEOUT);
        logging::flush();
        std::process::exit(EXIT_CODE_STORE_FAILED);
    }

    /// Tells clients, lets them finish, and closes the store.
    async fn stop(self, drain_timeout: Duration, signals: &mut Signals) -> anyhow::Result<()> {
        tracing::info!(event = "stopping", drain_timeout_ms = millis(drain_timeout));
        self.phase.enter(Phase::Draining);
        self.ports.close();
        self.driver.stop_accepting();
        self.broker.announce_stop("the server stops");
        tokio::select! {
            _ = async {
                tokio::join!(self.driver.shutdown(drain_timeout), self.http.shutdown(drain_timeout))
            } => {}
            // A second signal means now.
            () = signals.stop() => self.driver.shutdown(Duration::ZERO).await,
        }
        if let Some(audit) = &self.audit {
            audit.flush();
        }
        // Before the store is somebody else's, with the folder.
        drop(self.local);
        let committer = Arc::clone(self.broker.committer());
        let (done, closed) = std::sync::mpsc::sync_channel(1);
        committer.close(move |result| {
            // Nobody listens any more when it took too long.
            let _ = done.send(result);
        });
        closed
            .recv_timeout(CLOSE_TIMEOUT)
            .context("the store does not answer; what was not confirmed may be lost")?
            .context("the store cannot be closed cleanly")?;
        tracing::info!(event = "stopped");
        Ok(())
    }
}

/// Where changes by administrators go: to the audit file, if there is to be one, and to whoever
/// keeps the first password. A broker that keeps nothing has no place for a file.
fn audit_file(
    config: &Config,
    data_dir: Option<&Path>,
    broker: &BrokerHandle,
) -> anyhow::Result<Option<AuditFile>> {
    let path = &config.logging.audit_file;
    let path = match (path.as_os_str().is_empty(), path.is_absolute(), data_dir) {
        (true, _, _) | (false, false, None) => None,
        (false, true, _) => Some(path.clone()),
        (false, false, Some(data_dir)) => Some(data_dir.join(path)),
    };
    let file = path.as_ref().map(|path| AuditFile::open(path.clone())).transpose()?;
    match path.as_deref().map(audit::latest).transpose() {
        Ok(entries) => broker.recall_audit(entries.unwrap_or_default()),
        Err(error) => tracing::warn!(event = "audit_not_read", %error),
    }
    let (sink, data_dir) = (file.as_ref().map(AuditFile::sink), data_dir.map(Path::to_owned));
    broker.set_audit(Box::new(move |change| {
        if let Some(sink) = &sink {
            sink(change);
        }
        if let Some(data_dir) = data_dir.as_deref().filter(|_| first_admin::is_replaced_by(change))
        {
            first_admin::forget(data_dir);
        }
    }));
    Ok(file)
}

/// A broker that knows nothing yet of what is stored.
fn broker(
    config: &Config,
    committer: Arc<Committer>,
    protocols: &Protocols,
    logins: &Arc<Logins>,
    limits: &Arc<Limits>,
) -> BrokerHandle {
    let broker = BrokerHandle::new(Parts {
        committer,
        formats: protocols.formats(),
        limits: Arc::clone(limits),
        authenticator: Arc::clone(logins) as _,
        entropy: Box::new(fill_with_randomness),
        share_expiry_ms: millis(config.mqtt.share_expiry),
        durability: config.storage.durability(),
        skips_damage: config.storage_file.on_damage == OnDamage::Skip,
    });
    broker.serve_mailboxes(&config.xmpp.domain);
    broker
}

fn committer(store: &Arc<dyn Store>, opened: &Opened) -> Arc<Committer> {
    let committer = Committer::new(Arc::clone(store), ShardId::default(), opened);
    committer.set_clock(nanos);
    committer
}

/// What the configuration says about logins.
///
/// Errors: a user's name that is none.
pub(crate) fn policy(config: &Config, is_dev: bool) -> anyhow::Result<Policy> {
    let auth = &config.auth;
    let anonymous = match auth.anonymous_user.as_str() {
        "" => is_dev.then_some(accounts::GUEST),
        named => Some(named),
    };
    Ok(Policy {
        mechanisms: auth.mechanisms.clone(),
        plain_without_tls: auth.plain_without_tls,
        anonymous: anonymous.map(UserName::new).transpose().context("auth.anonymous_user")?,
        failures_per_minute: auth.login_failures_per_minute,
        failures_per_address: auth.login_failures_per_address,
    })
}

/// Errors: the user that clients without credentials become is not there.
pub(crate) fn check_anonymous(
    config: &Config,
    exists: impl FnOnce(&str) -> bool,
) -> anyhow::Result<()> {
    let user = config.auth.anonymous_user.as_str();
    anyhow::ensure!(
        user.is_empty() || exists(user),
        "auth.anonymous_user: there is no user `{user}`"
    );
    Ok(())
}

/// Virtual hosts that exist because the configuration names them.
pub(crate) fn vhosts(config: &Config) -> anyhow::Result<BTreeSet<VhostName>> {
    let of_listeners = config.endpoints.iter().map(|endpoint| &endpoint.vhost);
    let names = of_listeners.chain([&config.server.default_vhost]);
    names.map(|name| VhostName::new(name).context("a vhost of the configuration")).collect()
}

/// Publishes of MQTT clients are refused until somebody declares the exchange.
fn warn_of_missing_exchange(config: &Config, broker: &BrokerHandle) {
    let exchange = config.mqtt.exchange.as_str();
    let is_mqtt = |endpoint: &&Endpoint| {
        matches!(endpoint.protocol, EndpointProtocol::Mqtt | EndpointProtocol::Auto)
    };
    let vhosts: BTreeSet<_> =
        config.endpoints.iter().filter(is_mqtt).map(|endpoint| endpoint.vhost.as_str()).collect();
    for vhost in vhosts.into_iter().filter(|vhost| !broker.has_exchange(vhost, exchange)) {
        tracing::warn!(
            event = "mqtt_exchange_missing",
            vhost,
            exchange,
            "mqtt.exchange names an exchange that does not exist; MQTT publishes are refused"
        );
    }
}

pub(crate) fn fill_with_randomness(bytes: &mut [u8]) {
    if auth::fill_random(bytes).is_err() {
        // Names that can be guessed would hand out other clients' answers.
        tracing::error!(event = "no_randomness", "the process ends");
        logging::flush();
        std::process::exit(EXIT_CODE_NO_RANDOMNESS);
    }
}

/// As an internal software error in `sysexits.h`.
const EXIT_CODE_NO_RANDOMNESS: i32 = 70;

/// Steady nanoseconds since the first call.
fn nanos() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let since = FIRST.get_or_init(Instant::now).elapsed();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Tells standard output and the log that clients may come.
fn announce(mode: &Mode, bound: &[Bound], data: &str, first_start: Option<&str>) {
    let took = mode.started.elapsed();
    let text = if mode.print_ports {
        banner::ports(bound)
    } else {
        banner::ready(bound, data, mode.is_dev, took) + first_start.unwrap_or_default()
    };
    say(&text);
    tracing::info!(event = "ready", start_ms = millis(took), version = env!("CARGO_PKG_VERSION"));
}

/// Writes to standard output. A reader that has gone away is no reason to stop a broker.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
