//! The addresses that the server listens on, which may become others while it runs.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use parking_lot::Mutex;
use polymq_driver::{Accepting, Bind, Driver, Listener, ListenerSpec, Tls};
use polymq_http::{Audience, Certificate, Http, HttpListener, Listeners, OpenPort};
use polymq_model::{Limits, VhostName, carry::rfc3339_from_ms};

use crate::{
    banner::Bound,
    config::{self, Config, Endpoint, EndpointProtocol},
    http,
    protocols::Protocols,
};

pub(crate) type Certificates = BTreeMap<String, Arc<Tls>>;

/// Every address is taken before anything else starts, so that a port in use costs nothing.
pub(crate) struct Ports {
    protocols: Arc<Protocols>,
    /// Who serves what comes, once somebody does.
    doors: OnceLock<Doors>,
    open: Mutex<Open>,
}

struct Doors {
    driver: Driver,
    http: Http,
}

#[derive(Default)]
struct Open {
    ports: Vec<Port>,
    /// What somebody has stopped.
    stopped: Vec<Stopped>,
    certificates: Certificates,
    /// How long before its end somebody should know of a certificate.
    warnings: BTreeMap<String, Duration>,
    is_closed: bool,
}

/// An address that is listened on.
struct Port {
    endpoint: Endpoint,
    asked: SocketAddr,
    socket: TcpListener,
    accepting: Option<Accepting>,
}

/// An address that is not listened on until somebody says so.
#[derive(Clone)]
struct Stopped {
    endpoint: Endpoint,
    asked: SocketAddr,
    /// Where it was listened on.
    address: SocketAddr,
}

/// A port that was just closed is free a moment later.
const FREE_WITHIN: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Port {
    fn is_http(&self) -> bool {
        matches!(self.endpoint.protocol, EndpointProtocol::Http | EndpointProtocol::Metrics)
    }

    /// Where it listens, with the port that the system chose.
    fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap_or(self.asked)
    }

    fn bound(&self) -> Bound {
        Bound {
            name: self.endpoint.name.clone(),
            protocol: self.endpoint.protocol,
            address: self.address(),
            has_tls: self.endpoint.tls.is_some(),
        }
    }
}

impl Ports {
    /// Takes every address of the configuration.
    ///
    /// Errors: one that cannot be taken.
    pub(crate) fn bind(
        config: &Config,
        protocols: Arc<Protocols>,
        certificates: Certificates,
    ) -> anyhow::Result<Arc<Self>> {
        let ports = Self { protocols, doors: OnceLock::new(), open: Mutex::default() };
        {
            let mut open = ports.open.lock();
            open.certificates = certificates;
            open.warnings = warnings(&config.tls);
            let taken = taken(&[], &config.endpoints)?;
            open.ports = taken.into_iter().map(|(port, _)| port).collect();
        }
        Ok(Arc::new(ports))
    }

    /// Serves pages of HTTP; clients have to wait for [`let_in`](Self::let_in).
    ///
    /// Errors: the runtime does not take a socket.
    pub(crate) fn serve_pages(&self, driver: &Driver, http: &Http) -> anyhow::Result<()> {
        // A second call would come from a second server, which a process does not have.
        let _ = self.doors.set(Doors { driver: driver.clone(), http: http.clone() });
        self.serve_those(Port::is_http)
    }

    /// Serves clients.
    ///
    /// Errors: the runtime does not take a socket.
    pub(crate) fn let_in(&self) -> anyhow::Result<()> {
        self.serve_those(|port| !port.is_http())
    }

    fn serve_those(&self, which: impl Fn(&Port) -> bool) -> anyhow::Result<()> {
        let open = &mut *self.open.lock();
        for port in open.ports.iter_mut().filter(|port| which(port)) {
            port.accepting = Some(self.serve(port, &open.certificates)?);
        }
        Ok(())
    }

