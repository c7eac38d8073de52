//! The protocols of this server, as the configuration wants them.

use std::sync::Arc;

use polymq_amqp091::Amqp091;
use polymq_contract::Protocol;
use polymq_model::Formats;
use polymq_mqtt::Mqtt;
use polymq_stomp::Stomp;
use polymq_xmpp::Xmpp;

use crate::{
    config::{Config, EndpointProtocol, value::Mechanism},
    xmpp,
};

/// The protocols of this server.
pub(crate) struct Protocols {
    amqp: Arc<dyn Protocol>,
    mqtt: Arc<dyn Protocol>,
    stomp: Arc<dyn Protocol>,
    pub(crate) xmpp: Arc<dyn Protocol>,
}

impl Protocols {
    pub(crate) fn new(config: &Config) -> Self {
        let amqp = polymq_amqp091::Settings {
            version: config.server.amqp_version.clone(),
            cluster_name: config.server.name.clone(),
            passwords: config.auth.mechanisms.contains(&Mechanism::Plain),
            certificates: config.auth.mechanisms.contains(&Mechanism::External),
        };
        let stomp = polymq_stomp::Settings {
            exchange: config.stomp.exchange.clone(),
            strict_host: config.stomp.strict_host,
            nack_requeues: config.stomp.nack_requeues,
        };
        Self {
            amqp: Arc::new(Amqp091::new(amqp)),
            mqtt: Arc::new(Mqtt::new(
                config.mqtt.exchange.clone(),
                config.auth.mechanisms.contains(&Mechanism::ScramSha256),
            )),
            stomp: Arc::new(Stomp::new(stomp)),
            xmpp: Arc::new(Xmpp::new(xmpp::settings(config))),
        }
    }

    pub(crate) fn formats(&self) -> Formats {
        Formats::new(self.all().iter().flat_map(|protocol| protocol.formats()))
    }

    pub(crate) fn all(&self) -> [Arc<dyn Protocol>; 4] {
        [&self.amqp, &self.mqtt, &self.stomp, &self.xmpp].map(Arc::clone)
    }

    /// The protocol of an endpoint that clients speak to; `None` for pages of HTTP.
    pub(crate) fn of(&self, endpoint: EndpointProtocol) -> Option<&Arc<dyn Protocol>> {
        match endpoint {
            EndpointProtocol::Amqp => Some(&self.amqp),
            EndpointProtocol::Mqtt => Some(&self.mqtt),
            EndpointProtocol::Stomp => Some(&self.stomp),
            EndpointProtocol::Xmpp => Some(&self.xmpp),
            EndpointProtocol::Http | EndpointProtocol::Metrics => None,
        }
    }
}
