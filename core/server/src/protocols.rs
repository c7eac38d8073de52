//! The protocols of this server, as the configuration wants them.

use std::sync::Arc;

use polymq_amqp091::Amqp091;
use polymq_contract::{Mechanisms, Offer, Protocol};
use polymq_driver::Form;
use polymq_http::{Spans, WebSocketRoute};
use polymq_json::Json;
use polymq_model::Formats;
use polymq_mqtt::Mqtt;
use polymq_stomp::Stomp;
use polymq_xmpp::Xmpp;

use crate::{
    config::{
        Config, EndpointProtocol,
        value::{Mechanism, WebSocketProtocol},
    },
    xmpp,
};

/// The protocols of this server.
pub(crate) struct Protocols {
    amqp: Arc<dyn Protocol>,
    mqtt: Arc<dyn Protocol>,
    stomp: Arc<dyn Protocol>,
    pub(crate) xmpp: Arc<dyn Protocol>,
    json: Arc<dyn Protocol>,
    /// Who makes spans for HTTP, which has no sessions.
    pub(crate) spans: Option<Arc<dyn Spans>>,
    /// What all of them offer.
    offer: Offer,
}

/// The ways to log in that the configuration wants offered.
fn mechanisms(config: &Config) -> Mechanisms {
    let offers = |mechanism| config.auth.mechanisms.contains(&mechanism);
    Mechanisms {
        plain: offers(Mechanism::Plain),
        plain_in_clear: config.auth.plain_without_tls.into(),
        scram_sha_1: offers(Mechanism::ScramSha1),
        scram_sha_256: offers(Mechanism::ScramSha256),
        external: offers(Mechanism::External),
    }
}

impl Protocols {
    pub(crate) fn new(config: &Config) -> Self {
        let offer = Offer::new(mechanisms(config));
        let amqp = polymq_amqp091::Settings {
            version: config.server.amqp_version.clone(),
            cluster_name: config.server.name.clone(),
            offer: offer.clone(),
        };
        let stomp = polymq_stomp::Settings {
            exchange: config.stomp.exchange.clone(),
            strict_host: config.stomp.strict_host,
            nack_requeues: config.stomp.nack_requeues,
        };
        Self {
            amqp: Arc::new(Amqp091::new(amqp)),
            mqtt: Arc::new(Mqtt::new(config.mqtt.exchange.clone(), offer.clone())),
            stomp: Arc::new(Stomp::new(stomp)),
            xmpp: Arc::new(Xmpp::new(xmpp::settings(config, offer.clone()))),
            json: Arc::new(Json::new(&config.server.name)),
            spans: None,
            offer,
        }
    }

    /// What another configuration says for connections that come from now on.
    pub(crate) fn set(&self, config: &Config) {
        self.offer.set(mechanisms(config));
    }

    /// The same, with spans for a collector, if one is configured.
    ///
    /// Errors: those of the tracer.
    #[cfg(feature = "otel")]
    pub(crate) fn traced(self, config: &Config) -> anyhow::Result<Self> {
        let started = crate::otel::Tracer::start(&config.tracing, &config.server.name)?;
        let Some(tracer) = started else { return Ok(self) };
        let Self { amqp, mqtt, stomp, xmpp, json, offer, .. } = self;
        let [amqp, mqtt, stomp, xmpp, json] =
            [amqp, mqtt, stomp, xmpp, json].map(|protocol| tracer.wrap(protocol));
        Ok(Self { amqp, mqtt, stomp, xmpp, json, spans: Some(tracer), offer })
    }

    pub(crate) fn formats(&self) -> Formats {
        Formats::new(self.all().iter().flat_map(|protocol| protocol.formats()))
    }

    pub(crate) fn all(&self) -> [Arc<dyn Protocol>; 5] {
        [&self.amqp, &self.mqtt, &self.stomp, &self.xmpp, &self.json].map(Arc::clone)
    }

    /// The protocols of an endpoint whose clients have sessions; none for pages of HTTP.
    pub(crate) fn of(&self, endpoint: EndpointProtocol) -> Vec<Arc<dyn Protocol>> {
        let spoken: &[_] = match endpoint {
            EndpointProtocol::Amqp => &[&self.amqp],
            EndpointProtocol::Mqtt => &[&self.mqtt],
            EndpointProtocol::Stomp => &[&self.stomp],
            EndpointProtocol::Xmpp => &[&self.xmpp],
            EndpointProtocol::Auto => &[&self.amqp, &self.mqtt, &self.stomp, &self.xmpp],
            EndpointProtocol::Http | EndpointProtocol::Metrics => &[],
        };
        spoken.iter().map(|protocol| Arc::clone(protocol)).collect()
    }

    /// What is spoken over WebSocket: what the configuration lists and a listener speaks.
    pub(crate) fn over_web_socket(&self, config: &Config) -> Vec<WebSocketRoute> {
        let is_spoken = |protocol: EndpointProtocol| {
            let speaks = |one: EndpointProtocol| one == protocol || one == EndpointProtocol::Auto;
            config.endpoints.iter().any(|endpoint| speaks(endpoint.protocol))
        };
        let route = |protocol: &WebSocketProtocol| match protocol {
            WebSocketProtocol::Amqp => is_spoken(EndpointProtocol::Amqp).then(|| WebSocketRoute {
                path: "/ws/amqp",
                subprotocols: &["amqp"],
                form: Form::Binary,
                protocol: Arc::clone(&self.amqp),
                greeting: None,
            }),
            WebSocketProtocol::Mqtt => is_spoken(EndpointProtocol::Mqtt).then(|| WebSocketRoute {
                path: "/ws/mqtt",
                subprotocols: &["mqtt", "mqttv3.1"],
                form: Form::Binary,
                protocol: Arc::clone(&self.mqtt),
                greeting: None,
            }),
            WebSocketProtocol::Stomp => {
                is_spoken(EndpointProtocol::Stomp).then(|| WebSocketRoute {
                    path: "/ws/stomp",
                    subprotocols: &["v12.stomp", "v11.stomp", "v10.stomp"],
                    form: Form::Text,
                    protocol: Arc::clone(&self.stomp),
                    greeting: None,
                })
            }
            WebSocketProtocol::Xmpp => is_spoken(EndpointProtocol::Xmpp).then(|| WebSocketRoute {
                path: "/ws/xmpp",
                subprotocols: &["xmpp"],
                form: Form::TextMessages,
                protocol: Arc::clone(&self.xmpp),
                greeting: None,
            }),
            WebSocketProtocol::Json => Some(WebSocketRoute {
                path: "/ws/json",
                subprotocols: &[polymq_json::SUBPROTOCOL],
                form: Form::Messages,
                protocol: Arc::clone(&self.json),
                greeting: Some(polymq_json::connect_message),
            }),
        };
        config.http.web_sockets.iter().filter_map(route).collect()
    }
}

#[cfg(test)]
mod tests {
    use polymq_broker::PROTOCOLS;

    use super::*;
    use crate::config::Sources;

    #[test]
    fn every_protocol_has_counters_of_its_own() {
        let loaded = Config::load(&Sources::default()).unwrap_or_else(|wrong| panic!("{wrong}"));
        for protocol in Protocols::new(&loaded.config).all() {
            assert!(PROTOCOLS.contains(&protocol.name()), "{} counts as other", protocol.name());
        }
    }
}