    fn serve(&self, port: &Port, certificates: &Certificates) -> anyhow::Result<Accepting> {
        let doors = self.doors.get().context("nobody serves yet")?;
        let endpoint = &port.endpoint;
        let named =
            |name: &Option<String>| name.as_ref().and_then(|n| certificates.get(n)).cloned();
        let (tls, start_tls) = (named(&endpoint.tls), named(&endpoint.starttls));
        let (name, vhost) = (Arc::from(endpoint.name.as_str()), VhostName::new(&endpoint.vhost)?);
        let socket = port.socket.try_clone().context("the system gives no more files")?;
        if port.is_http() {
            let audience = match endpoint.protocol {
                EndpointProtocol::Metrics => Audience::Everybody,
                _ => Audience::Users,
            };
            return Ok(doors.http.serve(HttpListener { name, socket, audience, tls, vhost })?);
        }
        let spec = ListenerSpec {
            name,
            protocols: self.protocols.of(endpoint.protocol),
            is_shared: endpoint.protocol == EndpointProtocol::Auto,
            bind: Bind::Tcp(port.asked),
            tls,
            start_tls,
            vhost,
        };
        let listener = Listener::over(spec, socket)?.with_guest(Arc::new(doors.http.clone()));
        Ok(doors.driver.serve(listener)?)
    }

    /// Listens where another configuration says, with other certificates. A listener that stays
    /// what it is is not touched, one that becomes another keeps its socket, and connections go
    /// on wherever they came from.
    ///
    /// Errors: an address that cannot be taken; then nothing has changed.
    pub(crate) fn change(&self, config: &Config, certificates: Certificates) -> anyhow::Result<()> {
        let open = &mut *self.open.lock();
        if open.is_closed {
            bail!("the server stops");
        }
        let mut sockets = Vec::new();
        for port in &open.ports {
            sockets.push((port.endpoint.name.clone(), port.asked, port.socket.try_clone()?));
        }
        let (stopped, running): (Vec<Endpoint>, Vec<Endpoint>) =
            config.endpoints.iter().cloned().partition(|endpoint| open.is_stopped(&endpoint.name));
        let fresh = taken(&sockets, &running)?;
        open.stopped = stopped.iter().flat_map(|endpoint| open.still_stopped(endpoint)).collect();
        open.warnings = warnings(&config.tls);
        let held = std::mem::take(&mut open.certificates);
        open.certificates = certificates
            .into_iter()
            .map(|(name, new)| match held.get(&name) {
                // Listeners and connections hold on to this one.
                Some(held) => {
                    held.replace(&new);
                    (name, Arc::clone(held))
                }
                None => (name, new),
            })
            .collect();
        let mut old: Vec<Option<Port>> =
            std::mem::take(&mut open.ports).into_iter().map(Some).collect();
        for (mut port, from) in fresh {
            let before = from.and_then(|index| old.get_mut(index)).and_then(Option::take);
            let is_same = before.as_ref().is_some_and(|before| is_same(before, &port));
            match before {
                Some(before) if is_same => {
                    open.ports.push(Port { endpoint: port.endpoint, ..before })
                }
                before => {
                    match self.serve(&port, &open.certificates) {
                        Ok(accepting) => port.accepting = Some(accepting),
                        Err(error) => {
                            let (name, error) = (&port.endpoint.name, format!("{error:#}"));
                            tracing::error!(event = "listener_failed", name, error);
                        }
                    }
                    stop(before);
                    open.ports.push(port);
                }
            }
        }
        old.into_iter().for_each(stop);
        Ok(())
    }

    /// Other limits, ways to log in, and another HTTP server, for connections and requests that
    /// come from now on.
    pub(crate) fn set(&self, config: &Config, limits: Arc<Limits>) {
        self.protocols.set(config);
        if let Some(Doors { driver, http }) = self.doors.get() {
            driver.set_limits(Arc::clone(&limits));
            http.set(http::settings(config, limits, (&self.protocols, driver)));
        }
    }

    /// The certificates that others take the place of: name, what it is, what it becomes.
    pub(crate) fn renewed(&self, new: &Certificates) -> Vec<(String, String, String)> {
        let open = self.open.lock();
        let renewed = |(name, new): (&String, &Arc<Tls>)| {
            let held = open.certificates.get(name)?;
            let is_same = held.fingerprint() == new.fingerprint();
            (!is_same).then(|| (name.clone(), in_words(held), in_words(new)))
        };
        new.iter().filter_map(renewed).collect()
    }

