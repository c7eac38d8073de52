//! The addresses that the server listens on.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use anyhow::Context;
use polymq_driver::{Bind, Listener, ListenerSpec, Tls};
use polymq_http::{Audience, HttpListener};
use polymq_model::VhostName;

use crate::{
    banner::Bound,
    config::{Config, Endpoint, EndpointProtocol},
    protocols::Protocols,
};

/// Every address is taken before anything else starts, so that a port in use costs nothing.
#[derive(Default)]
pub(crate) struct Ports {
    pub(crate) clients: Vec<Listener>,
    pub(crate) http: Vec<HttpListener>,
    pub(crate) bound: Vec<Bound>,
}

impl Ports {
    /// Takes every address of the configuration.
    ///
    /// Errors: one that cannot be taken.
    pub(crate) fn bind(
        config: &Config,
        protocols: &Protocols,
        certificates: &BTreeMap<String, Arc<Tls>>,
    ) -> anyhow::Result<Self> {
        let mut ports = Self::default();
        for endpoint in &config.endpoints {
            let named =
                |name: &Option<String>| name.as_ref().and_then(|n| certificates.get(n)).cloned();
            let (tls, start_tls) = (named(&endpoint.tls), named(&endpoint.starttls));
            for &asked in &endpoint.addresses {
                let has_tls = tls.is_some();
                let spoken = protocols.of(endpoint.protocol);
                let address = match spoken.is_empty() {
                    false => {
                        let listener = Listener::bind(ListenerSpec {
                            name: endpoint.name.as_str().into(),
                            protocols: spoken,
                            is_shared: endpoint.protocol == EndpointProtocol::Auto,
                            bind: Bind::Tcp(asked),
                            tls: tls.clone(),
                            start_tls: start_tls.clone(),
                            vhost: VhostName::new(&endpoint.vhost)?,
                        })?;
                        let address = listener.local_addr().unwrap_or(asked);
                        ports.clients.push(listener);
                        address
                    }
                    true => {
                        let audience = match endpoint.protocol {
                            EndpointProtocol::Metrics => Audience::Everybody,
                            _ => Audience::Loopback,
                        };
                        ports.bind_http(asked, (endpoint, audience, tls.clone()))?
                    }
                };
                let (name, protocol) = (endpoint.name.clone(), endpoint.protocol);
                ports.bound.push(Bound { name, protocol, address, has_tls });
            }
        }
        Ok(ports)
    }

    fn bind_http(
        &mut self,
        asked: SocketAddr,
        (endpoint, audience, tls): (&Endpoint, Audience, Option<Arc<Tls>>),
    ) -> anyhow::Result<SocketAddr> {
        let socket = TcpListener::bind(asked)
            .with_context(|| format!("the HTTP listener cannot listen on {asked}"))?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let (name, vhost) = (endpoint.name.as_str().into(), VhostName::new(&endpoint.vhost)?);
        self.http.push(HttpListener { name, socket, audience, tls, vhost });
        Ok(address)
    }
}
