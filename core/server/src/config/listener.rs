//! The listeners: the five that exist by themselves, and those that the operator names.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use super::{
    Ports,
    key::Configured,
    section::{Listener, Server, Tls},
    source::Source,
    value::{Bind, ListenerProtocol, Setting},
};

/// Listeners that exist without being mentioned, with their ports.
pub(super) const DEFAULT_LISTENERS: [(&str, u16); 6] = [
    ("amqp", 5672),
    ("mqtt", 1883),
    ("stomp", 61613),
    ("xmpp", 5222),
    ("http", 15672),
    ("metrics", 15692),
];

/// What an endpoint speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndpointProtocol {
    Amqp,
    Mqtt,
    Stomp,
    Xmpp,
    Http,
    Metrics,
    /// All but metrics, as the first bytes of each connection say.
    Auto,
}

impl fmt::Display for EndpointProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Amqp => "amqp",
            Self::Mqtt => "mqtt",
            Self::Stomp => "stomp",
            Self::Xmpp => "xmpp",
            Self::Http => "http",
            Self::Metrics => "metrics",
            Self::Auto => "auto",
        })
    }
}

/// A listener with everything decided.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Endpoint {
    pub(crate) name: String,
    pub(crate) protocol: EndpointProtocol,
    pub(crate) addresses: Vec<SocketAddr>,
    /// Name of a certificate.
    pub(crate) tls: Option<String>,
    /// Name of a certificate that clients may switch to.
    pub(crate) starttls: Option<String>,
    pub(crate) vhost: String,
}

impl Endpoint {
    /// Whether it takes logins from beyond loopback.
    pub(crate) fn is_open(&self) -> bool {
        self.protocol != EndpointProtocol::Metrics
            && !self.addresses.iter().all(|address| address.ip().is_loopback())
    }
}

/// Reads all listeners, those without an address left out.
pub(super) fn endpoints(source: &mut Source, server: &Server, ports: Ports) -> Vec<Endpoint> {
    let mut names: Vec<_> = DEFAULT_LISTENERS.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.extend(
        source
            .names("listeners")
            .into_iter()
            .filter(|name| !DEFAULT_LISTENERS.iter().any(|(known, _)| known == name)),
    );
    names.into_iter().filter_map(|name| endpoint(source, server, ports, name)).collect()
}

fn endpoint(source: &mut Source, server: &Server, ports: Ports, name: String) -> Option<Endpoint> {
    let path = format!("listeners.{name}");
    let listener = Listener::read(source, &path);
    let protocol = protocol(source, &path, &name, listener.protocol)?;
    source.show_as(&format!("{path}.protocol"), format!("\"{protocol}\""));
    let mut binds = listener.bind;
    let bind_path = format!("{path}.bind");
    if source.origin(&bind_path) == super::problem::Origin::Default {
        match DEFAULT_LISTENERS.iter().find(|(known, _)| *known == name) {
            Some((_, port)) => {
                binds = vec![Bind { address: None, port: *port }];
                source.show_as(&bind_path, binds.show());
            }
            None => {
                let help = Some(format!("add bind = [\":PORT\"] to [{path}]"));
                source.note_at(&bind_path, format!("listener `{name}` has no address"), help);
            }
        }
    }
    if binds.is_empty() {
        return None;
    }
    let mut addresses = Vec::new();
    for bind in binds {
        match address(bind, server.default_address, ports) {
            Some(address) => addresses.push(address),
            None => {
                let message = format!("port {} of `{name}` grows beyond 65535", bind.port);
                source.note_at(&bind_path, message, Some("lower --port-offset".to_owned()));
            }
        }
    }
    // One free port is enough, wherever the listener would listen otherwise.
    if ports == Ports::Free {
        addresses.truncate(1);
    }
    let vhost =
        if listener.vhost.is_empty() { server.default_vhost.clone() } else { listener.vhost };
    let tls = (!listener.tls.is_empty()).then_some(listener.tls);
    let starttls = (!listener.starttls.is_empty()).then_some(listener.starttls);
    Some(Endpoint { name, protocol, addresses, tls, starttls, vhost })
}