    /// The ports, for people.
    pub(crate) fn bound(&self) -> Vec<Bound> {
        self.open.lock().ports.iter().map(Port::bound).collect()
    }

    /// Logs which certificates end soon.
    pub(crate) fn warn_of_certificates(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let open = self.open.lock();
        for Certificate { name, expires_unix_secs, warning_secs } in
            open.certificates.keys().filter_map(|name| open.certificate(name))
        {
            let left = expires_unix_secs.saturating_sub(now);
            if left <= warning_secs {
                let (days, advice) = (left / 86_400, "renew it, and reload the configuration");
                tracing::warn!(event = "certificate_ends", name, days, advice);
            }
        }
    }

    /// Frees every address. Whoever serves on it is told by others.
    pub(crate) fn close(&self) {
        let mut open = self.open.lock();
        open.is_closed = true;
        open.ports.clear();
    }
}

impl Listeners for Ports {
    fn open(&self) -> Vec<OpenPort> {
        let open = self.open.lock();
        open.ports.iter().map(|port| open.shown(&port.endpoint, port.address())).collect()
    }

    fn stopped(&self) -> Vec<OpenPort> {
        let open = self.open.lock();
        open.stopped.iter().map(|port| open.shown(&port.endpoint, port.address)).collect()
    }

    fn run(&self, name: &str, is_running: bool) -> Result<bool, String> {
        let done = if is_running { self.start(name) } else { self.stop(name) };
        if let Ok(true) = done {
            tracing::info!(event = "listener_changed", name, is_running);
        }
        done.map_err(|error| format!("{error:#}"))
    }
}

impl Ports {
    fn stop(&self, name: &str) -> anyhow::Result<bool> {
        let open = &mut *self.open.lock();
        let ports = std::mem::take(&mut open.ports);
        let (gone, kept): (Vec<_>, Vec<_>) =
            ports.into_iter().partition(|port| port.endpoint.name == name);
        open.ports = kept;
        let is_changed = !gone.is_empty();
        for port in gone {
            let (endpoint, asked, address) = (port.endpoint.clone(), port.asked, port.address());
            open.stopped.push(Stopped { endpoint, asked, address });
            stop(Some(port));
        }
        Ok(is_changed)
    }

    /// Errors: an address that cannot be taken; then nothing has changed.
    fn start(&self, name: &str) -> anyhow::Result<bool> {
        let mut wanted = self.open.lock().stopped.clone();
        wanted.retain(|stopped| stopped.endpoint.name == name);
        let mut ports = Vec::new();
        for Stopped { endpoint, asked, address } in wanted {
            let socket = listen_again(address)
                .with_context(|| format!("listener `{name}` cannot listen on {address}"))?;
            ports.push(Port { endpoint, asked, socket, accepting: None });
        }
        let open = &mut *self.open.lock();
        if open.is_closed || (!ports.is_empty() && !open.is_stopped(name)) {
            bail!("it has changed meanwhile, or the server stops");
        }
        for port in &mut ports {
            port.accepting = Some(self.serve(port, &open.certificates)?);
        }
        open.stopped.retain(|stopped| stopped.endpoint.name != name);
        let is_changed = !ports.is_empty();
        open.ports.append(&mut ports);
        Ok(is_changed)
    }
}

/// Takes an address that may have been let go of a moment ago.
fn listen_again(address: SocketAddr) -> io::Result<TcpListener> {
    let since = Instant::now();
    loop {
        match polymq_driver::listen(address) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && since.elapsed() < FREE_WITHIN =>
            {
                thread::sleep(LOOK_EVERY);
            }
            done => return done,
        }
    }
}

impl Open {
    fn is_stopped(&self, name: &str) -> bool {
        self.stopped.iter().any(|stopped| stopped.endpoint.name == name)
    }

    /// A stopped listener as another configuration has it. An address that the system has chosen
    /// stays.
    fn still_stopped(&self, endpoint: &Endpoint) -> Vec<Stopped> {
        let stopped = |asked: &SocketAddr| {
            let same = |one: &&Stopped| one.endpoint.name == endpoint.name && one.asked == *asked;
            let address = self.stopped.iter().find(same).map_or(*asked, |one| one.address);
            Stopped { endpoint: endpoint.clone(), asked: *asked, address }
        };
        endpoint.addresses.iter().map(stopped).collect()
    }

    fn shown(&self, endpoint: &Endpoint, address: SocketAddr) -> OpenPort {
        let certificate = endpoint.tls.as_ref().or(endpoint.starttls.as_ref());
        OpenPort {
            protocol: endpoint.protocol.to_string(),
            address,
            name: endpoint.name.clone(),
            has_tls: endpoint.tls.is_some(),
            certificate: certificate.and_then(|name| self.certificate(name)),
        }
    }

    fn certificate(&self, name: &str) -> Option<Certificate> {
        Some(Certificate {
            name: name.to_owned(),
            expires_unix_secs: self.certificates.get(name)?.expires_unix_secs()?,
            warning_secs: self.warnings.get(name).map_or(0, Duration::as_secs),
        })
    }
}

/// A certificate by its fingerprint and its end.
fn in_words(tls: &Tls) -> String {
    let hash: String = tls.fingerprint().iter().take(8).map(|b| format!("{b:02x}")).collect();
    let ends = tls.expires_unix_secs().and_then(|secs| i64::try_from(secs).ok());
    let ends = ends.map(|secs| rfc3339_from_ms(secs.saturating_mul(1000)));
    format!("certificate {hash}, ends {}", ends.unwrap_or_default())
}

fn warnings(tls: &BTreeMap<String, config::Tls>) -> BTreeMap<String, Duration> {
    tls.iter().map(|(name, tls)| (name.clone(), tls.expiry_warning)).collect()
}

/// True when nothing about a port has changed. Its other addresses are ports of their own.
fn is_same(before: &Port, after: &Port) -> bool {
    let alone = |endpoint: &Endpoint| Endpoint { addresses: Vec::new(), ..endpoint.clone() };
    before.accepting.is_some() && alone(&before.endpoint) == alone(&after.endpoint)
}

fn stop(port: Option<Port>) {
    if let Some(accepting) = port.and_then(|port| port.accepting) {
        accepting.stop();
    }
}

/// Ports for all endpoints, each with the number of the socket that it takes over: one of the same
/// listener, or else of the same address.
///
/// Errors: a new address that cannot be taken.
fn taken(
    sockets: &[(String, SocketAddr, TcpListener)],
    endpoints: &[Endpoint],
) -> anyhow::Result<Vec<(Port, Option<usize>)>> {
    let mut is_used = vec![false; sockets.len()];
    let all = || endpoints.iter().flat_map(|e| e.addresses.iter().map(move |asked| (e, *asked)));
    let mut found: Vec<Option<usize>> = Vec::new();
    // First those who keep their own, so that nobody else takes it.
    for (endpoint, asked) in all() {
        let own = sockets.iter().zip(&is_used).position(|((name, address, _), is_used)| {
            !is_used && *name == endpoint.name && *address == asked
        });
        own.into_iter().for_each(|index| is_used[index] = true);
        found.push(own);
    }
    let mut ports = Vec::new();
    for ((endpoint, asked), own) in all().zip(found) {
        let index = own.or_else(|| {
            sockets.iter().zip(&is_used).position(|((_, address, _), is_used)| {
                !is_used && *address == asked && asked.port() != 0
            })
        });
        let socket = match index {
            Some(index) => {
                is_used[index] = true;
                sockets[index].2.try_clone()?
            }
            None => polymq_driver::listen(asked).with_context(|| {
                format!("listener `{}` cannot listen on {asked}", endpoint.name)
            })?,
        };
        ports.push((Port { endpoint: endpoint.clone(), asked, socket, accepting: None }, index));
    }
    Ok(ports)
}