fn protocol(
    source: &mut Source,
    path: &str,
    name: &str,
    said: ListenerProtocol,
) -> Option<EndpointProtocol> {
    let word = if said == ListenerProtocol::ByName { name.to_owned() } else { said.to_string() };
    match word.as_str() {
        "amqp" => Some(EndpointProtocol::Amqp),
        "mqtt" => Some(EndpointProtocol::Mqtt),
        "stomp" => Some(EndpointProtocol::Stomp),
        "xmpp" => Some(EndpointProtocol::Xmpp),
        "http" => Some(EndpointProtocol::Http),
        "metrics" => Some(EndpointProtocol::Metrics),
        "auto" => Some(EndpointProtocol::Auto),
        _ => {
            let help = Some(format!("add protocol = \"amqp\" (or another) to [{path}]"));
            let message = format!("listener `{name}` does not say what it speaks");
            source.note_at(&format!("{path}.bind"), message, help);
            None
        }
    }
}

fn address(bind: Bind, default: IpAddr, ports: Ports) -> Option<SocketAddr> {
    let address = bind.address.unwrap_or(default);
    match ports {
        Ports::Configured => Some(SocketAddr::new(address, bind.port)),
        Ports::Free => Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)),
        Ports::Offset(_) if bind.port == 0 => Some(SocketAddr::new(address, 0)),
        Ports::Offset(offset) => Some(SocketAddr::new(address, bind.port.checked_add(offset)?)),
    }
}

/// Notes addresses that two listeners want.
pub(super) fn check_addresses(source: &mut Source, endpoints: &[Endpoint]) {
    let mut taken: Vec<(SocketAddr, &str)> = Vec::new();
    for endpoint in endpoints {
        for address in endpoint.addresses.iter().filter(|address| address.port() != 0) {
            let other = taken.iter().find(|(other, _)| is_shared(*address, *other));
            if let Some((_, other)) = other {
                let path = format!("listeners.{}.bind", endpoint.name);
                let message = format!("`{}` and `{other}` both listen on {address}", endpoint.name);
                source.note_at(&path, message, Some("give one of them another port".to_owned()));
            }
            taken.push((*address, &endpoint.name));
        }
    }
}

/// Whether one address is also the other: `0.0.0.0` is every one of IPv4, and `[::]` every one.
fn is_shared(one: SocketAddr, other: SocketAddr) -> bool {
    let covers =
        |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    let (a, b) = (one.ip(), other.ip());
    one.port() == other.port() && (a == b || covers(a, b) || covers(b, a))
}

/// Notes listeners that name no certificate of ours, and certificates that are incomplete.
pub(super) fn check_tls(source: &mut Source, endpoints: &[Endpoint], tls: &BTreeMap<String, Tls>) {
    for endpoint in endpoints {
        for (key, name) in [("tls", &endpoint.tls), ("starttls", &endpoint.starttls)] {
            if let Some(name) = name.as_ref().filter(|name| !tls.contains_key(*name)) {
                let path = format!("listeners.{}.{key}", endpoint.name);
                let help = Some(format!("add a table [tls.{name}]"));
                source.note_at(&path, format!("there is no certificate `{name}`"), help);
            }
        }
        if endpoint.starttls.is_some()
            && (endpoint.tls.is_some()
                || !matches!(endpoint.protocol, EndpointProtocol::Xmpp | EndpointProtocol::Auto))
        {
            let path = format!("listeners.{}.starttls", endpoint.name);
            let message = "only clients of XMPP switch to TLS, and only from clear text";
            source.note_at(&path, message.to_owned(), Some("use `tls`".to_owned()));
        }
    }
    for (name, tls) in tls {
        for (key, file) in [("cert_file", &tls.cert_file), ("key_file", &tls.key_file)] {
            if file.as_os_str().is_empty() {
                let path = format!("tls.{name}.{key}");
                source.note_at(&path, format!("`{path}` is missing"), None);
            }
        }
        let wants_ca = tls.client_auth != super::value::ClientAuth::None;
        if wants_ca && tls.client_ca_file.as_os_str().is_empty() {
            let path = format!("tls.{name}.client_auth");
            let help = Some(format!("set tls.{name}.client_ca_file"));
            source.note_at(&path, "client certificates need an authority".to_owned(), help);
        }
    }
}
